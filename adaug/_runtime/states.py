"""Checks a saved state against the description of the object that will load it, before it does."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from adaug._runtime.checks import Rule, as_number, as_text, mapping

Description = Mapping[str, "Rule | Description"]  # name -> rule; a state should have exactly these names
MOST = 5  # mistakes that an error names


def check_state(state: Any, description: Description, owner: str) -> None:
    """Raises TypeError or ValueError, which names the first mistakes, unless a state is as described.

    Args:
        state: The state to check.
        description: What it should be.
        owner: The beginning of the error, such as "A state of branch 'asr'".
    """
    if not isinstance(state, Mapping):
        raise TypeError(f"{owner} should be what `state_dict` returned, a mapping. Found {type(state).__name__}.")
    mistakes = _mistakes(state, description, "")
    if mistakes:
        more = f"\n(and {len(mistakes) - MOST} more)" if len(mistakes) > MOST else ""
        raise ValueError(f"{owner} should be what `state_dict` returned. " + "\n".join(mistakes[:MOST]) + more)


def _mistakes(state: Any, description: Description, path: str) -> list[str]:
    if not isinstance(state, Mapping):
        return [f"`{path}` should be a mapping. Found {as_text(state)}."]
    inside = f"{path}." if path else ""
    result = []
    unknown = [str(name) for name in state if name not in description]
    if unknown:
        result.append(f"`{path or 'it'}` should hold {', '.join(description) or 'nothing'}. Found {', '.join(unknown)}.")
    for name, part in description.items():
        if name not in state:
            result.append(f"`{inside}{name}` should be there. Found nothing.")
        elif not isinstance(part, Rule):
            result += _mistakes(state[name], part, inside + name)
        else:
            try:
                part.read(state[name])
            except (TypeError, ValueError) as error:
                result.append(f"`{inside}{name}` should be {part.should}. Found {str(error) or as_text(state[name])}.")
    return result


# ---- rules


def tensor(
    own: Tensor, *, exact: bool = True, finite: bool = True, fits: Callable[[Tensor], bool] | None = None, and_: str = ""
) -> Rule:
    """A tensor like `own`.

    Args:
        own: A tensor with the right shape and dtype.
        exact: Whether the dtype must be that of `own`. Otherwise any floating point dtype fits.
        finite: Whether all values must be finite.
        fits: A check of the values.
        and_: The same check in words.
    """

    def read(value: Any) -> Tensor:
        if not isinstance(value, Tensor):
            raise TypeError
        if value.shape != own.shape or (value.dtype != own.dtype if exact else not value.is_floating_point()):
            raise ValueError
        if finite and not _finite(value):
            raise ValueError("numbers that are not finite")
        if fits is not None and not fits(value):
            raise ValueError("other numbers")
        return value

    kind = f"{own.dtype}" if exact else "floating point"
    return Rule(f"a {'finite ' if finite else ''}tensor of shape {tuple(own.shape)}, {kind}{and_}", read)


def anything() -> Rule:
    """Anything: the user's own code saves and checks it."""
    return Rule("there", lambda value: value)


def weights(module: nn.Module) -> Description:
    """The description of a module's state. Parameters must be finite; buffers may hold masks of -inf."""
    parameters = {name for name, _ in module.named_parameters()}
    return {
        name: tensor(value, finite=name in parameters) if isinstance(value, Tensor) else anything()
        for name, value in module.state_dict().items()
    }


# ---- optimizers


def check_optimizer(optimizer: torch.optim.Optimizer, state: Any, owner: str) -> None:
    """Raises ValueError unless a state has the names, shapes and types that an optimizer can load.

    Shapes matter most: with a wrong one, a fused step would write beyond the end of a tensor.
    """
    moments = mapping(mapping(anything(), ""), "a mapping of mappings")
    check_state(state, {"state": moments, "param_groups": _groups(optimizer)}, owner)
    for i, (own, saved) in enumerate(zip(optimizer.param_groups, state["param_groups"], strict=True)):
        # torch fills in what is off by default, so that states of older versions load
        expected = {name: _like(value) for name, value in own.items() if name in saved or not (value is None or value is False)}
        check_state(dict(saved), expected | {"params": anything()}, f"{owner}, group {i},")
    numbers = [number for group in state["param_groups"] for number in group["params"]]
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    unknown = [number for number in state["state"] if number not in numbers]
    if unknown or len(set(numbers)) != len(numbers):
        raise ValueError(f"{owner} should name each of its own parameters once. Found {as_text(unknown or numbers)}.")
    kept = state["state"]
    fused = any(group.get("fused") for group in state["param_groups"])
    for number, parameter in zip(numbers, parameters, strict=True):
        saved = kept.get(number, {})
        alike = [kept.get(other, {}) for other, one in zip(numbers, parameters, strict=True) if one.ndim == parameter.ndim]
        names = optimizer.state.get(parameter) or max(alike, key=len)  # before its first step it does not know the names
        if saved:
            expected = {name: _kept(name, value, parameter, fused) for name, value in names.items()}
            check_state(saved, expected, f"{owner}, parameter {number},")


def _kept(name: str, own: Any, parameter: Tensor, fused: bool) -> Rule:
    """What an optimizer keeps of a parameter, such as a moment: a single number, or a tensor of the same shape.

    A fused one keeps no single number but its step. Others may also keep means over some dimensions, as Adafactor does.
    """
    if not isinstance(own, Tensor):
        return _like(own)

    def read(value: Any) -> Tensor:
        if not isinstance(value, Tensor) or value.is_complex() or value.dtype == torch.bool:
            raise TypeError
        sides = zip(value.shape, parameter.shape, strict=False)
        means = value.ndim in (0, parameter.ndim) and all(side in (1, whole) for side, whole in sides)
        if not (value.shape == parameter.shape or (means and not fused) or (value.ndim == 0 and name == "step")):
            raise ValueError
        if not _finite(value):
            raise ValueError("numbers that are not finite")
        return value

    return Rule(f"a finite tensor that fits a parameter of shape {tuple(parameter.shape)}", read)


def _groups(optimizer: torch.optim.Optimizer) -> Rule:
    sizes = [len(group["params"]) for group in optimizer.param_groups]

    def read(value: Any) -> Any:
        if not isinstance(value, Sequence) or not all(isinstance(group, Mapping) for group in value):
            raise TypeError
        found = [group.get("params") for group in value]
        if any(not isinstance(numbers, Sequence) or any(type(n) is not int for n in numbers) for numbers in found):
            raise TypeError("groups without numbers of parameters")
        if [len(numbers) for numbers in found] != sizes:
            raise ValueError(f"groups of {[len(numbers) for numbers in found]}")
        return value

    return Rule(f"parameter groups of {sizes}", read)


def _like(own: Any) -> Rule:
    """Something of the same type as `own`, and finite."""
    if isinstance(own, Tensor):
        return tensor(own)

    def read(value: Any) -> Any:
        if isinstance(own, (list, tuple)):
            if not isinstance(value, (list, tuple)) or len(own) != len(value):
                raise TypeError
            return [_like(mine).read(other) for mine, other in zip(own, value, strict=True)]
        if isinstance(own, (int, float)) and not isinstance(own, bool):
            if not math.isfinite(as_number(value)) and math.isfinite(own):
                raise ValueError
        elif not isinstance(value, (bool, type(None)) if isinstance(own, (bool, type(None))) else type(own)):
            raise TypeError
        return value

    return Rule(f"like {as_text(own)}", read)


def _finite(value: Tensor) -> bool:
    return bool(torch.isfinite(value.detach()).all())

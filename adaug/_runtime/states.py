"""Checks a saved state against the description of the object that will load it, before it does."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from adaug._runtime.checks import Rule, as_text, mapping

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
    """Raises ValueError unless an optimizer can load a state and continue.

    It takes a step with a copy of the optimizer: what the copy then holds is what the state should hold, in names, shapes and
    types. This matters because with a wrong shape a fused step would write beyond the end of a tensor.
    """
    moments = mapping(mapping(anything(), ""), "a mapping of mappings")
    check_state(state, {"state": moments, "param_groups": _groups(optimizer)}, owner)
    loaded, fresh = _twin(optimizer), _twin(optimizer)
    try:
        loaded.load_state_dict(copy.deepcopy(dict(state)))
    except Exception as error:
        raise ValueError(f"{owner} should fit its optimizer. Found that it does not load: {error}.") from error
    for i, (own, other) in enumerate(zip(optimizer.param_groups, loaded.param_groups, strict=True)):
        expected = {name: _like(value) for name, value in own.items() if name != "params"}
        check_state({name: value for name, value in other.items() if name != "params"}, expected, f"{owner}, group {i},")
    for group, other in zip(fresh.param_groups, loaded.param_groups, strict=True):
        group.update({name: value for name, value in other.items() if name != "params"})
    fresh.state.clear()
    _step(fresh, owner)
    saved = [number for group in state["param_groups"] for number in group["params"]]
    parameters = [parameter for group in fresh.param_groups for parameter in group["params"]]
    unknown = [number for number in state["state"] if number not in saved]
    if unknown or len(set(saved)) != len(saved):
        raise ValueError(f"{owner} should name each of its own parameters once. Found {as_text(unknown or saved)}.")
    for number, parameter in zip(saved, parameters, strict=True):
        if state["state"].get(number):
            kept = {name: _like(value) for name, value in fresh.state[parameter].items()}
            check_state(state["state"][number], kept, f"{owner}, parameter {number},")
    _step(loaded, owner)


def _twin(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """A copy of an optimizer with parameters of its own, whose gradients are zero."""
    memo: dict[int, Any] = {}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            twin = nn.Parameter(torch.zeros_like(parameter), requires_grad=parameter.requires_grad)  # the real ones may be NaN
            twin.grad = torch.zeros_like(twin) if parameter.requires_grad else None
            memo[id(parameter)] = twin
    return copy.deepcopy(optimizer, memo)


def _step(twin: torch.optim.Optimizer, owner: str) -> None:
    """Takes a step with a copy. Raises ValueError if this fails or gives numbers that are not finite."""
    try:
        twin.step()
    except Exception as error:
        raise ValueError(f"{owner} should be one that its optimizer can continue from. Found an error: {error}.") from error
    if not all(_finite(parameter) for group in twin.param_groups for parameter in group["params"]):
        raise ValueError(f"{owner} should be one that its optimizer can continue from. Found that its next step is not finite.")


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
    return Rule(f"like {as_text(own)}", lambda value: _alike(own, value))


def _alike(own: Any, value: Any) -> Any:
    switches = (bool, type(None))
    if isinstance(own, switches):
        fits = isinstance(value, switches)
    elif isinstance(own, (int, float)):
        fits = isinstance(value, (int, float)) and not isinstance(value, bool)
        if fits and math.isfinite(own) and not math.isfinite(value):
            raise ValueError
    elif isinstance(own, (list, tuple)):
        fits = isinstance(value, (list, tuple)) and len(own) == len(value)
        for mine, other in zip(own, value, strict=True) if fits else ():
            _like(mine).read(other)
    else:
        fits = isinstance(value, type(own))
    if not fits:
        raise TypeError
    return value


def _finite(value: Tensor) -> bool:
    return bool(torch.isfinite(value.detach()).all())

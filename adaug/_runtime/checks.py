"""Rules for arguments. Each rule exists once, in words and in code.

One error names all mistakes of a call, before anything has changed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, SupportsIndex

import numpy as np
import torch
from torch import Tensor

LONGEST = 80  # characters that an error shows of a value


class WrongTypeError(TypeError, ValueError):
    """A wrong type, perhaps together with wrong values. It can be caught as TypeError and as ValueError."""


@dataclass(frozen=True)
class Rule:
    """What something should be.

    Attributes:
        should: The words that follow "should be" in an error.
        read: A function that returns the value as the library keeps it (NumPy's numbers as plain ones). It raises TypeError or
            ValueError; their text says what was found, unless that is just the value.
    """

    should: str
    read: Callable[[Any], Any]


Rules = Mapping[str, Rule]


def checked(given: Mapping[str, Any], rules: Rules, owner: str = "") -> dict[str, Any]:
    """Checks arguments and returns them as the library keeps them.

    Args:
        given: Arguments by name. Those without a rule stay as they are.
        rules: Rules by name. Those without an argument are skipped.
        owner: The class or function that the arguments belong to, for errors, such as "Rotate".

    Raises:
        ValueError: Arguments are out of their range. The error names all of them.
        TypeError: Some have the wrong type (this error is also a ValueError).
    """
    result, mistakes, kinds = dict(given), [], set()
    for name, rule in rules.items():
        if name not in given:
            continue
        try:
            result[name] = rule.read(given[name])
        except (TypeError, ValueError) as error:
            found = str(error) or as_text(given[name])
            kinds.add(type(error))
            mistakes.append(f"`{name}`{' of ' + owner if owner else ''} should be {rule.should}. Found {found}.")
    if mistakes:
        kind = WrongTypeError if any(issubclass(kind, TypeError) for kind in kinds) else ValueError
        raise kind("\n".join(mistakes)) from None
    return result


def check_fields(instance: Any, owner: str | None = None) -> None:
    """Checks the fields of a frozen dataclass by the `_rules` of its classes, and keeps what the rules return."""
    rules: dict[str, Rule] = {}
    for cls in reversed(type(instance).__mro__):
        rules |= vars(cls).get("_rules", {})
    given = {name: getattr(instance, name) for name in rules}
    for name, value in checked(given, rules, type(instance).__name__ if owner is None else owner).items():
        object.__setattr__(instance, name, value)


def as_text(value: Any) -> str:
    """A short text for a value in an error."""
    if isinstance(value, (Tensor, np.ndarray)) and value.ndim:
        return f"{type(value).__name__} of shape {tuple(value.shape)}, {value.dtype}"
    text = repr(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


# ---- rules


def number(
    *,
    low: float = -math.inf,
    high: float = math.inf,
    above: float = -math.inf,
    below: float = math.inf,
    finite: bool = True,
    should: str | None = None,
) -> Rule:
    """A number; NumPy's and tensors' count too. `low` and `high` are allowed values, `above` and `below` are not."""

    def read(value: Any) -> float:
        plain = as_number(value)
        inside = low <= plain <= high and (plain > above or above == -math.inf) and (plain < below or below == math.inf)
        if not inside or (finite and math.isinf(plain)):
            raise ValueError
        return plain

    if should is None:
        should = f"a {'finite ' if finite else ''}number"
        if math.isfinite(low) and math.isfinite(high):
            should = f"a number in [{low:g}, {high:g}]"
        elif math.isfinite(above) and math.isfinite(high):
            should = f"a number in ({above:g}, {high:g}]"
        elif math.isfinite(low) and math.isfinite(below):
            should = f"a number in [{low:g}, {below:g})"
        elif math.isfinite(above) and math.isfinite(below):
            should = f"a number between {above:g} and {below:g}"
        elif math.isfinite(above):
            should += f" above {above:g}"
        elif math.isfinite(low):
            should += f" of at least {low:g}"
    return Rule(should, read)


CAP = number(above=1, finite=False, should="above 1 (1 would force the uniform distribution)")


def integer(at_least: int | None = None, at_most: int | None = None) -> Rule:
    """An integer; NumPy's count too."""

    def read(value: Any) -> int:
        plain = as_integer(value)
        if (at_least is not None and plain < at_least) or (at_most is not None and plain > at_most):
            raise ValueError
        return plain

    limits = [f"at most {at_most}"] if at_most is not None else []
    limits += [f"at least {at_least}"] if at_least is not None else []
    return Rule("an integer" + (f" of {' and '.join(limits)}" if limits else ""), read)


def flag() -> Rule:
    """True or False."""

    def read(value: Any) -> bool:
        if not isinstance(value, (bool, np.bool_)):
            raise TypeError
        return bool(value)

    return Rule("True or False", read)


def text(should: str = "a text", fits: Callable[[str], bool] = bool) -> Rule:
    """A string."""

    def read(value: Any) -> str:
        if not isinstance(value, str):
            raise TypeError
        if not fits(value):
            raise ValueError
        return str(value)

    return Rule(should, read)


def one_of(*choices: Any) -> Rule:
    """One of some strings."""

    def read(value: Any) -> Any:
        if not isinstance(value, str):
            raise TypeError
        if value not in choices:
            raise ValueError
        return value

    *others, last = (f"'{choice}'" for choice in choices)
    return Rule(f"{', '.join(others)} or {last}" if others else last, read)


def function(signature: str = "") -> Rule:
    """Something that can be called."""

    def read(value: Any) -> Any:
        if not callable(value):
            raise TypeError(f"{type(value).__name__}" if value is None or isinstance(value, (int, float)) else "")
        return value

    return Rule("callable" + (f", {signature}" if signature else ""), read)


def instance(kind: type | tuple[type, ...], should: str) -> Rule:
    """An object of a class."""

    def read(value: Any) -> Any:
        if not isinstance(value, kind):
            detail = f" {as_text(value)}" if isinstance(value, (str, int, float)) else ""
            raise TypeError(f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__ + detail)
        return value

    return Rule(should, read)


def several(rule: Rule, should: str, *, least: int = 0, length: int | None = None) -> Rule:
    """A list or a tuple of things that fit a rule, kept as a tuple. Strings and mappings do not count as lists."""

    def read(value: Any) -> tuple[Any, ...]:
        if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Iterable):
            raise TypeError
        items, given = [], () if getattr(value, "ndim", 1) == 0 else tuple(value)
        for item in given:
            try:
                items.append(rule.read(item))
            except (TypeError, ValueError) as error:
                raise type(error)(str(error) or f"{as_text(item)} in {as_text(value)}") from None
        if len(items) < least or (length is not None and len(items) != length):
            raise ValueError("none" if not items else as_text(value))
        return tuple(items)

    return Rule(should, read)


def optional(rule: Rule, meaning: str = "") -> Rule:
    """What fits a rule, or None."""
    return Rule(
        f"{rule.should}, or None{' ' + meaning if meaning else ''}", lambda value: None if value is None else rule.read(value)
    )


def batches() -> Rule:
    """A loader: something that gives batches and is not a batch itself."""

    def read(value: Any) -> Any:
        if isinstance(value, (Mapping, Tensor)):
            raise TypeError(f"{type(value).__name__}, a batch itself; pass [batch]")
        scalar = isinstance(value, (str, bytes, type, np.generic)) or getattr(value, "ndim", 1) == 0
        if scalar or not (isinstance(value, Iterable) or hasattr(value, "__getitem__")):
            raise TypeError
        return value

    return Rule("something that gives batches, such as a DataLoader or a list", read)


def mapping(rule: Rule, should: str) -> Rule:
    """A mapping to things that fit a rule, kept as a dict."""

    def read(value: Any) -> dict[Any, Any]:
        if not isinstance(value, Mapping):
            raise TypeError(type(value).__name__)
        result, wrong, kinds = {}, [], set()
        for key, item in value.items():
            try:
                result[key] = rule.read(item)
            except (TypeError, ValueError) as error:
                wrong.append(f"{str(error) or as_text(item)} for {key!r}")
                kinds.add(type(error))
        if wrong:
            raise (kinds.pop() if len(kinds) == 1 else TypeError)(", ".join(wrong))
        return result

    return Rule(should, read)


def either(should: str, *rules: Rule) -> Rule:
    """What fits one of several rules. If none fits, it is a wrong type, unless one rule says that its range was left."""

    def read(value: Any) -> Any:
        errors: list[Exception] = []
        for rule in rules:
            try:
                return rule.read(value)
            except (TypeError, ValueError) as error:
                errors.append(error)
        raise next((error for error in errors if not isinstance(error, TypeError)), TypeError())

    return Rule(should, read)


def as_number(value: Any) -> float:
    """A plain number; integers stay integers. Raises TypeError on anything else, such as a string, a bool or an array."""
    if isinstance(value, (bool, np.bool_, str, bytes, complex, np.complexfloating)) or not hasattr(value, "__float__"):
        raise TypeError
    if getattr(value, "ndim", 0) or (isinstance(value, Tensor) and (value.is_complex() or value.dtype == torch.bool)):
        raise TypeError
    try:
        number = float(value)
        return value.__index__() if isinstance(value, SupportsIndex) and not isinstance(value, Tensor) else number
    except OverflowError:
        raise ValueError("an integer beyond floating point") from None
    except (TypeError, ValueError, RuntimeError):
        raise TypeError from None


def as_integer(value: Any) -> int:
    """A plain integer. Raises TypeError on anything else."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, SupportsIndex) or not _is_scalar(value):
        raise TypeError
    try:
        return value.__index__()
    except TypeError:  # a tensor of another type
        raise TypeError from None


def _is_scalar(value: Any) -> bool:
    return getattr(value, "ndim", 0) == 0

"""The networks inside a function: in what it captures, in its arguments, in global variables and in objects."""

from __future__ import annotations

import itertools
import types
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from torch import Tensor, nn

from adaug._runtime.functions import global_values, held_by, of_library

MOST = 10_000  # values that a search looks at: what is captured may be a data set
_CLOSED = (str, bytes, int, float, Tensor, np.ndarray, type, types.ModuleType, type(None))


def modules_in(function: Any) -> list[nn.Module]:
    """The modules that a callable refers to, the outermost of each."""
    found: list[nn.Module] = []
    seen: dict[int, Any] = {}  # with the values, so that they stay alive and no two have one id
    waiting = [function]
    while waiting and len(seen) < MOST:
        value = waiting.pop()
        if isinstance(value, _CLOSED) or id(value) in seen:
            continue
        seen[id(value)] = value
        if isinstance(value, nn.Module):
            found.append(value)
        else:
            waiting += itertools.islice(_inside(value), MOST)
    inner = {id(module) for one in found for module in itertools.islice(one.modules(), 1, None)}
    return [module for module in found if id(module) not in inner]


def _inside(value: Any) -> Iterable[Any]:
    if isinstance(value, Mapping):
        return value.values()
    if isinstance(value, (list, tuple, set, frozenset)):
        return value
    held = held_by(value)
    if held is None:  # an object: what it holds, and what its call refers to
        call = vars(type(value)).get("__call__")
        return [*getattr(value, "__dict__", {}).values(), *([call] if isinstance(call, types.FunctionType) else [])]
    read = global_values(value) if isinstance(value, types.FunctionType) and not of_library(value) else {}
    return [*held.values(), *read.values()]

"""What a function is made of: its code, and the values that this code reads."""

from __future__ import annotations

import dis
import functools
import sys
import sysconfig
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import adaug._runtime

_LIBRARIES = tuple(str(Path(sysconfig.get_path(name)).resolve()) for name in ("stdlib", "platstdlib", "purelib", "platlib"))
_HERE = str(Path(adaug._runtime.__file__).resolve().parents[1])


def held_by(function: Any) -> dict[str, Any] | None:
    """What a callable holds itself: captured variables, defaults, arguments that are bound already.

    Returns:
        Name -> value. None if it is no function of Python's, such as one of C's or an object.
    """
    if hasattr(function, "_torchdynamo_orig_callable"):
        return {"function": function._torchdynamo_orig_callable}
    if isinstance(function, (functools.partial, functools.partialmethod)):
        return {"function": function.func, "arguments": function.args, "names": function.keywords}
    if isinstance(function, types.MethodType):
        return {"self": function.__self__, "function": function.__func__}
    if isinstance(function, (staticmethod, classmethod)):
        return {"function": function.__func__}
    if isinstance(function, property):
        return {"get": function.fget, "set": function.fset}
    if isinstance(function, functools.cached_property):
        return {"get": function.func}
    if not isinstance(function, types.FunctionType):
        return None
    held = {f"default {i}": value for i, value in enumerate(function.__defaults__ or ())}
    held |= function.__kwdefaults__ or {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            held[name] = cell.cell_contents
        except ValueError:  # not assigned yet
            held[name] = None
    return held


def global_values(function: types.FunctionType) -> dict[str, Any]:
    """The global variables that a function's code reads, and the attributes that it reads of modules."""
    known, found = function.__globals__, {}
    for name in _global_names(function.__code__):
        if name not in known:
            continue
        value = found[name] = known[name]
        if isinstance(value, types.ModuleType) and not of_library(value):
            inside = vars(value)
            found |= {f"{name}.{part}": inside[part] for part in _all_names(function.__code__) if part in inside}
    return found


def codes(code: types.CodeType) -> Iterator[types.CodeType]:
    """A code and those inside it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from codes(constant)


def _global_names(code: types.CodeType) -> list[str]:
    read = ("LOAD_GLOBAL", "LOAD_NAME")
    return sorted({step.argval for part in codes(code) for step in dis.get_instructions(part) if step.opname in read})


def _all_names(code: types.CodeType) -> list[str]:
    return sorted({name for part in codes(code) for name in part.co_names})


def of_library(value: Any) -> bool:
    """Whether a function, class or module comes with Python, with adaug or with an installed package."""
    code = getattr(value, "__code__", None)
    module = value if isinstance(value, types.ModuleType) else sys.modules.get(getattr(value, "__module__", None) or "")
    file = code.co_filename if code is not None else getattr(module, "__file__", None)
    if file is None:
        return module is not None and module.__name__ != "__main__"
    return str(file).startswith("<frozen") or _in_libraries(str(file))


@functools.lru_cache(maxsize=4096)
def _in_libraries(file: str) -> bool:
    found = str(Path(file).resolve())
    return found.startswith((f"{_HERE}/", *(f"{folder}/" for folder in _LIBRARIES)))


def version_of(value: Any) -> str:
    """The name of what comes with a package, with the package's version."""
    module = value.__name__ if isinstance(value, types.ModuleType) else str(getattr(value, "__module__", ""))
    package = sys.modules.get(module.partition(".")[0])
    name = getattr(value, "__qualname__", getattr(value, "__name__", ""))
    return f"{module}.{name} {getattr(package, '__version__', '')}"

"""Fingerprints of arguments: equal fingerprints mean equal values, settings, weights and code.

Not part of a fingerprint, because nobody can read them: what a function of C does (its name and the version of its package
are), what global variables hold if they are neither plain values, tensors, modules nor functions, what is read from files, and
switches of the whole process such as autocast. Another version of Python compiles other code, so it gives other fingerprints.
"""

from __future__ import annotations

import enum
import functools
import hashlib
import types
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext, suppress
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from adaug._runtime.functions import codes, global_values, held_by, of_library, version_of
from adaug._runtime.version import __version__

_PLAIN: tuple[type, ...] = (
    type(None),
    bool,
    int,
    float,
    complex,
    str,
    bytes,
    bytearray,
    range,
    slice,
    type(...),
    enum.Enum,
    PurePath,
)
_PLAIN += (torch.dtype, torch.device, torch.layout, torch.memory_format, np.generic, np.dtype)
_OF_C = (types.BuiltinFunctionType, types.MethodDescriptorType, types.WrapperDescriptorType, np.ufunc)
_MADE_BY_PYTHON = 1 << 9  # Py_TPFLAGS_HEAPTYPE
_NO_SETTINGS = ("training", "_compiled_call_impl", "_is_full_backward_hook")  # of a module
_NOT_OF_A_CLASS = ("__dict__", "__weakref__", "__doc__", "__module__", "__firstlineno__", "__static_attributes__")


class UnknownError(Exception):
    """Something has no fingerprint. The text says what."""


def fingerprint(*values: Any) -> str:
    """A fingerprint of 16 hexadecimal digits. Raises UnknownError if a part of a value cannot be read."""
    return _Reader().digest("all", __version__, values).hex()


class _Reader:
    """Makes digests of values and of all that they hold. A value inside itself is named by its place."""

    def __init__(self) -> None:
        self.open: list[int] = []  # the ids of the values around the present one
        self.known: dict[int, tuple[bytes, Any]] = {}  # the id of a value -> its digest, and the value, so that it stays alive

    def digest(self, *parts: Any) -> bytes:
        """A digest of parts: bytes and text as they are, other values by what they hold."""
        made = hashlib.blake2b(digest_size=8)
        for part in parts:
            content = part if isinstance(part, bytes) else part.encode() if isinstance(part, str) else self.of(part)
            made.update(b"%d:" % len(content) + content)
        return made.digest()

    def of(self, value: Any) -> bytes:
        if isinstance(value, _PLAIN):
            return self.digest(type(value).__name__, repr(value).encode("utf-8", "backslashreplace"))
        if id(value) in self.open:
            return self.digest("around", str(self.open.index(id(value))))
        if id(value) not in self.known:
            self.open.append(id(value))
            try:
                self.known[id(value)] = self._read(value), value
            finally:
                self.open.pop()
        return self.known[id(value)][0]

    def _read(self, value: Any) -> bytes:
        kind = type(value).__qualname__
        for types_, read in self._readers().items():
            if isinstance(value, types_):
                return self.digest(kind, read(value))
        if held_by(value) is not None:
            return self.digest(kind, self._function(value))
        return self.digest(kind, self._object(value))

    def _readers(self) -> Mapping[Any, Callable[[Any], bytes]]:
        return {
            Tensor: self._tensor,
            np.ndarray: self._array,
            nn.Module: self._module,
            type: self._class,
            types.ModuleType: lambda value: self.digest(version_of(value)),
            types.CodeType: self._code,
            Mapping: lambda value: self.digest("mapping", *self._pairs(value.items())),
            (set, frozenset): lambda value: self.digest("set", *sorted(map(self.of, value))),
            (list, tuple): lambda value: self.digest("list", *map(self.of, value)),
            torch.Generator: lambda value: self._tensor(value.get_state()),
            _OF_C: self._of_c,
        }

    def _pairs(self, pairs: Iterable[tuple[Any, Any]]) -> list[bytes]:
        return [part for name, value in pairs for part in (self.of(name), self.of(value))]

    # ---- values

    def _tensor(self, value: Tensor) -> bytes:
        try:
            plain = value.detach().cpu().resolve_conj().resolve_neg().contiguous()
            content = plain.reshape(-1).view(torch.uint8).numpy().tobytes()
        except Exception as error:  # on the meta device, sparse, quantized, not materialized yet
            raise UnknownError(f"a tensor without readable numbers ({type(error).__name__})") from None
        return self.digest(str(value.dtype), str(tuple(value.shape)), content)

    def _array(self, value: np.ndarray[Any, Any]) -> bytes:
        content = self.of(value.tolist()) if value.dtype.hasobject else np.ascontiguousarray(value).tobytes()
        return self.digest(str(value.dtype), str(value.shape), content)

    def _object(self, value: Any) -> bytes:
        """An object by its class and its attributes."""
        owner = type(value)
        slots = [name for cls in owner.__mro__ for name in _listed(vars(cls).get("__slots__", ()))]
        of_c = any(cls is not object and not cls.__flags__ & _MADE_BY_PYTHON for cls in owner.__mro__)
        if of_c or not (hasattr(value, "__dict__") or slots):
            raise UnknownError(f"{owner.__module__}.{owner.__qualname__}, whose inside cannot be read")
        held = {name: getattr(value, name) for name in slots if name not in _NOT_OF_A_CLASS and hasattr(value, name)}
        held |= getattr(value, "__dict__", {})
        lasting = [name for name in held if not isinstance(getattr(owner, name, None), functools.cached_property)]
        return self.digest("object", self.of(owner), *self._pairs((name, held[name]) for name in sorted(lasting)))

    def _module(self, value: nn.Module) -> bytes:
        """A network by its class, its weights and buffers, its attributes, its hooks and the modules inside."""
        if isinstance(value, torch.jit.ScriptModule):
            return self.digest("script", str(value.code), self.of(dict(value.state_dict())))
        inner = value._modules.get("_orig_mod")
        if inner is not None:  # torch.compile changes no results
            return self.of(inner)
        own = {name: held for name, held in vars(value).items() if name not in _NO_SETTINGS}
        if isinstance(value, torch.fx.GraphModule):
            own = {name: own[name] for name in ("_parameters", "_buffers", "_modules")} | {"code": value.code}
        for name in own:
            if "_hooks" in name and isinstance(own[name], Mapping):  # their keys count all hooks of the process
                own[name] = [hook for hook in own[name].values() if not _of_adaug(hook)]
        return self.digest("module", self.of(_class_of(value)), *self._pairs(sorted(own.items())))

    # ---- code

    def _function(self, value: Any) -> bytes:
        held = self._pairs((held_by(value) or {}).items())
        if not isinstance(value, types.FunctionType):
            return self.digest("wrapped", *held)
        if of_library(value):
            return self.digest("library", version_of(value), *held)
        return self.digest("function", self.of(value.__code__), *held, *self._globals(value))

    def _globals(self, value: types.FunctionType) -> list[bytes]:
        """The global variables that a function reads, as far as they can be read."""
        found = []
        for name, held in global_values(value).items():
            with suppress(UnknownError):
                found.append(self.digest(name, self.of(held)))
        return found

    def _code(self, value: types.CodeType) -> bytes:
        parts = [part for code in codes(value) for part in (code.co_code, *code.co_names, *code.co_varnames)]
        constants = [self.of(held) for code in codes(value) for held in code.co_consts if not isinstance(held, types.CodeType)]
        return self.digest(*parts, *constants)

    def _class(self, value: type) -> bytes:
        if of_library(value):
            return self.digest("library", version_of(value))
        own = [(name, held) for name, held in sorted(vars(value).items()) if name not in _NOT_OF_A_CLASS]
        parts = []
        for name, held in own:
            with suppress(UnknownError):  # a slot, a lock: no part of what the class does
                parts.append(self.digest(name, self.of(held)))
        return self.digest("class", value.__qualname__, *map(self.of, value.__bases__), *parts)

    def _of_c(self, value: Any) -> bytes:
        owner = getattr(value, "__self__", None)
        if owner is None or isinstance(owner, (types.ModuleType, type)):
            return self.digest("of C", version_of(value))
        return self.digest("of C", value.__name__, self.of(owner))


def _of_adaug(hook: Any) -> bool:
    """Whether a hook is adaug's, or what is left of one in a copy of a model."""
    return type(hook).__module__.startswith("adaug.") or isinstance(getattr(hook, "__self__", None), nullcontext)


def _class_of(module: nn.Module) -> type:
    """The class of a module. That of traced code is made anew for each module."""
    return torch.fx.GraphModule if isinstance(module, torch.fx.GraphModule) else type(module)


def _listed(slots: Any) -> tuple[str, ...]:
    return (slots,) if isinstance(slots, str) else tuple(slots)

"""Keeps the random draws of one thread apart from those of others, because all threads of a process share random states."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

_borrowing = threading.Lock()


class Apart(TorchDispatchMode):
    """A block in which this thread draws from copies of the random states. Other threads do not notice.

    It costs some microseconds for each operation. Code inside that sets the global seed draws from the global state.

    Args:
        seed: The seed of the copies. None copies the states as they are.

    Attributes:
        drew: Whether anything was drawn.
    """

    def __init__(self, seed: int | None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seed, self.drew = seed, False
        self._copies: dict[torch.device, torch.Generator] = {}
        self._global_seed = torch.default_generator.initial_seed()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if torch.Tag.nondeterministic_seeded not in func.tags or _draws_from_no_state(func, args, kwargs):
            return func(*args, **kwargs)
        self.drew = True
        tensor = next((arg for arg in args if isinstance(arg, Tensor)), None)
        device = torch.device(tensor.device if tensor is not None else kwargs.get("device") or "cpu")
        if device.type not in ("cpu", "cuda") or self._seeded_inside():
            return func(*args, **kwargs)
        sibling = _with_generator(func)
        if sibling is not None:
            return sibling(*args, **(kwargs | {"generator": self._copy(device)}))
        with _lent(self._copy(device), default_generator(device)):
            return func(*args, **kwargs)

    def _seeded_inside(self) -> bool:
        with _borrowing:
            return torch.default_generator.initial_seed() != self._global_seed

    def _copy(self, device: torch.device) -> torch.Generator:
        if device not in self._copies:
            copy = self._copies[device] = torch.Generator(device)
            if self.seed is None:
                copy.set_state(default_generator(device).get_state())
            else:
                copy.manual_seed(self.seed)
        return self._copies[device]


def default_generator(device: torch.device) -> torch.Generator:
    """The default generator of random numbers of a device."""
    if device.type == "cpu":
        return torch.default_generator
    torch.cuda.init()
    generator: torch.Generator = torch.cuda.default_generators[
        torch.cuda.current_device() if device.index is None else device.index
    ]
    return generator


def _draws_from_no_state(func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """Whether an operation draws from its own generator, or not at all (attention without dropout)."""
    values = dict(zip((argument.name for argument in func._schema.arguments), args, strict=False)) | dict(kwargs)
    return values.get("generator") is not None or values.get("dropout_p") == 0.0


@functools.cache
def _with_generator(func: Any) -> Any:
    """The variant of an operation that takes a generator, if there is one."""
    if any(argument.name == "generator" for argument in func._schema.arguments):
        return func
    name = "generator" if func._overloadname == "default" else f"{func._overloadname}_generator"
    return getattr(func.overloadpacket, name) if name in func.overloadpacket.overloads() else None


@contextmanager
def _lent(copy: torch.Generator, shared: torch.Generator) -> Iterator[None]:
    """Sets the shared state to that of the copy during one operation that takes no generator."""
    with _borrowing:
        state = shared.get_state()
        shared.set_state(copy.get_state())
        try:
            yield
        finally:
            copy.set_state(shared.get_state())
            shared.set_state(state)


class AsWritten:
    """Runs compiled code uncompiled while any thread is inside. Threads share this setting; the last one restores it."""

    def __init__(self) -> None:
        self.lock, self.inside = threading.Lock(), 0
        self.stance: Any = None

    def __enter__(self) -> None:
        with self.lock:
            if not self.inside:
                self.stance = torch.compiler.set_stance("force_eager")
            self.inside += 1

    def __exit__(self, *raised: object) -> None:
        with self.lock:
            self.inside -= 1
            if not self.inside:
                self.stance.__exit__(None, None, None)


as_written = AsWritten()

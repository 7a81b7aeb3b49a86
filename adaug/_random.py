"""Noise with a name: random numbers that depend on a seed and a purpose, and leave the global random state alone."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


class Stream:
    """Uniform noise named by (seed, *keys), e.g. (seed, step, rank): nothing to save but the counter.

    It is drawn on the CPU and copied to `device` without waiting, so every device sees the same draws and no
    call synchronises. The global random state is neither read nor advanced.
    """

    def __init__(self, seed: int, *keys: int, device: torch.device | str = "cpu") -> None:
        state = np.random.SeedSequence(seed & (2**64 - 1), spawn_key=keys).generate_state(1, np.uint64)
        self.generator = torch.Generator().manual_seed(int(state[0]) >> 1)
        self.device = torch.device(device)

    def uniform(self, *shape: int) -> Tensor:
        """Noise in the open interval (0, 1), of the given shape."""
        return self._noise(*shape).to(self.device, non_blocking=True)

    def number(self) -> float:
        """A single number of such noise, for decisions on the CPU."""
        return float(self._noise(1))

    def _noise(self, *shape: int) -> Tensor:
        noise = torch.rand(shape, generator=self.generator, dtype=torch.float32, device="cpu")
        return noise.clamp(2.0**-24, 1 - 2.0**-24)

    @property
    def seed(self) -> int:
        """A seed of the same name, for what brings its own random numbers."""
        return self.generator.initial_seed()

    def permutation(self, n: int) -> Tensor:
        """A random order of n rows, on the CPU."""
        return torch.randperm(n, generator=self.generator, device="cpu")


class Habit:
    """What is known of passes of one kind: whether they draw from the global random state. None: not known yet."""

    def __init__(self) -> None:
        self.draws: bool | None = None

    def learn(self, drew: bool) -> None:
        """Takes note of a pass. What once drew may draw again."""
        self.draws = drew or self.draws is True


@contextmanager
def no_inference() -> Iterator[None]:
    """Outside torch's inference mode, for what lives on: made inside, it could not be trained later. Gradients stay off."""
    if not torch.is_inference_mode_enabled():
        yield
        return
    with torch.inference_mode(False), torch.no_grad():
        yield


@contextmanager
def random_state_kept(device: torch.device | None = None, habit: Habit | None = None) -> Iterator[None]:
    """A block after which the global random state, the CPU's and that of a GPU, is as if it had not been.

    All threads of a process draw from one state. A thread that is alone puts it back. Beside others nobody writes to it,
    because that would take their draws back: the block draws from a copy, and where it is known to draw nothing it just runs.

    Args:
        device: Whose state is kept with the CPU's.
        habit: What is known of such blocks; it learns.
    """
    with _own_draws(None, device, habit):
        yield


@contextmanager
def seeded(seed: int, device: torch.device | None = None, habit: Habit | None = None) -> Iterator[None]:
    """Runs a block under a seed of its own, and keeps the global random state as `random_state_kept` does."""
    with _own_draws(seed % 2**63, device, habit):
        yield


@contextmanager
def _own_draws(seed: int | None, device: torch.device | None, habit: Habit | None) -> Iterator[None]:
    devices = [torch.device("cpu"), *([device] if device is not None and device.type == "cuda" else [])]
    alone = threading.active_count() == 1
    if not alone and (habit is None or habit.draws is not False):
        with _Apart(seed) as apart:
            yield
        if habit is not None:
            habit.learn(apart.drew)
        return
    states = [_state(one) for one in devices]
    if alone and seed is not None:
        for one in devices:
            _default(one).manual_seed(seed)
    started = states if seed is None or not alone else [_state(one) for one in devices]
    try:
        yield
    finally:
        moved = not all(torch.equal(_state(one), state) for one, state in zip(devices, started, strict=True))
        if alone:
            for one, state in zip(devices, states, strict=True):
                if moved or seed is not None:
                    _default(one).set_state(state)
            if habit is not None:
                habit.learn(moved)
        elif moved and habit is not None:
            habit.draws = None  # this block or another thread: the next one is watched


def _default(device: torch.device) -> torch.Generator:
    """The generator that everything on a device draws from, unless told otherwise."""
    if device.type == "cpu":
        return torch.default_generator
    if device.type == "cuda":
        torch.cuda.init()
        return torch.cuda.default_generators[torch.cuda.current_device() if device.index is None else device.index]
    return torch.get_device_module(device).default_generator


def _state(device: torch.device) -> Tensor:
    return _default(device).get_state()


class _Apart(TorchDispatchMode):
    """Lets one thread draw from copies of the generators that all share: same numbers, and no other thread sees it.

    It takes some microseconds an operation. What sets the global seed inside draws from that, as it asked.

    Args:
        seed: Of the copies; None for the state that they find.
    """

    _one_at_a_time = threading.Lock()  # of those that have to borrow the shared generator
    _ways: ClassVar[dict[Any, Any]] = {}

    def __init__(self, seed: int | None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seed, self.drew = seed, False
        self.copies: dict[torch.device, torch.Generator] = {}
        self.shared_seed = torch.default_generator.initial_seed()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if torch.Tag.nondeterministic_seeded not in func.tags or self._needs_nothing(func, args, kwargs):
            return func(*args, **kwargs)
        self.drew = True
        with self._one_at_a_time:
            reseeded = torch.default_generator.initial_seed() != self.shared_seed
        if reseeded:
            return func(*args, **kwargs)
        tensor = next((arg for arg in args if isinstance(arg, Tensor)), None)
        device = torch.device(tensor.device if tensor is not None else kwargs.get("device") or "cpu")
        copy = self._copy(device)
        way = self._way(func)
        if way is not None:
            return way(*args, **(kwargs | {"generator": copy}))
        with self._one_at_a_time:  # it has no argument for a generator: it borrows the shared one, for this operation alone
            shared, state = _default(device), _state(device)
            shared.set_state(copy.get_state())
            try:
                return func(*args, **kwargs)
            finally:
                copy.set_state(shared.get_state())
                shared.set_state(state)

    def _copy(self, device: torch.device) -> torch.Generator:
        if device not in self.copies:
            self.copies[device] = torch.Generator(device)
            if self.seed is None:
                self.copies[device].set_state(_state(device))
            else:
                self.copies[device].manual_seed(self.seed)
        return self.copies[device]

    @classmethod
    def _way(cls, func: Any) -> Any:
        """The same operation with an argument for a generator, if there is one."""
        if func not in cls._ways:
            packet, name = func.overloadpacket, func._overloadname
            sibling = "generator" if name == "default" else f"{name}_generator"
            takes = any(argument.name == "generator" for argument in func._schema.arguments)
            cls._ways[func] = func if takes else getattr(packet, sibling) if sibling in packet.overloads() else None
        return cls._ways[func]

    @staticmethod
    def _needs_nothing(func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
        """Whether a generator was given, or attention has no dropout."""
        values = dict(zip((argument.name for argument in func._schema.arguments), args, strict=False)) | dict(kwargs)
        return values.get("generator") is not None or values.get("dropout_p", 1.0) == 0.0

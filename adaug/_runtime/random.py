"""Random numbers that depend only on a seed and a purpose, and do not touch the global random state."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

import numpy as np
import torch
from torch import Tensor

from adaug._runtime.isolated import Apart, as_written, default_generator


class Stream:
    """Uniform noise that depends only on (seed, *keys), such as (seed, step, rank). So a state only needs the counters.

    It is drawn on the CPU and copied to `device` without waiting. So every device sees the same draws, and no call waits for
    the device. The global random state is neither read nor advanced.
    """

    def __init__(self, seed: int, *keys: int, device: torch.device | str = "cpu") -> None:
        state = np.random.SeedSequence(seed & (2**64 - 1), spawn_key=keys).generate_state(1, np.uint64)
        self.generator = torch.Generator().manual_seed(int(state[0]) >> 1)
        self.device = torch.device(device)

    def uniform(self, *shape: int) -> Tensor:
        """Noise in the open interval (0, 1) of the given shape."""
        return self._noise(*shape).to(self.device, non_blocking=True)

    def number(self) -> float:
        """A single number of this noise, for decisions on the CPU."""
        return float(self._noise(1))

    def _noise(self, *shape: int) -> Tensor:
        noise = torch.rand(shape, generator=self.generator, dtype=torch.float32, device="cpu")
        return noise.clamp(2.0**-24, 1 - 2.0**-24)

    @property
    def seed(self) -> int:
        """A seed from the same numbers, for code that draws by itself."""
        return self.generator.initial_seed()

    def permutation(self, n: int) -> Tensor:
        """A random order of n rows, on the CPU."""
        return torch.randperm(n, generator=self.generator, device="cpu")


@contextmanager
def no_inference() -> Iterator[None]:
    """A block outside inference mode, because tensors made in that mode cannot be trained later. Gradients stay off."""
    if not torch.is_inference_mode_enabled():
        yield
        return
    with torch.inference_mode(False), torch.no_grad():
        yield


class Habit:
    """Whether blocks of one kind draw from the global random state. None means that none was watched yet."""

    draws: bool | None = None


def random_state_kept(device: torch.device | None = None, habit: Habit | None = None) -> AbstractContextManager[None]:
    """A block that leaves the global random state of the CPU and of a GPU as it was.

    If no other thread runs, the state is put back afterwards. With other threads this would repeat their draws, so the block
    draws from a copy instead. A block that is known to draw nothing just runs.

    Args:
        device: The device whose state is kept besides that of the CPU.
        habit: Whether such blocks draw, as far as known. It is updated.
    """
    return _own_draws(None, device, habit)


def seeded(seed: int, device: torch.device | None = None, habit: Habit | None = None) -> AbstractContextManager[None]:
    """A block with a seed of its own. It keeps the global random state like `random_state_kept`."""
    return _own_draws(seed % 2**63, device, habit)


def _own_draws(seed: int | None, device: torch.device | None, habit: Habit | None) -> AbstractContextManager[None]:
    shared = [torch.default_generator]
    if device is not None and device.type == "cuda":
        shared.append(default_generator(device))
    if threading.active_count() == 1:
        return _put_back(shared, seed)
    if habit is None or habit.draws is not False:
        return _watched(seed, habit or Habit())
    return _trusted(shared, habit)


@contextmanager
def _put_back(shared: Sequence[torch.Generator], seed: int | None) -> Iterator[None]:
    states = [generator.get_state() for generator in shared]
    try:
        if seed is not None:
            for generator in shared:
                generator.manual_seed(seed)
        yield
    finally:
        for generator, state in zip(shared, states, strict=True):
            generator.set_state(state)


@contextmanager
def _watched(seed: int | None, habit: Habit) -> Iterator[None]:
    # dynamo would permanently give up code that it meets under a dispatch mode
    uncompiled = as_written if "torch._dynamo" in sys.modules else nullcontext()
    with uncompiled, Apart(seed) as apart:
        yield
    habit.draws = apart.drew or habit.draws is True  # what once drew may draw again


@contextmanager
def _trusted(shared: Sequence[torch.Generator], habit: Habit) -> Iterator[None]:
    states = [generator.get_state() for generator in shared]
    yield
    if not all(torch.equal(generator.get_state(), state) for generator, state in zip(shared, states, strict=True)):
        habit.draws = None  # this block drew, or another thread: the next one is watched

"""Random numbers that depend only on a seed and a purpose, and do not touch the global random state."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor


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


_one_thread = threading.RLock()


def _forked() -> None:
    """A forked process lacks the thread that may hold the lock, and would wait for ever."""
    global _one_thread
    _one_thread = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


@contextmanager
def random_state_kept(device: torch.device | None = None) -> Iterator[None]:
    """A block that leaves the global random states as they were: of torch on the CPU and a GPU, of NumPy and of Python.

    All threads share this state, so only one thread at a time may be in such a block. Other threads that draw meanwhile may
    draw the same numbers again afterwards.
    """
    with _one_thread, torch.random.fork_rng(_gpus(device), device_type="cuda"):
        of_numpy, of_python = np.random.get_state(), random.getstate()  # noqa: NPY002
        try:
            yield
        finally:
            np.random.set_state(of_numpy)  # noqa: NPY002
            random.setstate(of_python)


@contextmanager
def seeded(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """A block with a seed of its own. It leaves the global random state as it was."""
    with random_state_kept(device):
        torch.default_generator.manual_seed(seed % 2**63)  # torch.manual_seed would also seed GPUs that are not kept
        for gpu in _gpus(device):
            torch.cuda.default_generators[gpu].manual_seed(seed % 2**63)
        yield


def _gpus(device: torch.device | None) -> list[int]:
    if device is None or device.type != "cuda":
        return []
    return [torch.cuda.current_device() if device.index is None else device.index]

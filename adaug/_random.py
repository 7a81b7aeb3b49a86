"""Noise with a name: random numbers that depend on a seed and a purpose, and leave the global random state alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor


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


@contextmanager
def no_inference() -> Iterator[None]:
    """Outside torch's inference mode, for what lives on: made inside, it could not be trained later. Gradients stay off."""
    if not torch.is_inference_mode_enabled():
        yield
        return
    with torch.inference_mode(False), torch.no_grad():
        yield


@contextmanager
def random_state_kept(device: torch.device | None = None) -> Iterator[None]:
    """Puts the global random state back afterwards, the CPU's and that of a GPU."""
    state = torch.get_rng_state()
    gpu = device if device is not None and device.type == "cuda" else None
    gpu_state = None if gpu is None else torch.cuda.get_rng_state(gpu)
    try:
        yield
    finally:
        torch.set_rng_state(state)
        if gpu is not None and gpu_state is not None:
            torch.cuda.set_rng_state(gpu_state, gpu)


@contextmanager
def seeded(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """Runs a block under a seed of its own and puts the global random state back."""
    with random_state_kept(device):
        torch.default_generator.manual_seed(seed % 2**63)
        if device is not None and device.type == "cuda":
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed % 2**63)
        yield

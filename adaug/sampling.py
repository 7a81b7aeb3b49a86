"""Random streams, and the bounded distributions that operations draw from: pure functions of uniform noise."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

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


def truncated_normal(noise: Tensor, bound: float) -> Tensor:
    """Standard normal conditioned on [-bound, bound], by its inverse distribution function: no mass at the edges."""
    tail = torch.special.ndtr(torch.tensor(-bound, dtype=torch.float64, device="cpu")).item()
    return torch.special.ndtri(tail + noise * (1 - 2 * tail)).clamp(-bound, bound)


def gumbel(noise: Tensor) -> Tensor:
    """Gumbel noise from uniform noise; `argmax(log_probs + gumbel)` draws from the distribution."""
    return -torch.log(-torch.log(noise))


def draw_without_replacement(log_probs: Tensor, noise: Tensor, most: int) -> Tensor:
    """`most` different indices a row, in the order of their draw. [n, k], [n, k] -> [n, most] long (Gumbel top-k)."""
    return (log_probs + gumbel(noise)).topk(most, dim=-1).indices


@dataclass(frozen=True)
class ClippedNormal:
    """Inverse distribution function of N(mean, std) clipped to [low, high], or `mean` with probability `still`.

    The random reference of the authors' release: mass does pile up at the two ends.
    """

    mean: float
    std: float
    low: float
    high: float
    still: float = 0.0
    base: float | None = None  # the value is an exponent of this base, e.g. 2 for octaves of scale

    def __call__(self, noise: Tensor) -> Tensor:
        moved = ((noise - self.still) / (1 - self.still)).clamp(2.0**-24, 1 - 2.0**-24)
        value = (self.mean + self.std * torch.special.ndtri(moved)).clamp(self.low, self.high)
        value = torch.where(noise < self.still, torch.full_like(value, self.mean), value)
        return value if self.base is None else self.base**value

"""The bounded distributions of operations, as pure functions of uniform noise in (0, 1)."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist
from typing import ClassVar

import torch
from torch import Tensor

from adaug._runtime.checks import Rules, check_fields, number, optional

__all__ = ["ClippedNormal", "TruncatedNormal"]


def truncated_normal(noise: Tensor, bound: float) -> Tensor:
    """A standard normal truncated to [-bound, bound], from uniform noise. No mass piles up at the bounds."""
    tail = NormalDist().cdf(-bound)
    return torch.special.ndtri(tail + noise * (1 - 2 * tail)).clamp(-bound, bound)


def draw_without_replacement(log_probs: Tensor, noise: Tensor, most: int) -> Tensor:
    """`most` different indices for each row, in the order of their draw. [n, k], [n, k] -> [n, most] long.

    Every index waits for an exponential time at the rate of its probability, and the first ones are drawn.
    """
    return (noise.log() / log_probs.exp()).topk(most, dim=-1).indices  # times are -log(noise) / probability


@dataclass(frozen=True)
class ClippedNormal:
    """A random distribution for an operation's `random`: N(mean, std) clipped to [low, high], as in the authors' code.

    What lies outside the range becomes `low` or `high`, so these two have more mass.

    Attributes:
        mean: The mean before clipping.
        std: The standard deviation before clipping.
        low: The smallest value.
        high: The largest value.
        still: The probability that a row gets exactly `mean`.
        base: If given, draws are exponents of this base, such as 2 for scales 2^-1 to 2^1.
    """

    mean: float
    std: float
    low: float
    high: float
    still: float = 0.0
    base: float | None = None

    _rules: ClassVar[Rules] = {
        "mean": number(),
        "std": number(above=0),
        "low": number(),
        "high": number(),
        "still": number(low=0, below=1),
        "base": optional(number(above=0)),
    }

    def __post_init__(self) -> None:
        check_fields(self)
        if self.low > self.high:
            raise ValueError(f"A ClippedNormal should have low <= high. Found low={self.low}, high={self.high}.")

    def __call__(self, noise: Tensor) -> Tensor:
        """The inverse distribution function. Uniform noise [n] -> magnitudes [n]."""
        moved = ((noise - self.still) / (1 - self.still)).clamp(2.0**-24, 1 - 2.0**-24)
        value = (self.mean + self.std * torch.special.ndtri(moved)).clamp(self.low, self.high)
        value = torch.where(noise < self.still, torch.full_like(value, self.mean), value)
        return value if self.base is None else self.base**value


@dataclass(frozen=True)
class TruncatedNormal:
    """A random distribution for an operation's `random`: N(mean, std) within [low, high], as in the paper.

    What would lie outside the range is drawn again, so no mass piles up at its ends.

    Attributes:
        mean: The mean before truncation.
        std: The standard deviation before truncation.
        low: The smallest value.
        high: The largest value.
    """

    mean: float
    std: float
    low: float
    high: float

    _rules: ClassVar[Rules] = {"mean": number(), "std": number(above=0), "low": number(), "high": number()}

    def __post_init__(self) -> None:
        check_fields(self)
        if not self.low < self.high or not self._below(self.high) - self._below(self.low) > 2.0**-20:
            raise ValueError(
                "A TruncatedNormal should have low < high, and a range that its normal distribution reaches. Found "
                f"N({self.mean}, {self.std}) within [{self.low}, {self.high}]."
            )

    def __call__(self, noise: Tensor) -> Tensor:
        """The inverse distribution function. Uniform noise [n] -> magnitudes [n]."""
        below, within = self._below(self.low), self._below(self.high) - self._below(self.low)
        value = self.mean + self.std * torch.special.ndtri(below + noise.double() * within)
        return value.to(noise.dtype).clamp(self.low, self.high)

    def _below(self, value: float) -> float:
        return NormalDist(self.mean, self.std).cdf(value)

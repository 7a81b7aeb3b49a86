"""Bounds what single rows do to running difficulty, and notices when all rows have moved to another level.

A difficulty counts as far as `REACH` standard deviations from the mean. Tails that are only heavy, and events that come in one
row of a thousand, are part of that standard deviation and stay whole.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Guard"]

REACH = 30.0  # standard deviations: an event of frequency 1 / REACH² is never cut
CALM = 5.0  # what is remembered spreads so many times as far as what comes: it is about something else
CALM_ROWS = 640  # for as many rows, in which an event of one row in a hundred is hardly ever missing,
CALM_SHARE = 0.75  # or for this share of all rows that are remembered, but
CALM_ANSWERS = 4  # for no fewer answers


@dataclass(frozen=True)
class Guard:
    """What is known about the spread of difficulties.

    Attributes:
        spread: Their standard deviation, []. Below 0 before the first answer; then, and if it is 0, nothing is cut.
        cut: How many rows were cut since the latest answer, [].
        calm: For how many rows difficulties have spread far less than what is remembered, [].
    """

    spread: Tensor
    cut: Tensor
    calm: Tensor

    @staticmethod
    def start(like: Tensor) -> Guard:
        """A guard that knows nothing."""
        return Guard(-torch.ones_like(like), torch.zeros_like(like), torch.zeros_like(like))

    def bounded(self, excess: Tensor) -> tuple[Tensor, Tensor]:
        """Cuts differences from the mean, [B], and says how many were cut. What is not finite stays so."""
        limit = torch.where(self.spread > 0, REACH * self.spread, torch.inf)
        far = excess.isfinite() & (excess.abs() > limit)
        return torch.where(far, excess.sign() * limit, excess), far.sum()

    def shifted(self, rows: Tensor) -> Tensor:
        """Whether most rows were cut: then it is the level that has moved, [] bool."""
        return self.cut > rows / 2

    def calmer(self, rows: Tensor, now: Tensor, known: Tensor, remembered: Tensor) -> tuple[Tensor, Tensor]:
        """For how many rows it has been calm after an answer, and whether that is long enough to forget, [] each.

        Args:
            rows: The number of new rows.
            now: The variance of their difficulties.
            known: The number of rows that are remembered.
            remembered: The variance of theirs.
        """
        calm = torch.where(now * CALM**2 < remembered, self.calm + rows, 0.0)
        return calm, calm >= (CALM_SHARE * known).clamp(max=CALM_ROWS).maximum(CALM_ANSWERS * rows).clamp(min=1)

"""Learners that adaug does not ship, by public names alone: a fixed shape, other responses, the worst of k views."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from typing_extensions import override

import adaug
from adaug.learners import Learner, Proposal, Rows, Running, Trials

SHAPES = {  # times uniform, as generators were seen to learn it
    "scale": (1.7, 0.5, 0.4, 0.4, 0.5, 1.7, 1.7),
    "rotate": (1.7, 1.6, 0.4, 0.4, 0.5, 0.4, 0.4, 1.6, 1.7),
}


@dataclass(frozen=True)
class Fixed(Learner):
    """Scales and turns by distributions that generators were seen to learn. It needs somebody who has measured them."""

    @override
    def log_probs(self, state: Any, branch: adaug.Branch, rows: Rows) -> dict[str, Tensor]:
        weights = {operation.name: torch.tensor(SHAPES[operation.name], device=rows.device) for operation in branch.operations}
        return {name: (weight / len(weight)).log().expand(rows.n, -1) for name, weight in weights.items()}


@dataclass(frozen=True)
class Softmax(Running):
    """Running difficulty that answers without a cap, by e to the power of how far a bin is from the mean of its operation, in
    standard deviations of the bins."""

    @override
    def respond(self, columns: Any, effects: Tensor, variances: Tensor) -> Tensor:
        valid = columns.valid
        spread = (torch.where(valid, effects.square(), 0).sum(1, keepdim=True) / valid.sum(1, keepdim=True)).sqrt()
        return torch.where(valid, effects / spread.clamp(min=1e-12), -torch.inf).softmax(1)


@dataclass(frozen=True)
class WorstOf(Learner):
    """Draws k views of each row of its branches evenly, and trains on the one that the network finds hardest now.

    The idea is that of Engstrom et al., ICML 2019, who take it for every row. The views are scored in evaluation mode.
    """

    k: int = 2

    scores: ClassVar[bool] = True

    @override
    def log_probs(self, state: Any, branch: adaug.Branch, rows: Rows) -> dict[str, Tensor]:
        bins = {operation.name: operation.bins for operation in branch.operations}
        return {name: torch.full((rows.n, k), -math.log(k), device=rows.device) for name, k in bins.items()}

    @override
    def propose(self, state: Any, trials: Trials) -> dict[str, Proposal]:
        best = super().propose(state, trials)
        hardest = self._scored(trials, best)
        for _ in range(self.k - 1):
            other = super().propose(state, trials)
            found = self._scored(trials, other)
            keeps = found <= hardest
            best = {name: one.where(keeps[trials.parts[name]], other[name]) for name, one in best.items()}
            hardest = torch.where(keeps, hardest, found)
        return best

    @staticmethod
    def _scored(trials: Trials, proposals: dict[str, Proposal]) -> Tensor:
        scores = trials.score(trials.view({name: one.adversarial for name, one in proposals.items()}))
        return scores.nan_to_num(-torch.inf)

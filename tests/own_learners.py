"""Learners as users write them, by public imports alone: fixed, a response, worst of k, running means, a look."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

import adaug
from adaug.learners import Learner, Proposal, Rows, Running, Seen, Start, Trials, add_up


@dataclass(frozen=True)
class Fixed(Learner):
    """Draws the first and the last bin or cell more often, whatever happens. It has no state."""

    outer: float = 3.0

    def log_probs(self, state: Any, branch: adaug.Branch, rows: Rows) -> dict[str, Tensor]:
        found = {}
        for operation in branch.operations:
            weights = torch.ones(operation.bins, device=rows.device)
            weights[0] = weights[-1] = self.outer
            found[operation.name] = (weights / weights.sum()).log().expand(rows.n, -1)
        return found


@dataclass(frozen=True)
class Softmax(Running):
    """Running difficulty that answers by a softmax."""

    temperature: float = 0.5

    def respond(self, columns: Any, effects: Tensor, variances: Tensor) -> Tensor:
        return torch.where(columns.valid, effects / self.temperature, -math.inf).softmax(1)


@dataclass(frozen=True)
class WorstOf(Learner):
    """Draws k views of each row evenly, and takes the one that the network finds hardest now."""

    k: int = 3

    scores: ClassVar[bool] = True

    def log_probs(self, state: Any, branch: adaug.Branch, rows: Rows) -> dict[str, Tensor]:
        return {op.name: torch.full((rows.n, op.bins), -math.log(op.bins), device=rows.device) for op in branch.operations}

    def propose(self, state: Any, trials: Trials) -> dict[str, Proposal]:
        best: dict[str, Proposal] = {}
        if not trials.each:  # of a sharded model, other ranks may have rows to score
            for _ in range(self.k):
                trials.take_part()
            return best
        hardest = torch.full((len(trials.index),), -math.inf, device=trials.device)
        for _ in range(self.k):
            drawn = {
                name: trials.draw(name, self.log_probs(state, trial.branch, Rows(len(trial), trials.device)))
                for name, trial in trials.each.items()
            }
            found = self.score(trials, drawn)
            harder = found > hardest
            best = {
                name: one.where(harder[trials.parts[name]], best[name]) if name in best else one for name, one in drawn.items()
            }
            hardest = torch.where(harder, found, hardest)
        return best

    def score(self, trials: Trials, drawn: dict[str, Proposal]) -> Tensor:
        return trials.score(trials.view({name: one.adversarial for name, one in drawn.items()}))


@dataclass(frozen=True)
class Means(Learner):
    """Keeps the running mean of difficulty in each bin or cell, and draws by a softmax of them."""

    sharpness: float = 2.0
    kept: float = 0.9

    def start(self, start: Start) -> dict[str, Any]:
        names = {branch.full_name(op): op.bins for branch in start.branches for op in branch.operations}
        return {"steps": 0} | {name: torch.zeros(bins, 2, device=start.device) for name, bins in names.items()}

    def log_probs(self, state: dict[str, Any], branch: adaug.Branch, rows: Rows) -> dict[str, Tensor]:
        found = {}
        for operation in branch.operations:
            total, count = state[branch.full_name(operation)].unbind(1)
            mean = total / count.clamp(min=1e-6)
            found[operation.name] = (self.sharpness * mean).log_softmax(0).expand(rows.n, -1)
        return found

    def observe(self, state: dict[str, Any], seen: Seen) -> dict[str, Any]:
        known = torch.isfinite(seen.difficulty)
        difficulty = seen.difficulty.where(known, 0.0)
        after: dict[str, Any] = {"steps": state["steps"] + 1}
        for name, before in state.items():
            if name == "steps":
                continue
            sums = torch.zeros_like(before)
            if name in seen.view.magnitudes:
                mine = seen.view.operations[name].membership(seen.view.magnitudes[name]).float() * known[:, None]
                sums = torch.stack([mine.T @ difficulty, mine.sum(0)], 1)
            add_up(sums, "with the sums of bins")
            after[name] = self.kept * before + sums
        return after

    def metrics(self, state: dict[str, Any]) -> dict[str, Tensor]:
        return {f"mean/{name}": value[:, 0] / value[:, 1].clamp(min=1e-6) for name, value in state.items() if name != "steps"}


@dataclass(frozen=True)
class Looks(Learner):
    """Draws later bins the more often, the larger the features of a row are."""

    features: Sequence[str] | None = ("stacks.0.neck",)

    looks: ClassVar[bool] = True

    def log_probs(self, state: Any, branch: adaug.Branch, rows: Rows) -> dict[str, Tensor]:
        size = rows.features[0].float().mean((1, 2, 3))[:, None]
        return {op.name: (size * torch.arange(op.bins, device=rows.device)).log_softmax(1) for op in branch.operations}


OWN: dict[str, Learner] = {
    "fixed": Fixed(), "softmax": Softmax(), "worst of k": WorstOf(), "means": Means(), "looks": Looks(),
}  # fmt: skip


def turned_and_hidden(*learned: Any, shares: Sequence[float] = (0.5, 0.25)) -> adaug.Policy:
    """Two branches, of one learner or of two."""
    turn = adaug.Branch("turn", [adaug.Rotate(-60, 60, 5), adaug.Scale(0.6, 1.5, 4)], shares[0], learned[0])
    hide = adaug.Branch("hide", [adaug.OccludeFeatures((4, 4), (1, 2))], shares[1], learned[-1])
    return adaug.Policy([turn, hide], [adaug.Flip([(0, 1)])])

"""The rows of a mini-batch on trial: looks, proposals and both views of each row (Alg. 2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, reduce

import torch
from torch import Tensor

from adaug._batches.batch import Batch
from adaug._model.bound import BoundModel, Difficulty
from adaug._runtime.geometry import Size
from adaug._runtime.random import Stream
from adaug._views.view import View, concatenate
from adaug.policies import Branch
from adaug.policies.policy import Magnitudes

__all__ = ["Proposal", "Trial", "Trials"]

LogProbs = dict[str, Tensor]  # name of an operation -> log-probabilities [n, k]


@dataclass(frozen=True)
class Proposal:
    """What a learner proposes for the rows of a branch, and what was drawn from it.

    Attributes:
        log_probs: Name of an operation -> log-probabilities [n, k], with their graph.
        chosen: Name of an operation -> the bins or cells that were drawn, [n, s].
        adversarial: "branch.operation" -> the magnitudes that were drawn within them, [n] or [n, ...].
        reference: The same for the reference view, if those of random views would not be a fair comparison.
    """

    log_probs: LogProbs
    chosen: Mapping[str, Tensor]
    adversarial: Magnitudes
    reference: Magnitudes

    def where(self, rows: Tensor, other: Proposal) -> Proposal:
        """This proposal in some rows, [n] bool, and the other one elsewhere."""

        def pick(mine: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
            return {
                name: torch.where(rows.reshape(-1, *[1] * (value.ndim - 1)), value, theirs[name])
                for name, value in mine.items()
            }

        parts = ("log_probs", "chosen", "adversarial", "reference")
        return Proposal(*(pick(getattr(self, part), getattr(other, part)) for part in parts))


@dataclass(frozen=True)
class Trial:
    """The rows of one branch whose views are on trial.

    Attributes:
        branch: The branch.
        index: The numbers of its rows in the batch, [n] long, on the device.
        drawn: What random views of these rows get: "branch.operation" -> magnitudes.
    """

    branch: Branch
    index: Tensor
    drawn: Magnitudes

    def __len__(self) -> int:
        return len(self.index)

    @property
    def held(self) -> Magnitudes:
        """What both views share: everything that is not on trial."""
        on_trial = [self.branch.full_name(operation) for operation in self.branch.operations]
        return {name: magnitude for name, magnitude in self.drawn.items() if name not in on_trial}


@dataclass
class Trials:
    """The rows that one learner with passes proposes for, branch by branch, and the passes that it may run.

    Passes leave no trace on the model. The rows stand one after the other, branch by branch: `index` has their numbers in the
    batch, and `parts` the slice of each branch.

    Attributes:
        bound: The model.
        batch: All rows of the mini-batch.
        view_size: The size of the views.
        each: Name of a branch -> its rows. Branches without rows are missing.
        stream: The source of noise.
        difficulty: The measure that compares views.
        step: The number of steps since the warm-up.
        proposals: Name of a branch -> what was proposed. Empty before that.
        augmented: The batch under the views of the training pass. None before proposals.
    """

    bound: BoundModel
    batch: Batch
    view_size: Size
    each: dict[str, Trial]
    stream: Stream
    difficulty: Difficulty
    step: int
    proposals: Mapping[str, Proposal] = field(default_factory=dict)
    augmented: Batch | None = None

    @property
    def device(self) -> torch.device:
        """The device of the model."""
        return self.bound.device

    @property
    def index(self) -> Tensor:
        """The numbers of all rows on trial, [m] long."""
        indices = [trial.index for trial in self.each.values()]
        return torch.cat(indices) if indices else torch.empty(0, dtype=torch.long, device=self.device)

    @property
    def parts(self) -> dict[str, slice]:
        """Name of a branch -> the slice of its rows in `index`."""
        end, parts = 0, {}
        for name, trial in self.each.items():
            parts[name] = slice(end, end := end + len(trial))
        return parts

    # ---- proposals

    def draw(self, name: str, log_probs: Mapping[str, Tensor]) -> Proposal:
        """Draws bins or cells of a branch by log-probabilities [n, k], and magnitudes within them."""
        branch, stream = self.each[name].branch, self.stream
        chosen: dict[str, Tensor] = {}
        adversarial: Magnitudes = {}
        reference: Magnitudes = {}
        for operation in branch.operations:
            bins = operation.choose(log_probs[operation.name].detach(), stream)
            chosen[operation.name] = bins
            adversarial[branch.full_name(operation)] = operation.draw(bins, stream)
            fair = operation.draw_reference(bins, stream)
            if fair is not None:
                reference[branch.full_name(operation)] = fair
        return Proposal(dict(log_probs), chosen, adversarial, reference)

    @cached_property
    def adversarial(self) -> dict[str, View]:
        """Name of a branch -> the views that were proposed. The model trains on them."""
        return {name: self._view(trial, trial.held | self.proposals[name].adversarial) for name, trial in self.each.items()}

    @cached_property
    def reference(self) -> dict[str, View]:
        """Name of a branch -> the random views that these are compared with. They differ only in what is on trial."""
        return {name: self._view(trial, trial.drawn | self.proposals[name].reference) for name, trial in self.each.items()}

    def view(self, magnitudes: Mapping[str, Magnitudes]) -> View:
        """The views of all rows in the order of `index`, by the magnitudes of each branch's own operations."""
        return self.joined({name: self._view(trial, trial.held | magnitudes[name]) for name, trial in self.each.items()})

    def joined(self, *views: Mapping[str, View]) -> View:
        """Views of all rows in the order of `index`, one set after the other."""
        each = [views_of[name] for views_of in views for name in self.each]
        if not each:
            return View()
        return concatenate(each, [len(trial) for _ in views for trial in self.each.values()])

    def _view(self, trial: Trial, magnitudes: Magnitudes) -> View:
        size, n = self.batch.size, len(trial)
        return self.bound.policy.view(magnitudes, n, size, self.view_size, last=trial.branch, device=self.device)

    # ---- passes

    def look(self) -> dict[str, Sequence[Tensor]]:
        """Name of a branch -> the features of its rows, from one pass for all.

        The look sees a row after everything that is not on trial (flip, colour, random draws of other branches), so that a
        proposal fits what the learner saw.
        """
        needed = self.bound.call.needs(self.batch)
        parts = [
            needed.select(trial.index).apply(self._view(trial, trial.held), self.view_size) for trial in self.each.values()
        ]
        if not parts:
            self.take_part(needed)
            return {}
        levels = [feature.split([len(part) for part in parts]) for feature in self.bound.look(reduce(needed.joined, parts))]
        return {name: [level[i] for level in levels] for i, name in enumerate(self.each)}

    def score(self, view: View, *, training: bool = False) -> Tensor:
        """How hard views of the rows in `index` are, [m] float32; NaN where a masked layer did not run.

        Args:
            view: Views of all rows, from `joined`.
            training: Whether the model behaves as in the training pass. By default it is in evaluation mode, where rows do not
                influence each other.
        """
        if not self.each:
            self.take_part()
            return self.index.float()
        return self.score_batch(self.batch.select(self.index).apply(view, self.view_size), view, training=training)

    def score_batch(self, batch: Batch, view: View, *, training: bool = False) -> Tensor:
        """The same of rows that are under their views already."""
        (scores,) = self.bound.score(batch, view.feature_masks, [self.difficulty], training=training)
        return scores

    def take_part(self, batch: Batch | None = None) -> None:
        """Takes the place of a pass without rows: a sharded model gathers parameters from all ranks in every pass."""
        batch = self.batch if batch is None else batch
        if self.bound.sharded:
            self.bound.run_one_row(batch, self.view_size)

"""Two ways of scoring: exactly, in a pass of its own, or with adversarial difficulties from the training pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from adaug._batches.batch import Batch
from adaug._model.bound import BoundModel, Difficulty
from adaug.learners.trial import Trials


@dataclass(frozen=True)
class Scores:
    """The difficulty of the views of the rows that are compared, [m] float32 in the order of `Trials.index`.

    Attributes:
        reference: The difficulties of the reference views. None if nothing was compared.
        adversarial: Those of the adversarial views. None if nothing was compared, or if the training pass will tell them.
    """

    reference: Tensor | None
    adversarial: Tensor | None

    @property
    def complete(self) -> bool:
        """Whether nothing is left to score."""
        return self.reference is None or self.adversarial is not None


NO_SCORES = Scores(None, None)  # of a step that compares nothing


class Scoring(Protocol):
    """Scores the views on trial.

    Attributes:
        training: Whether views are scored as in the training pass, with batch statistics and dropout.
    """

    @property
    def training(self) -> bool: ...

    def score(self, bound: BoundModel, trials: Trials, batch: Batch, augmented: Batch, difficulty: Difficulty) -> Scores:
        """Scores the rows that are compared. `augmented` is the batch under `trials.view`."""


@dataclass(frozen=True)
class Exact:
    """Scores both views in evaluation mode. Rows do not influence each other there, so one pass does both."""

    training: bool = False

    def score(self, bound: BoundModel, trials: Trials, batch: Batch, augmented: Batch, difficulty: Difficulty) -> Scores:
        index = trials.index
        if not len(index):
            if bound.sharded:
                bound.run_one_row(batch, augmented.size)
            return Scores(index.float(), index.float())
        reference = batch.select(index).apply(trials.reference, augmented.size)
        both = batch.joined(augmented.select(index), reference)
        (scores,) = bound.score(both, trials.both.feature_masks, [difficulty])
        return Scores(reference=scores[len(index) :], adversarial=scores[: len(index)])


@dataclass(frozen=True)
class FromTraining:
    """Scores only the reference views, in training mode. The training pass gives the adversarial ones, which saves a pass.

    A single row has no batch statistics, so it is scored exactly.
    """

    training: bool = True

    def score(self, bound: BoundModel, trials: Trials, batch: Batch, augmented: Batch, difficulty: Difficulty) -> Scores:
        index = trials.index
        if len(index) < 2:
            return Exact().score(bound, trials, batch, augmented, difficulty)
        reference = batch.select(index).apply(trials.reference, augmented.size)
        (random,) = bound.score(reference, trials.reference.feature_masks, [difficulty], training=True)
        return Scores(random, None)


SCORING: dict[str, Scoring] = {"eval": Exact(), "train": FromTraining()}

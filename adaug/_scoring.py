"""Two ways of scoring: exactly, in a pass of its own, or with adversarial difficulties from the training pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from adaug._batch import Batch
from adaug._network import BoundModel, Difficulty
from adaug._trial import Scores, Trials


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
                bound.attend(batch, augmented.size)
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

"""The two ways of scoring: exactly, in passes of their own, or with the adversarial views left to the training pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from adaug._batch import Batch
from adaug._network import BoundModel, Difficulty
from adaug._trial import Scores, Trials


class Scoring(Protocol):
    """How difficult the views on trial are.

    Attributes:
        training: Whether views are scored in the behaviour of the training pass.
    """

    @property
    def training(self) -> bool: ...

    def score(self, bound: BoundModel, trials: Trials, batch: Batch, augmented: Batch, difficulty: Difficulty) -> Scores:
        """Scores the rows that are compared; `augmented` is the batch as `trials.view` sees it."""


@dataclass(frozen=True)
class Exact:
    """Both views in eval behaviour, where rows do not influence each other, and so in one pass."""

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
    """The reference views alone, as the training pass will score the adversarial ones: one pass less.

    With batch statistics and dropout as there. A single row has no batch statistics, and is scored exactly.
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

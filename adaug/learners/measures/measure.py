"""A measure of how hard views were, and the entries of a batch that one compares a prediction with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from adaug._batches.batch import Batch
from adaug._batches.kinds import Key
from adaug._batches.tree import Path

__all__ = ["Measure", "Rule", "targets_of"]


@dataclass(frozen=True)
class Measure:
    """A difficulty that does not grow with size.

    Attributes:
        about: What it measures, in words. It names the measure in a saved state.
        prediction: The part of the output that it reads.
        function: prediction -> [B].
        target: The entry that it compares the prediction with.
        counted: Whether the target says how many channels the prediction should have. If not, other features fit as well.
        path: The way to the prediction in the output.
    """

    about: str
    prediction: Tensor
    function: Callable[[Tensor], Tensor]
    target: Key
    counted: bool = True
    path: Path = ()


Rule = Callable[[Tensor, Batch], list[Measure]]  # all measures that fit a part of the output, by shapes alone


def targets_of(batch: Batch, kind: str) -> dict[Key, Tensor]:
    """The entries of a kind with a row for each image, as the batch has them."""
    keys = [key for key in batch.keys_of(kind) if batch.kinds[key].rows is None]
    return {key: batch.entries[key] for key in keys if isinstance(batch.entries[key], Tensor)}

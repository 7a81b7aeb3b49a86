"""Which measure fits a model's output and a batch: by structure and shapes alone, so that nothing waits for the device."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from adaug._batches.batch import Batch
from adaug._batches.moving.held import plain
from adaug._batches.names import kind_named
from adaug._batches.tree import Path, children, is_named_tuple, is_record
from adaug.learners.measures.classes import of_labels, of_masks
from adaug.learners.measures.measure import Measure, Rule
from adaug.learners.measures.places import of_boxes, of_heatmaps, of_keypoints, of_peaks

__all__ = ["GIVEN", "LOSS", "USERS", "measure_of", "measured", "measures_of", "name_of", "what_was_found"]

LOSS = "the loss"
USERS = "the user's"
GIVEN = "numbers that the user gave"

RULES: tuple[Rule, ...] = (of_keypoints, of_peaks, of_heatmaps, of_masks, of_labels, of_boxes)
MAIN = ("out", "output", "outputs", "logits", "pred", "preds", "prediction", "predictions")
KINDS = ("keypoints", "heatmaps", "mask", "boxes", "label")  # kinds that a model predicts


def measured(output: Any, batch: Batch) -> Tensor:
    """The difficulty of each row, [B] float32, by the measure for this output."""
    measure = measure_of(output, batch)
    assert measure is not None
    with torch.no_grad():
        return measure.function(measure.prediction).float()


def name_of(output: Any, batch: Batch) -> str:
    """The name of the measure for this output."""
    measure = measure_of(output, batch)
    return LOSS if measure is None else measure.about


def measure_of(output: Any, batch: Batch) -> Measure | None:
    """The one measure that fits an output and a batch. None if adaug knows none, or cannot tell which."""
    found = measures_of(output, batch)
    return found[0] if len(found) == 1 else None


def measures_of(output: Any, batch: Batch, path: Path = ()) -> list[Measure]:
    """All measures among which nothing decides. Usually one.

    In a mapping, or a class with names, parts with usual names such as "out", "logits" or "heatmaps" go first, and "aux" does
    not count. Of a list or a tuple, the first part that fits counts, or the last one with its shape (intermediate supervision).
    """
    if isinstance(output, Tensor):
        return [replace(one, path=path) for one in _of_tensor(plain(output).detach(), batch)]
    if isinstance(output, (list, tuple)) and not is_named_tuple(output):
        return _of_sequence([measures_of(part, batch, (*path, i)) for i, part in enumerate(output)])
    parts = [(name, part) for name, part in _named(output) if not _auxiliary(name)]
    found = list(chain(*(measures_of(part, batch, (*path, name)) for name, part in parts)))
    usual = [one for one in found if any(map(_usual, one.path[len(path) :]))]
    told = {one.about for one in usual}
    # features have any number of channels, so under an unusual name only a number that fits tells that it is no feature
    return usual + [one for one in found if one.counted and one.about not in told]


def _of_tensor(part: Tensor, batch: Batch) -> list[Measure]:
    """The measures of a tensor. For maps, of the first rule that decides: a number of keypoints says more than classes."""
    if not part.is_floating_point() or part.ndim < 2 or len(part) != len(batch):
        return []
    found = [rule(part, batch) for rule in RULES]
    if part.ndim > 2 and any(len(one) == 1 for one in found):
        return next(one for one in found if len(one) == 1)
    return list(chain(*found))


def _of_sequence(parts: Iterable[list[Measure]]) -> list[Measure]:
    found = [each for each in parts if each]
    every = list(chain(*found))
    if len({(one.about, one.prediction.shape[1]) for one in every}) > 1 or any(len(each) > 1 for each in found):
        return every  # of several tasks, or features beside logits
    return [one for one in every if one.prediction.shape == every[0].prediction.shape][-1:]


def _named(output: Any) -> Iterable[tuple[Any, Any]]:
    if is_named_tuple(output):
        return zip(output._fields, output, strict=True)
    if isinstance(output, Mapping) or is_record(output):
        return children(output)
    return ((name, getattr(output, name)) for name in MAIN if hasattr(output, name))


def _usual(name: Any) -> bool:
    return name in MAIN or kind_named(name) in KINDS


def _auxiliary(name: Any) -> bool:
    return isinstance(name, str) and "aux" in name.lower()


# ---- in words


def what_was_found(output: Any, batch: Batch) -> str:
    """What an output and a batch have, if no measure fits them."""
    found = measures_of(output, batch)
    if found:
        parts = "; ".join(f"output{_as_code(one.path)} with {one.target!r} ({one.about})" for one in found)
        return f"Found that nothing decides between {parts}"
    kinds = ", ".join(sorted({target.kind for target in batch.kinds.values()} - {"other"}))
    return f"Found {_described(output)} for a batch with {kinds}"


def _as_code(path: Path) -> str:
    return "".join(f"[{part!r}]" for part in path)


def _described(output: Any, depth: int = 2) -> str:
    if isinstance(output, Tensor):
        of = "" if output.is_floating_point() else f" of {str(output.dtype).removeprefix('torch.')}"
        return f"a tensor{of} of shape {tuple(output.shape)}" if output.ndim else "a number for the whole batch"
    named = list(_named(output)) if not isinstance(output, (list, tuple)) or is_named_tuple(output) else []
    what = type(output).__name__
    if named and depth:
        return f"{what} with {', '.join(f'{name!r}: {_described(part, depth - 1)}' for name, part in named[:8])}"
    if isinstance(output, (list, tuple)) and output and depth:
        return f"{what} of {', '.join(_described(part, depth - 1) for part in output[:4])}"
    return what

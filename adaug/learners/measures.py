"""The default difficulty of running difficulty. It should not grow with the size of the object, as losses often do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from adaug._batches.batch import Batch
from adaug._batches.moving.held import plain
from adaug._runtime.geometry import told_stride
from adaug.keypoints import normalized_error

__all__ = ["Measure", "measure_of"]


@dataclass(frozen=True)
class Measure:
    """A difficulty that does not grow with size.

    Attributes:
        about: What it measures, in words. It names the measure in a saved state.
        function: (output, batch) -> [B].
    """

    about: str
    function: Callable[[Any, Batch], Tensor]


LOSS = "the loss"
USERS = "the user's"
GIVEN = "numbers that the user gave"
MAY_GROW = (
    "adaug: running difficulty uses the loss, because adaug knows no measure for this output that ignores an object's size. "
    "If `difficulty_table()` notes that difficulty grows with size, pass `difficulty` a measure that does not."
)


def measured(output: Any, batch: Batch) -> Tensor:
    """The difficulty of each row, [B] float32, by the measure for this kind of output."""
    measure = measure_of(output, batch)
    assert measure is not None
    with torch.no_grad():
        return plain(measure.function(output, batch)).float()


def name_of(output: Any, batch: Batch) -> str:
    """The name of the measure for this kind of output."""
    measure = measure_of(output, batch)
    return LOSS if measure is None else measure.about


def measure_of(output: Any, batch: Batch) -> Measure | None:
    """A difficulty for this kind of output that does not grow with size. None if adaug knows none."""
    last = _last(output, batch)
    if not isinstance(last, Tensor) or not last.is_floating_point() or not last.ndim or len(last) != len(batch):
        return None
    labels, points, masks = (batch.entries_of(kind) for kind in ("label", "keypoints", "mask"))
    if last.ndim == 2 and last.shape[1] > 1 and len(labels) == 1 and labels[0].ndim == 1 and not labels[0].is_floating_point():
        return Measure("1 - the probability of the true class", _of_labels)
    if last.ndim != 4:
        return None
    fits = told_stride(last.shape[-2:], batch.size) is not None
    if len(points) == 1 and points[0].ndim == 3 and points[0].shape[1] == last.shape[1] and fits:
        return Measure("the error of the heat maps' peaks over the size of the keypoints' box", _of_keypoints)
    if len(masks) == 1 and not masks[0].is_floating_point() and (masks[0].ndim == 3 or masks[0].shape[1] == 1):
        return Measure("1 - the mean IoU of the classes in the image", _of_masks)
    return None


def _last(output: Any, batch: Batch) -> Any:
    """What the last of several stacks returned, which is the one that counts. What has no rows, such as a sum, is no stack."""
    if not isinstance(output, (list, tuple)):
        return output
    stacks = [one for one in output if isinstance(one, Tensor) and one.ndim and len(one) == len(batch)]
    return stacks[-1] if stacks else None


def _of_labels(output: Any, batch: Batch) -> Tensor:
    """1 - the probability of the true class: bounded, so that a few images do not decide. NaN for labels out of range."""
    logits = _last(output, batch)
    label = batch.entries_of("label")[0].to(logits.device)
    true = label[:, None] == torch.arange(logits.shape[1], device=logits.device)  # [B, classes]
    return 1 - (logits.float().softmax(1) * true).sum(1) / true.sum(1)  # 0 / 0 where no class is the true one


def _of_keypoints(output: Any, batch: Batch) -> Tensor:
    entries = {"image": batch.image, "keypoints": batch.entries_of("keypoints")[0]}
    if visibility := batch.entries_of("visibility"):
        entries["visibility"] = visibility[0]
    return normalized_error(_last(output, batch), entries)


def _of_masks(output: Any, batch: Batch) -> Tensor:
    """1 - IoU of logits [B, C, h, w] and integer masks, averaged over the classes that an image has. Others are ignored."""
    logits = _last(output, batch)  # [B, C, h, w]
    mask = batch.entries_of("mask")[0]
    planes = (mask if mask.ndim == 4 else mask[:, None]).float()
    mask = F.interpolate(planes, logits.shape[-2:], mode="nearest").flatten(1).long()  # [B, h * w]
    if logits.shape[1] == 1:  # one class against the rest: a logit, or a probability
        threshold = torch.where((logits.amin() >= 0) & (logits.amax() <= 1), 0.5, 0.0)
        predicted, classes = (logits > threshold).flatten(1).long(), 2
    else:
        predicted, classes = logits.max(1).indices.flatten(1), logits.shape[1]  # argmax over channels is far slower on a CPU
    counts = torch.zeros(len(mask), classes * classes + 1, device=mask.device)
    known = (mask >= 0) & (mask < classes)
    cell = torch.where(known, mask * classes + predicted, classes * classes)
    confusion = counts.scatter_add_(1, cell, torch.ones_like(cell, dtype=counts.dtype))[:, :-1]
    confusion = confusion.unflatten(1, (classes, classes))
    overlap, true = confusion.diagonal(dim1=1, dim2=2), confusion.sum(2)
    iou = overlap / (true + confusion.sum(1) - overlap).clamp(min=1)
    return 1 - torch.where(true > 0, iou, 0).sum(1) / (true > 0).sum(1)

"""Measures of predicted classes: of images, and of pixels."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from adaug._batches.batch import Batch
from adaug._batches.kinds import Key
from adaug.learners.measures.measure import Measure, targets_of

__all__ = ["of_labels", "of_masks"]

CLASS = "1 - the probability of the true class"
CLASSES = "how far the probabilities of the classes lie from the labels"
IOU = "1 - the mean IoU of the classes in the image"
LOOKED_AT = 64  # places along each side of planes that tell whether they are one-hot


def of_labels(part: Tensor, batch: Batch) -> list[Measure]:
    """Logits [B, C] for class ids [B], [B, 1] for 0 and 1, and [B, C] for one-hot, soft or several labels [B, C].

    A tensor [B] is none of these: it may as well hold losses.
    """
    if part.ndim != 2:
        return []
    found = []
    for key, label in targets_of(batch, "label").items():
        if label.ndim == 1 or label.shape[1:] == (1,):
            function = _not_the_class if part.shape[1] > 1 else _not_the_side
            found.append(Measure(CLASS, part, partial(function, label=label.reshape(-1)), key, counted=False))
        elif label.shape == part.shape:
            found.append(Measure(CLASSES, part, partial(_off_the_labels, labels=label), key))
    return found


def of_masks(part: Tensor, batch: Batch) -> list[Measure]:
    """Logits [B, C, h, w] for class maps [B, (1,) H, W] or planes [B, C, H, W], and [B, 1, h, w] for masks of 0 and 1."""
    if part.ndim != 4:
        return []
    found = []
    for key, mask in targets_of(batch, "mask").items():
        if mask.ndim == 3 or mask.shape[1] == 1:
            found.append(Measure(IOU, part, partial(_iou_of_ids, mask=mask), key, counted=False))
        elif mask.shape[1] == part.shape[1] and key not in batch.listed:  # else it is the number of objects
            found.append(Measure(IOU, part, partial(_iou_of_planes, batch=batch, key=key), key))
    return found


# ---- of images


def _not_the_class(logits: Tensor, label: Tensor) -> Tensor:
    """1 - the probability of the true class: bounded, so that a few images do not decide. NaN for labels out of range."""
    label = label.to(logits.device)
    true = label[:, None] == torch.arange(logits.shape[1], device=logits.device)  # [B, classes]
    return 1 - (logits.float().softmax(1) * true).sum(1) / true.sum(1)  # 0 / 0 where no class is the true one


def _not_the_side(logits: Tensor, label: Tensor) -> Tensor:
    """The same of one logit [B, 1], and labels from 0 to 1."""
    label = label.to(logits.device).float()
    error = (logits[:, 0].float().sigmoid() - label).abs()
    return torch.where((label >= 0) & (label <= 1), error, torch.nan)


def _off_the_labels(logits: Tensor, labels: Tensor) -> Tensor:
    """0 to 1. If each row of labels sums to 1, the total variation distance: 1 - the probability of the true class for one-hot.

    If not, each class is there or not: the mean error of the classes that are, and of those that are not, count alike.
    """
    logits, labels = logits.float(), labels.to(logits.device).float()
    one = (logits.softmax(1) - labels).abs().sum(1) / 2
    error = (logits.sigmoid() - labels).abs()
    both = torch.stack([labels, 1 - labels])  # [2, B, C]
    weight = both.sum(2)
    several = ((error * both).sum(2) / weight.clamp(min=1e-6)).sum(0) / (weight > 0).sum(0)
    exclusive = ((labels.sum(1) - 1).abs() < 1e-3).all()
    valid = ((labels >= 0) & (labels <= 1)).all(1)
    return torch.where(valid, torch.where(exclusive, one, several), torch.nan)


# ---- of pixels


def _iou_of_ids(logits: Tensor, mask: Tensor) -> Tensor:
    """1 - IoU of logits [B, C, h, w] and class maps, averaged over the classes that an image has. Others are ignored."""
    planes = (mask if mask.ndim == 4 else mask[:, None]).to(logits.device).float().nan_to_num(-1)
    mask = F.interpolate(planes, logits.shape[-2:], mode="nearest").flatten(1).round().long()  # [B, h * w]
    if logits.shape[1] == 1:  # one class against the rest
        predicted, classes = (logits > _threshold(logits)).flatten(1).long(), 2
    else:
        predicted, classes = logits.max(1).indices.flatten(1), logits.shape[1]  # argmax over channels is far slower on a CPU
    counts = torch.zeros(len(mask), classes * classes + 1, device=mask.device)
    known = (mask >= 0) & (mask < classes)
    cell = torch.where(known, mask * classes + predicted, classes * classes)
    confusion = counts.scatter_add_(1, cell, torch.ones_like(cell, dtype=counts.dtype))[:, :-1]
    confusion = confusion.unflatten(1, (classes, classes))
    overlap, true = confusion.diagonal(dim1=1, dim2=2), confusion.sum(2)
    return _missed(overlap, true + confusion.sum(1) - overlap, true > 0)


def _iou_of_planes(logits: Tensor, batch: Batch, key: Key) -> Tensor:
    """The same of planes: the largest logit if each pixel has one class, else all that are above the threshold."""
    exclusive = _exclusive(batch, key)
    masks = batch.entries[key].to(logits.device).float()
    planes = F.interpolate(masks, logits.shape[-2:], mode="nearest") > 0.5
    predicted = torch.where(exclusive, logits == logits.amax(1, keepdim=True), logits > _threshold(logits))
    known = ~exclusive | planes.any(1, keepdim=True)  # a view fills what the image does not show with no class at all
    overlap, union = ((one & known).flatten(2).sum(2) for one in (predicted & planes, predicted | planes))
    return _missed(overlap, union, planes.flatten(2).any(2))


def _threshold(logits: Tensor) -> Tensor:
    """Where "no" ends: 0 for logits, 0.5 for probabilities."""
    return torch.where((logits.amin() >= 0) & (logits.amax() <= 1), 0.5, 0.0)


def _exclusive(batch: Batch, key: Key) -> Tensor:
    """Whether exactly one plane is set at each place, in the batch as it was before the view."""
    given = batch.as_given(key)
    planes = given if isinstance(given, Tensor) and given.ndim == 4 else batch.entries[key]
    down, right = (max(1, side // LOOKED_AT) for side in planes.shape[-2:])
    return ((planes[..., ::down, ::right] > 0.5).sum(1) == 1).all()


def _missed(overlap: Tensor, union: Tensor, there: Tensor) -> Tensor:
    """1 - the mean IoU [B] of the classes that are there, from [B, C]."""
    return 1 - torch.where(there, overlap / union.clamp(min=1), 0).sum(1) / there.sum(1)

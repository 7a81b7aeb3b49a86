"""Measures of predicted places, over the object's size: keypoints, heat maps and boxes."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from adaug._batches.batch import Batch
from adaug._batches.kinds import Key
from adaug._batches.units import box_to_pixels, to_pixels
from adaug._runtime.geometry import told_stride
from adaug.keypoints import decode_heatmaps, error_over_size, labelled
from adaug.learners.measures.measure import Measure, targets_of

__all__ = ["of_boxes", "of_heatmaps", "of_keypoints", "of_peaks"]

PEAKS = "the error of the heat maps' peaks over the size of the keypoints' box"
MAPS = "the error of the heat maps' peaks over the size of the true peaks' box"
POINTS = "the error of the keypoints over the size of their box"
BOXES = "1 - the IoU of the box"
LOW = 0.3  # of the highest peak of the image; a lower one is the rim of a peak outside the frame


def of_keypoints(part: Tensor, batch: Batch) -> list[Measure]:
    """Keypoints [B, K, 2 or 3] or [B, 2K or 3K] for keypoints, in the unit of the entry. A third number does not count."""
    found = []
    for key, k in _people(batch).items():
        if part.shape[1:] in [shape for c in (2, 3) for shape in ((k * c,), (k, c), (1, k, c))]:
            found.append(Measure(POINTS, part, partial(_error_of_points, batch=batch, key=key, k=k), key))
    return found


def of_peaks(part: Tensor, batch: Batch) -> list[Measure]:
    """Heat maps [B, K, h, w] for keypoints."""
    if part.ndim != 4 or told_stride(part.shape[-2:], batch.size) is None:
        return []
    keys = [key for key, k in _people(batch).items() if k == part.shape[1]]
    return [Measure(PEAKS, part, partial(_error_of_peaks, batch=batch, key=key), key) for key in keys]


def of_heatmaps(part: Tensor, batch: Batch) -> list[Measure]:
    """Heat maps [B, K, h, w] for heat maps of as many keypoints, also of another size, if an image shows one person."""
    crowds = any(points.ndim == 4 and points.shape[1] > 1 for points in targets_of(batch, "keypoints").values())
    if part.ndim != 4 or crowds:
        return []
    keys = [key for key, maps in targets_of(batch, "heatmaps").items() if maps.shape[1] == part.shape[1]]
    return [Measure(MAPS, part, partial(_error_of_maps, batch=batch, key=key), key) for key in keys]


def of_boxes(part: Tensor, batch: Batch) -> list[Measure]:
    """A box [B, 4] or [B, 1, 4] for one box in each image, in the unit and the format of the entry."""
    if part.shape[1:] not in ((4,), (1, 4)):
        return []
    keys = [key for key, boxes in targets_of(batch, "boxes").items() if boxes.shape[1:] == (1, 4)]
    return [Measure(BOXES, part, partial(_distance_of_boxes, batch=batch, key=key), key) for key in keys]


# ---- what they compute


def _people(batch: Batch) -> dict[Key, int]:
    """The keypoints of one person in each image, and how many they are."""
    points = targets_of(batch, "keypoints")
    return {key: value.shape[-2] for key, value in points.items() if value.ndim == 3 or value.shape[1] == 1}


def _counted(batch: Batch, n: int, k: int) -> Tensor | None:
    """Which of k keypoints count by all entries of visibility and weight that have a number, or several, for each. [n, k]."""
    each = [seen for seen in targets_of(batch, "visibility").values() if len(seen) == n and seen.numel() % (n * k) == 0]
    known = [(seen > 0).reshape(n, k, -1).any(-1) for seen in each]
    return torch.stack(known).all(0) if known else None


def _truth(batch: Batch, key: Key) -> tuple[Tensor, Tensor]:
    """Keypoints in pixels [B, K, 2], and which of them count [B, K]."""
    points = batch.in_pixels(key)
    points = points if points.ndim == 3 else points[:, 0]
    return points[..., :2].float(), labelled(points, _counted(batch, *points.shape[:2]))


def _error_of_points(part: Tensor, batch: Batch, key: Key, k: int) -> Tensor:
    points = to_pixels(part.float().reshape(len(part), k, -1)[..., :2], batch.kinds[key].unit, batch.size)
    return error_over_size(points, *_truth(batch, key))


def _error_of_peaks(part: Tensor, batch: Batch, key: Key) -> Tensor:
    points, _ = decode_heatmaps(part.float(), stride=told_stride(part.shape[-2:], batch.size) or 1)
    return error_over_size(points, *_truth(batch, key))


def _error_of_maps(part: Tensor, batch: Batch, key: Key) -> Tensor:
    """Low maps do not count: they are those of keypoints that nobody labelled, or that a view moved out of the frame."""
    (points, _), (truth, peaks) = _peaks(part, batch), _peaks(batch.entries[key], batch)
    seen, shown = _counted(batch, *peaks.shape), peaks > peaks.amax(1, keepdim=True).clamp(min=0) * LOW
    return error_over_size(points, truth, shown if seen is None else seen & shown)


def _peaks(maps: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    """The peaks of maps that show the whole image, in image pixels, and their heights."""
    points, heights = decode_heatmaps(maps.float())
    (x, y), (height, width) = ((points + 0.5).unbind(-1)), batch.size
    return torch.stack([x * (width / maps.shape[-1]), y * (height / maps.shape[-2])], -1) - 0.5, heights


def _distance_of_boxes(part: Tensor, batch: Batch, key: Key) -> Tensor:
    """NaN where the true box has no area, because a view moved it out of the frame."""
    target = batch.kinds[key]
    one = box_to_pixels(part.float().reshape(-1, 4), target.unit, target.format, batch.size)
    true = batch.in_pixels(key)[:, 0].float()
    overlap = (torch.minimum(one[:, 2:], true[:, 2:]) - torch.maximum(one[:, :2], true[:, :2])).clamp(min=0).prod(1)
    area, wanted = ((box[:, 2:] - box[:, :2]).clamp(min=0).prod(1) for box in (one, true))
    return torch.where(wanted > 0, 1 - overlap / (area + wanted - overlap), torch.nan)

"""Which scores of parts count: those of joints, people and boxes that a view leaves in the frame."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from adaug._batches.batch import Batch
from adaug._runtime.geometry import inside
from adaug._views.view import View
from adaug._views.warp import swap_pairs, warp_points


def without_what_left(scores: Tensor, before: Batch, seen: Batch, view: View) -> tuple[Tensor, bool]:
    """Replaces the scores of what is not visible under a view, or outside its frame, by NaN.

    Args:
        scores: [n], [n, parts] or [n, people, joints].
        before: The rows as they are.
        seen: The same rows under the view.
        view: The view.

    Returns:
        The scores, [n] or [n, parts], and whether parts are objects, of which each image has its own number.

    Raises:
        ValueError: Scores have three dimensions, and there are no such people.
    """
    for counts, objects in _what_counts(before, seen, view):
        if counts.shape == scores.shape:
            scores = torch.where(counts.to(scores.device), scores.float(), torch.nan)
            return scores.flatten(1) if scores.ndim > 1 else scores, objects
    if scores.ndim == 3:
        raise ValueError(
            "`score` should return one number per image or per part, (B,) or (B, parts), or one per joint of each of the "
            f"batch's people. Found {tuple(scores.shape)}."
        )
    return scores.float(), False


def _what_counts(before: Batch, seen: Batch, view: View) -> Iterator[tuple[Tensor, bool]]:
    """What counts of each kind of part, bool [n, ...], and whether such parts are objects."""
    known = seen.labelled_keypoints()
    visible: Tensor | None = None
    if known is not None:
        visible = known[1] & inside(known[0][..., :2], seen.size)
        yield visible, visible.ndim == 3
    elif seen.has("heatmaps"):
        yield _peaks(before, seen, view), False
    if seen.has("boxes"):
        x1, y1, x2, y2 = seen.entries_of("boxes")[0].unbind(-1)
        yield (x2 > x1) & (y2 > y1), True
    if visible is not None and visible.ndim == 3:
        yield visible.any(2), True
        yield visible.flatten(1), True


def _peaks(before: Batch, seen: Batch, view: View) -> Tensor:
    """Which heat maps have their peak in the frame, and are visible, [n, K]. A flat map has no peak that could leave."""
    maps = before.entries_of("heatmaps")[0]
    h, w = maps.shape[-2:]
    peak, index = maps.flatten(2).max(2)
    stays = torch.ones_like(index, dtype=torch.bool)
    if view.matrix is not None:
        at = torch.stack([(index % w + 0.5) * (before.size[1] / w), (index // w + 0.5) * (before.size[0] / h)], -1) - 0.5
        stays = inside(warp_points(at.to(view.matrix.dtype), view.matrix), seen.size) | (peak <= maps.flatten(2).amin(2))
    if view.flipped is not None:
        stays = swap_pairs(stays, view.flipped, view.pairs or (), 1)
    return stays & (seen.entries_of("visibility")[0].reshape(stays.shape) > 0) if seen.has("visibility") else stays


def joined(tables: Sequence[Tensor]) -> np.ndarray[Any, Any]:
    """The scores of all batches. Where images have their own numbers of objects, what an image lacks does not count."""
    most = max((table.shape[2] for table in tables if table.ndim == 3), default=0)
    same = [F.pad(t, (0, most - t.shape[2]), value=torch.nan) if t.ndim == 3 else t for t in tables]
    scores: np.ndarray[Any, Any] = torch.cat(same).numpy()
    return scores

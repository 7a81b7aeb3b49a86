"""What each entry of a batch is: its kind, said by the user or known by its name, and the shape that the kind asks for."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

KINDS = ("image", "keypoints", "visibility", "heatmaps", "mask", "boxes", "label", "other")
USUAL_NAMES = {
    "image": ("image", "images", "img", "imgs", "pixel_values"),
    "keypoints": ("keypoints", "joints", "landmarks", "points"),
    "visibility": ("visibility", "visible", "vis"),
    "heatmaps": ("heatmaps", "heatmap"),
    "mask": ("mask", "masks", "segmentation"),
    "boxes": ("boxes", "bboxes"),
    "label": ("label", "labels", "class", "classes"),
    "other": ("id", "ids", "index", "indices", "sample_id", "image_id", "weight", "weights", "name", "path", "meta"),
}
KIND_OF = {name: kind for kind, names in USUAL_NAMES.items() for name in names}
DIMENSIONS = {"image": (4,), "keypoints": (3, 4), "visibility": (2, 3), "heatmaps": (4,), "mask": (3, 4), "boxes": (3, 4)}
LAST_DIMENSION = {"keypoints": (2, 3), "boxes": (4,)}

Key = str | int  # of an entry: its name in a mapping, or its position in a tuple


@dataclass(frozen=True)
class Target:
    """What an entry of the batch is, for `targets=`: its kind, and what lies outside the canvas.

    Attributes:
        kind: image, keypoints, visibility, heatmaps, mask, boxes, label or other.
        fill: What pixels from outside the canvas get, e.g. Target("mask", fill=255) for an ignore index. The dtype of the entry
            should hold it.
    """

    kind: str
    fill: float = 0.0

    def __post_init__(self) -> None:
        if isinstance(self.fill, (str, bytes)) or not hasattr(self.fill, "__float__"):
            raise TypeError(f"`fill` of a Target should be a number. Found {self.fill!r}.")


def as_targets(targets: Mapping[Any, str | Target]) -> dict[Key, Target]:
    """Kinds by name as Targets. Raises ValueError on an unknown kind."""
    given = {key: kind if isinstance(kind, Target) else Target(kind) for key, kind in targets.items()}
    for key, target in given.items():
        if target.kind not in KINDS:
            raise ValueError(f"`targets[{key!r}]` should be one of {', '.join(KINDS)}. Found {target.kind!r}.")
    return given


def guess(key: Key, entry: Any) -> Target:
    """The kind of an entry by its name or its place. Raises ValueError when neither tells."""
    if key in KIND_OF:
        return Target(KIND_OF[str(key)])
    if key == 0:
        return Target("image")
    integers = isinstance(entry, Tensor) and entry.ndim == 1 and not entry.is_floating_point()
    if isinstance(key, int) and integers:
        return Target("label")  # one integer a row cannot go stale when pixels move
    if _holds_numbers(entry):
        raise ValueError(
            f"Each tensor of a batch should have a kind, so that it does not go stale when pixels move. Found {key!r} without "
            f"one; pass targets={{{key!r}: kind}} with one of {', '.join(KINDS)}."
        )
    return Target("other")


def _holds_numbers(entry: Any) -> bool:
    if isinstance(entry, (Tensor, np.ndarray)):
        return True
    if isinstance(entry, Mapping):
        return any(_holds_numbers(item) for item in entry.values())
    return isinstance(entry, (list, tuple)) and any(_holds_numbers(item) for item in entry)


def check_guess(key: Key, entry: Any, kind: str, image: Tensor) -> None:
    """Raises ValueError where a name says "carry it along" and the shape says that it belongs to the pixels."""
    if kind in ("label", "other") and isinstance(entry, Tensor) and entry.ndim > 2 and entry.shape[-2:] == image.shape[-2:]:
        raise ValueError(
            f"{key!r} would be carried along as it is, by its name. Found shape {tuple(entry.shape)}, a value a pixel, "
            f'which would go stale when they move; pass targets={{{key!r}: "mask"}} (or {kind!r}, if it is to stay).'
        )


def check_fill(key: Key, dtype: torch.dtype, fill: float) -> None:
    """Raises ValueError on a fill that pixels of a dtype cannot hold."""
    if not fill:
        return
    if dtype.is_floating_point:
        holds, between = not math.isfinite(fill) or abs(fill) <= torch.finfo(dtype).max, f"up to {torch.finfo(dtype).max:.3g}"
    else:
        low, high = (0, 1) if dtype == torch.bool else (torch.iinfo(dtype).min, torch.iinfo(dtype).max)
        holds = math.isfinite(fill) and fill == int(fill) and low <= fill <= high
        between = f"an integer from {low} to {high}"
    if not holds:
        raise ValueError(
            f"The fill of {key!r} should be a number that its dtype holds, {between}. Found {fill} for {dtype}; "
            "choose another one, or another dtype."
        )


def check_entry(key: Key, entry: Any, target: Target, image: Tensor) -> None:
    """Raises TypeError or ValueError when an entry does not fit its kind and the images [B, C, H, W] beside it."""
    n, kind = len(image), target.kind
    if kind in ("label", "other"):
        if isinstance(entry, Tensor) and kind == "label" and (entry.ndim == 0 or len(entry) != n):
            raise ValueError(f"{key!r} should have one row for each of {n} images. Found {tuple(entry.shape)}.")
        return
    if not isinstance(entry, Tensor):
        raise TypeError(f"{key!r}, of kind {kind}, should be a tensor. Found {type(entry).__name__}.")
    if entry.ndim not in DIMENSIONS[kind] or len(entry) != n:
        dimensions = " or ".join(map(str, DIMENSIONS[kind]))
        raise ValueError(
            f"{key!r}, of kind {kind}, should have {dimensions} dimensions and {n} rows. Found {tuple(entry.shape)}."
        )
    if entry.device != image.device:
        raise ValueError(f"{key!r} should be on the device of the images, {image.device}. Found {entry.device}.")
    last = LAST_DIMENSION.get(kind)
    if last and entry.shape[-1] not in last:
        wanted = " or ".join(map(str, last))
        raise ValueError(f"{key!r}, of kind {kind}, should have a last dimension of {wanted}. Found {tuple(entry.shape)}.")
    if kind in ("keypoints", "boxes", "heatmaps") and not entry.is_floating_point():
        raise TypeError(f"{key!r}, of kind {kind}, should be floating point. Found {entry.dtype}; use .float().")
    if kind in ("image", "heatmaps", "mask"):
        check_fill(key, entry.dtype, target.fill)

"""The kind of each entry of a batch, from the user or from its name, and the shape that each kind needs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from adaug._batches.units import FORMATS, Unit, check_unit
from adaug._runtime.checks import Rule, Rules, as_number, check_fields, checked, mapping, optional, text

KINDS = ("image", "keypoints", "visibility", "heatmaps", "mask", "boxes", "label", "other")
CARRIED = ("label", "other")  # kinds that stay as they are, however pixels move
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
OPTIONS = {"unit": ("keypoints", "boxes"), "format": ("boxes",), "fill": ("image", "heatmaps", "mask")}  # kinds that take them
DIMENSIONS = {"image": (4,), "keypoints": (3, 4), "visibility": (2, 3), "heatmaps": (4,), "mask": (3, 4), "boxes": (3, 4)}
LAST_DIMENSION = {"keypoints": (2, 3), "boxes": (4,)}

Key = Any  # of an entry: its name in a mapping, its position in a tuple, or a tuple of these for one inside another


@dataclass(frozen=True)
class Target:
    """Describes an entry of the batch for `targets=`: its kind, the fill outside the canvas, and the unit of coordinates.

        Target("mask", fill=255)
        Target("keypoints", unit="unit")
        Target("boxes", unit="unit", format="cxcywh")

    Attributes:
        kind: image, keypoints, visibility, heatmaps, mask, boxes, label or other.
        fill: The value of pixels outside the canvas, such as 255 for an ignore index. The entry's dtype must hold it.
        unit: The unit of keypoints and boxes. They come back in the same unit. "pixels": (0, 0) is the centre of the first
            pixel. "unit": 0 and 1 are the outer edges of the image, pixel = u * size - 0.5. "signed": -1 and 1 are the outer
            edges, pixel = ((s + 1) * size - 1) / 2. (offset, scale), numbers or pairs (x, y): pixel = offset + scale * value,
            for images and views alike. By default pixels; values that cannot be pixels raise an error.
        format: The format of boxes: "xyxy" (the default), "xywh" or "cxcywh".
    """

    kind: str
    fill: float = 0.0
    unit: Unit | None = None
    format: str | None = None

    _rules: ClassVar[Rules] = {
        "kind": text(f"one of {', '.join(KINDS)}", KINDS.__contains__),
        "fill": Rule("a number", as_number),
        "format": optional(text(f"one of {', '.join(FORMATS)}", FORMATS.__contains__)),
    }

    def __post_init__(self) -> None:
        check_fields(self, "a Target")
        check_unit(self.unit, "a Target")
        for name, kinds in OPTIONS.items():
            if getattr(self, name) not in (None, 0) and self.kind not in kinds:
                raise ValueError(f"`{name}` should be given for {' or '.join(kinds)}. Found it for {self.kind}; leave it out.")


PLAIN = {kind: Target(kind) for kind in KINDS}


def _read_target(value: Any) -> Target:
    if isinstance(value, Target):
        return value
    if not isinstance(value, str):
        raise TypeError
    if value not in KINDS:
        raise ValueError
    return PLAIN[value]


TARGETS = optional(
    mapping(Rule("", _read_target), f"a mapping from keys or positions to adaug.Target, or one of {', '.join(KINDS)}")
)


def as_targets(targets: Mapping[Any, str | Target] | None) -> dict[Key, Target]:
    """Turns kinds into Targets. Raises ValueError on an unknown kind."""
    given: dict[Key, Target] | None = checked({"targets": targets}, {"targets": TARGETS})["targets"]
    return given or {}


def guess(key: Key, entry: Any) -> Target | None:
    """The kind of an entry, from its name or its position. None if neither tells."""
    name = key[-1] if isinstance(key, tuple) and key else key
    if isinstance(name, str) and name in KIND_OF:
        return PLAIN[KIND_OF[name]]
    if key == 0:
        return PLAIN["image"]
    integers = isinstance(entry, Tensor) and entry.ndim == 1 and not entry.is_floating_point()
    if isinstance(key, int) and integers:
        return PLAIN["label"]  # one integer for each row stays right when pixels move
    return None


def as_it_says(target: Target, entry: Any) -> Target:
    """Adds the format that boxes have themselves (torchvision's BoundingBoxes), unless the user gave one."""
    if target.kind != "boxes" or target.format is not None:
        return target
    own = getattr(entry, "format", None)
    form = str(getattr(own, "value", own)).lower()
    return replace(target, format=form) if form in FORMATS else target


def refuse_unknown(keys: Sequence[Key]) -> None:
    """Raises ValueError that names all entries of unknown kind, if there are any."""
    if keys:
        raise ValueError(
            "Each tensor of a batch should have a kind, or adaug cannot move it with the pixels. Found "
            f"{', '.join(map(repr, keys))} without one; pass targets={{{', '.join(f'{key!r}: kind' for key in keys)}}} "
            f"with one of {', '.join(KINDS)}."
        )


def check_fill(key: Key, dtype: torch.dtype, fill: float) -> None:
    """Raises ValueError if a dtype cannot hold the fill."""
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
    if kind in CARRIED:
        if isinstance(entry, Tensor) and kind == "label" and (entry.ndim == 0 or len(entry) != n):
            raise ValueError(f"{key!r} should have one row for each of {n} images. Found {tuple(entry.shape)}.")
        return
    if not isinstance(entry, Tensor):
        advice = "pad its rows to one length and stack them" if isinstance(entry, (list, tuple)) else "make it one"
        raise TypeError(
            f"{key!r}, of kind {kind}, should be a tensor, or adaug cannot move it. Found {type(entry).__name__}; {advice}, or "
            f'pass targets={{{key!r}: "other"}} to leave it as it is.'
        )
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

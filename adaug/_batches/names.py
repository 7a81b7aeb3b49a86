"""The kind of an entry that nobody named: its own type, its name or its position may tell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from adaug._batches.kinds import KINDS, PLAIN, Key, Target
from adaug._batches.units import FORMATS

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
IMAGE_OF_OBJECT = ("batch_idx", "batch_index", "batch_indices", "image_idx", "image_index", "img_idx", "img_index")
KIND_OF = {name: kind for kind, names in USUAL_NAMES.items() for name in names} | dict.fromkeys(IMAGE_OF_OBJECT, "other")
KIND_OF_TYPE = {"Image": "image", "Video": "image", "BoundingBoxes": "boxes", "KeyPoints": "keypoints", "Mask": "mask"}


def own_kind(entry: Any) -> Target | None:
    """The kind that torchvision's tv_tensors tell themselves. This does not import torchvision."""
    if type(entry) is Tensor or not isinstance(entry, Tensor) or "tv_tensors" not in type(entry).__module__:
        return None
    name = type(entry).__name__
    return PLAIN[KIND_OF_TYPE[name]] if name in KIND_OF_TYPE else None


def guess(key: Key, entry: Any) -> Target | None:
    """The kind of an entry, from its own type, its name or its position. None if none of these tells."""
    own = own_kind(entry[0] if isinstance(entry, (list, tuple)) and entry else entry)
    if own is not None:
        return own
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
    """Adds the format that boxes have themselves (torchvision's BoundingBoxes), unless the user gave one.

    Raises ValueError if adaug does not know their format.
    """
    if target.kind != "boxes" or target.format is not None:
        return target
    own = getattr(entry, "format", None)
    if own is None:
        return target
    form = str(getattr(own, "value", own)).lower()
    if form not in FORMATS:
        raise ValueError(
            f"Boxes should have a format that adaug moves, {', '.join(FORMATS)}. Found {form}; convert them, or pass "
            "adaug.Target(move=...), a function of the boxes and the view."
        )
    return replace(target, format=form)


def refuse_unknown(keys: Sequence[Key]) -> None:
    """Raises ValueError that names all entries of unknown kind, if there are any."""
    if keys:
        raise ValueError(
            "Each tensor of a batch should have a kind, or adaug cannot move it with the pixels. Found "
            f"{', '.join(map(repr, keys))} without one; pass targets={{{', '.join(f'{key!r}: kind' for key in keys)}}} "
            f"with one of {', '.join(KINDS)}, or with adaug.Target(move=...), a function of the value and the view."
        )

"""The kind of an entry that nobody declared: its own type, its name or its position may tell."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from adaug._batches.kinds import KINDS, PLAIN, Key, Target
from adaug._batches.units import FORMATS

USUAL_NAMES = {
    "image": ("image", "images", "img", "imgs", "pixel_values", "inputs"),
    "keypoints": ("keypoints", "kpts", "joints", "landmark", "landmarks", "points", "pts"),
    "visibility": (
        *("visibility", "visible", "vis", "keypoints_visible", "keypoints_visibility", "keypoint_weights"),
        *("joints_vis", "joints_visible", "joints_visibility", "target_weight", "target_weights"),
        *("keypoint_scores", "keypoints_scores"),
    ),
    "heatmaps": ("heatmaps", "heatmap"),
    "mask": ("mask", "masks", "segmentation", "seg", "seg_map", "sem_seg", "semantic", "semantic_seg", "pixel_mask"),
    "boxes": ("boxes", "bboxes"),
    "area": ("area", "areas"),
    "label": ("label", "labels", "class", "classes", "class_labels", "category_id", "category_ids"),
    "other": (
        *("id", "ids", "index", "indices", "sample_id", "image_id", "img_id", "ann_id", "idx", "iscrowd", "crowd", "ignore"),
        *(
            "weight",
            "weights",
            "score",
            "scores",
            "name",
            "path",
            "file_name",
            "filename",
            "image_path",
            "img_path",
            "meta",
            "height",
            "width",
        ),
    ),
}
# Places and sizes in the picture that an image was cut from. They stay, however the image moves.
OF_THE_ORIGINAL = ("original_size", "orig_size", "ori_size", "original_shape", "orig_shape", "ori_shape", "orig_target_sizes")
# How an image was cut from its picture, if the first two stand side by side.
OF_THE_CROP = ("center", "scale", "rotation", "area")
OF_THE_IMAGE = ("size", "image_size", "img_size", "image_shape", "img_shape", "input_size")  # its height and width
IMAGE_OF_OBJECT = ("batch_idx", "batch_index", "batch_indices", "image_idx", "image_index", "img_idx", "img_index")
KIND_OF = {name: kind for kind, names in USUAL_NAMES.items() for name in names}
KIND_OF |= dict.fromkeys((*IMAGE_OF_OBJECT, *OF_THE_ORIGINAL), "other")
KIND_OF_TYPE = {"Image": "image", "Video": "image", "BoundingBoxes": "boxes", "KeyPoints": "keypoints", "Mask": "mask"}


def kind_named(name: Any, beside: Collection[Any] = ()) -> str | None:
    """The kind that a name means, also with "gt_" before it. None if it means none.

    Args:
        name: The name.
        beside: The names beside it.
    """
    if not isinstance(name, str):
        return None
    if name in OF_THE_CROP and all(one in beside for one in OF_THE_CROP[:2]):
        return "other"
    return KIND_OF.get(name) or KIND_OF.get(name.removeprefix("gt_"))


def _sized(size: Tensor, view: Any) -> Tensor:
    """The size of the view, [n, 2] (height, width) or (width, height), in place of that of the images."""
    made, known = size, torch.tensor(view.canvas is None, device=size.device).expand(*size.shape[:-1], 1)
    for order in (slice(None, None, -1), slice(None)) if view.canvas is not None else ():
        before, after = (size.new_tensor(of[order]) for of in (view.canvas, view.size))
        same = (size == before).all(-1, keepdim=True)
        made, known = torch.where(same, after, made), known | same
    if size.device.type == "cpu" and not known.all():
        raise ValueError(
            f"A size of images should be that of the images, {view.canvas}. Found {size[~known[..., 0]][0].tolist()}; pass "
            'targets={name: "other"} if it should stay, or adaug.Target(move=...) if it is the size of an object.'
        )
    return made


SIZE_OF_IMAGE = Target(move=_sized)


def own_kind(entry: Any) -> Target | None:
    """The kind that torchvision's tv_tensors tell themselves. This does not import torchvision."""
    if type(entry) is Tensor or not isinstance(entry, Tensor) or "tv_tensors" not in type(entry).__module__:
        return None
    name = type(entry).__name__
    return PLAIN[KIND_OF_TYPE[name]] if name in KIND_OF_TYPE else None


def guess(key: Key, entry: Any, beside: Collection[Any] = ()) -> Target | None:
    """The kind of an entry, from its own type, its name or its position. None if none of these tells.

    Args:
        key: Its key. Of a tuple, the last part counts.
        entry: The entry, or a list of its rows.
        beside: The names beside it.
    """
    first = entry[0] if isinstance(entry, (list, tuple)) and entry else entry
    own = own_kind(first)
    if own is not None:
        return own
    name = key[-1] if isinstance(key, tuple) and key else key
    kind = kind_named(name, beside)
    if kind is not None and (kind != "area" or hasattr(first, "shape")):  # a list of numbers would stay as it is
        return PLAIN[kind]
    if name in OF_THE_IMAGE and isinstance(first, Tensor) and first.shape[-1:] == (2,):
        return SIZE_OF_IMAGE
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


def refuse_unknown(keys: Sequence[Key], rest: str | None) -> None:
    """Raises ValueError that names all entries of unknown kind, if there are any and `rest` does not say what they are."""
    if keys and rest is None:
        raise ValueError(
            "Each tensor of a batch should have a kind, or adaug cannot move it with the pixels. Found "
            f"{', '.join(map(repr, keys))} without one; pass targets={{{', '.join(f'{key!r}: kind' for key in keys)}}} "
            f"with one of {', '.join(KINDS)}, or with adaug.Target(move=...), a function of the value and the view. "
            'rest="other" leaves all that nobody named as it is.'
        )

"""The shape, dtype and layout that each kind of entry needs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from adaug._batches.kinds import CARRIED, MAPS, Key, Target
from adaug._batches.moving.colours import KNOWN
from adaug._batches.moving.held import check_fill
from adaug._batches.moving.maps import check_map
from adaug._batches.moving.moves import vector_parts

DIMENSIONS = {
    "image": (4,), "keypoints": (3, 4), "visibility": (2, 3), "heatmaps": (4,), "mask": (3, 4), "boxes": (3, 4),
    "vectors": (4,), "density": (3, 4),
}  # fmt: skip
LAST_DIMENSION = {"keypoints": (2, 3), "boxes": (4,)}
FLOATING = ("keypoints", "boxes", "heatmaps", "vectors", "density")
BANDS = 16  # a last dimension of at most so many, smaller than both others, seems to be one of channels


def check_entry(key: Key, entry: Any, target: Target, image: Tensor, objects: int | None = None) -> None:
    """Raises TypeError or ValueError when an entry does not fit its kind and the images [B, C, H, W] beside it.

    Args:
        key: The entry's key.
        entry: The entry.
        target: What is said about it.
        image: The images.
        objects: How many rows it should have, if these are objects of all images.
    """
    n, kind = len(image) if objects is None else objects, target.kind
    per = "" if objects is None else ", one for each object"
    if kind in CARRIED and target.pairs is None:
        wrong = isinstance(entry, Tensor) and kind == "label" and (entry.ndim == 0 or len(entry) != n)
        if wrong:
            raise ValueError(
                f"{key!r} should have one row for each of {n} {'images' if objects is None else 'objects'}. Found "
                f"{tuple(entry.shape)}{_flat_advice(entry, target)}."
            )
        return
    if not isinstance(entry, Tensor):
        advice = "pad its rows to one length and stack them" if isinstance(entry, (list, tuple)) else "make it one"
        raise TypeError(
            f"{key!r}, of kind {kind}, should be a tensor, or adaug cannot move it. Found {type(entry).__name__}; {advice}, or "
            f'pass targets={{{key!r}: "other"}} to leave it as it is.'
        )
    check_layout(key, entry)
    fits = DIMENSIONS.get(kind, tuple(range(1, 9)))
    fits = (2, *fits) if kind == "boxes" and objects is not None else fits
    if entry.ndim not in fits or len(entry) != n:
        dimensions = " or ".join(map(str, fits))
        raise ValueError(
            f"{key!r}, of kind {kind}, should have {dimensions} dimensions and {n} rows{per}. Found {tuple(entry.shape)}"
            f"{_flat_advice(entry, target)}."
        )
    if entry.device != image.device:
        raise ValueError(f"{key!r} should be on the device of the images, {image.device}. Found {entry.device}.")
    last = LAST_DIMENSION.get(kind)
    if last and entry.shape[-1] not in last:
        wanted = " or ".join(map(str, last))
        raise ValueError(f"{key!r}, of kind {kind}, should have a last dimension of {wanted}. Found {tuple(entry.shape)}.")
    if kind in FLOATING and not entry.is_floating_point():
        raise TypeError(f"{key!r}, of kind {kind}, should be floating point. Found {entry.dtype}; use .float().")
    if kind in ("image", "heatmaps", "mask"):
        check_fill(key, entry.dtype, target.fill)
    if kind in MAPS:
        check_map(key, entry.shape, (image.shape[-2], image.shape[-1]), target)
    if kind == "vectors" and not vector_parts(entry.shape[1], target):
        raise ValueError(
            f'{key!r}, of kind vectors, should have two channels (x, y) for each vector, or three with format="xyz". Found '
            f"{tuple(entry.shape)}."
        )


def _flat_advice(entry: Tensor, target: Target) -> str:
    if target.rows is not None or entry.ndim == 0:
        return ""
    if target.kind == "boxes" and entry.ndim == 2 and entry.shape[1] == 4:
        return '; use .unsqueeze(-2) if each image has one box, or adaug.Target("boxes", rows=...) if they are of all images'
    return (
        "; if it holds the objects of all images, name the entry with the image of each, "
        f"adaug.Target({target.kind!r}, rows=...)"
    )


def check_layout(key: Key, entry: Tensor) -> None:
    """Raises TypeError or ValueError on tensors that have no plain values: sparse, nested and meta ones."""
    found = "a nested tensor" if entry.is_nested else "a sparse tensor" if entry.layout != torch.strided else None
    if found:
        advice = "torch.nested.to_padded_tensor(it, 0)" if entry.is_nested else ".to_dense()"
        raise TypeError(f"{key!r} should be a dense tensor. Found {found}; use {advice}.")


def check_image(key: Key, image: Any, target: Target) -> None:
    """Raises TypeError or ValueError unless it is a batch of images [B, C, H, W]."""
    if not isinstance(image, Tensor):
        raise TypeError(f"Images should be a tensor [B, C, H, W]. Found {type(image).__name__} at {key!r}.")
    check_layout(key, image)
    if image.ndim != 4:
        advice = "; a clip or a volume is one image for each frame, image.flatten(0, 1)" if image.ndim == 5 else ""
        raise ValueError(f"Images should have shape [B, C, H, W]. Found {tuple(image.shape)} at {key!r}{advice}.")
    if channels_last(image.shape[1:], target):
        raise ValueError(
            f"Images should have shape [B, C, H, W]. Found {tuple(image.shape)} at {key!r}, whose colours seem to come last; "
            'use image.permute(0, 3, 1, 2), or pass adaug.Target("image", format="bands") if they come first.'
        )
    if target.format in KNOWN and image.shape[1] != len(str(target.format)):
        raise ValueError(
            f"{key!r} should have {len(str(target.format))} channels, because its format is {target.format}. Found "
            f"{tuple(image.shape)}."
        )
    if not image.is_floating_point():
        raise TypeError(f"Images should be floating point. Found {image.dtype} at {key!r}; use image.float() / 255.")
    if image.numel() == 0:
        what = "at least one row" if len(image) == 0 else "at least one pixel"
        raise ValueError(f"A batch should have {what}. Found an empty one, {tuple(image.shape)} at {key!r}.")


def channels_last(shape: Any, target: Target) -> bool:
    """Whether the last of three sizes of an image seems to be that of the channels."""
    first, height, last = shape
    usual = last in (1, 3, 4) and first > 4 and height > 4
    return target.format is None and (usual or (1 < last <= BANDS and last < min(first, height)))

"""Reads a user's mini-batch: finds the kind of each entry, and checks that it can be of that kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from adaug._batches.batch import Batch, UserBatch
from adaug._batches.entries import kinds_of, nested_entries
from adaug._batches.kinds import CARRIED, PLAIN, Key, Target, as_targets, check_entry
from adaug._batches.rows import declared, kinds_of_rows, listed_rows, padded
from adaug._batches.tree import key_of
from adaug._batches.unmoved import check_guess


def parse(batch: UserBatch, targets: Mapping[Any, str | Target] | None, device: torch.device | None = None) -> Batch:
    """Reads a user's batch: a mapping or a tuple of tensors whose first dimension counts the rows, or of lists of rows.

    Raises TypeError or ValueError if an entry has an unknown kind or a shape that does not fit its kind, if images are
    integers, or if numbers of rows or devices differ.
    """
    if isinstance(batch, Mapping):
        entries: dict[Key, Any] = dict(batch)
    elif isinstance(batch, (tuple, list)):
        entries = dict(enumerate(batch))
    else:
        raise TypeError(f"A batch should be a mapping or a tuple. Found {type(batch).__name__}.")
    given = as_targets(targets)
    rows = listed_rows(entries, given)
    row_kinds = kinds_of_rows(rows, given)
    moving = {path: padded(path, rows[path], target) for path, target in row_kinds.items() if target.kind not in CARRIED}
    tops = {path[0] for path in rows}
    outside = {key: target for key, target in given.items() if key not in tops and key not in rows}
    nested = nested_entries(batch, entries, outside, rows)
    kinds = kinds_of({key: entry for key, entry in entries.items() if key not in tops}, nested, outside)
    kinds |= dict.fromkeys(tops, PLAIN["other"]) | {path: row_kinds[path] for path in moving}
    parsed = Batch(entries | nested | moving, kinds, batch, frozenset(moving))
    _check_images(parsed, device)
    image = parsed.image
    for key, target in kinds.items():
        check_entry(key, parsed.entries[key], target, image)
        if key not in given and key not in tops:
            check_guess(key, parsed.entries[key], target.kind, image, nested)
    for path, each in rows.items():
        if path not in moving and declared(path, given) is None:
            first = each[0][None] if isinstance(each[0], Tensor) else each
            check_guess(key_of(path), first, row_kinds[path].kind, image)
    _check_joints(parsed)
    return parsed


def _check_images(batch: Batch, device: torch.device | None) -> None:
    images = batch.keys_of("image")
    if len(images) != 1:
        raise ValueError(
            f"A batch should hold one entry of kind image. Found {len(images)} among {list(batch.entries)}; "
            'say which it is with targets={key: "image"}.'
        )
    image = batch.entries[images[0]]
    if not isinstance(image, Tensor):
        raise TypeError(f"Images should be a tensor [B, C, H, W]. Found {type(image).__name__} at {images[0]!r}.")
    if image.ndim != 4:
        raise ValueError(f"Images should have shape [B, C, H, W]. Found {tuple(image.shape)} at {images[0]!r}.")
    if image.shape[3] in (1, 3, 4) and image.shape[1] > 4 and image.shape[2] > 4:
        raise ValueError(
            f"Images should have shape [B, C, H, W]. Found {tuple(image.shape)} at {images[0]!r}, whose colours seem to come "
            "last; use image.permute(0, 3, 1, 2)."
        )
    if not image.is_floating_point():
        raise TypeError(f"Images should be floating point. Found {image.dtype}; use image.float() / 255.")
    if len(image) == 0:
        raise ValueError("A batch should have at least one row. Found an empty one.")
    if device is not None and image.device != device:
        raise ValueError(f"The batch should be on the model's device, {device}. Found images on {image.device}.")


def _check_joints(batch: Batch) -> None:
    sets, visibilities = ([batch.entries[key] for key in batch.keys_of(kind)] for kind in ("keypoints", "visibility"))
    if sets and visibilities and len(sets) + len(visibilities) > 2:
        raise ValueError(
            f"A batch should hold one set of keypoints if it holds visibility. Found {len(sets)} and {len(visibilities)}; "
            "join them, or keep visibility as a third column."
        )
    for points, visible in zip(sets, visibilities, strict=False):
        if visible.shape[: points.ndim - 1] != points.shape[:-1] or visible.numel() != points[..., 0].numel():
            raise ValueError(
                f"Visibility should have one number for each keypoint, {tuple(points.shape[:-1])}. "
                f"Found {tuple(visible.shape)}."
            )

    for visible in visibilities if not sets else ():
        for maps in batch.entries_of("heatmaps")[:1]:
            if visible.shape[:2] != maps.shape[:2] or visible.numel() != maps.shape[0] * maps.shape[1]:
                raise ValueError(
                    f"Visibility should have one number for each heat map, {tuple(maps.shape[:2])}. Found "
                    f"{tuple(visible.shape)}; leave out maps of no keypoint, such as a background."
                )

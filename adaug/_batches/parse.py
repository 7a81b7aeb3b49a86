"""Reads a user's mini-batch: finds the kind of each entry, and checks that it can be of that kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from adaug._batches.batch import Batch, UserBatch
from adaug._batches.checks.shapes import check_entry, check_image
from adaug._batches.checks.unmoved import check_guess
from adaug._batches.entries import kinds_of, nested_entries, own_kinds
from adaug._batches.kinds import PLAIN, Key, Target, as_targets
from adaug._batches.moving.flat import image_of
from adaug._batches.moving.subclasses import is_subclass, plain
from adaug._batches.names import IMAGE_OF_OBJECT
from adaug._batches.rows import declared, kinds_of_rows, listed_rows, padded
from adaug._batches.tree import key_of


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
    asked = frozenset(given)
    given = own_kinds(entries) | given
    given |= {target.rows: PLAIN["other"] for target in given.values() if target.rows not in (None, *given)}
    rows = listed_rows(entries, given)
    row_kinds = kinds_of_rows(rows, given)
    moving = {path: plain(padded(path, rows[path], target)) for path, target in row_kinds.items() if not target.carried}
    tops = {path[0] for path in rows}
    outside = {key: target for key, target in given.items() if key not in tops and key not in rows}
    nested = nested_entries(batch, entries, outside, rows)
    kinds = kinds_of({key: entry for key, entry in entries.items() if key not in tops}, nested, outside)
    kinds |= dict.fromkeys(tops, PLAIN["other"]) | {path: row_kinds[path] for path in moving}
    found = entries | nested | moving
    classes = {key: (found[key], plain(found[key])) for key, target in kinds.items() if is_subclass(found[key])}
    found |= {key: bare for key, (_, bare) in classes.items()}
    guessed = {key: found[key] for key, target in kinds.items() if target.carried and key not in asked and key not in tops}
    listed = [path for path in rows if path not in moving and declared(path, given) is None]
    guessed |= {path: _longest(rows[path]) for path in listed}
    parsed = Batch(found, kinds, batch, frozenset(moving), guessed, classes)
    image_key = _image_of(parsed, device)
    image = parsed.image
    objects = {key: len(image_of(found, target.rows)) for key, target in kinds.items() if target.rows is not None}
    for key, target in kinds.items():
        if key != image_key:
            check_entry(key, found[key], target, image, objects.get(key))
    for key, entry in guessed.items():
        kind = row_kinds[key].kind if key in row_kinds else kinds[key].kind
        check_guess(key_of(key) if key in rows else key, entry, kind, image, nested)
    _check_joints(parsed)
    _check_objects(parsed)
    return parsed


def _longest(rows: list[Any]) -> Any:
    """The row of a list that tells most about all of them, as a batch of one."""
    tensors = [row for row in rows if isinstance(row, Tensor)]
    return max(tensors, key=Tensor.numel)[None] if tensors else rows[:1]


def _image_of(batch: Batch, device: torch.device | None) -> Key:
    """The key of the images. Raises TypeError or ValueError unless there is one entry of images, on the device."""
    images = batch.keys_of("image")
    if len(images) != 1:
        raise ValueError(
            f"A batch should hold one entry of kind image. Found {len(images)} among {list(batch.entries)}; "
            'say which it is with targets={key: "image"}.'
        )
    check_image(images[0], batch.entries[images[0]], batch.kinds[images[0]])
    if device is not None and batch.image.device != device:
        raise ValueError(f"The batch should be on the model's device, {device}. Found images on {batch.image.device}.")
    return images[0]


def _check_objects(batch: Batch) -> None:
    """Raises ValueError if objects of all images would be moved by row number, as if there were one for each image."""
    names = {key: key[-1] if isinstance(key, tuple) else key for key in batch.entries}
    for index in [key for key, name in names.items() if name in IMAGE_OF_OBJECT and hasattr(batch.entries[key], "shape")]:
        image = image_of(batch.entries, index)
        if len(image) != len(batch) or image.tolist() == list(range(len(batch))):
            continue
        for key, target in batch.kinds.items():
            if target.kind != "image" and not target.carried and target.rows is None:
                raise ValueError(
                    f"{key!r} should say whether its rows are images or objects, because {index!r} names the image of each "
                    f"object. Found {tuple(batch.entries[key].shape)} for {len(batch)} images; pass "
                    f"adaug.Target({target.kind!r}, rows={index!r}), or leave {index!r} out."
                )


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

"""Reads a user's mini-batch: finds the kind of each entry, and checks that it can be of that kind."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from adaug._batches.batch import STAND_IN, Batch, UserBatch
from adaug._batches.checks.shapes import check_entry, check_image
from adaug._batches.checks.unmoved import check_guess
from adaug._batches.entries import kinds_of, nested_entries, own_kinds
from adaug._batches.kinds import PLAIN, Key, Target, as_targets
from adaug._batches.moving.flat import image_of
from adaug._batches.moving.held import held
from adaug._batches.names import IMAGE_OF_OBJECT
from adaug._batches.rows import as_columns, declared, is_rows, kinds_of_rows, listed_rows, padded
from adaug._batches.tree import has_rows, key_of


def parse(
    batch: UserBatch,
    targets: Mapping[Any, str | Target] | None,
    rest: str | None = None,
    device: torch.device | None = None,
    stand_in: Tensor | None = None,
) -> Batch:
    """Reads a user's batch: a mapping or a tuple of tensors whose first dimension counts the rows, or of lists of rows.

    Args:
        batch: The batch. It may also be a list with a mapping for each row.
        targets: What the user says about its entries.
        rest: "other" leaves tensors of unknown kind as they are.
        device: The device on which the images should be.
        stand_in: What stands for the images [B, C, H, W] of a batch that has none.

    Raises TypeError or ValueError if an entry has an unknown kind or a shape that does not fit its kind, if images are
    integers, or if numbers of rows or devices differ.
    """
    given = as_targets(targets)
    own_rows = batch if is_rows(batch, given, alone=stand_in is not None) else None
    source = batch if own_rows is None else as_columns(own_rows)
    if isinstance(source, Mapping):
        entries: dict[Key, Any] = dict(source)
    elif isinstance(source, (tuple, list)):
        entries = dict(enumerate(source))
    else:
        raise TypeError(f"A batch should be a mapping or a tuple. Found {type(batch).__name__}.")
    asked = frozenset(given) | {(key,) for key in given}
    given = own_kinds(entries) | given
    given |= {target.rows: PLAIN["other"] for target in given.values() if target.rows not in (None, *given)}
    rows = listed_rows(entries, given, None if stand_in is None else len(stand_in))
    row_kinds, untold_rows = kinds_of_rows(rows, given, rest)
    moving = {path: padded(path, rows[path], target) for path, target in row_kinds.items() if not target.carried}
    tops = {path[0] for path in rows}
    outside = {key: target for key, target in given.items() if key not in tops and key not in rows}
    nested = nested_entries(source, entries, outside, rows)
    kinds, untold = kinds_of({key: entry for key, entry in entries.items() if key not in tops}, nested, outside, rest)
    kinds |= dict.fromkeys(tops, PLAIN["other"]) | {path: row_kinds[path] for path in moving}
    found = entries | nested | moving
    forms = {
        key: form
        for key, target in kinds.items()
        if isinstance(found[key], Tensor) and (form := held(key, found[key], target)) is not None
    }
    found |= {key: form.read for key, form in forms.items()}
    kinds |= {key: form.target(key, kinds[key]) for key, form in forms.items()}
    guessed = {key: found[key] for key, target in kinds.items() if target.carried and key not in asked and key not in tops}
    listed = [path for path in rows if path not in moving and declared(path, given) is None]
    guessed |= {path: _longest(rows[path]) for path in listed}
    unnamed = untold | untold_rows if rest is not None else set()
    if stand_in is not None and not any(target.kind == "image" for target in kinds.values()):
        found, kinds = found | {STAND_IN: stand_in}, kinds | {STAND_IN: PLAIN["image"]}
    images = _images_of(found, kinds, asked)
    kinds = {key: kinds[key] for key in images} | kinds  # the first image is the model's
    kinds = _with_rows(found, kinds, len(found[images[0]]))
    by_name = {key: entry for key, entry in guessed.items() if key not in unnamed}
    parsed = Batch(found, kinds, source, frozenset(moving), by_name, forms, own_rows)
    image = parsed.image
    if device is not None and image.device != device:
        raise ValueError(f"The batch should be on the model's device, {device}. Found images on {image.device}.")
    objects = {key: len(image_of(found, target.rows)) for key, target in kinds.items() if target.rows is not None}
    for key, target in kinds.items():
        if key != images[0]:
            check_entry(key, found[key], target, image, objects.get(key))
    for key, entry in guessed.items():
        kind = row_kinds[key].kind if key in row_kinds else kinds[key].kind
        check_guess(key_of(key) if key in rows else key, entry, kind, image, nested, names_only=key in unnamed)
    _check_joints(parsed)
    _check_objects(parsed)
    return parsed


def _longest(rows: list[Any]) -> Any:
    """The row of a list that tells most about all of them, as a batch of one."""
    tensors = [row for row in rows if isinstance(row, Tensor)]
    return max(tensors, key=Tensor.numel)[None] if tensors else rows[:1]


def _images_of(entries: Mapping[Key, Any], kinds: Mapping[Key, Target], asked: Collection[Key]) -> list[Key]:
    """The keys of the images, the model's first. Raises TypeError or ValueError unless they are images of one size.

    Others beside the model's are those that the user named.
    """
    found = [key for key, target in kinds.items() if target.kind == "image"]
    told = [key for key in found if key not in asked]
    images = [*told, *(key for key in found if key in asked)]
    if not images or len(told) > 1:
        raise ValueError(
            f"A batch should hold one entry of kind image. Found {len(images)} among {list(entries)}; "
            'say which it is with targets={key: "image"}.'
        )
    first = entries[images[0]]
    for key in images if images[0] is not STAND_IN else ():
        check_image(key, entries[key], kinds[key])
        if entries[key].shape[-2:] != first.shape[-2:]:
            raise ValueError(
                f"All images of a batch should have one size, that of {images[0]!r}, {tuple(first.shape[-2:])}. Found "
                f"{tuple(entries[key].shape[-2:])} at {key!r}; resize it."
            )
    return images


def _with_rows(entries: dict[Key, Any], kinds: dict[Key, Target], n: int) -> dict[Key, Target]:
    """The kinds, where what stays beside objects of all images, and has a row for each, belongs to these objects."""
    index = next((target.rows for target in kinds.values() if target.rows is not None), None)
    objects = n if index is None else len(image_of(entries, index))
    if objects == n:
        return kinds
    return {
        key: replace(target, rows=index)
        if target.carried and target.rows is None and key != index and has_rows(entries[key], objects)
        else target
        for key, target in kinds.items()
    }


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
    if len(sets) > 1 and visibilities:
        raise ValueError(
            f"A batch should hold one set of keypoints if it holds visibility. Found {len(sets)} and {len(visibilities)}; "
            "join them, or keep visibility as a third column."
        )
    for points, visible in itertools.product(sets, visibilities):
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

"""Checks that a mini-batch suits the operations that are to change it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from adaug._batches.batch import Batch
from adaug._batches.checks.unmoved import check_numbers
from adaug._batches.moving.colours import check_colours
from adaug._batches.moving.flat import check_images, image_of
from adaug._batches.moving.moves import has_columns, vector_parts
from adaug._batches.tree import walk
from adaug._batches.units import check_boxes, check_points
from adaug.keypoints import Pairs
from adaug.operations import Operation
from adaug.policies import Policy

JOINTS = ("keypoints", "heatmaps", "visibility")  # kinds that follow the pairs of a flip


def check_policy(policy: Policy, batch: Batch, *, wait: bool = True) -> None:
    """Checks that a batch fits a policy: flips have pairs, colours lie in [0, 1], functions move no pixels.

    Args:
        policy: The policy.
        batch: The batch.
        wait: Whether to check pixel values on a GPU too, which waits for it.
    """
    if policy.flip is not None:
        check_flip(batch, policy.flip.pairs)
    clamping = policy.check_functions(batch.image) if policy.functions else []
    check_operations(batch, list(policy.operations.values()), clamping, wait=wait)


def check_values(batch: Batch, *, wait: bool = True) -> None:
    """Raises ValueError if coordinates cannot be in their unit, or if boxes have a negative size.

    Args:
        batch: The batch.
        wait: Whether to check values on a GPU too, which waits for it.
    """
    if batch.image.device.type == "meta":
        key = batch.keys_of("image")[0]
        raise ValueError(f"Images should have values. Found {key!r} on the device meta; move the batch to a real device.")
    if batch.image.device.type != "cpu" and not wait:
        return
    objects = _numbers_of_objects(batch)
    for key, target in batch.kinds.items():
        entry = batch.entries[key]
        if target.kind == "keypoints":
            check_points(repr(key), entry.detach()[..., :2], target.unit, batch.size)
            if entry.shape[-1] == 3 and target.format is None:
                _check_third(key, entry.detach()[..., 2])
        elif target.kind == "boxes":
            check_boxes(repr(key), entry.detach(), target.unit, target.format, batch.size)
        elif target.kind == "label" and target.pairs and target.format is None and entry.ndim > 1:
            _check_label(key, entry.detach())
    given = [key for key in batch.kinds if isinstance(key, tuple)]
    for key, entry in batch.guessed.items():
        check_numbers(
            key, entry, batch.kinds[key].kind if key in batch.kinds else "label", len(batch), batch.size, objects, given
        )
    for key, form in batch.forms.items():
        if form.columns == 2:
            _check_columns(key, form.given.detach())
    for key in batch.flat:
        check_images(key, image_of(batch.entries, key), len(batch))


def _numbers_of_objects(batch: Batch) -> set[int]:
    """How many objects, keypoints or maps an image of the batch has."""
    found = {len(walk(batch.entries[key[0]], (i, *key[1:]))) for key in batch.listed for i in range(len(batch))}
    for key, target in batch.kinds.items():
        entry = batch.entries[key]
        if target.kind == "keypoints":
            found |= set(entry.shape[1:-1])
        elif target.kind in ("boxes", "visibility", "heatmaps") or (target.kind == "mask" and entry.ndim == 4):
            found.add(entry.shape[1])
    return found


def _check_third(key: Any, third: Tensor) -> None:
    """Raises ValueError unless a third column of keypoints can be a visibility: 0, 1, 2, -1, or a confidence in [0, 1]."""
    wrong = ~((third == -1) | (third == 2) | ((third >= 0) & (third <= 1)))
    if bool(wrong.any()):
        raise ValueError(
            f"The third column of {key!r} should be a visibility: 0, 1, 2 or -1, or a confidence from 0 to 1. Found "
            f'{float(third[wrong][0]):.3g}; pass adaug.Target("keypoints", format="xyz") if it is something else, such as a '
            'depth, which then stays as it is, or format="xyv" if it is a visibility all the same.'
        )


def _check_columns(key: Any, given: Tensor) -> None:
    """Raises ValueError if keypoints [B, 2K] seem to be x, y, visibility, as in COCO."""
    third = given[:, 2::3]
    if given.shape[1] % 3 == 0 and bool(((third == third.round()) & (third >= -1) & (third <= 2)).all()) and bool(given.any()):
        raise ValueError(
            f"{key!r} should be x, y, x, y, ... Found {tuple(given.shape)} whose every third number is -1, 0, 1 or 2, as a "
            'visibility is; pass adaug.Target("keypoints", format="xyv"), or reshape it to [B, K, 2].'
        )


def _check_label(key: Any, label: Tensor) -> None:
    """Raises ValueError if integers may be numbers of classes as well as one-hot."""
    integers = not label.is_floating_point() and label.dtype != torch.bool
    if integers and bool(((label == 0) | (label == 1)).all()):
        raise ValueError(
            f"{key!r} should say what its integers are, because left and right change places in it. Found 0 and 1 alone, shape "
            f'{tuple(label.shape)}; pass adaug.Target("label", pairs=..., format="one-hot"), or format="ids" for class numbers.'
        )


def check_flip(batch: Batch, pairs: Pairs | None) -> None:
    """Raises ValueError if it is not clear what changes places in a flip with these pairs.

    Entries with `pairs` of their own need none of the flip. If the flip has pairs, they should belong to one set of keypoints.
    """
    own = {key: batch.pairs_of(key, None) for key in batch.kinds}
    joints = [key for key, target in batch.kinds.items() if target.kind in JOINTS]
    follow = [key for key in joints if own[key] is None]
    if follow and pairs is None:
        raise ValueError(
            "A Flip should know which keypoints change places. Found keypoints or heat maps in the batch and pairs=None; "
            "pass flip_pairs=[(left, right), ...], or () if none do."
        )
    for key, given in own.items():
        count = _count(batch, key)
        applied = given if key not in follow else pairs
        highest = max(itertools.chain(*(applied or ())), default=-1)
        if count is not None and highest >= count:
            whose = (
                f"Flip pairs should name {'keypoints' if key in joints else 'maps'}"
                if given is None
                else f"`pairs` of {key!r} should be"
            )
            raise ValueError(f"{whose} from 0 to {count - 1}. Found {highest} in {list(applied or ())}.")
    if not pairs:
        return
    sets = [key for key in follow if batch.kinds[key].kind == "keypoints"]
    if len(sets) > 1:
        raise ValueError(
            f"Flip pairs should belong to one set of keypoints. Found {', '.join(map(repr, sets))}; give each of the others "
            f'its own, targets={{{sets[-1]!r}: adaug.Target("keypoints", pairs=())}} for none.'
        )
    highest = max(itertools.chain(*pairs))
    people = {batch.entries[key].shape[1] for key in batch.keys_of("boxes")}
    people |= {batch.entries[key].shape[1] for key in batch.keys_of("keypoints") if batch.entries[key].ndim == 4}
    for key, target in batch.kinds.items():
        parts = _count(batch, key) if target.kind in ("mask", "vectors", "density") else None
        if own[key] is None and parts is not None and parts > highest and parts not in people:
            raise ValueError(
                f"{key!r}, of kind {target.kind}, should say what changes places in a mirror image, because the Flip has "
                f"pairs. Found none; pass adaug.Target({target.kind!r}, pairs={list(pairs)}), or pairs=() if nothing does."
            )


def _count(batch: Batch, key: Any) -> int | None:
    """How many things in an entry may change places. None if pairs name classes, which have any number, or if nothing does."""
    entry, target = batch.entries[key], batch.kinds[key]
    if target.kind == "keypoints":
        return int(entry.shape[-2])
    if target.kind == "visibility":
        return int(entry.shape[batch.joint_dim(entry)])
    if target.kind == "vectors":
        return int(entry.shape[1]) // vector_parts(entry.shape[1], target)
    if target.kind == "heatmaps" or (target.kind in ("mask", "density") and entry.ndim == 4 and entry.shape[1] > 1):
        return int(entry.shape[1])
    return int(entry.shape[-1]) if target.kind == "label" and target.pairs and has_columns(entry, target) else None


def check_operations(
    batch: Batch, operations: Sequence[Operation], functions: Sequence[str] = (), *, wait: bool = True
) -> None:
    """Raises ValueError if colour operations get images outside [0, 1], or if coordinates cannot be in their unit.

    Args:
        batch: The batch.
        operations: The operations that may be drawn.
        functions: Names of functions that cut values to [0, 1].
        wait: Whether to check values on a GPU too, which waits for it.
    """
    check_values(batch, wait=wait)
    key = batch.keys_of("image")[0]
    check_colours(batch.kinds[key], batch.image.shape[1], operations)
    coloured = [*(type(operation).__name__ for operation in operations if operation.unit_range), *functions]
    if not coloured or (batch.image.device.type != "cpu" and not wait):
        return
    low, high = (float(edge) for edge in batch.image.detach().aminmax())
    if low < -0.01 or high > 1.01:
        raise ValueError(
            f"{', '.join(coloured)} should get images in [0, 1]. Found values from {low:.3g} to {high:.3g}; normalise inside "
            "the model, or leave the colour operations out."
        )

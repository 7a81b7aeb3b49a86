"""The user's mini-batch with the kind of each entry, and how a view moves it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from adaug._entries import kinds_of, nested_entries
from adaug._kinds import CARRIED, PLAIN, Key, Target, as_targets, check_entry
from adaug._nested import Path, key_of, rebuilt, walk, with_items, with_values
from adaug._rows import cut, declared, kinds_of_rows, listed_rows, padded
from adaug._stale import check_guess
from adaug._units import box_from_pixels, box_to_pixels, check_boxes, check_points, from_pixels, to_pixels
from adaug._view import View
from adaug._warp import (
    Grid,
    Size,
    full_precision,
    inside,
    sampling_grid,
    swap_pairs,
    warp,
    warp_boxes,
    warp_points,
)
from adaug.keypoints import Pairs
from adaug.operations import Operation

UserBatch = Any  # a user's batch: a mapping, a tuple or a list


@dataclass(frozen=True)
class Batch:
    """A user's batch with the kind of each of its entries.

    Attributes:
        entries: The entries by name or position.
        kinds: The kind of each entry.
        source: The user's own object, for its structure.
        listed: The entries that came as lists of rows. Here they are padded tensors.
    """

    entries: dict[Key, Any]
    kinds: dict[Key, Target]
    source: UserBatch
    listed: frozenset[Key] = frozenset()

    @property
    def image(self) -> Tensor:
        """The images [B, C, H, W]."""
        image: Tensor = self.entries[self._image_key]
        return image

    @property
    def inputs(self) -> Any:
        """The images as the user has them, one tensor or a list."""
        return list(self.image) if self._image_key in self.listed else self.image

    @property
    def size(self) -> Size:
        """Height and width of the images."""
        return self.image.shape[-2], self.image.shape[-1]

    def __len__(self) -> int:
        return len(self.image)

    def has(self, kind: str) -> bool:
        """Whether there is an entry of a kind."""
        return bool(self._keys(kind))

    def entries_of(self, kind: str) -> list[Tensor]:
        """The entries of a kind: keypoints in pixels and boxes as xyxy in pixels, whatever the user's unit is."""
        return [self._in_pixels(key) for key in self._keys(kind)]

    def joint_dim(self, visibility: Tensor) -> int:
        """The dimension of a visibility that counts the keypoints."""
        points = self._keys("keypoints")
        if points:
            return self.entries[points[0]].ndim - 2
        single = visibility.ndim == 3 and visibility.shape[-1] == 1  # [B, K, 1]
        return 1 if self.has("heatmaps") or single else visibility.ndim - 1

    def _in_pixels(self, key: Key) -> Tensor:
        entry, target = self.entries[key], self.kinds[key]
        if target.kind == "boxes":
            return box_to_pixels(entry, target.unit, target.format, self.size)
        if target.kind != "keypoints" or target.unit in (None, "pixels"):
            return entry
        xy = to_pixels(entry[..., :2], target.unit, self.size)
        return torch.cat([xy, entry[..., 2:].to(xy.dtype)], -1)

    def _keys(self, kind: str) -> list[Key]:
        return [key for key, target in self.kinds.items() if target.kind == kind]

    @property
    def _image_key(self) -> Key:
        return self._keys("image")[0]

    # ---- other batches

    def select(self, index: Tensor) -> Batch:
        """The batch of the rows `index` [n] long."""
        return replace(self, entries={key: _select(entry, index, len(self)) for key, entry in self.entries.items()})

    def joined(self, first: Batch, second: Batch) -> Batch:
        """Joins two batches that were made from rows of this one."""
        entries = {
            key: _joined(entry, first.entries[key], second.entries[key], len(self)) for key, entry in self.entries.items()
        }
        return replace(self, entries=entries)

    def with_image(self, image: Tensor) -> Batch:
        """The same batch with other images."""
        return replace(self, entries={**self.entries, self._image_key: image})

    def image_only(self) -> Batch:
        """The batch with only its images, for a look."""
        key = self._image_key
        return Batch({key: self.entries[key]}, {key: self.kinds[key]}, {}, self.listed & {key})

    def to_user(self) -> UserBatch:
        """The batch in the user's structure. Labels are copies, so writing to them changes no other batch; images are not."""
        image = self._image_key
        own: dict[Path, Any] = {}
        for key, entry in self.entries.items():
            if key in self.listed:
                rows = entry if key == image else entry.clone()
                own.update(cut(key, rows, self.entries[key[0]], self.kinds[key]))
            elif key == image or self._is_nested(key):
                path = key if self._is_nested(key) else (key,)
                own[path] = entry if key == image else rebuilt(entry, path, {})
        entries = {key: rebuilt(entry, (key,), own) for key, entry in self.entries.items() if not self._is_nested(key)}
        if isinstance(self.source, Mapping):
            return with_items(self.source, entries)
        return with_values(self.source, [entries[key] for key in range(len(entries))])

    def _is_nested(self, key: Key) -> bool:
        return isinstance(key, tuple) and not (isinstance(self.source, Mapping) and key in self.source)

    def with_own_image(self) -> Batch:
        """The same batch. If its images are the user's own tensor, they are copied."""
        key = self._image_key
        try:
            same = walk(self.source, key if self._is_nested(key) else (key,)) is self.image
        except LookupError:
            same = False
        return self.with_image(self.image.clone()) if same else self

    def apply(self, view: View, view_size: Size) -> Batch:
        """The batch under a view. Entries that the view does not touch stay as they are."""
        view.check(len(self), self.size, view_size)
        with full_precision(self.image.device):
            entries = dict(self.entries) if view.matrix is None else self._moved(view, view.matrix, view_size)
            entries[self._image_key] = view.paint(entries[self._image_key])
            return replace(self, entries=entries)

    # ---- what a view moves

    def _moved(self, view: View, matrix: Tensor, view_size: Size) -> dict[Key, Any]:
        """The entries after the matrix and the flip of a view."""
        entries = dict(self.entries)
        flipped, pairs = view.flipped, view.pairs or ()
        grid = sampling_grid(matrix, self.size, view_size)
        for key, target in self.kinds.items():
            if target.kind in ("image", "heatmaps", "mask"):
                entries[key] = self._warped(entries[key], target, grid, view_size)
                if target.kind == "heatmaps" and flipped is not None:
                    entries[key] = swap_pairs(entries[key], flipped, pairs, 1)
            elif target.kind == "boxes":
                moved = warp_boxes(self._in_pixels(key), matrix, view_size)
                entries[key] = box_from_pixels(moved, target.unit, target.format, view_size, entries[key].dtype)
        gone: Tensor | None = None
        for key in self._keys("heatmaps")[:1] if self.has("visibility") else ():
            gone = _gone_peaks(self.entries[key], matrix, self.size, view_size)
            gone = gone if flipped is None else swap_pairs(gone, flipped, pairs, 1)
        for key in self._keys("keypoints"):
            moved, gone = _moved_points(self._in_pixels(key), matrix, flipped, pairs, view_size)
            xy = from_pixels(moved[..., :2], self.kinds[key].unit, view_size, entries[key].dtype)
            entries[key] = torch.cat([xy, moved[..., 2:].to(xy.dtype)], -1)
        for key in self._keys("visibility"):
            visible = entries[key]
            if flipped is not None:
                visible = swap_pairs(visible, flipped, pairs, self.joint_dim(visible))
            entries[key] = visible if gone is None else _invisible(visible, gone)
        return entries

    def _warped(self, entry: Tensor, target: Target, grid: Grid, view_size: Size) -> Tensor:
        planes = entry if entry.ndim == 4 else entry[:, None]
        height, width = self.size
        size = (round(planes.shape[-2] * view_size[0] / height), round(planes.shape[-1] * view_size[1] / width))
        mode = "nearest" if target.kind == "mask" else "bilinear"
        warped = warp(planes, grid, size, mode=mode, fill=target.fill)
        return warped if entry.ndim == 4 else warped[:, 0]


def _moved_points(
    points: Tensor, matrix: Tensor, flipped: Tensor | None, pairs: Pairs, view_size: Size
) -> tuple[Tensor, Tensor]:
    """Moves keypoints as a view does, and says which left the frame."""
    moved = torch.cat([warp_points(points[..., :2], matrix), points[..., 2:]], -1)
    if flipped is not None:
        moved = swap_pairs(moved, flipped, pairs, moved.ndim - 2)
    gone = ~inside(moved[..., :2], view_size)
    return torch.cat([moved[..., :2], _invisible(moved[..., 2:], gone)], -1) if moved.shape[-1] == 3 else moved, gone


def _invisible(visibility: Tensor, gone: Tensor) -> Tensor:
    """Sets the visibility of what left the frame to 0. Keeps shape and dtype."""
    return torch.where(gone.reshape(visibility.shape), torch.zeros_like(visibility), visibility)


def _gone_peaks(maps: Tensor, matrix: Tensor, canvas: Size, view_size: Size) -> Tensor:
    """Which heat maps [n, K, h, w] have a peak that leaves the frame, [n, K] bool. A flat map has no peak."""
    h, w = maps.shape[-2:]
    peak, index = maps.flatten(2).max(2)
    at = torch.stack([(index % w + 0.5) * (canvas[1] / w), (index // w + 0.5) * (canvas[0] / h)], -1) - 0.5
    return ~inside(warp_points(at, matrix), view_size) & (peak > maps.flatten(2).amin(2))


def _select(entry: Any, index: Tensor, n: int) -> Any:
    """Some rows of an entry with n rows. An entry without rows stays as it is."""
    if isinstance(entry, Mapping):
        return with_items(entry, {key: _select(item, index, n) for key, item in entry.items()})
    if hasattr(entry, "_fields"):
        return type(entry)(*(_select(item, index, n) for item in entry))
    if isinstance(entry, Tensor):
        return entry[index.to(entry.device)] if entry.ndim and len(entry) == n else entry
    if isinstance(entry, np.ndarray):
        return entry[index.cpu().numpy()] if entry.ndim and len(entry) == n else entry
    if isinstance(entry, (list, tuple)) and len(entry) == n:
        return type(entry)([entry[i] for i in index.tolist()])
    return entry


def _joined(entry: Any, first: Any, second: Any, n: int) -> Any:
    """Joins two entries that were selected from one with n rows. An entry without rows stays as it is."""
    if isinstance(entry, Mapping):
        return with_items(entry, {key: _joined(item, first[key], second[key], n) for key, item in entry.items()})
    if hasattr(entry, "_fields"):
        return type(entry)(*(_joined(*items, n) for items in zip(entry, first, second, strict=True)))
    if isinstance(entry, Tensor):
        return torch.cat([first, second]) if entry.ndim and len(entry) == n else entry
    if isinstance(entry, np.ndarray):
        return np.concatenate([first, second]) if entry.ndim and len(entry) == n else entry
    if isinstance(entry, (list, tuple)) and len(entry) == n:
        return type(entry)([*first, *second])
    return entry


# ---- reading a batch


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
    given = as_targets(targets or {})
    rows = listed_rows(entries, given)
    row_kinds = kinds_of_rows(rows, given)
    moving = {path: padded(path, rows[path], target) for path, target in row_kinds.items() if target.kind not in CARRIED}
    tops = {path[0] for path in rows}
    said = {key: target for key, target in given.items() if key not in tops and key not in rows}
    nested = nested_entries(batch, entries, said, rows)
    kinds = kinds_of({key: entry for key, entry in entries.items() if key not in tops}, nested, said)
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
    images = [key for key, target in batch.kinds.items() if target.kind == "image"]
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
    sets, visibilities = ([batch.entries[key] for key in batch._keys(kind)] for kind in ("keypoints", "visibility"))
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


def check_values(batch: Batch, *, wait: bool = True) -> None:
    """Raises ValueError if coordinates cannot be in their unit, or if boxes have a negative size.

    Args:
        batch: The batch.
        wait: Whether to check values on a GPU too, which waits for it.
    """
    if batch.image.device.type != "cpu" and not wait:
        return
    for key, target in batch.kinds.items():
        if target.kind == "keypoints":
            check_points(repr(key), batch.entries[key].detach()[..., :2], target.unit, batch.size)
        elif target.kind == "boxes":
            check_boxes(repr(key), batch.entries[key].detach(), target.unit, target.format, batch.size)


def check_flip(batch: Batch, pairs: Pairs | None) -> None:
    """Raises ValueError if the batch has keypoints and `pairs` does not say which change places in a flip."""
    counts = [points.shape[-2] for points in batch.entries_of("keypoints")]
    counts += [maps.shape[1] for maps in batch.entries_of("heatmaps")]
    counts += [visible.shape[batch.joint_dim(visible)] for visible in batch.entries_of("visibility")]
    if not counts:
        return
    if pairs is None:
        raise ValueError(
            "A Flip should know which keypoints change places. Found keypoints or heat maps in the batch and pairs=None; "
            "pass flip_pairs=[(left, right), ...], or () if none do."
        )
    highest = max((index for pair in pairs for index in pair), default=-1)
    if highest >= min(counts):
        raise ValueError(f"Flip pairs should name keypoints from 0 to {min(counts) - 1}. Found {highest} in {list(pairs)}.")


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
    coloured = [*(type(operation).__name__ for operation in operations if operation.unit_range), *functions]
    if not coloured or (batch.image.device.type != "cpu" and not wait):
        return
    low, high = (float(edge) for edge in batch.image.detach().aminmax())
    if low < -0.01 or high > 1.01:
        raise ValueError(
            f"{', '.join(coloured)} should get images in [0, 1]. Found values from {low:.3g} to {high:.3g}; normalise inside "
            "the model, or leave the colour operations out."
        )

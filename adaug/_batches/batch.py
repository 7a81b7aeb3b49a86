"""The user's mini-batch with the kind of each entry, and how a view moves it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from adaug._batches import tree
from adaug._batches.kinds import Key, Target
from adaug._batches.rows import cut
from adaug._batches.tree import Path
from adaug._batches.units import box_from_pixels, box_to_pixels, from_pixels, to_pixels
from adaug._runtime.geometry import Size, full_precision, inside
from adaug._views.view import View
from adaug._views.warp import Grid, sampling_grid, swap_pairs, warp, warp_boxes, warp_points
from adaug.keypoints import Pairs, labelled

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
        return bool(self.keys_of(kind))

    def entries_of(self, kind: str) -> list[Tensor]:
        """The entries of a kind: keypoints in pixels and boxes as xyxy in pixels, whatever the user's unit is."""
        return [self._in_pixels(key) for key in self.keys_of(kind)]

    def labelled_keypoints(self) -> tuple[Tensor, Tensor] | None:
        """The first keypoints in pixels, [B, ..., K, 2 or 3], and which of them count, [B, ..., K]. None without keypoints."""
        if not self.has("keypoints"):
            return None
        points = self.entries_of("keypoints")[0]
        return points, labelled(points, self.entries_of("visibility")[0] if self.has("visibility") else None)

    def joint_dim(self, visibility: Tensor) -> int:
        """The dimension of a visibility that counts the keypoints."""
        points = self.keys_of("keypoints")
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

    def keys_of(self, kind: str) -> list[Key]:
        """The keys of the entries of a kind."""
        return [key for key, target in self.kinds.items() if target.kind == kind]

    @property
    def _image_key(self) -> Key:
        return self.keys_of("image")[0]

    # ---- other batches

    def select(self, index: Tensor) -> Batch:
        """The batch of the rows `index` [n] long."""
        rows = partial(_select, index=index, n=len(self))
        return replace(self, entries=tree.map_leaves(rows, self.entries, opens=tree.has_names))

    def joined(self, first: Batch, second: Batch) -> Batch:
        """Joins two batches that were made from rows of this one."""
        rows = partial(_joined, n=len(self))
        return replace(self, entries=tree.map_leaves(rows, self.entries, first.entries, second.entries, opens=tree.has_names))

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
                own[path] = entry if key == image else tree.replace(entry, {}, copies=True)
        top = {key: entry for key, entry in self.entries.items() if not self._is_nested(key)}
        return tree.with_children(self.source, tree.replace(top, own, copies=True))

    def _is_nested(self, key: Key) -> bool:
        return isinstance(key, tuple) and not (isinstance(self.source, Mapping) and key in self.source)

    def with_own_image(self) -> Batch:
        """The same batch. If its images are the user's own tensor, they are copied."""
        key = self._image_key
        try:
            same = tree.walk(self.source, key if self._is_nested(key) else (key,)) is self.image
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
        for key in self.keys_of("heatmaps")[:1] if self.has("visibility") else ():
            gone = _gone_peaks(self.entries[key], matrix, self.size, view_size)
            gone = gone if flipped is None else swap_pairs(gone, flipped, pairs, 1)
        for key in self.keys_of("keypoints"):
            moved, gone = _moved_points(self._in_pixels(key), matrix, flipped, pairs, view_size)
            xy = from_pixels(moved[..., :2], self.kinds[key].unit, view_size, entries[key].dtype)
            entries[key] = torch.cat([xy, moved[..., 2:].to(xy.dtype)], -1)
        for key in self.keys_of("visibility"):
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


def _select(path: Path, entry: Any, index: Tensor, n: int) -> Any:
    """Some rows of an entry with n rows. An entry without rows stays as it is."""
    if not tree.has_rows(entry, n):
        return entry
    if isinstance(entry, Tensor):
        return entry[index.to(entry.device)]
    return entry[index.cpu().numpy()] if isinstance(entry, np.ndarray) else type(entry)([entry[i] for i in index.tolist()])


def _joined(path: Path, entry: Any, first: Any, second: Any, n: int) -> Any:
    """Joins two entries that were selected from one with n rows. An entry without rows stays as it is."""
    if not tree.has_rows(entry, n):
        return entry
    if isinstance(entry, Tensor):
        return torch.cat([first, second])
    return np.concatenate([first, second]) if isinstance(entry, np.ndarray) else type(entry)([*first, *second])

"""How a view moves each kind of entry. Pure functions of an entry, what is said about it, and the motion of its rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from adaug._batches import tree
from adaug._batches.kinds import Key, Target
from adaug._batches.moving.maps import size_in_view, stride_of
from adaug._batches.units import DIRECTION, box_from_pixels, box_to_pixels, from_pixels, offset_and_scale, to_pixels
from adaug._runtime.constants import constant
from adaug._runtime.geometry import Size, inside
from adaug._views.fields import move_density, turn_vectors
from adaug._views.view import View
from adaug._views.warp import Grid, centre_at_one, sampling_grid, swap_classes, swap_pairs, warp, warp_boxes, warp_points
from adaug.keypoints import Pairs


@dataclass(frozen=True)
class Motion:
    """How the pixels of n rows move.

    Attributes:
        matrix: [n, 3, 3], from pixels of the image to pixels of the view.
        flipped: [n] bool, the rows that are mirrored.
        canvas: The size of the images.
        view_size: The size of the view.
        perspective: Whether the last row of a matrix is not 0 0 1.
        grids: The grids that were needed so far, by the sizes that maps cover.
    """

    matrix: Tensor
    flipped: Tensor | None
    canvas: Size
    view_size: Size
    perspective: bool
    grids: dict[Any, Grid] = field(default_factory=dict)

    @classmethod
    def of(cls, view: View, matrix: Tensor, canvas: Size, view_size: Size) -> Motion:
        """The motion of a view that has a matrix."""
        perspective = view.divides
        return cls(centre_at_one(matrix, canvas) if perspective else matrix, view.flipped, canvas, view_size, perspective)

    def select(self, index: Tensor) -> Motion:
        """The motion of some rows, `index` [m] long."""
        flipped = None if self.flipped is None else self.flipped[index]
        return replace(self, matrix=self.matrix[index], flipped=flipped, grids={})

    def grid(self, covers: tuple[float, float], covers_after: tuple[float, float]) -> Grid:
        """Where maps that cover so many pixels of the image and of the view come from."""
        if (covers, covers_after) not in self.grids:
            self.grids[covers, covers_after] = sampling_grid(self.matrix, covers, covers_after, perspective=self.perspective)
        return self.grids[covers, covers_after]

    def points(self, points: Tensor) -> Tensor:
        """Where points [n, ..., 2] go."""
        return warp_points(points, self.matrix, perspective=self.perspective)

    def swapped(self, values: Tensor, pairs: Pairs, dim: int) -> Tensor:
        """Values whose left and right changed places along `dim` in mirrored rows."""
        return values if self.flipped is None else swap_pairs(values, self.flipped, pairs, dim)

    def renamed(self, values: Tensor, pairs: Pairs) -> Tensor:
        """Numbers of classes of which left and right changed places in mirrored rows."""
        return values if self.flipped is None else swap_classes(values, self.flipped, pairs)


def image(entry: Tensor, target: Target, motion: Motion) -> Tensor:
    """Images [n, C, H, W]."""
    return warp(entry, motion.grid(motion.canvas, motion.view_size), motion.view_size, fill=target.fill)


def boxes(entry: Tensor, target: Target, motion: Motion) -> Tensor:
    """Boxes [n, ..., 4] in the user's unit and format."""
    pixels = box_to_pixels(entry, target.unit, target.format, motion.canvas)
    moved = warp_boxes(
        pixels, motion.matrix, motion.view_size, perspective=motion.perspective, min_visibility=target.min_visibility
    )
    return box_from_pixels(moved, target.unit, target.format, motion.view_size, entry.dtype)


def keypoints(entry: Tensor, target: Target, motion: Motion, pairs: Pairs) -> tuple[Tensor, Tensor]:
    """Keypoints [n, ..., K, 2 or 3] in the user's unit, and which of them left the frame, bool [n, ..., K]."""
    moved = torch.cat([motion.points(to_pixels(entry[..., :2], target.unit, motion.canvas)), entry[..., 2:]], -1)
    moved = motion.swapped(moved, pairs, entry.ndim - 2)
    gone = ~inside(moved[..., :2], motion.view_size)
    third = moved[..., 2:]
    if third.shape[-1] and target.format != "xyz":
        third = invisible(third, gone)
    xy = from_pixels(moved[..., :2], target.unit, motion.view_size, entry.dtype)
    return torch.cat([xy, third.to(xy.dtype)], -1), gone


def invisible(visibility: Tensor, gone: Tensor) -> Tensor:
    """Sets the visibility of what left the frame to 0. Keeps shape and dtype; -1, "not labelled", stays."""
    return torch.where(gone.reshape(visibility.shape) & (visibility > 0), torch.zeros_like(visibility), visibility)


def heatmaps(key: Key, entry: Tensor, target: Target, motion: Motion, pairs: Pairs) -> Tensor:
    """Heat maps [n, K, h, w]."""
    return motion.swapped(_warped(key, entry, target, motion), pairs, 1)


def gone_peaks(entry: Tensor, target: Target, motion: Motion, pairs: Pairs) -> Tensor:
    """Which heat maps [n, K, h, w] have a peak that leaves the frame, [n, K] bool. A flat map has no peak."""
    w, stride = entry.shape[-1], _stride(entry, target, motion)
    peak, index = entry.flatten(2).max(2)
    at = (torch.stack([index % w, index // w], -1) + 0.5) * stride - 0.5
    gone = ~inside(motion.points(at), motion.view_size) & (peak > entry.flatten(2).amin(2))
    return motion.swapped(gone, pairs, 1)


def mask(key: Key, entry: Tensor, target: Target, motion: Motion) -> Tensor:
    """Masks [n, H, W] or [n, N, H, W]."""
    pairs, planes = target.pairs or (), entry.ndim == 4 and entry.shape[1] > 1
    entry = motion.swapped(entry, pairs, 1) if planes else motion.renamed(entry, pairs)
    return _warped(key, entry, target, motion, mode="nearest")


def vectors(key: Key, entry: Tensor, target: Target, motion: Motion) -> Tensor:
    """Maps of vectors [n, 2K, h, w], or [n, 3K, h, w] with a z that stays."""
    parts = vector_parts(entry.shape[1], target)
    warped = _warped(key, entry, target, motion).unflatten(1, (-1, parts)).to(motion.matrix.dtype)
    stride = _stride(entry, target, motion)
    kept = target.unit == DIRECTION or (target.unit is None and parts == 3)
    before, after = (_length(target, size, warped) for size in (motion.canvas, motion.view_size))
    xy = turn_vectors(
        warped[:, :, :2] * before, motion.matrix, stride, perspective=motion.perspective, length="kept" if kept else "moved"
    )
    turned = torch.cat([xy / after, warped[:, :, 2:]], 2)
    return motion.swapped(turned, target.pairs or (), 1).flatten(1, 2).to(entry.dtype)


def vector_parts(channels: int, target: Target) -> int:
    """How many channels belong to a vector. 0 if they cannot be vectors."""
    parts = 3 if target.format == "xyz" or (target.format is None and channels == 3) else 2
    return 0 if channels % parts else parts


def _length(target: Target, size: Size, like: Tensor) -> Tensor:
    known = None if target.unit == DIRECTION else offset_and_scale(target.unit, size)
    return constant(tuple(known[1]) if known else (1.0, 1.0), like)[:, None, None]


def density(key: Key, entry: Tensor, target: Target, motion: Motion) -> Tensor:
    """Densities [n, h, w] or [n, N, h, w], whose sums stay."""
    planes = entry if entry.ndim == 4 else entry[:, None]
    size = size_in_view(key, (planes.shape[-2], planes.shape[-1]), motion.canvas, motion.view_size, target)
    moved = move_density(planes, motion.matrix, _stride(entry, target, motion), size, perspective=motion.perspective)
    return motion.swapped(moved, target.pairs or (), 1) if entry.ndim == 4 else moved[:, 0]


def size(entry: Tensor, target: Target, motion: Motion) -> Tensor:
    """Lengths or areas in pixels [n, ...] of what lies in the middle of the image; a perspective alone differs elsewhere."""
    areas = torch.linalg.det(motion.matrix).abs()
    factor = areas if target.kind == "area" else areas.sqrt()
    grown = entry * factor.reshape(-1, *[1] * (entry.ndim - 1))
    return (grown if entry.is_floating_point() else grown.round()).to(entry.dtype)


MAPS = {"mask": mask, "vectors": vectors, "density": density}


def label(entry: Tensor, target: Target, motion: Motion) -> Tensor:
    """Labels of which left and right change places: numbers of classes, or classes in the last dimension."""
    pairs = target.pairs or ()
    return motion.swapped(entry, pairs, entry.ndim - 1) if has_columns(entry, target) else motion.renamed(entry, pairs)


def has_columns(entry: Tensor, target: Target) -> bool:
    """Whether labels have their classes in the last dimension, not as numbers."""
    fractions = entry.is_floating_point() or entry.dtype == torch.bool
    return target.format == "one-hot" or (target.format is None and fractions)


def by_function(key: Key, entry: Any, move: Callable[[Any, Any], Any], view: View, n: int) -> Any:
    """What the user's function makes of an entry. Raises ValueError if it has other rows."""
    made = move(tree.replace(entry, {}, copies=True), view)
    if tree.has_rows(entry, n) and not tree.has_rows(made, n):
        found = tuple(made.shape) if hasattr(made, "shape") else type(made).__name__
        raise ValueError(f"`move` of {key!r} should return one row for each of {n} images. Found {found}.")
    return made


def _stride(entry: Tensor, target: Target, motion: Motion) -> float:
    stride = stride_of(entry.shape[-2:], motion.canvas, target.stride)
    assert stride is not None, "parse refuses maps that do not fit"
    return stride


def _warped(key: Key, entry: Tensor, target: Target, motion: Motion, mode: str = "bilinear") -> Tensor:
    planes, stride = entry if entry.ndim == 4 else entry[:, None], _stride(entry, target, motion)
    before = (planes.shape[-2], planes.shape[-1])
    size = size_in_view(key, before, motion.canvas, motion.view_size, target)
    grid = motion.grid(_covered(before, stride, motion.canvas), _covered(size, stride, motion.view_size))
    warped = warp(planes, grid, size, mode=mode, fill=target.fill)
    return warped if entry.ndim == 4 else warped[:, 0]


def _covered(size: Size, stride: float, image: Size) -> tuple[float, float]:
    """How much of an image a map covers, in its pixels. Where a stride divides, that is the image's own size."""
    h, w = (side * stride for side in size)
    return image if abs(h - image[0]) + abs(w - image[1]) < 1e-3 else (h, w)

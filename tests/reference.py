"""What a view does to labels, written again in float64 NumPy and SciPy: for tests and attacks, and for nothing in adaug."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import ndimage

Array = np.ndarray[Any, Any]


def points(matrix: Array, places: Array) -> Array:
    """Pixel centres [..., 2] under a matrix [3, 3]."""
    whole = np.concatenate([places, np.ones_like(places[..., :1])], -1) @ matrix.T
    return whole[..., :2] / whole[..., 2:]


def depth(matrix: Array, places: Array) -> Array:
    """What places [..., 2] are divided by; below 0 they lie behind the observer."""
    found: Array = places @ matrix[2, :2] + matrix[2, 2]
    return found


def scaled(matrix: Array, size: tuple[int, int]) -> Array:
    """The same matrix, which divides the middle of an image of this size by 1."""
    return matrix / depth(matrix, np.array([(size[1] - 1) / 2, (size[0] - 1) / 2]))


def corners_of(edges: Array) -> Array:
    """The four corners of boxes (x1, y1, x2, y2 as edges) as pixel centres, [..., 4, 2]."""
    x1, y1, x2, y2 = np.moveaxis(edges, -1, 0)
    return np.stack([np.stack(pair, -1) for pair in ((x1, y1), (x2, y1), (x2, y2), (x1, y2))], -2) - 0.5


def boxes(matrix: Array, edges: Array, size: tuple[int, int], least: float = 0.0) -> Array:
    """Boxes [..., 4] (x1, y1, x2, y2 as edges) under a matrix, cut to a frame (height, width)."""
    x1, y1, x2, y2 = np.moveaxis(edges, -1, 0)
    moved = points(matrix, corners_of(edges)) + 0.5
    low, high = moved.min(-2), moved.max(-2)
    frame = np.array([size[1], size[0]])
    cut_low, cut_high = low.clip(0, frame), high.clip(0, frame)
    there = (cut_high - cut_low).prod(-1)
    gone = (there < least * (high - low).prod(-1)) | (x2 <= x1) | (y2 <= y1)
    middle = (cut_low + cut_high) / 2
    return np.concatenate([np.where(gone[..., None], middle, edge) for edge in (cut_low, cut_high)], -1)


def visible(places: Array, size: tuple[int, int]) -> Array:
    """Which places lie on the pixels of a frame."""
    return ((places >= -0.5) & (places < np.array([size[1], size[0]]) - 0.5)).all(-1)


def at_stride(matrix: Array, stride: float) -> Array:
    """The same matrix between pixels of maps, each of which stands for stride x stride pixels."""
    to_map = np.array([[1 / stride, 0, 0.5 / stride - 0.5], [0, 1 / stride, 0.5 / stride - 0.5], [0, 0, 1]])
    return to_map @ matrix @ np.linalg.inv(to_map)


def sources(matrix: Array, size: tuple[int, int]) -> Array:
    """Where the pixels of a view (h, w) come from, [h, w, 2]."""
    y, x = np.mgrid[: size[0], : size[1]]
    return points(np.linalg.inv(matrix), np.stack([x, y], -1).astype(float))


def warped(plane: Array, matrix: Array, size: tuple[int, int], order: int, fill: float = 0.0) -> tuple[Array, Array]:
    """A plane [h, w] under a matrix, and where its values are sure (not between two pixels at order 0)."""
    at = sources(matrix, size)
    found = ndimage.map_coordinates(plane, [at[..., 1], at[..., 0]], order=order, mode="grid-constant", cval=fill)
    y, x = np.mgrid[: size[0], : size[1]]
    found = np.where(depth(np.linalg.inv(matrix), np.stack([x, y], -1)) > 0, found, fill)
    to_tie = np.abs(at - np.floor(at) - 0.5).min(-1)
    return found, np.ones(size, bool) if order else to_tie > 0.02


def vectors(field: Array, matrix: Array, size: tuple[int, int], stride: float, kept: bool) -> Array:
    """Vectors [2, h, w] in pixels under a matrix: both ends move; with `kept`, they only turn."""
    small = at_stride(matrix, stride)
    found = np.stack([warped(plane, small, size, 1)[0] for plane in field], -1)
    at = (sources(small, size) + 0.5) * stride - 0.5
    step = 1e-5 if kept else 1.0
    moved = (points(matrix, at + step * found) - points(matrix, at)) / step
    if kept:
        length = np.linalg.norm(moved, axis=-1, keepdims=True)
        moved = moved * np.linalg.norm(found, axis=-1, keepdims=True) / np.maximum(length, 1e-30)
    return np.moveaxis(moved, -1, 0)


def stays(mass: Array, matrix: Array, size: tuple[int, int], stride: float) -> tuple[float, float]:
    """At least and at most how much of a density [h, w] stays in a frame of (h, w) maps: by the corners of its pixels."""
    y, x = np.mgrid[: mass.shape[0], : mass.shape[1]]
    corners = np.stack([np.stack([x + a, y + b], -1) for a in (-0.5, 0.5) for b in (-0.5, 0.5)], -2)
    inside = visible(points(at_stride(matrix, stride), corners), size)
    return float(mass[inside.all(-1)].sum()), float(mass[_may_touch(points(at_stride(matrix, stride), corners), size)].sum())


def _may_touch(corners: Array, size: tuple[int, int]) -> Array:
    low, high = corners.min(-2), corners.max(-2)
    return ((high >= -0.5) & (low < np.array([size[1], size[0]]) - 0.5)).all(-1)

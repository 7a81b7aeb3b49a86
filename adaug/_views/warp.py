"""Moves pixels, points and boxes by one matrix for each row. Pure functions of tensors.

Coordinates are pixels, x then y. (0, 0) is the centre of the first pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from adaug._runtime.constants import constant, pixel_centres
from adaug._runtime.geometry import Size, product
from adaug.keypoints import Pairs, swapped_order

# ---- pixels


@dataclass(frozen=True)
class Grid:
    """The place that each pixel of a view comes from, for images and heat maps of any resolution.

    Attributes:
        inverse: [n, 2, 3], in the normalised coordinates of `align_corners=False`. In these, an image and its heat map (with
            stride s and x = (x + 0.5) / s - 0.5) have the same coordinates.
        known: The points of the sizes that were needed so far.
    """

    inverse: Tensor
    known: dict[Size, Tensor] = field(default_factory=dict)

    def points(self, size: Size) -> Tensor:
        """The points [n, h, w, 2] of a size, computed once: an image and its mask share them.

        Each is a part for its column plus a part for its row. They are added as complex numbers: adding pairs takes three
        times as long, and F.affine_grid more than ten times, about as long as sampling (benchmarks/warp.py).
        """
        if size not in self.known:
            y, x = (pixel_centres(side, self.inverse.device, self.inverse.dtype) for side in size)
            columns = self.inverse[:, None, :, 0] * x[:, None]  # [n, w, 2]
            rows = self.inverse[:, None, :, 1] * y[:, None] + self.inverse[:, None, :, 2]  # [n, h, 2]
            columns, rows = torch.view_as_complex(columns.contiguous()), torch.view_as_complex(rows.contiguous())
            self.known[size] = torch.view_as_real(rows[:, :, None] + columns[:, None])
        return self.known[size]


def sampling_grid(matrix: Tensor, canvas: Size, view_size: Size) -> Grid:
    """The grid of matrices [n, 3, 3] that map a canvas to a view."""
    inverse = torch.linalg.inv_ex(matrix).inverse  # inv() would wait for the device to report singular matrices
    (h, w), (height, width) = canvas, view_size
    from_pixels = constant(((2 / w, 0, 1 / w - 1), (0, 2 / h, 1 / h - 1), (0, 0, 1)), matrix)
    to_pixels = constant(((width / 2, 0, (width - 1) / 2), (0, height / 2, (height - 1) / 2), (0, 0, 1)), matrix)
    return Grid(product(product(from_pixels, inverse), to_pixels)[:, :2])


def warp(image: Tensor, grid: Grid, size: Size, *, mode: str = "bilinear", fill: float = 0.0) -> Tensor:
    """Samples images [n, C, H, W] at a grid, to `size`. Keeps the dtype.

    Pixels outside the canvas get `fill`. Bilinear sampling mixes it into the pixels at the border, and into no others.
    """
    points = grid.points(size)
    points = points.to(_precision(image, points.dtype))
    if mode == "nearest":  # exactly between two pixels it would round to the even one, and take every second pixel twice
        points = points + max(1e-4 / max(image.shape[-2:]), 1e-6)  # and float32 would lose a smaller step
    sampled = F.grid_sample(image.to(points.dtype), points, mode=mode, padding_mode="zeros", align_corners=False)
    if not fill:
        return sampled.to(image.dtype)
    if mode == "nearest":
        covered = F.grid_sample(_ones(image, points.dtype), points, mode=mode, padding_mode="zeros", align_corners=False)
        value = fill if image.is_floating_point() else int(fill)
        return sampled.to(image.dtype).masked_fill(covered == 0, value)
    covered = _coverage(points, image.shape[-2:])[:, None]
    return torch.where(covered == 1, sampled, sampled + (1 - covered) * fill).to(image.dtype)


def _precision(image: Tensor, default: torch.dtype) -> torch.dtype:
    """The floating dtype that holds all values of an image. float32 holds integers up to 2^24."""
    if image.dtype == torch.float64:
        return torch.float64
    if image.dtype not in (torch.int32, torch.int64) or image.device.type == "mps" or not image.numel():
        return default
    if image.device.type != "cpu":
        return torch.float64  # checking the values would wait for the device
    low, high = image.aminmax()
    return torch.float64 if int(low) < -(2**24) or int(high) > 2**24 else default


def _ones(image: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.ones((), dtype=dtype, device=image.device).expand(len(image), 1, *image.shape[-2:])


def _coverage(points: Tensor, size: Sequence[int]) -> Tensor:
    """The weight of the image, not of what lies outside, in samples at points [n, h, w, 2]. [n, h, w]."""
    height, width = size
    x, y = ((points[..., 0] + 1) * width - 1) / 2, ((points[..., 1] + 1) * height - 1) / 2
    return (x + 1).minimum(width - x).clamp(0, 1) * (y + 1).minimum(height - y).clamp(0, 1)


# ---- points and boxes


def warp_points(points: Tensor, matrix: Tensor) -> Tensor:
    """Maps points [n, ..., 2] by matrices [n, 3, 3], one for each row. Keeps the dtype."""
    flat = points.reshape(points.shape[0], -1, 1, 2).to(matrix.dtype)
    moved = (matrix[:, None, :2, :2] * flat).sum(-1) + matrix[:, None, :2, 2]  # no kernel for matrices: see `product`
    return moved.reshape(points.shape).to(points.dtype)


def warp_boxes(boxes: Tensor, matrix: Tensor, view_size: Size) -> Tensor:
    """Maps boxes [n, ..., 4] (xyxy) to the boxes around their four moved corners, cut to the frame.

    A box that left the frame, or that had no area, keeps its place in the list and gets no area. Keeps the dtype.
    """
    x1, y1, x2, y2 = boxes.unbind(-1)
    corners = torch.stack([x1, y1, x2, y1, x2, y2, x1, y2], -1).reshape(*boxes.shape[:-1], 4, 2)
    moved = warp_points(corners.to(matrix.dtype), matrix)
    limit = constant((view_size[1] - 0.5, view_size[0] - 0.5), moved)
    low, high = (edge.clamp(min=-0.5).minimum(limit) for edge in (moved.amin(-2), moved.amax(-2)))
    empty = ((x2 <= x1) | (y2 <= y1))[..., None]
    middle = (low + high) / 2
    return torch.cat([torch.where(empty, middle, low), torch.where(empty, middle, high)], -1).to(boxes.dtype)


def swap_pairs(values: Tensor, flipped: Tensor, pairs: Pairs, dim: int) -> Tensor:
    """Exchanges left and right along `dim` in the rows [n] that were flipped."""
    if not pairs:
        return values
    order = constant(tuple(swapped_order(values.shape[dim], pairs)), values.device, torch.long)
    swapped = values.index_select(dim, order)
    return torch.where(flipped.reshape(-1, *[1] * (values.ndim - 1)), swapped, values)

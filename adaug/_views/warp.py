"""Moves pixels, points and boxes by one matrix for each row. Pure functions of tensors.

Coordinates are pixels, x then y. (0, 0) is the centre of the first pixel. Boxes are edges: [0, 0, W, H] is the whole image.

A matrix [n, 3, 3] whose last row is 0 0 1 moves by its first two rows. Others, of a perspective, also divide by the third.
Which of both holds is told by `perspective`, because reading the values of a matrix would wait for a GPU.
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

NEAREST = 1e-6  # what is divided by less is behind the observer; at the centre of an image it is 1
OUTSIDE = 4.0  # in coordinates where the image lies between -1 and 1

# ---- pixels


@dataclass(frozen=True)
class Grid:
    """The place that each pixel of a view comes from, for images and heat maps of any resolution.

    Attributes:
        inverse: [n, 2, 3], or [n, 3, 3] for a perspective, in the normalised coordinates of `align_corners=False`. In these, an
            image and its heat map (with stride s and x = (x + 0.5) / s - 0.5) have the same coordinates.
        known: The points of the sizes that were needed so far.
    """

    inverse: Tensor
    known: dict[Size, Tensor] = field(default_factory=dict)

    def points(self, size: Size) -> Tensor:
        """The points [n, h, w, 2] of a size, computed once: an image and its mask share them.

        Each is a part for its column plus a part for its row. They are added as complex numbers: adding pairs takes three
        times as long, and F.affine_grid more than ten times, about as long as sampling (benchmarks/warp.py).
        """
        if size not in self.known and self.inverse.shape[1] == 3:
            self.known[size] = self._divided(size)
        elif size not in self.known:
            y, x = (pixel_centres(side, self.inverse.device, self.inverse.dtype) for side in size)
            columns = self.inverse[:, None, :, 0] * x[:, None]  # [n, w, 2]
            rows = self.inverse[:, None, :, 1] * y[:, None] + self.inverse[:, None, :, 2]  # [n, h, 2]
            columns, rows = torch.view_as_complex(columns.contiguous()), torch.view_as_complex(rows.contiguous())
            self.known[size] = torch.view_as_real(rows[:, :, None] + columns[:, None])
        return self.known[size]

    def _divided(self, size: Size) -> Tensor:
        """The same for a perspective. What lies behind the observer is put outside the image."""
        y, x = (pixel_centres(side, self.inverse.device, self.inverse.dtype) for side in size)
        columns, rows, last = (self.inverse[:, None, None, :, i] for i in range(3))
        whole = columns * x[:, None] + rows * y[:, None, None] + last  # [n, h, w, 3]
        depth = whole[..., 2:]
        return torch.where(depth > NEAREST, whole[..., :2] / depth.clamp(min=NEAREST), OUTSIDE)


def centre_at_one(matrix: Tensor, canvas: Size) -> Tensor:
    """Matrices [n, 3, 3] of a perspective, scaled so that the centre of the canvas is divided by 1."""
    centre = constant(((canvas[1] - 1) / 2, (canvas[0] - 1) / 2, 1.0), matrix)
    return matrix / (matrix[:, 2] * centre).sum(-1)[:, None, None]


def sampling_grid(
    matrix: Tensor, canvas: tuple[float, float], view_size: tuple[float, float], *, perspective: bool = False
) -> Grid:
    """The grid of matrices [n, 3, 3] that map a canvas to a view.

    Sizes are (height, width) in pixels of the image. Those of a map whose stride does not divide the image are not whole.
    """
    inverse = torch.linalg.inv_ex(matrix).inverse  # inv() would wait for the device to report singular matrices
    (h, w), (height, width) = canvas, view_size
    from_pixels = constant(((2 / w, 0, 1 / w - 1), (0, 2 / h, 1 / h - 1), (0, 0, 1)), matrix)
    to_pixels = constant(((width / 2, 0, (width - 1) / 2), (0, height / 2, (height - 1) / 2), (0, 0, 1)), matrix)
    normalised = product(product(from_pixels, inverse), to_pixels)
    return Grid(normalised if perspective else normalised[:, :2])


def warp(image: Tensor, grid: Grid, size: Size, *, mode: str = "bilinear", fill: float = 0.0) -> Tensor:
    """Samples images [n, C, H, W] at a grid, to `size`. Keeps the dtype.

    Pixels outside the canvas get `fill`. Bilinear sampling mixes it into the pixels at the border, and into no others.
    """
    points = grid.points(size)
    dtype = _precision(image, points.dtype)
    if dtype is None:
        return _gathered(image, points, int(fill))
    points = points.to(dtype)
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


def _precision(image: Tensor, default: torch.dtype) -> torch.dtype | None:
    """The floating dtype that holds all values of an image: float32 holds integers up to 2^24, float64 up to 2^53.

    None if none may hold them. On a GPU, looking at integers would wait for the device.
    """
    if image.dtype == torch.float64:
        return torch.float64
    if image.dtype not in (torch.int32, torch.int64) or not image.numel():
        return default
    if image.device.type != "cpu":
        return None
    largest = max(abs(int(edge)) for edge in image.aminmax())
    return default if largest <= 2**24 else torch.float64 if largest <= 2**53 else None


def _gathered(image: Tensor, points: Tensor, fill: int) -> Tensor:
    """The nearest pixels of integers [n, C, H, W], bit for bit. [n, C, h, w]."""
    height, width = image.shape[-2:]
    step = max(1e-4 / max(height, width), 1e-6)  # as in `warp`
    x, y = (((points[..., i] + step + 1) * side - 1) / 2 for i, side in enumerate((width, height)))
    x, y = x.round(), y.round()
    covered = (x >= 0) & (x < width) & (y >= 0) & (y < height)  # NaN is outside
    index = torch.where(covered, y * width + x, 0).long().flatten(1)[:, None].expand(-1, image.shape[1], -1)
    taken = image.flatten(2).gather(2, index).unflatten(2, points.shape[1:3])
    return torch.where(covered[:, None], taken, fill)


def _ones(image: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.ones((), dtype=dtype, device=image.device).expand(len(image), 1, *image.shape[-2:])


def _coverage(points: Tensor, size: Sequence[int]) -> Tensor:
    """The weight of the image, not of what lies outside, in samples at points [n, h, w, 2]. [n, h, w]."""
    height, width = size
    x, y = ((points[..., 0] + 1) * width - 1) / 2, ((points[..., 1] + 1) * height - 1) / 2
    return (x + 1).minimum(width - x).clamp(0, 1) * (y + 1).minimum(height - y).clamp(0, 1)


# ---- points and boxes


def warp_points(points: Tensor, matrix: Tensor, *, perspective: bool = False) -> Tensor:
    """Maps points [n, ..., 2] by matrices [n, 3, 3], one for each row. Keeps the dtype.

    Points behind the observer of a perspective go far outside the frame.
    """
    flat = points.reshape(points.shape[0], points.shape[1:-1].numel(), 1, 2).to(matrix.dtype)
    moved = (matrix[:, None, :2, :2] * flat).sum(-1) + matrix[:, None, :2, 2]  # no kernel for matrices: see `product`
    if perspective:
        depth = (matrix[:, None, 2:, :2] * flat).sum(-1) + matrix[:, None, 2:, 2]
        moved = torch.where(depth.isnan(), depth, moved / depth.clamp(min=NEAREST))
    return moved.reshape(points.shape).to(points.dtype)


def warp_boxes(
    boxes: Tensor, matrix: Tensor, view_size: Size, *, perspective: bool = False, min_visibility: float = 0.0
) -> Tensor:
    """Maps boxes [n, ..., 4] (xyxy, edges) to the boxes around their four moved corners, cut to the frame.

    A box that left the frame, or that had no area, keeps its place in the list and gets no area. So does a box of which a
    smaller part than `min_visibility` stays. Keeps the dtype.
    """
    x1, y1, x2, y2 = boxes.unbind(-1)
    corners = torch.stack([x1, y1, x2, y1, x2, y2, x1, y2], -1).reshape(*boxes.shape[:-1], 4, 2).to(matrix.dtype) - 0.5
    empty = (x2 <= x1) | (y2 <= y1)
    if perspective:
        corners, seen = _in_front(corners, matrix)
        moved = warp_points(corners, matrix, perspective=True)
        first, last = torch.where(seen, moved, torch.inf).amin(-2), torch.where(seen, moved, -torch.inf).amax(-2)
        empty = empty | ~seen.any(-2)[..., 0]
    else:
        moved = warp_points(corners, matrix)
        first, last = moved.amin(-2), moved.amax(-2)
    first, last = first + 0.5, last + 0.5
    limit = constant((view_size[1], view_size[0]), moved)
    low, high = (edge.clamp(min=0).minimum(limit) for edge in (first, last))
    if min_visibility:
        empty = empty | ((high - low).prod(-1) < min_visibility * (last - first).prod(-1))
    middle = (low + high) / 2
    return torch.cat([torch.where(empty[..., None], middle, edge) for edge in (low, high)], -1).to(boxes.dtype)


def _in_front(corners: Tensor, matrix: Tensor) -> tuple[Tensor, Tensor]:
    """The ends of the four sides of boxes, cut where they go behind the observer, and which sides do not lie behind.

    [n, ..., 4, 2] -> [n, ..., 8, 2], [n, ..., 8, 1] bool.
    """
    last, others = matrix[:, 2].reshape(-1, *[1] * (corners.ndim - 2), 3), corners.roll(-1, -2)
    near, far = ((last[..., :2] * end).sum(-1, keepdim=True) + last[..., 2:] - 2 * NEAREST for end in (corners, others))
    edge = corners + (near / (near - far)) * (others - corners)
    ends = torch.cat([torch.where(near < 0, edge, corners), torch.where(far < 0, edge, others)], -2)
    return ends, ~((near < 0) & (far < 0)).repeat(*[1] * (corners.ndim - 2), 2, 1)


def swap_pairs(values: Tensor, flipped: Tensor, pairs: Pairs, dim: int) -> Tensor:
    """Exchanges left and right along `dim` in the rows [n] that were flipped."""
    if not pairs:
        return values
    order = constant(tuple(swapped_order(values.shape[dim], pairs)), values.device, torch.long)
    return _where(flipped, values.index_select(dim, order), values)


def swap_classes(values: Tensor, flipped: Tensor, pairs: Pairs) -> Tensor:
    """Exchanges the numbers of left and right classes in the rows [n] that were flipped."""
    swapped = values
    for left, right in pairs:
        swapped = torch.where(values == left, right, torch.where(values == right, left, swapped))
    return _where(flipped, swapped, values)


def _where(flipped: Tensor, mirrored: Tensor, plain: Tensor) -> Tensor:
    return torch.where(flipped.reshape(-1, *[1] * (plain.ndim - 1)), mirrored, plain)

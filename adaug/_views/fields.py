"""Moves maps whose values depend on the view: vectors turn and grow with the image, and the sums of densities stay."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from adaug._runtime.constants import constant
from adaug._views.warp import NEAREST

PARTS = 4  # a pixel of a density is cut into so many parts along each side, and each goes where its middle goes


def turn_vectors(
    fields: Tensor, matrix: Tensor, stride: float, *, perspective: bool, length: Literal["kept", "moved"]
) -> Tensor:
    """Turns the vectors [n, K, 2, h, w] of maps that a view [n, 3, 3] has moved already.

    Args:
        fields: The vectors, in pixels of the image.
        matrix: The view's matrices.
        stride: Pixels of the view for each pixel of the maps.
        perspective: Whether the matrices are those of a perspective.
        length: "moved": both ends of a vector move. "kept": only its direction changes.
    """
    linear = matrix[:, :2, :2]
    if not perspective:
        turned = _product(linear[:, None], fields)
    else:
        y, x = (torch.arange(side, device=fields.device) for side in fields.shape[-2:])
        place = torch.stack(torch.meshgrid(x, y, indexing="xy")) * stride + (stride - 1) / 2  # [2, h, w] in the view
        whole = torch.cat([place, torch.ones_like(place[:1])]).to(matrix.dtype)
        depth = 1 / _product(torch.linalg.inv_ex(matrix).inverse, whole)[:, None, None, 2].clamp(min=NEAREST)
        across = (matrix[:, None, 2, :2, None, None] * fields).sum(2, keepdim=True)  # how the depth changes along a vector
        turned = _product(linear[:, None], fields) - place * across
        turned = turned / (depth if length == "kept" else (depth + across).clamp(min=NEAREST))
    if length == "moved":
        return turned
    before, after = (part.norm(dim=2, keepdim=True) for part in (fields, turned))
    return turned * (before / after.clamp(min=torch.finfo(after.dtype).tiny))


def _product(matrix: Tensor, vectors: Tensor) -> Tensor:
    """[..., r, c] x [..., c, h, w] -> [..., r, h, w], summed in float32."""
    return (matrix[..., None, None] * vectors.unsqueeze(-4)).sum(-3)


def move_density(maps: Tensor, matrix: Tensor, stride: float, size: tuple[int, int], *, perspective: bool) -> Tensor:
    """Moves densities [n, C, h, w] to `size`. What stays in the frame keeps its sum, and what leaves it is gone.

    Args:
        maps: The densities.
        matrix: The view's matrices [n, 3, 3].
        stride: Pixels of the image for each pixel of the maps, before and after.
        size: The size of the maps of the view.
        perspective: Whether the matrices are those of a perspective.
    """
    n, channels, h, w = maps.shape
    moved = torch.zeros(
        n, channels, size[0] * size[1] + 1, dtype=torch.promote_types(maps.dtype, torch.float32), device=maps.device
    )
    share = maps.flatten(2).to(moved.dtype) / PARTS**2
    y, x = (torch.arange(side, device=maps.device, dtype=matrix.dtype) for side in (h, w))
    middles = constant(tuple((i + 0.5) / PARTS for i in range(PARTS)), matrix)
    a, b, d = (matrix[:, i, :, None, None] for i in range(3))
    for down in middles:
        v = (y[:, None] + down) * stride - 0.5
        for right in middles:
            u = (x + right) * stride - 0.5
            new_x, new_y = (line[:, 0] * u + line[:, 1] * v + line[:, 2] for line in (a, b))  # [n, h, w]
            if perspective:
                depth = d[:, 0] * u + d[:, 1] * v + d[:, 2]
                new_x, new_y = (torch.where(depth > NEAREST, new / depth, -stride) for new in (new_x, new_y))
            column, row = (((new + 0.5) / stride).floor() for new in (new_x, new_y))
            stays = (column >= 0) & (column < size[1]) & (row >= 0) & (row < size[0])
            index = torch.where(stays, row * size[1] + column, size[0] * size[1]).long()
            moved.scatter_add_(2, index.flatten(1)[:, None].expand(-1, channels, -1), share)
    return moved[..., :-1].unflatten(2, size).to(maps.dtype)

"""Sizes, matrices and frames: the plain geometry that operations and views share. Pure functions of tensors.

Coordinates are pixels, x then y. (0, 0) is the centre of the first pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import SupportsIndex

import torch
from torch import Tensor

from adaug._runtime.checks import Rule, checked, integer, optional, several
from adaug._runtime.constants import constant

Size = tuple[int, int]  # height, width

LARGEST = 2**16  # pixels along a side; a larger number is a mistake
_SIDES = several(integer(at_least=1, at_most=LARGEST), "", length=2)
SIZE = optional(
    Rule(
        f"(height, width), two positive integers of at most {LARGEST}",
        lambda size: _SIDES.read((size, size) if isinstance(size, SupportsIndex) else size),
    ),
    "for the images' own",
)


def as_size(size: Sequence[int] | int | None) -> Size | None:
    """An `output_size` as (height, width). One number stands for both. Raises an error on anything else."""
    sides: Size | None = checked({"output_size": size}, {"output_size": SIZE})["output_size"]
    return sides


def told_stride(size: Sequence[int], image: Sequence[int]) -> float | None:
    """Image pixels per pixel of a map (h, w): a whole number or one over it, the same along both sides, else None."""
    (h, w), (height, width) = size, image
    if min(h, w) == 0 or h * width != w * height or (height % h and h % height):
        return None
    return float(height / h)


# ---- matrices


def full_precision(device: torch.device | None) -> torch.autocast:
    """Keeps geometry in float32 inside autocast. With 16 bits a keypoint may be a pixel away from its place."""
    return torch.autocast(device.type if device is not None else "cpu", enabled=False)


def product(left: Tensor, right: Tensor) -> Tensor:
    """The matrices left @ right [..., 3, 3], summed in float32. Where TF32 is allowed, a GPU's own product has ten bits."""
    return (left[..., :, :, None] * right[..., None, :, :]).sum(-2)


def mirror(flipped: Tensor) -> Tensor:
    """The matrices [n, 3, 3] about the origin that mirror x in the flipped rows [n]."""
    side = torch.where(flipped, -1.0, 1.0)
    return torch.diag_embed(torch.stack([side, torch.ones_like(side), torch.ones_like(side)], -1))


def centred(matrix: Tensor, canvas: Size, view_size: Size) -> Tensor:
    """Turns matrices about the origin into matrices from image pixels to view pixels, centre to centre. [n, 3, 3]."""
    to_origin, from_origin = (
        constant(((1.0, 0.0, x), (0.0, 1.0, y), (0.0, 0.0, 1.0)), matrix.device)
        for y, x in (((1 - canvas[0]) / 2, (1 - canvas[1]) / 2), ((view_size[0] - 1) / 2, (view_size[1] - 1) / 2))
    )
    return product(from_origin, product(matrix, to_origin))


def inside(points: Tensor, size: Size) -> Tensor:
    """Which points [..., 2] lie on the pixels of a frame, bool [...]. NaN lies outside."""
    x, y = points.unbind(-1)
    return (x >= -0.5) & (x < size[1] - 0.5) & (y >= -0.5) & (y < size[0] - 0.5)

"""Units of points and formats of boxes: to pixels (xyxy) before a view moves them, and back to the user's.

Points are pixel centres, (0, 0) is the centre of the first pixel. Boxes are edges, [0, 0, W, H] is the whole image.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from adaug._runtime.geometry import Size

UNITS = ("pixels", "unit", "signed")
DIRECTION = "direction"  # of vectors that keep their length
FORMATS = ("xyxy", "xywh", "cxcywh")
NEAR = 16  # all points of an image cannot lie within this part (1 / NEAR) of its shorter side around the first pixel
Unit = str | tuple[Any, Any]  # a name, or (offset, scale), each a number or a pair (x, y)


def check_unit(unit: Any, owner: str, *, vectors: bool = False) -> None:
    """Raises ValueError unless `unit` is None, one of UNITS or (offset, scale); vectors may also have a direction alone."""
    names = (*UNITS, DIRECTION) if vectors else UNITS
    if unit is None or (isinstance(unit, str) and unit in names):
        return
    try:
        if isinstance(unit, str):
            raise ValueError
        offset, scale = (_pair(part) for part in unit)
        if not all(map(math.isfinite, (*offset, *scale))) or not all(scale):
            raise ValueError
    except (TypeError, ValueError):
        raise ValueError(
            f"`unit` of {owner} should be one of {', '.join(names)}, or (offset, scale) with pixel = offset + scale * value. "
            f"Found {unit!r}."
        ) from None


def _pair(value: Any) -> tuple[float, float]:
    if isinstance(value, Sequence):
        x, y = value
        return float(x), float(y)
    return float(value), float(value)


def offset_and_scale(unit: Unit | None, size: Size) -> tuple[tuple[float, float], tuple[float, float]] | None:
    """(offset, scale) of pixel = offset + scale * value in images of a size, each (x, y). None for pixels.

    At the outer edges of the image, "unit" is 0 and 1, and "signed" is -1 and 1. The centre of the first pixel is half a pixel
    inside: pixel = u * size - 0.5, and pixel = ((s + 1) * size - 1) / 2, as in F.grid_sample with align_corners=False.
    """
    height, width = size
    if unit is None or unit == "pixels":
        return None
    if unit == "unit":
        return (-0.5, -0.5), (width, height)
    if unit == "signed":
        return ((width - 1) / 2, (height - 1) / 2), (width / 2, height / 2)
    offset, scale = tuple(unit)
    return _pair(offset), _pair(scale)


def to_pixels(points: Tensor, unit: Unit | None, size: Size) -> Tensor:
    """Points [..., 2] of images of a size, in pixels. Converted ones are float32 at least."""
    known = offset_and_scale(unit, size)
    if known is None:
        return points
    offset, scale = _tensors(known, points)
    return offset + scale * points.to(offset.dtype)


def from_pixels(points: Tensor, unit: Unit | None, size: Size, dtype: torch.dtype) -> Tensor:
    """The way back from pixels, to `dtype`."""
    known = offset_and_scale(unit, size)
    if known is None:
        return points.to(dtype)
    offset, scale = _tensors(known, points)
    return ((points.to(offset.dtype) - offset) / scale).to(dtype)


def _tensors(known: Sequence[Sequence[float]], like: Tensor) -> list[Tensor]:
    dtype = torch.promote_types(like.dtype, torch.float32)
    return list(torch.tensor(known, dtype=dtype, device="cpu").to(like.device, non_blocking=True).unbind())


def to_corners(boxes: Tensor, form: str | None) -> Tensor:
    """Boxes [..., 4] as xyxy."""
    if form is None or form == "xyxy":
        return boxes
    at, extent = boxes.split(2, -1)
    low = at if form == "xywh" else at - extent / 2
    return torch.cat([low, low + extent if form == "xywh" else at + extent / 2], -1)


def from_corners(boxes: Tensor, form: str | None) -> Tensor:
    """Boxes [..., 4] from xyxy."""
    if form is None or form == "xyxy":
        return boxes
    low, high = boxes.split(2, -1)
    return torch.cat([low if form == "xywh" else (low + high) / 2, high - low], -1)


def box_to_pixels(boxes: Tensor, unit: Unit | None, form: str | None, size: Size) -> Tensor:
    """Boxes [..., 4] as xyxy in pixels, their edges: [0, 0, W, H] is the whole image."""
    corners = to_corners(boxes, form)
    if offset_and_scale(unit, size) is None:
        return corners
    return (to_pixels(corners.unflatten(-1, (2, 2)), unit, size) + _edge(unit)).flatten(-2)


def box_from_pixels(boxes: Tensor, unit: Unit | None, form: str | None, size: Size, dtype: torch.dtype) -> Tensor:
    """The way back from pixels, to `dtype`."""
    wide = torch.promote_types(dtype, torch.float32)
    if offset_and_scale(unit, size) is None:
        return from_corners(boxes.to(wide), form).to(dtype)
    corners = from_pixels(boxes.unflatten(-1, (2, 2)) - _edge(unit), unit, size, wide).flatten(-2)
    return from_corners(corners, form).to(dtype)


def _edge(unit: Unit | None) -> float:
    """How far edges lie from what a unit says of pixel centres. A unit of the user's own is one of edges."""
    return 0.5 if unit in ("unit", "signed") else 0.0


# ---- what cannot be what it says


def check_points(name: str, points: Tensor, unit: Unit | None, size: Size) -> None:
    """Raises ValueError if points [..., 2] without a unit are all so near the first pixel that they cannot be pixels."""
    near = max(1.0, min(size) / NEAR)
    if unit is not None or not points.numel() or min(size) <= 4 or float(points.amax()) > near:  # most batches end here
        return
    known = points.nan_to_num(0, 0, 0)
    low, high = (float(edge) for edge in known.aminmax())
    within_one = low >= -1 and high <= 1
    outside = -near <= low < -0.5  # also outside the image, so it is not just an object in the corner
    if (within_one or outside) and bool((known != known.round()).any()):
        wanted = "(offset, scale)" if not within_one else '"signed"' if low < 0 else '"unit"'
        meaning = ", by which pixel = offset + scale * value" if not within_one else ""
        raise ValueError(
            f"{name} should be in pixels if it has no unit. Found values from {low:.3g} to {high:.3g} on images of "
            f'{size[1]} x {size[0]} pixels; pass adaug.Target(..., unit={wanted}){meaning}, or unit="pixels" if they are '
            "pixels."
        )


def check_boxes(name: str, boxes: Tensor, unit: Unit | None, form: str | None, size: Size) -> None:
    """Raises ValueError if boxes [..., 4] have a negative width or height, or seem to have another unit."""
    if not boxes.numel():
        return
    low, high = to_corners(boxes, form).split(2, -1)
    if bool((high < low).any()):
        wanted = "x1 <= x2 and y1 <= y2" if form in (None, "xyxy") else "a width and a height of at least 0"
        at = (high < low).any(-1).flatten().nonzero()[0, 0]
        raise ValueError(
            f"{name} should have {wanted}, because its format is {form or 'xyxy'}. Found "
            f"{boxes.reshape(-1, 4)[at].tolist()}; pass "
            f'adaug.Target("boxes", format=...) with one of {", ".join(FORMATS)}, or put the corners in order.'
        )
    check_points(name, boxes, unit, size)

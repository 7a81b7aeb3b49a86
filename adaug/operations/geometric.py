"""Operations that move pixels. Each is one matrix about the centre of the view, which all entries of a batch follow."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from kornia.geometry import angle_to_rotation_matrix, get_shear_matrix2d
from torch import Tensor
from typing_extensions import override

from adaug._runtime.checks import Rules, one_of
from adaug._runtime.constants import constant
from adaug._runtime.geometry import Size
from adaug.operations.base import Binned

__all__ = ["Geometric", "Rotate", "Scale", "Shear", "Translate"]

Axis = Literal["x", "y"]


class Geometric(Binned):
    """An operation with bins that moves pixels, and the labels that belong to them, by one matrix for each row."""

    moves = True

    @override
    def matrix(self, magnitude: Tensor, size: Size) -> Tensor:
        """The matrix about the centre of a view of `size` (h, w), x to the right and y down. [n] -> [n, 3, 3]."""
        raise NotImplementedError(f"{type(self).__name__} should define matrix(magnitude [n], size) -> [n, 3, 3].")


@dataclass(frozen=True)
class Scale(Geometric):
    """Scales the object by a factor; above 1 enlarges it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.low <= 0:
            raise ValueError(f"A Scale should be positive. Found low={self.low}; 0.75 to 1.25 is the paper's range.")
        if self.rest is not None and self.rest <= 0:
            raise ValueError(f"A Scale should be positive. Found rest={self.rest}; 1 is the size as it is.")

    @property
    @override
    def quantity(self) -> str:
        return "factor of size"

    @override
    def matrix(self, magnitude: Tensor, size: Size) -> Tensor:
        return _affine(torch.diag_embed(magnitude[:, None].expand(-1, 2)))

    @override
    def _possible(self, magnitude: float) -> bool:
        return 0 < magnitude < math.inf


@dataclass(frozen=True)
class Rotate(Geometric):
    """Rotates by degrees, counter-clockwise as you see it."""

    @property
    @override
    def quantity(self) -> str:
        return "rotation"

    @override
    def label(self, magnitude: Tensor) -> str:
        return _in_degrees(magnitude)

    @override
    def matrix(self, magnitude: Tensor, size: Size) -> Tensor:
        return _affine(angle_to_rotation_matrix(magnitude))


@dataclass(frozen=True)
class _AlongAxis(Geometric):
    """An operation along `axis`, which is part of its name."""

    _: KW_ONLY
    axis: Axis = "x"

    _rules: ClassVar[Rules] = {"axis": one_of("x", "y")}

    @property
    @override
    def name(self) -> str:
        return f"{super().name}_{self.axis}"


@dataclass(frozen=True)
class Translate(_AlongAxis):
    """Shifts along `axis` by a fraction of the view's width ("x": positive is right) or height ("y": positive is down)."""

    @override
    def matrix(self, magnitude: Tensor, size: Size) -> Tensor:
        shift, still = magnitude * size[1 if self.axis == "x" else 0], torch.zeros_like(magnitude)
        x, y = (shift, still) if self.axis == "x" else (still, shift)
        identity = constant(((1.0, 0.0), (0.0, 1.0)), magnitude.device).expand(len(magnitude), 2, 2)
        return torch.cat([F.pad(identity, (0, 0, 0, 1)), torch.stack([x, y, torch.ones_like(x)], -1)[..., None]], -1)


@dataclass(frozen=True)
class Shear(_AlongAxis):
    """Shears by degrees. A positive angle moves the top of the object right (axis "x") or its right side down ("y")."""

    @override
    def label(self, magnitude: Tensor) -> str:
        return _in_degrees(magnitude)

    @override
    def matrix(self, magnitude: Tensor, size: Size) -> Tensor:
        angle = torch.deg2rad(magnitude)
        centre = magnitude.new_zeros(len(magnitude), 2)
        return get_shear_matrix2d(centre, sx=angle) if self.axis == "x" else get_shear_matrix2d(centre, sy=-angle)


def _affine(linear: Tensor) -> Tensor:
    """[n, 2, 2] -> [n, 3, 3]."""
    return F.pad(linear, (0, 1, 0, 1)) + constant(((0.0,) * 3, (0.0,) * 3, (0.0, 0.0, 1.0)), linear.device)


def _in_degrees(magnitude: Tensor) -> str:
    return f"{float(magnitude):+.0f}°"

"""What can be done to a view. An operation has k bins or cells; a generator learns which of them is hard.

A geometric operation is a small dataclass that returns a matrix, a photometric one a function of the image and a
magnitude, an occlusion the cells that it hides. To add one, subclass and name nothing anywhere else.
"""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import Literal, SupportsIndex, TypeVar

import torch
import torch.nn.functional as F
from kornia import enhance
from kornia.geometry import angle_to_rotation_matrix, get_shear_matrix2d
from torch import Tensor
from typing_extensions import override

from adaug.sampling import draw_without_replacement, truncated_normal

T = TypeVar("T")


@dataclass(frozen=True)
class Binned:
    """An operation of one magnitude a row. Each bin is a small Gaussian bounded by truncation; the bins tile the range.

    low, high: the range; bins: their number. spread: standard deviation in half bin widths (the bound is one half).
    log: bins of equal ratio instead of equal width. reference: the inverse distribution function of the random
    magnitude that an adversarial one is compared with, by default uniform over the range. rest: the magnitude in views of
    other branches and in random ones; by default they draw from the reference, as in the paper.
    """

    low: float
    high: float
    bins: int
    _: KW_ONLY
    spread: float = 1.0
    log: bool = False
    reference: Callable[[Tensor], Tensor] | None = None
    rest: float | None = None

    def __post_init__(self) -> None:
        name = type(self).__name__
        if isinstance(self.bins, bool) or not isinstance(self.bins, SupportsIndex) or operator.index(self.bins) < 2:
            raise ValueError(f"`bins` of {name} should be an integer of at least 2. Found {self.bins!r}.")
        object.__setattr__(self, "bins", operator.index(self.bins))
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ValueError(f"The range of {name} should have low < high. Found low={self.low}, high={self.high}.")
        if self.log and self.low <= 0:
            raise ValueError(f"With log=True the range of {name} should be positive. Found low={self.low}.")
        if not self.spread > 0:
            raise ValueError(f"`spread` of {name} should be above 0. Found {self.spread}.")
        if self.rest is not None and not math.isfinite(self.rest):
            raise ValueError(f"`rest` of {name} should be finite, or None for the reference. Found {self.rest}.")

    @property
    def name(self) -> str:
        """What its head is called, unique in a branch."""
        return type(self).__name__.lower()

    @property
    def head(self) -> int:
        """Shape of what a generator predicts for it: the number of bins."""
        return self.bins

    def edges(self) -> list[float]:
        """The k + 1 edges between bins."""
        steps = [i / self.bins for i in range(self.bins + 1)]
        if self.log:
            return [self.low * (self.high / self.low) ** step for step in steps]
        return [self.low + (self.high - self.low) * step for step in steps]

    def centres(self) -> list[float]:
        """The k centres of the bins."""
        edges = self.edges()
        return [math.sqrt(a * b) if self.log else (a + b) / 2 for a, b in itertools.pairwise(edges)]

    def choose(self, log_probs: Tensor, noise: Tensor) -> Tensor:
        """Draws a bin a row. [n, k], uniform noise [n, k] -> [n, 1] long."""
        return draw_without_replacement(log_probs, noise, 1)

    def magnitude(self, chosen: Tensor, noise: Tensor) -> Tensor:
        """A draw from the bounded Gaussian of each row's bin. [n, 1] long, uniform noise [n] -> [n]."""
        position = (chosen[:, 0] + 0.5 + 0.5 * truncated_normal(noise, 1 / self.spread) * self.spread) / self.bins
        return self._at(position)

    def random_magnitude(self, noise: Tensor) -> Tensor:
        """A draw from the reference. Uniform noise [n] -> [n]."""
        return self._at(noise) if self.reference is None else self.reference(noise)

    def usual_magnitude(self, noise: Tensor) -> Tensor:
        """The magnitude in views of other branches and in random ones. Uniform noise [n] -> [n]."""
        return self.random_magnitude(noise) if self.rest is None else torch.full_like(noise, self.rest)

    def _at(self, position: Tensor) -> Tensor:
        """The magnitude at a position in [0, 1] of the range."""
        if self.log:
            return self.low * (self.high / self.low) ** position
        return self.low + (self.high - self.low) * position


class Geometric(Binned):
    """A binned operation that moves pixels and targets by one matrix."""

    def matrix(self, magnitude: Tensor, size: tuple[int, int]) -> Tensor:
        """The matrix about the image's centre (x right, y down) for views of `size` (h, w). [n] -> [n, 3, 3]."""
        raise NotImplementedError(f"{type(self).__name__} should define matrix(magnitude [n], size) -> [n, 3, 3].")


class Photometric(Binned):
    """A binned operation that changes pixel values in [0, 1] and moves nothing."""

    def apply(self, image: Tensor, magnitude: Tensor) -> Tensor:
        """The changed image. [n, C, H, W], [n] -> [n, C, H, W]."""
        raise NotImplementedError(f"{type(self).__name__} should define apply(image, magnitude [n]) -> image.")


def _square(linear: Tensor) -> Tensor:
    """[n, 2, 2] -> [n, 3, 3]."""
    return F.pad(linear, (0, 1, 0, 1)) + torch.diag(torch.tensor([0.0, 0.0, 1.0], device="cpu")).to(
        linear.device, non_blocking=True
    )


@dataclass(frozen=True)
class Scale(Geometric):
    """Factor of the object's size: above 1 enlarges."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.low <= 0:
            raise ValueError(f"A Scale should be positive. Found low={self.low}; 0.75 to 1.25 is the paper's range.")
        if self.rest is not None and self.rest <= 0:
            raise ValueError(f"A Scale should be positive. Found rest={self.rest}; 1 is the size as it is.")

    @override
    def matrix(self, magnitude: Tensor, size: tuple[int, int]) -> Tensor:
        return _square(torch.diag_embed(magnitude[:, None].expand(-1, 2)))


@dataclass(frozen=True)
class Rotate(Geometric):
    """Degrees, counter-clockwise as seen."""

    @override
    def matrix(self, magnitude: Tensor, size: tuple[int, int]) -> Tensor:
        return _square(angle_to_rotation_matrix(magnitude))


@dataclass(frozen=True)
class Translate(Geometric):
    """A shift along `axis`, as a fraction of the view's width ("x", right is positive) or height ("y", down)."""

    _: KW_ONLY
    axis: Literal["x", "y"] = "x"

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_axis(self.axis)

    @property
    @override
    def name(self) -> str:
        return f"translate_{self.axis}"

    @override
    def matrix(self, magnitude: Tensor, size: tuple[int, int]) -> Tensor:
        shift, still = magnitude * size[1 if self.axis == "x" else 0], torch.zeros_like(magnitude)
        x, y = (shift, still) if self.axis == "x" else (still, shift)
        identity = torch.eye(2, device="cpu").to(magnitude.device, non_blocking=True).expand(len(magnitude), 2, 2)
        return torch.cat([F.pad(identity, (0, 0, 0, 1)), torch.stack([x, y, torch.ones_like(x)], -1)[..., None]], -1)


@dataclass(frozen=True)
class Shear(Geometric):
    """Degrees along `axis`; positive leans the top of the object to the right ("x") or its right side down ("y")."""

    _: KW_ONLY
    axis: Literal["x", "y"] = "x"

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_axis(self.axis)

    @property
    @override
    def name(self) -> str:
        return f"shear_{self.axis}"

    @override
    def matrix(self, magnitude: Tensor, size: tuple[int, int]) -> Tensor:
        angle = torch.deg2rad(magnitude)
        centre = magnitude.new_zeros(len(magnitude), 2)
        return get_shear_matrix2d(centre, sx=angle) if self.axis == "x" else get_shear_matrix2d(centre, sy=-angle)


def _integer(value: T) -> T | int:
    """NumPy's integers as plain ones, so that a saved policy stays plain; anything else as it is, to be refused."""
    return operator.index(value) if isinstance(value, SupportsIndex) else value


def _check_axis(axis: str) -> None:
    if axis not in ("x", "y"):
        raise ValueError(f'`axis` should be "x" or "y". Found {axis!r}.')


@dataclass(frozen=True)
class Brightness(Photometric):
    """Factor of the brightness; 1 changes nothing."""

    @override
    def apply(self, image: Tensor, magnitude: Tensor) -> Tensor:
        return enhance.adjust_brightness_accumulative(image, magnitude)


@dataclass(frozen=True)
class Contrast(Photometric):
    """Factor of the distance to the mean grey; 1 changes nothing."""

    @override
    def apply(self, image: Tensor, magnitude: Tensor) -> Tensor:
        return enhance.adjust_contrast_with_mean_subtraction(image, magnitude)


@dataclass(frozen=True)
class Saturation(Photometric):
    """Factor of the distance to the grey image; 1 changes nothing, 0 is grey."""

    @override
    def apply(self, image: Tensor, magnitude: Tensor) -> Tensor:
        return enhance.adjust_saturation_with_gray_subtraction(image, magnitude)


@dataclass(frozen=True)
class Gain(Photometric):
    """Factor of one colour channel; 1 changes nothing."""

    _: KW_ONLY
    channel: int = 0

    @property
    @override
    def name(self) -> str:
        return f"gain_{self.channel}"

    @override
    def apply(self, image: Tensor, magnitude: Tensor) -> Tensor:
        if self.channel >= image.shape[1]:
            raise ValueError(f"A Gain of channel {self.channel} should get as many channels. Found {image.shape[1]}.")
        factors = torch.ones(*image.shape[:2], 1, 1, device=image.device)
        factors[:, self.channel] = magnitude[:, None, None]
        return (image * factors).clamp(0, 1)


@dataclass(frozen=True)
class Apply(Photometric):
    """Any function of images [n, C, H, W] and magnitudes [n] that moves no pixels, e.g. kornia.enhance.adjust_gamma."""

    _: KW_ONLY
    function: Callable[[Tensor, Tensor], Tensor]

    @property
    @override
    def name(self) -> str:
        return getattr(self.function, "__name__", "apply").strip("<>")

    @override
    def apply(self, image: Tensor, magnitude: Tensor) -> Tensor:
        return self.function(image, magnitude)


@dataclass(frozen=True)
class Occlusion:
    """Hides some cells of a grid (rows, columns) laid over the view; `cells`: how many, one of these numbers a row."""

    grid: tuple[int, int] = (4, 4)
    cells: tuple[int, ...] = (1, 2)

    def __post_init__(self) -> None:
        name = type(self).__name__
        cells = (self.cells,) if isinstance(self.cells, SupportsIndex) else tuple(self.cells)
        object.__setattr__(self, "cells", tuple(_integer(number) for number in cells))
        object.__setattr__(self, "grid", tuple(_integer(number) for number in self.grid))
        cells = self.cells
        if len(self.grid) != 2 or any(not isinstance(n, int) or n < 1 for n in self.grid) or math.prod(self.grid) < 2:
            raise ValueError(f"`grid` of {name} should be (rows, columns) with at least 2 cells. Found {self.grid}.")
        if not cells or any(not isinstance(n, int) or not 1 <= n < math.prod(self.grid) for n in cells):
            raise ValueError(
                f"`cells` of {name} should be numbers from 1 to {math.prod(self.grid) - 1} (one must stay). Found {cells}."
            )

    @property
    def name(self) -> str:
        """What its head is called, unique in a branch."""
        return "occlude"

    @property
    def head(self) -> tuple[int, int]:
        """Shape of what a generator predicts for it: the grid."""
        return self.grid

    @property
    def bins(self) -> int:
        """The number of cells, k."""
        return math.prod(self.grid)

    def count(self, noise: Tensor) -> Tensor:
        """How many cells each row loses. Uniform noise [n] -> [n] long."""
        numbers = torch.tensor(self.cells, device="cpu").to(noise.device, non_blocking=True)
        return numbers[(noise * len(self.cells)).long()]

    @property
    def fields(self) -> int:
        """How many masks a row draws: one, or one a resolution."""
        return 1

    def choose(self, log_probs: Tensor, noise: Tensor, count: Tensor) -> Tensor:
        """Draws `count` [n] different cells for each of a row's masks, s = fields x most. A shorter draw repeats itself.

        [n, k], uniform noise [n, fields, k] -> [n, s] long.
        """
        most = max(self.cells)
        drawn = draw_without_replacement(log_probs[:, None], noise, most)  # [n, fields, most]
        wanted = torch.arange(most, device=drawn.device) < count[:, None, None]
        return torch.where(wanted, drawn, drawn[..., :1]).flatten(1)

    def mask(self, chosen: Tensor, noise: Tensor) -> Tensor:
        """1 to keep, 0 to occlude. [n, s] long -> [n, fields, rows, columns]; `noise` [n, 2] is for those that jitter."""
        cells = chosen.unflatten(1, (self.fields, -1))
        mask = torch.ones(*cells.shape[:2], self.bins, device=chosen.device).scatter_(2, cells, 0.0)
        return mask.unflatten(2, self.grid)

    def resized(self, mask: Tensor, size: tuple[int, int], level: int) -> Tensor:
        """The mask for a layer of `size`, the `level`-th from the finest. [n, fields, h, w] -> [n, 1, *size]."""
        if size[0] >= mask.shape[-2] and size[1] >= mask.shape[-1]:
            return F.interpolate(mask[:, :1], size=size, mode="nearest")
        return F.adaptive_avg_pool2d(mask[:, :1], size)  # coarser than the grid: as much as is left of each pixel


@dataclass(frozen=True)
class OccludeImage(Occlusion):
    """Hides cells of the image itself."""


Variant = Literal["up", "down", "independent"]


@dataclass(frozen=True)
class OccludeFeatures(Occlusion):
    """AHO: hides cells of the bridge features at every resolution (section 4.2).

    variant "up": one mask of the lowest resolution, scaled up (the paper's choice). "down": one mask of the highest
    resolution, not bound to the coarse grid, scaled down so that whatever it touches is hidden (more than needed).
    "independent": cells of their own at every resolution (what one hides another may show). The last two are those
    that the paper's discussion compares. When no layer takes masks they multiply the image, as OccludeImage does.
    """

    variant: Variant = "up"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.variant not in ("up", "down", "independent"):
            raise ValueError(f'`variant` should be "up", "down" or "independent". Found {self.variant!r}.')

    @property
    @override
    def fields(self) -> int:
        return LEVELS if self.variant == "independent" else 1

    @override
    def mask(self, chosen: Tensor, noise: Tensor) -> Tensor:
        mask = super().mask(chosen, noise)
        return self._shifted(mask, noise) if self.variant == "down" else mask

    @override
    def resized(self, mask: Tensor, size: tuple[int, int], level: int) -> Tensor:
        if self.variant == "independent":
            return super().resized(mask[:, level % LEVELS :], size, level)
        if self.variant == "down" and (size[0] < mask.shape[-2] or size[1] < mask.shape[-1]):
            return 1 - F.adaptive_max_pool2d(1 - mask, size)
        return super().resized(mask, size, level)

    def _shifted(self, mask: Tensor, noise: Tensor) -> Tensor:
        """The cells drawn at FINE pixels a cell and moved by up to half a cell: [n, 1, FINE*rows, FINE*columns]."""
        fine = F.interpolate(mask, scale_factor=FINE, mode="nearest")
        shift = ((noise - 0.5) * FINE).round().long()  # [n, 2] rows, columns
        rows = torch.arange(fine.shape[-2], device=mask.device)[None, :, None] - shift[:, 0, None, None]
        columns = torch.arange(fine.shape[-1], device=mask.device)[None, None, :] - shift[:, 1, None, None]
        known = (rows >= 0) & (rows < fine.shape[-2]) & (columns >= 0) & (columns < fine.shape[-1])
        index = torch.arange(len(fine), device=mask.device)[:, None, None]
        moved = fine[index, 0, rows.clamp(0, fine.shape[-2] - 1), columns.clamp(0, fine.shape[-1] - 1)]
        return torch.where(known, moved, 1.0)[:, None]


LEVELS = 5  # resolutions with masks of their own in the "independent" variant: 64 to 4, as in an hourglass
FINE = 16  # pixels a cell in the "down" variant: a 4 x 4 grid drawn at 64 x 64

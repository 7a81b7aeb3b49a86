"""Operations that hide cells of a grid over the view, in the image or in the network's features (section 4.2)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, SupportsIndex

import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import override

from adaug._runtime.checks import Rules, check_fields, integer, one_of, several
from adaug._runtime.constants import constant
from adaug._runtime.geometry import Size, inside
from adaug._runtime.random import Stream
from adaug.operations.base import Operation
from adaug.operations.distributions import draw_without_replacement

__all__ = ["OccludeFeatures", "OccludeImage", "Occlusion"]

LEVELS = 5  # the "independent" variant has a mask for each of so many resolutions: 64 to 4, as in an hourglass
FINE = 16  # the "down" variant draws a cell as so many pixels, a 4 x 4 grid as 64 x 64


@dataclass(frozen=True)
class Occlusion(Operation):
    """Hides some cells of a grid over the view.

    Attributes:
        grid: (rows, columns) of cells.
        cells: How many cells a row loses: one of these numbers, all equally likely.
    """

    hides: ClassVar[Literal["image", "features"]] = "image"

    grid: tuple[int, int] = (4, 4)
    cells: tuple[int, ...] = (1, 2)

    _rules: ClassVar[Rules] = {
        "grid": several(integer(at_least=1), "(rows, columns) with at least 2 cells", length=2),
        "cells": several(integer(at_least=1), "numbers of cells, from 1 up", least=1),
    }

    def __post_init__(self) -> None:
        if isinstance(self.cells, SupportsIndex) and not getattr(self.cells, "ndim", 0):  # one number for all rows
            object.__setattr__(self, "cells", (self.cells,))
        check_fields(self)
        name, k = type(self).__name__, math.prod(self.grid)
        if k < 2:
            raise ValueError(f"`grid` of {name} should be (rows, columns) with at least 2 cells. Found {self.grid}.")
        if max(self.cells) >= k:
            raise ValueError(f"`cells` of {name} should be numbers from 1 to {k - 1} (one must stay). Found {self.cells}.")

    @property
    @override
    def name(self) -> str:
        return "occlude"

    @property
    @override
    def quantity(self) -> str:
        return "hidden cell"

    @property
    @override
    def layout(self) -> tuple[int, int]:
        return self.grid

    @property
    @override
    def bins(self) -> int:
        return math.prod(self.grid)

    @property
    def fields(self) -> int:
        """How many masks a row gets: one, or one for each resolution."""
        return 1

    @override
    def centres(self) -> list[int]:
        return list(range(self.bins))

    @override
    def label(self, magnitude: Tensor) -> str:
        """The hidden cells, as (row, column) from 1."""
        cells = F.adaptive_avg_pool2d(magnitude[:1].float(), self.grid)[0] < 0.5  # of the finest mask
        return " ".join(f"({row + 1}, {column + 1})" for row, column in torch.nonzero(cells).tolist())

    @override
    def choose(self, log_probs: Tensor, stream: Stream) -> Tensor:
        """Draws the cells that each row loses, for each of its masks. [n, k] -> [n, s] long, s = fields x most.

        A row that loses fewer cells than others repeats its first cell.
        """
        numbers = constant(self.cells, stream.device, torch.long)
        count = numbers[(stream.uniform(len(log_probs)) * len(self.cells)).long()]  # [n]
        return self._choose(log_probs, count, stream)

    @override
    def chosen(self, bin: int, n: int, device: torch.device | None = None) -> Tensor:
        return torch.full((n, self.fields), bin, device=device)

    @override
    def draw(self, chosen: Tensor, stream: Stream) -> Tensor:
        return self.mask(chosen, stream.uniform(len(chosen), 2))

    @override
    def draw_random(self, n: int, stream: Stream) -> None:
        return None  # only the rows of an occlusion branch lose cells

    @property
    @override
    def in_random_views(self) -> bool:
        return False

    @override
    def draw_reference(self, chosen: Tensor, stream: Stream) -> Tensor:
        """The same number of cells, drawn uniformly.

        A view without hidden cells is nearly always easier, so a comparison with it would not tell hard cells from easy ones.
        """
        first = chosen.unflatten(1, (self.fields, -1))[:, 0]  # [n, most] of the first mask
        count = 1 + (first[:, 1:] != first[:, :1]).sum(1)
        return self.draw(self._choose(torch.zeros(len(chosen), self.bins, device=chosen.device), count, stream), stream)

    @override
    def membership(self, magnitude: Tensor) -> Tensor:
        """How much of each cell is hidden, averaged over a row's masks: [n, k]."""
        return 1 - F.adaptive_avg_pool2d(magnitude.mean(1), self.grid).flatten(1)

    @override
    def at(self, magnitude: Any, n: int, device: torch.device | None = None) -> Tensor:
        """The mask that hides given cells: one cell or several for all rows, or [n, s] for each row."""
        name = type(self).__name__
        try:
            cells = torch.as_tensor(magnitude, device=device)
        except (TypeError, ValueError, RuntimeError):
            raise TypeError(f"The cells of {name} should be numbers. Found {magnitude!r}.") from None
        if cells.is_floating_point() or cells.is_complex() or cells.dtype == torch.bool or not cells.numel():
            raise TypeError(f"The cells of {name} should be integers, at least one. Found {magnitude!r}.")
        if cells.ndim > 2 or (cells.ndim == 2 and len(cells) != n):
            raise ValueError(f"The cells of {name} should be [s], or [n, s] for {n} rows. Found {tuple(cells.shape)}.")
        if cells.min() < 0 or cells.max() >= self.bins:
            raise ValueError(f"The cells of {name} should be numbers from 0 to {self.bins - 1}. Found {magnitude!r}.")
        each = cells.long().reshape(-1, cells.shape[-1] if cells.ndim else 1).expand(n, -1)  # [n, s]
        return self.mask(each.repeat(1, self.fields), torch.full((n, 2), 0.5, device=each.device))

    @override
    def apply(self, image: Tensor, magnitude: Tensor) -> Tensor:
        """Blackens the hidden cells of images. [n, C, H, W], masks [n, fields, ...] -> [n, C, H, W]."""
        return image * self.resized(magnitude, (image.shape[-2], image.shape[-1]), 0).to(image.dtype)

    @override
    def votes(self, points: Tensor, visible: Tensor, size: Size) -> Tensor:
        votes = torch.zeros(self.bins, dtype=torch.float32, device=points.device)
        counts = (visible & inside(points, size)).flatten()
        x, y = points.flatten(0, -2).float().nan_to_num().unbind(-1)
        column = ((x + 0.5) * self.grid[1] / size[1]).long().clamp(0, self.grid[1] - 1)
        row = ((y + 0.5) * self.grid[0] / size[0]).long().clamp(0, self.grid[0] - 1)
        return votes.index_add_(0, row * self.grid[1] + column, counts.float())

    def mask(self, chosen: Tensor, noise: Tensor) -> Tensor:
        """Masks of chosen cells, 1 to keep and 0 to hide. [n, s] long -> [n, fields, rows, columns].

        The variant "down" shifts its cells by `noise` [n, 2].
        """
        cells = chosen.unflatten(1, (self.fields, -1))
        mask = torch.ones(*cells.shape[:2], self.bins, device=chosen.device).scatter_(2, cells, 0.0)
        return mask.unflatten(2, self.grid)

    @override
    def resized(self, mask: Tensor, size: Size, level: int) -> Tensor:
        if size[0] >= mask.shape[-2] and size[1] >= mask.shape[-1]:
            return F.interpolate(mask[:, :1], size=size, mode="nearest")
        return F.adaptive_avg_pool2d(mask[:, :1], size)  # coarser than the grid: each pixel keeps the part that is not hidden

    def _choose(self, log_probs: Tensor, count: Tensor, stream: Stream) -> Tensor:
        """Draws `count` [n] different cells for each mask of a row. [n, k] -> [n, s] long."""
        n, k = log_probs.shape
        most = max(self.cells)
        cells = draw_without_replacement(log_probs[:, None], stream.uniform(n, self.fields, k), most)  # [n, fields, most]
        wanted = torch.arange(most, device=cells.device) < count[:, None, None]
        return torch.where(wanted, cells, cells[..., :1]).flatten(1)


@dataclass(frozen=True)
class OccludeImage(Occlusion):
    """Hides cells of the image, in black."""


Variant = Literal["up", "down", "independent"]


@dataclass(frozen=True)
class OccludeFeatures(Occlusion):
    """Hides cells of the network's features at every resolution: AHO, adversarial hierarchical occluding (section 4.2).

    If there is no layer to mask, it hides the cells in the image, like OccludeImage.

    Attributes:
        variant: "up", the paper's choice, draws one mask at the lowest resolution and scales it up. The paper discusses two
            others: "down" draws one mask at the highest resolution, not bound to the grid, and hides every coarser pixel that
            it touches. "independent" draws other cells at every resolution, so one may show what another hides.
    """

    hides = "features"

    variant: Variant = "up"

    _rules: ClassVar[Rules] = {"variant": one_of("up", "down", "independent")}

    @property
    @override
    def fields(self) -> int:
        return LEVELS if self.variant == "independent" else 1

    @override
    def apply(self, image: Tensor, magnitude: Tensor) -> Tensor:
        return image  # its masks multiply layers of the network

    @override
    def on_image(self) -> Operation:
        return OccludeImage(self.grid, self.cells)

    @override
    def mask(self, chosen: Tensor, noise: Tensor) -> Tensor:
        mask = super().mask(chosen, noise)
        return self._shifted(mask, noise) if self.variant == "down" else mask

    @override
    def resized(self, mask: Tensor, size: Size, level: int) -> Tensor:
        if self.variant == "independent":
            return super().resized(mask[:, level % LEVELS :], size, level)
        if self.variant == "down" and (size[0] < mask.shape[-2] or size[1] < mask.shape[-1]):
            return 1 - F.adaptive_max_pool2d(1 - mask, size)
        return super().resized(mask, size, level)

    def _shifted(self, mask: Tensor, noise: Tensor) -> Tensor:
        """The mask with FINE pixels for each cell, moved by up to half a cell: [n, 1, FINE*rows, FINE*columns]."""
        fine = F.interpolate(mask, scale_factor=FINE, mode="nearest")
        shift = ((noise - 0.5) * FINE).round().long()  # [n, 2] rows, columns
        rows = torch.arange(fine.shape[-2], device=mask.device)[None, :, None] - shift[:, 0, None, None]
        columns = torch.arange(fine.shape[-1], device=mask.device)[None, None, :] - shift[:, 1, None, None]
        known = (rows >= 0) & (rows < fine.shape[-2]) & (columns >= 0) & (columns < fine.shape[-1])
        index = torch.arange(len(fine), device=mask.device)[:, None, None]
        moved = fine[index, 0, rows.clamp(0, fine.shape[-2] - 1), columns.clamp(0, fine.shape[-1] - 1)]
        return torch.where(known, moved, 1.0)[:, None]

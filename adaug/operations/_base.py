"""What an operation is: all that policies, views, generators, pre-training and pictures ask of one."""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor
from typing_extensions import override

from adaug._checks import Rules, check_fields, flag, function, integer, number, optional
from adaug._constants import constant
from adaug._random import Stream
from adaug._warp import Size
from adaug.operations._distributions import draw_without_replacement, truncated_normal


class Operation(ABC):
    """One thing that can be done to a view, with k bins or cells.

    Derive from `Geometric`, `Photometric` or `OccludeImage`, which leave one method, or none, to write. There is nothing
    to register: the rest of the library asks an operation for what stands here and for nothing else.

    What is drawn for an operation, one a row, is called its magnitude: numbers [n] for bins, masks [n, ...] for cells.

    Attributes:
        hides: Whether it hides parts of the "image", of the network's "features", or nothing (None).
        moves: Whether it moves pixels.
        unit_range: Whether it needs images in [0, 1].
    """

    moves: ClassVar[bool] = False
    hides: ClassVar[Literal["image", "features"] | None] = None
    unit_range: ClassVar[bool] = False

    # ---- what it is called

    @property
    def name(self) -> str:
        """Its name, unique in a branch."""
        return type(self).__name__.lower()

    @property
    def quantity(self) -> str:
        """What its magnitude measures, in words."""
        return self.name.replace("_", " ")

    @property
    @abstractmethod
    def layout(self) -> int | tuple[int, int]:
        """How its distribution is laid out: k bins, or (rows, columns) of cells."""

    if TYPE_CHECKING:  # a property here would be taken for the default of `Binned`'s field

        @property
        def bins(self) -> int:
            """The number of bins or cells, k."""

    @abstractmethod
    def centres(self) -> Sequence[float]:
        """The magnitude (or the cell) that stands for each bin, as `at` takes it. [k]."""

    @abstractmethod
    def label(self, magnitude: Tensor) -> str:
        """What the magnitude of one row is called in a picture."""

    def labels(self) -> list[str]:
        """What each bin is called in a picture. [k]."""
        return [self.label(self.at(centre, 1)[0]) for centre in self.centres()]

    # ---- drawing

    @abstractmethod
    def choose(self, log_probs: Tensor, stream: Stream) -> Tensor:
        """Draws the bins or cells of each row by their log-probabilities. [n, k] -> [n, s] long."""

    @abstractmethod
    def chosen(self, bin: int, n: int, device: torch.device | None = None) -> Tensor:
        """What `choose` gives when n rows all draw this bin. -> [n, s] long."""

    @abstractmethod
    def draw(self, chosen: Tensor, stream: Stream) -> Tensor:
        """Draws a magnitude within the chosen bins of each row. [n, s] long -> [n] or [n, ...]."""

    @abstractmethod
    def draw_random(self, n: int, stream: Stream) -> Tensor | None:
        """Magnitudes in random views and in those of other branches. None: it is not done there."""

    @property
    def in_random_views(self) -> bool:
        """Whether random views do it by a magnitude that is drawn."""
        return True

    def draw_reference(self, chosen: Tensor, stream: Stream) -> Tensor | None:
        """Magnitudes of reference views, which adversarial ones with these bins are compared with.

        None: those of `draw_random` serve.
        """
        return None

    @abstractmethod
    def membership(self, magnitude: Tensor) -> Tensor:
        """Which bins or cells the magnitude of each row falls into. [n] or [n, ...] -> [n, k], 1 in them and 0 elsewhere."""

    @abstractmethod
    def at(self, magnitude: Any, n: int, device: torch.device | None = None) -> Tensor:
        """A magnitude (or cells) that a user gives, for n rows. Draws nothing. Raises TypeError or ValueError."""

    # ---- effect

    def matrix(self, magnitude: Tensor, size: Size) -> Tensor | None:
        """How it moves pixels about the centre of a view of `size` (h, w): [n] -> [n, 3, 3]. None: not at all."""
        return None

    def apply(self, image: Tensor, magnitude: Tensor) -> Tensor:
        """How it changes pixel values. [n, C, H, W], [n] -> [n, C, H, W]."""
        return image

    def resized(self, mask: Tensor, size: Size, level: int) -> Tensor:
        """What its magnitude hides of a layer of `size`, the `level`-th from the finest. [n, ...] -> [n, 1, *size].

        Asked of operations that hide alone. 1 is kept, 0 is hidden.
        """
        raise NotImplementedError(f"{type(self).__name__} should define resized(mask, size, level) -> [n, 1, *size].")

    def on_image(self) -> Operation:
        """The operation that acts on the image alone, for networks whose features take no masks."""
        return self

    def votes(self, points: Tensor, visible: Tensor, size: Size) -> Tensor | None:
        """How many visible points [n, ..., 2] fall into each of its cells, [k]; None: points say nothing of its bins."""
        return None


@dataclass(frozen=True)
class Binned(Operation):
    """An operation of one magnitude a row. Each bin is a small Gaussian bounded by truncation; the bins tile the range.

    Attributes:
        low: The lower end of the range.
        high: The upper end of the range.
        bins: The number of bins, k.
        spread: The standard deviation within a bin, in half bin widths (the bound is one half).
        log: Whether bins have equal ratio instead of equal width.
        random: The random distribution, as an inverse distribution function [n] -> [n]. An adversarial magnitude is
            compared with a draw from it. By default it is uniform over the range.
        rest: The magnitude in random views and in those of other branches. By default they draw from the random
            distribution, as in the paper.
    """

    low: float
    high: float
    bins: int
    _: KW_ONLY
    spread: float = 1.0
    log: bool = False
    random: Callable[[Tensor], Tensor] | None = None
    rest: float | None = None

    _rules: ClassVar[Rules] = {
        "low": number(),
        "high": number(),
        "bins": integer(at_least=2),
        "spread": number(above=0),
        "log": flag(),
        "random": optional(function("an inverse distribution function")),
        "rest": optional(number(should="finite"), "to draw at random"),
    }

    def __post_init__(self) -> None:
        check_fields(self)
        name = type(self).__name__
        if not self.low < self.high:
            raise ValueError(f"The range of {name} should have low < high. Found low={self.low}, high={self.high}.")
        if self.log and self.low <= 0:
            raise ValueError(f"With log=True the range of {name} should be positive. Found low={self.low}.")

    @property
    @override
    def layout(self) -> int:
        return self.bins

    def edges(self) -> list[float]:
        """The k + 1 edges between bins."""
        steps = [i / self.bins for i in range(self.bins + 1)]
        if self.log:
            return [self.low * (self.high / self.low) ** step for step in steps]
        return [self.low + (self.high - self.low) * step for step in steps]

    @override
    def centres(self) -> list[float]:
        edges = self.edges()
        return [math.sqrt(a * b) if self.log else (a + b) / 2 for a, b in itertools.pairwise(edges)]

    @override
    def label(self, magnitude: Tensor) -> str:
        return f"{float(magnitude):.2f}"

    @override
    def choose(self, log_probs: Tensor, stream: Stream) -> Tensor:
        return draw_without_replacement(log_probs, stream.uniform(*log_probs.shape), 1)

    @override
    def chosen(self, bin: int, n: int, device: torch.device | None = None) -> Tensor:
        return torch.full((n, 1), bin, device=device)

    @override
    def draw(self, chosen: Tensor, stream: Stream) -> Tensor:
        noise = stream.uniform(len(chosen))
        return self._place((chosen[:, 0] + 0.5 + 0.5 * truncated_normal(noise, 1 / self.spread) * self.spread) / self.bins)

    @override
    def draw_random(self, n: int, stream: Stream) -> Tensor:
        noise = stream.uniform(n)
        return self._random(noise) if self.rest is None else torch.full_like(noise, self.rest)

    @property
    @override
    def in_random_views(self) -> bool:
        return self.rest is None

    @override
    def draw_reference(self, chosen: Tensor, stream: Stream) -> Tensor | None:
        return None if self.rest is None else self._random(stream.uniform(len(chosen)))

    @override
    def membership(self, magnitude: Tensor) -> Tensor:
        edges = self.edges()
        slack = 1e-4 * (edges[1] - edges[0]), 1e-4 * (edges[-1] - edges[-2])  # what is drawn at the ends belongs to them
        edges[0], edges[-1] = edges[0] - slack[0], edges[-1] + slack[1]
        found = torch.bucketize(magnitude, constant(tuple(edges), magnitude))  # 0 and k + 1 lie outside
        return found[:, None] == constant(tuple(range(1, self.bins + 1)), magnitude.device, torch.long)

    @override
    def at(self, magnitude: Any, n: int, device: torch.device | None = None) -> Tensor:
        name = type(self).__name__
        try:
            given = torch.as_tensor(magnitude, dtype=torch.float32, device=device)
        except (TypeError, ValueError, RuntimeError):
            raise TypeError(f"A magnitude of {name} should be a number, or one for each row. Found {magnitude!r}.") from None
        if given.ndim > 1 or (given.ndim == 1 and len(given) != n):
            raise ValueError(f"{name} should get one magnitude, or one for each of {n} rows. Found {tuple(given.shape)}.")
        wrong = [value for value in given.flatten().tolist() if not self._possible(value)]
        if wrong:
            raise ValueError(f"A magnitude of {name} should be a finite number that the operation allows. Found {wrong[0]}.")
        return given.expand(n)

    def _possible(self, magnitude: float) -> bool:
        """Whether it can be done by this much."""
        return math.isfinite(magnitude)

    def _random(self, noise: Tensor) -> Tensor:
        """A draw from the random distribution. Uniform noise [n] -> [n]."""
        return self._place(noise) if self.random is None else self.random(noise)

    def _place(self, position: Tensor) -> Tensor:
        """The magnitude at a position in [0, 1] of the range."""
        if self.log:
            return self.low * (self.high / self.low) ** position
        return self.low + (self.high - self.low) * position

"""The base classes of operations: everything that the rest of the library asks of an operation."""

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

from adaug._runtime.checks import Rules, check_fields, flag, function, integer, number, optional
from adaug._runtime.constants import constant
from adaug._runtime.geometry import Size
from adaug._runtime.random import Stream
from adaug.operations.distributions import draw_without_replacement, truncated_normal

__all__ = ["Binned", "Operation"]


class Operation(ABC):
    """One thing that can be done to a view, with k bins or cells.

    To write one, derive from `Geometric`, `Photometric` or `OccludeImage`; then at most one method is left to write. You need
    not register it: the library uses only the methods of this class.

    A magnitude is what is drawn for a row: numbers [n] if there are bins, masks [n, ...] if there are cells.

    Attributes:
        hides: Whether it hides parts of the "image", of the network's "features", or nothing (None).
        moves: Whether it moves pixels.
        unit_range: Whether it needs images in [0, 1].
        of_colours: Whether it changes colours, so that alpha stays: "all" colours alike, or "named" ones, such as red.
    """

    moves: ClassVar[bool] = False
    hides: ClassVar[Literal["image", "features"] | None] = None
    unit_range: ClassVar[bool] = False
    of_colours: ClassVar[Literal["all", "named"] | None] = None

    # ---- what it is called

    @property
    def name(self) -> str:
        """The name of the operation, unique in a branch."""
        return type(self).__name__.lower()

    @property
    def quantity(self) -> str:
        """What its magnitude measures, in words."""
        return self.name.replace("_", " ")

    @property
    @abstractmethod
    def layout(self) -> int | tuple[int, int]:
        """The number of bins k, or (rows, columns) of the cells."""

    if TYPE_CHECKING:  # a property here would be taken for the default of `Binned`'s field

        @property
        def bins(self) -> int:
            """The number of bins or cells, k."""

    @abstractmethod
    def centres(self) -> Sequence[float]:
        """The magnitude in the middle of each bin (or the number of each cell), [k]. `at` accepts it."""

    @abstractmethod
    def label(self, magnitude: Tensor) -> str:
        """The text for the magnitude of one row in a picture."""

    def labels(self) -> list[str]:
        """The text for each bin in a picture, [k]."""
        return [self.label(self.at(centre, 1)[0]) for centre in self.centres()]

    # ---- drawing

    @abstractmethod
    def choose(self, log_probs: Tensor, stream: Stream) -> Tensor:
        """Draws the bins or cells of each row by their log-probabilities. [n, k] -> [n, s] long."""

    @abstractmethod
    def chosen(self, bin: int, n: int, device: torch.device | None = None) -> Tensor:
        """What `choose` would return if all n rows drew this bin: [n, s] long."""

    @abstractmethod
    def draw(self, chosen: Tensor, stream: Stream) -> Tensor:
        """Draws a magnitude within the chosen bins of each row. [n, s] long -> [n] or [n, ...]."""

    @abstractmethod
    def draw_random(self, n: int, stream: Stream) -> Tensor | None:
        """Magnitudes for random views and for the views of other branches. None: they do without the operation."""

    @property
    def in_random_views(self) -> bool:
        """Whether random views draw a magnitude for it."""
        return True

    def draw_reference(self, chosen: Tensor, stream: Stream) -> Tensor | None:
        """Magnitudes for the reference views that adversarial views with these bins are compared with.

        None means: take those of `draw_random`.
        """
        return None

    @abstractmethod
    def membership(self, magnitude: Tensor) -> Tensor:
        """Which bins or cells each magnitude falls into. [n] or [n, ...] -> [n, k], 1 if it does and 0 if not."""

    @abstractmethod
    def at(self, magnitude: Any, n: int, device: torch.device | None = None) -> Tensor:
        """Turns a magnitude (or cells) that a user gives into one for n rows. Raises TypeError or ValueError."""

    # ---- effect

    def matrix(self, magnitude: Tensor, size: Size) -> Tensor | None:
        """The matrix that moves pixels about the centre of a view of `size` (h, w): [n] -> [n, 3, 3]. None: nothing moves."""
        return None

    def apply(self, image: Tensor, magnitude: Tensor) -> Tensor:
        """Changes pixel values. [n, C, H, W], [n] -> [n, C, H, W]."""
        return image

    def resized(self, mask: Tensor, size: Size, level: int) -> Tensor:
        """Resizes a mask to a layer of `size` (h, w), the `level`-th from the finest: [n, ...] -> [n, 1, *size].

        1 keeps, 0 hides. Only operations that hide something need this method.
        """
        raise NotImplementedError(f"{type(self).__name__} should define resized(mask, size, level) -> [n, 1, *size].")

    def on_image(self) -> Operation:
        """The same operation on the image instead of features, for models without layers to mask."""
        return self

    def votes(self, points: Tensor, visible: Tensor, size: Size) -> Tensor | None:
        """How many visible points [n, ..., 2] fall into each cell, [k]. None: the operation has bins, not cells."""
        return None


@dataclass(frozen=True)
class Binned(Operation):
    """An operation with bins, which draws one number for each row.

    A bin is a small part of the range. Within it, magnitudes follow a Gaussian that is truncated at the bin's edges.

    Attributes:
        low: The lower end of the range.
        high: The upper end of the range.
        bins: The number of bins, k.
        spread: The standard deviation of the Gaussian in a bin; 1 is half the width of the bin.
        log: Whether all bins span the same ratio (such as 1.2 to 1) instead of the same width.
        random: The random distribution, for random and reference views, as an inverse distribution function: uniform numbers
            [n] in (0, 1) -> magnitudes [n]. By default it is uniform over the range.
        rest: A fixed magnitude for random views and for the views of other branches. By default they draw from `random`, as in
            the paper.
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
        beside = truncated_normal(stream.uniform(len(chosen)), 1 / self.spread)  # the middle of the bin
        return self._place((torch.add(chosen[:, 0], beside, alpha=0.5 * self.spread) + 0.5) / self.bins)

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
        """Whether the operation allows this magnitude."""
        return math.isfinite(magnitude)

    def _random(self, noise: Tensor) -> Tensor:
        """A draw from the random distribution. Uniform noise [n] -> [n]."""
        return self._place(noise) if self.random is None else self.random(noise)

    def _place(self, position: Tensor) -> Tensor:
        """The magnitude at a position of the range, from 0 (low) to 1 (high)."""
        if self.log:
            return self.low * (self.high / self.low) ** position
        return self.low + (self.high - self.low) * position

"""What an audit's statistics and pictures are made of: plain records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from adaug.audits._plan import Axis
from adaug.audits._statistics import Array, Estimate

Worse = Literal["lower", "higher"]


@dataclass(frozen=True)
class FamilyTable:
    """The views of one kind in an audit.

    Attributes:
        name: E.g. "rotate", "scale × rotate", "draws".
        views: The name of each view.
        start: Where they begin in the table.
        axes: What changes from view to view: one operation, two, or nothing with an order.
        details: What each view does, where its name does not tell.
    """

    name: str
    views: tuple[str, ...]
    start: int
    axes: tuple[Axis, ...] = ()
    details: tuple[str, ...] = ()

    @property
    def columns(self) -> range:
        """Where its views stand in the table."""
        return range(self.start, self.start + len(self.views))


@dataclass(frozen=True)
class Curve:
    """The mean score at each bin of an operation alone.

    Attributes:
        axis: The operation.
        mean: [k], a mean over images with its interval.
        counted: [k], the share of images (or of their parts) that count there.
    """

    axis: Axis
    mean: tuple[Estimate, ...]
    counted: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Grid:
    """The mean score at each pair of bins of two operations together.

    Attributes:
        axes: The two operations: down, and across.
        mean: [k1, k2], means over images.
        counted: [k1, k2], the share of images (or of their parts) that count there.
    """

    axes: tuple[Axis, Axis]
    mean: Array
    counted: Array


@dataclass(frozen=True)
class Case:
    """An image and the view that is worst for it.

    Attributes:
        image: Its number in the loader's order.
        view: The name of the view.
        score: The score there.
        as_it_is: The score of the image as it is.
    """

    image: int
    view: str
    score: float
    as_it_is: float


@dataclass(frozen=True, eq=False)
class Picture:
    """What the network saw in a case, with labels and predictions.

    Attributes:
        image: Its number in the loader's order.
        view: The number of the view, a column of the table.
        pixels: [H, W, 3] uint8.
        labels: "keypoints" [K, 2], "visible" [K], "mask" [h, w], "label" [] or whatever of these the batch holds.
        predictions: The same names, as far as the network's output tells.
    """

    image: int
    view: int
    pixels: np.ndarray[Any, Any]
    labels: Mapping[str, np.ndarray[Any, Any]]
    predictions: Mapping[str, np.ndarray[Any, Any]]

"""Plain records: the curves, grids, cases and pictures of an audit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from adaug.audits.plan import Axis
from adaug.audits.statistics import Array, Estimate

__all__ = ["Case", "Curve", "FamilyTable", "Grid", "Picture"]


@dataclass(frozen=True)
class FamilyTable:
    """The views of one kind in an audit.

    Attributes:
        name: Such as "rotate", "scale × rotate" or "draws".
        views: The name of each view.
        start: The column of its first view in the table.
        axes: The operations that change from view to view: one for a curve, two for a grid, none for views without an order.
        details: What each view does, if its name does not tell.
    """

    name: str
    views: tuple[str, ...]
    start: int
    axes: tuple[Axis, ...] = ()
    details: tuple[str, ...] = ()

    @property
    def columns(self) -> range:
        """The columns of its views in the table."""
        return range(self.start, self.start + len(self.views))


@dataclass(frozen=True)
class Curve:
    """The mean score at each bin of an operation alone.

    Attributes:
        axis: The operation.
        mean: [k], means over images with their intervals.
        counted: [k], the fraction of images (or parts) that count at each bin.
    """

    axis: Axis
    mean: tuple[Estimate, ...]
    counted: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Grid:
    """The mean score at each pair of bins of two operations together.

    Attributes:
        axes: The two operations, down and across.
        mean: [k1, k2], means over images.
        counted: [k1, k2], the fraction of images (or parts) that count at each pair.
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
        score: The score under this view.
        as_it_is: The score of the image as it is.
    """

    image: int
    view: str
    score: float
    as_it_is: float


@dataclass(frozen=True, eq=False)
class Picture:
    """An image as the network saw it under a view, with labels and predictions.

    Attributes:
        image: Its number in the loader's order.
        view: The number of the view, a column of the table.
        pixels: [H, W, 3] uint8.
        labels: Those of "keypoints" [K, 2], "visible" [K], "mask" [h, w] and "label" [] that the batch has.
        predictions: The same, as far as the shape of the network's output tells.
    """

    image: int
    view: int
    pixels: np.ndarray[Any, Any]
    labels: Mapping[str, np.ndarray[Any, Any]]
    predictions: Mapping[str, np.ndarray[Any, Any]]

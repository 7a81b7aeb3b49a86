"""What the curves and maps of a report show: the means of one audit, or of an earlier and a later one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from adaug.audits.plan import DRAWS
from adaug.audits.records import FamilyTable
from adaug.audits.statistics import WHOLE, Array, Estimate, nanmean
from adaug.audits.table import Table

FEW = 0.5  # a number of a map is marked if less than this fraction counts


@dataclass(frozen=True)
class Curves:
    """The means of a family, bin by bin.

    Attributes:
        labels: The text for each bin, [k].
        means: The means of each audit, [audits][k].
        counted: The fraction that counts at each bin in the last audit, [k].
    """

    labels: tuple[str, ...]
    means: tuple[tuple[Estimate, ...], ...]
    counted: tuple[float, ...]

    @property
    def partly(self) -> bool:
        """Whether not all counts at some bin."""
        return min(self.counted) < WHOLE


@dataclass(frozen=True, eq=False)
class Map:
    """The means of a family over cells, or over pairs of bins.

    Attributes:
        title: "mean score", "before", "after" or "difference".
        down: The labels of its rows, [r].
        across: The labels of its columns, [c].
        values: [r, c].
        counted: The fraction that counts, [r, c].
        differs: Whether the values are differences.
    """

    title: str
    down: tuple[str, ...]
    across: tuple[str, ...]
    values: Array
    counted: Array
    differs: bool = False

    @property
    def few(self) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
        """Which values rest on few images or parts, [r, c]."""
        return (self.counted < FEW) & np.isfinite(self.values)


def is_cells(family: FamilyTable) -> bool:
    """Whether the bins of a family are the cells of a grid over the image."""
    return len(family.axes) == 1 and isinstance(family.axes[0].layout, tuple)


def is_map(family: FamilyTable) -> bool:
    """Whether a family becomes a map: cells, or pairs of bins. Bins, joint draws and single views become curves."""
    return len(family.axes) == 2 or is_cells(family)


def curves_of(audits: Sequence[Table], family: FamilyTable) -> Curves:
    """The curve of a family. Joint draws have no order, so they go from the worst mean to the best, NaN last."""
    means = [audit.by_view(family.name) for audit in audits]
    if family.name == DRAWS:
        sign = audits[0].sign
        means = [tuple(sorted(one, key=lambda mean: sign * mean if math.isfinite(mean) else math.inf)) for one in means]
    if not family.axes:
        return Curves(tuple(str(i + 1) for i in range(len(family.views))), tuple(means), (1.0,) * len(family.views))
    return Curves(family.axes[0].labels, tuple(means), tuple(map(float, audits[-1].counted(family.name))))


def maps_of(audits: Sequence[Table], family: FamilyTable) -> list[Map]:
    """The map of a family. Of two audits: before, after and the difference."""
    down, across = _sides(family)
    shape = (len(down), len(across))
    values = [nanmean(audit.table(family.name), axis=0).reshape(shape) for audit in audits]
    counted = [audit.counted(family.name).reshape(shape) for audit in audits]
    if len(audits) == 1:
        return [Map("mean score", down, across, values[0], counted[0])]
    maps = [Map(title, down, across, v, c) for title, v, c in zip(("before", "after"), values, counted, strict=True)]
    return [*maps, Map("difference", down, across, values[1] - values[0], np.minimum(*counted), differs=True)]


def _sides(family: FamilyTable) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The labels of rows and columns."""
    layout = family.axes[0].layout
    if isinstance(layout, tuple) and len(family.axes) == 1:
        return tuple(str(i + 1) for i in range(layout[0])), tuple(str(i + 1) for i in range(layout[1]))
    return family.axes[0].labels, family.axes[1].labels

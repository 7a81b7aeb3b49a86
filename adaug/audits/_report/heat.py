"""Heat maps as HTML tables: the colour of a cell says how weak its number is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from adaug.audits._report.numbers import Numbers, minus, share
from adaug.audits.plan import Axis
from adaug.audits.statistics import WHOLE, Array
from adaug.audits.table import Table

STEPS = 8  # colours from the best to the weakest: CSS classes h0 to h8
TURNS = 4  # colours from no difference to the largest: CSS classes worse1 to worse4 and better1 to better4
FEW = 0.5  # a cell is marked if less than this fraction counts


@dataclass(frozen=True)
class Cell:
    """A number, the CSS class that colours it, the text that a resting pointer shows, and whether it is marked."""

    text: str
    colour: str
    says: str
    few: bool


@dataclass(frozen=True)
class Heat:
    """One table.

    Attributes:
        caption: The caption of the table.
        across: The labels of its columns.
        rows: The rows, as pairs (label, cells).
        few: Whether some cells are marked.
    """

    caption: str
    across: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]
    few: bool


@dataclass(frozen=True)
class Scale:
    """The range from the best to the weakest number of a page, so that a colour means the same in all maps."""

    best: float
    weakest: float

    @staticmethod
    def of(*audits: Table) -> Scale:
        """The scale for all views of all audits."""
        values = np.array([float(mean) for audit in audits for mean in audit.by_view()])
        finite = values[np.isfinite(values)]
        low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 0.0)
        return Scale(high, low) if audits[0].higher_is_better else Scale(low, high)

    def colour(self, value: float) -> str:
        """The CSS class of a number."""
        if not np.isfinite(value):
            return "none"
        span = self.best - self.weakest
        weak = (self.best - value) / span if span else 0.0
        return f"h{round(STEPS * min(max(weak, 0.0), 1.0))}"


def means(caption: str, values: Array, counted: Array, labels: Sequence[Sequence[str]], scale: Scale, numbers: Numbers) -> Heat:
    """A table of means [r, c], and of the fraction that counts in each. `labels` are those of rows and columns."""
    return _heat(caption, values, counted, labels, [scale.colour(value) for value in values.flat], numbers, sign=False)


def differences(
    caption: str, values: Array, counted: Array, labels: Sequence[Sequence[str]], higher_is_better: bool, numbers: Numbers
) -> Heat:
    """A table of differences, after - before, [r, c]. Blue is better and orange is worse, whatever the sign."""
    sign = 1.0 if higher_is_better else -1.0
    largest = float(np.max(np.abs(values[np.isfinite(values)]), initial=0.0))
    colours = []
    for value in values.flat:
        turn = round(TURNS * sign * value / largest) if largest and np.isfinite(value) else 0
        colours.append(
            "none" if not np.isfinite(value) else f"better{turn}" if turn > 0 else f"worse{-turn}" if turn else "same"
        )
    return _heat(caption, values, counted, labels, colours, numbers, sign=True)


def labels_of(axes: Sequence[Axis]) -> tuple[Sequence[str], Sequence[str]]:
    """The labels of rows and columns, from two axes or from the rows and columns of cells."""
    if len(axes) == 1:
        rows, columns = layout_of(axes[0])
        return [str(i + 1) for i in range(rows)], [str(i + 1) for i in range(columns)]
    return axes[0].labels, axes[1].labels


def layout_of(axis: Axis) -> tuple[int, int]:
    """(rows, columns) of cells. Bins are one row."""
    return axis.layout if isinstance(axis.layout, tuple) else (1, axis.layout)


def _heat(
    caption: str,
    values: Array,
    counted: Array,
    labels: Sequence[Sequence[str]],
    colours: list[str],
    numbers: Numbers,
    *,
    sign: bool,
) -> Heat:
    down, across = (list(map(minus, side)) for side in labels)
    texts = numbers.short([float(value) for value in values.flat], sign=sign)
    full = [numbers.difference(float(v)) if sign else numbers.value(float(v)) for v in values.flat]
    rows = []
    for i, label in enumerate(down):
        cells = []
        for j, name in enumerate(across):
            at = i * len(across) + j
            says = f"{label}, {name}: {full[at]}"
            if counted[i, j] < WHOLE:
                says += f"; {share(float(counted[i, j]))} counts"
            cells.append(Cell(texts[at], colours[at], says, bool(counted[i, j] < FEW and np.isfinite(values[i, j]))))
        rows.append((label, tuple(cells)))
    return Heat(caption, tuple(across), tuple(rows), any(cell.few for _, cells in rows for cell in cells))

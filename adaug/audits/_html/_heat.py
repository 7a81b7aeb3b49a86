"""Heat maps as tables: numbers in cells whose colour says how weak they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from adaug.audits._html._numbers import Numbers, minus, share
from adaug.audits._plan import Axis
from adaug.audits._statistics import Array
from adaug.audits._table import Audit

STEPS = 8  # of colour from the best to the weakest: classes h0 to h8
TURNS = 4  # from no difference to the largest: classes worse1 to worse4 and better1 to better4
FEW = 0.5  # a cell where less than this share counts is marked


@dataclass(frozen=True)
class Cell:
    """A number, the class that colours it, and what a pointer that rests on it shows."""

    text: str
    colour: str
    says: str
    few: bool


@dataclass(frozen=True)
class Heat:
    """One table.

    Attributes:
        caption: What it shows.
        across: The labels of its columns.
        rows: (label, cells) of each row.
        few: Whether some cells are marked.
    """

    caption: str
    across: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]
    few: bool


@dataclass(frozen=True)
class Scale:
    """From the best to the weakest number of a page, so that one colour means one thing on all of it."""

    best: float
    weakest: float

    @staticmethod
    def of(*audits: Audit) -> Scale:
        """Over every view of every audit."""
        values = np.array([float(mean) for audit in audits for mean in audit.by_view()])
        finite = values[np.isfinite(values)]
        low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 0.0)
        return Scale(high, low) if audits[0].worse == "lower" else Scale(low, high)

    def colour(self, value: float) -> str:
        """The class of a number."""
        if not np.isfinite(value):
            return "none"
        span = self.best - self.weakest
        weak = (self.best - value) / span if span else 0.0
        return f"h{round(STEPS * min(max(weak, 0.0), 1.0))}"


def means(caption: str, values: Array, counted: Array, labels: Sequence[Sequence[str]], scale: Scale, numbers: Numbers) -> Heat:
    """Means [r, c] and the share that counts in each; `labels` down and across."""
    return _heat(caption, values, counted, labels, [scale.colour(value) for value in values.flat], numbers, sign=False)


def differences(
    caption: str, values: Array, counted: Array, labels: Sequence[Sequence[str]], worse: str, numbers: Numbers
) -> Heat:
    """After less before, [r, c]: blue is better and orange worse, whichever sign that has."""
    sign = 1.0 if worse == "lower" else -1.0
    largest = float(np.max(np.abs(values[np.isfinite(values)]), initial=0.0))
    colours = []
    for value in values.flat:
        turn = round(TURNS * sign * value / largest) if largest and np.isfinite(value) else 0
        colours.append(
            "none" if not np.isfinite(value) else f"better{turn}" if turn > 0 else f"worse{-turn}" if turn else "same"
        )
    return _heat(caption, values, counted, labels, colours, numbers, sign=True)


def labels_of(axes: Sequence[Axis]) -> tuple[Sequence[str], Sequence[str]]:
    """Down and across, of two axes or of the rows and columns of cells."""
    if len(axes) == 1:
        rows, columns = layout_of(axes[0])
        return [str(i + 1) for i in range(rows)], [str(i + 1) for i in range(columns)]
    return axes[0].labels, axes[1].labels


def layout_of(axis: Axis) -> tuple[int, int]:
    """(rows, columns) of cells; bins lie in one row."""
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
            if counted[i, j] < 0.995:
                says += f"; {share(float(counted[i, j]))} counts"
            cells.append(Cell(texts[at], colours[at], says, bool(counted[i, j] < FEW and np.isfinite(values[i, j]))))
        rows.append((label, tuple(cells)))
    return Heat(caption, tuple(across), tuple(rows), any(cell.few for _, cells in rows for cell in cells))

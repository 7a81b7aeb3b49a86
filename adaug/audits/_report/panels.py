"""The panels of the page and of the figure, drawn with matplotlib: curves with their intervals, and heat maps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import SubplotSpec
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from adaug.audits._report.numbers import Numbers, cut, minus
from adaug.audits._report.series import Curves, Map, curves_of, is_map
from adaug.audits.plan import AS_IT_IS
from adaug.audits.statistics import Estimate, nanmean
from adaug.audits.table import Table

# "now" and "before" are of Okabe and Ito's palette, which colour-blind readers can tell apart; their marks differ too.
# h0 to h8 go from the best to the weakest, b1 to b4 from a small gain to the largest. The page's style knows these names.
COLOURS = {
    "paper": "#fcfcfb", "ink": "#20242a", "soft": "#5c6570", "line": "#e2e4e7", "empty": "#eceef0",
    "now": "#0072b2", "before": "#d55e00",
    "h0": "#fff5eb", "h1": "#fee6ce", "h2": "#fdd0a2", "h3": "#fdae6b", "h4": "#fd8d3c", "h5": "#f5761f", "h6": "#e4600e",
    "h7": "#a63603", "h8": "#7f2704", "b1": "#dcebf7", "b2": "#a6cee8", "b3": "#5ba3d9", "b4": "#08519c",
}  # fmt: skip
WEAKNESS = [f"h{i}" for i in range(9)]
LOSSES, GAINS = ("empty", "h1", "h3", "h5", "h7"), ("empty", "b1", "b2", "b3", "b4")
DEEP = {"h7", "h8", "b4"}  # colours on which text is pale
DASHES = (0, (4, 3))
STRIP = 0.1  # of a panel's height: columns that show what counts
SMALL, SMALLEST = 7, 4  # points: the numbers and labels; where numbers would be smaller, colours have to do
STYLE: list[Any] = ["default", {"svg.fonttype": "none", "text.parse_math": False}]  # whatever a user's own style is


class Panels:
    """Draws the panels of one audit, or of an earlier and a later one. All curves have one scale, and all maps another."""

    def __init__(self, audits: Sequence[Table]) -> None:
        self.audits = audits
        self.numbers = Numbers(*audits)
        means = [float(mean) for audit in audits for mean in nanmean(audit.table(), axis=0) if math.isfinite(mean)] or [0.0]
        self.best, self.weakest = sorted((min(means), max(means)), reverse=audits[0].higher_is_better)
        self.low, self.high = self._limits()

    def _limits(self) -> tuple[float, float]:
        """The range that holds all curves with their intervals, and below them room for what counts."""
        curves = [curves_of(self.audits, family) for family in self.audits[0].families if not is_map(family)]
        means = [mean for one in curves for row in one.means for mean in row]
        finite = [end for mean in means for end in (float(mean), mean.low, mean.high) if math.isfinite(end)] or [0.0, 1.0]
        low, high = min(finite), max(finite)
        room = 0.06 * (high - low) or max(abs(high), 1e-6) * 0.1
        low, high = low - room, high + room
        if self.numbers.shares:
            low, high = max(low, -0.04), min(high, 1.04)
        return low - (1.3 * STRIP * (high - low) if any(one.partly for one in curves) else 0), high

    # ---- curves

    def curve(self, figure: Figure, spec: SubplotSpec, curves: Curves) -> Axes:
        """Draws means with their intervals, the score as it is, and what counts, if that is not all."""
        axis = figure.add_subplot(spec)
        places = list(range(len(curves.labels)))
        if curves.partly:
            heights: dict[str, Any] = {"transform": axis.get_xaxis_transform()}  # in parts of the panel's height
            axis.bar(places, STRIP, 0.6, color=COLOURS["empty"], **heights)
            axis.bar(places, [STRIP * count for count in curves.counted], 0.6, color=COLOURS["soft"], alpha=0.6, **heights)
        colours, marks = (("now",), "o") if len(self.audits) == 1 else (("before", "now"), "so")
        for audit, means, colour, mark in zip(self.audits, curves.means, colours, marks, strict=True):
            self._series(axis, means, float(audit.mean(AS_IT_IS)), COLOURS[colour], mark)
        kept = _that_fit(curves.labels)
        axis.set_xticks([places[i] for i in kept], [cut(curves.labels[i], 10) for i in kept])
        axis.set_xlim(-0.5, len(places) - 0.5)
        axis.set_ylim(self.low, self.high)
        axis.set_yticks(*self._levels())
        axis.grid(axis="y", color=COLOURS["line"], linewidth=0.6)
        _plain(axis)
        return axis

    def _series(self, axis: Axes, means: Sequence[Estimate], plain: float, colour: str, mark: str) -> None:
        values, low, high = (np.array([f(mean) for mean in means]) for f in (float, lambda m: m.low, lambda m: m.high))
        places = np.arange(len(means))
        if math.isfinite(plain):
            axis.axhline(plain, color=colour, linewidth=0.9, linestyle=DASHES)
        axis.fill_between(places, low, high, color=colour, alpha=0.16, linewidth=0)
        known = np.isfinite(low)
        alone = known & ~np.r_[False, known[:-1]] & ~np.r_[known[1:], False]  # a band needs two neighbours
        if alone.any():
            axis.vlines(places[alone], low[alone], high[alone], color=colour, alpha=0.5)
        size = 3.2 if len(means) <= 30 else 1.5
        axis.plot(places, values, color=colour, linewidth=1.4, marker=mark, markersize=size, markeredgewidth=0)

    def _levels(self) -> tuple[list[float], list[str]]:
        """Some round scores and their texts."""
        levels = [level for level in MaxNLocator(4).tick_values(self.low, self.high) if self.low <= level <= self.high]
        levels = [level for level in levels if level > -1e-9] if self.numbers.shares else levels
        scaled, unit = ([100 * level for level in levels], "%") if self.numbers.shares else (levels, "")
        texts = self.numbers.short(levels)
        if len(set(texts)) < len(texts):  # so close that few decimals make them equal
            texts = [minus(f"{level:.4g}") for level in scaled]
        return levels, [f"{text}{unit}" for text in texts]

    # ---- maps

    def map(self, figure: Figure, spec: SubplotSpec, one: Map) -> Axes:
        """Draws a heat map with its numbers. Darker is weaker. In differences, blue is better and orange is worse."""
        axis = figure.add_subplot(spec)
        rows, columns = one.values.shape
        texts = self.numbers.short([float(value) for value in one.values.flat], sign=one.differs)
        room = 72 * figure.get_figwidth() / spec.get_gridspec().ncols / (columns + 1)  # points for a number
        size = min(SMALL, 1.4 * room / max(map(len, texts)))
        for i, (text, colour, few) in enumerate(zip(texts, self._colours(one), one.few.flat, strict=True)):
            y, x = divmod(i, columns)
            ink = COLOURS["paper" if colour in DEEP else "ink"]
            frame: dict[str, Any] = {"edgecolor": ink, "linestyle": ":", "linewidth": 0.9} if few else {"linewidth": 0}
            axis.add_patch(Rectangle((x - 0.46, y - 0.46), 0.92, 0.92, facecolor=COLOURS[colour], **frame))
            if size >= SMALLEST:
                axis.text(x, y, text, ha="center", va="center", fontsize=size, color=ink)
        turned = max(map(len, one.across)) * columns > 30
        across = [cut(label, 12) for label in one.across]
        axis.set_xticks(range(columns), across, rotation=45 if turned else 0, ha="right" if turned else "center")
        axis.set_yticks(range(rows), [cut(label, 12) for label in one.down])
        axis.set_xlim(-0.5, columns - 0.5)
        axis.set_ylim(rows - 0.5, -0.5)
        _plain(axis)
        return axis

    def _colours(self, one: Map) -> list[str]:
        """The name of the colour of each value."""
        finite = one.values[np.isfinite(one.values)]
        largest = float(np.max(np.abs(finite), initial=0.0)) if one.differs else self.best - self.weakest
        names = []
        for value in map(float, one.values.flat):
            if not math.isfinite(value):
                names.append("empty")
            elif one.differs:
                step = round(4 * self.audits[0].sign * value / largest) if largest else 0
                names.append(GAINS[step] if step > 0 else LOSSES[-step])
            else:
                weak = (self.best - value) / largest if largest else 0.0
                names.append(WEAKNESS[round(8 * min(max(weak, 0.0), 1.0))])
        return names


def _plain(axis: Axes) -> None:
    """Takes away frame and ticks, and what would hide the colour of the page."""
    axis.tick_params(labelsize=SMALL, labelcolor=COLOURS["soft"], length=0)
    axis.spines[:].set_visible(False)
    axis.patch.set_visible(False)
    axis.set_axisbelow(True)


def _that_fit(labels: Sequence[str]) -> list[int]:
    """The labels that fit below a curve, evenly spaced, with the last one if possible."""
    last = len(labels) - 1
    most = max(2, 40 // (min(max(map(len, labels)), 10) + 2))
    step = max(1, math.ceil(last / (most - 1)))
    step = next((wider for wider in range(step, 2 * step) if last % wider == 0), step)
    return list(range(0, last + 1, step))

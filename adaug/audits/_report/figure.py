"""An audit as a matplotlib figure: a panel for each operation, each pair and the joint draws."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from adaug.audits._report.heat import labels_of, layout_of
from adaug.audits._report.numbers import Numbers, minus
from adaug.audits.comparison import Comparison
from adaug.audits.plan import AS_IT_IS, DRAWS
from adaug.audits.records import FamilyTable
from adaug.audits.statistics import Array, Estimate
from adaug.audits.table import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette, which colour-blind readers can tell apart; the marks differ too.
NOW, BEFORE = "#0072B2", "#D55E00"
INK, SOFT, RULE = "#222222", "#666666", "#e2e4e7"
COLUMNS = 3
WIDTH, CURVE, MAP = 8.0, 2.0, 2.5  # inches; at 150 dpi 1200 pixels wide


def draw(audit: Table, compared: Table | None = None) -> Figure:
    """Draws curves and grids of an audit. With a second audit: before, after and the difference.

    Raises:
        ModuleNotFoundError: matplotlib is missing.
        ValueError: `compared` has other images or views.
    """
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"`Audit.figure` needs matplotlib. Found no {error.name}; pip install adaug[viz].", name=error.name
        ) from error
    if compared is not None:
        Comparison(audit, compared)  # raises an error if they cannot be compared
    panels = _Panels([audit] if compared is None else [audit, compared])
    curves = [f for f in audit.families if _is_curve(f) and len(f.views) > 1] or [f for f in audit.families if _is_curve(f)][:1]
    maps = [f for f in audit.families if f.axes and not _is_curve(f)]
    heights = [CURVE] * math.ceil(len(curves) / COLUMNS) + [MAP] * math.ceil(
        len(maps) * (1 if compared is None else 3) / COLUMNS
    )
    figure = Figure(figsize=(WIDTH, 0.6 + sum(heights)), dpi=150, layout="constrained")
    figure.suptitle(panels.heading(), fontsize=9, color=INK, x=0.01, ha="left")
    grid = figure.add_gridspec(len(heights), COLUMNS, height_ratios=heights)
    for i, family in enumerate(curves):
        panels.curve(figure.add_subplot(grid[divmod(i, COLUMNS)]), family, first=i % COLUMNS == 0)
    place = math.ceil(len(curves) / COLUMNS) * COLUMNS
    for family in maps:
        for title, values in panels.tables(family):
            panels.map(figure.add_subplot(grid[divmod(place, COLUMNS)]), family, title, values)
            place += 1
    _legend(figure, before=compared is not None)
    return figure


def _is_curve(family: FamilyTable) -> bool:
    """Whether a family becomes a curve: its views are bins, joint draws or a single view, not cells or pairs."""
    return len(family.axes) < 2 and not (family.axes and isinstance(family.axes[0].layout, tuple))


class _Panels:
    """Draws the panels. All curves share one scale, and all maps share another."""

    def __init__(self, audits: Sequence[Table]) -> None:
        self.audits = audits
        self.numbers = Numbers(*audits)
        self.sign = 1.0 if audits[0].higher_is_better else -1.0
        means = np.array([float(mean) for audit in audits for mean in audit.by_view()])
        finite = means[np.isfinite(means)]
        self.low, self.high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
        if self.low == self.high:
            self.low, self.high = self.low - 0.5, self.high + 0.5

    def heading(self) -> str:
        """The title, with numbers that no panel shows: single views, and the worst of each image."""
        before, now = self.audits[0], self.audits[-1]

        def values(family: str) -> str:
            return " → ".join(self.numbers.value(audit.mean(family)) for audit in self.audits)

        worst = " → ".join(self.numbers.value(audit.worst_per_image()) for audit in self.audits)
        alone = [f"{_short(family.name, 24)} {values(family.name)}" for family in now.families if len(family.views) == 1]
        return f"{len(before)} images, {len(before.views)} views: {', '.join([*alone, f'worst per image {worst}'])}"

    # ---- curves

    def curve(self, axis: Axes, family: FamilyTable, *, first: bool) -> None:
        """Draws means with their intervals, and a line for the images as they are."""
        from matplotlib.ticker import MaxNLocator, PercentFormatter

        where = family.axes[0].centres if family.axes else tuple(float(i + 1) for i in range(len(family.views)))
        if len(set(where)) < len(where):
            where = tuple(map(float, range(len(where))))
        for audit, colour, mark in zip(self.audits, self._colours(), "so"[-len(self.audits) :], strict=True):
            means = list(audit.by_view(family.name))
            if family.name == DRAWS:
                means.sort(key=lambda mean: self.sign * float(mean) if math.isfinite(mean) else math.inf)
            self._one(axis, where, means, float(audit.mean(AS_IT_IS)), colour, mark)
        room = 0.08 * (self.high - self.low)
        axis.set_ylim(self.low - room, self.high + room)
        axis.set_title(_short(family.name, 36), loc="left", fontsize=9, color=INK)
        axis.set_xlabel(self._below(family), fontsize=8, color=SOFT)
        axis.xaxis.set_major_locator(MaxNLocator(5, integer=not family.axes))
        if len(where) == 1:
            axis.set_xticks([])
        axis.yaxis.set_major_locator(MaxNLocator(4))
        if self.numbers.shares:
            axis.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axis.tick_params(labelsize=7, colors=SOFT, length=2, labelleft=first)
        axis.grid(axis="y", color=RULE, linewidth=0.6)
        axis.set_axisbelow(True)
        axis.spines[["top", "right", "left", "bottom"]].set_visible(False)

    def _one(self, axis: Axes, where: Sequence[float], means: list[Estimate], plain: float, colour: str, mark: str) -> None:
        values, low, high = (np.array([f(mean) for mean in means]) for f in (float, lambda m: m.low, lambda m: m.high))
        if math.isfinite(plain):
            axis.axhline(plain, color=colour, linewidth=0.9, linestyle=(0, (4, 3)))
        axis.fill_between(where, low, high, color=colour, alpha=0.16, linewidth=0)
        size = 3 if len(means) <= 30 else 1.5
        axis.plot(where, values, color=colour, linewidth=1.4, marker=mark, markersize=size)
        if len(means) == 1 and np.isfinite(values).all():
            axis.vlines(where, low, high, color=colour, alpha=0.5)

    def _colours(self) -> list[str]:
        return [NOW] if len(self.audits) == 1 else [BEFORE, NOW]

    @staticmethod
    def _below(family: FamilyTable) -> str:
        if family.axes:
            return _short(family.axes[0].quantity, 36)
        return "joint draws, worst first" if family.name == DRAWS else ""

    # ---- maps

    def tables(self, family: FamilyTable) -> list[tuple[str, Array]]:
        """Pairs (title, means [r, c]): one for an audit; before, after and the difference for two."""
        shape = layout_of(family.axes[0]) if len(family.axes) == 1 else tuple(len(axis.labels) for axis in family.axes)
        means = [np.array([float(mean) for mean in audit.by_view(family.name)]).reshape(shape) for audit in self.audits]
        if len(means) == 1:
            return [(_short(family.name, 30), means[0])]
        return [(f"{_short(family.name, 24)}, before", means[0]), ("after", means[1]), ("difference", means[1] - means[0])]

    def map(self, axis: Axes, family: FamilyTable, title: str, values: Array) -> None:
        """Draws a heat map with its numbers. Darker is weaker. In differences, blue is better and orange is worse."""
        from matplotlib.colors import LinearSegmentedColormap

        differs = title == "difference"
        if differs:
            colours: Any = LinearSegmentedColormap.from_list(
                "worse-better", ["#a63603", "#fdae6b", "#f4f4f4", "#9ecae1", "#08519c"]
            )
            end = float(np.max(np.abs(values[np.isfinite(values)]), initial=0.0)) or 1.0
            shade = 0.5 + 0.5 * self.sign * values / end
        else:
            colours = "Oranges"
            shade = (values - self.low) / (self.high - self.low)
            shade = 1 - shade if self.sign > 0 else shade
        drawn = axis.imshow(np.ma.masked_invalid(shade), cmap=colours, vmin=0, vmax=1, aspect="auto")
        texts = self.numbers.short([float(value) for value in values.flat], sign=differs)
        across = values.shape[1]
        for i, text in enumerate(texts):
            light = math.isfinite(shade.flat[i]) and _luminance(drawn.cmap(shade.flat[i])) < 0.42
            size = 7 if across <= 8 else 5
            axis.text(i % across, i // across, text, ha="center", va="center", fontsize=size, color="white" if light else INK)
        down, over = labels_of(family.axes)
        axis.set_xticks(range(len(over)), [_short(minus(label), 12) for label in over], rotation=0 if len(over) < 5 else 45)
        axis.set_yticks(range(len(down)), [_short(minus(label), 12) for label in down])
        axis.tick_params(labelsize=6.5, colors=SOFT, length=0)
        axis.spines[:].set_visible(False)
        unit = "" if not self.numbers.shares else ", points" if differs else ", %"
        axis.set_title(f"{title}{unit}", loc="left", fontsize=9, color=INK)


def _short(text: str, letters: int) -> str:
    return text if len(text) <= letters else text[: letters - 1] + "…"


def _luminance(colour: Sequence[float]) -> float:
    """The brightness of a colour, 0 to 1."""
    red, green, blue = colour[:3]
    return 0.3 * red + 0.59 * green + 0.11 * blue


def _legend(figure: Figure, *, before: bool) -> None:
    from matplotlib.lines import Line2D

    marks = [Line2D([], [], color=SOFT, linestyle=(0, (4, 3)), linewidth=0.9, label="as it is")]
    if before:
        after = Line2D([], [], color=NOW, marker="o", markersize=4, label="after")
        marks = [Line2D([], [], color=BEFORE, marker="s", markersize=4, label="before"), after, *marks]
    figure.legend(handles=marks, loc="outside lower center", ncols=3, fontsize=8, frameon=False)

"""An audit as one matplotlib figure: a panel for each operation, each pair and the joint draws."""

from __future__ import annotations

import math
from typing import Any

import matplotlib.style
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from adaug.audits._figures import MEAN, METHODS, PER_IMAGE
from adaug.audits._report.numbers import cut
from adaug.audits._report.panels import COLOURS, DASHES, STYLE, Panels
from adaug.audits._report.series import curves_of, is_cells, is_map, maps_of
from adaug.audits._text import figure
from adaug.audits.comparison import Change, Comparison
from adaug.audits.plan import DRAWS
from adaug.audits.records import FamilyTable
from adaug.audits.table import Table

COLUMNS = 3
WIDTH, CURVE, MAP = 8.0, 2.0, 2.5  # inches; at 150 dpi 1200 pixels wide


def draw(audit: Table, compared: Table | None = None) -> Figure:
    """Draws curves and grids of an audit. With a second audit: before, after and the difference.

    Raises:
        ValueError: `compared` has other images or views.
    """
    comparison = None if compared is None else Comparison(audit, compared)
    with matplotlib.style.context(STYLE):
        return _drawn([audit] if compared is None else [audit, compared], comparison)


def _drawn(audits: list[Table], comparison: Comparison | None) -> Figure:
    panels, families = Panels(audits), audits[0].families
    plain = [family for family in families if not is_map(family)]
    curves = [family for family in plain if len(family.views) > 1] or plain[:1]
    maps = [(family, one) for family in families if is_map(family) for one in maps_of(audits, family)]
    heights = [CURVE] * math.ceil(len(curves) / COLUMNS) + [MAP] * math.ceil(len(maps) / COLUMNS)
    figure = Figure(figsize=(WIDTH, 0.6 + sum(heights)), dpi=150, layout="constrained")
    figure.suptitle(_heading(panels, comparison), fontsize=9, color=COLOURS["ink"], x=0.01, ha="left")
    grid = figure.add_gridspec(len(heights), COLUMNS, height_ratios=heights)
    text: dict[str, Any] = {"loc": "left", "fontsize": 9, "color": COLOURS["ink"]}
    for i, family in enumerate(curves):
        axis = panels.curve(figure, grid[divmod(i, COLUMNS)], curves_of(audits, family))
        axis.set_title(cut(family.name, 30), **text)
        axis.set_xlabel(_below(family), fontsize=8, color=COLOURS["soft"])
        axis.tick_params(labelleft=i % COLUMNS == 0)
    place = math.ceil(len(curves) / COLUMNS) * COLUMNS
    for i, (family, one) in enumerate(maps, place):
        axis = panels.map(figure, grid[divmod(i, COLUMNS)], one)
        unit = "" if not panels.numbers.shares else ", points" if one.differs else ", %"
        titles = {"mean score": cut(family.name, 30), "before": f"{cut(family.name, 24)}, before"}
        axis.set_title(titles.get(one.title, one.title) + unit, **text)
        axis.set_aspect("equal" if is_cells(family) else "auto", anchor="W")
    partly = any(curves_of(audits, family).partly for family in curves)
    figure.legend(handles=_marks(len(audits) > 1, partly), loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    return figure


def _heading(panels: Panels, comparison: Comparison | None) -> str:
    """The title, with numbers that no panel shows: single views, and the worst of each image."""
    audits, numbers = panels.audits, panels.numbers
    shown = [(cut(f.name, 24), MEAN, f.name) for f in audits[0].families if len(f.views) == 1]
    parts = []
    for title, name, views in [*shown, (PER_IMAGE, PER_IMAGE, None)]:
        text = f"{title} {' → '.join(numbers.value(figure(audit, name, views)) for audit in audits)}"
        if comparison is not None:
            change: Change = getattr(comparison, METHODS[name])(views=views)
            ends = numbers.difference_interval(change.difference)
            text += f" ({', '.join(part for part in (ends, change.verdict) if part)})"
        parts.append(text)
    return f"{len(audits[0])} images, {len(audits[0].views)} views: {', '.join(parts)}"


def _below(family: FamilyTable) -> str:
    if family.axes:
        return cut(family.axes[0].quantity, 36)
    return "joint draws, worst first" if family.name == DRAWS else ""


def _marks(before: bool, partly: bool) -> list[Artist]:
    """What the legend explains."""
    marks: list[Artist] = []
    for name, colour, mark in (("before", "before", "s"), ("after", "now", "o")) if before else ():
        marks.append(Line2D([], [], color=COLOURS[colour], marker=mark, markersize=4, label=name))
    marks.append(Line2D([], [], color=COLOURS["soft"], linestyle=DASHES, linewidth=0.9, label="as it is"))
    return [*marks, Patch(color=COLOURS["soft"], label="what counts")] if partly else marks

"""An audit as one self-contained HTML page: a summary in words, then numbers, curves, maps and pictures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import markupsafe
import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import SubplotSpec

from adaug._runtime.files import replace_file
from adaug._runtime.version import __version__
from adaug.audits._figures import METHODS
from adaug.audits._report.cards import cards
from adaug.audits._report.numbers import minus, share
from adaug.audits._report.panels import COLOURS, STYLE, WEAKNESS, Panels
from adaug.audits._report.series import Curves, Map, curves_of, is_cells, maps_of
from adaug.audits._report.svg import inline
from adaug.audits._report.tiles import Tiles
from adaug.audits._report.words import sentences
from adaug.audits.comparison import Comparison
from adaug.audits.plan import DRAWS
from adaug.audits.records import FamilyTable
from adaug.audits.statistics import LEVEL, RESAMPLES, WHOLE
from adaug.audits.table import Table

CURVE = (3.2, 1.95)  # inches
Cell = tuple[str, str]  # a number, and what stands behind it in small letters


def write(audit: Table, path: Path, compared: Table | None, title: str) -> Path:
    """Writes the page of an audit, or of an audit and a later one. Raises ValueError if they cannot be compared."""
    return replace_file(path, _render(audit, compared, title).encode("utf-8"))


def _render(audit: Table, compared: Table | None, title: str) -> str:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    environment.filters["drawn"] = markupsafe.Markup  # SVG from this package, which is escaped already
    here = files("adaug.audits._report")
    template = environment.from_string((here / "page.html.j2").read_text(encoding="utf-8"))
    style = markupsafe.Markup((here / "page.css").read_text(encoding="utf-8"))
    with matplotlib.style.context(STYLE):
        contents = _Page(audit, compared).contents()
    return template.render(style=style, colours=COLOURS, weakness=WEAKNESS, title=title, **contents)


@dataclass(frozen=True)
class Sheet:
    """Numbers as a table: a caption, the headings of its columns, and rows of a label and cells."""

    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]


@dataclass(frozen=True)
class Panel:
    """Drawings side by side, as pairs of a caption and an SVG, and their numbers as tables."""

    name: str
    note: str
    drawings: tuple[tuple[str, str], ...]
    sheets: tuple[Sheet, ...]
    few: bool = False


class _Page:
    """Everything that the template shows."""

    def __init__(self, audit: Table, compared: Table | None) -> None:
        self.comparison = None if compared is None else Comparison(audit, compared)
        self.audits = [audit] if compared is None else [audit, compared]
        self.now, self.before = self.audits[-1], None if compared is None else audit
        self.panels = Panels(self.audits)
        self.numbers = self.panels.numbers
        self.names = ("mean",) if compared is None else ("before", "after")
        self.drawn = 0

    def contents(self) -> dict[str, Any]:
        """The values of the template by name."""
        now, numbers = self.now, self.numbers
        tiles = Tiles(self.audits[0], self.comparison, numbers)
        pictures = self.now if self.now.pictures or self.before is None else self.before
        kinds, groups = tiles.kinds(), tiles.groups()
        singles = [now.family(name) for name in now.operations]
        return {
            "compared": self.comparison is not None,
            "shares": numbers.shares,
            "worse": now.worse_end,
            "parts": now.scores.shape[2] if now.scores.ndim == 3 else 0,
            "images": len(now),
            "views": len(now.views),
            "sentences": sentences(self.audits[0], self.comparison, numbers),
            "tiles": tiles.key(),
            "kinds": kinds,
            "titles": [name for name in METHODS if any(name in row for _, row in kinds)],
            "curves": [self.curve(family) for family in singles if not is_cells(family)],
            "partly": any(curves_of(self.audits, family).partly for family in singles if not is_cells(family)),
            "cells": [self.maps(family) for family in singles if is_cells(family)],
            "pairs": [self.maps(family) for family in now.families if len(family.axes) == 2],
            "best": numbers.value(self.panels.best),
            "weakest": numbers.value(self.panels.weakest),
            "groups": groups,
            "group_titles": [name for name in METHODS if any(name in row[-1] for row in groups)],
            "draws": self.draws(),
            "cards": cards(pictures, self.before if pictures is self.now else None, numbers),
            "pictured": "" if self.before is None else "later" if pictures is self.now else "earlier",
            "labelled": {part for p in pictures.pictures for part in p.labels},
            "excluded": [(a.excluded, name) for a, name in zip(self.audits, self.names, strict=True) if a.excluded],
            "facts": [
                ("Images", f"{len(now):,}"),
                *([("Parts of an image", f"{now.scores.shape[2]:,}")] if now.scores.ndim == 3 else []),
                ("Views", f"{len(now.views):,}: " + ", ".join(f"{len(f.views)} {f.name}" for f in now.families)),
                ("Scores", f"{'right (1) or wrong (0)' if numbers.shares else 'numbers'}; {now.worse_end} is worse"),
                ("Intervals", f"{LEVEL:.0%} bootstrap over images, {RESAMPLES:,} resamples"),
                ("Seed", str(now.seed)),
                ("adaug", __version__),
            ],
        }

    def draw(self, kind: str, size: tuple[float, float], label: str, draw: Callable[[Figure, SubplotSpec], Axes]) -> str:
        """One panel as SVG."""
        figure = Figure(figsize=size, layout="constrained")
        draw(figure, figure.add_gridspec(1, 1)[0])
        self.drawn += 1
        return inline(figure, kind, f"{label}; the numbers are in the table", self.drawn)

    # ---- curves

    def curve(self, family: FamilyTable) -> Panel:
        """The curve of an operation, with the numbers of each bin."""
        axis, curves = family.axes[0], curves_of(self.audits, family)
        drawing = self.draw("curve", CURVE, f"{family.name}: mean score at each bin", self.plot(curves))
        bins = zip(curves.labels, *curves.means, strict=True)
        counted = [((share(value), ""),) for value in curves.counted]
        rows = tuple((minus(label), self.cells(means) + count) for (label, *means), count in zip(bins, counted, strict=True))
        sheet = Sheet("", (axis.quantity, *self.names, "counts"), rows)
        return Panel(family.name, axis.quantity if axis.quantity != family.name else "", (("", drawing),), (sheet,))

    def plot(self, curves: Curves) -> Callable[[Figure, SubplotSpec], Axes]:
        return lambda figure, spec: self.panels.curve(figure, spec, curves)

    def cells(self, means: Any) -> tuple[Cell, ...]:
        """Means with their intervals, before and after."""
        return tuple((self.numbers.value(mean), self.numbers.interval(mean)) for mean in means)

    def draws(self) -> dict[str, Any] | None:
        """The means of the joint draws, the worst first."""
        if not any(family.name == DRAWS for family in self.now.families):
            return None
        curves = curves_of(self.audits, self.now.family(DRAWS))
        most = min(int(np.isfinite(means).sum()) for means in curves.means)
        if not most:
            return None
        drawing = self.draw("curve", CURVE, "means of the joint draws, from the worst to the best", self.plot(curves))
        beyond = "below" if self.now.higher_is_better else "above"
        places = {"worst": 0, f"a quarter is {beyond}": most // 4, f"half is {beyond}": most // 2, "best": most - 1}
        rows = tuple((name, self.cells([means[place] for means in curves.means])) for name, place in places.items())
        panel = Panel(DRAWS, "", (("", drawing),), (Sheet("", ("draws", *self.names), rows),))
        return {"panel": panel, "number": most, "worst": minus(self.now.detail(self.now.worst(DRAWS)[0]))}

    # ---- maps

    def maps(self, family: FamilyTable) -> Panel:
        """The heat maps of cells or of a pair, with their numbers."""
        maps = maps_of(self.audits, family)
        captions = [self.caption(one) for one in maps]
        sheets = tuple(self.sheet(caption, one) for caption, one in zip(captions, maps, strict=True))
        drawings = tuple((caption, self.map(family, one)) for caption, one in zip(captions, maps, strict=True))
        note = "" if is_cells(family) else f"{family.axes[0].operation} down, {family.axes[1].operation} across"
        return Panel(family.name, note, drawings, sheets, any(one.few.any() for one in maps))

    def caption(self, one: Map) -> str:
        return one.title + ("" if not self.numbers.shares else ", points" if one.differs else ", in %")

    def map(self, family: FamilyTable, one: Map) -> str:
        rows, columns = one.values.shape
        side = min(max(2.7 / columns, 0.3), 0.55)  # inches
        beside, below = (0.15 + 0.06 * min(max(map(len, labels)), 12) for labels in (one.down, one.across))
        size = (beside + side * columns, below + (side if is_cells(family) else 0.28) * rows)
        label = f"{family.name}: {one.title} of each {'cell' if is_cells(family) else 'pair of bins'}"
        return self.draw("map", size, label, lambda figure, spec: self.panels.map(figure, spec, one))

    def sheet(self, caption: str, one: Map) -> Sheet:
        """The numbers of a map, with what counts where that is not all."""
        value = self.numbers.difference if one.differs else self.numbers.value
        rows = []
        for label, values, counted in zip(one.down, one.values, one.counted, strict=True):
            notes = [f"{share(count)} counts" if count < WHOLE else "" for count in map(float, counted)]
            rows.append((minus(label), tuple(zip((value(float(v)) for v in values), notes, strict=True))))
        return Sheet(caption, ("", *map(minus, one.across)), tuple(rows))

"""An audit as one self-contained HTML page: a summary in words, then numbers, curves, maps and pictures."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from adaug._runtime.version import __version__
from adaug.audits._report.cards import cards
from adaug.audits._report.drawing import Range, Series, curve
from adaug.audits._report.heat import Heat, Scale, differences, labels_of, layout_of, means
from adaug.audits._report.numbers import Numbers, minus, share
from adaug.audits._report.tiles import Tiles
from adaug.audits._report.words import sentences
from adaug.audits.comparison import Comparison
from adaug.audits.plan import AS_IT_IS, DRAWS
from adaug.audits.records import FamilyTable
from adaug.audits.statistics import LEVEL, RESAMPLES, Estimate
from adaug.audits.table import Table


def write(audit: Table, path: Path, compared: Table | None, title: str) -> Path:
    """Writes the page of an audit, or of an audit and a later one.

    Raises:
        ModuleNotFoundError: jinja2 or pillow are missing.
        ValueError: `compared` has other images or views.
    """
    page = _render(audit, compared, title)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".part")  # so that a page is never half written
    beside.write_text(page, encoding="utf-8")
    os.replace(beside, path)
    return path


def _render(audit: Table, compared: Table | None, title: str) -> str:
    try:
        import jinja2
        import markupsafe
        import PIL  # noqa: F401  # the pictures need it
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"`Audit.html` needs jinja2 and pillow. Found no {error.name}; pip install adaug[audit].", name=error.name
        ) from error
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    environment.filters["drawn"] = markupsafe.Markup  # SVG from this package, which is escaped already
    here = files("adaug.audits._report")
    template = environment.from_string((here / "page.html.j2").read_text(encoding="utf-8"))
    style = markupsafe.Markup((here / "page.css").read_text(encoding="utf-8"))
    return template.render(style=style, title=title, **_Page(audit, compared).contents())


@dataclass(frozen=True)
class Row:
    """A bin in a table: (mean, interval) of each audit, and the fraction that counts."""

    label: str
    means: tuple[tuple[str, str], ...]
    counted: str


@dataclass(frozen=True)
class Panel:
    """A curve and its numbers as a table."""

    name: str
    quantity: str
    drawing: str
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Maps:
    """Heat maps side by side: one, or before, after and the difference."""

    name: str
    note: str
    tables: tuple[Heat, ...]
    cells: bool


class _Page:
    """Everything that the template shows."""

    def __init__(self, audit: Table, compared: Table | None) -> None:
        self.comparison = None if compared is None else Comparison(audit, compared)
        self.audits = [audit] if compared is None else [audit, compared]
        self.now, self.before = self.audits[-1], None if compared is None else audit
        self.numbers = Numbers(*self.audits)
        self.scale = Scale.of(*self.audits)
        every = [e for a in self.audits for f in a.families if len(f.axes) != 2 for e in a.by_view(f.name)]
        self.limits = Range.of(every, self.numbers)

    def contents(self) -> dict[str, Any]:
        """The values of the template by name."""
        now, numbers = self.now, self.numbers
        tiles = Tiles(self.audits[0], self.comparison, numbers)
        pictures = self.now if self.now.pictures or self.before is None else self.before
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
            "kinds": tiles.kinds(),
            "curves": [self.panel(family) for family in singles if not isinstance(family.axes[0].layout, tuple)],
            "cells": [self.maps(family) for family in singles if isinstance(family.axes[0].layout, tuple)],
            "pairs": [self.maps(family) for family in now.families if len(family.axes) == 2],
            "unit": numbers.unit,
            "best": numbers.value(self.scale.best),
            "weakest": numbers.value(self.scale.weakest),
            "groups": tiles.groups(),
            "draws": self.draws(),
            "cards": cards(pictures, self.before if pictures is self.now else None, numbers),
            "pictured": "" if self.before is None else "later" if pictures is self.now else "earlier",
            "shown": {part for p in pictures.pictures for part in p.labels},
            "excluded": [(a.excluded, name) for a, name in zip(self.audits, self.names(), strict=True) if a.excluded],
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

    def names(self) -> list[str]:
        return ["now"] if self.before is None else ["before", "after"]

    # ---- drawings

    def panel(self, family: FamilyTable) -> Panel:
        axis = family.axes[0]
        curves = [audit.curve(family.name) for audit in self.audits]
        series = self.series([one.mean for one in curves])
        counted = curves[-1].counted
        title = f"{family.name}: mean score at each bin; the numbers are in the table below"
        positions = axis.centres if len(set(axis.centres)) == len(axis.centres) else tuple(map(float, range(len(axis.centres))))
        drawing = curve(title, series, axis.labels, positions, self.limits, self.numbers, counted)
        bins = zip(axis.labels, zip(*(one.mean for one in curves), strict=True), counted, strict=True)
        rows = tuple(self.row(label, means, share(counts)) for label, means, counts in bins)
        return Panel(family.name, axis.quantity, drawing, rows)

    def series(self, means: Sequence[Sequence[Estimate]]) -> list[Series]:
        return [
            Series(name, mean, float(audit.mean(AS_IT_IS)))
            for name, mean, audit in zip(self.names(), means, self.audits, strict=True)
        ]

    def row(self, label: str, means: Sequence[Estimate], counted: str = "") -> Row:
        """One row of a table of means, before and after."""
        return Row(minus(label), tuple((self.numbers.value(mean), self.numbers.interval(mean)) for mean in means), counted)

    def maps(self, family: FamilyTable) -> Maps:
        """The heat maps of cells (one axis) or of a pair (two)."""
        cells = len(family.axes) == 1
        shape = layout_of(family.axes[0]) if cells else (len(family.axes[0].labels), len(family.axes[1].labels))
        labels = labels_of(family.axes)
        values = [np.array([float(mean) for mean in a.by_view(family.name)]).reshape(shape) for a in self.audits]
        counted = [a.counted(family.name).reshape(shape) for a in self.audits]
        captions = ["mean score"] if self.before is None else self.names()
        tables = [
            means(caption, value, count, labels, self.scale, self.numbers)
            for caption, value, count in zip(captions, values, counted, strict=True)
        ]
        if self.before is not None:
            difference, count = values[1] - values[0], np.minimum(*counted)
            tables.append(differences("difference", difference, count, labels, self.now.higher_is_better, self.numbers))
        note = "" if cells else f"{family.axes[0].operation} down, {family.axes[1].operation} across"
        return Maps(family.name, note, tuple(tables), cells)

    def draws(self) -> dict[str, Any] | None:
        """The means of the joint draws, the worst first."""
        if not any(family.name == DRAWS for family in self.now.families):
            return None
        sign = 1.0 if self.now.higher_is_better else -1.0
        there: list[list[tuple[str, Estimate]]] = []
        for audit in self.audits:
            named = zip(audit.family(DRAWS).views, audit.by_view(DRAWS), strict=True)
            there.append(sorted(((v, e) for v, e in named if np.isfinite(e)), key=lambda item: sign * float(item[1])))
        most = min(map(len, there))
        if not most:
            return None
        means = [[mean for _, mean in one[:most]] for one in there]
        ranks = [str(i + 1) for i in range(most)]
        title = "means of the joint draws, from the worst to the best"
        drawing = curve(title, self.series(means), ranks, list(map(float, range(most))), self.limits, self.numbers)
        beyond = "below" if self.now.higher_is_better else "above"
        places = {"worst": 0, f"a quarter is {beyond}": most // 4, f"half is {beyond}": most // 2, "best": most - 1}
        rows = [self.row(name, [one[at] for one in means]) for name, at in places.items()]
        return {"drawing": drawing, "rows": rows, "number": most, "worst": minus(self.now.detail(there[-1][0][0]))}

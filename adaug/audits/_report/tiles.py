"""The key numbers of an audit as texts: over all views, over each family of views, and for each group of parts."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from adaug.audits._report.numbers import GAP, Numbers, minus
from adaug.audits.comparison import Change, Comparison
from adaug.audits.plan import AS_IT_IS
from adaug.audits.statistics import Estimate
from adaug.audits.table import Table


@dataclass(frozen=True)
class Tile:
    """A key number as text.

    Attributes:
        name: Its name.
        value: The number in the audit, or in the later one of two.
        interval: The interval of the value.
        before: The number in the earlier audit.
        difference: The later number minus the earlier one, with its interval.
        mark: "better" or "worse". Empty if it is not clear.
        note: The view that it belongs to.
    """

    name: str
    value: str
    interval: str
    before: str = ""
    difference: str = ""
    mark: str = ""
    note: str = ""


class Tiles:
    """Makes the key numbers of one audit, or of two that are compared."""

    def __init__(self, audit: Table, comparison: Comparison | None, numbers: Numbers) -> None:
        self.now = audit if comparison is None else comparison.after
        self.comparison, self.numbers = comparison, numbers

    def key(self) -> list[Tile]:
        """The number as it is, then those over all views."""
        return [self._mean(AS_IT_IS, AS_IT_IS), *(self.of(None) if len(self.now.views) > 1 else [])]

    def kinds(self) -> list[tuple[str, list[Tile]]]:
        """Pairs (name, key numbers) of each family, and of all views."""
        return [*((f.name, self.of(f.name)) for f in self.now.families), ("all views", self.of(None))]

    def groups(self) -> list[tuple[str, int, Tile, list[Tile]]]:
        """(name, number of parts, number as it is, key numbers over all views) of each group."""
        named = self.now.groups.items() if self.now.scores.ndim == 3 else ()
        return [(name, len(parts), self._mean(AS_IT_IS, AS_IT_IS, name), self.of(None, name)) for name, parts in named]

    def of(self, views: str | None, group: str | None = None) -> list[Tile]:
        """Mean, worst view, worst per image, CVaR and in every view. For a single view only the mean."""
        mean = self._mean("mean of all views" if views is None else "mean", views, group)
        if len(self.now.columns(views)) == 1:
            return [mean]

        now, change = self.now, partial(self._change, views=views, group=group)
        view, worst = now.worst(views, group)
        tiles = [
            mean,
            self._tile("worst view", worst, change("worst"), minus(now.detail(view)) if np.isfinite(worst) else ""),
            self._tile("worst per image", now.worst_per_image(views, group), change("worst_per_image")),
            self._tile(f"worst 10{GAP}% per image", now.cvar(views=views, group=group), change("cvar")),
        ]
        if self.numbers.shares:
            tiles.append(self._tile("right in every view", now.in_every_view(views, group), change("in_every_view")))
        return tiles

    def _mean(self, name: str, views: str | None, group: str | None = None) -> Tile:
        return self._tile(name, self.now.mean(views, group), self._change("mean", views, group))

    def _change(self, statistic: str, views: str | None, group: str | None) -> Change | None:
        change: Change | None = None
        if self.comparison is not None:
            change = getattr(self.comparison, statistic)(views=views, group=group)
        return change

    def _tile(self, name: str, value: Estimate, change: Change | None, note: str = "") -> Tile:
        numbers = self.numbers
        if change is None:
            return Tile(name, numbers.value(value), numbers.interval(value), note=note)
        difference, ends = numbers.difference(change.difference), numbers.difference_interval(change.difference)
        return Tile(
            name,
            numbers.value(change.after),
            numbers.interval(value),
            numbers.value(change.before),
            f"{difference} ({ends})" if ends else difference,
            numbers.verdict(change),
            note,
        )

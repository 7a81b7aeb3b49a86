"""The key numbers of an audit as texts: over all views, over each family of views, and for each group of parts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from adaug.audits._figures import ALL_VIEWS, MEAN, METHODS, WORST, figures_of, groups_of
from adaug.audits._report.numbers import GAP, Numbers, minus
from adaug.audits._text import figure
from adaug.audits.comparison import Change, Comparison
from adaug.audits.plan import AS_IT_IS
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
        mark: The verdict on the difference.
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
        plain = self._tile(AS_IT_IS, MEAN, AS_IT_IS)
        return [plain, *(self.of(None).values() if len(self.now.views) > 1 else ())]

    def kinds(self) -> list[tuple[str, dict[str, Tile]]]:
        """Pairs (name, key numbers by name) of each family, and of all views."""
        names: list[str | None] = [*(family.name for family in self.now.families), None]
        return [(name or ALL_VIEWS, self.of(name)) for name in names]

    def groups(self) -> list[tuple[str, int, Tile, dict[str, Tile]]]:
        """(name, number of parts, number as it is, key numbers over all views) of each group."""
        groups = [(name, len(self.now.groups[name])) for name in groups_of(self.now)]
        return [(name, count, self._tile(AS_IT_IS, MEAN, AS_IT_IS, name), self.of(None, name)) for name, count in groups]

    def of(self, views: str | None, group: str | None = None) -> dict[str, Tile]:
        """The figures of some views by their names."""
        audits = [self.now] if self.comparison is None else [self.comparison.before, self.now]
        return {name: self._tile(name, name, views, group) for name in figures_of(audits, views, group)}

    def _tile(self, title: str, name: str, views: str | None, group: str | None = None) -> Tile:
        numbers, value, note = self.numbers, figure(self.now, name, views, group), ""
        if name == WORST and np.isfinite(value):
            note = minus(self.now.detail(self.now.worst(views, group)[0]))
        title = title.replace(" %", f"{GAP}%")
        if self.comparison is None:
            return Tile(title, numbers.value(value), numbers.interval(value), note=note)
        change: Change = getattr(self.comparison, METHODS[name])(views=views, group=group)
        difference, ends = numbers.difference(change.difference), numbers.difference_interval(change.difference)
        return Tile(
            title,
            numbers.value(change.after),
            numbers.interval(value),
            numbers.value(change.before),
            f"{difference} ({ends})" if ends else difference,
            change.verdict,
            note,
        )

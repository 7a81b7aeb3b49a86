"""The summary of an audit in plain sentences."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from adaug.audits._report.numbers import GAP, Numbers, minus
from adaug.audits.comparison import Change, Comparison
from adaug.audits.plan import AS_IT_IS, Axis
from adaug.audits.records import FamilyTable
from adaug.audits.statistics import mean_of
from adaug.audits.table import Table

MOST = 3  # operations or changes in one sentence


@dataclass(frozen=True)
class Sentence:
    """A sentence, and its subject."""

    about: str
    text: str


def sentences(audit: Table, comparison: Comparison | None, numbers: Numbers) -> list[Sentence]:
    """The summary of a page. With a comparison it first says what changed, and then how things are now."""
    changes = [] if comparison is None else _changes(comparison, numbers)
    now = _Says(audit if comparison is None else comparison.after, None if comparison is None else audit, numbers)
    figures = [now.as_it_is(), *now.operations(), *now.worst_view(), *now.worst_per_image(), *now.pairs(), *now.groups()]
    return [*changes, *figures]


def hurts_clearly(audit: Table, column: int) -> bool:
    """Whether a view is clearly worse than the images as they are: the whole paired interval is (if there is one)."""
    plain = audit.columns(AS_IT_IS)[0]
    table = audit.table()
    drop = mean_of(audit.sign * (table[:, column] - table[:, plain]), audit.drawn)
    return bool(drop.high < 0)


def place(axis: Axis, label: str) -> str:
    """ "at −53°", or "with cell (2, 2) hidden"."""
    return f"with cell {label} hidden" if isinstance(axis.layout, tuple) else f"at {minus(label)}"


class _Says:
    """Makes the sentences about one audit. With `before`, they add the earlier number."""

    def __init__(self, audit: Table, before: Table | None, numbers: Numbers) -> None:
        self.audit, self.before, self.numbers = audit, before, numbers
        self.plain = float(audit.mean(AS_IT_IS))

    def as_it_is(self) -> Sentence:
        audit, numbers = self.audit, self.numbers
        value = numbers.with_interval(audit.mean(AS_IT_IS))
        one = len(audit) == 1
        text = "The one image as it is" if one else f"The {len(audit):,} images as they are"
        if numbers.shares:
            right = "right" if audit.higher_is_better else "wrong"
            text += f": {value} of {'its parts' if one else 'their parts'}" if audit.scores.ndim == 3 else f": {value}"
            text += f" {'is' if one and audit.scores.ndim < 3 else 'are'} {right}"
        else:
            text += f": {value}{'' if one else ' on average'}; {audit.worse_end} is worse"
        return Sentence(AS_IT_IS, f"{text}{self._was(None if self.before is None else self.before.mean(AS_IT_IS))}.")

    def operations(self) -> list[Sentence]:
        """Which operation hurts most, from which bin on it hurts, and which operations come next."""
        audit = self.audit
        hurts = []
        for name in audit.operations:
            view, worst = audit.worst(name)
            family = audit.family(name)
            number = family.views.index(view)
            if np.isfinite(worst) and hurts_clearly(audit, family.start + number):
                hurts.append((audit.sign * float(worst), family, number))
        if not hurts:
            return [Sentence("operations", "No operation alone hurts beyond doubt.")] if audit.operations else []
        hurts.sort(key=lambda item: item[0])
        _, family, number = hurts[0]
        text = f"{_start(family.name)} hurts most: it leaves {self._worst_of(family, number)}{self._was_at(family, number)}."
        text = " ".join([text, *self._from_where(family, family.axes[0])])
        others = [f"{family.name} ({self._worst_of(family, number)})" for _, family, number in hurts[1 : MOST + 1]]
        if others:
            text += f" Next {'comes' if len(hurts) == 2 else 'come'} {_listed(others, len(hurts) - 1)}."
        return [Sentence("operations", text)]

    def _worst_of(self, family: FamilyTable, number: int) -> str:
        axis = family.axes[0]
        value = self.numbers.value(self.audit.curve(family.name).mean[number])
        return f"{value} {place(axis, axis.labels[number])}"

    def _from_where(self, family: FamilyTable, axis: Axis) -> list[str]:
        """From which bin on an operation hurts beyond doubt. Up to there the network copes."""
        if len(self.audit) < 2:
            return []  # nothing is beyond doubt
        clear = [hurts_clearly(self.audit, column) for column in family.columns]
        if isinstance(axis.layout, tuple):
            which = f"all {len(clear)} cells" if all(clear) else f"{sum(clear)} of {len(clear)} cells"
            return [f"It hurts beyond doubt in {which}."]
        if all(clear):
            return ["It hurts beyond doubt at every bin."]
        safe = [i for i, hurt in enumerate(clear) if not hurt]
        labels = list(map(minus, axis.labels))
        ends = [f"at {labels[safe[0] - 1]} and below"] if safe[0] else []
        ends += [f"at {labels[safe[-1] + 1]} and above"] if safe[-1] + 1 < len(clear) else []
        return [f"It hurts beyond doubt {' and '.join(ends)}."] if ends else []

    def worst_view(self) -> list[Sentence]:
        audit = self.audit
        if len(audit.views) < 2:
            return []
        view, worst = audit.worst()
        if not np.isfinite(worst):
            return []
        text = f"Of {len(audit.views)} views, {minus(audit.detail(view))} is worst: {self.numbers.with_interval(worst)}"
        if self.before is not None:
            other, was = self.before.worst()
            text += self._was(was) + (f" under {minus(audit.detail(other))}" if np.isfinite(was) and other != view else "")
        return [Sentence("worst view", f"{text}.")]

    def worst_per_image(self) -> list[Sentence]:
        """How many stay right in every view, or the mean of each image's worst score."""
        audit, numbers, before = self.audit, self.numbers, self.before
        if len(audit.views) < 2:
            return []
        if numbers.shares:
            always = audit.in_every_view()
            was = self._was(None if before is None else before.in_every_view())
            what = "parts" if audit.scores.ndim == 3 else "images"
            hits, counts = (int(values.sum()) for values in audit.always_right())
            text = f"{hits:,} of {counts:,} {what} ({numbers.value(always)}) are right in every view in which they count{was}."
            return [Sentence("in every view", text)]
        worst, was = audit.worst_per_image(), self._was(None if before is None else before.worst_per_image())
        text = f"An image's worst view leaves {numbers.with_interval(worst)} on average{was}; its worst 10{GAP}% of views "
        return [Sentence("worst per image", f"{text}{numbers.value(audit.cvar())}.")]

    def pairs(self) -> list[Sentence]:
        """The worst pair of bins, and the scores of each of them alone."""
        audit, numbers = self.audit, self.numbers
        worst = [(family, *audit.worst(family.name)) for family in audit.families if len(family.axes) == 2]
        pairs = [(audit.sign * float(value), family, view) for family, view, value in worst if np.isfinite(value)]
        if not pairs:
            return []
        value, family, view = min(pairs, key=lambda item: item[0])
        across = len(family.axes[1].labels)
        number = family.views.index(view)
        alone = []
        for axis, label in zip(family.axes, divmod(number, across), strict=True):
            single = audit.family(axis.operation).axes[0].labels if axis.operation in audit.operations else ()
            if axis.labels[label] in single:
                mean = audit.curve(axis.operation).mean[single.index(axis.labels[label])]
                alone += [numbers.value(mean)] if np.isfinite(mean) else []
        before = None if self.before is None else float(self.before.by_view([view])[0])
        text = f"Of two operations together, {minus(view)} is worst: {numbers.value(audit.sign * value)}{self._was(before)}"
        text += f"; alone they leave {' and '.join(alone)}" if len(alone) == 2 else ""
        return [Sentence("together", f"{text}.")]

    def groups(self) -> list[Sentence]:
        audit, numbers = self.audit, self.numbers
        means = {group: float(audit.mean(group=group)) for group in audit.groups}
        known = {group: value for group, value in means.items() if np.isfinite(value)}
        if len(known) < 2:
            return []
        weakest = min(known, key=lambda group: audit.sign * known[group])
        plain = numbers.value(audit.mean(AS_IT_IS, weakest))
        was = self._was(None if self.before is None else self.before.mean(group=weakest))
        text = f"{_start(weakest)}: {numbers.value(known[weakest])} over all views{was}; {plain} as they are."
        return [Sentence("weakest group", text)]

    def _was(self, value: float | None) -> str:
        return "" if value is None or not np.isfinite(value) else f", before {self.numbers.value(value)}"

    def _was_at(self, family: FamilyTable, number: int) -> str:
        return self._was(None if self.before is None else float(self.before.curve(family.name).mean[number]))


def _changes(comparison: Comparison, numbers: Numbers) -> list[Sentence]:
    """What got better and what got worse beyond doubt, the largest change first."""
    lines = []
    for about in ("better", "worse"):
        found = sorted((c for c in comparison.changes if c.verdict == about), key=lambda c: -abs(float(c.gain)))
        named = list({(c.before, c.after): _from_to(c, numbers) for c in reversed(found)}.values())[::-1][:MOST]
        if not found:
            text = f"None of {len(comparison.changes)} figures is {about} beyond doubt."
        else:
            text = (
                f"{len(found)} of {len(comparison.changes)} figures {'is' if len(found) == 1 else 'are'} {about} beyond doubt"
            )
            text += f": {named[0]}." if len(named) == 1 else f", most of all {'; '.join(named)}."
        lines.append(Sentence(about, text))
    return lines


def _from_to(change: Change, numbers: Numbers) -> str:
    """ "the worst view of scale from 36.5 % to 72.3 %"."""
    what, _, views = minus(change.name).partition(", ")
    what = {AS_IT_IS: what, "in every view": f"right {what}"}.get(what, f"the {what.replace('%', f'{GAP}%')}")
    return f"{what}{' of ' + views if views else ''} from {numbers.value(change.before)} to {numbers.value(change.after)}"


def _listed(items: list[str], total: int) -> str:
    more = total - len(items)
    parts = [*items, f"{more} more"] if more else items
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _start(text: str) -> str:
    return text[:1].upper() + text[1:]

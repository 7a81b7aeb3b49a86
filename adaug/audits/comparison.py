"""Compares two audits of the same images, image by image: what got better, and what got worse."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

from adaug.audits._figures import ALWAYS, MEAN, PER_IMAGE, WORST, figures_of, groups_of, named
from adaug.audits._text import aligned, number
from adaug.audits.plan import AS_IT_IS
from adaug.audits.statistics import (
    LEVEL,
    Array,
    Estimate,
    lowest_share,
    mean_of,
    nanmean,
    nanmin,
    nanstd,
    resampled_mean,
    resampled_worst_mean,
    worst_mean,
)
from adaug.audits.table import SHARE, Table

__all__ = ["Change", "Comparison"]


Verdict = Literal["better", "worse", "same", "not told apart"]


@dataclass(frozen=True, eq=False)
class Change:
    """How one figure changes.

    Attributes:
        name: The figure, such as "worst per image, all views".
        before: Its value in the first audit.
        after: Its value in the second audit.
        difference: after - before, from pairs of scores of the same image. Its interval is wide enough that with 95 % the
            intervals of all figures hold together. Otherwise one of thirty figures would seem to move by chance.
        higher_is_better: Whether more of this figure is better.
    """

    name: str
    before: float
    after: float
    difference: Estimate
    higher_is_better: bool = True

    @property
    def gain(self) -> Estimate:
        """The difference with its sign turned so that above 0 is better."""
        if self.higher_is_better:
            return self.difference
        return Estimate(-self.difference, -self.difference.high, -self.difference.low)

    @property
    def verdict(self) -> Verdict:
        """What the interval says: "better" or "worse" if it leaves out 0, "same" if nothing differs in any image."""
        if self.gain.low > 0 or self.gain.high < 0:
            return "better" if self.gain.low > 0 else "worse"
        return "same" if self.gain.low == self.gain.high == 0 else "not told apart"

    @property
    def better(self) -> bool | None:
        """True or False if the verdict is "better" or "worse", else None."""
        return {"better": True, "worse": False}.get(self.verdict)


@dataclass(frozen=True, eq=False)
class _Moved:
    """How one figure changes, before its interval is known: `resampled` is the difference in each resample, [R]."""

    name: str
    before: float
    after: float
    resampled: Array
    higher_is_better: bool

    def change(self, width: float) -> Change:
        """The change, with an interval of so many standard deviations to either side."""
        difference = self.after - self.before
        wide = width * float(nanstd(self.resampled[None], axis=1)[0])
        return Change(
            self.name,
            self.before,
            self.after,
            Estimate(difference, difference - wide, difference + wide),
            self.higher_is_better,
        )


class Comparison:
    """Compares two audits of the same images. `print` shows the changes.

    A difference is the number after minus the number before. Intervals are paired: both audits are resampled with the same
    images.

    Args:
        before: The first audit.
        after: The second audit.

    Raises:
        ValueError: Their images, views or groups differ.
    """

    def __init__(self, before: Table, after: Table) -> None:
        for audit in (before, after):
            if not isinstance(audit, Table):
                raise TypeError(f"An Audit should be compared with an Audit. Found {type(audit).__name__}.")
        known = before.identity.keys() & after.identity.keys() & {"views", "output_size"}
        for what, differ in {
            **{name: getattr(before, name) != getattr(after, name) for name in ("families", "higher_is_better", "groups")},
            **{name: before.identity[name] != after.identity[name] for name in sorted(known)},
        }.items():
            if differ:
                raise ValueError(
                    f"Two audits should have the same {what} to be compared. Found different ones; audit both with the "
                    "same arguments."
                )
        if before.scores.shape[2:] != after.scores.shape[2:]:
            raise ValueError(
                f"Two audits should score as many parts of an image. Found scores {list(before.scores.shape)} and "
                f"{list(after.scores.shape)} (images, views, parts); audit both with the same score."
            )
        if list(before.images) != list(after.images) or before.scores.shape != after.scores.shape:
            raise ValueError(
                f"Two audits should hold the same images in the same order. Found {len(before)} and {len(after)} images, "
                "which are not the same; audit both with a loader that does not shuffle."
            )
        self.before, self.after = before, after

    # ---- statistics

    @cached_property
    def changes(self) -> tuple[Change, ...]:
        """All changes: images as they are, then each figure over all views, over those of each family and of each group."""
        return tuple(moved.change(self._width) for moved in self._moved)

    def mean(self, views: str | Sequence[str] | None = None, group: str | None = None) -> Change:
        """The change of the mean over images and views."""
        return self._change(MEAN, views, group)

    def worst(self, views: str | Sequence[str] | None = None, group: str | None = None) -> Change:
        """The change of the mean of the worst view. Before and after, this may be different views."""
        return self._change(WORST, views, group)

    def worst_per_image(self, views: str | Sequence[str] | None = None, group: str | None = None) -> Change:
        """The change of the mean over images of each image's worst score."""
        return self._change(PER_IMAGE, views, group)

    def cvar(self, share: float = SHARE, views: str | Sequence[str] | None = None, group: str | None = None) -> Change:
        """The change of `Audit.cvar`: the mean over the worst views of each image, a `share` of all views."""
        return self._change(f"worst {share * 100:g} % per image", views, group, share)

    def in_every_view(self, views: str | Sequence[str] | None = None, group: str | None = None) -> Change:
        """The change of the fraction of images (or parts) that are right in every view in which they count."""
        return self._change(ALWAYS, views, group)

    def by_view(self, views: str | Sequence[str] | None = None, group: str | None = None) -> tuple[Change, ...]:
        """The change of the mean of each view. These intervals hold for all views together."""
        return tuple(self.mean([self.before.views[column]], group) for column in self.before.columns(views))

    def worse(self, by: float = 0.0) -> list[str]:
        """Names the `changes` whose verdict is "worse", by more than `by` (in the unit of the scores).

        The list is empty if nothing got worse beyond doubt, so a test can say `assert not before.compare(after).worse(by=0.5)`:
        half a point for scores of 0 and 100.
        """
        return [change.name for change in self.changes if change.verdict == "worse" and change.gain < -by]

    def better(self, by: float = 0.0) -> list[str]:
        """Names the `changes` whose verdict is "better", by more than `by`."""
        return [change.name for change in self.changes if change.verdict == "better" and change.gain > by]

    def __str__(self) -> str:
        rows = [["", "before", "after", "difference", ""]]
        for change in self.changes:
            low, high = (number(end, sign=True) for end in (change.difference.low, change.difference.high))
            difference = f"{number(change.difference, sign=True)} ({low} to {high})"
            rows.append([change.name, number(change.before), number(change.after), difference, change.verdict])
        heading = f"Comparison of {len(self.before)} images: {len(self.better())} of {len(self.changes)} better"
        return "\n".join([f"{heading}, {len(self.worse())} worse", "", *aligned(rows)])

    # ---- inside

    @cached_property
    def _moved(self) -> list[_Moved]:
        audits = (self.before, self.after)
        moved = [self._of(MEAN, AS_IT_IS)]
        for views in (None, *(family.name for family in self.before.families if len(family.views) > 1)):
            moved += [self._of(figure, views) for figure in figures_of(audits, views)]
        for group in groups_of(self.before):
            moved += [
                self._of(MEAN, AS_IT_IS, group),
                *(self._of(figure, None, group) for figure in figures_of(audits, None, group)),
            ]
        return moved

    @cached_property
    def _width(self) -> float:
        return _together(self._moved)

    @cached_property
    def _width_of_views(self) -> float:
        """The same for single views, of which there are many more. No view is surer than a family."""
        return max(self._width, _together([self._of(MEAN, [view]) for view in self.before.views]))

    def _change(self, figure: str, views: Any, group: str | None, share: float = SHARE) -> Change:
        """A figure has one interval, wherever it is asked for."""
        moved = self._of(figure, views, group, share)
        columns = self.before.columns(views)
        single = len(columns) == 1 and columns != self.before.columns(AS_IT_IS)
        return moved.change(self._width_of_views if single else self._width)

    def _of(self, figure: str, views: Any, group: str | None = None, share: float = SHARE) -> _Moved:
        audits, drawn, sign = (self.before, self.after), self.before.drawn, self.before.sign
        columns = [self.before.views[column] for column in self.before.columns(views)]
        name = named(figure, views if views is None or isinstance(views, str) else ", ".join(views), group)
        if len(columns) == 1 and figure == MEAN:
            name = ", ".join(filter(None, (columns[0], group)))
        if figure == ALWAYS:  # more of it is better, whatever the scores are
            values = tuple(float(audit.in_every_view(views, group)) for audit in audits)
            (hits, counts), (other_hits, other_counts) = (audit.always_right(views, group) for audit in audits)
            with np.errstate(invalid="ignore", divide="ignore"):
                moved = drawn @ other_hits / (drawn @ other_counts) - drawn @ hits / (drawn @ counts)
            return _Moved(
                name, values[0], values[1], max(audit.top for audit in audits) * moved, True
            )  # one may hold nothing that is right
        tables = [sign * audit.table(views, group) for audit in audits]  # lower is worse
        if figure == WORST:
            values = tuple(float(worst_mean(table, drawn)[1]) for table in tables)
            moved = resampled_worst_mean(tables[1], drawn) - resampled_worst_mean(tables[0], drawn)
        else:  # a mean over images; an image counts only if it has a number before and after
            each = [_by_image(figure, table, share) for table in tables]
            both = np.isfinite(each[0]) & np.isfinite(each[1])
            before, after = (np.where(both, value, np.nan) for value in each)
            values = tuple(float(mean_of(value, drawn)) for value in (before, after))
            moved = resampled_mean(after - before, drawn)
        return _Moved(name, sign * values[0], sign * values[1], sign * moved, self.before.higher_is_better)


def _by_image(figure: str, table: Array, share: float) -> Array:
    """What a figure averages over images: a number for each row of a table, in which lower is worse."""
    if figure == MEAN:
        return nanmean(table, axis=1)
    return nanmin(table, axis=1) if figure == PER_IMAGE else lowest_share(table, share)


def _together(moved: Sequence[_Moved]) -> float:
    """How many standard deviations make all intervals hold together: the largest deviation in each resample decides (max-t)."""
    table = np.stack([one.resampled for one in moved])  # [F, R]
    centre = np.array([[one.after - one.before] for one in moved])
    spread = nanstd(table, axis=1, keepdims=True)
    moves = np.isfinite(spread[:, 0]) & (spread[:, 0] > 0)
    if not moves.any():
        return 0.0
    deviation = np.nan_to_num(np.abs(table[moves] - centre[moves]) / spread[moves])
    return float(np.quantile(deviation.max(0), LEVEL))

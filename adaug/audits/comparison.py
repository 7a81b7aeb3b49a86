"""Compares two audits of the same images, image by image: what got better, and what got worse."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from adaug.audits._text import aligned, number
from adaug.audits.plan import AS_IT_IS
from adaug.audits.statistics import (
    LEVEL,
    Array,
    Estimate,
    interval,
    lowest_share,
    mean_of,
    nanmean,
    nanmin,
    nanstd,
    resampled_mean,
    resampled_worst_mean,
    worst_mean,
)
from adaug.audits.table import Table

__all__ = ["Change", "Comparison"]


@dataclass(frozen=True, eq=False)
class Change:
    """How one statistic changes.

    Attributes:
        name: The statistic, such as "worst per image, all views".
        before: Its value in the first audit.
        after: Its value in the second audit.
        difference: after - before, with a 95 % interval from pairs of scores of the same image.
        gain: The difference with its sign turned so that above 0 is better. In `Comparison.changes` its interval is wider: with
            95 %, all intervals hold together. Otherwise one of thirty statistics would seem to move by chance.
        resampled: The gain in each resample of the bootstrap.
    """

    name: str
    before: float
    after: float
    difference: Estimate
    gain: Estimate
    resampled: Array = field(repr=False)

    @property
    def better(self) -> bool | None:
        """True if the whole interval of the gain lies above 0, False if below. None if it contains 0."""
        return True if self.gain.low > 0 else False if self.gain.high < 0 else None


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
        if list(before.images) != list(after.images) or before.scores.shape != after.scores.shape:
            raise ValueError(
                f"Two audits should hold the same images in the same order. Found {len(before)} and {len(after)} images, "
                "which are not the same; audit both with a loader that does not shuffle."
            )
        self.before, self.after = before, after

    # ---- statistics

    @cached_property
    def changes(self) -> tuple[Change, ...]:
        """All changes: images as they are, then each statistic over all views and over the views of each family."""
        changes = [self.mean(AS_IT_IS)]
        names: list[str | None] = [None, *(f.name for f in self.before.families if len(f.views) > 1)]
        for views in names:
            changes += [self.mean(views), self.worst(views), self.worst_per_image(views), self.cvar(views=views)]
            if self.before.right_or_wrong and self.after.right_or_wrong:
                changes.append(self.in_every_view(views))
        return _together(changes)

    def mean(self, views: str | Sequence[str] | None = None, group: str | None = None) -> Change:
        """The change of the mean over images and views."""
        return self._of_images("mean", [nanmean(t, axis=1) for t in self._tables(views, group)], views)

    def worst_per_image(self, views: str | Sequence[str] | None = None, group: str | None = None) -> Change:
        """The change of the mean over images of each image's worst score."""
        values = [nanmin(table, axis=1) for table in self._tables(views, group)]
        return self._of_images("worst per image", values, views)

    def cvar(self, share: float = 0.1, views: str | Sequence[str] | None = None, group: str | None = None) -> Change:
        """The change of `Audit.cvar`: the mean over the worst views of each image, a `share` of all views."""
        values = [lowest_share(table, share) for table in self._tables(views, group)]
        return self._of_images(f"worst {share * 100:g} % per image", values, views)

    def worst(self, views: str | Sequence[str] | None = None, group: str | None = None) -> Change:
        """The change of the mean of the worst view. Before and after, this may be different views."""
        tables = self._tables(views, group)
        (_, before), (_, after) = (worst_mean(table, self._drawn) for table in tables)
        resampled = [resampled_worst_mean(table, self._drawn) for table in tables]
        return self._change(self._named("worst view", views), float(before), float(after), resampled[1] - resampled[0])

    def in_every_view(self, views: str | Sequence[str] | None = None, group: str | None = None) -> Change:
        """The change of the fraction of images (or parts) that are right in every view in which they count."""
        before, after = (audit.in_every_view(views, group) for audit in (self.before, self.after))
        (hits, counts), (other_hits, other_counts) = (audit.always_right(views, group) for audit in (self.before, self.after))
        with np.errstate(invalid="ignore", divide="ignore"):
            resampled = self._drawn @ other_hits / (self._drawn @ other_counts) - self._drawn @ hits / (self._drawn @ counts)
        resampled = max(self.before.top, self.after.top) * resampled  # of which one may hold nothing that is right
        difference = Estimate(float(after) - float(before), *interval(resampled))
        name = self._named("in every view", views)  # more is better, whatever the scores are
        return Change(name, float(before), float(after), difference, difference, resampled)

    def by_view(self, views: str | Sequence[str] | None = None, group: str | None = None) -> tuple[Change, ...]:
        """The change of the mean of each view."""
        names = [self.before.views[column] for column in self.before.columns(views)]
        before, after = self._tables(views, group)
        return _together([self._of_images("", [before[:, i], after[:, i]], [name], name=name) for i, name in enumerate(names)])

    def worse(self, by: float = 0.0) -> list[str]:
        """Names what got worse beyond doubt, by more than `by` (in the unit of the scores).

        "Beyond doubt" means that the interval of the gain, which holds for all `changes` together, lies below 0. The list is
        empty if nothing did, so a test can say `assert not before.compare(after).worse(by=0.5)`: half a point for scores of 0
        and 100.
        """
        return [change.name for change in self.changes if change.better is False and change.gain < -by]

    def better(self, by: float = 0.0) -> list[str]:
        """Names what got better beyond doubt, by more than `by`."""
        return [change.name for change in self.changes if change.better and change.gain > by]

    def __str__(self) -> str:
        rows = [["", "before", "after", "difference", ""]]
        for change in self.changes:
            low, high = (number(end, sign=True) for end in (change.difference.low, change.difference.high))
            difference = f"{number(change.difference, sign=True)} ({low} to {high})"
            mark = {True: "better", False: "worse", None: ""}[change.better]
            rows.append([change.name, number(change.before), number(change.after), difference, mark])
        heading = f"Comparison of {len(self.before)} images: {len(self.better())} of {len(self.changes)} better"
        return "\n".join([f"{heading}, {len(self.worse())} worse", "", *aligned(rows)])

    # ---- inside

    @property
    def _drawn(self) -> Array:
        return self.before.drawn

    def _tables(self, views: str | Sequence[str] | None, group: str | None) -> list[Array]:
        """Both tables [N, V], with signs such that lower is worse."""
        return [self.before.sign * audit.table(views, group) for audit in (self.before, self.after)]

    def _of_images(
        self, what: str, values: list[Array], views: str | Sequence[str] | None, *, name: str | None = None
    ) -> Change:
        """The change of the mean of [N] numbers. An image counts only if it has a number before and after."""
        both = np.isfinite(values[0]) & np.isfinite(values[1])
        before, after = (np.where(both, value, np.nan) for value in values)
        means = [float(mean_of(value, self._drawn)) for value in (before, after)]
        return self._change(name or self._named(what, views), means[0], means[1], resampled_mean(after - before, self._drawn))

    def _change(self, name: str, before: float, after: float, resampled: Array) -> Change:
        """Makes a Change of numbers whose signs are such that lower is worse."""
        gain = Estimate(after - before, *interval(resampled))
        low, high = sorted((self.before.sign * gain.low, self.before.sign * gain.high))
        difference = Estimate(self.before.sign * gain, low, high)
        return Change(name, self.before.sign * before, self.before.sign * after, difference, gain, resampled)

    @staticmethod
    def _named(what: str, views: str | Sequence[str] | None) -> str:
        if views == AS_IT_IS:
            return AS_IT_IS
        return f"{what}, {'all views' if views is None else views if isinstance(views, str) else ', '.join(views)}"


def _together(changes: Sequence[Change]) -> tuple[Change, ...]:
    """Widens the intervals of the gains so that all hold together: the largest deviation in each resample decides (max-t)."""
    table = np.stack([change.resampled for change in changes])  # [C, R]
    centre = np.array([[float(change.gain)] for change in changes])
    spread = nanstd(table, axis=1, keepdims=True)
    moves = np.isfinite(spread[:, 0]) & (spread[:, 0] > 0)
    if not moves.any():
        return tuple(changes)
    deviation = np.nan_to_num(np.abs(table[moves] - centre[moves]) / spread[moves])
    width = float(np.quantile(deviation.max(0), LEVEL)) * spread[:, 0]
    return tuple(
        replace(change, gain=Estimate(change.gain, change.gain - wide, change.gain + wide)) if moved else change
        for change, wide, moved in zip(changes, width, moves, strict=True)
    )

"""The table of an audit: the score of every image under every view, and its statistics."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from typing_extensions import Self

from adaug.audits.plan import AS_IT_IS
from adaug.audits.records import Case, Curve, FamilyTable, Grid, Picture
from adaug.audits.statistics import (
    Array,
    Estimate,
    lowest_share,
    mean_of,
    nanmean,
    nanmin,
    ratio_of,
    weights,
    worst_mean,
    worst_view,
)

__all__ = ["Table"]

SHARE = 0.1  # of an image's views: the tail that `cvar` averages


@dataclass(frozen=True, eq=False, repr=False)
class Table:
    """The scores of a model on every image under every view, and their statistics.

    The fields are those of `Audit`, which adds what one does with a table: compare, draw and save it.
    """

    scores: np.ndarray[Any, np.dtype[np.float32]]
    families: tuple[FamilyTable, ...]
    higher_is_better: bool = True
    groups: Mapping[str, Sequence[int]] = field(default_factory=dict)
    images: Sequence[str] = ()
    seed: int = 0
    excluded: Mapping[str, int] = field(default_factory=dict)
    pictures: Sequence[Picture] = ()
    labels: Sequence[str] = ()
    identity: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        kept = {
            "scores": np.asarray(self.scores, dtype=np.float32),
            "families": tuple(self.families),
            "higher_is_better": bool(self.higher_is_better),
            "groups": {str(name): tuple(map(int, parts)) for name, parts in self.groups.items()},
            "images": tuple(map(str, self.images)),
            "seed": int(self.seed),
            "excluded": {str(reason): int(times) for reason, times in self.excluded.items()},
            "pictures": tuple(self.pictures),
            "labels": tuple(map(str, self.labels)),
            "identity": {str(name): str(known) for name, known in self.identity.items()},
        }
        for name, value in kept.items():
            object.__setattr__(self, name, value)

    # ---- the table

    @property
    def views(self) -> tuple[str, ...]:
        """The name of each view, [V]."""
        return tuple(view for family in self.families for view in family.views)

    def __len__(self) -> int:
        return len(self.scores)

    def detail(self, view: str) -> str:
        """The name of a view, with what it does if the name does not tell: "draw 3 (scale 1.31, rotate -48°)"."""
        for family in self.families:
            if view in family.views and family.details:
                return f"{view} ({family.details[family.views.index(view)]})"
        return view

    def family(self, name: str) -> FamilyTable:
        """The family of this name. If there is none, the KeyError names all families."""
        for family in self.families:
            if family.name == name:
                return family
        raise KeyError(f"`views` should be one of {', '.join(family.name for family in self.families)}. Found {name!r}.")

    def columns(self, views: str | Sequence[str] | None = None) -> list[int]:
        """The columns of views in the table: of all, of a family, or of one or several views by their names."""
        if views is None:
            return list(range(len(self.views)))
        if isinstance(views, str) and views in self.views and all(views != family.name for family in self.families):
            return [self.views.index(views)]
        if isinstance(views, str):
            return list(self.family(views).columns)
        unknown = [name for name in views if name not in self.views]
        if unknown:
            raise KeyError(f"`views` should be names of views. Found {unknown[0]!r}; see `audit.views`.")
        return [self.views.index(name) for name in views]

    def table(self, views: str | Sequence[str] | None = None, group: str | None = None) -> Array:
        """The score of each image under each view, averaged over its parts or over those of a group. [N, V]."""
        return self._by_image(self._chosen(views, group))

    def _chosen(self, views: str | Sequence[str] | None, group: str | None) -> Array:
        """The scores of some views and parts, [N, V] or [N, V, K]."""
        chosen = self.scores[:, self.columns(views)].astype(float)
        if group is None:
            return chosen
        if group not in self.groups:
            raise KeyError(f"`group` should be one of {', '.join(self.groups) or 'none'}. Found {group!r}.")
        return chosen[:, :, list(self.groups[group])]

    @staticmethod
    def _by_image(chosen: Array) -> Array:
        return chosen if chosen.ndim == 2 else nanmean(chosen, axis=2)

    @cached_property
    def drawn(self) -> Array:
        """How often each resample of the bootstrap draws each image, [R, N]."""
        return weights(len(self), self.seed)

    @property
    def worse_end(self) -> str:
        """Which scores are worse, "lower" or "higher"."""
        return "lower" if self.higher_is_better else "higher"

    @property
    def sign(self) -> float:
        """What turns scores so that lower is worse: 1 or -1."""
        return 1.0 if self.higher_is_better else -1.0

    def _turned(self, estimate: Estimate) -> Estimate:
        """Restores the sign of an estimate that was computed with lower as worse."""
        low, high = sorted((self.sign * estimate.low, self.sign * estimate.high))
        return Estimate(self.sign * float(estimate), low, high)

    # ---- statistics

    def mean(self, views: str | Sequence[str] | None = None, group: str | None = None) -> Estimate:
        """The mean score: over views for each image, then over images."""
        return mean_of(nanmean(self.table(views, group), axis=1), self.drawn)

    def worst(self, views: str | Sequence[str] | None = None, group: str | None = None) -> tuple[str, Estimate]:
        """The view with the worst mean over images, and this mean.

        Each resample of the bootstrap may have another worst view, so the interval leans to the worse side.
        """
        column, estimate = worst_mean(self.sign * self.table(views, group), self.drawn)
        return self.views[self.columns(views)[column]], self._turned(estimate)

    def worst_per_image(self, views: str | Sequence[str] | None = None, group: str | None = None) -> Estimate:
        """The mean over images of each image's worst score: what an adversary who knows the network would leave."""
        worst = nanmin(self.sign * self.table(views, group), axis=1)
        return self._turned(mean_of(worst, self.drawn))

    def cvar(self, share: float = SHARE, views: str | Sequence[str] | None = None, group: str | None = None) -> Estimate:
        """Conditional value at risk: like `worst_per_image`, but the mean over the worst `share` of each image's views."""
        if not 0 < share <= 1:
            raise ValueError(f"`share` should be in (0, 1]. Found {share}.")
        return self._turned(mean_of(lowest_share(self.sign * self.table(views, group), share), self.drawn))

    @cached_property
    def right_or_wrong(self) -> bool:
        """Whether every score is 0 or 1, or every score is 0 or 100 (per cent)."""
        finite = self.scores[np.isfinite(self.scores)]
        return any(bool(np.isin(finite, (0, top)).all()) for top in (1, 100))

    def in_every_view(self, views: str | Sequence[str] | None = None, group: str | None = None) -> Estimate:
        """The fraction of images (or parts) that are right in every view in which they count, in the unit of the scores.

        Raises:
            ValueError: The scores are not all 0 and 1, or all 0 and 100.
        """
        share, top = ratio_of(*self.always_right(views, group), self.drawn), self.top
        return Estimate(top * share, top * share.low, top * share.high)

    @property
    def top(self) -> float:
        """The score of what is right: 1, or 100 for per cent."""
        return 100.0 if (self.scores[np.isfinite(self.scores)] > 1).any() else 1.0

    def always_right(self, views: str | Sequence[str] | None = None, group: str | None = None) -> tuple[Array, Array]:
        """How many parts of each image are right in every view in which they count, [N], and how many count, [N]."""
        if not self.right_or_wrong:
            raise ValueError(
                "`in_every_view` should have scores of 0 and 1, or of 0 and 100. Found others; let `score` say whether an "
                "image (or a part) is right, such as whether an error is below a threshold."
            )
        chosen = self._chosen(views, group)
        chosen = chosen[..., None] if chosen.ndim == 2 else chosen  # [N, V, K]
        right = self.top if self.higher_is_better else 0.0
        counts = np.isfinite(chosen).any(1)  # [N, K]
        always = counts & ((chosen == right) | ~np.isfinite(chosen)).all(1)
        return always.sum(1).astype(float), counts.sum(1).astype(float)

    def by_view(self, views: str | Sequence[str] | None = None, group: str | None = None) -> tuple[Estimate, ...]:
        """The mean score of each view, [V]."""
        return tuple(mean_of(column, self.drawn) for column in self.table(views, group).T)

    def counted(self, views: str | Sequence[str] | None = None, group: str | None = None) -> Array:
        """The fraction that counts in each view, of the images (or parts) that count as they are. [V]."""
        chosen, plain = self._chosen(views, group), self._chosen(AS_IT_IS, group)
        base = max(1, int(np.isfinite(plain).sum()))
        return np.asarray(np.isfinite(chosen).sum(axis=tuple(i for i in range(chosen.ndim) if i != 1)) / base, dtype=float)

    def in_all_views(self, views: str | Sequence[str] | None = None) -> float:
        """The fraction that counts in all of some views, of the images (or parts) that count as they are."""
        plain = np.isfinite(self._chosen(AS_IT_IS, None))[:, 0]
        always = np.isfinite(self._chosen(views, None)).all(1)
        return float(always.sum() / max(1, plain.sum()))

    def curve(self, operation: str, group: str | None = None, *, alike: bool = False) -> Curve:
        """The mean score at each bin of an operation alone.

        Args:
            operation: The name of the operation.
            group: A group of parts. By default all parts count.
            alike: Whether to leave out every part that does not count at some bin, so that all bins are compared on the same
                parts. A joint that leaves the frame at one bin then counts at none.
        """
        if operation not in self.operations:
            raise KeyError(f"`operation` should be one of {', '.join(self.operations) or 'none'}. Found {operation!r}.")
        family = self.family(operation)
        chosen = self._chosen(operation, group)
        if alike:
            chosen = np.where(np.isfinite(chosen).all(1, keepdims=True), chosen, np.nan)
        means = tuple(mean_of(column, self.drawn) for column in self._by_image(chosen).T)
        return Curve(family.axes[0], means, tuple(map(float, self.counted(operation, group))))

    def grid(self, one: str, other: str, group: str | None = None) -> Grid:
        """The mean score at each pair of bins of two operations together, `one` down and `other` across."""
        family = next((f for f in self.families if [axis.operation for axis in f.axes] == [one, other]), None)
        if family is None:
            turned = next((f for f in self.families if [axis.operation for axis in f.axes] == [other, one]), None)
            if turned is None:
                pairs = [f.name for f in self.families if len(f.axes) == 2]
                raise KeyError(f"`one` and `other` should be a pair of {', '.join(pairs) or 'none'}. Found {one!r}, {other!r}.")
            grid = self.grid(other, one, group)
            return Grid((grid.axes[1], grid.axes[0]), grid.mean.T, grid.counted.T)
        shape = tuple(len(axis.labels) for axis in family.axes)
        means = nanmean(self.table(family.name, group), axis=0).reshape(shape)
        return Grid((family.axes[0], family.axes[1]), means, self.counted(family.name, group).reshape(shape))

    @property
    def operations(self) -> tuple[str, ...]:
        """The operations that have a curve."""
        return tuple(family.name for family in self.families if len(family.axes) == 1)

    def relative(self) -> Self:
        """The same audit with differences: each score minus that of the image as it is."""
        plain = self.scores[:, self.columns(AS_IT_IS)]
        return dataclasses.replace(self, scores=self.scores - plain)

    def weakest(self, most: int = 10, views: str | Sequence[str] | None = None, group: str | None = None) -> list[Case]:
        """The images with the worst scores, each with its worst view, the worst first.

        If worst scores are equal, images that are better as they are come first, because there the view is to blame; then those
        that are worse on average. If views of an image are equally bad, the one that is easiest for all images is named.
        """
        table, plain = self.sign * self.table(views, group), self.table(AS_IT_IS, group)[:, 0]
        worst, average = (f(table, axis=1) for f in (nanmin, nanmean))
        order = [i for i in np.lexsort((average, -self.sign * plain, worst)) if np.isfinite(worst[i])][:most]
        names = [self.views[column] for column in self.columns(views)]
        return [Case(int(i), names[worst_view(table, i)], self.sign * float(worst[i]), float(plain[i])) for i in order]

"""Statistics of a table of scores: means, worst cases and intervals. Pure functions of arrays; NaN does not count.

Every statistic is a mean of one number for each image, or the worst of such means, so one bootstrap over images serves all.
The signs of tables are such that lower is worse.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from typing_extensions import Self

__all__ = ["Estimate"]

Array = npt.NDArray[np.float64]
RESAMPLES = 1000
NUMBERS = 2 * 10**7  # the most that the bootstrap may hold: with very many images it resamples less often
LEVEL = 0.95
WHOLE = 0.995  # a fraction from here on is shown as 100 %


class Estimate(float):
    """A number with its interval: a float with two more attributes.

    Attributes:
        low: The lower end of the 95 % bootstrap interval over images.
        high: The upper end.
    """

    low: float
    high: float

    def __new__(cls, value: float, low: float, high: float) -> Self:
        made = super().__new__(cls, value)
        made.low, made.high = float(low), float(high)
        return made

    def __getnewargs__(self) -> tuple[float, float, float]:  # type: ignore[override]  # a float of three numbers
        return float(self), self.low, self.high

    def __repr__(self) -> str:
        return f"{float(self):.4g} ({self.low:.4g} to {self.high:.4g})"


def weights(images: int, seed: int) -> Array:
    """How often each resample of the bootstrap draws each image, [R, N]."""
    if images < 2:  # there is no interval for one image
        return np.full((1, images), np.nan)
    random = np.random.default_rng(seed)
    resamples = max(100, min(RESAMPLES, NUMBERS // images))
    return random.multinomial(images, np.full(images, 1 / images), size=resamples).astype(float)


def _quiet(function: Callable[..., Any]) -> Callable[..., Array]:
    """Wraps a NaN-aware NumPy function: no warnings about rows of NaN."""

    def quiet(*args: object, **kwargs: object) -> Array:
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            reduced: Array = function(*args, **kwargs)
            return reduced

    return quiet


nanmean = _quiet(np.nanmean)
nanmin = _quiet(np.nanmin)
nanstd = _quiet(np.nanstd)


def mean_of(values: Array, drawn: Array) -> Estimate:
    """The mean of [N], with its interval."""
    return ratio_of(np.where(np.isfinite(values), values, 0), np.isfinite(values).astype(float), drawn)


def resampled_mean(values: Array, drawn: Array) -> Array:
    """The mean over images in each resample: [N] -> [R], or [N, V] -> [R, V]."""
    finite = np.isfinite(values)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((drawn @ np.where(finite, values, 0)) / (drawn @ finite.astype(float)), dtype=float)


def ratio_of(hits: Array, counts: Array, drawn: Array) -> Estimate:
    """The sum of `hits` [N] divided by the sum of `counts` [N], with its interval."""
    total = counts.sum()
    if not total:
        return Estimate(np.nan, np.nan, np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):
        resampled = (drawn @ hits) / (drawn @ counts)
    return Estimate(hits.sum() / total, *interval(resampled))


def worst_mean(table: Array, drawn: Array) -> tuple[int, Estimate]:
    """The column of [N, V] with the lowest mean, and this mean with the interval of the minimum."""
    means = nanmean(table, axis=0)
    if not np.isfinite(means).any():
        return 0, Estimate(np.nan, np.nan, np.nan)
    worst = int(np.nanargmin(means))
    return worst, Estimate(means[worst], *interval(resampled_worst_mean(table, drawn)))


def resampled_worst_mean(table: Array, drawn: Array) -> Array:
    """The lowest mean of a column of [N, V] in each resample, [R]."""
    return nanmin(resampled_mean(table, drawn), axis=1)


def lowest_share(table: Array, share: float) -> Array:
    """CVaR: the mean of the lowest `share` of each row's numbers, at least one of them. [N, V] -> [N]."""
    ordered = np.sort(table, axis=1)  # NaN last
    counts = np.isfinite(table).sum(1)
    taken = np.ceil(share * counts - 1e-9).clip(min=1)
    keep = np.arange(table.shape[1])[None] < taken[:, None]
    return nanmean(np.where(keep, ordered, np.nan), axis=1)


def worst_view(table: Array, row: int) -> int:
    """The column of the lowest number in a row of [N, V]. Of equal ones, that with the highest mean over all rows."""
    tied = table[row] == nanmin(table[row])
    return int(np.argmax(np.where(tied, np.nan_to_num(nanmean(table, axis=0), nan=-np.inf), -np.inf)))


def interval(resampled: Array) -> tuple[float, float]:
    """The ends of the interval that holds 95 % of the resamples [R]."""
    finite = resampled[np.isfinite(resampled)]
    if not len(finite):
        return np.nan, np.nan
    low, high = np.quantile(finite, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)

"""Curves as inline SVG: means with their intervals, the score as it is, and the fraction that counts."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from adaug.audits._report.numbers import Numbers, minus, share
from adaug.audits.statistics import WHOLE, Estimate

WIDTH, HEIGHT = 360, 216
LEFT, RIGHT, TOP, BOTTOM = 50, 12, 12, 30
STRIP = 26  # more height at the bottom, if not all counts
LETTER = 6.6  # width of a letter
LONGEST = 9  # letters of a label below a curve

Point = tuple[float, float]


@dataclass(frozen=True)
class Series:
    """One curve, named "now", "before" or "after". `plain` is the score of the images as they are."""

    name: str
    means: Sequence[Estimate]
    plain: float


@dataclass(frozen=True)
class Range:
    """The range of scores, the same for every curve of a page."""

    low: float
    high: float

    @staticmethod
    def of(estimates: Sequence[float], numbers: Numbers) -> Range:
        """The range that holds all numbers with their intervals."""
        ends = [end for e in estimates for end in (float(e), getattr(e, "low", math.nan), getattr(e, "high", math.nan))]
        finite = [end for end in ends if math.isfinite(end)] or [0.0, 1.0]
        low, high = min(finite), max(finite)
        room = 0.06 * (high - low) or max(abs(high), 1e-6) * 0.1
        low, high = low - room, high + room
        return Range(max(low, 0.0), min(high, 1.0)) if numbers.shares else Range(low, high)

    def ticks(self) -> list[float]:
        """Three to six round numbers."""
        rough = (self.high - self.low) / 4
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * 0.999)
        first = math.ceil(self.low / step - 1e-9)
        return [i * step for i in range(first, math.floor(self.high / step + 1e-9) + 1)]


def curve(
    title: str,
    series: Sequence[Series],
    labels: Sequence[str],
    positions: Sequence[float],
    limits: Range,
    numbers: Numbers,
    counted: Sequence[float] = (),
) -> str:
    """One panel. `positions` place the bins from left to right. `counted` is drawn if some of it is below 100 %."""
    strip = STRIP if any(value < WHOLE for value in counted) else 0
    frame = _Frame(positions, limits, strip)
    parts = [*_axes(frame, labels, limits, numbers)]
    if strip:
        parts += _counted(frame, counted, labels)
    for one in series:
        parts += _series(frame, one, labels, numbers)
    return (
        f'<svg class="curve" viewBox="0 0 {WIDTH} {frame.height}" role="img" aria-label="{escape(title)}">'
        f"{''.join(parts)}</svg>"
    )


class _Frame:
    """The places of numbers in a panel."""

    def __init__(self, positions: Sequence[float], limits: Range, strip: int) -> None:
        self.positions, self.limits = positions, limits
        self.bottom = HEIGHT - BOTTOM
        self.height = HEIGHT + strip
        low, high = min(positions), max(positions)
        inset = 10
        span = WIDTH - LEFT - RIGHT - 2 * inset
        self.x = [LEFT + inset + span * ((p - low) / (high - low) if high > low else 0.5) for p in positions]

    def y(self, value: float) -> float:
        part = (value - self.limits.low) / (self.limits.high - self.limits.low)
        return self.bottom - (self.bottom - TOP) * min(max(part, 0.0), 1.0)


def _axes(frame: _Frame, labels: Sequence[str], limits: Range, numbers: Numbers) -> list[str]:
    ticks = limits.ticks()
    texts = numbers.short(ticks)
    if len(set(texts)) < len(texts):  # so close that few decimals make them equal
        texts = [minus(f"{100 * t if numbers.shares else t:.4g}") for t in ticks]
    parts = []
    for tick, text in zip(ticks, texts, strict=True):
        y = frame.y(tick)
        parts.append(f'<line class="rule" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        unit = "%" if numbers.shares else ""
        parts.append(f'<text class="end" x="{LEFT - 8}" y="{y + 4:.1f}">{text}{unit}</text>')
    for i in _shown(frame.x, labels):
        parts.append(f'<text class="middle" x="{frame.x[i]:.1f}" y="{frame.bottom + 18}">{escape(_short(labels[i]))}</text>')
    return parts


def _shown(x: Sequence[float], labels: Sequence[str]) -> list[int]:
    """The labels that fit, evenly spaced from the first on."""
    widest = max(len(_short(label)) for label in labels) * LETTER + 8
    for step in range(1, len(labels) + 1):
        kept = list(range(0, len(labels), step))
        gaps = [x[b] - x[a] for a, b in itertools.pairwise(kept)]
        if (len(labels) - 1) % step == 0 and min(gaps, default=widest) >= widest:
            return kept
    for step in range(1, len(labels) + 1):
        kept = list(range(0, len(labels), step))
        if min((x[b] - x[a] for a, b in itertools.pairwise(kept)), default=widest) >= widest:
            return kept
    return [0]


def _short(label: str) -> str:
    label = minus(label)
    return label if len(label) <= LONGEST else label[: LONGEST - 1] + "…"


def _series(frame: _Frame, series: Series, labels: Sequence[str], numbers: Numbers) -> list[str]:
    parts = []
    if math.isfinite(series.plain):
        y = frame.y(series.plain)
        says = f"as it is{'' if series.name == 'now' else ', ' + series.name}: {numbers.value(series.plain)}"
        parts.append(
            f'<line class="plain {series.name}" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}">'
            f"<title>{escape(says)}</title></line>"
        )
    for run in _runs(series.means):
        if all(math.isfinite(series.means[i].low) and math.isfinite(series.means[i].high) for i in run):
            parts.append(_band(frame, series, run))
        if len(run) > 1:
            points = " ".join(f"{frame.x[i]:.1f},{frame.y(series.means[i]):.1f}" for i in run)
            parts.append(f'<polyline class="mean {series.name}" points="{points}"/>')
        for i in run:
            says = f"{minus(labels[i])}: {numbers.with_interval(series.means[i])}"
            parts.append(_mark(series.name, frame.x[i], frame.y(series.means[i]), says, small=len(labels) > 30))
    return parts


def _runs(means: Sequence[Estimate]) -> list[list[int]]:
    """The indices of finite numbers, split at gaps."""
    runs: list[list[int]] = []
    for i, mean in enumerate(means):
        if math.isfinite(mean):
            if runs and runs[-1][-1] == i - 1:
                runs[-1].append(i)
            else:
                runs.append([i])
    return runs


def _band(frame: _Frame, series: Series, run: list[int]) -> str:
    if len(run) == 1:
        i = run[0]
        low, high = frame.y(series.means[i].low), frame.y(series.means[i].high)
        return f'<line class="bar {series.name}" x1="{frame.x[i]:.1f}" x2="{frame.x[i]:.1f}" y1="{low:.1f}" y2="{high:.1f}"/>'
    upper = [(frame.x[i], frame.y(series.means[i].high)) for i in run]
    lower = [(frame.x[i], frame.y(series.means[i].low)) for i in reversed(run)]
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in [*upper, *lower])
    return f'<polygon class="band {series.name}" points="{points}"/>'


def _mark(name: str, x: float, y: float, says: str, *, small: bool) -> str:
    """A circle, or a square for "before", so that readers need no colour to tell them apart."""
    r = 1.8 if small else 3.2
    title = f"<title>{escape(says)}</title>"
    if name == "before":
        return f'<rect class="mark before" x="{x - r:.1f}" y="{y - r:.1f}" width="{2 * r}" height="{2 * r}">{title}</rect>'
    return f'<circle class="mark {name}" cx="{x:.1f}" cy="{y:.1f}" r="{r}">{title}</circle>'


def _counted(frame: _Frame, counted: Sequence[float], labels: Sequence[str]) -> list[str]:
    """Columns below the curve that show which fraction counts at each bin."""
    top, most = frame.bottom + 28, 18.0
    gaps = np.diff(frame.x) if len(frame.x) > 1 else np.array([60.0])
    width = max(2.0, min(18.0, float(gaps.min()) * 0.7))
    parts = [f'<text class="end" x="{LEFT - 8}" y="{top + 13}">counts</text>']
    for x, value, label in zip(frame.x, counted, labels, strict=True):
        height = most * min(max(value, 0.0), 1.0)
        at = f'x="{x - width / 2:.1f}" width="{width:.1f}"'
        parts.append(f'<rect class="empty" {at} y="{top}" height="{most}"/>')
        says = f"<title>{escape(minus(label))}: {share(value)} counts</title>"
        parts.append(f'<rect class="counted" {at} y="{top + most - height:.1f}" height="{height:.1f}">{says}</rect>')
    return parts

"""An audit in plain text for the terminal, and its numbers as plain values."""

from __future__ import annotations

import math
from typing import Any

from adaug.audits._figures import ALL_VIEWS, ALWAYS, METHODS, TAIL, WORST, figures_of, groups_of
from adaug.audits.plan import AS_IT_IS
from adaug.audits.statistics import WHOLE, Estimate
from adaug.audits.table import Table

WIDTH = 96
BLOCKS = " ▁▂▃▄▅▆▇█"


def page(audit: Table) -> str:
    """What `print(audit)` shows."""
    parts = f" of {audit.scores.shape[2]} parts" if audit.scores.ndim == 3 else ""
    lines = [
        f"Audit: {len(audit)} images{parts}, {len(audit.views)} views; {audit.worse_end} scores are worse",
        "",
        *_families(audit),
    ]
    curves = [*_curves(audit)]
    if curves:
        lines += ["", "Each operation alone (left to right: its range; one scale for all)", *curves]
    stays = audit.in_all_views()
    if stays < WHOLE:
        lines += [
            "",
            f"{stays:.0%} count in all views; curve(..., alike=True) compares all bins on the same images or parts",
        ]
    if groups_of(audit):
        lines += ["", *_groups(audit)]
    cases = audit.weakest(5)
    if cases:
        lines += ["", "Weakest images"]
        lines += [
            f"  image {case.image}: {number(case.score)} under {audit.detail(case.view)} (as it is {number(case.as_it_is)})"
            for case in cases
        ]
    if audit.excluded:
        lines += ["", "Did not count: " + "; ".join(f"{times} {reason}" for reason, times in audit.excluded.items())]
    return "\n".join(line[:WIDTH] for line in lines)


def _families(audit: Table) -> list[str]:
    names: list[str | None] = [*(family.name for family in audit.families), None]
    figures = {name: figures_of([audit], name) for name in names}
    titles = [figure for figure in METHODS if any(figure in own for own in figures.values())]
    above, tail = TAIL.split(" per")[0], f"per{TAIL.split(' per')[1]}"
    rows = [["", *(above if title == TAIL else "" for title in titles)]] if TAIL in titles else []
    rows.append(["", *(tail if title == TAIL else title for title in titles)])  # in two lines, to fit a terminal
    for name, own in figures.items():
        cells = [number(figure(audit, title, name)) if title in own else "" for title in titles]
        cells[0] = _interval(figure(audit, titles[0], name))
        rows.append([name or ALL_VIEWS, *cells])
    return aligned(rows)


def figure(audit: Table, name: str, views: str | None = None, group: str | None = None) -> Estimate:
    """A figure by its name."""
    value = getattr(audit, METHODS[name])(views=views, group=group)
    estimate: Estimate = value[1] if name == WORST else value
    return estimate


def _groups(audit: Table) -> list[str]:
    figures = {group: figures_of([audit], None, group) for group in groups_of(audit)}
    titles = [title for title in METHODS if any(title in own for own in figures.values())]
    rows = [["group", AS_IT_IS, *titles]]
    for group, own in figures.items():
        cells = [number(figure(audit, title, None, group)) if title in own else "" for title in titles]
        rows.append([group, number(audit.mean(AS_IT_IS, group)), *cells])
    return aligned(rows)


def _curves(audit: Table) -> list[str]:
    lines = []
    means = [float(mean) for name in audit.operations for mean in audit.curve(name).mean if math.isfinite(mean)]
    low, high = min(means, default=0.0), max(means, default=0.0)
    high = max(high, low + 0.1 * abs(high))  # one range for all curves, and tiny differences should not look large
    for name in audit.operations:
        curve = audit.curve(name)
        values = [float(mean) for mean in curve.mean]
        view, worst = audit.worst(name)
        fewest = min(curve.counted)
        note = f"; at least {fewest:.0%} count" if fewest < WHOLE else ""
        ends = f"{curve.axis.labels[0]} to {curve.axis.labels[-1]}"
        where = view.removeprefix(name).strip()
        lines.append(f"  {name:12} {_sparkline(values, low, high)}  {ends}; worst {number(worst)} at {where}{note}")
    return lines


def _sparkline(values: list[float], low: float, high: float) -> str:
    span = max(high - low, 1e-12)
    return "".join(BLOCKS[1 + round((v - low) / span * (len(BLOCKS) - 2))] if math.isfinite(v) else "?" for v in values)


def aligned(rows: list[list[str]]) -> list[str]:
    """The lines of a table whose first row is its heading."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    widths[0] = min(widths[0], WIDTH - sum(widths[1:]) - 2 * (len(widths) - 1))

    def line(row: list[str]) -> str:
        first, *others = zip(row, widths, strict=True)
        name = first[0] if len(first[0]) <= first[1] else f"{first[0][: first[1] - 1]}…"
        return "  ".join([name.ljust(first[1]), *(cell.rjust(width) for cell, width in others)]).rstrip()

    return list(map(line, rows))


def _interval(estimate: Estimate) -> str:
    return f"{number(estimate)} ({number(estimate.low)} to {number(estimate.high)})"


def number(value: float, *, sign: bool = False) -> str:
    """Three digits, with a minus sign instead of a hyphen."""
    if not math.isfinite(value):
        return "–"
    return f"{float(value):{'+' if sign else ''}.3g}".replace("-", "−")


# ---- plain values


def summary(audit: Table) -> dict[str, Any]:
    """All statistics as lists, strings and numbers, without the table of scores."""
    return {
        "images": len(audit),
        "higher_is_better": audit.higher_is_better,
        "seed": audit.seed,
        "views": list(audit.views),
        "by_view": list(map(_plain, audit.by_view())),
        "counted": [_finite(value) for value in audit.counted()],
        "families": {family.name: _statistics(audit, family.name, None) for family in audit.families},
        ALL_VIEWS: _statistics(audit, None, None),
        "groups": {group: _statistics(audit, None, group) for group in audit.groups},
        "curves": {
            name: {
                "centres": list(audit.curve(name).axis.centres),
                "labels": list(audit.curve(name).axis.labels),
                "mean": list(map(_plain, audit.curve(name).mean)),
                "counted": [_finite(value) for value in audit.curve(name).counted],
            }
            for name in audit.operations
        },
        "weakest": [
            {"image": case.image, "view": case.view, "score": _finite(case.score), "as_it_is": _finite(case.as_it_is)}
            for case in audit.weakest(20)
        ],
        "excluded": dict(audit.excluded),
    }


def _statistics(audit: Table, views: str | None, group: str | None) -> dict[str, Any]:
    names = [name for name in METHODS if name != ALWAYS or audit.right_or_wrong]
    values: dict[str, Any] = {name: _plain(figure(audit, name, views, group)) for name in names}
    values[WORST] = {"view": audit.worst(views, group)[0], **values[WORST]}
    return values


def _plain(estimate: Estimate) -> dict[str, float | None]:
    return {"value": _finite(estimate), "low": _finite(estimate.low), "high": _finite(estimate.high)}


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None

"""The views that networks are audited under, and tables in Markdown: scores, audits, and what training found hard."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import adaug

# Turned by -60 to 60 degrees in steps of 20, scaled by 0.71, 1 and 1.41, and one of 4 x 4 cells hidden.
VIEWS = (adaug.Rotate(-70, 70, 7), adaug.Scale(2**-0.75, 2**0.75, 3, log=True), adaug.OccludeImage((4, 4), (1,)))
SHORT = "No difference is beyond chance: train longer, or audit more images."
LEGEND = """Worst per image: each image in its worst view of the grid; worst 10 %: in its worst tenth of it.
Chance: of the images, for all lines together. Another training may differ by more."""
NEXT = "Next: audit your own network (docs/read-an-audit.md), then put two lines into your loop (docs/train.md)."
PAGE = "audit.html"
GRID = "rotate × scale"  # all rotations at all scales: the yardstick
FIGURES = ("mean", "worst view", "worst per image", "worst 10 % per image", "in every view")


# -- scores ----------------------------------------------------------------------------------------------------------


def difference(scores: Mapping[str, float], base: Mapping[str, float]) -> dict[str, str]:
    """Each score minus that of the base."""
    return {name: f"{value - base[name]:+.1f}".replace("-", "−") for name, value in scores.items()}


def average(scores: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each score over runs, such as seeds."""
    return {name: sum(run[name] for run in scores) / len(scores) for name in scores[0]}


def markdown_table(rows: Mapping[str, Mapping[str, float | str]], corner: str = "") -> str:
    """A table of rows with the columns of the first row. Numbers have one decimal; a missing one is a dash."""
    columns = list(next(iter(rows.values())))
    lines = [[corner, *columns], *([name, *(_cell(row.get(column)) for column in columns)] for name, row in rows.items())]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns) + 1)]

    def joined(line: list[str]) -> str:
        cells = [line[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))]
        return f"| {' | '.join(cells)} |"

    rule = "|".join(["-" * (widths[0] + 2), *(f"{'-' * (width + 1)}:" for width in widths[1:])])
    return "\n".join([joined(lines[0]), f"|{rule}|", *map(joined, lines[1:])])


def with_differences(scores: Mapping[str, Mapping[str, float]], corner: str = "") -> str:
    """A table of all arms, then a table of their differences from the first arm."""
    base = next(iter(scores))
    rows: dict[str, Mapping[str, float | str]] = dict(scores)
    rows |= {f"{arm} − {base}": difference(scores[arm], scores[base]) for arm in list(scores)[1:]}
    return markdown_table(rows, corner)


# -- audits ----------------------------------------------------------------------------------------------------------


def said(audit: adaug.Audit) -> dict[str, Any]:
    """The parts of an audit that a results file keeps: statistics of each family of views and curves, as plain values."""
    everything = audit.to_dict()
    return {name: everything[name] for name in ("families", "curves", "excluded")}


def statistics(kept: Mapping[str, Any]) -> dict[str, float]:
    """The main numbers from `said`, in per cent: as it is, on the grid, and with hidden cells."""
    families = kept["families"]
    grid, hidden = families[GRID], families["occlude"]
    values = {
        "as it is": families["as it is"]["mean"],
        "grid mean": grid["mean"],
        "weakest view": grid["worst view"],
        "worst per image": grid["worst per image"],
        "worst 10 %": grid["worst 10 % per image"],
        "in every view": grid.get("in every view"),
        "hidden": hidden["mean"],
        "worst hidden": hidden["worst per image"],
    }
    return {name: _per_cent(value) for name, value in values.items() if value is not None}


def each_view(kept: Mapping[str, Any]) -> dict[str, float]:
    """The mean score at each rotation and at each scale alone, in per cent."""
    curves = {name: kept["curves"][name] for name in ("rotate", "scale")}
    return {
        f"{name} {label}": _per_cent(mean)
        for name, curve in curves.items()
        for label, mean in zip(curve["labels"], curve["mean"], strict=True)
    }


def compared(before: adaug.Audit, after: adaug.Audit, names: tuple[str, str]) -> str:
    """The changes from one network to another in per cent, as Markdown. The 95 % intervals hold for all lines together."""
    shown = ("as it is", *(f"{name}, {GRID}" for name in FIGURES), "mean, occlude", "worst per image, occlude")
    changes = {change.name: change for change in before.compare(after).changes if change.name in shown}
    rows: dict[str, dict[str, float | str]] = {
        name: {
            names[0]: 100 * change.before,
            names[1]: 100 * change.after,
            "difference": _signed(change.difference),
            "95 % interval": f"{_signed(change.difference.low)} to {_signed(change.difference.high)}",
            "verdict": change.verdict,
        }
        for name, change in changes.items()
    }
    doubtful = "" if any(change.verdict in ("better", "worse") for change in changes.values()) else f"\n\n{SHORT}"
    return (
        f"{len(before)} images turned and scaled (the grid: {len(before.family(GRID).views)} views) or hidden in part\n\n"
        f"{markdown_table(rows, '%')}{doubtful}"
    )


def hard_views(augmenter: adaug.AdversarialAugmenter, measure: str) -> str:
    """What running difficulty found hardest and easiest by now and how often it draws that, as Markdown."""
    rows: dict[str, dict[str, float | str]] = {}
    for name, known in augmenter.difficulty_table().columns.items():
        order = sorted(range(len(known["bin"])), key=known["difficulty"].__getitem__)
        for word, i in (("hardest", order[-1]), ("easiest", order[0])):
            rows[f"{word} {augmenter.policy.operations[name].quantity}: {known['bin'][i]}"] = {
                measure: f"{known['difficulty'][i]:.3f} ± {known['error'][i]:.3f}",
                "drawn": f"{len(order) * known['probability'][i]:.1f} × uniform",
            }
    return (
        f"What training found hard, and how often it is now drawn where views are learned:\n\n{markdown_table(rows)}\n\n"
        "What differs by chance alone stays at 1.0 × uniform. A hidden cell is called by (row, column)."
    )


def show(audits: Mapping[str, adaug.Audit], out: Path | None) -> list[str]:
    """Prints how the last network differs from the first. With a folder it also writes a page; returns lines that name it."""
    (first, before), *_, (last, after) = [*audits.items()] * 2
    if first != last:
        print(f"From {first} to {last}: {compared(before, after, (first, last))}\n\n{LEGEND}", flush=True)
    if out is None:
        return []
    if first == last:
        return [f"  {before.html(out / PAGE)}: where {first} is weak"]
    page = before.html(out / PAGE, compared=after, title=f"From {first} to {last}")
    return [f"  {page}: where both are weak, on which images, and what is different with {last}"]


def _cell(value: float | str | None) -> str:
    if value is None or isinstance(value, str):
        return value or "–"
    return f"{value:.1f}" if value == value else "–"


def _per_cent(value: Mapping[str, float | None]) -> float:
    return math.nan if value["value"] is None else 100 * value["value"]


def _signed(value: float) -> str:
    return f"{100 * value:+.1f}".replace("-", "−")

"""Scores as Markdown tables, for the terminal and for pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


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


def _cell(value: float | str | None) -> str:
    if value is None or isinstance(value, str):
        return value or "–"
    return f"{value:.1f}" if value == value else "–"

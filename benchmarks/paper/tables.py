"""Prints Tables 1 to 3 of the paper with our runs beside its rows. No table calls drawn people MPII.

python -m benchmarks.paper.tables 1 runs/residual runs/dense
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.paper import published
from benchmarks.paper.comparisons import Comparison, read_comparisons
from examples.hourglass.tables import markdown_table

BLOCKS = {"residual": "residual hourglass (in the paper 3 modules, “38M”)", "dense": "dense hourglass (6 layers, “18M”)"}
OURS = {  # arms that the paper does not have
    "uniform": "Uniform bins and cells",
    "none": "No augmentation",
    "trivial": "In TrivialAugment's manner",
}
ORDER = (*published.ARMS, *OURS)  # the order of the rows
WHOLE = {"mpii-valid": 2958, "lsp-test": 1000}  # the number of people in the benchmarks' test sets
TITLES = {1: "which augmentation helps", 2: "eight stacks on MPII", 3: "Leeds Sports Pose"}
SOURCES = {1: "MPII validation set, PCKh@0.5", 2: "MPII test set, PCKh@0.5", 3: "LSP test set, PCK@0.2"}


@dataclass(frozen=True)
class Table:
    """A table with a title and notes for the reader. rows: name -> column -> cell."""

    title: str
    rows: Mapping[str, Mapping[str, str]]
    notes: Sequence[str] = ()

    def markdown(self) -> str:
        """The table as Markdown, with its title in bold."""
        return "\n\n".join([f"**{self.title}**", markdown_table(self.rows), *self.notes])


def number_of(comparison: Comparison) -> int:
    """The number of a comparison's table: 3 on LSP, 2 on MPII with several stacks, otherwise 1."""
    if comparison.data["kind"] == "lsp-test":
        return 3
    return 2 if comparison.data["kind"] == "mpii-valid" and comparison.config["stacks"] > 1 else 1


def tables_of(number: int, comparisons: Sequence[Comparison]) -> list[Table]:
    """A table for each comparison with this number. If it has other people than the paper, the paper's table comes first."""
    placed = [comparison for comparison in comparisons if number_of(comparison) == number]
    tables = []
    for block in BLOCKS if number == 1 else [""]:
        ours = [comparison for comparison in placed if not block or comparison.config["block"] == block]
        if not ours or not all(_same_people(number, comparison) for comparison in ours):
            title = f"The paper, {SOURCES[number]}" + (f": {BLOCKS[block]}" if block else "")
            notes = [] if ours else ["No run of ours was given."]
            tables.append(Table(title, _published(number, block), notes))
        tables += [_table(number, block, comparison) for comparison in ours]
    return tables


def _table(number: int, block: str, comparison: Comparison) -> Table:
    data, metric, config = comparison.data, comparison.metric, comparison.config
    published = _published(number, block) if _same_people(number, comparison) else {}
    rows: dict[str, Mapping[str, str]] = {}
    for arm in ORDER:
        if f"{_name(number, arm)}, paper" in published:
            rows[f"{_name(number, arm)}, paper"] = published[f"{_name(number, arm)}, paper"]
        if arm in comparison.runs:
            rows[f"{_name(1, arm)}, ours (n = {len(comparison.runs[arm])})"] = comparison.row(arm)
    for arm in ORDER[1:]:
        seeds, gain = comparison.gain(arm)
        if seeds:
            rows[f"{_name(1, arm)} − {_name(1, 'random')}, ours (n = {seeds})"] = gain
    special = [config["variant"]] if config.get("variant") else []
    special += [f"random views: {config['random']}"] if config.get("random", "gaussian") != "gaussian" else []
    variant = f" ({', '.join(special)})" if special else ""
    title = (
        f"Ours{variant}, {people_of(comparison)}, {metric['name']}@{metric['threshold']:g}: "
        f"{config['block']} hourglass, {config['stacks']} × {config['modules']}, "
        f"{millions(comparison.parameters)} parameters, {config['size']} × {config['size']} crops"
    )
    seeds = max(len(runs) for runs in comparison.runs.values())
    notes = [
        f"Trained on {data['train_people']:,} people ({data['train']}), tested on {data['test_people']:,}; "
        f"measured in pixels of the {data['coordinates']}; flip test. "
        + (
            "Mean ± sample standard deviation over n seeds; differences are taken seed by seed."
            if seeds > 1
            else "One seed: small differences are noise."
        )
    ]
    if data["kind"] == "drawn":
        notes.append("These are drawn people, not MPII: nothing here compares with the paper's numbers.")
    elif number == 2:
        notes.append(
            "The test set's labels are not public: these are validation people. `python -m benchmarks.paper.server_file` "
            "writes the server's file."
        )
    return Table(title, rows, notes)


def people_of(comparison: Comparison) -> str:
    """The test people in words, for headings."""
    data = comparison.data
    if data["kind"] == "drawn" or _is_whole(comparison):
        return str(data["test"])
    return f"{data['test_people']:,} people of the {data['test']}"


def millions(number: int) -> str:
    """A number of parameters as text, such as 9.41 M or 3 K."""
    return f"{number / 1e6:.2f} M" if number >= 1e5 else f"{number / 1e3:.0f} K"


def _published(number: int, block: str) -> dict[str, dict[str, str]]:
    rows = published.TABLE_1[block] if number == 1 else published.TABLE_2 if number == 2 else published.TABLE_3
    return {
        f"{_name(number, arm)}, paper": dict(zip(published.COLUMNS, (f"{value:.1f}" for value in row), strict=True))
        for arm, row in rows.items()
    }


def _name(number: int, arm: str) -> str:
    if arm == "random" and number > 1:
        return "Stacked HGs(8) of Newell et al. (ECCV 2016)"
    return published.ARMS[arm] if arm in published.ARMS else OURS[arm]


def _is_whole(comparison: Comparison) -> bool:
    return bool(comparison.data["test_people"] == WHOLE.get(comparison.data["kind"]))


def _same_people(number: int, comparison: Comparison) -> bool:
    """Whether the paper measured the same people, so that its rows may stand in the same table."""
    return (number, comparison.data["kind"]) in ((1, "mpii-valid"), (3, "lsp-test")) and _is_whole(comparison)


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints one table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.paper.tables", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("number", type=int, choices=TITLES)
    parser.add_argument("runs", nargs="*", type=Path, help="folders with results.json; none: only the paper's rows")
    options = parser.parse_args(arguments)
    tables = tables_of(options.number, read_comparisons(options.runs))
    print("\n\n".join([f"# Table {options.number}: {TITLES[options.number]}", *(table.markdown() for table in tables)]))


if __name__ == "__main__":
    main()

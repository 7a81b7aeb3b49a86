"""What a comparison leaves in results.json: written, read again, and its seeds put together."""

from __future__ import annotations

import json
import os
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from examples.hourglass.evaluation import Scores, average
from examples.hourglass.progress import Epoch

FILE = "results.json"
VERSION = 2  # raise it when the report could misread an older file
Arm = Sequence[dict[str, Any]]  # the runs of an arm, one a seed


@dataclass(frozen=True)
class Comparison:
    """Runs on the same data and with the same settings, from one or several folders; they differ in arm and seed.

    runs: arm -> its runs as in results.json, with "path", their folder.
    """

    data: dict[str, Any]
    metric: dict[str, Any]
    config: dict[str, Any]
    parameters: int
    runs: dict[str, list[dict[str, Any]]]

    def row(self, arm: str) -> dict[str, str]:
        """Joint group -> the mean over the seeds at the metric's threshold, with its standard deviation."""
        threshold = str(self.metric["threshold"])
        scores = [scores_of(run)[threshold] for run in self.runs[arm]]
        return {group: with_spread([score[group] for score in scores]) for group in scores[0]}

    def gain(self, arm: str, base: str = "random") -> tuple[int, dict[str, str]]:
        """By how much an arm is above another: the number of seeds that both have, and the means with their spread."""
        threshold = str(self.metric["threshold"])
        mine, other = ({run["seed"]: scores_of(run)[threshold] for run in self.runs.get(name, [])} for name in (arm, base))
        common = [seed for seed in mine if seed in other]
        groups = mine[common[0]] if common else {}
        values = {group: [mine[seed][group] - other[seed][group] for seed in common] for group in groups}
        return len(common), {group: with_spread(value, sign="+") for group, value in values.items()}

    def history(self, arm: str, index: int = 0) -> list[Epoch]:
        """The epochs of one run."""
        return [Epoch(**epoch) for epoch in self.runs[arm][index]["history"]]


def scores_of(run: dict[str, Any]) -> dict[str, Scores]:
    """Threshold -> scores: as the benchmark counts them where there are photographs, otherwise of the crops."""
    found: dict[str, Scores] = run["benchmark"] or run["pck"]
    return found


def curve_of(runs: Arm) -> dict[float, Scores]:
    """The mean scores of an arm at each threshold."""
    return {float(threshold): average([scores_of(run)[threshold] for run in runs]) for threshold in scores_of(runs[0])}


def with_spread(values: Sequence[float], *, sign: Literal["", "+"] = "", decimals: int = 1) -> str:
    """The mean, ± the sample standard deviation of several. sign: "+" marks positive ones too."""
    mean = f"{statistics.fmean(values):{sign}.{decimals}f}".replace("-", "−")
    return f"{mean} ± {statistics.stdev(values):.{decimals}f}" if len(values) > 1 else mean


def write_results(path: Path, results: dict[str, Any]) -> None:
    """Written under another name and renamed. Lists and rows of numbers stand on one line, so that a person can read them."""
    text = json.dumps(results, indent=1, ensure_ascii=False)
    text = re.sub(r"([\[{])\n\s+([^\[\]{}]*?)\n\s+([\]}])", lambda m: m[1] + re.sub(r"\n\s+", " ", m[2]) + m[3], text)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text + "\n", encoding="utf-8")
    os.replace(temporary, path)


def read_comparisons(folders: Sequence[Path]) -> list[Comparison]:
    """The comparisons in some folders (or results.json files). Those of the same data and settings become one."""
    merged: dict[str, Comparison] = {}
    for folder in folders:
        path = folder if folder.is_file() else folder / FILE
        results = _read(path)
        config = {name: value for name, value in results["config"].items() if name not in ("arm", "seed")}
        key = json.dumps([results["data"], results["metric"], config], sort_keys=True)
        comparison = merged.setdefault(
            key, Comparison(results["data"], results["metric"], config, results["parameters"], runs={})
        )
        for arm, runs in results["arms"].items():
            known = comparison.runs.setdefault(arm, [])
            for run in runs:
                if run["seed"] in [other["seed"] for other in known]:
                    raise ValueError(
                        f"Folders of the same settings should differ in arms or seeds. Found {arm} with seed {run['seed']} in "
                        f"{path.parent} again; leave one of them out."
                    )
                known.append({**run, "path": path.parent / run["folder"]})
    return list(merged.values())


def _read(path: Path) -> dict[str, Any]:
    again = "run the script again with the same options: it goes on from its checkpoints and writes the file anew"
    try:
        results: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path.parent} should hold {FILE} of a finished comparison. Found none; {again}.") from error
    except ValueError as error:
        raise ValueError(f"{path} should hold JSON. Found it damaged ({error}); {again}.") from error
    if results.get("version") != VERSION:
        raise ValueError(f"{path} should be of version {VERSION}. Found {results.get('version')}; {again}.")
    return results

"""Reads finished comparisons from their folders: results.json, with seeds put together, and models."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.result_files import with_spread
from examples.datasets.people import Joints, Scores
from examples.hourglass.checkpoints import NAME
from examples.hourglass.comparison import FILE, VERSION
from examples.hourglass.config import Config
from examples.hourglass.model import StackedHourglass
from examples.hourglass.progress import Epoch
from examples.hourglass.tables import average
from examples.hourglass.training import make_model

Arm = Sequence[dict[str, Any]]  # the runs of an arm, one for each seed


@dataclass(frozen=True)
class Comparison:
    """Runs with the same data and settings, from one or several folders. They differ in arm and seed.

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
        """The difference between two arms: the number of seeds that both have, and the means with their spread."""
        threshold = str(self.metric["threshold"])
        above, below = ({run["seed"]: scores_of(run)[threshold] for run in self.runs.get(name, [])} for name in (arm, base))
        common = [seed for seed in above if seed in below]
        groups = above[common[0]] if common else {}
        values = {group: [above[seed][group] - below[seed][group] for seed in common] for group in groups}
        return len(common), {group: with_spread(value, sign="+") for group, value in values.items()}

    def history(self, arm: str, index: int = 0) -> list[Epoch]:
        """The epochs of one run."""
        return [Epoch(**epoch) for epoch in self.runs[arm][index]["history"]]


def scores_of(run: dict[str, Any]) -> dict[str, Scores]:
    """Threshold -> scores: as the benchmark counts them if there are photographs, else on the crops."""
    scores: dict[str, Scores] = run["benchmark"] or run["pck"]
    return scores


def curve_of(runs: Arm) -> dict[float, Scores]:
    """The mean scores of an arm at each threshold."""
    return {float(threshold): average([scores_of(run)[threshold] for run in runs]) for threshold in scores_of(runs[0])}


def read_comparisons(folders: Sequence[Path]) -> list[Comparison]:
    """Reads the comparisons in folders (or results.json files). Those with the same data and settings become one."""
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


def load_model(folder: Path, joints: Joints, device: str = "cpu") -> tuple[Config, StackedHourglass]:
    """The config and the model of a folder that `train` wrote. Raises FileNotFoundError if there is no checkpoint."""
    path = folder / NAME
    if not path.is_file():
        raise FileNotFoundError(f"{folder} should hold the checkpoint of a run. Found no {NAME}; train there first.")
    saved = torch.load(path, map_location="cpu", weights_only=True)
    if not saved["people"].startswith(f"{joints.name}-"):
        raise ValueError(f"{folder} should hold a run on the joints of {joints.name}. Found one on {saved['people']}.")
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in saved["config"].items()
    }
    config = Config(**values)
    model = make_model(config, joints)
    model.load_state_dict(saved["session"]["model"])
    return config, model.to(device).eval()

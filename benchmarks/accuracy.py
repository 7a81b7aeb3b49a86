"""Does it help? Arms on real people (LSP, 64 x 64): same network, images, order, steps and initial weights per seed.

    python benchmarks/accuracy.py --data DIR --arms random uniform asr+aho --seeds 0 1 2 --out runs/accuracy

DIR holds `lsp` (and `lspet`, with --extension). Each arm and seed is a run of examples/hourglass_lsp.py in its own folder:
a killed grid goes on where it stopped, and what is finished is only evaluated. What follows `--` goes to that script.
Writes means, spread over seeds and
differences paired by seed to results/.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.report import save
from examples import hourglass_lsp

Scores = dict[str, float]


def summary(runs: list[Scores]) -> dict[str, dict[str, float]]:
    """Mean and standard deviation over seeds of each score."""
    return {
        name: {
            "mean": statistics.mean(run[name] for run in runs),
            "sd": statistics.stdev(run[name] for run in runs) if len(runs) > 1 else float("nan"),
        }
        for name in runs[0]
    }


def paired(arm: list[Scores], base: list[Scores]) -> dict[str, dict[str, float]]:
    """Mean and standard deviation of the differences to a base arm, seed by seed."""
    return summary([{name: a[name] - b[name] for name in a} for a, b in zip(arm, base, strict=True)])


def table(found: dict[str, Any]) -> str:
    """The scores, in percent, as Markdown."""
    columns = list(next(iter(found.values()))["scores"])
    lines = ["| arm | " + " | ".join(columns) + " | seconds |", "|---|" + "--:|" * (len(columns) + 1)]
    for arm, of in found.items():
        cells = [f"{of['scores'][name]['mean']:.1f}" for name in columns]
        lines.append(f"| {arm} | " + " | ".join(cells) + f" | {of['seconds']:.0f} |")
        if "difference" in of:
            cells = [f"{of['difference'][name]['mean']:+.1f}" for name in columns]
            lines.append("| − first | " + " | ".join(cells) + " | |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--arms", nargs="+", default=["random", "uniform", "asr+aho"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--out", default="runs/accuracy")
    parser.add_argument("--name", default="accuracy_lsp64", help="of the file under results/")
    parser.add_argument("rest", nargs="*", help="options of examples/hourglass_lsp.py, after --")
    options = parser.parse_args()
    arguments = ["--data", options.data, "--arms", *options.arms, "--seeds", *map(str, options.seeds)]
    results = hourglass_lsp.main([*arguments, "--size", "64", "--out", options.out, *options.rest])
    threshold = str(results["metric"]["threshold"])
    scores = {
        arm: [{"upright": run["pck"][threshold]["Mean"], **run["turned"]} for run in runs]
        for arm, runs in results["arms"].items()
    }
    heading = (
        f"{results['metric']['name']}@{threshold} of {results['people']['test']} people of LSP, "
        f"{results['people']['train']} to train on, 64 × 64, {len(options.seeds)} seed(s); upright, and with every test person "
        "turned or scaled.\n\n"
    )
    base = scores[options.arms[0]]
    found = {
        arm: {
            "seeds": options.seeds,
            "scores": summary(runs),
            **({"difference": paired(runs, base)} if arm != options.arms[0] else {}),
            "seconds": statistics.mean(run["seconds"] for run in results["arms"][arm]),
            "groups": [run["pck"][threshold] for run in results["arms"][arm]],
        }
        for arm, runs in scores.items()
    }
    sides = {"people": results["people"], "metric": results["metric"], "config": results["config"]}
    print(f"written to {save(options.name, {**sides, 'arms': found}, heading + table(found))}")


if __name__ == "__main__":
    main()

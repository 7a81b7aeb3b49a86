"""Trains the arms of the paper's Table 1 (random, +ASR, +AHO, +ASR+AHO) on LSP, with both kinds of hourglass.

    python benchmarks/reproduction.py --data DIR                              # 64 x 64, small networks, a CPU
    python benchmarks/reproduction.py --data DIR --name reproduction_256 -- --paper --device cuda

DIR has `lsp` and `lspet`. Every run is examples/hourglass_lsp.py with all three stages, in a folder of its own. A finished run
is read, and a stopped one continues. Options after `--` go to every run; `--paper` there replaces the small settings. After
each seed the script writes the tables and figures of benchmarks/paper to results/.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.paper import page
from benchmarks.paper.comparisons import Comparison, read_comparisons
from benchmarks.paper.tables import tables_of
from benchmarks.result_files import RESULTS, save, split_arguments, with_spread
from examples import hourglass_lsp
from examples.hourglass.comparison import FILE
from examples.hourglass.tables import markdown_table, statistics

ARMS = ("random", "asr", "aho", "asr+aho")
SMALL = ["--size", "64", "--epochs", "1", "1", "2", "--channels-last", "--evaluate-every", "5", "--bins-every", "1"]
WIDTHS = {"residual": "48", "dense": "32"}  # of the small networks


def run(data: str, block: str, arm: str, seed: int, folder: Path, rest: list[str]) -> None:
    """Makes one run, unless it has finished with the same arguments."""
    options = rest if "--paper" in rest else [*SMALL, "--width", WIDTHS[block], *rest]
    arguments = ["--block", block, "--arms", arm, "--seeds", str(seed), *options]
    made = folder / "arguments.txt"
    if (folder / FILE).is_file() and made.is_file() and made.read_text() == shlex.join(arguments):
        return
    hourglass_lsp.main(["--data", data, *arguments, "--out", str(folder)])  # refuses a run of other settings
    made.write_text(shlex.join(arguments))


def audits(comparison: Comparison) -> str:
    """The statistics of the audits, and the CPU seconds of a run, as Markdown."""
    rows = {}
    for arm, runs in comparison.runs.items():
        scores = [statistics(run["audit"]) for run in runs]
        rows[arm] = {name: with_spread([score[name] for score in scores]) for name in scores[0]}
        rows[arm]["training people"] = with_spread([run["pck_train"]["Mean"] for run in runs])
        rows[arm]["CPU s"] = f"{sum(run['cpu_seconds'] for run in runs) / len(runs):.0f}"
    return markdown_table(rows, "Mean")


def section(comparison: Comparison) -> str:
    """A table beside the paper's, then the audits."""
    table = tables_of(3, [comparison])[-1]
    about = "Audits of the crops, without flip test: turned and scaled together, and one of 4 × 4 cells hidden"
    return f"{table.markdown()}\n\n{about}:\n\n{audits(comparison)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder with lsp and lspet")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--blocks", nargs="+", choices=list(WIDTHS), default=list(WIDTHS))
    parser.add_argument("--name", default="reproduction_lsp64", help="name of the files under results/")
    parser.add_argument("--out", type=Path, help="folder for the runs; default: runs/NAME")
    words, rest = split_arguments()
    options = parser.parse_args(words)
    options.out = options.out or Path("runs") / options.name
    folders: list[Path] = []
    for seed in options.seeds:
        for block in options.blocks:
            for arm in ARMS:
                folders.append(options.out / f"{block}-{arm}-seed{seed}")
                run(options.data, block, arm, seed, folders[-1], rest)
        write(folders, options)


def write(folders: list[Path], options: argparse.Namespace) -> None:
    """Writes tables and figures of the finished runs."""
    comparisons = read_comparisons(folders)
    written = page.main([*map(str, folders), "--out", str(options.out / "page"), "--lsp", options.data])
    pictures = []
    for picture in sorted(written.parent.glob("figure[56]*.png")):  # Figure 7 shows photographs, which we may not publish
        target = RESULTS / f"{options.name}_{picture.name}"
        target.write_bytes(picture.read_bytes())
        pictures.append(f"![{picture.stem}]({target.name})")
    numbers: dict[str, Any] = {
        comparison.config["block"]: {
            "config": comparison.config,
            "parameters": comparison.parameters,
            "runs": _kept(comparison),
        }
        for comparison in comparisons
    }
    save(options.name, numbers, "\n\n".join([*map(section, comparisons), *pictures]))


def _kept(comparison: Comparison) -> dict[str, Any]:
    names = ("seed", "seconds", "cpu_seconds", "images", "pck", "pck_train", "benchmark", "audit")
    return {arm: [{name: run[name] for name in names} for run in runs] for arm, runs in comparison.runs.items()}


if __name__ == "__main__":
    main()

"""Compares ways to train: runs a study of `studies/`, or continues it, and writes its results.

    python -m benchmarks.compare worst_view_digits
    python -m benchmarks.compare worst_view_faces --data DIR --seeds 0 1 2
    python -m benchmarks.compare worst_view_faces --data DIR --finished

Runs with the same seed start from the same weights and see the same images in the same order. Each run leaves a small file in
--out, so that a stopped study can continue. Several processes may share one --out if they have other seeds; --finished then
makes the tables. A run is recognised by what its arm is, so choose another --out after changing the code. DIR holds lsp (and
lspet), or trainset and testset of 300-W, or face300w/helen with both.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

import adaug
from adaug import plots
from benchmarks import draw
from benchmarks.compare import differences, finished
from benchmarks.compare.arms import described
from benchmarks.compare.differences import Differences, Runs
from benchmarks.compare.studies import STUDIES
from benchmarks.compare.study import COMPARED, Study, X
from benchmarks.result_files import RESULTS, save


def compare(study: Study, data: Path | None, out: Path, seeds: Sequence[int], train: bool = True) -> Runs:
    """Makes the runs of these seeds that are missing. Returns those and all others of the study that are finished."""
    task = study.task(data, **study.sizes) if train else None
    runs: Runs = {}
    places: dict[str, tuple[list[str], Path]] = {}
    for arm in study.arms:
        of_task = [study.task.__qualname__, *(f"{name}: {value!r}" for name, value in sorted(study.sizes.items()))]
        description = [*of_task, *described(arm)]
        places[arm.name] = description, finished.folder_of(out, study.task.__name__, description)
    for seed in seeds if train else ():
        for arm in study.arms:
            description, folder = places[arm.name]

            def make(folder: Path, arm: Any = arm, seed: int = seed) -> dict[str, Any]:
                return study.run(task, arm, seed, folder)

            run = finished.run_once(folder / f"seed{seed}.json", description, make)
            print(f"{arm.name}, seed {seed}: {run['scores'][X]:.1f} {X}, {run['cpu_seconds']:.0f} CPU s", flush=True)
    for name, (description, folder) in places.items():
        for seed in sorted({*range(study.seeds), *seeds}):
            if (known := finished.read(folder / f"seed{seed}.json", description)) is not None:
                runs.setdefault(name, {})[seed] = known
    return runs


def tables(study: Study, runs: Runs) -> tuple[str, dict[str, Any]]:
    """The tables of finished runs as Markdown, and the differences as numbers."""
    names = [name for name in COMPARED if name in next(iter(next(iter(runs.values())).values()))["scores"]]
    groups: dict[str, Differences] = {
        f"To {base}, of the same steps": differences.of_pairs(runs, [(arm, base) for arm in runs if arm != base])
        for base in study.against
        if base in runs
    }
    groups |= {heading: differences.of_pairs(runs, pairs) for heading, pairs in study.pairs.items()}
    if study.family is not None:
        heading = f"Above the line through the arms of {study.family}, at the score {X} that an arm has itself"
        groups[heading] = differences.at_equal(runs, study.family, X, names)
    compared, numbers = differences.corrected_tables(groups, names)
    return f"{differences.means(runs)}\n\n{compared}", numbers


def figure_of(study: Study, runs: Runs) -> Figure:
    """The picture of a study."""
    scores = {
        arm: {name: [run["scores"][name] for run in of_arm.values()] for name in next(iter(of_arm.values()))["scores"]}
        for arm, of_arm in runs.items()
    }
    names = [name for name in COMPARED if name in next(iter(scores.values()))]
    if study.figure == "frontier":
        return draw.frontier(scores, X, "worst per image")
    if study.figure == "time":
        usual = differences.usual_machine(runs)
        points = {
            arm: {s: {"CPU s": r["cpu_seconds"], **r["scores"]} for s, r in of_arm.items() if r["origin"]["machine"] == usual}
            for arm, of_arm in runs.items()
        }
        return draw.over_time(points, "CPU s", [name for name in names if name != "worst 10 %"])
    return draw.accuracy(scores, names)


def write(study: Study, runs: Runs) -> None:
    """Writes the results files of finished runs, and prints the tables."""
    text, numbers = tables(study, runs)
    every = [run for of_arm in runs.values() for run in of_arm.values()]
    save(
        study.name,
        {"runs": {arm: {str(seed): run for seed, run in of_arm.items()} for arm, of_arm in runs.items()}} | numbers,
        f"{study.question} {every[0]['about']}.\n\n{text}",
        figure_of(study, runs),
        origins=[run["origin"] for run in every],
    )
    print(text, flush=True)


def draw_learned(study: Study, runs: Runs) -> None:
    """Draws what was found hard, and drawn, in the first run of running difficulty."""
    every = [run.get("history", []) for of_arm in runs.values() for run in of_arm.values()]
    histories = [history for history in every if any("difficulty/asr.rotate" in epoch for epoch in history)]
    if histories:
        title = "What was found hard, and what was drawn"
        learned = plots.draw_distributions(histories[0], policy=adaug.policies.wide(), title=title)
        learned.savefig(RESULTS / f"{study.name}_learned.svg", metadata={"Date": None})


def main(arguments: Sequence[str] | None = None) -> None:
    questions = "\n".join(f"  {name}: {study.question}" for name, study in STUDIES.items())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.compare",
        description=__doc__,
        epilog=f"studies:\n{questions}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("study", choices=list(STUDIES), metavar="STUDY")
    parser.add_argument("--data", type=Path, help="folder of the data; digits need none")
    parser.add_argument("--seeds", nargs="+", type=int, help="seeds to run now; default: all of the study")
    parser.add_argument("--out", type=Path, default=Path("runs/compare"), help="folder of the runs")
    parser.add_argument("--finished", action="store_true", help="train nothing, only make tables of finished runs")
    options = parser.parse_args(arguments)
    study = STUDIES[options.study]
    if options.data is None and study.needs_data and not options.finished:
        parser.error(f"{study.name} should have --data.")
    seeds = range(study.seeds) if options.seeds is None else options.seeds
    runs = compare(study, options.data, options.out, seeds, train=not options.finished)
    if not runs:
        print("No run is finished.")
        return
    write(study, runs)
    if study.learned:
        draw_learned(study, runs)


if __name__ == "__main__":
    main()

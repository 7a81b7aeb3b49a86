"""Does it help? Trains the same network on the same real people or faces, in the same order, with several augmentations.

    python benchmarks/accuracy.py people --data DIR --arms none random uniform "asr+aho" "asr+aho --until 0.7" \\
        --seeds 0 1 2 --out runs/accuracy-300 --name accuracy_lsp_300 -- --people 300 --epochs 20 1 60
    python benchmarks/accuracy.py faces --data DIR --arms none random uniform adversarial --name accuracy_helen

An arm is one way to train. It is written as a name that the example knows as --arms (examples/hourglass_lsp.py,
examples/face_alignment.py), then options of its own (for people also those of benchmarks/paper/ablations.py). A name for the
tables may come first: "late: asr+aho --epochs 40 1 40". Options after `--` go to every arm. Runs with the same seed start from
the same weights and see the same images.

The script trains seed by seed and writes its tables after each run. If it was stopped, start it again, and it continues.
Several processes may fill one --out with different arms; --finished then makes the tables. A run is recognised by its
arguments, so choose another --out after changing the code. Runs that are older than the audits are measured again: people from
their checkpoints, faces by training again.

Scores come from an audit on a grid of rotations and scales: as it is, the mean of the grid, its weakest view, the worst view of
each image, each image's worst 10 %, and what is found in every view; then the scores with a hidden cell.

    python benchmarks/accuracy.py people ... --arms "a: asr+aho" "b: uniform" --pairs "in one setting: a vs b"
    python benchmarks/accuracy.py people ... --arms "random, short: random" "random, long: random --epochs 60 1 180" --over-time
"""

from __future__ import annotations

import argparse
import re
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))


from benchmarks import draw, finished_runs
from benchmarks.differences import Runs, named, of_pairs, pairs_table, tables, usual_machine
from benchmarks.paper import ablations
from benchmarks.result_files import save, split_arguments
from examples import face_alignment
from examples.hourglass.tables import each_view, statistics

DRAWN = ("as it is", "grid mean", "worst per image", "in every view")
VERSION = 2  # of the file of a finished run. 2: scores are the statistics of an audit


def people(arguments: Sequence[str], seed: int, folder: Path) -> dict[str, Any]:
    """Runs examples/hourglass_lsp.py. Scores are PCK@0.2 in per cent; larger is better."""
    words = ["--size", "64", *arguments, "--seeds", str(seed), "--out", str(folder)]
    arm = words.index("--arms") + 1
    if words[arm] == "global":  # one distribution for all images
        words[arm : arm + 1] = ["asr+aho", "--one-for-all"]
    results = ablations.run(words)
    ((run,),) = results["arms"].values()
    flipped = run["pck"][str(results["metric"]["threshold"])]["Mean"]
    more = {"PCK, flip test": flipped, "training gap": run["pck_train"]["Mean"] - flipped}
    scores = {**statistics(run["audit"]), **more, **each_view(run["audit"])}
    final = run["history"][-1]["distribution"]
    about = (
        f"PCK@0.2 in per cent, {results['people']['test']} people of the {results['data']['test']}, "
        f"{results['people']['train']} people to train on ({results['data']['train']}); network of "
        f"{results['parameters']:,} parameters. Audited without flip test; the training gap is how much higher people score, "
        "with it, whom the network has seen"
    )
    return {
        "scores": scores,
        "peaks": {name: max(mean) * len(mean) for name, mean in final.items()},
        "cpu_seconds": run["cpu_seconds"],
        "images": run["images"],
        "about": about,
    }


def faces(arguments: Sequence[str], seed: int, folder: Path) -> dict[str, Any]:
    """Runs examples/face_alignment.py. Scores are points found in per cent, and errors: less is better, except for the AUC."""
    started = time.process_time()
    (found,) = face_alignment.main([*arguments, "--seed", str(seed)]).values()
    scores = {name: found[name] for name in sorted(found, key=lambda name: name in face_alignment.ERRORS)}  # errors last
    about = (
        f"Points of Helen's test faces within {face_alignment.NEAR} of the distance of the outer eye corners, in per cent; "
        "then 300-W's errors in per cent (NME: smaller is better)"
    )
    return {"scores": scores, "cpu_seconds": time.process_time() - started, "about": about}


TASKS: dict[str, Callable[[Sequence[str], int, Path], dict[str, Any]]] = {"people": people, "faces": faces}
DECIMALS = {"people": 1, "faces": 2}


def run_once(task: str, arm: str, seed: int, rest: Sequence[str], out: Path, train: bool = True) -> dict[str, Any] | None:
    """Makes a run, or reads it if it was finished with the same arguments. None if it is missing and should not be made."""
    arguments = [*rest, "--arms", *shlex.split(arm)]
    path = out / re.sub(r"[^a-z0-9.+]+", "-", arm.lower()) / f"seed{seed}" / "finished.json"
    make = partial(TASKS[task], arguments, seed)
    return finished_runs.run_once(path, arguments, make, version=VERSION, train=train)


def write(options: argparse.Namespace, runs: Runs) -> None:
    """Writes results files of the finished runs, and prints the tables."""
    decimals = DECIMALS[options.task]
    scores = {
        arm: {name: [r["scores"][name] for r in of_arm.values()] for name in next(iter(of_arm.values()))["scores"]}
        for arm, of_arm in runs.items()
    }
    names = list(next(iter(scores.values())))
    differences: dict[str, Any]
    if options.pairs:
        differences = of_pairs(runs, options.pairs)
        text = pairs_table(differences, decimals)
        dots = {
            pair: {name: [scores_of_run[name] for scores_of_run in of_arm.values()] for name in names}
            for pair, of_arm in differences.items()
        }
        figure = draw.accuracy(dots, DRAWN) if dots else None
    else:
        text, differences = tables(runs, options.against, decimals)
        figure = draw.accuracy(scores, DRAWN)
    every = [run for of_arm in runs.values() for run in of_arm.values()]
    machines, usual = sorted({run["machine"] for run in every}), usual_machine(runs)
    if options.over_time:
        points = {
            arm: {s: {"CPU s": r["cpu_seconds"], **r["scores"]} for s, r in of_arm.items() if r["machine"] == usual}
            for arm, of_arm in runs.items()
        }
        figure = draw.over_time(points, "CPU s", DRAWN)
    on = f", on {usual}" if len(machines) > 1 else ""
    seconds = "" if options.pairs else f" CPU s: a whole run, with its tests{on}."
    kept = {arm: {str(s): {**r, "arguments": r["arguments"][2:]} for s, r in of_arm.items()} for arm, of_arm in runs.items()}
    save(
        options.name,
        {"runs": kept, "differences": differences},
        f"{every[0]['about']}.{seconds}\n\n{text}",
        figure,
        machines=machines,
    )
    print(text, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=list(TASKS))
    parser.add_argument("--data", required=True, help="folder with lsp (and lspet), or trainset and testset")
    parser.add_argument("--arms", nargs="+", required=True)
    parser.add_argument("--against", nargs="+", default=["random", "uniform"], help="arms to compare the others with")
    parser.add_argument("--pairs", nargs="+", help="compare these pairs instead, 'NAME: ARM vs BASE', and all of them together")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("runs/accuracy"))
    parser.add_argument("--name", required=True, help="name of the files under results/")
    parser.add_argument("--finished", action="store_true", help="train nothing, only make tables of finished runs")
    parser.add_argument("--over-time", action="store_true", help="draw a line through arms with the same name before a comma")
    words, rest = split_arguments()
    options = parser.parse_args(words)
    sides = {side for pair in options.pairs or () for side in named(pair)[1].split(" vs ")}
    if unknown := sides - {named(arm)[0] for arm in options.arms}:
        parser.error(f"--pairs should name arms of --arms. Found {', '.join(sorted(unknown))}.")
    runs: Runs = {}
    for seed in options.seeds:
        for arm, of_example in map(named, options.arms):
            run = run_once(options.task, of_example, seed, ["--data", options.data, *rest], options.out, not options.finished)
            if run is None:
                continue
            runs.setdefault(arm, {})[seed] = run
            if not options.finished:
                write(options, runs)
    if not runs:
        print("No run is finished.")
    elif options.finished:
        write(options, runs)


if __name__ == "__main__":
    main()

"""Where does training against weak spots win? Compares arms by the worst view of each image.

    python benchmarks/worst_view.py people --data DIR --arms uniform running --seeds 0 1 --name worst_people
    python benchmarks/worst_view.py faces --data DIR --name worst_faces --arms \\
        "uniform, share 1/3: uniform" "uniform, share 2/3: uniform --share 2/3" "uniform, even: even" running exact
    python benchmarks/worst_view.py digits --arms uniform exact "uniform, longer: uniform --epochs 150" \\
        --equal-time "exact vs uniform, longer" --name worst_digits -- --epochs 60

An arm is one way to train. It is written as one of these kinds, then options of its own (`--help-arms` lists them). A name for
the tables may come first. Options after `--` go to every arm.

    plain       only the flip
    random      random views of policies.wide
    uniform     its bins and cells, drawn evenly on their shares of the rows
    even        every row scaled and turned, evenly over the ranges
    fixed       its shares, with a distribution that generators once learned
    exact       the paper: a generator for every branch, exact scoring
    running     running difficulty (policies.robust, if no option says otherwise)
    worst-of-K  K draws of uniform for every row; the hardest one is trained on (Engstrom et al., ICML 2019)

Runs with the same seed start from the same weights and see the same images in the same order. Each run leaves a small file in
--out, so that a stopped comparison can continue. Several processes may share one --out if they run other arms or seeds;
--finished then makes the tables. Choose another --out after changing the code. Arms with the same name before a comma are a
family, which is one line of the figure. Every other arm is also compared with the line of --family, at equal score on images
as they are.
"""

from __future__ import annotations

import argparse
import re
import shlex
import sys
import time
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import adaug
from adaug import plots
from benchmarks import draw, finished_runs
from benchmarks.differences import Differences, Runs, at_equal, corrected_tables, family, named, of_pairs, tables
from benchmarks.result_files import RESULTS, save, split_arguments
from benchmarks.worst_arms import KINDS, LEARN, WORST_OF, arm_parser, augmenter_of, policy_of, step_of
from benchmarks.worst_tasks import TASKS, Task
from benchmarks.worst_trials import HardImages
from examples.hourglass.tables import VIEWS, each_view, said, statistics

X = "as it is"
COMPARED = (X, "grid mean", "worst per image", "worst 10 %", "in every view")
TOLD = ("distribution", "difficulty")  # what is kept of the metrics, epoch by epoch
VERSION = 2  # of a finished run


# -- runs ------------------------------------------------------------------------------------------------------------


def run(arm: argparse.Namespace, task: Task, seed: int) -> dict[str, Any]:
    """Trains one arm from the weights of a seed, and audits it."""
    started = time.process_time()
    epochs, size, lr = arm.epochs or task.epochs, arm.batch_size or task.batch_size, arm.lr or task.lr
    steps = epochs * sum(1 for _ in task.batches(size, seed, 0))
    torch.manual_seed(seed)
    model = task.network()
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=lr, total_steps=steps)
    drawn = int(match[1]) if (match := WORST_OF.fullmatch(arm.kind)) else 1
    augmenter = augmenter_of(policy_of(arm, task), arm, task, seed, drawn * steps)
    images = HardImages(task, seed) if arm.images else None
    step = step_of(augmenter, arm, task, images)
    history: list[dict[str, list[float]]] = []  # of every epoch's last step: the mean distribution of each operation
    for epoch in range(epochs):
        for batch in task.batches(size, seed, epoch) if images is None else images.batches(size):
            loss = step(model, batch)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call, unused-ignore]
            optimizer.step()
            schedule.step()
        if arm.kind in LEARN and arm.context is None:  # a context draws from more than one table
            kinds = {name: name.partition("/")[0] for name in augmenter.metrics}
            learned = {name: value.tolist() for name, value in augmenter.metrics.items() if kinds[name] in TOLD}
            history.append(learned)
    trained = time.process_time()
    audit = adaug.audit(
        model,
        task.test,
        task.score,
        VIEWS,
        targets=task.targets,
        output_size=task.size,
        num_draws=0,
        num_pictures=0,
        progress=False,
    )
    kept = said(audit)
    last: dict[str, list[float]] = next((one for one in reversed(history) if one), {})
    peaks = {name: max(mean) * len(mean) for name, mean in last.items() if name.startswith("distribution/")}
    return {
        "scores": {**statistics(kept), **each_view(kept)},
        "cpu_seconds": trained - started,
        "cpu_seconds_with_audit": time.process_time() - started,
        "steps": steps,
        "history": history,
        "peaks": {name.partition("/")[2]: peak for name, peak in peaks.items()},
        "about": task.about,
    }


# -- tables ----------------------------------------------------------------------------------------------------------


def write(options: argparse.Namespace, runs: Runs) -> None:
    """Writes results files of the finished runs, and prints the tables."""
    scores = {
        arm: {name: [r["scores"][name] for r in of_arm.values()] for name in next(iter(of_arm.values()))["scores"]}
        for arm, of_arm in runs.items()
    }
    names = [name for name in COMPARED if name in next(iter(scores.values()))]
    means, _ = tables(runs, ())
    groups: dict[str, Differences] = {
        f"To {base}, of the same steps": of_pairs(runs, [f"{arm}: {arm} vs {base}" for arm in runs if arm != base])
        for base in options.against
        if base in runs
    }
    if options.equal_time:
        groups["At the CPU time that the first table says"] = of_pairs(runs, [f"{pair}: {pair}" for pair in options.equal_time])
    above = at_equal(runs, options.family, X, names)
    groups[f"Above the line through the arms of {options.family}, at the score {X} that an arm has itself"] = above
    compared, differences = corrected_tables(groups, names)
    every = [one for of_arm in runs.values() for one in of_arm.values()]
    joined = len({family(arm) for arm in runs}) < len(runs)
    figure = draw.frontier(scores, X, "worst per image") if joined else draw.accuracy(scores, names)
    seconds = "CPU s: of training, without the audit."
    save(
        options.name,
        {"runs": {arm: {str(seed): one for seed, one in of_arm.items()} for arm, of_arm in runs.items()}} | differences,
        f"{every[0]['about']}. {seconds}\n\n{means}\n\n{compared}",
        figure,
        machines=sorted({one["machine"] for one in every}),
    )
    print(f"{means}\n\n{compared}", flush=True)
    histories = [one["history"] for one in every if any("difficulty/asr.rotate" in epoch for epoch in one["history"])]
    if histories:  # what was found hard, and drawn, in the first such run
        title = "What was found hard, and what was drawn"
        learned = plots.draw_distributions(histories[0], policy=adaug.policies.wide(), title=title)
        learned.savefig(RESULTS / f"{options.name}_learned.svg", metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=list(TASKS))
    parser.add_argument("--data", type=Path, help="folder with lsp; or with trainset and testset, or face300w/helen")
    parser.add_argument("--train", type=int, help="number of images to train on")
    parser.add_argument("--test", type=int, help="number of images to audit on")
    parser.add_argument("--side", type=int, help="of a view, in pixels; default: 64")
    parser.add_argument("--arms", nargs="+", default=["uniform", "running"])
    parser.add_argument("--against", nargs="+", default=["uniform"], help="arms to compare the others with")
    parser.add_argument("--equal-time", nargs="+", help="more comparisons, 'ARM vs BASE', of arms that take equal time")
    parser.add_argument("--family", default="uniform", help="family whose line the others are compared with")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("runs/worst_view"))
    parser.add_argument("--name", help="name of the files under results/; default: worst_view_TASK")
    parser.add_argument("--finished", action="store_true", help="train nothing, only make tables of finished runs")
    parser.add_argument("--help-arms", action="version", version=arm_parser().format_help())
    words, rest = split_arguments()
    options = parser.parse_args(words)
    options.name = options.name or f"worst_view_{options.task}" + (f"_{options.side}" if options.side else "")
    if options.data is None and options.task != "digits":
        parser.error(f"{options.task} should have --data.")
    arms = {}
    for name, text in map(named, options.arms):
        of_arm = [*shlex.split(text), *rest]
        arm = arm_parser().parse_args(of_arm)
        if arm.kind not in KINDS and not WORST_OF.fullmatch(arm.kind):
            parser.error(f"An arm should be one of {', '.join(KINDS)}, worst-of-K. Found {arm.kind!r}.")
        arms[name] = arm, of_arm
    task = None if options.finished else TASKS[options.task](options.data, options.train, options.test, options.side)
    sizes = [f"--{part} {n}" for part in ("train", "test", "side") if (n := getattr(options, part)) is not None]
    runs: Runs = {}
    for seed in options.seeds:
        for name, (arm, of_arm) in arms.items():
            arguments = [options.task, *sizes, *of_arm]
            folder = options.out / re.sub(r"[^a-z0-9.+]+", "-", " ".join(arguments))

            def make(_: Path, arm: argparse.Namespace = arm, seed: int = seed) -> dict[str, Any]:
                assert task is not None
                return run(arm, task, seed)

            path = folder / f"seed{seed}.json"
            found = finished_runs.run_once(path, arguments, make, version=VERSION, train=task is not None)
            if found is not None:
                runs.setdefault(name, {})[seed] = found
                print(f"{name}, seed {seed}: {found['scores'][X]:.1f} {X}, {found['cpu_seconds']:.0f} CPU s", flush=True)
    if not runs:
        print("No run is finished.")
    else:
        write(options, runs)


if __name__ == "__main__":
    main()

"""A comparison of arms: trains each, then prints the tables, draws the figures and writes the numbers as JSON."""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch.distributed as dist

import adaug
from adaug import plots
from examples.hourglass import benchmark
from examples.hourglass.config import MEASURES, UNLEARNED, Config, Machine
from examples.datasets.cropping import Array, Originals
from examples.hourglass.data import Data
from examples.hourglass.evaluation import TURNS, Scores, Turn, average, difference, evaluate, evaluating, markdown_table
from benchmarks.paper.figures import draw_pck_curves, draw_training_status
from examples.datasets.people import Joints, People
from examples.hourglass.ranks import distributed, rank, ranks
from examples.hourglass.augmentation import loss_of, policy_of, turns_of
from benchmarks.paper.comparisons import FILE, VERSION, curve_of, write_results
from examples.hourglass.training import Run, train

BLOCKS = "▁▂▃▄▅▆▇█"


def compare(data: Data, config: Config, options: argparse.Namespace) -> dict[str, Any]:
    """Trains every arm with every seed on the same terms and reports; returns what results.json holds."""
    people, test, metric = data.people, data.test, data.metric
    config = replace(config, threshold=metric.threshold)
    machine = Machine(options.device, options.compile, options.channels_last)
    with distributed(machine) as machine:
        if rank() == 0:
            print(_heading(data, config, options), flush=True)
        runs: dict[str, list[Run]] = {}
        found: dict[str, list[dict[str, Any]]] = {}
        for seed in options.seeds:
            for arm in options.arms:
                folder = options.out / f"{arm}-seed{seed}"
                started = time.perf_counter()
                run = train(people, test, replace(config, arm=arm, seed=seed), folder, machine=machine, resume=options.resume)
                runs.setdefault(arm, []).append(run)
                found.setdefault(arm, []).append(
                    {
                        "seed": seed,
                        "folder": folder.name,
                        "seconds": round(sum(epoch.seconds for epoch in run.history), 1),
                        "cpu_seconds": round(sum(epoch.cpu_seconds for epoch in run.history), 1),
                        "wall_seconds_now": round(time.perf_counter() - started, 1),
                        "images": run.history[-1].images,
                        **_measure(run, data),
                        "history": [dataclasses.asdict(epoch) for epoch in run.history],
                    }
                )
        first = rank() == 0
    some = next(iter(runs.values()))[0].model
    results: dict[str, Any] = {
        "version": VERSION,
        "data": data.described(),
        "metric": dataclasses.asdict(metric),
        "parameters": sum(parameter.numel() for parameter in some.parameters()),
        "people": {"train": len(people), "test": len(test), "joints": people.joints.name},
        "config": dataclasses.asdict(config),
        "machine": dataclasses.asdict(machine),
        "arms": found,
    }
    if first:  # after the ranks have parted, because drawing takes a step that the others know nothing of
        print(report(results), _distributions(runs, people.joints), sep="\n", flush=True)
        path = options.out / FILE
        write_results(path, results)
        paths = draw({arm: of[0] for arm, of in runs.items()}, results, people, options.out)
        print("\n".join(["Written:", *(f"  {path}" for path in [path, *paths]), f"  tensorboard --logdir {options.out}"]))
    return results


def _measure(run: Run, data: Data) -> dict[str, Any]:
    test, metric = data.test, data.metric

    def scores(turn: Turn, thresholds: Sequence[float]) -> dict[str, Scores]:
        config = run.config
        table = evaluate(
            run.model, test, config.loss, size=config.size, thresholds=thresholds, turn=turn, rank=rank(), ranks=ranks()
        )
        return {str(threshold): table[threshold] for threshold in thresholds}

    thresholds = sorted({*metric.curve, metric.threshold})
    main = str(metric.threshold)
    official = {}
    if data.originals is not None:
        predicted = _predictions(run, test, data.originals)
        official = benchmark.curve(predicted, data.originals, thresholds)
    known = data.people.subset(range(min(len(data.people), len(test))))
    return {
        "pck": scores(Turn(), thresholds),
        "pck_train": evaluate(  # of people that the network knows: how far apart the two are is what augmentation can win
            run.model, known, run.config.loss, size=run.config.size, thresholds=[metric.threshold], rank=rank(), ranks=ranks()
        )[metric.threshold],
        "benchmark": {str(threshold): row for threshold, row in official.items()},  # in the photographs; none of drawn people
        "turned": {str(turn): scores(turn, [metric.threshold])[main]["Mean"] for turn in TURNS},
    }


def _predictions(run: Run, test: People, originals: Originals) -> Array:
    """Joints in the photographs, in the order of the people; every rank predicts its part and gets all."""
    everybody = range(len(test))
    mine = everybody[rank() :: ranks()]
    people, where = (test.subset(mine), originals.subset(mine)) if ranks() > 1 else (test, originals)
    found = benchmark.predict(run.model, people, where, run.config.loss, size=run.config.size)
    if ranks() == 1:
        return found
    parts: list[Any] = [None] * ranks()
    dist.all_gather_object(parts, found)
    together = np.empty_like(originals.keypoints)
    for i, part in enumerate(parts):
        together[i :: ranks()] = part
    return together


def report(results: dict[str, Any]) -> str:
    """The tables of a comparison, in Markdown."""
    metric, arms = results["metric"], results["arms"]
    main, name = str(metric["threshold"]), f"{metric['name']}@{metric['threshold']:g}"
    seeds = len(next(iter(arms.values())))
    over = f", mean of {seeds} seeds" if seeds > 1 else ""
    groups = {arm: average([run["pck"][main] for run in of]) for arm, of in arms.items()}
    turned = {arm: average([run["turned"] for run in of]) for arm, of in arms.items()}
    lines = [
        "",
        f"{name} of {results['people']['test']} test people ({results['data']['test']}), flip test{over}",
        "",
        markdown_table(_with_differences(groups), "%"),
        "",
    ]
    if all(run["benchmark"] for of in arms.values() for run in of):
        official = {arm: average([run["benchmark"][main] for run in of]) for arm, of in arms.items()}
        lines += [
            f"{name} as the benchmark counts it, in pixels of the original photographs{over}",
            "",
            markdown_table(_with_differences(official), "%"),
            "",
        ]
    lines += [
        f"Mean {name} when every test person is turned (counter-clockwise), scaled, or hidden in part (cells of 4 × 4)",
        "",
        markdown_table(_with_differences(turned), "%"),
        "",
        "Training: " + ", ".join(f"{arm} {average_seconds(of):.0f} s" for arm, of in arms.items()) + ".",
    ]
    if seeds > 1:
        each = {arm: {f"seed {run['seed']}": run["pck"][main]["Mean"] for run in of} for arm, of in arms.items()}
        lines += ["", f"Mean {name} of each seed", "", markdown_table(each, "%")]
    return "\n".join(lines)


def average_seconds(runs: Sequence[dict[str, Any]]) -> float:
    """The mean training time."""
    return sum(run["seconds"] for run in runs) / len(runs)


def _with_differences(scores: dict[str, Scores]) -> dict[str, dict[str, float | str]]:
    """Each arm, then by how much each differs from the first."""
    base = next(iter(scores))
    rows: dict[str, dict[str, float | str]] = {arm: dict(values) for arm, values in scores.items()}
    for arm in list(scores)[1:]:
        rows[f"{arm} − {base}"] = dict(difference(scores[arm], scores[base]))
    return rows


def _heading(data: Data, config: Config, options: argparse.Namespace) -> str:
    people, test = data.people, data.test
    network = f"{config.stacks}-stack {config.block} hourglass"
    first, _, third = config.epochs
    steps = (first + third) * (len(people) // config.batch_size)
    return (
        f"{network}, {config.size}×{config.size} crops: {len(people)} people to train on ({data.trained_on}), "
        f"{len(test)} to test on ({data.tested_on}); {people.joints.name} joints.\n"
        f"Arms {', '.join(options.arms)}; each takes {steps} steps of {config.batch_size} people from the same weights "
        f"(seed {', '.join(map(str, options.seeds))}).\n"
    )


def _distributions(runs: dict[str, list[Run]], joints: Joints) -> str:
    """What each arm's generators last proposed, as bars of text; the highest is what the network found hardest."""
    lines: list[str] = []
    for arm, (run, *_) in runs.items():
        latest: dict[str, list[float]] = {}
        for epoch in run.history:
            latest |= epoch.distribution
        learned = {b.name: b for b in policy_of(run.config, joints).branches if b.learned}
        if not latest or not learned:
            continue
        lines += ["", f"What the generators of {arm} proposed last (1.0 is uniform)"]
        for branch in learned.values():
            for operation in branch.operations:
                values = latest.get(f"{branch.name}.{operation.name}")
                if values:
                    lines += _bars(operation, values)
    return "\n".join([*lines, ""])


def _bars(operation: Any, values: Sequence[float]) -> list[str]:
    ratios = [value * len(values) for value in values]
    if isinstance(operation, adaug.Binned):
        labels, width = plots.bin_labels(operation), 6
        return [
            f"  {operation.name:<8}" + "".join(label.rjust(width) for label in labels),
            " " * 10 + "".join((_block(ratio) * 3).rjust(width) for ratio in ratios),
            " " * 10 + "".join(f"{ratio:.1f}".rjust(width) for ratio in ratios),
        ]
    columns = operation.grid[1]
    rows = [ratios[i : i + columns] for i in range(0, len(ratios), columns)]
    names = [f"  {operation.name:<8}", *[" " * 10] * (len(rows) - 1)]
    return [name + "".join(f"  {_block(r)} {r:.1f}" for r in row) for name, row in zip(names, rows, strict=True)]


def _block(ratio: float) -> str:
    return BLOCKS[max(0, min(len(BLOCKS) - 1, round(ratio / 2 * (len(BLOCKS) - 1))))]


# -- pictures --------------------------------------------------------------------------------------------------------


def draw(runs: dict[str, Run], results: dict[str, Any], people: People, out: Path) -> list[Path]:
    """Writes the figures of the runs (one an arm) and returns their paths."""
    found = {arm: curve_of(of) for arm, of in results["arms"].items()}
    figures: dict[str, Any] = {
        "pck_curve": draw_pck_curves(found, metric=results["metric"]["name"], data=results["data"]["test"])
    }
    adversarial = next((run for arm, run in runs.items() if arm not in UNLEARNED), None)
    if adversarial is not None:
        figures |= _draw_adversarial(adversarial, runs.get("random") or runs.get("uniform"), people)
    paths = []
    for name, figure in figures.items():
        paths.append(out / f"{name}.png")
        figure.savefig(paths[-1])
    return paths


def _draw_adversarial(run: Run, other: Run | None, people: People) -> dict[str, Any]:
    config, joints = run.config, people.joints
    policy = policy_of(config, joints)
    figures: dict[str, Any] = {}
    found = [(epoch.number, epoch.distribution) for epoch in run.history if epoch.distribution]
    if found:
        numbers, history = zip(*found, strict=True)
        figures["distributions"] = plots.draw_distributions(history, policy=policy, epochs=numbers)
    turns = turns_of(config)  # errors are known of these bins alone
    asked = [(branch.name, turn) for branch in policy.branches for turn in turns if turn in branch.operations]
    measure = MEASURES[config.measure]
    for branch, turn in asked if other is not None and found and config.bins_every else ():
        assert other is not None
        name = "rotation" if isinstance(turn, adaug.Rotate) else turn.name
        figures[f"status_{name}"] = draw_training_status(run.history, other.history, turn, branch=branch, measure=measure)
    figures["views"] = _draw_views(run, people)
    return figures


def _draw_views(run: Run, people: People) -> Any:
    """A batch as the finished generators would have it. The checkpoint is written: this step changes no result."""
    joints, device = people.joints, next(run.model.parameters()).device
    few = people.subset(range(min(18, len(people))))
    batch = {name: value.to(device) for name, value in next(few.batches(18, shuffle=False)).items()}
    run.augmenter.progress = 0.0  # the branches may rest at the end
    with evaluating(run.model):
        result = run.augmenter.step(run.model, batch, lambda outputs, rows: loss_of(run.config, outputs, rows))
    names = run.augmenter.branch_names
    order = result.branch.argsort(stable=True)
    return plots.draw_views(
        {name: value[order] for name, value in result.batch.items()},
        view=result.view.rows(order),
        titles=[names[i] for i in result.branch[order].tolist()],
        limbs=joints.limbs,
        left=[i for i, name in enumerate(joints.names) if name.startswith("left")],
        right=[i for i, name in enumerate(joints.names) if name.startswith("right")],
        targets={"reference": "other"},
        title=f"One mini-batch of {run.config.arm}",
    )

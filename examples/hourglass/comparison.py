"""A comparison of arms: trains each, measures and audits it, prints tables, draws, and writes the numbers as JSON."""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch.distributed as dist

import adaug
from adaug import plots
from examples.datasets.cropping import Array, Originals
from examples.datasets.people import TARGETS, People, Scores
from examples.datasets.photograph_pck import pck_in_photographs
from examples.datasets.safe_files import write_whole
from examples.hourglass import augmentation
from examples.hourglass.augmentation import MakeAugmenter, loss_of
from examples.hourglass.checkpoints import NAME, one_run
from examples.hourglass.config import (
    ARMS,
    LEARNED_BY_RUNNING,
    MEASURES,
    OTHERS_FROM_THE_START,
    UNLEARNED,
    WITHOUT_GENERATORS,
    Config,
    Machine,
    distributed,
    rank,
    ranks,
    started,
)
from examples.hourglass.data import Data
from examples.hourglass.evaluation import audit, evaluate, evaluating, predict
from examples.hourglass.tables import NEXT, average, hard_views, markdown_table, said, show, statistics, with_differences
from examples.hourglass.training import Run, train

FILE = "results.json"
FEW = 6  # people in a pass below which BatchNorm's statistics are poor
VERSION = 3  # raise it if a reader could misunderstand an older file. 3: audits instead of turned and hidden views


def compare(
    data: Data, config: Config, options: argparse.Namespace, make_augmenter: MakeAugmenter = augmentation.make_augmenter
) -> dict[str, Any]:
    """Trains every arm with every seed in the same way and prints the results. Returns what results.json has."""
    with one_run(options.out, ("audit-*.npz.part",)) if started()["rank"] == 0 else nullcontext():
        return _compare(data, config, options, make_augmenter)


def _compare(data: Data, config: Config, options: argparse.Namespace, make_augmenter: MakeAugmenter) -> dict[str, Any]:
    runs: dict[str, list[Run]] = {}
    measured: dict[str, list[dict[str, Any]]] = {}
    shared: set[int] = set()  # the seeds whose stage 1 this call has trained
    asked = Machine(options.device, options.compile, options.channels_last, options.sync_batchnorm)
    with distributed(asked) as machine:
        if rank() == 0:
            print(_heading(data, config, options), flush=True)
        for seed in options.seeds:
            for arm in options.arms:
                of_arm, folder = replace(config, arm=arm, seed=seed), options.out / f"{arm}-seed{seed}"
                more: dict[str, Any] = {"make_augmenter": make_augmenter, "machine": machine, "test": data.test}
                more |= {"threshold": data.metric.threshold, "resume": options.resume}
                fresh = not options.resume or not (folder / NAME).is_file()
                if config.epochs[0] and arm not in OTHERS_FROM_THE_START and fresh:
                    more["stage_1"] = first = options.out / f"stage1-seed{seed}"
                    again = {**more, "stage_1": None, "resume": options.resume or seed in shared, "only_stage_1": True}
                    train(data.people, data.validation, replace(of_arm, arm="random"), first, **again)
                    shared.add(seed)
                    if rank() == 0:
                        print(f"{arm}, seed {seed}: starts from stage 1 in {first}, as all arms of this seed do.", flush=True)
                run = train(data.people, data.validation, of_arm, folder, **more)
                runs.setdefault(arm, []).append(run)
                measured.setdefault(arm, []).append(
                    {
                        "seed": seed,
                        "folder": run.folder.name,
                        "seconds": round(sum(epoch.seconds for epoch in run.history), 1),
                        "cpu_seconds": round(sum(epoch.cpu_seconds for epoch in run.history), 1),
                        "images": run.history[-1].images,
                        **_measure(run, data),
                        "history": [dataclasses.asdict(epoch) for epoch in run.history],
                    }
                )
        alone = rank() == 0
    some = next(iter(runs.values()))[0].model
    results: dict[str, Any] = {
        "version": VERSION,
        "data": data.described(),
        "metric": dataclasses.asdict(data.metric),
        "parameters": sum(parameter.numel() for parameter in some.parameters()),
        "people": {"train": len(data.people), "test": len(data.test), "joints": data.people.joints.name},
        "config": dataclasses.asdict(config),
        "machine": dataclasses.asdict(machine),
        "arms": measured,
    }
    if alone:  # after the ranks have parted, because audits and drawing take passes that the others know nothing of
        firsts = {arm: first for arm, (first, *_) in runs.items()}
        for arm in LEARNED_BY_RUNNING:
            if (learner := firsts.get(arm)) is not None and learner.history[-1].distribution:
                print(f"\n{hard_views(learner.augmenter, MEASURES[config.measure])}")
        found = f"which joints does each find ({data.metric.name}@{data.metric.threshold:g})"
        print(f"\nAudits of the {len(data.test)} test people, turned, scaled or hidden in part: {found}? ...\n", flush=True)
        audits = {arm: [_audit(run, data, options.out) for run in of_arm] for arm, of_arm in runs.items()}
        for arm, measures in measured.items():
            for one, audited in zip(measures, audits[arm], strict=True):
                one["audit"] = said(audited)
        print(score_tables(results), end="", flush=True)
        write_results(options.out / FILE, results)
        drawn = show({arm: first for arm, (first, *_) in audits.items()}, options.out)
        drawn += draw(firsts, data.people, options.out)
        print("\nLook at:", *drawn, f"  {options.out / FILE}: all the numbers", "", NEXT, sep="\n")
    return results


def _heading(data: Data, config: Config, options: argparse.Namespace) -> str:
    steps = (config.epochs[0] + config.epochs[2]) * (len(data.people) // config.batch_size)
    held_out = " (the test people, as in the paper)" if data.validation is data.test else ", held out"
    text = (
        f"A network ({config.stacks}-stack {config.block} hourglass) learns to find people's joints in crops of {config.size}² "
        f"pixels.\nTrained on {len(data.people)}: {data.trained_on}.\nValidated on {len(data.validation)}{held_out}.\n"
        f"Tested on {len(data.test)}: {data.tested_on}.\n\n"
        f"Each training takes {steps} steps of {config.batch_size} people from the same first weights (seed "
        f"{', '.join(map(str, options.seeds))}). Only the views\ndiffer, scaled by {config.scale[0]:g} to {config.scale[1]:g} "
        f"and turned by up to ±{config.rotation:g}°{config.variant and f' ({config.variant})'}:\n"
    )
    text += "".join(f"  {arm:<8} {ARMS[arm]}\n" for arm in options.arms)
    if any(arm not in WITHOUT_GENERATORS for arm in options.arms):
        text += f"\nGenerators: {config.narrowed() or 'as wide and as fine as the hourglass'}; "
        text += (
            "no cap on their updates, so they may collapse to one bin" if config.cap is None else f"a cap of {config.cap:g} / k"
        )
        text += f"; stage 2 takes {config.pretrain_people or 'all'} people an epoch.\n"
    rows = config.batch_size // (ranks() * config.accumulate)
    if rows < FEW and not options.sync_batchnorm:
        text += (
            f"\nWarning: a pass has only {rows} people. BatchNorm then normalises by few, and a branch gets one or none. "
            "Take a larger --batch-size, a smaller --accumulate, or --sync-batchnorm.\n"
        )
    return text


def _measure(run: Run, data: Data) -> dict[str, Any]:
    def scores(people: People) -> dict[str, Scores]:
        more: dict[str, Any] = {"rank": rank(), "ranks": ranks(), "precision": run.config.precision, "size": run.config.size}
        table = evaluate(run.model, people, run.config.loss, thresholds=thresholds, **more)
        return {str(threshold): row for threshold, row in table.items()}

    thresholds, main = sorted({*data.metric.curve, data.metric.threshold}), str(data.metric.threshold)
    in_photographs = {}
    if data.originals is not None:
        predicted = _predict_in_photographs(run, data.test, data.originals)
        in_photographs = {str(at): pck_in_photographs(predicted, data.originals, at) for at in thresholds}
    known = data.people.subset(range(min(len(data.people), len(data.test))))
    return {
        "pck": scores(data.test),
        "pck_train": scores(known)[main],  # how far the two are apart is what augmentation can win
        "benchmark": in_photographs,  # as the benchmarks count; empty for drawn people
    }


def _audit(run: Run, data: Data, out: Path) -> adaug.Audit:
    """Audits a run on the test people and saves the audit beside the results."""
    more: dict[str, Any] = {"size": run.config.size, "precision": run.config.precision, "threshold": data.metric.threshold}
    audited = audit(run.model, data.test, run.config.loss, **more)
    audited.save(out / f"audit-{run.folder.name}.npz")
    return audited


def _predict_in_photographs(run: Run, test: People, originals: Originals) -> Array:
    """Joints in the photographs, in the order of the people. Every rank predicts a part and gets all."""
    share = range(len(test))[rank() :: ranks()]
    people, where = (test.subset(share), originals.subset(share)) if ranks() > 1 else (test, originals)
    size = run.config.size
    found = predict(run.model, people, size, run.config.loss, precision=run.config.precision)
    predicted = where.to_image(found.double().numpy(), size)
    if ranks() == 1:
        return predicted
    parts: list[Any] = [None] * ranks()
    dist.all_gather_object(parts, predicted)
    together = np.empty_like(originals.keypoints)
    for i, part in enumerate(parts):
        together[i :: ranks()] = part
    return together


def write_results(path: Path, results: dict[str, Any]) -> None:
    """Writes the whole file or nothing. Lists and rows of numbers stand on one line, so that a person can read them."""
    text = json.dumps(results, indent=1, ensure_ascii=False)
    text = re.sub(r"([\[{])\n\s+([^\[\]{}]*?)\n\s+([\]}])", lambda m: m[1] + re.sub(r"\n\s+", " ", m[2]) + m[3], text)
    write_whole(path, (text + "\n").encode())


def score_tables(results: dict[str, Any]) -> str:
    """The tables of a comparison, in Markdown."""
    metric, arms = results["metric"], results["arms"]
    main, name = str(metric["threshold"]), f"{metric['name']}@{metric['threshold']:g}"
    seeds = len(next(iter(arms.values())))
    over = f", mean of {seeds} seeds" if seeds > 1 else ""
    several = len(arms) != 2 or seeds > 1  # else the comparison of both audits says it, with intervals
    photographs = all(run["benchmark"] for runs in arms.values() for run in runs)
    parts: list[str] = []

    def add(about: str, scores: Callable[[dict[str, Any]], Mapping[str, float]]) -> None:
        means = {arm: average([scores(run) for run in runs]) for arm, runs in arms.items()}
        parts.extend([f"{name} {about}{over}", with_differences(means, "%")])

    if several or photographs:
        about = f"of {results['people']['test']} test people ({results['data']['test']}), flip test"
        add(about, lambda run: run["pck"][main])
    if photographs:
        add("as the benchmark counts it, in pixels of the original photographs", lambda run: run["benchmark"][main])
    if several:
        about = "of the audits, no flip test: turned and scaled (the grid), or one of 4 × 4 cells hidden"
        add(about, lambda run: statistics(run["audit"]))
        seconds = {arm: sum(run["seconds"] for run in runs) / len(runs) for arm, runs in arms.items()}
        parts.append("Training took " + ", ".join(f"{value:.0f} s ({arm})" for arm, value in seconds.items()) + ".")
    if seeds > 1:
        each = {arm: {f"seed {run['seed']}": run["pck"][main]["Mean"] for run in runs} for arm, runs in arms.items()}
        parts += [f"Mean {name} of each seed", markdown_table(each, "%")]
    return "".join(f"{part}\n\n" for part in parts)


def draw(runs: dict[str, Run], people: People, out: Path) -> list[str]:
    """Draws two pictures of the last learned arm. Returns lines with their paths and contents."""
    run = next((run for arm, run in reversed(runs.items()) if arm not in UNLEARNED), None)
    if run is None:
        return []
    shown = [f"  {out / 'views.png'}: people as {run.config.arm} has them: random, scaled and turned (asr), hidden (aho)"]
    _draw_views(run, people).savefig(out / "views.png")
    drawn = {epoch.number: epoch.distribution for epoch in run.history if epoch.distribution}
    if drawn:
        shown.append(f"  {out / 'distributions.png'}: how often {run.config.arm} drew what, epoch by epoch; 1 is uniform")
        figure = plots.draw_distributions(list(drawn.values()), policy=run.augmenter.policy, epochs=list(drawn))
        figure.savefig(out / "distributions.png")
    return shown


def _draw_views(run: Run, people: People) -> Any:
    """Draws a batch under views of the finished run. Its checkpoint is written already, so this step changes no result."""
    device = next(run.model.parameters()).device
    few = people.subset(range(min(18, len(people))))
    batch = {name: value.to(device) for name, value in next(few.batches(18, shuffle=False)).items()}
    run.augmenter.progress = 0.0  # the branches may rest at the end
    with evaluating(run.model):
        result = run.augmenter.step(run.model, batch, partial(loss_of, run.config))
    order = result.branch.argsort(stable=True)
    return plots.draw_views(
        {name: value[order] for name, value in result.batch.items()},
        view=result.view.select(order),
        titles=[run.augmenter.branch_names[i] for i in result.branch[order].tolist()],
        targets=TARGETS,
        title=f"One mini-batch of {run.config.arm}",
        **people.joints.as_drawn(),
    )

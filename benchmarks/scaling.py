"""How does the cost of adaug grow with images, joints, bins, cells, branches and ranks?

    python benchmarks/scaling.py

It varies one factor at a time and measures the milliseconds of a step beyond a plain step with random views, in turns. The
network is so small that adaug takes nearly the whole step. Then two processes (gloo) train together: it counts the bytes that
they sum, and measures the time. The times of 8, 64 and 512 ranks are computed from these bytes.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import adaug
from adaug.learners import Paper
from benchmarks import draw
from benchmarks.result_files import save, spread
from examples.datasets.people import MPII
from examples.hourglass.model import StackedHourglass

SIDE = 64
BASE = {"images": 24, "joints": 16, "bins": 9, "cells": 4, "branches": 2}
FACTORS = {
    "images": (6, 12, 24, 48, 96),
    "joints": (4, 16, 64, 256),
    "bins": (5, 9, 33, 129),
    "cells": (2, 4, 8, 16),  # cells along a side of the grid
    "branches": (1, 2, 4, 8),
}
RANKS = (8, 64, 512)
BANDWIDTH, LATENCY = 10e9, 20e-6  # bytes/s of a link and seconds per message, for the estimate: one fast network card


def build(images: int, joints: int, bins: int, cells: int, branches: int) -> tuple[Callable[[], None], Callable[[], None]]:
    """An adversarial and a plain step. Half of the branches rotate and scale, the others hide."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 16, 3, 4, 1), nn.ReLU(), nn.Conv2d(16, 4, 1))
    batch = {"image": torch.rand(images, 3, SIDE, SIDE), "keypoints": SIDE * torch.rand(images, joints, 2)}
    how = Paper(features=["0"])
    learned = [
        adaug.Branch(f"asr{i}", (adaug.Scale(0.75, 1.25, bins), adaug.Rotate(-30, 30, bins)), 2 / 3 / branches, how)
        if i % 2 == 0
        else adaug.Branch(f"aho{i}", (adaug.OccludeFeatures(grid=(cells, cells), cells=(1, 2)),), 2 / 3 / branches, how)
        for i in range(branches)
    ]
    pairs = [(i, i + 1) for i in range(0, joints - 1, 2)]
    augmenter = adaug.AdversarialAugmenter(adaug.Policy(learned, (adaug.Flip(pairs),)), seed=0)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)

    def loss_fn(output: Tensor, rows: dict[str, Tensor]) -> Tensor:
        return output.square().mean((1, 2, 3))

    def learn(loss: Tensor) -> None:
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def plain() -> None:
        rows = augmenter.random(batch)
        learn(loss_fn(model(rows["image"]), rows).mean())

    return lambda: learn(augmenter.step(model, batch, loss_fn).loss), plain


def extra(rounds: int, **factors: int) -> dict[str, float]:
    """The milliseconds of a step beyond the plain one."""
    steps = build(**factors)
    for step in steps:
        step()
    times: list[list[float]] = [[], []]
    for i in range(rounds):
        for which in ((0, 1), (1, 0))[i % 2]:
            start = time.perf_counter()
            steps[which]()
            times[which].append(1e3 * (time.perf_counter() - start))
    return spread([a - b for a, b in zip(*times, strict=True)])


def rank_worker() -> None:
    """One of two processes of torchrun: counts the sums of a step of the paper's policy on 256-channel features."""
    dist.init_process_group("gloo")
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 256, 4, 4), *(nn.MaxPool2d(2) for _ in range(4)))
    augmenter = adaug.AdversarialAugmenter(adaug.policies.paper(learned=Paper([str(i) for i in range(5)])), seed=0)
    original, handed = dist.all_reduce, []

    def counted(tensor: Tensor) -> None:
        handed.append(tensor.numel() * tensor.element_size())
        original(tensor)

    with mock.patch("torch.distributed.all_reduce", counted):
        augmenter.step(model, {"image": torch.rand(6, 3, 256, 256)}, lambda output, rows: output.mean((1, 2, 3)))
    tensors, times = [torch.zeros(size // 4) for size in handed], []
    for _ in range(30):
        dist.barrier()
        start = time.perf_counter()
        for tensor in tensors:
            original(tensor)
        times.append(1e3 * (time.perf_counter() - start))
    if dist.get_rank() == 0:
        print(json.dumps({"bytes": handed, "two_processes_ms": statistics.median(times)}))
    dist.destroy_process_group()


def two_ranks() -> dict[str, Any]:
    """The bytes that a rank sums in a step, and the milliseconds of this with two processes on this machine."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", __file__]
    printed = subprocess.run([*command, "--rank-worker"], check=True, capture_output=True, text=True).stdout
    return dict(json.loads(next(line for line in printed.splitlines() if line.startswith("{"))))


def ring_ms(handed: float, ranks: int) -> float:
    """The computed time of a ring all-reduce: 2 (n - 1) messages of bytes / n each."""
    return 1e3 * 2 * (ranks - 1) * (LATENCY + handed / ranks / BANDWIDTH)


def table(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    lines = ["| factor | ms a step beyond the plain one: median (least–greatest) |", "|---|---|"]
    for factor, times in results["factors"].items():
        cells = [f"**{value}**: {time['median']:.0f} ({time['min']:.0f}–{time['max']:.0f})" for value, time in times.items()]
        lines.append(f"| {factor} | " + ", ".join(cells) + " |")
    ranks = results["ranks"]
    estimates = ", ".join(f"{n} ranks {ms:.1f} ms" for n, ms in ranks["ring_ms_computed"].items())
    base = ", ".join(f"{value} {name}" for name, value in BASE.items())
    return "\n".join([
        *lines,
        "",
        f"Where a factor is not varied: {base} (cells: of a side of the grid).",
        "",
        f"Ranks: each hands over {sum(ranks['bytes']) / 2**20:.2f} MiB a step in {len(ranks['bytes'])} sums (the gradients of "
        f"the two generators, on 256-channel features), {100 * ranks['part_of_ddp']:.1f} % of what DDP sums for the paper's "
        f"hourglass. Summing them over two processes of this machine took {ranks['two_processes_ms']:.1f} ms. Computed, for "
        f"a ring at {BANDWIDTH / 1e9:.0f} GB/s and {LATENCY * 1e6:.0f} µs a message: {estimates}.",
    ])  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--name", default="scaling", help="name of the file under results/")
    parser.add_argument("--rank-worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.rank_worker:
        rank_worker()
        return
    factors: dict[str, Any] = {}
    for factor, values in FACTORS.items():
        factors[factor] = {value: extra(options.rounds, **{**BASE, factor: value}) for value in values}
        print(factor, {value: round(time["median"], 1) for value, time in factors[factor].items()}, flush=True)
    ranks: dict[str, Any] = two_ranks()
    ranks["ring_ms_computed"] = {n: sum(ring_ms(size, n) for size in ranks["bytes"]) for n in RANKS}
    network = sum(parameter.numel() for parameter in StackedHourglass(len(MPII), modules=3).parameters())
    ranks["part_of_ddp"] = sum(ranks["bytes"]) / (4 * network)
    results = {"rounds": options.rounds, "base": BASE, "factors": factors, "ranks": ranks}
    print(table(results))
    print(f"written to {save(options.name, results, table(results), draw.scaling(factors))}")


if __name__ == "__main__":
    main()

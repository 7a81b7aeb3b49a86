"""What does an audit cost? Compares its time and memory with bare forward passes, and with a loop written by hand.

    python benchmarks/audit.py
    python benchmarks/audit.py --images 1000 --rounds 5

All see the same images under the same views, on one thread. "Bare" runs only the forward passes, on prepared images. "Loop" is
what a user would write: `adaug.apply_view`, a forward pass and a score for every batch and view. The three take turns, so a
drift of the machine's speed affects all alike. Memory is the peak of a separate process that runs the audit or the loop.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import adaug
from benchmarks.result_files import save, spread
from examples.classification import ResNet
from examples.hourglass.model import StackedHourglass

Batch = dict[str, Tensor]
SIDE = 64


@dataclass(frozen=True)
class Task:
    """A network, a batch that it understands, and a score."""

    network: Callable[[], nn.Module]
    batch: Callable[[int], Batch]
    score: Callable[[Any, Batch], Tensor]
    says: str


def people(n: int) -> Batch:
    """Images with 16 keypoints."""
    return {
        "image": torch.rand(n, 3, SIDE, SIDE),
        "keypoints": torch.rand(n, 16, 2) * (SIDE - 1),
        "visibility": torch.ones(n, 16),
    }


def near(output: list[Tensor], batch: Batch) -> Tensor:
    """Which joints are within 6 pixels of the truth, [B, 16]."""
    points, _ = adaug.keypoints.decode_heatmaps(output[-1], stride=2)
    return ((points - batch["keypoints"]).norm(dim=-1) < 6).float()


TASKS = {
    "hourglass": Task(
        lambda: StackedHourglass(stacks=1, modules=1, width=64, depth=3, stride=2),
        people,
        near,
        "hourglass of 64 channels, 16 joints",
    ),
    "small hourglass": Task(
        lambda: StackedHourglass(stacks=1, modules=1, width=32, depth=3, stride=2),
        people,
        near,
        "hourglass of 32 channels, 16 joints",
    ),
    "small classifier": Task(
        ResNet,
        lambda n: {"image": torch.rand(n, 1, SIDE, SIDE), "label": torch.randint(10, (n,))},
        lambda output, batch: (output.argmax(1) == batch["label"]).float(),
        "ResNet of 16 channels, 10 classes",
    ),
}
VIEWS = adaug.policies.wide()


def main() -> None:
    """Times every task, measures its memory, and writes the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--name", default="audit")
    parser.add_argument("--alone", choices=("audit", "loop"), help=argparse.SUPPRESS)  # for the peak memory of one
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.alone:
        task = TASKS[args.tasks[0]]
        torch.manual_seed(0)
        run = {"audit": audit, "loop": loop}[args.alone]
        run(task, task.network().eval(), batches(task, args.images, args.batch_size))
        print(peak_of_this_process())
        return
    rows = {name: measure(name, args) for name in args.tasks}
    lines = ["| network | audit / bare | loop / bare | peak memory, audit / loop |", "|---|--:|--:|--:|"]
    for name, row in rows.items():
        lines.append(f"| {TASKS[name].says} | {_ratio(row['audit'])} | {_ratio(row['loop'])} | {row['memory']:.2f} |")
    views = next(iter(rows.values()))["views"]
    markdown = (
        f"{args.images} images of {SIDE} × {SIDE} under {views} views, batches of {args.batch_size}, "
        f"{args.rounds} rounds: medians of CPU time (least to most) as a multiple of the bare forward passes of as many views, "
        "and one peak memory of each.\n\n" + "\n".join(lines)
    )
    print(markdown)
    save(args.name, {"tasks": rows}, markdown)


def _ratio(values: list[float]) -> str:
    """The median and the range as text."""
    over = spread(values)
    return f"{over['median']:.2f} × ({over['min']:.2f} to {over['max']:.2f})"


def measure(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """The time ratios of each round, and the ratios of peak memories."""
    task = TASKS[name]
    torch.manual_seed(0)
    network, data = task.network().eval(), batches(task, args.images, args.batch_size)
    views = len(adaug.audit(network, data[:1], task.score, VIEWS, progress=False).views)
    ratios: dict[str, list[float]] = {"audit": [], "loop": []}
    for i in range(args.rounds + 1):
        seconds = {run.__name__: timed(run, task, network, data) for run in (bare, audit, loop)}
        if i:  # the first round warms up
            for key in ratios:
                ratios[key].append(seconds[key] / seconds["bare"])
    peaks = {run: peak(name, run, args) for run in ("audit", "loop")}
    print(name, ratios, peaks, flush=True)
    return {"views": views, **ratios, "memory": peaks["audit"] / peaks["loop"], "peaks": peaks}


def timed(run: Callable[[Task, nn.Module, list[Batch]], None], task: Task, network: nn.Module, data: list[Batch]) -> float:
    """CPU seconds of one run."""
    started = time.process_time()
    run(task, network, data)
    return time.process_time() - started


def bare(task: Task, network: nn.Module, data: list[Batch]) -> None:
    """Only the forward passes of every batch under every view."""
    with torch.no_grad():
        for batch in data:
            for _ in done():
                network(batch["image"])


def audit(task: Task, network: nn.Module, data: list[Batch]) -> None:
    """The audit."""
    adaug.audit(network, data, task.score, VIEWS, progress=False)


def loop(task: Task, network: nn.Module, data: list[Batch]) -> None:
    """The loop that a user would write."""
    scores: list[Tensor] = []
    with torch.no_grad():
        for batch in data:
            for operations in done():
                seen = adaug.apply_view(batch, operations)
                scores.append(task.score(network(seen["image"]), seen))


def done() -> list[list[tuple[Any, Any]]]:
    """Pairs of operation and magnitude, for as many views as the audit has."""
    scale, rotate = VIEWS.branches[0].operations
    occlude = VIEWS.branches[1].operations[0].on_image()
    alone = [[(operation, centre)] for operation in (scale, rotate, occlude) for centre in operation.centres()]
    pairs = [[(scale, factor), (rotate, angle)] for factor in scale.centres() for angle in rotate.centres()[::3]]
    everything = [[(scale, 0.9), (rotate, 10.0 + i), (occlude, [i % 16])] for i in range(52)]
    views: list[list[tuple[Any, Any]]] = [[], *alone, *pairs, *everything]
    return views[:106]


def batches(task: Task, images: int, size: int) -> list[Batch]:
    """Batches of random images."""
    return [task.batch(min(size, images - start)) for start in range(0, images, size)]


def peak_of_this_process() -> int:
    """The peak memory in KiB. (getrusage would count the memory of the parent process too.)"""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))


def peak(name: str, run: str, args: argparse.Namespace) -> int:
    """The peak memory in KiB of a separate process."""
    command = [sys.executable, __file__, "--alone", run, "--tasks", name]
    command += ["--images", str(args.images), "--batch-size", str(args.batch_size)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1])


if __name__ == "__main__":
    main()

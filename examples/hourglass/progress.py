"""The progress of training: means over an epoch, records of epochs, the line in the terminal, and TensorBoard's curves."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from examples.datasets.people import Scores
from examples.hourglass.config import WITHOUT_GENERATORS, Config, rank

STAGES = {1: "random views", 2: "generators alone", 3: "its own views"}


class Means:
    """Running means of metrics "kind/name". They stay on the device, because reading a number would wait for it."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}

    def add(self, metrics: dict[str, Tensor]) -> None:
        for name, value in metrics.items():
            self.sums[name] = self.sums[name] + value if name in self.sums else value.clone()
            self.counts[name] = self.counts.get(name, 0) + 1

    def state_dict(self) -> dict[str, Any]:
        return {"sums": dict(self.sums), "counts": dict(self.counts)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.sums = {name: value.to(self.device) for name, value in state["sums"].items()}
        self.counts = dict(state["counts"])

    def of_kind(self, kind: str) -> dict[str, Tensor]:
        """Name -> mean, for one kind."""
        names = {key.partition("/")[2]: key for key in self.sums if key.partition("/")[0] == kind}
        return {name: self.sums[key] / self.counts[key] for name, key in names.items()}

    def total(self, kind: str) -> Tensor:
        """The mean over all metrics of a kind."""
        means = [value.float() for value in self.of_kind(kind).values()]
        return torch.stack(means).mean() if means else torch.zeros((), device=self.device)


@dataclass(frozen=True)
class Epoch:
    """The record of an epoch, in plain numbers for JSON. Means are those of the first rank's rows."""

    stage: int
    number: int  # from 1, all stages counted
    images: int  # that the network has been trained on so far
    seconds: float
    lr: float
    loss: dict[str, float]  # branch -> mean; in stage 2 branch.operation -> KL divergence
    reward_rate: dict[str, float]  # branch -> how often its view was harder than the reference view
    entropy: dict[str, float]  # branch.operation -> nats
    distribution: dict[str, list[float]]  # branch.operation -> mean probability of each bin or cell
    pck: Scores = field(default_factory=dict)  # empty when not evaluated
    by_bin: dict[str, list[float]] = field(default_factory=dict)  # operation -> mean error (or loss) of each bin
    cpu_seconds: float = 0.0  # of the first rank's process: what other programs take does not count. 0: not measured


class Progress:
    """Tells how a run goes, on one line of the terminal or in a log, and writes TensorBoard's curves. Only the first rank does.

    Args:
        plan, steps: The stage and the number of steps of each epoch.
        done: The epochs that were finished before.
    """

    def __init__(
        self, folder: Path, config: Config, plan: Sequence[int], steps: Sequence[int], done: Sequence[Epoch], shown: bool
    ) -> None:
        self.config, self.plan, self.steps = config, plan, steps
        self.shown, self.live = shown and rank() == 0, sys.stderr.isatty()
        self.epoch_number, self.at = len(done), 0  # epochs and steps of the next one that are done
        self.pck = next((epoch.pck["Mean"] for epoch in reversed(done) if epoch.pck), None)
        self.measured = {stage: [0.0, 0] for stage in STAGES}  # seconds and steps
        for epoch, count in zip(done, steps, strict=False):
            self._measure(epoch.stage, epoch.seconds, count)
        self.begun = self.told = time.monotonic()
        self.first = 0  # the first step of this epoch that this process made
        self.writer: Any = None
        if rank() == 0:
            from torch.utils.tensorboard import SummaryWriter  # slow to import, and only the first rank writes

            self.writer = SummaryWriter(str(folder / "tensorboard"), purge_step=len(done) + 1)

    def close(self) -> None:
        if self.shown and self.live:
            print(file=sys.stderr)
        if self.writer is not None:
            self.writer.close()

    def start(self, at: int = 0) -> None:
        """Call it before the first step of each epoch. at: steps that a killed run had made of it."""
        self.begun, self.first, self.at = time.monotonic(), at, at

    def step(self, means: Means) -> None:
        """Call it after each step of an optimizer."""
        self.at += 1
        now = time.monotonic()
        if self.shown and now - self.told >= (0.5 if self.live else 30):  # a log needs no animation
            self.told = now
            print(
                ("\r\033[K" if self.live else "") + self.line(means), end="" if self.live else "\n", file=sys.stderr, flush=True
            )

    def epoch(self, epoch: Epoch) -> None:
        """Call it after each epoch."""
        self.pck = epoch.pck["Mean"] if epoch.pck else self.pck
        self._measure(epoch.stage, epoch.seconds, self.steps[self.epoch_number])
        self.epoch_number, self.at = epoch.number, 0
        if self.writer is not None:
            scalars = {"lr": epoch.lr, "seconds": epoch.seconds}
            for kind in ("loss", "reward_rate", "entropy", "pck"):
                scalars |= {f"{kind}/{name}": value for name, value in getattr(epoch, kind).items()}
            for name, value in scalars.items():
                self.writer.add_scalar(name, value, epoch.number)

    def line(self, means: Means) -> str:
        """Where the run is, its loss, how often views were harder, PCK, rate, memory, and the time that is left."""
        stage, seconds = self.plan[self.epoch_number], max(time.monotonic() - self.begun, 1e-9)
        made, name = self.at - self.first, f"{self.config.arm} seed {self.config.seed}"
        parts = [f"{name}: epoch {self.epoch_number + 1} of {len(self.plan)} ({STAGES[stage]})"]
        parts.append(f"step {self.at} of {self.steps[self.epoch_number]}")
        parts += [f"loss {float(means.total('loss')):.2f}"] if means.sums else []
        parts += [f"{branch} harder {float(value):.0%}" for branch, value in means.of_kind("reward_rate").items()]
        parts += [] if self.pck is None else [f"PCK {self.pck:.1f}"]
        parts.append(f"{made * self.config.batch_size / seconds:.0f} images/s")
        parts.append(f"{memory(means.device) / 2**30:.1f} GiB")
        known = self.measured[stage]
        left = self.seconds_left({**self.measured, stage: [known[0] + seconds, known[1] + made]})
        return ", ".join([*parts, f"{timedelta(seconds=round(left))} left"])

    def seconds_left(self, measured: Mapping[int, Sequence[float]]) -> float:
        """A stage's own seconds a step if it has been seen, else those of others by the passes that its steps take."""
        done = sum(seconds for seconds, _ in measured.values())
        unit = done / max(sum(count * self.passes(stage) for stage, (_, count) in measured.items()), 1e-9)
        ahead = [*self.steps[self.epoch_number :]]
        ahead[0] -= self.at
        each = {stage: seconds / count if count else unit * self.passes(stage) for stage, (seconds, count) in measured.items()}
        return sum(count * each[stage] for stage, count in zip(self.plan[self.epoch_number :], ahead, strict=True))

    def passes(self, stage: int) -> float:
        """Forward passes of everybody that a step takes. A backward pass counts as two."""
        learns = self.config.arm not in WITHOUT_GENERATORS
        return min(self.config.pretrain_views, 7 * 9) + 1 if stage == 2 else 5.0 if stage == 3 and learns else 3.0

    def _measure(self, stage: int, seconds: float, count: int) -> None:
        known = self.measured[stage]
        self.measured[stage] = [known[0] + seconds, known[1] + count]


def memory(device: torch.device) -> int:
    """The most bytes that this process has used so far, of the GPU if there is one."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

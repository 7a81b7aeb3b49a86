"""The progress of training: means over an epoch, records of epochs, the bar in the terminal, and TensorBoard's curves."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm  # type: ignore[import-untyped, unused-ignore]

from examples.datasets.people import Scores
from examples.hourglass.config import Config, rank

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
    """Shows the bar in the terminal and writes TensorBoard's curves. Only the first rank does.

    Args:
        plan, steps: The stage and the number of steps of each epoch.
        done: How many epochs were finished before.
    """

    def __init__(
        self, folder: Path, config: Config, plan: Sequence[int], steps: Sequence[int], done: Sequence[Epoch], bar: bool
    ) -> None:
        self.arm, self.plan = config.arm, plan
        self.bar = tqdm(
            total=sum(steps),
            initial=sum(steps[: len(done)]),
            unit="step",
            mininterval=0.2 if sys.stderr.isatty() else 30,  # a log file needs no animation
            disable=not (bar and rank() == 0),
            bar_format="{desc} {percentage:3.0f} % |{bar:20}| {elapsed}, {remaining} left{postfix}",
        )
        self.pck = next((epoch.pck["Mean"] for epoch in reversed(done) if epoch.pck), None)
        self.writer: Any = None
        if rank() == 0:
            from torch.utils.tensorboard import SummaryWriter  # slow to import, and only the first rank writes

            self.writer = SummaryWriter(str(folder / "tensorboard"), purge_step=len(done) + 1)
        self._describe(len(done))

    def close(self) -> None:
        self.bar.close()
        if self.writer is not None:
            self.writer.close()

    def step(self, means: Means) -> None:
        """Call it after each step of an optimizer."""
        self.bar.update()
        if not self.bar.disable and self.bar.n % 10 == 0:
            shown = [f"loss {float(means.total('loss')):.2f}"] if means.sums else []
            shown += [f"{name} harder {float(value):.0%}" for name, value in means.of_kind("reward_rate").items()]
            shown += [] if self.pck is None else [f"PCK {self.pck:.1f}"]
            self.bar.set_postfix_str(", ".join(shown), refresh=False)

    def epoch(self, epoch: Epoch) -> None:
        """Call it after each epoch."""
        self.pck = epoch.pck["Mean"] if epoch.pck else self.pck
        if self.writer is not None:
            scalars = {"lr": epoch.lr, "seconds": epoch.seconds}
            for kind in ("loss", "reward_rate", "entropy", "pck"):
                scalars |= {f"{kind}/{name}": value for name, value in getattr(epoch, kind).items()}
            for name, value in scalars.items():
                self.writer.add_scalar(name, value, epoch.number)
        self._describe(epoch.number)

    def _describe(self, done: int) -> None:
        if done < len(self.plan):
            stage = f" ({STAGES[self.plan[done]]})" if len(set(self.plan)) > 1 else ""
            text = f"{self.arm:>7}: epoch {done + 1:>2} of {len(self.plan)}{stage}"
            self.bar.set_description_str(text, refresh=sys.stderr.isatty())

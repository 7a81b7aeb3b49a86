"""What a run says of itself: means over an epoch, what an epoch left behind, the bar and TensorBoard's curves."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm  # type: ignore[import-untyped, unused-ignore]

import adaug
from adaug import plots
from examples.hourglass.config import Config
from examples.hourglass.evaluation import Scores
from examples.hourglass.ranks import rank

STAGES = {1: "1 random views", 2: "2 generators", 3: "3 joint"}


@dataclass(frozen=True)
class Epoch:
    """What one epoch left behind; plain numbers, for JSON. The means are those of the first rank's rows."""

    stage: int
    number: int  # from 1, all stages counted
    images: int  # that the network has been trained on so far
    seconds: float
    lr: float
    loss: dict[str, float]  # branch -> mean; in stage 2 head -> KL divergence
    reward_rate: dict[str, float]  # branch -> how often its view was harder than the reference
    entropy: dict[str, float]  # head -> nats
    distribution: dict[str, list[float]]  # head -> mean probability of each bin
    pck: Scores = field(default_factory=dict)  # empty when not evaluated
    by_bin: dict[str, list[float]] = field(default_factory=dict)  # operation -> mean error (or loss) of each bin
    cpu_seconds: float = 0.0  # of the first rank's process: what other programs take does not count. 0: not measured


class Means:
    """Running means of metrics "kind/name", kept on the device: asking for a number would wait for it."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}

    def add(self, metrics: dict[str, Tensor]) -> None:
        for name, value in metrics.items():
            self.sums[name] = self.sums[name] + value if name in self.sums else value.clone()
            self.counts[name] = self.counts.get(name, 0) + 1

    def by_kind(self) -> dict[str, dict[str, Tensor]]:
        kinds: dict[str, dict[str, Tensor]] = {}
        for key, total in self.sums.items():
            kind, _, name = key.partition("/")
            kinds.setdefault(kind, {})[name] = total / self.counts[key]
        return kinds

    def total(self, kind: str) -> Tensor:
        """The mean over everything of a kind."""
        found = [value.float() for value in self.by_kind().get(kind, {}).values()]
        return torch.stack(found).mean() if found else torch.zeros((), device=self.device)


class Reporter:
    """The bar in the terminal, and the curves in TensorBoard. Silent on all ranks but the first.

    steps: of each epoch of the plan.
    """

    def __init__(
        self,
        folder: Path,
        config: Config,
        plan: Sequence[int],
        history: Sequence[Epoch],
        *,
        steps: Sequence[int],
        policy: adaug.Policy,
        enabled: bool,
    ) -> None:
        self.config, self.plan, self.policy, self.active = config, plan, policy, rank() == 0
        self.number = len(history)
        self.bar = tqdm(
            total=sum(steps),
            initial=sum(steps[: self.number]),
            unit="step",
            mininterval=0.2 if sys.stderr.isatty() else 30,  # a log file needs no animation
            disable=not (enabled and self.active),
            bar_format="{desc} {percentage:3.0f}% |{bar:20}| {elapsed}<{remaining}{postfix}",
        )
        self.pck = next((epoch.pck["Mean"] for epoch in reversed(history) if epoch.pck), None)
        self.writer: Any = None
        if self.active:
            from torch.utils.tensorboard import SummaryWriter  # slow to import, and only the first rank writes

            self.writer = SummaryWriter(str(folder / "tensorboard"), purge_step=self.number + 1)
        self._describe()

    def __enter__(self) -> Reporter:
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.close()
        if self.writer is not None:
            self.writer.close()

    def step(self, means: Means) -> None:
        self.bar.update()
        if not self.bar.disable and self.bar.n % 10 == 0:
            shown = {"loss": f"{float(means.total('loss')):.3f}"} if means.sums else {}
            rates = means.by_kind().get("reward_rate", {})
            shown |= {f"{name} harder": f"{float(value):.0%}" for name, value in rates.items()}
            if self.pck is not None:
                shown["PCK"] = f"{self.pck:.1f}"
            self.bar.set_postfix(shown, refresh=False)

    def epoch(self, history: Sequence[Epoch]) -> None:
        epoch = history[-1]
        self.number = epoch.number
        if epoch.pck:
            self.pck = epoch.pck["Mean"]
        if self.active:
            self._write(epoch)
        self._describe()

    def _describe(self) -> None:
        if self.number < len(self.plan):
            stage, number, total = self.plan[self.number], self.number + 1, len(self.plan)
            name = "3 random views" if stage == 3 and self.config.arm == "random" else STAGES[stage]
            self.bar.set_description_str(f"{self.config.arm:>7} | {name:<14} | epoch {number:>2}/{total}")

    def _write(self, epoch: Epoch) -> None:
        scalars = {"lr": epoch.lr, "seconds": epoch.seconds}
        for kind in ("loss", "reward_rate", "entropy", "pck"):
            scalars |= {f"{kind}/{name}": value for name, value in getattr(epoch, kind).items()}
        for name, value in scalars.items():
            self.writer.add_scalar(name, value, epoch.number)
        if epoch.distribution and (epoch.stage == 2 or epoch.by_bin):
            figure = plots.draw_distributions([epoch.distribution], policy=self.policy)
            self.writer.add_figure("distribution", figure, epoch.number)

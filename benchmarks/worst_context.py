"""Is it worth anything to tell images apart? Running difficulty with a table per class, and with a network that sees the image.

They are trials of benchmarks/worst_view.py, not parts of adaug: they reach into an augmenter, which has no place for them.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

import adaug
from adaug._running import RunningDifficulty
from adaug._view import View
from adaug.policy import Branch, Policy

CONTEXTS = ("class", "image")
FLOOR = 0.05  # of a distribution is uniform
Rows = Any


class Context(Protocol):
    """Running difficulty that is told which rows come next."""

    def now(self, batch: Rows) -> None: ...


class ByClass(RunningDifficulty):
    """A table for every class: what is hard to see in a 3 need not be hard in an 8."""

    def __init__(self, policy: Policy, classes: int) -> None:
        super().__init__(policy, torch.device("cpu"))
        self.tables = [RunningDifficulty(policy, torch.device("cpu")) for _ in range(classes)]

    def now(self, batch: Rows) -> None:
        self.label = batch[1]

    @override
    def log_probs(self, branch: Branch, n: int) -> dict[str, Tensor]:
        each = [table.log_probs(branch, 1) for table in self.tables]
        return {name: torch.cat([one[name] for one in each])[self.label] for name in each[0]}

    @override
    def observe(self, view: View, branch: Tensor, difficulty: Tensor) -> None:
        super().observe(view, branch, difficulty)
        for number, table in enumerate(self.tables):  # rows without a finite difficulty do not count
            table.observe(view, branch, torch.where(self.label == number, difficulty, torch.nan))


class BySight(RunningDifficulty):
    """A small network predicts, from the image as it is, how hard each bin and cell is. Every row has its own best response.

    It learns from the same errors: that of a row should be the sum of what it predicts for the row's bins and hidden cells.
    """

    def __init__(self, policy: Policy, channels: int, seed: int) -> None:
        super().__init__(policy, torch.device("cpu"))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.sight = _sight(channels, 1 + sum(self._bins))
        self.optimizer = torch.optim.Adam(self.sight.parameters(), lr=1e-3)
        self.level, self.square = 0.0, 0.0

    def now(self, batch: Rows) -> None:
        image = batch[0] if isinstance(batch, tuple) else batch["image"]
        self.predicted = self.sight(F.adaptive_avg_pool2d(image.float(), 24))  # [B, 1 + bins]

    @override
    def log_probs(self, branch: Branch, n: int) -> dict[str, Tensor]:
        parts = dict(zip(self.operations, self.predicted.detach()[:, 1:].split(self._bins, 1), strict=True))
        cap = branch.running.cap if branch.running else 1.0
        names = {operation.name: branch.full_name(operation) for operation in branch.operations}
        return {name: hardest(parts[full], cap).log() for name, full in names.items()}

    @override
    def observe(self, view: View, branch: Tensor, difficulty: Tensor) -> None:
        super().observe(view, branch, difficulty)
        kept = 0.99 if self.steps > 1 else 0.0
        self.level = kept * self.level + (1 - kept) * float(difficulty.mean())
        self.square = kept * self.square + (1 - kept) * float((difficulty - self.level).square().mean())
        shown = [
            operation.membership(view.magnitudes[name]) if name in view.magnitudes else torch.zeros(len(branch), operation.bins)
            for name, operation in self.operations.items()
        ]
        present = torch.cat([torch.ones(len(branch), 1), *shown], 1).float()
        error = (self.predicted * present).sum(1) - (difficulty - self.level) / max(self.square, 1e-12) ** 0.5
        self.optimizer.zero_grad()
        error.square().mean().backward()  # type: ignore[no-untyped-call, unused-ignore]
        self.optimizer.step()


def hardest(difficulty: Tensor, cap: float) -> Tensor:
    """Probabilities [n, k]: cap / k on the hardest bins of each row until they sum to 1, and a floor."""
    k = difficulty.shape[1]
    given = (1 - cap / k * torch.arange(k)).clamp(0, cap / k)  # to the hardest, the next one, ...
    best = given[difficulty.argsort(1, descending=True).argsort(1)]
    return (1 - FLOOR) * best + FLOOR / k


def _sight(channels: int, outputs: int) -> nn.Sequential:
    def layer(inputs: int, width: int) -> list[nn.Module]:
        return [nn.Conv2d(inputs, width, 3, stride=2, padding=1), nn.ReLU()]

    last = nn.Linear(32 * 9, outputs)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(*layer(channels, 16), *layer(16, 32), *layer(32, 32), nn.Flatten(), last)


def put_in(augmenter: adaug.AdversarialAugmenter, context: str, seed: int, model: nn.Module, batch: Rows) -> Context:
    """Gives a context to an augmenter that has not made a step yet."""
    augmenter.bind(model, batch)
    made: ByClass | BySight
    if context == "class":
        if not isinstance(batch, tuple):
            raise ValueError("--context class should be of a task with classes: digits. Found images without any.")
        made = ByClass(augmenter.policy, classes=10)
    else:
        image = batch[0] if isinstance(batch, tuple) else batch["image"]
        made = BySight(augmenter.policy, image.shape[1], seed)
    augmenter._running = made
    return made

"""What arms of benchmarks/worst_view.py try beside what adaug does: other draws, shares and images, and telling images apart.

These are trials, not parts of adaug. Those with a context or another response reach into an augmenter, which has no place for
them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

import adaug
from adaug._views.view import View
from adaug.learners.running import RunningDifficulty
from adaug.operations import Binned, Geometric
from adaug.policies import Branch, Policy
from benchmarks.worst_tasks import Rows, Task

CONTEXTS = ("class", "image")
RESPONSES = ("capped", "proportional", "softmax")
FLOOR = 0.05  # of a distribution is uniform


def on_the_hardest(difficulty: Tensor, cap: float) -> Tensor:
    """Probabilities [n, k]: cap / k on the hardest bins of each row until they sum to 1, and a floor."""
    k = difficulty.shape[1]
    given = (1 - cap / k * torch.arange(k)).clamp(0, cap / k)  # to the hardest, the next one, ...
    best = given[difficulty.argsort(1, descending=True).argsort(1)]
    return (1 - FLOOR) * best + FLOOR / k


# -- draws -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FixedScale(adaug.Scale):
    """Scales by a distribution that generators were seen to learn, times uniform."""

    WEIGHTS: ClassVar[tuple[float, ...]] = (1.7, 0.5, 0.4, 0.4, 0.5, 1.7, 1.7)

    def choose(self, log_probs: Tensor, stream: Any) -> Tensor:
        return super().choose(log_probs + torch.tensor(self.WEIGHTS).log(), stream)


@dataclass(frozen=True)
class FixedRotate(adaug.Rotate):
    """The same of rotations."""

    WEIGHTS: ClassVar[tuple[float, ...]] = (1.7, 1.6, 0.4, 0.4, 0.5, 0.4, 0.4, 1.6, 1.7)

    def choose(self, log_probs: Tensor, stream: Any) -> Tensor:
        return super().choose(log_probs + torch.tensor(self.WEIGHTS).log(), stream)


@dataclass(frozen=True)
class ScaleRotate(Geometric):
    """Both at once, by one table: every bin is a part of the scales and a part of the rotations. Magnitudes are [n, 2]."""

    both: tuple[adaug.Scale, adaug.Rotate] = field(kw_only=True)

    @staticmethod
    def of(scale: Any, rotate: Any) -> ScaleRotate:
        """With the ranges of two operations, in 3 and 5 parts."""
        both = replace(scale, bins=3), replace(rotate, bins=5)
        return ScaleRotate(0, 1, 15, rest=None if scale.rest is None else 0.0, both=both)

    @override
    def labels(self) -> list[str]:
        return [f"{scale} {turn}" for scale in self.both[0].labels() for turn in self.both[1].labels()]

    @override
    def draw(self, chosen: Tensor, stream: Any) -> Tensor:
        turns = self.both[1].bins
        parts = chosen // turns, chosen % turns
        return torch.stack([one.draw(part, stream) for one, part in zip(self.both, parts, strict=True)], 1)

    @override
    def draw_random(self, n: int, stream: Any) -> Tensor:
        return torch.stack([one.draw_random(n, stream) for one in self.both], 1)

    @override
    def membership(self, magnitude: Tensor) -> Tensor:
        scale, turn = (one.membership(part) for one, part in zip(self.both, magnitude.T.contiguous(), strict=True))
        return (scale[:, :, None] & turn[:, None]).flatten(1)

    @override
    def matrix(self, magnitude: Tensor, size: Any) -> Tensor:
        scale, turn = (one.matrix(part, size) for one, part in zip(self.both, magnitude.unbind(1), strict=True))
        return scale @ turn


FIXED: dict[type[Binned], type[Binned]] = {adaug.Scale: FixedScale, adaug.Rotate: FixedRotate}


# -- shares and images --------------------------------------------------------------------------------------------------


class LearnedShares:
    """Decides the shares of a policy's branches: twice an even share to the hardest, and the rest to the next ones."""

    def __init__(self, policy: adaug.Policy) -> None:
        n = 1 + len(policy.branches)  # random views come first
        self.sums, self.rows, self.shares = torch.zeros(n), torch.zeros(n), torch.full((n,), 1 / n)

    def saw(self, branch: Tensor, errors: Tensor) -> None:
        """Remembers a mean that forgets by 3 % a step, and moves by 2 % of the way."""
        errors, branch = (part[errors.isfinite()] for part in (errors.detach().float(), branch))
        self.sums = (0.97 * self.sums).index_add(0, branch, errors)
        self.rows = (0.97 * self.rows).index_add(0, branch, torch.ones_like(errors))
        best = on_the_hardest((self.sums / self.rows.clamp(min=1e-6))[None], 2.0)[0]
        self.shares = self.shares + 0.02 * (best - self.shares)


@dataclass(frozen=True)
class LearnedShare:
    """The share of one branch, by its number."""

    shares: LearnedShares
    number: int

    def __call__(self, progress: float) -> float:
        return float(self.shares.shares[self.number])


class HardImages:
    """Chooses images too: the harder half of them, by their latest errors, comes three times as often as the other."""

    def __init__(self, task: Task, seed: int) -> None:
        if task.rows is None:
            raise ValueError("--images should be of a task that tells its rows apart: people or faces.")
        self.rows, self.n = task.rows, task.n
        self.errors = torch.zeros(task.n)
        self.generator = torch.Generator().manual_seed(seed)

    def batches(self, size: int) -> Iterator[Rows]:
        """As many as in an epoch."""
        weights = torch.where(self.errors > self.errors.median(), 1.5, 0.5) if self.errors.any() else torch.ones(self.n)
        drawn = torch.multinomial(weights, self.n // size * size, replacement=True, generator=self.generator)
        return map(self.rows, drawn.split(size))

    def saw(self, index: Tensor, errors: Tensor) -> None:
        """Remembers, of each image, a mean that forgets: by a third each time."""
        index, errors = (part[errors.isfinite()] for part in (index, errors.detach()))
        known = self.errors[index]
        self.errors[index] = torch.where(known == 0, errors, known + (errors - known) / 3)


# -- responses ----------------------------------------------------------------------------------------------------------


class OtherResponse(RunningDifficulty):
    """Answers without a cap. "proportional": as often as a bin is hard, Eq. (3) of the paper. "softmax": by e to the power of
    how far a bin is from the mean of its operation, in standard deviations of the bins."""

    def __init__(self, policy: Policy, response: str) -> None:
        super().__init__(policy, torch.device("cpu"))
        self.response = response

    @override
    def _response(self, mean: Tensor, effects: Tensor, variances: Tensor) -> Tensor:
        there = self._there
        if self.response == "proportional":
            weights = torch.where(there, (self.usual + mean + effects).clamp(min=0), 0)
        else:
            spread = (torch.where(there, effects.square(), 0).sum(1, keepdim=True) / there.sum(1, keepdim=True)).sqrt()
            weights = torch.where(there, (effects / spread.clamp(min=1e-12)).exp(), 0)
        return weights / weights.sum(1, keepdim=True)


def give_response(augmenter: adaug.AdversarialAugmenter, response: str, model: nn.Module, batch: Rows) -> None:
    """Gives another response to an augmenter that has not made a step yet."""
    augmenter.bind(model, batch)
    augmenter._running = OtherResponse(augmenter.policy, response)


# -- telling images apart -----------------------------------------------------------------------------------------------


class Context(Protocol):
    """Running difficulty that is told which rows come next."""

    def comes_next(self, batch: Rows) -> None: ...


class ByClass(RunningDifficulty):
    """A table for every class: what is hard to see in a 3 need not be hard in an 8. Its metrics are those of all classes."""

    def __init__(self, policy: Policy, classes: int) -> None:
        super().__init__(policy, torch.device("cpu"))
        self.tables = [RunningDifficulty(policy, torch.device("cpu")) for _ in range(classes)]

    def comes_next(self, batch: Rows) -> None:
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

    def comes_next(self, batch: Rows) -> None:
        image = batch[0] if isinstance(batch, tuple) else batch["image"]
        self.predicted = self.sight(F.adaptive_avg_pool2d(image.float(), 24))  # [B, 1 + bins]

    @override
    def log_probs(self, branch: Branch, n: int) -> dict[str, Tensor]:
        parts = dict(zip(self.operations, self.predicted.detach()[:, 1:].split(self._bins, 1), strict=True))
        cap = branch.running.cap if branch.running else 1.0
        names = {operation.name: branch.full_name(operation) for operation in branch.operations}
        return {name: on_the_hardest(parts[full], cap).log() for name, full in names.items()}

    @override
    def observe(self, view: View, branch: Tensor, difficulty: Tensor) -> None:
        super().observe(view, branch, difficulty)
        known = difficulty.isfinite()
        if not known.any():
            return
        difficulty = difficulty.detach()[known]
        kept = 0.99 if self.steps > 1 else 0.0
        self.level = kept * self.level + (1 - kept) * float(difficulty.mean())
        self.square = kept * self.square + (1 - kept) * float((difficulty - self.level).square().mean())
        present = torch.cat([torch.ones(len(branch), 1), *self._memberships(view, branch)], 1).float()
        error = (self.predicted * present).sum(1)[known] - (difficulty - self.level) / max(self.square, 1e-12) ** 0.5
        self.optimizer.zero_grad()
        error.square().mean().backward()  # type: ignore[no-untyped-call, unused-ignore]
        self.optimizer.step()


def _sight(channels: int, outputs: int) -> nn.Sequential:
    def layer(inputs: int, width: int) -> list[nn.Module]:
        return [nn.Conv2d(inputs, width, 3, stride=2, padding=1), nn.ReLU()]

    last = nn.Linear(32 * 9, outputs)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(*layer(channels, 16), *layer(16, 32), *layer(32, 32), nn.Flatten(), last)


def give_context(augmenter: adaug.AdversarialAugmenter, context: str, seed: int, model: nn.Module, batch: Rows) -> Context:
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

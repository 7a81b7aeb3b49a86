"""What arms try beside what adaug does: other draws, shares and images. Trials, not parts of adaug."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override

import adaug
from adaug.operations import Geometric, Operation
from benchmarks.compare.arms import Arm, Trainer, Views, joined
from benchmarks.compare.tasks import Rows, Task

# -- draws -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ScaleRotate(Geometric):
    """Both at once, by one table: every bin is a part of the scales and a part of the rotations. Magnitudes are [n, 2]."""

    both: tuple[adaug.Scale, adaug.Rotate] = field(kw_only=True)

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


def one_table(operations: Sequence[Any]) -> Sequence[Operation]:
    """A scale and a rotation as one operation, in 3 and 5 parts."""
    scale, rotate = operations
    both = replace(scale, bins=3), replace(rotate, bins=5)
    return [ScaleRotate(0, 1, 15, rest=None if scale.rest is None else 0.0, both=both)]


# -- steps, images and shares ------------------------------------------------------------------------------------------


class WorstOf(Trainer):
    """Draws k views of every row and trains on the hardest one (Engstrom et al., ICML 2019).

    The views are compared by passes in evaluation mode without gradients; then comes a training pass.
    """

    def __init__(self, arm: Arm, task: Task, seed: int, steps: int, *, k: int) -> None:
        if arm.hides != "image":
            raise ValueError("An arm of worst-of-K should hide parts of the image. Found features, which batches do not keep.")
        self.draws = k
        super().__init__(arm, task, seed, steps)

    @override
    def step(self, model: nn.Module, batch: Rows) -> Tensor:
        model.eval()
        with torch.no_grad():
            draws = [self.augmenter.step(model, batch, self.measure) for _ in range(self.draws)]
        model.train()
        hardest = torch.stack([draw.losses for draw in draws]).nan_to_num(-torch.inf).argmax(0)

        def pick(values: Sequence[Tensor]) -> Tensor:
            return torch.stack(list(values))[hardest, torch.arange(len(hardest))]

        return self.plain_loss(model, joined([draw.batch for draw in draws], pick))


def worst_of(k: int) -> Arm:
    """The arm of worst-of-K."""
    return Arm(f"worst-of-{k}", Views(), partial(WorstOf, k=k))


class HardImages(Trainer):
    """Chooses images too: the harder half of them, by their latest errors, comes three times as often as the other."""

    def __init__(self, arm: Arm, task: Task, seed: int, steps: int) -> None:
        if task.rows is None:
            raise ValueError("Hard images should be of a task that tells its rows apart: people or faces.")
        super().__init__(arm, task, seed, steps)
        self.rows, self.errors = task.rows, torch.zeros(task.n)
        self.generator = torch.Generator().manual_seed(seed)

    @override
    def batches(self, epoch: int) -> Iterator[Rows]:
        size, n = self.arm.batch_size or self.task.batch_size, self.task.n
        weights = torch.where(self.errors > self.errors.median(), 1.5, 0.5) if self.errors.any() else torch.ones(n)
        drawn = torch.multinomial(weights, n // size * size, replacement=True, generator=self.generator)
        return map(self.rows, drawn.split(size))

    @override
    def step(self, model: nn.Module, batch: Rows) -> Tensor:
        result = self.augmenter.step(model, batch, self.task.loss_fn)
        index, errors = result.batch["index"], self.measure(result.output, result.batch).detach()
        index, errors = index[errors.isfinite()], errors[errors.isfinite()]
        known = self.errors[index]
        self.errors[index] = torch.where(known == 0, errors, known + (errors - known) / 3)  # forgets by a third each time
        return result.loss


class LearnedShares(Trainer):
    """Decides the shares of the branches too: twice an even share to the hardest, and the rest to the next ones."""

    @override
    def make_augmenter(self, policy: adaug.Policy, steps: int) -> adaug.AdversarialAugmenter:
        n = 1 + len(policy.branches)  # random views come first
        self.sums, self.rows, self.shares = torch.zeros(n), torch.zeros(n), torch.full((n,), 1 / n)
        numbered = enumerate(policy.branches, start=1)
        branches = [replace(branch, share=partial(self._share, number)) for number, branch in numbered]
        return super().make_augmenter(replace(policy, branches=branches), steps)

    def _share(self, number: int, progress: float) -> float:
        return float(self.shares[number])

    @override
    def step(self, model: nn.Module, batch: Rows) -> Tensor:
        result = self.augmenter.step(model, batch, self.task.loss_fn)
        errors = self.measure(result.output, result.batch).detach().float()
        branch, errors = result.branch[errors.isfinite()], errors[errors.isfinite()]
        self.sums = (0.97 * self.sums).index_add(0, branch, errors)  # a mean that forgets by 3 % a step
        self.rows = (0.97 * self.rows).index_add(0, branch, torch.ones_like(errors))
        self.shares = self.shares + 0.02 * (_on_the_hardest(self.sums / self.rows.clamp(min=1e-6)) - self.shares)
        return result.loss


def _on_the_hardest(difficulty: Tensor) -> Tensor:
    """Probabilities [k]: 2 / k on the hardest until they sum to 1, and a floor of 5 %."""
    k = len(difficulty)
    given = (1 - 2 / k * torch.arange(k)).clamp(0, 2 / k)  # to the hardest, the next one, ...
    return 0.95 * given[difficulty.argsort(descending=True).argsort()] + 0.05 / k

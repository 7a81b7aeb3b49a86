"""Stage 2, pre-training: update targets for a frozen model, from trying views (Eq. 3) or from votes of joints (Eq. 4)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from adaug._batches.batch import Batch, UserBatch
from adaug._model.bound import BoundModel, Difficulty
from adaug._runtime.checks import batches, integer, number, optional
from adaug._runtime.geometry import Size
from adaug._runtime.random import Stream
from adaug._runtime.ranks import add_up
from adaug.learners.adversary import Adversary, UpdateTargets
from adaug.learners.paper import move_all
from adaug.learners.reward import kl_divergence
from adaug.operations import Operation
from adaug.policies import Branch
from adaug.policies.policy import Magnitudes

__all__ = ["Pretraining", "bin_losses", "views_to_try"]

RULES = {
    "loader": batches(),
    "steps": integer(at_least=1),
    "lr": optional(number(above=0), "for the optimizers' own"),
    "max_views": integer(at_least=1),
}


@dataclass
class Pretraining:
    """Makes the update targets of stage 2, batch by batch. Generators keep the votes of all images so far.

    Attributes:
        bound: The model.
        view_size: The size of the views.
        max_views: The most views of an image to try. If there are more combinations of bins, some are drawn.
        difficulty: The measure that views are compared by.
    """

    bound: BoundModel
    view_size: Size
    max_views: int
    difficulty: Difficulty

    def step(self, adversaries: Mapping[str, Adversary], batch: Batch, stream: Stream, lr: float | None) -> dict[str, Tensor]:
        """Moves every generator by one batch. Returns the KL divergence of each operation before that."""
        updates: dict[str, UpdateTargets] = {}
        divergences: dict[str, Tensor] = {}
        counted: dict[str, dict[str, Tensor]] = {name: {} for name in adversaries}
        for name, adversary in adversaries.items():
            updates[name], divergence = self.update(adversary, batch, stream, counted[name])
            divergences |= divergence
        with learning_rate([adversary.optimizer for adversary in adversaries.values()], lr):
            move_all(adversaries, updates)
        for name, adversary in adversaries.items():
            adversary.votes |= counted[name]
        return divergences

    def update(
        self, adversary: Adversary, batch: Batch, stream: Stream, counted: dict[str, Tensor]
    ) -> tuple[UpdateTargets, dict[str, Tensor]]:
        """The update targets of one batch for one branch, and the KL divergence of each operation before it.

        The votes with this batch go into `counted`.
        """
        branch, n, device = adversary.branch, len(batch), batch.image.device
        centre = self.bound.policy.view({}, n, batch.size, self.view_size, device=device)
        plain = batch.apply(centre, self.view_size)
        targets: dict[str, Tensor] = {}
        tried: list[Operation] = []
        for operation in branch.operations:
            votes = _votes(operation, plain)
            if votes is None:
                tried.append(operation)
            else:
                add_up(votes, f"with votes for {operation.name}")
                if operation.name in adversary.votes:
                    votes = votes + adversary.votes[operation.name]
                counted[operation.name] = votes
                targets[operation.name] = _shares(votes).expand(n, -1)
        valid = torch.ones(n, dtype=torch.bool, device=device)
        if tried:
            by_trying, valid = self._by_trying(branch, tried, batch, stream)
            targets |= by_trying
        features = self.bound.look(self.bound.call.needs(plain))
        with torch.enable_grad():  # the user's own loop may be without gradients
            log_probs = adversary.predict(features, stream.seed)
        divergence = {
            f"{branch.name}.{name}": kl_divergence(target, log_probs[name].detach())[valid].mean()
            for name, target in targets.items()
        }
        return UpdateTargets(targets, log_probs, valid), divergence

    def _by_trying(
        self, branch: Branch, operations: Sequence[Operation], batch: Batch, stream: Stream
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Tries every combination of bins (or `max_views` of them) on every image, and adds the losses up in the bins."""
        n, device = len(batch), batch.image.device
        losses: list[Tensor] = []
        combinations = views_to_try([operation.bins for operation in operations], self.max_views, stream)
        for combination in combinations:
            magnitudes: Magnitudes = {
                branch.full_name(operation): operation.draw(operation.chosen(bin_, n, device), stream)
                for operation, bin_ in zip(operations, combination, strict=True)
            }
            view = self.bound.policy.view(magnitudes, n, batch.size, self.view_size, last=branch, device=device)
            losses += self.bound.score(batch.apply(view, self.view_size), view.feature_masks, [self.difficulty])
        table = torch.stack(losses, 1)  # [n, V]
        targets = {}
        for i, operation in enumerate(operations):
            bins = torch.tensor([combination[i] for combination in combinations], device=device)
            targets[operation.name] = bin_losses(table, bins, operation.bins)
        return targets, torch.isfinite(table).all(1)


def repeated(loader: Iterable[UserBatch]) -> Iterator[UserBatch]:
    """The batches of a loader, over and over. Raises ValueError if it gives no more."""
    while True:
        empty = True
        for batch in loader:
            empty = False
            yield batch
        if empty:
            raise ValueError("`loader` should give batches for all `steps`. Found it exhausted; pass a list or a DataLoader.")


@contextmanager
def learning_rate(optimizers: Iterable[torch.optim.Optimizer], lr: float | None) -> Iterator[None]:
    """A block with another learning rate. None keeps the optimizers' own."""
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    before = [group["lr"] for group in groups]
    try:
        for group in groups if lr is not None else ():
            group["lr"] = lr
        yield
    finally:
        for group, value in zip(groups, before, strict=True):
            group["lr"] = value


def _votes(operation: Operation, batch: Batch) -> Tensor | None:
    """The votes of a batch's keypoints for an operation's cells. None without keypoints, or if the operation has bins."""
    known = batch.labelled_keypoints()
    if known is None:
        return None
    points, visible = known
    return operation.votes(points[..., :2], visible, batch.size)


def _shares(votes: Tensor) -> Tensor:
    """P^o of Eq. (4): the fraction of all joints so far in each cell, [k]."""
    return torch.where(votes.sum() > 0, votes / votes.sum().clamp(min=1), 1 / len(votes))


def views_to_try(bins: Sequence[int], most: int, stream: Stream) -> list[tuple[int, ...]]:
    """All combinations of bins, or about `most` that contain every bin of an operation equally often (give or take one)."""
    if math.prod(bins) <= most:
        return list(itertools.product(*map(range, bins)))
    columns = []
    for k in bins:
        repeated = [i % k for i in range(max(most, k))]
        columns.append([repeated[i] for i in stream.permutation(len(repeated)).tolist()])
    longest = max(map(len, columns))
    return list(zip(*(column + column[: longest - len(column)] for column in columns), strict=True))


def bin_losses(losses: Tensor, bins: Tensor, k: int) -> Tensor:
    """P^s or P^r of section 4.1: losses added up in their bins and normalised to sum to 1. [n, V], [V] long -> [n, k].

    Each bin gets the mean of its losses, because bins may have different numbers of views. If a measure has negative values, it
    is shifted up to 0. Rows whose losses are not finite, or all zero, get the uniform distribution.
    """
    losses = torch.where(torch.isfinite(losses).all(1, keepdim=True), losses, 0)
    losses = losses - losses.amin(1, keepdim=True).clamp(max=0)
    visits = torch.bincount(bins, minlength=k).clamp(min=1)
    table = losses.new_zeros(len(losses), k).index_add_(1, bins, losses) / visits
    total = table.sum(1, keepdim=True)
    return torch.where(total > 0, table / total.clamp(min=torch.finfo(table.dtype).tiny), 1 / k)

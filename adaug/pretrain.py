"""Stage 2: what the generators should predict for a frozen model, by trying (Eq. 3) or by voting (Eq. 4)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from adaug.adversary import Adversary
from adaug.batch import Batch
from adaug.keypoints import labelled
from adaug.operations import Binned, Occlusion
from adaug.passes import Bound, LossFunction
from adaug.policy import Branch, Operation, Settings
from adaug.reward import kl_divergence
from adaug.sampling import Stream, seeded
from adaug.view import Size, inside


@dataclass
class Lesson:
    """Teaches the generator of each branch, a batch at a time, and remembers the votes of all images so far."""

    bound: Bound
    output: Size
    most_views: int
    votes: dict[str, Tensor] = field(default_factory=dict)

    def teach(self, adversary: Adversary, rows: Batch, measure: LossFunction, stream: Stream) -> dict[str, Tensor]:
        """One batch for one branch; returns the KL divergence of each head before the update."""
        branch, n = adversary.branch, len(rows)
        centre = self.bound.policy.view({}, n, rows.size, self.output, device=rows.image.device)
        plain = rows.seen(centre, self.output)
        voted = [op for op in branch.operations if isinstance(op, Occlusion) and plain.has("keypoints")]
        targets = {op.name: self._vote(f"{branch.name}.{op.name}", op, plain) for op in voted}
        tried = [op for op in branch.operations if op not in voted]
        valid = torch.ones(n, dtype=torch.bool, device=rows.image.device)
        if tried:
            found, valid = self._try(branch, tried, rows, measure, stream)
            targets |= found
        features = self.bound.look(plain.image_only())
        with seeded(stream.seed, rows.image.device):
            log_probs = adversary.predict(features)
        pairs = {name: (target, log_probs[name]) for name, target in targets.items()}
        divergence = {name: kl_divergence(target, lp.detach())[valid].mean() for name, (target, lp) in pairs.items()}
        adversary.learn(pairs, valid)
        return {f"{branch.name}.{name}": value for name, value in divergence.items()}

    def _try(
        self, branch: Branch, operations: Sequence[Operation], rows: Batch, measure: LossFunction, stream: Stream
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Runs every combination of bins (or `most_views` of them) for every image and sums the losses into the bins."""
        n, device = len(rows), rows.image.device
        losses: list[Tensor] = []
        combinations = views_to_try([operation.bins for operation in operations], self.most_views, stream)
        for combination in combinations:
            settings: Settings = {}
            for operation, bin_ in zip(operations, combination, strict=True):
                chosen = torch.full((n, 1), bin_, device=device)
                if isinstance(operation, Binned):
                    settings[f"{branch.name}.{operation.name}"] = operation.magnitude(chosen, stream.uniform(n))
                else:
                    cells = chosen.expand(-1, operation.fields)
                    settings[f"{branch.name}.{operation.name}"] = operation.mask(cells, stream.uniform(n, 2))
            view = self.bound.policy.view(settings, n, rows.size, self.output, own=branch, device=device)
            seen = rows.seen(view, self.output)
            losses.append(self.bound.score(seen, view.feature_masks, (measure, "loss_fn")))
        table = torch.stack(losses, 1)  # [n, V]
        valid = torch.isfinite(table).all(1)
        targets = {}
        for i, operation in enumerate(operations):
            bins = torch.tensor([combination[i] for combination in combinations], device=device)
            targets[operation.name] = bin_losses(table, bins, operation.bins)
        return targets, valid

    def _vote(self, key: str, operation: Occlusion, rows: Batch) -> Tensor:
        """P^o of Eq. (4): the joints of all images so far, counted into cells, the same for every row. [n, k]."""
        points = rows.of("keypoints")[0]
        seen = labelled(points, rows.of("visibility")[0] if rows.has("visibility") else None)
        counts = cell_votes(points[..., :2], seen, rows.size, operation.grid)
        self.votes[key] = self.votes.get(key, torch.zeros_like(counts)) + counts
        total = self.votes[key].sum().clamp(min=1)
        share = torch.where(self.votes[key].sum() > 0, self.votes[key] / total, 1 / operation.bins)
        return share.expand(len(rows), -1)


def views_to_try(bins: Sequence[int], most: int, stream: Stream) -> list[tuple[int, ...]]:
    """All combinations of bins, or `most` that visit every bin of every operation equally often, give or take one."""
    if math.prod(bins) <= most:
        return list(itertools.product(*map(range, bins)))
    columns = []
    for k in bins:
        repeated = [i % k for i in range(max(most, k))]
        columns.append([repeated[i] for i in stream.permutation(len(repeated)).tolist()])
    longest = max(map(len, columns))
    return list(zip(*(column + column[: longest - len(column)] for column in columns), strict=True))


def bin_losses(losses: Tensor, bins: Tensor, k: int) -> Tensor:
    """P^s or P^r of section 4.1: losses accumulated into their bins and normalised to 1. [n, V], [V] long -> [n, k].

    A mean per bin, so that sampled views count alike. A measure that can be negative is first raised to zero; rows
    whose losses are not finite, or all zero, get the uniform distribution.
    """
    losses = torch.where(torch.isfinite(losses).all(1, keepdim=True), losses, 0)
    losses = losses - losses.amin(1, keepdim=True).clamp(max=0)
    visits = torch.bincount(bins, minlength=k).clamp(min=1)
    table = losses.new_zeros(len(losses), k).index_add_(1, bins, losses) / visits
    total = table.sum(1, keepdim=True)
    return torch.where(total > 0, table / total.clamp(min=torch.finfo(table.dtype).tiny), 1 / k)


def cell_votes(points: Tensor, seen: Tensor, size: Size, grid: Size) -> Tensor:
    """How many of the seen points [n, ..., 2] fall into each cell of a grid (rows, columns) over a frame. -> [k]."""
    count = torch.zeros(grid[0] * grid[1], device=points.device)
    usable = (seen & inside(points, size)).flatten()
    x, y = points.flatten(0, -2).float().nan_to_num().unbind(-1)
    column = ((x + 0.5) * grid[1] / size[1]).long().clamp(0, grid[1] - 1)
    row = ((y + 0.5) * grid[0] / size[0]).long().clamp(0, grid[0] - 1)
    return count.index_add_(0, row * grid[1] + column, usable.float())

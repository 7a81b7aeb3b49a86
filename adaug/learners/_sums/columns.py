"""What the sums of running difficulty are about: the least squares that tell apart what each bin adds."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from adaug._views.view import View
from adaug.learners.learner import Start
from adaug.operations import Operation

__all__ = ["Columns"]

PRIOR = 1.0  # rows' worth of belief that a bin is like the others
SLACK = 1e-5  # of rounding, in saved sums


@dataclass(frozen=True)
class Columns:
    """What the sums of a policy are about: C columns, one for each share, then one for each bin of each operation.

    O is the number of operations, K the largest number of bins.

    Attributes:
        operations: "branch.operation" -> the operation. Those of branches that draw without passes.
        shares: The number of shares. Random views come first.
        valid: Which bins an operation has, [O, K] bool.
        place: The column of each bin, [O, K].
        centring: Subtracts an operation's mean from its bins, [C, C].
        uniform: Even probabilities, [O, K].
        limit: The largest probability of a bin, cap / k, [O, 1].
        trust: What of the response is not the floor, 1 - floor, [O, 1]. 0 for operations that draw otherwise.
        own: The operations whose distribution this learner gives, even or not.
    """

    operations: dict[str, Operation]
    shares: int
    valid: Tensor
    place: Tensor
    centring: Tensor
    uniform: Tensor
    limit: Tensor
    trust: Tensor
    own: frozenset[str]

    @staticmethod
    def of(start: Start, cap: float, floor: float) -> Columns:
        """The columns of a policy."""
        device, mine = start.device, [branch.name for branch in start.branches if branch.learned]
        owned = [(owner, operation) for owner in start.drawn for operation in owner.operations]
        bins, shares = [operation.bins for _, operation in owned], 1 + len(start.policy.branches)
        kind = torch.float32 if device.type == "mps" else torch.float64
        ends = torch.tensor([shares, *bins], device="cpu").cumsum(0)
        place = torch.arange(max(bins, default=1), device="cpu").expand(len(bins), -1)
        k = torch.tensor(bins, device="cpu").reshape(-1, 1)  # [O, 1]
        valid = place < k
        centring = torch.zeros(int(ends[-1]), int(ends[-1]), dtype=kind, device="cpu")
        for first, count in zip(ends.tolist(), bins, strict=False):
            centring[first : first + count, first : first + count] = torch.eye(count, device="cpu") - 1 / count
        learns = torch.tensor([[owner.name in mine] for owner, _ in owned], device="cpu").reshape(-1, 1)
        numbers = k.to(kind)
        parts = {
            "valid": valid,
            "place": torch.where(valid, ends[:-1, None] + place, 0),
            "centring": centring,
            "uniform": valid / numbers,
            "limit": (torch.where(learns, cap, 1.0).to(kind) / numbers).clamp(max=1),
            "trust": torch.where(learns, 1 - floor, 0.0).to(kind),
        }
        operations = {owner.full_name(operation): operation for owner, operation in owned}
        given = frozenset(owner.full_name(operation) for owner in start.branches for operation in owner.operations)
        return Columns(operations, shares, **{name: part.to(device) for name, part in parts.items()}, own=given)

    @cached_property
    def bins(self) -> list[int]:
        """The number of bins of each operation."""
        return [operation.bins for operation in self.operations.values()]

    @cached_property
    def prior(self) -> Tensor:
        """[C, C]."""
        return PRIOR * torch.eye(len(self.centring), device=self.centring.device, dtype=self.centring.dtype)

    def named(self, what: str, values: Tensor) -> dict[str, Tensor]:
        """The parts of values [C] that belong to bins: "what/branch.operation" -> [k]."""
        parts = values.split([self.shares, *self.bins])[1:]
        return {f"{what}/{name}": part for name, part in zip(self.operations, parts, strict=True)}

    @cached_property
    def numbers(self) -> Tensor:
        """The number of each share, [shares]."""
        return torch.arange(self.shares, device=self.centring.device)

    def sums(self, view: View, branch: Tensor, difficulty: Tensor) -> Tensor:
        """The normal equations of least squares: products of branch, bins, cells and difficulty, summed over rows."""
        parts = [branch[:, None] == self.numbers, *self.memberships(view, branch)]
        rows = torch.cat([*parts, difficulty.to(self.centring.dtype)[:, None]], 1)  # [B, C + 1]
        total = rows.sum(1, keepdim=True)
        rows = rows.masked_fill(total - total != 0, 0)  # rows with a number that is not finite
        return rows.T @ rows

    def memberships(self, view: View, branch: Tensor) -> list[Tensor]:
        """Which bins or cells of each operation every row has, [B, k] each."""
        return [
            operation.membership(view.magnitudes[name])
            if name in view.magnitudes
            else torch.zeros(len(branch), operation.bins, device=branch.device)
            for name, operation in self.operations.items()
        ]

    def may_be_probabilities(self, value: Tensor) -> bool:
        """Whether values [O, K] are probabilities of the bins of each operation."""
        valid = torch.arange(self.valid.shape[1], device="cpu") < torch.tensor(self.bins, device="cpu").reshape(-1, 1)
        value = torch.broadcast_to(value.detach().cpu().double(), valid.shape)
        sums = torch.where(valid, value, 0).sum(1)
        return bool((value >= 0).all() and (value[~valid] == 0).all() and ((sums - 1).abs() < 1e-3).all())

    def common(self, sums: Tensor) -> Tensor:
        """The sums over all rows together. Each row has one branch, so summing over branches gives them."""
        return sums[: self.shares].sum(0)

    def above(self, sums: Tensor, level: Tensor) -> Tensor:
        """The sums as they would be if `level` had been subtracted from every difficulty."""
        own = torch.zeros_like(sums)
        common = self.common(sums)
        own[-1] = level * common
        own[-1, -1] -= level.square() * common[: self.shares].sum() / 2
        return sums - own - own.T

    def estimate(self, sums: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The mean difficulty, what each bin adds to its operation's mean, and the variance of this. [], [C], [C]."""
        gram, moments, squares = sums[:-1, :-1], sums[:-1, -1], sums[-1, -1]
        common = self.common(sums)[:-1]
        rows = common[: self.shares].sum().clamp(min=1e-9)
        mean = moments[: self.shares].sum() / rows
        moments = moments - mean * common
        inverse = torch.linalg.inv_ex(gram + self.prior).inverse
        effects = inverse @ moments
        freedom = rows - len(gram) + (self.prior.diagonal() * inverse.diagonal()).sum()
        noise = (squares - mean.square() * rows - effects @ moments).clamp(min=0) / freedom.clamp(min=1e-9)
        variances = noise * (self.centring @ inverse * self.centring).sum(1)
        variances = variances / 2  # rows that are half forgotten were still averaged over
        return mean, self.centring @ effects, variances

    def spread(self, sums: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The number of rows, their mean difficulty and the variance of their difficulties, [] each."""
        common = self.common(sums)
        rows = common[: self.shares].sum()
        each = rows.clamp(min=1)
        mean = common[-1] / each
        return rows, mean, (sums[-1, -1] / each - mean.square()).clamp(min=0)

    def may_be_sums(self, value: Tensor) -> bool:
        """Whether numbers [C + 1, C + 1] are the sums of some rows: of counts that fit together, and of their difficulties."""
        value = value.detach().cpu().double()
        length = value.diagonal().clamp(min=0).sqrt()
        each = torch.where(length > 0, length, 1)
        scaled = value / each / each[:, None]  # as correlations are
        if not bool(((scaled - scaled.T).abs() <= SLACK).all()) or float(torch.linalg.eigvalsh(scaled).min()) < -SLACK:
            return False
        counts, shares = value[:-1, :-1], value[: self.shares, : self.shares]
        rows = shares.diagonal().sum()
        apart = (shares - torch.diag(shares.diagonal())).abs() <= SLACK * rows  # a row has one branch
        return bool((counts >= -SLACK * rows).all() and (counts <= (1 + SLACK) * rows).all() and apart.all())

"""Running difficulty: how hard each bin is, from the training passes, and distributions that draw hard bins more often."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from adaug._runtime.checks import integer
from adaug._runtime.geometry import full_precision
from adaug._runtime.random import no_inference
from adaug._runtime.ranks import add_up
from adaug._runtime.states import Description, tensor
from adaug._views.view import View
from adaug.learners.adversary import LogProbs
from adaug.learners.best_response import best_response
from adaug.learners.table import DifficultyTable, changes_size, grows, sizes_of
from adaug.operations import Operation
from adaug.policies import Branch, Policy

MEMORY = 128, 2048  # steps and rows: what was seen fades by 1/e over as many, over whichever is longer
USUAL = 16, 128  # the same of the mean difficulty, which bins are compared with
CALM = 64, 256  # the same of answers: in noise they differ, and their mean does not
EVERY = 8  # steps between two answers
PRIOR = 1.0  # rows' worth of belief that a bin is like the others
MOVES = ("steps", "usual", "sums", "fresh", "probabilities", "_difficulty", "_log_probs", "_metrics")  # what a step changes


class RunningDifficulty:
    """Measures how hard each bin and cell has lately been in training, and decides how often to draw it.

    The difficulty of a row is modelled as a sum: a part for its branch, and a part for each of its bins and hidden cells. Least
    squares over all rows finds the parts, so a bin does not look hard only because it often comes with hard ones. Older rows
    count less and less. (Eq. (3) of the paper adds up losses in bins once, before joint training.)

    A branch that learns moves towards the capped best response: cap / k on the hardest bins until the sum is 1. It is not
    certain which bins are hardest. So each gets cap / k times the probability that it is among them, given how far it is from
    the others and how much bins differ by chance (empirical Bayes). If they differ by chance alone, draws stay uniform.

    Args:
        policy: The policy. Branches with generators only contribute the part that their rows have in common.
        device: The device of the sums.
    """

    def __init__(self, policy: Policy, device: torch.device) -> None:
        owned = [(owner, operation) for owner in policy.branches if not owner.has_generator for operation in owner.operations]
        self.operations: dict[str, Operation] = {owner.full_name(operation): operation for owner, operation in owned}
        self._bins = bins = [operation.bins for operation in self.operations.values()]
        self._shares = shares = 1 + len(policy.branches)  # random views come first
        number = torch.float32 if device.type == "mps" else torch.float64
        # The sums have C columns: the shares, then the bins of each of O operations. K is the largest number of bins.
        ends = torch.tensor([shares, *bins], device="cpu").cumsum(0)
        size = int(ends[-1])  # C
        k = torch.tensor(bins, device="cpu").reshape(-1, 1)  # [O, 1]
        place = torch.arange(max(bins, default=1), device="cpu").expand(len(bins), -1)  # [O, K]
        there = place < k  # [O, K]
        centring = torch.zeros(size, size, dtype=torch.float64, device="cpu")  # subtracts an operation's mean from its bins
        for start, count in zip(ends.tolist(), bins, strict=False):
            centring[start : start + count, start : start + count] = torch.eye(count, device="cpu") - 1 / count
        self._there = there.to(device)
        self._place = torch.where(there, ends[:-1, None] + place, 0).to(device)  # [O, K] the column of each bin
        self._centring = centring.to(device, number)
        self._prior = PRIOR * torch.eye(size, device=device, dtype=number)  # [C, C]
        self._share_numbers = torch.arange(shares, device=device)
        running = [owner.running for owner, _ in owned]
        cap = torch.tensor([[how.cap if how else 1.0] for how in running], device=device, dtype=number).reshape(-1, 1)
        trust = torch.tensor([[1 - how.floor if how else 0.0] for how in running], device=device, dtype=number)
        numbers = k.to(device, number)
        self._limit, self._trust = (cap / numbers).clamp(max=1), trust.reshape(-1, 1)  # [O, 1]
        self._uniform = self._there / numbers  # [O, K]
        self.steps = 0
        self.usual = torch.zeros((), device=device, dtype=number)  # the mean difficulty lately: it falls while networks learn
        self.sums = torch.zeros(size + 1, size + 1, device=device, dtype=number)  # of products; the last is the difficulty
        self.fresh = torch.zeros_like(self.sums)  # of the steps since the latest answer
        self.probabilities = self._uniform.clone()  # [O, K]
        self._difficulty: Tensor | None = None  # of every share, bin and cell at the latest answer
        self._log_probs: dict[str, Tensor] = {}
        self._metrics: dict[str, Tensor] = {}

    # ---- what is drawn

    def log_probs(self, branch: Branch, n: int) -> LogProbs:
        """Log-probabilities [n, k] of each operation of a branch, the same for every row."""
        if not self._log_probs:
            each = zip(self.operations, self._bins, self.probabilities.float().log().unbind(), strict=True)
            self._log_probs = {name: row[:bins] for name, bins, row in each}
        return {operation.name: self._log_probs[branch.full_name(operation)].expand(n, -1) for operation in branch.operations}

    # ---- what training shows

    def observe(self, view: View, branch: Tensor, difficulty: Tensor) -> None:
        """Adds the rows of a training pass, summed over all ranks.

        Args:
            view: The view of every row.
            branch: The branch of each row, [B] long, on the device.
            difficulty: [B]. Rows whose difficulty is not finite are left out.
        """
        with no_inference(), full_precision(self.sums.device), torch.no_grad():
            sums = self._sums_of(view, branch, difficulty.detach() - self.usual)
            add_up(sums, "with sums of running difficulty")
            self.follow(sums)

    def follow(self, sums: Tensor) -> None:
        """Adds sums over the rows of all ranks."""
        with no_inference(), full_precision(self.sums.device), torch.no_grad():
            self.fresh = self.fresh + sums  # not in place: a step that fails takes back the old ones
            self.steps += 1
            if self.steps % EVERY == 0:
                self._take_in()

    def _take_in(self) -> None:
        """Adds the fresh sums to those before, which fade, and answers."""
        common = self._common(self.fresh)
        seen = common[: self._shares].sum().clamp(min=1)
        excess = common[-1] / seen
        if self.steps == EVERY:  # nothing was usual before
            self.fresh, self.usual = self._above(self.fresh, excess), self.usual + excess
        else:
            self.usual = self.usual + excess * (1 - _kept(USUAL, seen))
        self.sums = self.sums * _kept(MEMORY, seen) + self.fresh
        self.fresh = torch.zeros_like(self.sums)
        self._answer(_kept(CALM, seen))

    def _common(self, sums: Tensor) -> Tensor:
        """The sums over all rows together. Each row has one branch, so summing over branches gives them."""
        return sums[: self._shares].sum(0)

    def _above(self, sums: Tensor, level: Tensor) -> Tensor:
        """The sums as they would be if `level` had been subtracted from every difficulty."""
        own = torch.zeros_like(sums)
        common = self._common(sums)
        own[-1] = level * common
        own[-1, -1] -= level.square() * common[: self._shares].sum() / 2
        return sums - own - own.T

    def _sums_of(self, view: View, branch: Tensor, difficulty: Tensor) -> Tensor:
        """The normal equations of least squares: products of branch, bins, cells and difficulty, summed over rows."""
        parts = [branch[:, None] == self._share_numbers, *self._memberships(view, branch)]
        rows = torch.cat([*parts, difficulty.to(self.sums.dtype)[:, None]], 1)  # [B, C + 1]
        total = rows.sum(1, keepdim=True)
        rows = rows.masked_fill(total - total != 0, 0)  # rows with a number that is not finite
        return rows.T @ rows

    def _memberships(self, view: View, branch: Tensor) -> list[Tensor]:
        """Which bins or cells of each operation every row has, [B, k] each."""
        return [
            operation.membership(view.magnitudes[name])
            if name in view.magnitudes
            else torch.zeros(len(branch), operation.bins, device=branch.device)
            for name, operation in self.operations.items()
        ]

    def _estimate(self, sums: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The mean difficulty, what each bin adds to its operation's mean, and the variance of this. [], [C], [C]."""
        gram, moments, squares = sums[:-1, :-1], sums[:-1, -1], sums[-1, -1]
        common = self._common(sums)[:-1]
        rows = common[: self._shares].sum().clamp(min=1e-9)
        mean = moments[: self._shares].sum() / rows
        moments = moments - mean * common
        inverse = torch.linalg.inv_ex(gram + self._prior).inverse
        effects = inverse @ moments
        freedom = rows - len(gram) + (self._prior.diagonal() * inverse.diagonal()).sum()
        noise = (squares - mean.square() * rows - effects @ moments).clamp(min=0) / freedom.clamp(min=1e-9)
        variances = noise * (self._centring @ inverse * self._centring).sum(1)
        variances = variances / 2  # rows that are half forgotten were still averaged over
        return mean, self._centring @ effects, variances

    def _shown(self, mean: Tensor, effects: Tensor) -> Tensor:
        """The difficulty of every share, bin and cell, [C]."""
        return (self.usual + mean + effects).float()

    def _answer(self, kept: Tensor) -> None:
        """Moves the probabilities towards the capped best response. The factor `kept` of the old ones stays."""
        mean, effects, variances = self._estimate(self.sums)
        self._difficulty = self._shown(mean, effects)
        best = self._response(mean, effects[self._place], variances[self._place])
        target = torch.lerp(self._uniform, best, self._trust)
        self.probabilities = torch.lerp(target, self.probabilities, kept)
        self._log_probs, self._metrics = {}, {}

    def _response(self, mean: Tensor, effects: Tensor, variances: Tensor) -> Tensor:
        """The probabilities [O, K] that answer these effects of bins on the mean difficulty, which are known so well."""
        return best_response(effects, variances, self._there, self._limit)

    # ---- what is told

    def metrics(self) -> dict[str, Tensor]:
        """Distribution, entropy (nats) and difficulty of each operation's bins, at the latest answer."""
        if self._metrics or not self.operations:
            return dict(self._metrics)
        probabilities = self.probabilities.float()
        entropies = torch.special.entr(probabilities).sum(1).unbind()
        metrics: dict[str, Tensor] = {}
        for name, bins, row, entropy in zip(self.operations, self._bins, probabilities.unbind(), entropies, strict=True):
            metrics[f"entropy/{name}"], metrics[f"distribution/{name}"] = entropy, row[:bins]
        answered = self.steps >= EVERY
        if self._difficulty is None or not answered:  # before the first answer every step says more
            with no_inference(), full_precision(self.sums.device):
                self._difficulty = self._shown(*self._estimate(self.sums if answered else self.fresh)[:2])
        parts = self._difficulty.split([self._shares, *self._bins])[1:]
        metrics |= {f"difficulty/{name}": part for name, part in zip(self.operations, parts, strict=True)}
        self._metrics = metrics if answered else {}
        return dict(metrics)

    def snapshot(self) -> dict[str, Any]:
        """What `restore` needs. It copies nothing, because nothing is changed in place."""
        return {name: vars(self)[name] for name in MOVES}

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Restores what `snapshot` returned."""
        vars(self).update(snapshot)

    @property
    def changes_size(self) -> bool:
        """Whether bins show objects at different sizes."""
        return any(changes_size(sizes_of(operation)) for operation in self.operations.values())

    def table(self, measure: str, *, may_grow: bool) -> DifficultyTable:
        """The table of difficulties now. Waits for the device.

        Args:
            measure: What the difficulty measures, in words.
            may_grow: Whether the measure may grow with an object's size.
        """
        sums = self.sums + self.fresh
        mean, effects, variances = self._estimate(sums)
        difficulty, errors = (self.usual + mean + effects).tolist(), variances.sqrt().tolist()
        rows, probabilities = sums.diagonal().tolist(), self.probabilities.tolist()
        columns: dict[str, dict[str, list[Any]]] = {}
        notes: list[str] = []
        start = self._shares
        for i, (name, operation) in enumerate(self.operations.items()):
            end = start + operation.bins
            columns[name] = {
                "bin": operation.labels(),
                "difficulty": difficulty[start:end],
                "error": errors[start:end],
                "probability": probabilities[i][: operation.bins],
                "rows": rows[start:end],
            }
            start = end
            if may_grow and grows(columns[name]["difficulty"], columns[name]["error"], sizes_of(operation)):
                notes.append(
                    f"it grows with the object's size in {name}, so that a bin may lead by its size alone; if so, give "
                    "`difficulty` a measure that does not, such as adaug.keypoints.normalized_error."
                )
        return DifficultyTable(columns, measure, tuple(notes))

    def state_dict(self) -> dict[str, Any]:
        """Returns the sums and the distributions."""
        tensors = {"usual": self.usual, "sums": self.sums, "fresh": self.fresh, "probabilities": self.probabilities}
        return {"steps": self.steps, **{name: tensor.clone() for name, tensor in tensors.items()}}

    def describe_state(self) -> Description:
        """Describes what `state_dict` returns."""
        return {
            "steps": integer(at_least=0),
            "usual": tensor(self.usual, exact=False),
            "sums": tensor(self.sums, exact=False, fits=_may_be_sums, and_=", symmetric and with squares on its diagonal"),
            "fresh": tensor(self.fresh, exact=False, fits=_may_be_sums, and_=", symmetric and with squares on its diagonal"),
            "probabilities": tensor(
                self.probabilities, exact=False, fits=self._may_be_probabilities, and_=", probabilities of each row's bins"
            ),
        }

    def _may_be_probabilities(self, value: Tensor) -> bool:
        there = self._there.cpu()
        value = torch.broadcast_to(value.detach().cpu().double(), there.shape)
        sums = torch.where(there, value, 0).sum(1)
        return bool((value >= 0).all() and (value[~there] == 0).all() and ((sums - 1).abs() < 1e-3).all())

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Loads what `state_dict` returned."""
        self.steps = int(state["steps"])
        self.usual = state["usual"].to(self.usual, copy=True)
        self.sums, self.fresh = (state[name].to(self.sums, copy=True) for name in ("sums", "fresh"))
        self.probabilities = state["probabilities"].to(self.probabilities, copy=True)
        self._difficulty, self._log_probs, self._metrics = None, {}, {}


def _kept(length: tuple[int, int], seen: Tensor) -> Tensor:
    """How much of what is old stays at an answer, if it fades over (steps, rows) and `seen` rows came since the last one."""
    steps, rows = length
    return torch.exp(-1 / (rows / seen).clamp(min=steps / EVERY))


def _may_be_sums(value: Tensor) -> bool:
    value = value.detach().cpu().double()
    scale = value.diagonal().abs().max()
    return bool((value.diagonal() >= -1e-6 * scale).all() and ((value - value.T).abs() <= 1e-5 * scale).all())

"""Running difficulty: how hard each bin is, from the training passes, and distributions that draw hard bins more often."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from adaug._runtime.checks import CAP, Rules, check_fields, integer, number
from adaug._runtime.geometry import full_precision
from adaug._runtime.random import no_inference
from adaug._runtime.ranks import add_up
from adaug._runtime.states import Description, check_state, tensor
from adaug._views.view import View
from adaug.learners.best_response import best_response
from adaug.learners.learner import Learner, Rows, Seen, Start
from adaug.learners.trials import LogProbs
from adaug.operations import Operation
from adaug.policies import Branch

__all__ = ["Answer", "Columns", "Running", "RunningState"]

MEMORY = 128, 2048  # steps and rows: what was seen fades by 1/e over as many, over whichever is longer
BASELINE = 16, 128  # the same of the mean difficulty, which bins are compared with
RESPONSE = 64, 256  # the same of answers: in noise they differ, and their mean does not
EVERY = 8  # steps between two answers
PRIOR = 1.0  # rows' worth of belief that a bin is like the others


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


@dataclass(frozen=True)
class Answer:
    """What is drawn since the latest answer.

    Attributes:
        columns: What the probabilities are of.
        probabilities: [O, K].
        difficulty: Of every share, bin and cell, when they were answered to, [C]. None before the first answer.
    """

    columns: Columns
    probabilities: Tensor
    difficulty: Tensor | None = None

    @cached_property
    def log_probs(self) -> dict[str, Tensor]:
        """ "branch.operation" -> log-probabilities [k]."""
        each = zip(self.columns.operations, self.columns.bins, self.probabilities.float().log().unbind(), strict=True)
        return {name: row[:bins] for name, bins, row in each}

    @cached_property
    def metrics(self) -> dict[str, Tensor]:
        """The distribution and entropy (nats) of each operation, and the difficulty of its bins if it is known."""
        columns, probabilities = self.columns, self.probabilities.float()
        entropies = torch.special.entr(probabilities).sum(1).unbind()
        metrics: dict[str, Tensor] = {}
        for name, bins, row, entropy in zip(columns.operations, columns.bins, probabilities.unbind(), entropies, strict=True):
            if name in columns.own:
                metrics[f"entropy/{name}"], metrics[f"distribution/{name}"] = entropy, row[:bins]
        return metrics if self.difficulty is None else metrics | columns.named("difficulty", self.difficulty)


@dataclass(frozen=True)
class RunningState:
    """What running difficulty keeps.

    Attributes:
        columns: What the sums are about.
        steps: How many training passes it has seen.
        baseline: The mean difficulty lately, []. It falls while networks learn.
        sums: Of products, faded, [C + 1, C + 1]. The last row and column are the difficulty.
        pending: The same of the steps since the latest answer.
        answer: What is drawn.
    """

    columns: Columns
    steps: int
    baseline: Tensor
    sums: Tensor
    pending: Tensor
    answer: Answer

    def level(self, mean: Tensor, effects: Tensor) -> Tensor:
        """The difficulty of every share, bin and cell, [C]."""
        return (self.baseline + mean + effects).float()

    @cached_property
    def metrics(self) -> dict[str, Tensor]:
        """Those of the latest answer. Before the first, difficulties are of all that was seen."""
        if self.answer.difficulty is not None:
            return self.answer.metrics
        with no_inference(), full_precision(self.sums.device):
            level = self.level(*self.columns.estimate(self.sums if self.steps >= EVERY else self.pending)[:2])
        return self.answer.metrics | self.columns.named("difficulty", level)


@dataclass(frozen=True)
class Running(Learner):
    """Running difficulty: draws the bins more often whose errors in training are large. It costs no extra pass.

    The difficulty of a row is modelled as a sum: a part for its branch, and a part for each of its bins and hidden cells. Least
    squares over all rows finds the parts, so a bin does not look hard only because it often comes with hard ones. Older rows
    count less and less. (Eq. (3) of the paper adds up losses in bins once, before joint training.)

    Distributions move towards the capped best response to these difficulties. k is the number of an operation's bins.

    Attributes:
        cap: No bin gets a probability above cap / k.
        floor: No bin gets a probability below floor / k.
    """

    cap: float = 2.5
    floor: float = 0.05

    _rules: ClassVar[Rules] = {"cap": CAP, "floor": number(above=0, below=1, should="between 0 and 1")}

    def __post_init__(self) -> None:
        check_fields(self)

    @override
    def start(self, start: Start) -> RunningState:
        columns = Columns.of(start, self.cap, self.floor)
        sums = columns.centring.new_zeros(len(columns.centring) + 1, len(columns.centring) + 1)
        return RunningState(columns, 0, sums.new_zeros(()), sums, sums, Answer(columns, columns.uniform))

    @override
    def log_probs(self, state: RunningState, branch: Branch, rows: Rows) -> LogProbs:
        names = {operation.name: branch.full_name(operation) for operation in branch.operations}
        return {name: state.answer.log_probs[full].expand(rows.n, -1) for name, full in names.items()}

    @override
    def observe(self, state: RunningState, seen: Seen) -> RunningState:
        """Adds the rows of a training pass, summed over all ranks, and answers at every `EVERY`-th step."""
        columns = state.columns
        with no_inference(), full_precision(state.sums.device), torch.no_grad():
            sums = columns.sums(seen.view, seen.branch, seen.difficulty.detach() - state.baseline)
            add_up(sums, "with sums of running difficulty")
            state = replace(state, steps=state.steps + 1, pending=state.pending + sums)
            return state if state.steps % EVERY else self._answered(state)

    def _answered(self, state: RunningState) -> RunningState:
        """The pending sums go to those before, which fade, and the probabilities move towards the response."""
        columns, pending, baseline = state.columns, state.pending, state.baseline
        common = columns.common(pending)
        rows = common[: columns.shares].sum().clamp(min=1)
        excess = common[-1] / rows
        if state.steps == EVERY:  # there was no baseline before
            pending, baseline = columns.above(pending, excess), baseline + excess
        else:
            baseline = baseline + excess * (1 - _kept(BASELINE, rows))
        sums = state.sums * _kept(MEMORY, rows) + pending
        mean, effects, variances = columns.estimate(sums)
        best = self.respond(columns, effects[columns.place], variances[columns.place])
        target = torch.lerp(columns.uniform, best, columns.trust)
        probabilities = torch.lerp(target, state.answer.probabilities, _kept(RESPONSE, rows))
        state = replace(state, baseline=baseline, sums=sums, pending=torch.zeros_like(sums))
        return replace(state, answer=Answer(columns, probabilities, state.level(mean, effects)))

    def respond(self, columns: Columns, effects: Tensor, variances: Tensor) -> Tensor:
        """The probabilities [O, K] that answer these effects of bins. Override it for another response.

        Args:
            columns: Which bins there are (`valid`), and their limits.
            effects: What each bin adds to the mean difficulty of its operation, [O, K].
            variances: The variances of these numbers, [O, K].
        """
        return best_response(effects, variances, columns.valid, columns.limit)

    @override
    def metrics(self, state: RunningState) -> dict[str, Tensor]:
        return state.metrics

    # ---- saving

    @override
    def state_dict(self, state: RunningState) -> dict[str, Any]:
        tensors = {"baseline": state.baseline, "sums": state.sums, "pending": state.pending}
        tensors |= {"probabilities": state.answer.probabilities}
        return {"steps": state.steps, **{name: value.clone() for name, value in tensors.items()}}

    @override
    def load_state_dict(self, state: RunningState, saved: Any) -> RunningState:
        columns, own = state.columns, state.answer.probabilities
        described: Description = {
            "steps": integer(at_least=0),
            "baseline": tensor(state.baseline, exact=False),
            "sums": tensor(state.sums, exact=False, fits=_may_be_sums, and_=SUMS),
            "pending": tensor(state.pending, exact=False, fits=_may_be_sums, and_=SUMS),
            "probabilities": tensor(own, exact=False, fits=columns.may_be_probabilities, and_=", probabilities of its bins"),
        }
        check_state(saved, described, "A state of running difficulty")
        baseline, sums, pending, probabilities = (saved[name].to(own, copy=True) for name in list(described)[1:])
        return RunningState(columns, int(saved["steps"]), baseline, sums, pending, Answer(columns, probabilities))


SUMS = ", symmetric and with squares on its diagonal"


def _may_be_sums(value: Tensor) -> bool:
    value = value.detach().cpu().double()
    scale = value.diagonal().abs().max()
    return bool((value.diagonal() >= -1e-6 * scale).all() and ((value - value.T).abs() <= 1e-5 * scale).all())


def _kept(length: tuple[int, int], rows: Tensor) -> Tensor:
    """How much of what is old stays at an answer, if it fades over (steps, rows) and so many rows came since the last one."""
    steps, most = length
    return torch.exp(-1 / (most / rows).clamp(min=steps / EVERY))

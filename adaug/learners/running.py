"""Running difficulty: how hard each bin is, from the training passes, and distributions that draw hard bins more often."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from adaug._runtime.checks import CAP, Rule, Rules, check_fields, integer, number
from adaug._runtime.geometry import full_precision
from adaug._runtime.random import no_inference
from adaug._runtime.ranks import add_up
from adaug._runtime.states import Description, anything, check_state, tensor
from adaug.learners._sums.columns import Columns
from adaug.learners._sums.outliers import Guard
from adaug.learners.best_response import best_response
from adaug.learners.learner import Learner, Rows, Seen, Start
from adaug.learners.trials import LogProbs
from adaug.policies import Branch

__all__ = ["Answer", "Running", "RunningState"]

MEMORY = 128, 2048  # steps and rows: what was seen fades by 1/e over as many, over whichever is longer
BASELINE = 16, 128  # the same of the mean difficulty, which bins are compared with
RESPONSE = 64, 256  # the same of answers: in noise they differ, and their mean does not
FINE = 1e6  # times the spread: a level that is farther away leaves too few digits to tell rows apart
EVERY = 8  # steps between two answers


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
        guard: What bounds the influence of single rows.
        answer: What is drawn.
    """

    columns: Columns
    steps: int
    baseline: Tensor
    sums: Tensor
    pending: Tensor
    guard: Guard
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
        zero = sums.new_zeros(())
        return RunningState(columns, 0, zero, sums, sums, Guard.start(zero), Answer(columns, columns.uniform))

    @override
    def log_probs(self, state: RunningState, branch: Branch, rows: Rows) -> LogProbs:
        names = {operation.name: branch.full_name(operation) for operation in branch.operations}
        return {name: state.answer.log_probs[full].expand(rows.n, -1) for name, full in names.items()}

    @override
    def observe(self, state: RunningState, seen: Seen) -> RunningState:
        """Adds the rows of a training pass, summed over all ranks, and answers at every `EVERY`-th step."""
        columns = state.columns
        with no_inference(), full_precision(state.sums.device), torch.no_grad():
            excess = seen.difficulty.detach().to(state.sums.dtype) - state.baseline
            excess, cut = state.guard.bounded(excess)
            sums = columns.sums(seen.view, seen.branch, excess)
            told = torch.cat([sums.flatten(), cut.to(sums)[None]])
            add_up(told, "with sums of running difficulty")
            guard = replace(state.guard, cut=state.guard.cut + told[-1])
            state = replace(state, steps=state.steps + 1, pending=state.pending + told[:-1].view_as(sums), guard=guard)
            return state if state.steps % EVERY else self._answered(state)

    def _answered(self, state: RunningState) -> RunningState:
        """The pending sums go to those before, which fade, and the probabilities move towards the response.

        If what is remembered is about another level or another spread, it is forgotten. The pending sums are then the first
        ones again, unless they were cut themselves.
        """
        columns, pending, guard, baseline = state.columns, state.pending, state.guard, state.baseline
        known, excess, variance = columns.spread(pending)
        rows = known.clamp(min=1)
        sums = state.sums * _kept(MEMORY, rows) + pending
        remembered, _, whole = columns.spread(sums)
        calm, stale = guard.calmer(known, variance, remembered, whole)
        far = excess.abs() > (FINE * variance.sqrt()).maximum(baseline.abs() / FINE)
        first, shifted = (guard.spread < 0) | stale, guard.shifted(known) | (far & (baseline != 0))
        sums = torch.where(first, columns.above(pending, excess), sums) * ~shifted
        baseline = (baseline + excess * torch.where(first, 1.0, 1 - _kept(BASELINE, rows))) * ~shifted
        spread = torch.where(shifted, -1.0, columns.spread(sums)[2].sqrt())
        guard = Guard(torch.where(known > 0, spread, guard.spread), torch.zeros_like(guard.cut), calm * ~(first | shifted))
        mean, effects, variances = columns.estimate(sums)
        best = self.respond(columns, effects[columns.place], variances[columns.place])
        target = torch.lerp(columns.uniform, best, columns.trust)
        probabilities = torch.lerp(target, state.answer.probabilities, _kept(RESPONSE, rows))
        probabilities = torch.where(shifted, state.answer.probabilities, probabilities)
        state = replace(state, baseline=baseline, sums=sums, pending=torch.zeros_like(sums), guard=guard)
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
        tensors = {"baseline": state.baseline, "sums": state.sums, "pending": state.pending, **vars(state.guard)}
        tensors |= {"probabilities": state.answer.probabilities}
        return {"steps": state.steps, **{name: value.clone() for name, value in tensors.items()}}

    @override
    def load_state_dict(self, state: RunningState, saved: Any) -> RunningState:
        columns, own = state.columns, state.answer.probabilities

        def sums(said: str, fits: Callable[[Tensor], bool] = lambda _: True) -> Rule:
            return tensor(state.sums, exact=False, fits=lambda value: columns.may_be_sums(value) and fits(value), and_=said)

        check_state(
            saved, {"steps": integer(at_least=0)} | {name: anything() for name in NAMES}, "A state of running difficulty"
        )
        steps = int(saved["steps"])
        described: Description = {
            "steps": integer(at_least=0),
            "baseline": tensor(state.baseline, exact=False),
            "sums": sums(SUMS, lambda value: steps >= EVERY or not value.any()),
            "pending": sums(f"{SUMS} since the latest answer", lambda value: steps % EVERY > 0 or not value.any()),
            "spread": tensor(
                state.baseline, exact=False, fits=lambda value: bool(value >= 0 or value == -1), and_=", at least 0 or -1"
            ),
            "cut": tensor(state.baseline, exact=False, fits=lambda value: bool(value >= 0), and_=", at least 0"),
            "calm": tensor(state.baseline, exact=False, fits=lambda value: bool(value >= 0), and_=", at least 0"),
            "probabilities": tensor(own, exact=False, fits=columns.may_be_probabilities, and_=", probabilities of its bins"),
        }
        check_state(saved, described, "A state of running difficulty")
        baseline, whole, pending, *guard, probabilities = (saved[name].to(own, copy=True) for name in NAMES)
        return RunningState(columns, steps, baseline, whole, pending, Guard(*guard), Answer(columns, probabilities))


NAMES = "baseline", "sums", "pending", "spread", "cut", "calm", "probabilities"
SUMS = ", sums of products of rows"


def _kept(length: tuple[int, int], rows: Tensor) -> Tensor:
    """How much of what is old stays at an answer, if it fades over (steps, rows) and so many rows came since the last one."""
    steps, most = length
    return torch.exp(-1 / (most / rows).clamp(min=steps / EVERY))

"""The halves of a step: views are drawn (Alg. 1, lines 1 to 4), and learners see how hard they were (Alg. 2)."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adaug._batches.batch import Batch
from adaug._model.bound import BoundModel, Difficulty
from adaug._runtime.constants import constant
from adaug._runtime.geometry import Size
from adaug._runtime.random import Stream
from adaug._runtime.ranks import dist_rank
from adaug._steps.groups import Group
from adaug._steps.state import Drawn, State
from adaug._views.view import View, concatenate
from adaug.learners.learner import Rows, Seen, check_log_probs
from adaug.learners.measures import GIVEN, LOSS, USERS, measured, what_was_found
from adaug.learners.trials import Trial, Trials
from adaug.policies import Branch, Policy
from adaug.policies._draw import Distributions, draw_rows
from adaug.policies.policy import Magnitudes

LOG = logging.getLogger("adaug")
MAY_GROW = (
    "adaug: running difficulty uses the loss, which may grow with an object's size, because adaug knows no measure for this "
    "output that does not. %s; give the augmenter a `difficulty` function, (output, batch) -> [B]. `difficulty_table()` notes "
    "if difficulty grows with size."
)

# ---- drawing


@dataclass(frozen=True)
class Passes:
    """What a learner with passes needs.

    Attributes:
        bound: The model.
        difficulty: The measure that compares views.
        step: The number of steps since the warm-up.
    """

    bound: BoundModel
    difficulty: Difficulty
    step: int


def draw(
    policy: Policy,
    groups: Mapping[str, Group],
    learners: Mapping[str, Any],
    batch: Batch,
    view_size: Size | None,
    progress: float | None,
    stream: Stream,
    passes: Passes | None = None,
) -> Drawn:
    """Deals the rows to the branches, and draws the view of every row. Learners with passes propose and compare views.

    Args:
        policy: The policy.
        groups: Its learners.
        learners: Their states.
        batch: The batch.
        view_size: The size of the views. None: that of the images.
        progress: The training progress. None: all rows get random views.
        stream: The source of noise.
        passes: What a learner with passes needs.
    """
    n = len(batch)
    if policy.functions:
        batch = batch.with_image(policy.paint(batch.image, stream))
    branch = torch.zeros(n, dtype=torch.long, device="cpu") if progress is None else policy.split(n, progress, stream)
    numbers, random = branch.numpy(), policy.draw_random(n, stream)
    key = next((key for key, group in groups.items() if group.learner.passes), None)
    own = [i for i, owner in enumerate(policy.branches, start=1) if key is not None and owner.name in groups[key].names]

    def held(on_cpu: NDArray[np.int64]) -> tuple[Tensor, Magnitudes]:
        """The index of some rows on the device, and what random views of them get."""
        index = torch.from_numpy(on_cpu).to(stream.device, non_blocking=True)
        return index, random if len(on_cpu) == n else {name: value[index] for name, value in random.items()}

    parts: list[tuple[Tensor, View]] = []
    free = np.flatnonzero(~np.isin(numbers, own))
    if len(free):
        index, magnitudes = held(free)
        magnitudes = draw_rows(policy, _by_learners(groups, learners, len(free), stream), numbers[free], magnitudes, stream)
        parts.append((index, _view(policy, magnitudes, batch, len(free), view_size, stream.device)))
    if key is None or passes is None:
        view = _in_order(parts)
        return Drawn(view, branch, batch.apply(view, view_size))
    rows = [(policy.branches[i - 1], np.flatnonzero(numbers == i)) for i in own]
    each = {owner.name: Trial(owner, *held(on_cpu)) for owner, on_cpu in rows if len(on_cpu)}
    view_size = view_size or batch.size
    trials = Trials(passes.bound, batch, view_size, each, stream, passes.difficulty, passes.step)
    trials.proposals = groups[key].learner.propose(learners[key], trials)
    view = _in_order([*parts, *((trial.index, trials.adversarial[name]) for name, trial in each.items())])
    trials.augmented = batch.apply(view, view_size)
    return Drawn(view, branch, trials.augmented, {key: groups[key].learner.compare(learners[key], trials)})


def _view(policy: Policy, magnitudes: Magnitudes, batch: Batch, n: int, view_size: Size | None, device: torch.device) -> View:
    """The view of n rows of a batch, also of images of different sizes."""
    if len(batch.sizes) == 1:
        return policy.view(magnitudes, n, batch.size, view_size or batch.size, device=device)
    rows = [{name: magnitude[i : i + 1] for name, magnitude in magnitudes.items()} for i in range(n)]
    each = zip(rows, batch.sizes, strict=True)
    return concatenate([policy.view(row, 1, size, view_size or size, device=device) for row, size in each], [1] * n)


def _by_learners(groups: Mapping[str, Group], learners: Mapping[str, Any], n: int, stream: Stream) -> Distributions:
    """The distributions that learners without passes give for n rows."""

    def distributions(owner: Branch) -> Mapping[str, Tensor]:
        key, group = next((key, group) for key, group in groups.items() if owner.name in group.names)
        log_probs = group.learner.log_probs(learners[key], owner, Rows(n, stream.device))
        return check_log_probs(log_probs, owner, n, group.learner)

    return distributions


def _in_order(parts: Sequence[tuple[Tensor, View]]) -> View:
    """The view of all rows in the order of the batch, from pairs (index of some rows, their view)."""
    if len(parts) == 1:
        return parts[0][1]
    view = concatenate([part for _, part in parts], [len(index) for index, _ in parts])
    return view.select(torch.cat([index for index, _ in parts]).argsort())


# ---- learning


def learn(
    state: State,
    groups: Mapping[str, Group],
    drawn: Drawn,
    output: Any,
    name: str | None,
    own: Callable[[], Tensor],
) -> State:
    """The state after learners saw a training pass.

    Args:
        state: The state before.
        groups: The learners.
        drawn: The views that the model trained on, with the evidence of comparisons.
        output: What the model returned.
        name: What measures how hard views were, in words. None if no learner asks.
        own: Gives the user's difficulty, the losses or the numbers that the user gave, [B] float32.
    """
    hooks = None if state.bound is None else state.bound.hooks
    other = name is not None and state.measure not in (None, name)  # different measures cannot be averaged

    def hidden(values: Tensor) -> Tensor:
        return values if hooks is None else hooks.nan_if_skipped(values)

    @functools.cache
    def comparison() -> Tensor:
        return hidden(own())

    @functools.cache
    def measure() -> Tensor:
        if other:
            return torch.full((len(branch),), torch.nan, device=branch.device)
        return comparison() if name in (USERS, GIVEN, LOSS) else hidden(measured(output, drawn.augmented))

    if state.measure is None and name == LOSS and dist_rank() == 0:
        LOG.warning(MAY_GROW, what_was_found(output, drawn.augmented))
    branch = drawn.branch.to(drawn.augmented.image.device, non_blocking=True)
    learners = {}
    for key, group in groups.items():
        seen = Seen(drawn.view, branch, measure, comparison, drawn.evidence.get(key))
        learners[key] = group.learner.observe(state.learners[key], seen)
        if learners[key] is None and state.learners[key] is not None:
            raise TypeError(
                f"`observe` of {type(group.learner).__name__} should return the new state. Found None; end it with a return."
            )
    unmeasured = state.unmeasured + (len(branch) if other else 0)
    return replace(state, learners=learners, measure=state.measure or name, unmeasured=unmeasured)


def metrics_of(state: State, groups: Mapping[str, Group]) -> dict[str, Tensor]:
    """What all learners want to be logged. Those with passes come first."""
    metrics: dict[str, Tensor] = {}
    for key in list(groups)[::-1]:
        metrics |= groups[key].learner.metrics(state.learners[key])
    if state.unmeasured:
        metrics["unmeasured"] = torch.tensor(state.unmeasured)
    return metrics


def losses_by_branch(losses: Tensor, branch: Tensor, on_device: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
    """The mean loss of each branch that has rows: "loss/branch" -> [].

    Args:
        losses: [B], without graph.
        branch: The branch of each row, [B] long, on the CPU.
        on_device: The same, on the device of the losses.
        names: The names of the random share and of the branches.
    """
    present = sorted(set(branch.tolist()))
    if len(present) == 1:
        return {f"loss/{names[present[0]]}": losses.mean()}
    mine = (on_device == constant(tuple((i,) for i in present), on_device)).to(losses.dtype)  # [branches, B]
    means = (mine @ losses / mine.sum(1)).unbind()
    return {f"loss/{names[i]}": mean for i, mean in zip(present, means, strict=True)}

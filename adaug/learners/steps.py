"""What a step may change, and how it draws the views of a mini-batch (Alg. 1, lines 1 to 4; Alg. 2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from adaug._batches.batch import Batch
from adaug._model.bound import BoundModel, Difficulty
from adaug._runtime.checks import integer, mapping, number, optional, text
from adaug._runtime.constants import constant
from adaug._runtime.geometry import Size
from adaug._runtime.random import Stream
from adaug._runtime.states import Description, anything, check_state
from adaug._views.view import View, concatenate
from adaug.learners.groups import Group
from adaug.learners.learner import Rows
from adaug.learners.measures import USERS
from adaug.learners.trials import Trial, Trials
from adaug.policies import Branch, Policy
from adaug.policies._draw import draw_rows
from adaug.policies.policy import Magnitudes


@dataclass(frozen=True)
class State:
    """All that a step may change. A step makes another one, which the augmenter takes when all has succeeded.

    Attributes:
        seed: The seed of all draws. None until the first.
        steps: How many steps were made.
        progress: What the user set last.
        counts: How often random views were drawn, and generators pre-trained.
        metrics: Those of the latest step.
        measure: What running difficulty sums up, in words. None before the first step.
        bound: The model with its hooks.
        learners: The name of a group -> the state of its learner.
        saved: The same of learners with passes as `load_state_dict` got them. They wait for a model.
    """

    seed: int | None = None
    steps: int = 0
    progress: float = 0.0
    counts: Mapping[str, int] = field(default_factory=lambda: {"random": 0, "pretrain": 0})
    metrics: Mapping[str, Tensor] = field(default_factory=dict)
    measure: str | None = None
    bound: BoundModel | None = None
    learners: Mapping[str, Any] = field(default_factory=dict)
    saved: Mapping[str, Any] = field(default_factory=dict)


def check_saved(saved: Any, policy: Policy, groups: Mapping[str, Group], *, users: bool) -> None:
    """Raises TypeError or ValueError unless a saved state belongs to an augmenter. Learners check their parts themselves.

    Args:
        saved: The state.
        policy: The policy of the augmenter.
        groups: Its learners.
        users: Whether it has a `difficulty` of the user's.
    """
    if isinstance(saved, Mapping) and isinstance(saved.get("policy"), Mapping) and saved["policy"] != policy.describe():
        raise ValueError(
            "A state should belong to the augmenter's own policy. Found another policy; build the augmenter with the "
            f"policy that was saved.\n  saved:   {saved['policy']}\n  present: {policy.describe()}"
        )
    described: Description = {
        "policy": mapping(anything(), "the description of a policy"),
        "seed": integer(),
        "steps": integer(at_least=0),
        "progress": number(low=0, high=1),
        "counts": dict.fromkeys(State().counts, integer(at_least=0)),
        "measure": optional(text("the name of a measure"), "before the first step"),
        "learners": dict.fromkeys(groups, anything()),
    }
    check_state(saved, described, "A state")
    if saved["measure"] is not None and (saved["measure"] == USERS) != users:
        raise ValueError(
            f"A state should go on with the measure that it summed up, {saved['measure']}. Found an augmenter "
            f"{'with' if users else 'without'} a `difficulty` of the user's; build it as it was saved."
        )


# ---- drawing


@dataclass(frozen=True)
class Drawn:
    """The views of a mini-batch.

    Attributes:
        view: The view of every row.
        branch: The branch of each row, [B] long, on the CPU; 0 means random views.
        augmented: The batch under the view.
        trials: The rows that a learner with passes proposed for. None without such a learner.
    """

    view: View
    branch: Tensor
    augmented: Batch
    trials: Trials | None = None


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
    view_size: Size,
    progress: float | None,
    stream: Stream,
    passes: Passes | None = None,
) -> Drawn:
    """Deals the rows to the branches, and draws the view of every row.

    Args:
        policy: The policy.
        groups: Its learners.
        learners: Their states.
        batch: The batch.
        view_size: The size of the views.
        progress: The training progress. None: all rows get random views.
        stream: The source of noise.
        passes: What a learner with passes needs.
    """
    batch, n = batch.with_image(policy.paint(batch.image, stream)), len(batch)
    branch = torch.zeros(n, dtype=torch.long, device="cpu") if progress is None else policy.split(n, progress, stream)
    numbers, random = branch.numpy(), policy.draw_random(n, stream)
    group_of = {name: key for key, group in groups.items() for name in group.names}
    passing = next((key for key, group in groups.items() if group.learner.passes), None)
    proposed = {i: owner for i, owner in enumerate(policy.branches, start=1) if group_of[owner.name] == passing}

    def rows_of(on_cpu: Any) -> tuple[Tensor, Magnitudes]:
        index = torch.from_numpy(on_cpu).to(stream.device, non_blocking=True)
        return index, random if len(on_cpu) == n else {name: value[index] for name, value in random.items()}

    parts: list[tuple[Tensor, View]] = []
    free = np.flatnonzero(~np.isin(numbers, list(proposed)))
    if len(free):

        def distributions(owner: Branch) -> Mapping[str, Tensor]:
            key = group_of[owner.name]
            return groups[key].learner.log_probs(learners[key], owner, Rows(len(free), stream.device))

        index, held = rows_of(free)
        magnitudes = draw_rows(policy, distributions, numbers[free], held, stream)
        parts.append((index, policy.view(magnitudes, len(free), batch.size, view_size, device=stream.device)))
    trials: Trials | None = None
    if passing is not None and passes is not None:
        own = {owner: np.flatnonzero(numbers == i) for i, owner in proposed.items()}
        each = {owner.name: Trial(owner, *rows_of(on_cpu)) for owner, on_cpu in own.items() if len(on_cpu)}
        trials = Trials(passes.bound, batch, view_size, each, stream, passes.difficulty, passes.step)
        trials.proposals = groups[passing].learner.propose(learners[passing], trials)
        parts += [(trial.index, trials.adversarial[name]) for name, trial in each.items()]
    view = parts[0][1]
    if len(parts) > 1:
        view = concatenate([part for _, part in parts], [len(index) for index, _ in parts])
        view = view.select(torch.cat([index for index, _ in parts]).argsort())
    augmented = batch.apply(view, view_size)
    if trials is not None:
        trials.augmented = augmented
    return Drawn(view, branch, augmented, trials)


# ---- what is told


def losses_by_branch(losses: Tensor, branch: Tensor, owner: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
    """The mean loss of each branch that has rows: "loss/branch" -> [].

    Args:
        losses: [B], without graph.
        branch: The branch of each row, [B] long, on the CPU.
        owner: The same, on the device of the losses.
        names: The names of the random share and of the branches.
    """
    present = sorted(set(branch.tolist()))
    if len(present) == 1:
        return {f"loss/{names[present[0]]}": losses.mean()}
    mine = (owner == constant(tuple((i,) for i in present), owner)).to(losses.dtype)  # [branches, B]
    means = (mine @ losses / mine.sum(1)).unbind()
    return {f"loss/{names[i]}": mean for i, mean in zip(present, means, strict=True)}

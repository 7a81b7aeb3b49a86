"""All that a step may change: one object, and how it is started, saved and checked."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from adaug._batches.batch import Batch
from adaug._model.bound import BoundModel
from adaug._runtime.checks import integer, mapping, number, optional, text
from adaug._runtime.random import Stream
from adaug._runtime.states import Description, anything, check_state
from adaug._steps.groups import Group
from adaug._views.view import View
from adaug.learners.learner import Start
from adaug.learners.measures import USERS
from adaug.policies import Policy

CPU = torch.device("cpu")
STEP, RANDOM_VIEW, PRETRAIN, GENERATOR = range(4)  # what a random stream is for


@dataclass(frozen=True)
class Drawn:
    """The views of a mini-batch.

    Attributes:
        view: The view of every row.
        branch: The branch of each row, [B] long, on the CPU; 0 means random views.
        augmented: The batch under the view.
        evidence: The name of a group -> what its learner's comparison gave.
    """

    view: View
    branch: Tensor
    augmented: Batch
    evidence: Mapping[str, Any] = field(default_factory=dict)


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
        device: Where the states of learners live.
        bound: The model with its hooks.
        learners: The name of a group -> the state of its learner.
        saved: The same of learners with passes as `load_state_dict` got them. They wait for a model.
        drawn: The views that wait for `observe`.
        view: The latest views.
        unobserved: How many draws nobody observed.
        unmeasured: How many rows did not count, because their batch needs another measure.
        agreed: Whether all ranks have the seed of the first.
    """

    seed: int | None = None
    steps: int = 0
    progress: float = 0.0
    counts: Mapping[str, int] = field(default_factory=lambda: {"random": 0, "pretrain": 0})
    metrics: Mapping[str, Tensor] = field(default_factory=dict)
    measure: str | None = None
    device: torch.device = CPU
    bound: BoundModel | None = None
    learners: Mapping[str, Any] = field(default_factory=dict)
    saved: Mapping[str, Any] = field(default_factory=dict)
    drawn: Drawn | None = None
    view: View | None = None
    unobserved: int = 0
    unmeasured: int = 0
    agreed: bool = False


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


def loaded(state: State, groups: Mapping[str, Group], policy: Policy, saved: Mapping[str, Any]) -> State:
    """The state with its learners as they were saved. Those with passes come last, because they load in place."""
    if any(saved[key] is None and key in state.learners and group.learner.passes for key, group in groups.items()):
        return started(state, groups, policy, saved)  # it was saved before it had a model
    learners = {
        key: groups[key].learner.load_state_dict(present, saved[key])
        for key, present in sorted(state.learners.items(), key=lambda item: groups[item[0]].learner.passes)
    }
    waits = {key: copy.deepcopy(saved[key]) for key in groups if key not in state.learners}
    return replace(state, learners=learners, saved=waits)


def started(state: State, groups: Mapping[str, Group], policy: Policy, saved: Mapping[str, Any]) -> State:
    """The state with its learners started for its model, from what was saved. Those with passes wait if there is no model."""
    bound, seed, learners, waits = state.bound, state.seed, {}, {}
    policy = policy if bound is None else bound.policy
    passing = {name for group in groups.values() if group.learner.passes for name in group.names}
    for key, group in groups.items():
        if group.learner.passes and bound is None:
            waits[key] = copy.deepcopy(saved.get(key))
            continue
        start = Start(
            policy,
            group.of(policy),
            [branch for branch in policy.branches if branch.name not in passing],
            state.device,
            () if bound is None else bound.shapes,
            # ranks share their generators, and so the streams that these are made from
            lambda number: Stream(torch.initial_seed() if seed is None else seed, GENERATOR, number, 0),
            None if bound is None else bound.model,
        )
        first = group.learner.start(start)
        never = key not in saved or (saved[key] is None and group.learner.passes)  # it was saved before it had a model
        learners[key] = first if never else group.learner.load_state_dict(first, saved[key])
    return replace(state, learners=learners, saved=waits)


def saved_learners(state: State, groups: Mapping[str, Group]) -> dict[str, Any]:
    """The name of each group -> the state of its learner in tensors and plain values. None if it never started."""
    return {
        key: group.learner.state_dict(state.learners[key]) if key in state.learners else state.saved.get(key)
        for key, group in groups.items()
    }

"""Checks all of an augmenter's saved state before any of it is loaded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from adaug._runtime.checks import as_text, integer, mapping, number
from adaug._runtime.states import Description, anything, check_state
from adaug.learners.adversary import STATE, Adversary
from adaug.learners.running import RunningDifficulty
from adaug.policies import Policy

PART = mapping(mapping(anything(), "a mapping"), "a mapping from branches to the states of their generators")


def check_saved(
    state: Any, policy: Policy, counts: Iterable[str], adversaries: Mapping[str, Adversary], running: RunningDifficulty
) -> None:
    """Raises TypeError or ValueError unless all of a state can be loaded. Changes nothing.

    Args:
        state: The state to check.
        policy: The augmenter's policy.
        counts: The names of its counters.
        adversaries: Its generators, by branch. There are none before binding, which then checks their states.
        running: Its running difficulty.
    """
    if isinstance(state, Mapping) and isinstance(state.get("policy"), Mapping) and state["policy"] != policy.describe():
        raise ValueError(
            "A state should belong to the augmenter's own policy. Found another policy; build the augmenter with the "
            f"policy that was saved.\n  saved:   {state['policy']}\n  present: {policy.describe()}"
        )
    description: Description = {
        "policy": mapping(anything(), "the description of a policy"),
        "seed": integer(),
        "steps": integer(at_least=0),
        "progress": number(low=0, high=1),
        "counts": dict.fromkeys(counts, integer(at_least=0)),
        "adversaries": PART,
        "running": anything(),
    }
    check_state(state, description, "A state")
    check_state(state["running"], running.describe_state(), "A state of running difficulty")
    learned = {branch.name for branch in policy.branches if branch.has_generator}
    if state["adversaries"] and set(state["adversaries"]) != learned:  # it has none before binding
        raise ValueError(f"A state should hold the branches {sorted(learned)}. Found {as_text(list(state['adversaries']))}.")
    for name, saved in state["adversaries"].items():
        if adversaries:
            adversaries[name].check_state(saved)
        else:
            check_state(saved, STATE, f"A state of branch {name!r}")

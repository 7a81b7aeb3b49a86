"""Which learner moves which branches of a policy. Branches with equal learners share one state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from adaug.learners.learner import Learner
from adaug.learners.paper import Paper
from adaug.learners.running import Running
from adaug.policies import Branch, Policy


@dataclass(frozen=True)
class Group:
    """A learner and the names of the branches that it moves."""

    learner: Learner
    names: tuple[str, ...]

    def of(self, policy: Policy) -> list[Branch]:
        """The branches in a policy."""
        return [branch for branch in policy.branches if branch.name in self.names]


def learner_of(branch: Branch) -> Any:
    """The learner that a branch names, or None if nothing learns."""
    if isinstance(branch.learned, (bool, str)):
        return Running() if branch.learned == "running" else Paper() if branch.learned else None
    return branch.learned


def groups_of(policy: Policy) -> dict[str, Group]:
    """The learners of a policy by the names of their branches, such as "asr+aho". Those with passes come last.

    Running difficulty also watches the branches that nothing moves, so that a table of difficulties shows them.

    Raises ValueError if two learners want to run the model in passes of their own.
    """
    found: list[tuple[Learner, list[str]]] = []
    still = [branch.name for branch in policy.branches if branch.learned is False]
    for branch in policy.branches:
        learner = learner_of(branch)
        if learner is None:
            continue
        if not isinstance(learner, Learner):
            raise TypeError(
                f"`learned` of branch {branch.name!r} should be an adaug.learners.Learner. Found {type(learner).__name__}; "
                "derive it from Learner."
            )
        names = next((names for other, names in found if _same(other, learner)), None)
        if names is None:
            found.append((learner, [branch.name]))
        else:
            names.append(branch.name)
    if still:
        watcher = next((names for learner, names in found if isinstance(learner, Running)), None)
        if watcher is None:
            found.append((Running(), still))
        else:
            watcher += still
    passing = [(learner, names) for learner, names in found if learner.passes]
    if len(passing) > 1:
        raise ValueError(
            "All branches whose learner runs the model in passes of its own should share one learner. Found "
            f"{' and '.join(repr(learner) for learner, _ in passing)}; give them the same object."
        )
    order = [branch.name for branch in policy.branches]
    groups = [Group(learner, tuple(sorted(names, key=order.index))) for learner, names in found]
    return {"+".join(group.names): group for group in sorted(groups, key=lambda group: group.learner.passes)}


def _same(one: Learner, other: Learner) -> bool:
    """Whether two learners are equal. Settings such as tensors have no plain answer; then only the same object is."""
    try:
        return one is other or bool(one == other)
    except (RuntimeError, ValueError):
        return False

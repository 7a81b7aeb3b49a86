"""The rules for the arguments of an augmenter."""

from __future__ import annotations

from collections.abc import Sequence

from adaug._batches.kinds import TARGETS
from adaug._runtime.checks import function, instance, integer, one_of, optional, several, text
from adaug._runtime.geometry import SIZE
from adaug.learners.scoring import SCORING
from adaug.policies import Policy

LAYERS = optional(several(text("a layer"), 'a list of names (or patterns) of layers, such as ["layer1"]'), "to find them")
RULES = {
    "policy": optional(instance(Policy, "an adaug.Policy"), "for the paper's"),
    "features": LAYERS,
    "occlude": LAYERS,
    "targets": TARGETS,
    "output_size": SIZE,
    "update": function(),
    "generator": optional(function()),
    "optimizer": optional(function()),
    "difficulty": optional(function()),
    "warmup_steps": integer(at_least=0),
    "update_every": integer(at_least=1),
    "scoring": one_of(*SCORING),
    "total_steps": optional(integer(at_least=1)),
    "seed": optional(integer(), "for torch's"),
    "forward": optional(function()),
}


def refuse_unused(policy: Policy, arguments: Sequence[str]) -> None:
    """Raises ValueError if arguments that only generators use are given, but no branch has a generator."""
    if arguments and not any(branch.has_generator for branch in policy.branches):
        raise ValueError(
            f"{', '.join(f'`{name}`' for name in arguments)} should be given only if a branch learns by a generator. "
            f"Found branches {[branch.name for branch in policy.branches]} that do not; leave it out, or use "
            "Branch(learned=True)."
        )

"""Changes to the augmenter of an arm of examples/hourglass_lsp.py, with public parts of adaug. Studies name them."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import adaug
from adaug.operations import ClippedNormal
from examples.datasets.people import Joints
from examples.hourglass.augmentation import HIDES, READS, SHARE, generators_of, make_augmenter, policy_of
from examples.hourglass.config import Config


@dataclass(frozen=True)
class Ablation:
    """How an augmenter differs from the example's.

    Attributes:
        random: How random views are drawn: "uniform" over the ranges, or "normal" around the image as it is with 60 % not
            turned, as in the authors' code.
        rest: Whether only the rows of ASR are scaled and turned.
        share: The share of each branch.
        until: The fraction of stage 3 after which the branches stop.
        reads: The layers that generators read. None means the image.
        hides: The layers that AHO's masks multiply. None means the image.
        one_for_all: Whether there is one distribution for all images instead of one for each.
        scoring, update_every: As in `learners.Paper`.
    """

    random: Literal["uniform", "normal"] = "uniform"
    rest: bool = False
    share: float = SHARE
    until: float = 1.0
    reads: tuple[str, ...] = READS
    hides: tuple[str, ...] = HIDES
    one_for_all: bool = False
    scoring: Literal["eval", "train"] = "eval"
    update_every: int = 1

    def __str__(self) -> str:
        """What differs from the defaults."""
        changes = {one.name: getattr(self, one.name) for one in fields(self) if getattr(self, one.name) != one.default}
        return ", ".join(f"{name}={value!r}" for name, value in changes.items())

    def make_augmenter(self, config: Config, joints: Joints, steps: int) -> adaug.AdversarialAugmenter:
        """For `train` and `compare`."""
        how = replace(
            generators_of(config),
            features=() if self.one_for_all else self.reads,
            generator=adaug.learners.OneForAll if self.one_for_all else None,
            scoring=self.scoring,
            update_every=self.update_every,
        )
        policy = self.change(policy_of(config, joints, how), config)
        return make_augmenter(config, joints, steps, policy=policy, occlude=self.hides)

    def change(self, policy: adaug.Policy, config: Config) -> adaug.Policy:
        """The policy of an arm with other random draws and shares. The policies of "none" and "trivial" stay as they are."""
        if config.arm in ("none", "trivial"):
            return policy
        share = adaug.policies.Window(self.share, 0.0, self.until)
        branches = [
            replace(branch, operations=tuple(self._drawn(one, config) for one in branch.operations), share=share)
            for branch in policy.branches
        ]
        return replace(policy, branches=tuple(branches), common=tuple(self._drawn(one, config) for one in policy.common))

    def _drawn(self, operation: Any, config: Config) -> Any:
        """Scale and rotation with the random draws of this ablation. Other operations stay as they are."""
        (low, high), angle = config.scale, config.rotation
        changes: dict[str, Any] = {}
        if isinstance(operation, adaug.Scale):
            distribution, rest = ClippedNormal(1.0, (high - low) / 4, low, high), 1.0
        elif isinstance(operation, adaug.Rotate):
            distribution, rest = ClippedNormal(0.0, angle / 2, -angle, angle, still=0.6), 0.0
        else:
            return operation
        if self.random == "normal":
            changes["random"] = distribution
        if self.rest:
            changes["rest"] = rest
        return replace(operation, **changes)

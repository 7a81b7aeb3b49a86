"""Arms that the example does not have: each changes one thing in its augmenter, with public parts of adaug.

    python -m benchmarks.paper.ablations --data DIR --arms asr+aho --until 0.7 --out runs/until
    python -m benchmarks.paper.ablations --data DIR --arms asr+aho --one-for-all --update-every 4 --out runs/global

It runs examples/hourglass_lsp.py and takes all its options too. `benchmarks/accuracy.py people` takes the same options after
the name of an arm; there, "global" is short for "asr+aho --one-for-all".
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import adaug
from adaug.operations import ClippedNormal
from examples import hourglass_lsp
from examples.datasets.people import Joints
from examples.hourglass.augmentation import HIDES, READS, SHARE, make_augmenter, policy_of
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
        scoring, update_every: As in the augmenter.
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
        """The options that differ from the defaults, as one types them."""
        words = []
        for field in fields(self):
            value = getattr(self, field.name)
            if value != field.default:
                values = [] if value is True else value if isinstance(value, tuple) else [value]
                words += [f"--{field.name.replace('_', '-')}", *map(str, values)]
        return shlex.join(words)

    def make_augmenter(self, config: Config, joints: Joints, steps: int) -> adaug.AdversarialAugmenter:
        """For `train` and `compare`."""
        policy = self.change(policy_of(config, joints), config)
        of_generators: dict[str, Any] = {
            "features": () if self.one_for_all else self.reads,
            "generator": adaug.learners.OneForAll if self.one_for_all else None,
            "scoring": self.scoring,
            "update_every": self.update_every,
        }
        if not any(branch.has_generator for branch in policy.branches):
            of_generators = {}
        return make_augmenter(config, joints, steps, policy=policy, occlude=self.hides, **of_generators)

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


def parse(arguments: Sequence[str]) -> tuple[Ablation, list[str]]:
    """The ablation in a command line, and the remaining arguments, which are the example's."""
    parser = argparse.ArgumentParser(allow_abbrev=False, add_help=False)
    parser.add_argument("--random", choices=("uniform", "normal"))
    parser.add_argument("--rest", action="store_true")
    parser.add_argument("--share", type=float)
    parser.add_argument("--until", type=float)
    parser.add_argument("--reads", nargs="*")
    parser.add_argument("--hides", nargs="*")
    parser.add_argument("--one-for-all", action="store_true")
    parser.add_argument("--scoring", choices=("eval", "train"))
    parser.add_argument("--update-every", type=int)
    options, rest = parser.parse_known_args(arguments)
    given: dict[str, Any] = {name: value for name, value in vars(options).items() if value is not None}
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    return Ablation(**given), rest


def run(arguments: Sequence[str]) -> dict[str, Any]:
    """Runs examples/hourglass_lsp.py with the ablation in `arguments`, and returns its results."""
    ablation, rest = parse(arguments)
    if not str(ablation):
        return hourglass_lsp.main(rest)
    return hourglass_lsp.main(rest, variant=str(ablation), make_augmenter=ablation.make_augmenter)


if __name__ == "__main__":
    run(sys.argv[1:])

"""Ready policies: the recommended one, the paper's, that of the authors' code, baselines, and a schedule for shares."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

from adaug._runtime.checks import Rules, check_fields, checked, instance, number
from adaug.keypoints import Pairs
from adaug.operations import (
    Brightness,
    ClippedNormal,
    Contrast,
    Gain,
    Geometric,
    OccludeFeatures,
    OccludeImage,
    Photometric,
    Rotate,
    Saturation,
    Scale,
    Shear,
    Translate,
    TruncatedNormal,
)
from adaug.policies.policy import Branch, Flip, Policy, Share

__all__ = ["AXES", "Window", "paper", "released", "robust", "running", "trivial", "uniform", "wide"]

RULES = {"policy": instance(Policy, "an adaug.Policy")}
AXES: tuple[Literal["x", "y"], ...] = ("x", "y")


@dataclass(frozen=True)
class Window:
    """A schedule for `Branch(share=)`: `share` from `start` to `end` of the training progress (0 to 1), and 0 outside."""

    share: float
    start: float = 0.0
    end: float = 1.0

    _rules: ClassVar[Rules] = {"share": number(low=0, high=1), "start": number(low=0, high=1), "end": number(low=0, high=1)}

    def __post_init__(self) -> None:
        check_fields(self)
        if self.start > self.end:
            raise ValueError(f"A Window should have start <= end. Found start={self.start}, end={self.end}.")

    def __call__(self, progress: float) -> float:
        return self.share if self.start <= progress < self.end or progress == self.end == 1 else 0.0


def paper(flip_pairs: Pairs | None = None, learned: Any = True) -> Policy:
    """The paper's policy: a third of the rows each for random views, ASR and AHO (Peng, Tang et al., CVPR 2018).

    ASR scales (7 bins) and rotates (9 bins). AHO hides cells of features (4 x 4 cells). Both learn by generators. Random and
    reference views draw from Gaussians about the image as it is, whose two standard deviations fill the ranges (section 5.2).

    Args:
        flip_pairs: Keypoints that change places in a mirror image, () if none do. With None nothing is flipped, because not
            every image may be mirrored.
        learned: As in `Branch`: True, or a `learners.Paper` with settings of your own.
    """
    scale = Scale(0.75, 1.25, 7, random=TruncatedNormal(1.0, 0.125, 0.75, 1.25))
    rotate = Rotate(-30, 30, 9, random=TruncatedNormal(0.0, 15.0, -30, 30))
    asr = Branch("asr", (scale, rotate), 1 / 3, learned)
    aho = Branch("aho", (OccludeFeatures(grid=(4, 4), cells=(1, 2)),), 1 / 3, learned)
    return Policy((asr, aho), () if flip_pairs is None else (Flip(flip_pairs),))


def wide(flip_pairs: Pairs | None = None, learned: Any = True, *, rest: bool = False) -> Policy:
    """The paper's policy with wider ranges: scales 0.65 to 1.5, rotations -60 to 60 degrees.

    Most random views stay close to the image as it is, and 60 % are not turned. The page "Laboratory" of the documentation has
    measurements.

    Args:
        flip_pairs: As in `paper`.
        learned: As in `paper`.
        rest: If True, only the rows of ASR are scaled and turned. Generators then compare them with views drawn evenly.
    """
    scale, rotate = Scale(0.65, 1.5, 7, rest=1.0 if rest else None), Rotate(-60, 60, 9, rest=0.0 if rest else None)
    if not rest:
        scale = replace(scale, random=ClippedNormal(1.0, 0.2125, 0.65, 1.5))
        rotate = replace(rotate, random=ClippedNormal(0, 30, -60, 60, still=0.6))
    policy = paper(flip_pairs, learned)
    asr, aho = policy.branches
    return replace(policy, branches=(replace(asr, operations=(scale, rotate)), aho))


def robust(flip_pairs: Pairs | None = None, *, share: Share = 1 / 3, hidden: Share = 1 / 3) -> Policy:
    """The policy that we recommend. Views that are hard now come more often, by running difficulty; this costs no extra pass.

    ASR scales and turns as in `wide`. AHO sets one or two of 4 x 4 cells of the image to 0: black, or the mean colour if images
    are normalised. (The paper hides cells of features. Networks then learn less about hidden parts of images, and need hooks.)

    Args:
        flip_pairs: As in `paper`.
        share: The share of the rows that ASR scales and turns. A larger one improves the worst views more, and costs more on
            images as they are.
        hidden: The share of the rows in which AHO hides cells. 0 hides nothing.
    """
    policy = wide(flip_pairs)
    asr, aho = policy.branches
    branches = replace(asr, share=share), replace(aho, operations=(OccludeImage(),), share=hidden)
    return running(replace(policy, branches=branches))


def released(flip_pairs: Pairs | None = None, learned: Any = True) -> Policy:
    """The policy of the authors' code of 2018: ASR on half of the rows, and no AHO.

    It has seven scales from 2^-0.6 to 2^0.6, seven rotations from -60 to 60 degrees (centres of the bins) and random gains of
    the colour channels. Random views draw from clipped normal distributions, and 60 % are not turned. The authors' cap of 2 / k
    and their alpha, beta = 0.2, 0.5 are the defaults of RewardPenalty.

    Args:
        flip_pairs: As in `paper`.
        learned: As in `paper`.
    """
    scale = Scale(2**-0.7, 2**0.7, 7, log=True, random=ClippedNormal(0, 0.25, -0.5, 0.5, base=2))
    rotate = Rotate(-70, 70, 7, random=ClippedNormal(0, 30, -60, 60, still=0.6))
    gains = tuple(Gain(0.6, 1.4, 2, channel=channel) for channel in range(3))
    common: tuple[Flip | Gain, ...] = gains if flip_pairs is None else (Flip(flip_pairs), *gains)
    return Policy((Branch("asr", (scale, rotate), 1 / 2, learned),), common)


def trivial(flip_pairs: Pairs | None = None, *, learned: Any = False) -> Policy:
    """A policy in the manner of TrivialAugment (Müller and Hutter, ICCV 2021), a strong baseline that needs no tuning.

    Each row gets one of nine operations by a uniform magnitude, or none.

    Args:
        flip_pairs: As in `paper`.
        learned: Whether generators propose the magnitudes. Each operation then has its own generator, and fewer bins.
    """
    bins = 9 if learned else 30
    geometric: list[Geometric] = [
        Scale(0.5, 2.0, bins, log=True, rest=1.0),
        Rotate(-45, 45, bins, rest=0.0),
        *(Translate(-0.25, 0.25, bins, axis=axis, rest=0.0) for axis in AXES),
        *(Shear(-30, 30, bins, axis=axis, rest=0.0) for axis in AXES),
    ]
    colours: list[Photometric] = [kind(0.3, 1.7, bins, rest=1.0) for kind in (Brightness, Contrast, Saturation)]
    operations = [*geometric, *colours]
    share = 1 / (len(operations) + 1)
    branches = [Branch(operation.name, (operation,), share, learned) for operation in operations]
    return Policy(branches, () if flip_pairs is None else (Flip(flip_pairs),))


def uniform(policy: Policy) -> Policy:
    """The same policy without learning: all bins and cells are equally likely. The baseline for what learning wins."""
    checked({"policy": policy}, RULES)
    return replace(policy, branches=[replace(branch, learned=False) for branch in policy.branches])


def running(policy: Policy, how: Any = "running") -> Policy:
    """The same policy with running difficulty: bins and cells whose errors in training are large are drawn more often.

    Args:
        policy: Any policy.
        how: The settings, such as `learners.Running(cap=2)`.
    """
    checked({"policy": policy}, RULES)
    return replace(policy, branches=[replace(branch, learned=how) for branch in policy.branches])

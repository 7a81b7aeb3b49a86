"""What a run depends on: its settings, with the paper's, and the machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from examples.hourglass.losses import Loss

Arm = Literal["none", "random", "uniform", "trivial", "global", "asr", "aho", "asr+aho", "learned-trivial"]
ARMS: tuple[Arm, ...] = ("none", "random", "uniform", "trivial", "global", "asr", "aho", "asr+aho", "learned-trivial")
Measure = Literal["error", "missed", "loss"]
MEASURES: dict[Measure, str] = {"error": "error / size", "missed": "1 - PCK", "loss": "loss"}  # how figures call them
TRIVIAL: tuple[Arm, ...] = ("trivial", "learned-trivial")
UNLEARNED: tuple[Arm, ...] = ("none", "random", "uniform", "trivial")


@dataclass(frozen=True)
class Config:
    """Everything that a run's result depends on, but for data and machine. The defaults suit a small, short run.

    arm: "none" trains on the crops as they are, "random" on the paper's random views, "uniform" on the adversarial arm's
    bins and cells with equal probabilities, "trivial" in the manner of TrivialAugment, and "learned-trivial" with magnitudes
    from generators; "global" learns one distribution for all images, "asr", "aho" and "asr+aho" one for each.
    epochs: of the three stages. batch_size: people per optimizer step, over all ranks; a pass takes one of `accumulate`
    parts of a rank's share. decay_at: fractions of the network's epochs at which its rate falls by `decay`; or with
    `patience`, the evaluations without a better PCK after which it falls, once. scale, rotation: the ranges (±degrees) of
    the random and the adversarial views alike. reference: how random views are drawn from them, "uniform" or "normal":
    about the image as it is, and 60 % are not turned, as in the authors' release. rest: only the rows of ASR are scaled and
    turned. rich: views are also shifted, sheared and coloured at random, in all arms but "none" and the trivial ones.
    share: of each branch; until: the fraction of stage 3 after which the branches rest. apart: scale and rotation are judged
    each by itself, in branches of half the share. reads: the layers that the generators read, hides: those that the masks
    of AHO multiply; () for the image. measure: what "harder" compares, the "error" that does not depend on a person's size in
    pixels, the share of "missed" joints (1 - PCK), or the "loss". teacher: the decay of a moving average of the network,
    whose error or loss is subtracted, so that what it cannot solve either does not count as hard (TeachAugment, Suzuki,
    CVPR 2022); 0 for none. scoring, update_every: as of the augmenter. average: the generators move once for the mean of
    that many comparisons. pretrain_people: a stage-2 epoch takes that many.
    bins_every: epochs between two looks at the error per scale and rotation of `bins_people` training people; 0 for none.
    """

    arm: Arm = "asr+aho"
    seed: int = 0
    size: int = 64
    stacks: int = 1
    modules: int = 1
    width: int | None = 32
    depth: int = 3
    stride: Literal[2, 4] = 2
    block: Literal["residual", "dense"] = "residual"
    loss: Loss = "cross-entropy"
    sigma: float = 1.0
    epochs: tuple[int, int, int] = (8, 1, 24)
    batch_size: int = 24
    accumulate: int = 1
    optimizer: Literal["adam", "rmsprop"] = "adam"
    lr: float = 1e-3
    decay: float = 0.2
    decay_at: tuple[float, ...] = (0.7, 0.9)
    patience: int | None = None
    generator_lr: float = 1e-3
    pretrain_lr: float = 2.5e-4
    pretrain_people: int = 96
    pretrain_views: int = 21
    scale: tuple[float, float] = (0.75, 1.25)
    rotation: float = 30.0
    reference: Literal["uniform", "normal"] = "uniform"
    rest: bool = False
    rich: bool = False
    share: float = 1 / 3
    until: float = 1.0
    apart: bool = False
    reads: tuple[str, ...] = ("hg.0.skip*", "hg.0.neck")
    hides: tuple[str, ...] = ("hg.*.skip*", "hg.*.neck")
    measure: Measure = "error"
    teacher: float = 0.0
    scoring: Literal["eval", "train"] = "eval"
    update_every: int = 1
    average: int = 1
    alpha: float = 0.3
    beta: float = 0.3
    cap: float = 2.0
    threshold: float = 0.5
    evaluate_every: int = 4
    bins_every: int = 4
    bins_people: int = 48
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"

    def __post_init__(self) -> None:
        if self.arm not in ARMS:
            raise ValueError(f"`arm` should be one of {', '.join(ARMS)}. Found {self.arm!r}.")
        if len(self.epochs) != 3 or min(self.epochs) < 0 or self.epochs[0] + self.epochs[2] < 1:
            raise ValueError(f"`epochs` should be three numbers, not negative, of the stages. Found {self.epochs}.")
        counts = ("batch_size", "accumulate", "update_every", "average", "evaluate_every", "pretrain_people", "pretrain_views")
        for name in counts:
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` should be at least 1. Found {getattr(self, name)}.")
        if not 0 <= self.teacher < 1:
            raise ValueError(f"`teacher` should be a decay in [0, 1). Found {self.teacher}.")


# Section 5.1: RMSProp at 2.5e-4, the generators at 5e-5 after their pre-training, MSE; 256 x 256 crops, 64 x 64 maps.
PAPER = Config(
    size=256,
    modules=3,
    width=None,
    depth=4,
    stride=4,
    loss="mse",
    epochs=(20, 2, 180),
    optimizer="rmsprop",
    lr=2.5e-4,
    patience=10,
    generator_lr=5e-5,
    pretrain_people=2000,
    pretrain_views=63,
    evaluate_every=1,
    bins_people=256,
    measure="loss",
)


@dataclass(frozen=True)
class Machine:
    """Where and how a run computes; a run may be resumed on another."""

    device: str = "cpu"
    compile: bool = False
    channels_last: bool = False


CPU = Machine()

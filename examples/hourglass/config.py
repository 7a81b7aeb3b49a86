"""The settings of a run, with the paper's values, and the machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from examples.hourglass.losses import Loss

Arm = Literal["none", "random", "uniform", "trivial", "running", "robust", "asr", "aho", "asr+aho"]
ARMS: dict[Arm, str] = {  # and the views that each trains on
    "none": "the crops as they are",
    "random": "scaled, turned and mirrored at random",
    "uniform": "scaled, turned, mirrored, and some with hidden features; all equally often",
    "trivial": "in the manner of TrivialAugment: one operation a person, or none",
    "running": "scaled, turned, mirrored, and some with hidden features; what training shows to be hard more often",
    "robust": "scaled, turned, mirrored, and some with parts in black; what training shows to be hard more often",
    "asr": "like random, but a generator says which scales and rotations are hard",
    "aho": "like random, and a generator says which parts to hide",
    "asr+aho": "both of the paper's generators",
}
UNLEARNED: tuple[Arm, ...] = ("none", "random", "uniform", "trivial")
LEARNED_BY_RUNNING: tuple[Arm, ...] = ("running", "robust")  # without generators
WITHOUT_GENERATORS = (*UNLEARNED, *LEARNED_BY_RUNNING)
Measure = Literal["error", "loss"]
MEASURES: dict[Measure, str] = {"error": "error / size", "loss": "loss"}  # what figures call them


@dataclass(frozen=True)
class Config:
    """All settings of a run except data and machine. The defaults suit a small, short run.

    Attributes:
        arm: One of ARMS.
        variant: The name of your own `make_augmenter` (see `train`). Only runs of the same name can be resumed.
        seed: The seed of the first weights, the order of the people, and the views.
        size: The side of a crop in pixels.
        stacks, modules, width, depth, block, stride: See `StackedHourglass`.
        loss: The loss of heat maps.
        epochs: The epochs of each of the three stages.
        batch_size: People per optimizer step, over all ranks. A rank computes its people in `accumulate` passes.
        lr: The network's learning rate. It falls twice, or with `patience` once, after so many evaluations without a gain.
        generator_lr: The learning rate of the generators in stage 3.
        pretrain_people, pretrain_views: The people in an epoch of stage 2, and the most views of each.
        scale, rotation: The ranges of random and adversarial views; rotation is ± so many degrees.
        measure: What "harder" compares: the "error" over a person's size, or the "loss".
        alpha, beta, cap: The strengths of reward and penalty. No bin of k gets a probability above cap / k.
        evaluate_every: Epochs between two evaluations.
        bins_every: Epochs between two measurements of the error in each bin of scale and rotation; 0 for none.
        precision: The precision of passes. Weights always have 32 bits.
    """

    arm: Arm = "asr+aho"
    variant: str = ""
    seed: int = 0
    size: int = 64
    stacks: int = 1
    modules: int = 1
    width: int | None = 32
    depth: int = 3
    stride: Literal[2, 4] = 2
    block: Literal["residual", "dense"] = "residual"
    loss: Loss = "cross-entropy"
    epochs: tuple[int, int, int] = (8, 1, 24)
    batch_size: int = 24
    accumulate: int = 1
    optimizer: Literal["adam", "rmsprop"] = "adam"
    lr: float = 1e-3
    patience: int | None = None
    generator_lr: float = 1e-3
    pretrain_people: int = 96
    pretrain_views: int = 21
    scale: tuple[float, float] = (0.75, 1.25)
    rotation: float = 30.0
    measure: Measure = "error"
    alpha: float = 0.3
    beta: float = 0.3
    cap: float = 2.0
    evaluate_every: int = 4
    bins_every: int = 4
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"

    def __post_init__(self) -> None:
        if self.arm not in ARMS:
            raise ValueError(f"`arm` should be one of {', '.join(ARMS)}. Found {self.arm!r}.")
        if len(self.epochs) != 3 or min(self.epochs) < 0 or self.epochs[0] + self.epochs[2] < 1:
            raise ValueError(f"`epochs` should be three numbers, not negative, of the stages. Found {self.epochs}.")
        for name in ("batch_size", "accumulate", "evaluate_every", "pretrain_people", "pretrain_views"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` should be at least 1. Found {getattr(self, name)}.")


# Section 5.1: RMSProp at 2.5e-4, the generators at 5e-5 after their pre-training, MSE; 256 x 256 crops, 64 x 64 maps.
PAPER = Config(
    size=256, modules=3, width=None, depth=4, stride=4, loss="mse", measure="loss", optimizer="rmsprop", lr=2.5e-4,
    patience=10, generator_lr=5e-5, epochs=(20, 2, 180), pretrain_people=2000, pretrain_views=63, evaluate_every=1,
)  # fmt: skip


@dataclass(frozen=True)
class Machine:
    """Where and how a run computes. It may be resumed on another machine."""

    device: str = "cpu"
    compile: bool = False
    channels_last: bool = False


CPU = Machine()

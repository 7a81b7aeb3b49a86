"""The settings of a run, with the paper's values; the machine and its processes; the command line."""

from __future__ import annotations

import argparse
import dataclasses
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
import torch.distributed as dist

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


# -- the machine ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Machine:
    """Where and how a run computes. It may be resumed on another machine."""

    device: str = "cpu"
    compile: bool = False
    channels_last: bool = False


CPU = Machine()


def rank() -> int:
    """The number of this process among those that torchrun started."""
    return dist.get_rank() if dist.is_initialized() else 0


def ranks() -> int:
    """The number of processes that torchrun started."""
    return dist.get_world_size() if dist.is_initialized() else 1


def started() -> dict[str, int]:
    """Rank and number of ranks, which torchrun tells before the processes have joined."""
    return {"rank": int(os.environ.get("RANK", "0")), "ranks": int(os.environ.get("WORLD_SIZE", "1"))}


@contextmanager
def distributed(machine: Machine) -> Iterator[Machine]:
    """Joins the processes that torchrun started, and leaves them at the end. A single process joins nothing."""
    if started()["ranks"] < 2 or dist.is_initialized():
        yield machine
        return
    cuda = machine.device.startswith("cuda")
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if cuda:
        torch.cuda.set_device(local)
    dist.init_process_group("nccl" if cuda else "gloo")
    try:
        yield replace(machine, device=f"cuda:{local}") if cuda else machine
    finally:
        dist.destroy_process_group()


# -- the command line -----------------------------------------------------------------------------------------------


def starting_point(small: Config, arguments: Sequence[str] | None = None) -> Config:
    """The defaults of the options: `small`, or with --paper the paper's settings, which differ for dense blocks."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--paper", action="store_true")
    parser.add_argument("--block", default="residual")
    given, _ = parser.parse_known_args(arguments)
    if not given.paper:
        return small
    return replace(PAPER, block="dense", modules=6) if given.block == "dense" else PAPER


def add_options(parser: argparse.ArgumentParser, config: Config, out: str) -> None:
    """Adds the options of every script. `config` has their defaults."""
    parser.formatter_class = argparse.ArgumentDefaultsHelpFormatter
    switch = argparse.BooleanOptionalAction
    run = parser.add_argument_group("comparison")
    run.add_argument("--arms", nargs="+", choices=ARMS, default=["random", "robust"], help="differences: to the first")
    run.add_argument("--seeds", nargs="+", type=int, default=[config.seed], help="tables show the means over these seeds")
    run.add_argument("--out", type=Path, default=Path(out), help="folder for checkpoints, curves, pictures and results.json")
    run.add_argument("--resume", action=switch, default=True, help="continue from the folder's checkpoints")
    run.add_argument("--paper", action="store_true", help="start from the paper's settings; the other options change them")
    run.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    run.add_argument("--compile", action="store_true", help="torch.compile the hourglass")
    run.add_argument("--channels-last", action=switch, default=False, help="memory format; faster on most machines")
    settings = parser.add_argument_group("settings")

    def add(option: str, help: str | None = None, **more: Any) -> None:
        default = getattr(config, option[2:].replace("-", "_"))
        more.setdefault("type", type(default))
        settings.add_argument(option, help=help, default=list(default) if isinstance(default, tuple) else default, **more)

    add("--size", "side of a crop in pixels")
    add("--epochs", "epochs of each stage", nargs=3, type=int, metavar=("1", "2", "3"))
    add("--batch-size", "people per optimizer step, over all ranks")
    add("--accumulate", "compute a batch in so many parts, one after the other")
    add("--optimizer", choices=("adam", "rmsprop"))
    add("--lr", "learning rate of the hourglass")
    add("--generator-lr", "learning rate of the generators in stage 3")
    add("--patience", "evaluations without a gain before the learning rate falls", type=int)
    add("--loss", "loss of the heat maps", choices=("mse", "cross-entropy"))
    add("--evaluate-every", "epochs between two evaluations")
    add("--bins-every", "epochs between two measurements of the error in each bin of scale and rotation")
    add("--block", "blocks of the hourglass", choices=("residual", "dense"))
    add("--stacks", "hourglasses in the stack")
    add("--modules", "residual modules, or dense layers, in a block")
    add("--width", "channels of the hourglass (None: the paper's)", type=int)
    add("--depth", "how often an hourglass halves the resolution")
    add("--stride", "image pixels for each pixel of a heat map", choices=(2, 4))
    add("--scale", "range of the scales", nargs=2, type=float, metavar=("LOW", "HIGH"))
    add("--rotation", "range of the rotations, ± degrees")
    add("--measure", 'what "harder" compares', choices=tuple(MEASURES))
    add("--alpha", "strength of the reward")
    add("--beta", "strength of the penalty")
    add("--cap", "no bin of k gets a probability above cap / k")
    add("--precision", "precision of the passes", choices=("fp32", "bf16", "fp16"))


def config_from(options: argparse.Namespace, config: Config) -> Config:
    """The config with the values of the command line."""
    names = [field.name for field in dataclasses.fields(Config) if hasattr(options, field.name)]
    given: dict[str, Any] = {name: getattr(options, name) for name in names}
    given |= {name: tuple(value) for name, value in given.items() if isinstance(value, list)}
    return replace(config, **given)

"""The settings of a run, with the paper's values; the machine and its processes; the command line."""

from __future__ import annotations

import argparse
import dataclasses
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
import torch.distributed as dist

from examples.hourglass.losses import Loss
from examples.hourglass.model import WIDTHS

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
OTHERS_FROM_THE_START: tuple[Arm, ...] = ("none", "trivial")  # stage 1 is theirs alone
Measure = Literal["error", "loss"]
MEASURES: dict[Measure, str] = {"error": "error / size", "loss": "loss"}  # what figures call them
Precision = Literal["fp32", "bf16", "fp16"]
Random = Literal["gaussian", "uniform", "upright"]
RANDOM: tuple[Random, ...] = ("gaussian", "uniform", "upright")
HOW_RANDOM = (
    "two standard deviations fill them as in the paper, evenly, or mostly small and 60 %% not turned as in policies.wide"
)


def setting(default: Any, help: str = "", **more: Any) -> Any:
    """A field of `Config`. With a `help` it is an option of the command line; `more` is what argparse gets."""
    return dataclasses.field(default=default, metadata={"help": help, **more})


def or_none(kind: Callable[[str], Any]) -> Callable[[str], Any]:
    """A type of an option that may also be the word none."""

    def read(text: str) -> Any:
        return None if text.lower() == "none" else kind(text)

    read.__name__ = f"{kind.__name__} or none"  # what argparse calls it in errors
    return read


@dataclass(frozen=True)
class Config:
    """All settings of a run except data and machine, and the options of the scripts. The defaults suit a small, short run."""

    # ruff: noqa: RUF009 (a setting is a field)
    arm: Arm = setting("asr+aho")
    variant: str = setting("")  # the name of your own `make_augmenter`, see `train`; only runs of one name can be resumed
    seed: int = setting(0)  # of the first weights, the order of the people, and the views
    size: int = setting(64, "side of a crop in pixels")
    stacks: int = setting(1, "hourglasses in the stack")
    modules: int = setting(1, "residual modules, or dense layers, in a block")
    width: int | None = setting(32, "channels of the hourglass (none: the paper's)", type=or_none(int))
    depth: int = setting(3, "how often an hourglass halves the resolution")
    stride: Literal[2, 4] = setting(2, "image pixels for each pixel of a heat map", choices=(2, 4))
    block: Literal["residual", "dense"] = setting("residual", "blocks of the hourglass", choices=("residual", "dense"))
    loss: Loss = setting("cross-entropy", "loss of the heat maps", choices=("mse", "cross-entropy"))
    sigma: float = setting(1.0, "of the Gaussians in the heat maps, in their pixels")
    epochs: tuple[int, int, int] = setting((8, 1, 24), "epochs of each stage", nargs=3, type=int, metavar=("1", "2", "3"))
    batch_size: int = setting(24, "people per optimizer step, over all ranks")
    accumulate: int = setting(1, "compute a batch in so many parts, one after the other")
    optimizer: Literal["adam", "rmsprop"] = setting("adam", "of hourglass and generators", choices=("adam", "rmsprop"))
    lr: float = setting(1e-3, "learning rate of the hourglass; it falls twice, or once with --patience")
    patience: int | None = setting(None, "validations without a gain before the learning rate falls", type=or_none(int))
    precision: Precision = setting("fp32", "of passes; weights always have 32 bits", choices=("fp32", "bf16", "fp16"))
    generator_lr: float = setting(1e-3, "learning rate of the generators in stage 3")
    generator_width: int | None = setting(None, "channels of the generators (none: the hourglass's)", type=or_none(int))
    generator_size: int | None = setting(None, "pool what generators read to this side (none: do not)", type=or_none(int))
    pretrain_people: int | None = setting(96, "people in an epoch of stage 2 (none: all)", type=or_none(int))
    pretrain_views: int = setting(21, "the most views of each in stage 2")
    random: Random = setting("gaussian", "how random views are drawn from the ranges: " + HOW_RANDOM, choices=RANDOM)
    scale: tuple[float, float] = setting((0.75, 1.25), "range of the scales", nargs=2, type=float, metavar=("LOW", "HIGH"))
    rotation: float = setting(30.0, "range of the rotations, ± degrees")
    spread: float = setting(1.0, "standard deviation of the Gaussian in a bin; 1 is half the bin's width")
    measure: Measure = setting("error", 'what "harder" compares: error / size, or loss', choices=("error", "loss"))
    alpha: float = setting(0.3, "strength of the reward")
    beta: float = setting(0.3, "strength of the penalty")
    cap: float | None = setting(2.0, "no bin of k gets a probability above cap / k (none: no cap)", type=or_none(float))
    evaluate_every: int = setting(4, "epochs between two validations")
    bins_every: int = setting(4, "epochs between two measurements of the error in each bin of scale and rotation; 0: none")

    def __post_init__(self) -> None:
        if self.arm not in ARMS:
            raise ValueError(f"`arm` should be one of {', '.join(ARMS)}. Found {self.arm!r}.")
        if len(self.epochs) != 3 or min(self.epochs) < 0 or self.epochs[0] + self.epochs[2] < 1:
            raise ValueError(f"`epochs` should be three numbers, not negative, of the stages. Found {self.epochs}.")
        for name in ("batch_size", "accumulate", "evaluate_every", "pretrain_people", "pretrain_views"):
            if (getattr(self, name) or 1) < 1 or getattr(self, name) == 0:
                raise ValueError(f"`{name}` should be at least 1. Found {getattr(self, name)}.")

    @property
    def channels(self) -> int:
        """The channels of the hourglass."""
        return WIDTHS[self.block] if self.width is None else self.width

    def narrowed(self) -> str:
        """How the generators are smaller than the paper's, in words. Empty if they are not."""
        parts = (
            [f"{self.generator_width} of {self.channels} channels"] if self.generator_width not in (None, self.channels) else []
        )
        parts += [f"what they read is pooled to {self.generator_size}²"] if self.generator_size is not None else []
        return " and ".join(parts)


# Section 5.1: RMSProp at 2.5e-4, the generators at 5e-5 after their pre-training, MSE; 256 x 256 crops, 64 x 64 maps. All
# images and all m x n views in stage 2, no cap on Eq. (5) and (6). The paper does not give epochs, alpha and beta.
PAPER = Config(
    size=256, modules=3, width=None, depth=4, stride=4, loss="mse", measure="loss", optimizer="rmsprop", lr=2.5e-4,
    patience=10, generator_lr=5e-5, epochs=(20, 1, 180), pretrain_people=None, pretrain_views=63, cap=None, evaluate_every=1,
)  # fmt: skip
# Drawn people, two minutes on two cores. The first two stages are for generators.
DEMO = Config(
    epochs=(0, 0, 12), batch_size=16, lr=5e-3, random="upright", rotation=60, scale=(0.7, 1.4), evaluate_every=12, bins_every=12
)
PHOTOGRAPHS = Config(width=64, epochs=(6, 1, 18), batch_size=48, pretrain_people=480)


# -- the machine ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Machine:
    """Where and how a run computes. It may be resumed on another machine."""

    device: str = "cpu"
    compile: bool = False
    channels_last: bool = False
    sync_batchnorm: bool = False


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
    """Joins the processes that torchrun started, on one node or several, and leaves them at the end."""
    if machine.sync_batchnorm and not machine.device.startswith("cuda"):
        raise ValueError(
            f"--sync-batchnorm should be used on GPUs, because torch has it for them alone. Found {machine.device}."
        )
    if started()["ranks"] < 2 or dist.is_initialized():
        yield machine
        return
    cuda = machine.device.startswith("cuda")
    local = int(os.environ.get("LOCAL_RANK") or started()["rank"] % max(1, torch.cuda.device_count()))  # its GPU on its node
    if cuda:
        torch.cuda.set_device(local)
    dist.init_process_group("nccl" if cuda else "gloo")
    try:
        yield replace(machine, device=f"cuda:{local}") if cuda else machine
    finally:
        dist.destroy_process_group()


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[Any]:
    """A block whose passes have this precision."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16 if precision == "bf16" else torch.float16)


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


def make_parser(config: Config, out: str, about: str) -> argparse.ArgumentParser:
    """A parser with the options of every script. `config` has their defaults. about: the script's docstring."""

    class Format(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
        pass

    first, _, rest = about.partition("\n\n")
    parser = argparse.ArgumentParser(description=first, epilog=rest, formatter_class=Format)
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
    run.add_argument("--sync-batchnorm", action="store_true", help="BatchNorm over all GPUs together")
    settings = parser.add_argument_group("settings")
    for one in dataclasses.fields(Config):
        if one.metadata["help"]:
            default = getattr(config, one.name)
            more = {"type": type(default), **one.metadata}
            default = list(default) if isinstance(default, tuple) else default
            settings.add_argument(f"--{one.name.replace('_', '-')}", default=default, **more)
    people = parser.add_argument_group("people")
    people.add_argument("--skip-corrupt", action="store_true", help="leave out images that cannot be read")
    people.add_argument("--cache", type=Path, default=None, help="folder of the crops (None: in ~/.cache)")
    return parser


def config_from(options: argparse.Namespace, config: Config) -> Config:
    """The config with the values of the command line."""
    names = [one.name for one in dataclasses.fields(Config) if hasattr(options, one.name)]
    given: dict[str, Any] = {name: getattr(options, name) for name in names}
    given |= {name: tuple(value) for name, value in given.items() if isinstance(value, list)}
    return replace(config, **given)


def run_script(main: Callable[[], Any]) -> None:
    """Runs a script. Errors that the user can mend are one message, in the words of the command line."""
    options = {one.name: f"--{one.name.replace('_', '-')}" for one in dataclasses.fields(Config) if one.metadata["help"]}
    options |= {"skip_corrupt": "--skip-corrupt", "cache_dir": "--cache", "canvas": "--size"}
    try:
        main()
    except (OSError, ValueError, FloatingPointError) as error:
        text = re.sub(r"`(\w+)`|\b(\w+)=True", lambda found: options.get(found[1] or found[2], found[0]), str(error))
        raise SystemExit(f"{Path(sys.argv[0]).name}: error: {text}") from None

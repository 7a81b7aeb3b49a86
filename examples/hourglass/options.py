"""The command line of the scripts: what can be set, and what it starts from."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from examples.hourglass.config import ARMS, MEASURES, PAPER, Config


def starting_point(small: Config, arguments: Sequence[str] | None = None) -> Config:
    """The defaults of the options: `small`, or with --paper the paper's, which differ for dense blocks."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--paper", action="store_true")
    parser.add_argument("--block", default="residual")
    given, _ = parser.parse_known_args(arguments)
    if not given.paper:
        return small
    return replace(PAPER, block="dense", modules=6) if given.block == "dense" else PAPER


def add_options(parser: argparse.ArgumentParser, config: Config, out: str) -> None:
    """The options that every script has; `config` holds their defaults."""
    parser.formatter_class = argparse.ArgumentDefaultsHelpFormatter
    run = parser.add_argument_group("comparison")
    run.add_argument("--arms", nargs="+", choices=ARMS, default=["random", "asr+aho"], help="differences are to the first")
    run.add_argument("--seeds", nargs="+", type=int, default=[config.seed], help="tables show the means over them")
    run.add_argument("--out", type=Path, default=Path(out), help="folder of checkpoints, curves, figures and results.json")
    run.add_argument(
        "--resume", action=argparse.BooleanOptionalAction, default=True, help="go on from the folder's checkpoints"
    )
    run.add_argument("--paper", action="store_true", help="start from the paper's settings; the other options change them")
    training = parser.add_argument_group("training")
    training.add_argument("--size", type=int, default=config.size, help="side of a crop in pixels")
    training.add_argument(
        "--epochs", nargs=3, type=int, default=list(config.epochs), metavar=("1", "2", "3"), help="of each stage"
    )
    training.add_argument("--batch-size", type=int, default=config.batch_size, help="people per optimizer step, over all ranks")
    training.add_argument("--accumulate", type=int, default=config.accumulate, help="parts of a batch, one after the other")
    training.add_argument("--optimizer", choices=("adam", "rmsprop"), default=config.optimizer)
    training.add_argument("--lr", type=float, default=config.lr, help="of the hourglass")
    training.add_argument("--generator-lr", type=float, default=config.generator_lr)
    training.add_argument(
        "--patience", type=int, default=config.patience, help="evaluations without a gain before the rate falls"
    )
    training.add_argument("--loss", choices=("mse", "cross-entropy"), default=config.loss, help="of the heat maps")
    training.add_argument("--evaluate-every", type=int, default=config.evaluate_every, help="epochs")
    training.add_argument(
        "--bins-every", type=int, default=config.bins_every, help="epochs between looks at scales and rotations"
    )
    network = parser.add_argument_group("network")
    network.add_argument("--block", choices=("residual", "dense"), default=config.block)
    network.add_argument("--stacks", type=int, default=config.stacks)
    network.add_argument("--modules", type=int, default=config.modules, help="in a block")
    network.add_argument("--width", type=int, default=config.width, help="channels (None: the paper's)")
    network.add_argument("--depth", type=int, default=config.depth, help="how often an hourglass halves")
    network.add_argument("--stride", type=int, choices=(2, 4), default=config.stride, help="of the heat maps")
    views = parser.add_argument_group("views")
    views.add_argument("--scale", nargs=2, type=float, default=list(config.scale), metavar=("LOW", "HIGH"))
    views.add_argument("--rotation", type=float, default=config.rotation, help="± degrees")
    views.add_argument(
        "--reference", choices=("uniform", "normal"), default=config.reference, help="how random views are drawn"
    )
    views.add_argument("--rest", action="store_true", help="scale and turn the rows of ASR alone")
    views.add_argument("--rich", action="store_true", help="shift, shear and colour all random and adversarial views")
    views.add_argument("--share", type=float, default=config.share, help="of each branch")
    views.add_argument("--until", type=float, default=config.until, help="fraction of stage 3 after which the branches rest")
    views.add_argument("--measure", choices=tuple(MEASURES), default=config.measure, help='what "harder" compares')
    views.add_argument(
        "--teacher", type=float, default=config.teacher, help="decay of an averaged network that vetoes; 0 for none"
    )
    views.add_argument("--apart", action="store_true", help="judge scale and rotation each by itself")
    views.add_argument(
        "--reads", nargs="*", default=list(config.reads), help="layers that the generators read; none: the image"
    )
    views.add_argument(
        "--hides", nargs="*", default=list(config.hides), help="layers that the masks of AHO multiply; none: the image"
    )
    views.add_argument("--scoring", choices=("eval", "train"), default=config.scoring, help="behaviour in which views compare")
    views.add_argument("--update-every", type=int, default=config.update_every, help="steps between two comparisons")
    views.add_argument("--average", type=int, default=config.average, help="comparisons for each move of the generators")
    views.add_argument("--alpha", type=float, default=config.alpha, help="reward")
    views.add_argument("--beta", type=float, default=config.beta, help="penalty")
    views.add_argument("--cap", type=float, default=config.cap, help="no probability above cap / bins")
    machine = parser.add_argument_group("machine")
    machine.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    machine.add_argument("--precision", choices=("fp32", "bf16", "fp16"), default=config.precision)
    machine.add_argument("--compile", action="store_true", help="torch.compile the hourglass")
    machine.add_argument("--channels-last", action="store_true", help="memory format; faster on most machines")


def config_from(options: argparse.Namespace, config: Config) -> Config:
    """The config with what was given on the command line."""
    given: dict[str, Any] = {
        field.name: getattr(options, field.name) for field in dataclasses.fields(Config) if hasattr(options, field.name)
    }
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    return replace(config, **given)

"""The command line of the scripts: its options and their defaults."""

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

"""Compares random and adversarial augmentation on Leeds Sports Pose (LSP) and its extension, by PCK@0.2 of the torso.

    python examples/hourglass_lsp.py --data DIR
    python examples/hourglass_lsp.py --data DIR --paper --stacks 8 --modules 1 --device cuda --arms random asr aho asr+aho

DIR is the folder with lsp, or lsp itself, as the published archives unpack:

    DIR/lsp/joints.mat      DIR/lsp/images/im0001.jpg ...
    DIR/lspet/joints.mat    DIR/lspet/images/im00001.jpg ...

The script trains on LSP's first half and the extension. The last tenth of this half is held out: --patience watches it. LSP's
second half is scored once, at the end. `python -m examples.datasets.check --lsp DIR` says what is missing.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

if not __package__:  # started as a file, not as `-m examples.hourglass_lsp`: the repository's root is then not on the path
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import argparse

from examples.hourglass import augmentation
from examples.hourglass.augmentation import MakeAugmenter
from examples.hourglass.comparison import compare
from examples.hourglass.config import PHOTOGRAPHS, config_from, make_parser, run_script, starting_point
from examples.hourglass.data import Source, of_lsp


def main(
    arguments: Sequence[str] | None = None,
    *,
    variant: str = "",
    make_augmenter: MakeAugmenter = augmentation.make_augmenter,
) -> dict[str, Any]:
    """Runs the comparison and returns its results.

    Args:
        make_augmenter: A function that makes the augmenter of an arm, as for `train`.
        variant: A name for this function. Only runs of the same name can be resumed.
    """
    defaults = starting_point(PHOTOGRAPHS, arguments)
    parser = make_parser(defaults, "runs/lsp", __doc__ or "")
    people = parser.add_argument_group("people of LSP")
    people.add_argument("--data", type=Path, required=True, help="folder with lsp and lspet, or lsp itself")
    people.add_argument("--extension", action=argparse.BooleanOptionalAction, default=True, help="train on LSPET too")
    people.add_argument("--people", type=int, default=None, help="train on only so many, LSP's first")
    people.add_argument("--test-people", type=int, default=None, help="test on only so many")
    options = parser.parse_args(arguments)
    config = replace(config_from(options, defaults), variant=variant)
    data = of_lsp(
        options.data,
        Source(options.people),
        Source(options.test_people),
        size=config.size,
        extension=options.extension,
        skip_corrupt=options.skip_corrupt,
        cache_dir=options.cache,
    )
    return compare(data, config, options, make_augmenter)


if __name__ == "__main__":
    run_script(main)

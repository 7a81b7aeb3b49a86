"""Compares random and adversarial augmentation on Leeds Sports Pose (LSP) and its extension, by PCK@0.2 of the torso.

    python examples/hourglass_lsp.py --data data --size 64
    python examples/hourglass_lsp.py --data data --paper --stacks 8 --modules 1 --device cuda

The folder `data` holds the published archives, unpacked as `lsp` and `lspet`. The script trains on LSP's first half and the
extension, and tests on LSP's second half.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

if not __package__:  # started as a file, not as `-m examples.hourglass_lsp`: the repository's root is then not on the path
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from examples.hourglass import augmentation
from examples.hourglass.augmentation import MakeAugmenter
from examples.hourglass.comparison import compare
from examples.hourglass.config import Config, add_options, config_from, starting_point
from examples.hourglass.data import Source, of_lsp

SMALL = Config(width=64, epochs=(6, 1, 18), batch_size=48, pretrain_people=480)


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
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    defaults = starting_point(SMALL, arguments)
    add_options(parser, defaults, "runs/lsp")
    people = parser.add_argument_group("people")
    people.add_argument("--data", type=Path, required=True, help="folder with lsp and lspet")
    people.add_argument("--extension", action=argparse.BooleanOptionalAction, default=True, help="train on LSPET too")
    people.add_argument("--people", type=int, default=None, help="train on only so many, LSP's first")
    people.add_argument("--test-people", type=int, default=None)
    people.add_argument("--skip-corrupt", action="store_true", help="leave out images that cannot be read")
    people.add_argument("--cache", type=Path, default=None, help="folder for the crops (None: in ~/.cache)")
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
    main()

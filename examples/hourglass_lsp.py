"""Random against adversarial augmentation on Leeds Sports Pose and its extension: PCK@0.2 of the torso.

    python examples/hourglass_lsp.py --data data --size 64

The folder holds the published archives unpacked as `lsp` and `lspet`. Trains on LSP's first half and the extension,
tests on LSP's second half.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if not __package__:  # started as a file, not as `-m examples.hourglass_lsp`: the repository's root is then not on the path
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from examples.hourglass.experiment import PCK_TORSO, add_options, compare, config_from
from examples.hourglass.lsp import load_lsp, load_lspet
from examples.hourglass.people import join
from examples.hourglass.training import Config

SMALL = Config(width=64, epochs=(6, 1, 18), batch_size=48, pretrain_people=480)


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Runs the comparison and returns its results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    add_options(parser, SMALL, "runs/lsp")
    data = parser.add_argument_group("people")
    data.add_argument("--data", type=Path, required=True, help="folder with lsp and lspet")
    data.add_argument("--extension", action=argparse.BooleanOptionalAction, default=True, help="train on LSPET too")
    data.add_argument("--people", type=int, default=None, help="train on this many only, LSP's first")
    data.add_argument("--test-people", type=int, default=None)
    data.add_argument("--skip-corrupt", action="store_true", help="leave out images that cannot be read")
    options = parser.parse_args(arguments)
    config = config_from(options, SMALL)
    sizes = {"size": config.size, "canvas": config.size * 3 // 2, "skip_corrupt": options.skip_corrupt}
    people = load_lsp(options.data, "train", **sizes)
    if options.extension and (options.people is None or options.people > len(people)):
        people = join([people, load_lspet(options.data, **sizes)])
    test = load_lsp(options.data, "test", **sizes)
    people = people if options.people is None else people.subset(range(min(options.people, len(people))))
    test = test if options.test_people is None else test.subset(range(min(options.test_people, len(test))))
    return compare(people, test, config, PCK_TORSO, options)


if __name__ == "__main__":
    main()

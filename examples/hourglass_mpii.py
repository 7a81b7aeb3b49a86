"""Random against adversarial augmentation with MPII's joints, on synthetic people: a few minutes on two CPU cores.

    python examples/hourglass_mpii.py
    python examples/hourglass_mpii.py --arms random uniform asr aho asr+aho --seeds 0 1 2 --out runs/arms

The people to train on stand and walk; those to test on also bend and lie. All arms take the same steps on the same images.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if not __package__:  # started as a file, not as `-m examples.hourglass_mpii`: the repository's root is then not on the path
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from examples.hourglass.experiment import PCKH, add_options, compare, config_from
from examples.hourglass.synthetic import draw_people
from examples.hourglass.training import Config

DEMO = Config(rotation=60, scale=(0.7, 1.4))


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Runs the comparison and returns its results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    add_options(parser, DEMO, "runs/demo")
    data = parser.add_argument_group("people")
    data.add_argument("--people", type=int, default=720, help="to train on")
    data.add_argument("--test-people", type=int, default=300)
    data.add_argument("--poses", choices=("narrow", "wide"), default="narrow", help="to train on")
    data.add_argument("--test-poses", choices=("narrow", "wide"), default="wide")
    data.add_argument("--data-seed", type=int, default=0)
    options = parser.parse_args(arguments)
    config = config_from(options, DEMO)
    canvas = config.size * 3 // 2
    people = draw_people(options.people, size=config.size, canvas=canvas, poses=options.poses, seed=options.data_seed)
    test = draw_people(
        options.test_people, size=config.size, canvas=canvas, poses=options.test_poses, seed=options.data_seed + 1
    )
    return compare(people, test, config, PCKH, options)


if __name__ == "__main__":
    main()

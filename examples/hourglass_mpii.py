"""Random against adversarial augmentation with MPII's joints: on drawn people, in minutes, or on MPII itself.

    python examples/hourglass_mpii.py
    python examples/hourglass_mpii.py --arms random uniform asr aho asr+aho --epochs 5 1 13 --seeds 0 1 2 --out runs/arms
    python examples/hourglass_mpii.py --mpii data/mpii --paper --device cuda --arms random asr aho asr+aho
    python examples/hourglass_mpii.py --mpii data/mpii --lsp data --lspet --paper --stacks 8 --modules 1 --device cuda

The drawn people to train on stand and walk; those to test on also bend and lie. MPII is tested on its validation people
(Table 1); with --lsp it trains together with LSP on their common joints, and LSP's test people decide (Table 3).
All arms take the same steps on the same images. MPII is laid out like this, and LSP like what hourglass_lsp.py --help shows:

    DIR/images/*.jpg    DIR/annot/mpii_annotations.json (or other forms; `python -m examples.datasets.check --mpii DIR`)
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if not __package__:  # started as a file, not as `-m examples.hourglass_mpii`: the repository's root is then not on the path
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from examples.hourglass.comparison import compare
from examples.hourglass.config import DEMO, PHOTOGRAPHS, Config, config_from, make_parser, run_script, starting_point
from examples.hourglass.data import Data, Source, drawn, of_lsp, of_mpii


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Runs the comparison and returns its results."""
    real = any(text.split("=")[0] == "--mpii" for text in (sys.argv[1:] if arguments is None else arguments))
    defaults = starting_point(PHOTOGRAPHS if real else DEMO, arguments)
    parser = make_parser(defaults, "runs/mpii" if real else "runs/demo", __doc__ or "")
    parser.set_defaults(channels_last=not real)  # on a CPU a third faster
    people = parser.add_argument_group("people of MPII, or drawn ones")
    people.add_argument("--mpii", type=Path, metavar="DIR", help="MPII: folder with images/ and annotations; none: draw people")
    people.add_argument("--lsp", type=Path, metavar="DIR", help="folder with lsp: train on it too, and test on it")
    people.add_argument("--lspet", action="store_true", help="train on DIR/lspet too, DIR being that of --lsp")
    people.add_argument("--people", type=int, default=None if real else 720, help="to train on (None: everybody)")
    people.add_argument("--test-people", type=int, default=None if real else 300, help="to test on")
    people.add_argument("--poses", choices=("narrow", "wide"), default="narrow", help="of drawn people to train on")
    people.add_argument("--test-poses", choices=("narrow", "wide"), default="wide", help="of drawn people to test on")
    people.add_argument("--data-seed", type=int, default=0, help="of drawn people")
    options = parser.parse_args(arguments)
    if options.lspet and options.lsp is None:
        parser.error("--lspet needs --lsp DIR. Found none.")
    if options.lsp is not None and options.mpii is None:
        parser.error("--lsp needs --mpii DIR. Found none; examples/hourglass_lsp.py trains on LSP alone.")
    config = config_from(options, defaults)
    return compare(_data(options, config), config, options)


def _data(options: argparse.Namespace, config: Config) -> Data:
    if options.mpii is None:
        train = Source(options.people, options.poses, options.data_seed)
        return drawn(train, Source(options.test_people, options.test_poses, options.data_seed + 1), size=config.size)
    train, test = Source(options.people), Source(options.test_people)
    cache: dict[str, Any] = {"size": config.size, "skip_corrupt": options.skip_corrupt, "cache_dir": options.cache}
    if options.lsp is None:
        return of_mpii(options.mpii, train, test, **cache)
    return of_lsp(options.lsp, train, test, extension=options.lspet, mpii_root=options.mpii, **cache)


if __name__ == "__main__":
    run_script(main)

"""Random against adversarial augmentation with MPII's joints: on drawn people, in minutes, or on MPII itself.

    python examples/hourglass_mpii.py
    python examples/hourglass_mpii.py --arms random uniform asr aho asr+aho --epochs 5 1 13 --seeds 0 1 2 --out runs/arms
    python examples/hourglass_mpii.py --mpii data/mpii --paper --device cuda --arms random asr aho asr+aho
    python examples/hourglass_mpii.py --mpii data/mpii --lsp data --lspet --paper --stacks 8 --modules 1 --device cuda

The drawn people to train on stand and walk; those to test on also bend and lie. MPII is tested on its validation people
(Table 1); with --lsp it trains together with LSP on their common joints, and LSP's test people decide (Table 3).
All arms take the same steps on the same images.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

if not __package__:  # started as a file, not as `-m examples.hourglass_mpii`: the repository's root is then not on the path
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import adaug
from adaug.operations import ClippedNormal
from examples.datasets.people import Joints
from examples.hourglass.augmentation import make_augmenter, policy_of
from examples.hourglass.comparison import compare
from examples.hourglass.config import Config, add_options, config_from, starting_point
from examples.hourglass.data import Data, Source, drawn, of_lsp, of_mpii

# Two minutes on two cores. The first two stages are for generators.
DEMO = Config(epochs=(0, 0, 12), batch_size=16, lr=5e-3, rotation=60, scale=(0.7, 1.4), evaluate_every=12, bins_every=12)
ABOUT_UPRIGHT = "random views mostly small"  # as in `policies.wide`; what --random normal is called
PHOTOGRAPHS = Config(width=64, epochs=(6, 1, 18), batch_size=48, pretrain_people=480)


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Runs the comparison and returns its results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    real = any(text.split("=")[0] == "--mpii" for text in (sys.argv[1:] if arguments is None else arguments))
    defaults = starting_point(PHOTOGRAPHS if real else DEMO, arguments)
    add_options(parser, defaults, "runs/mpii" if real else "runs/demo")
    parser.set_defaults(channels_last=not real)  # on a CPU a third faster
    parser.add_argument(
        "--random",
        choices=("uniform", "normal"),
        default="normal" if defaults is DEMO else "uniform",
        help="how random views are drawn from the ranges: normal about the image as it is, 60 %% not turned",
    )
    people = parser.add_argument_group("people")
    people.add_argument("--mpii", type=Path, metavar="DIR", help="MPII: folder with images/ and annotations; none: draw people")
    people.add_argument("--lsp", type=Path, metavar="DIR", help="folder with lsp: train on it too, and test on it")
    people.add_argument("--lspet", action="store_true", help="train on DIR/lspet too, DIR being that of --lsp")
    people.add_argument("--people", type=int, default=None if real else 720, help="to train on (None: everybody)")
    people.add_argument("--test-people", type=int, default=None if real else 300, help="to test on")
    people.add_argument("--skip-corrupt", action="store_true", help="leave out images that cannot be read")
    people.add_argument("--cache", type=Path, default=None, help="folder of the crops (None: in ~/.cache)")
    people.add_argument("--poses", choices=("narrow", "wide"), default="narrow", help="of drawn people to train on")
    people.add_argument("--test-poses", choices=("narrow", "wide"), default="wide", help="of drawn people to test on")
    people.add_argument("--data-seed", type=int, default=0, help="of drawn people")
    options = parser.parse_args(arguments)
    if options.lspet and options.lsp is None:
        parser.error("--lspet needs --lsp DIR. Found none.")
    if options.lsp is not None and options.mpii is None:
        parser.error("--lsp needs --mpii DIR. Found none; examples/hourglass_lsp.py trains on LSP alone.")
    config = config_from(options, defaults)
    if options.random == "uniform":
        return compare(_data(options, config), config, options)
    config = replace(config, variant=ABOUT_UPRIGHT)
    return compare(_data(options, config), config, options, _about_upright)


def _about_upright(config: Config, joints: Joints, steps: int) -> adaug.AdversarialAugmenter:
    """The augmenter of an arm with the random views of `policies.wide` and `policies.robust`."""
    (low, high), angle = config.scale, config.rotation

    def about(operation: Any) -> Any:
        if isinstance(operation, adaug.Scale):
            return replace(operation, random=ClippedNormal(1.0, (high - low) / 4, low, high))
        if isinstance(operation, adaug.Rotate):
            return replace(operation, random=ClippedNormal(0.0, angle / 2, -angle, angle, still=0.6))
        return operation

    policy = policy_of(config, joints)
    if config.arm != "trivial":
        branches = [replace(branch, operations=tuple(map(about, branch.operations))) for branch in policy.branches]
        policy = replace(policy, branches=branches, common=tuple(map(about, policy.common)))
    return make_augmenter(config, joints, steps, policy=policy)


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
    main()

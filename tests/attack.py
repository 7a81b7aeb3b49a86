"""Attacks adaug for some minutes and says what held: `make attack`, or `python tests/attack.py --minutes 3 --seed 1`.

Each family (a file of `attacks`) tries what a user, a disk or a machine may do. An attempt is

    held        the result is right, or a TypeError, ValueError or RuntimeError says what should have been and what was found
    unhelpful   something else was raised
    silent      a wrong result without a word
    lost        something was computed, and is gone
    half-done   an error, and something had changed all the same
    crash       the process died, or hung

The last four end the campaign with exit code 1, and so do more than 5 in 1,000 that are unhelpful.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]

from attacks.audits import audits  # noqa: E402
from attacks.files import files  # noqa: E402
from attacks.inputs import inputs  # noqa: E402
from attacks.kills import kills  # noqa: E402
from attacks.labels import labels  # noqa: E402
from attacks.outliers import outliers  # noqa: E402
from attacks.ranks import ranks  # noqa: E402
from attacks.states import states  # noqa: E402
from attacks.tally import Process, Tally  # noqa: E402

BAD = ("silent", "lost", "half-done", "crash")
OUTCOMES = ("held", "unhelpful", *BAD)
UNHELPFUL = 5 / 1000  # of all attempts, at most
SHOWN = 12  # of what did not hold, a family
FAMILIES = {
    "inputs": inputs,
    "labels": labels,
    "states": states,
    "files": files,
    "audits": audits,
    "outliers": outliers,
    "kills": kills,
    "ranks": ranks,
}


def attack(families: list[str], seconds: float, seed: int, most: int = 10**9) -> dict[str, dict[str, Any]]:
    """Runs families one after the other, each in a process of its own, for so many seconds or attempts each."""
    results = {}
    for family in families:
        with tempfile.TemporaryDirectory() as name:
            file, tally = Path(name) / "tally.pt", Tally(seconds, seed, most)

            def act(family: str = family, file: Path = file, tally: Tally = tally) -> None:
                with np.errstate(all="ignore"):
                    FAMILIES[family](tally)
                torch.save(
                    {"counts": dict(tally.counts), "found": list(tally.found.values()), "notes": dict(tally.notes)}, file
                )

            code = Process(act).wait(time.monotonic() + 2 * seconds + 400)
            lost = {"counts": {"crash": 1}, "found": [f"crash: the family's process ended with {code}"]}
            results[family] = torch.load(file) if code == 0 and file.exists() else lost
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=list(FAMILIES))
    args = parser.parse_args()
    torch.set_num_threads(1)
    results = attack(args.families, 60 * args.minutes / len(args.families), args.seed)
    together = sum((Counter(result["counts"]) for result in results.values()), Counter())
    print(f"seed {args.seed}\n\n| family | tried | {' | '.join(OUTCOMES)} |\n|---" + "|--:" * (1 + len(OUTCOMES)) + "|")
    for family, counts in [*((family, result["counts"]) for family, result in results.items()), ("together", together)]:
        print(
            f"| {family} | " + " | ".join(str(n) for n in (sum(counts.values()), *(counts.get(o, 0) for o in OUTCOMES))) + " |"
        )
    for family, result in results.items():
        if result.get("notes"):
            print(f"\n{family}: {', '.join(f'{count} {what}' for what, count in result['notes'].items())}")
        for line in result["found"][:SHOWN]:
            print(f"  {family}: {line}")
    sys.exit(any(together[bad] for bad in BAD) or together["unhelpful"] > UNHELPFUL * together.total())


if __name__ == "__main__":
    main()

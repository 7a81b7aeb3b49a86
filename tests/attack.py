"""Attacks adaug for some minutes and says what held: `make attack`, or `python tests/attack.py --minutes 3 --seed 1`.

Each family tries what a user, a disk or a machine may do. An attempt is

    held        the result is right, or a TypeError, ValueError or RuntimeError says what should have been and what was found
    unhelpful   something else was raised
    silent      a wrong result without a word
    half-done   an error, and something had changed all the same
    crash       the process died, or hung

The last three end the campaign with exit code 1.
"""

from __future__ import annotations

import argparse
import io
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch.distributed.algorithms.join import Join

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]

import networks as nets  # noqa: E402
from attack_tally import Process, Tally  # noqa: E402
from attacks_in_process import AnyChannels, inputs, square, states  # noqa: E402

import adaug  # noqa: E402
from examples.hourglass.checkpoints import NAME, load_checkpoint, save_checkpoint  # noqa: E402

BAD = ("silent", "half-done", "crash")
OUTCOMES = ("held", "unhelpful", *BAD)
SHOWN = 12  # of what did not hold, a family


# ---- files


def files(tally: Tally) -> None:
    """Checkpoints, crops and audits with damaged bytes: each is refused, and none is read as it is not."""
    from tests.examples.test_crop_cache import draw as draw_photographs
    from tests.examples.test_crop_cache import load as load_crops

    with tempfile.TemporaryDirectory() as name:
        folder, number = Path(name), tally.random
        identity = {"config": {"a": 1}, "people": "x"}
        save_checkpoint(folder, {**identity, "weights": torch.arange(500.0)})
        audit = adaug.audit(AnyChannels(), [nets.make_batch(4)], lambda out, _: out.mean((1, 2, 3)), [adaug.Rotate(-30, 30, 3)])
        audit.save(folder / "audit.npz")
        people = draw_photographs(folder / "images", 3)
        crops = load_crops(people, folder)[0].fingerprint()
        for photograph in people.files:  # or they would be cut again
            photograph.unlink()
        table = audit.scores.copy()
        readers: dict[Path, tuple[Callable[[], Any], Callable[[Any], bool]]] = {
            folder / NAME: (
                lambda: load_checkpoint(folder, identity),
                lambda s: torch.equal(s["weights"], torch.arange(500.0)),
            ),
            folder / "audit.npz": (lambda: adaug.Audit.load(folder / "audit.npz"), lambda a: np.array_equal(a.scores, table)),
        }
        for path in (folder / "cache").glob("*/*.np?"):
            readers[path] = (lambda: load_crops(people, folder)[0], lambda c: c.fingerprint() == crops)
        tally.start()
        while not tally.over:
            path = number.choice(list(readers))
            content, (read, same) = path.read_bytes(), readers[path]
            damaged, way = _damaged(content, number)
            path.write_bytes(damaged)
            tally.judge(f"{path.name} {way}", read, lambda found, same=same: "" if same(found) else "read as something else")
            path.write_bytes(content)


def _damaged(content: bytes, number: random.Random) -> tuple[bytes, str]:
    at, way = number.randrange(len(content)), number.choice(["a bit", "a bit", "cut", "longer", "zeros", "empty", "foreign"])
    end = min(len(content), at + number.randrange(1, 64))
    changed = bytearray(content)
    changed[at] ^= 1 << number.randrange(8)
    foreign = io.BytesIO()
    torch.save({"a": 1}, foreign)
    return {
        "a bit": bytes(changed), "cut": content[:at], "longer": content + b"x", "empty": b"", "foreign": foreign.getvalue(),
        "zeros": content[:at] + bytes(end - at) + content[end:],
    }[way], f"{way} at {at}"  # fmt: skip


# ---- kills


def kills(tally: Tally) -> None:
    """An example run that is killed again and again, until it is through: the same bits as one that was not."""
    from tests.examples.test_training import draw_people, run

    people, number = draw_people(12, size=32, canvas=48), tally.random
    with tempfile.TemporaryDirectory() as name:
        started = time.monotonic()
        if Process(lambda: run(people, Path(name) / "whole")).wait(started + 300) != 0:
            tally.add("crash", "an example run that nobody disturbs")
            return
        seconds, whole = time.monotonic() - started, _session(Path(name) / "whole")
        tally.start()
        for i in range(1000):
            folder, code = Path(name) / str(i), -1
            while code != 0:
                if tally.over:
                    return
                child = Process(lambda folder=folder: run(people, folder))
                code = child.wait(time.monotonic() + number.uniform(0.02, 0.6 * seconds))
                if code not in (0, -signal.SIGKILL):
                    tally.add("crash", f"a run that was killed does not go on: exit code {code}")
                    break
                if code:
                    tally.add("held", "a kill")
            else:
                same = nets.same(_session(folder), whole) and not list(folder.glob("*.tmp"))
                tally.add("held" if same else "silent", "a run that was killed ends with other bits")


def _session(folder: Path) -> Any:
    return torch.load(folder / NAME, weights_only=True)["session"]


# ---- two ranks


def ranks(tally: Tally) -> None:
    """Two ranks with batches of random sizes and numbers, with and without Join, one of which may be killed."""
    number = tally.random
    while not tally.over:
        learned = number.choice([True, "running"])
        way = number.choice(["even", "even", "joined", "uneven", "killed"])
        sizes = [[number.randint(1, 6) for _ in range(number.randint(2, 5))] for _ in range(2)]
        if way == "even":
            sizes[1] = [number.randint(1, 6) for _ in sizes[0]]
        elif way != "joined":
            sizes[1] = sizes[0][: len(sizes[0]) - 1]
        what = f"{way} ranks with batches of {sizes}, learned={learned}"
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            both = [Process(partial(_rank, rank, folder, sizes[rank], learned, way)) for rank in range(2)]
            codes = [process.wait(time.monotonic() + 90) for process in both]
            if codes != [0, -signal.SIGKILL if way == "killed" else 0]:
                tally.add("crash", f"{what}: exit codes {codes}")
                continue
            found = [torch.load(path, weights_only=False) for path in sorted(folder.glob("rank*.pt"))]
        if way in ("uneven", "killed"):
            said = found[0]["error"]
            good = "should" in said and "Found rank 0" in said and "without rank 1" in said
            tally.add("held" if good else "unhelpful" if said else "silent", f"{what}: {said:.200}")
        else:
            errors = [rank["error"] for rank in found]
            alike = not any(errors) and nets.same(found[0]["state"], found[1]["state"])
            tally.add("held" if alike else "unhelpful" if any(errors) else "silent", f"{what}: {errors}")


def _rank(rank: int, folder: Path, sizes: list[int], learned: Any, way: str) -> None:
    time_given = timedelta(seconds=4 if way in ("uneven", "killed") else 60)
    dist.init_process_group("gloo", rank=rank, world_size=2, init_method=f"file://{folder}/group", timeout=time_given)
    policy = adaug.Policy([adaug.Branch("r", [adaug.Rotate(-30, 30, 9)], 0.5, learned)])
    more: Any = {"features": (), "generator": nets.small_generator} if learned is True else {}
    augmenter, model, error = adaug.AdversarialAugmenter(policy, **more), AnyChannels(), ""
    augmenter.bind(model, nets.make_batch(2))
    try:
        with Join([augmenter], enable=way == "joined"):
            for i, n in enumerate(sizes):
                augmenter.step(model, nets.make_batch(n, seed=10 * rank + i), square)
    except Exception as raised:
        error = f"{type(raised).__name__}: {raised}"
    if rank == 1 and way == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    torch.save({"error": error, "state": augmenter.state_dict()}, folder / f"rank{rank}.pt")
    while rank == 1 and way == "uneven" and not (folder / "rank0.pt").exists():
        time.sleep(0.05)  # it is still there, but does something else


# ---- the campaign

FAMILIES = {"inputs": inputs, "states": states, "files": files, "kills": kills, "ranks": ranks}


def attack(families: list[str], seconds: float, seed: int, most: int = 10**9) -> dict[str, dict[str, Any]]:
    """Runs families one after the other, each in a process of its own, for so many seconds or attempts each."""
    results = {}
    for family in families:
        with tempfile.TemporaryDirectory() as name:
            file, tally = Path(name) / "tally.pt", Tally(seconds, seed, most)

            def act(family: str = family, file: Path = file, tally: Tally = tally) -> None:
                with np.errstate(all="ignore"):
                    FAMILIES[family](tally)
                torch.save({"counts": dict(tally.counts), "found": list(tally.found.values())}, file)

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
    print(f"seed {args.seed}\n{'family':10s}{'tried':>8s}" + "".join(f"{outcome:>11s}" for outcome in OUTCOMES))
    for family, result in results.items():
        counts = result["counts"]
        print(f"{family:10s}{sum(counts.values()):8d}" + "".join(f"{counts.get(outcome, 0):11d}" for outcome in OUTCOMES))
    for family, result in results.items():
        for line in result["found"][:SHOWN]:
            print(f"  {family}: {line}")
    sys.exit(any(result["counts"].get(bad) for result in results.values() for bad in BAD))


if __name__ == "__main__":
    main()

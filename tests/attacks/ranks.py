"""Two ranks that do not do the same."""

from __future__ import annotations

import os
import signal
import tempfile
import time
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import networks as nets
import torch
import torch.distributed as dist

import adaug
from attacks.inputs import AnyChannels, square
from attacks.tally import Process, Tally


def ranks(tally: Tally) -> None:
    """Two ranks with batches of random sizes and numbers. One may skip a batch that fails, have fewer, or be killed."""
    number = tally.random
    while not tally.over:
        learned = number.choice([True, "running"])
        way = number.choice(["even", "even", "skips", "skips", "uneven", "killed"])
        sizes = [[number.randint(1, 6) for _ in range(number.randint(2, 10))] for _ in range(2)]
        if way == "even":
            sizes[1] = [number.randint(1, 6) for _ in sizes[0]]
        elif way == "skips":
            sizes[1] = [*sizes[0], 3]
        else:
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
            caught = way == "skips" and all("Found rank" in error or not error for error in errors)
            alike = (caught or not any(errors)) and nets.same(found[0]["state"], found[1]["state"])
            tally.add("held" if alike else "unhelpful" if any(errors) else "silent", f"{what}: {errors}")


def _loss(output: Any, batch: Any, broken: bool) -> Any:
    if broken and torch.is_grad_enabled():
        raise ValueError("This batch is broken.")
    return square(output, batch)


def _rank(rank: int, folder: Path, sizes: list[int], learned: Any, way: str) -> None:
    time_given = timedelta(seconds=4 if way in ("uneven", "killed") else 60)
    dist.init_process_group("gloo", rank=rank, world_size=2, init_method=f"file://{folder}/group", timeout=time_given)
    policy = adaug.Policy([adaug.Branch("r", [adaug.Rotate(-30, 30, 9)], 0.5, learned)])
    policy = nets.by_paper(policy, features=(), generator=nets.library_generator)
    augmenter, model, error = adaug.AdversarialAugmenter(policy), AnyChannels(), ""
    augmenter.bind(model, nets.make_batch(2))
    broken = sizes[0] % (len(sizes) - 1) if rank == 1 and way == "skips" else -1  # the number of a batch
    for i, n in enumerate(sizes):
        try:
            augmenter.step(model, nets.make_batch(n, seed=10 * rank + i), partial(_loss, broken=i == broken))
        except ValueError:
            continue
        except Exception as raised:
            error = f"{type(raised).__name__}: {raised}"
            if way != "skips":
                break
    if rank == 1 and way == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    torch.save({"error": error, "state": augmenter.state_dict()}, folder / f"rank{rank}.pt")
    while rank == 1 and way == "uneven" and not (folder / "rank0.pt").exists():
        time.sleep(0.05)  # it is still there, but does something else

"""One of two ranks that do not do the same: `ranks_worker.py RANK FOLDER`. Writes what each scene gave to uneven{RANK}.pt."""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import networks as nets
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

import adaug
from adaug.learners import Running

SECONDS = 4
PATIENT = 60


def policy(learned: Any) -> adaug.Policy:
    return adaug.Policy([
        adaug.Branch("asr", [adaug.Scale(0.75, 1.25, 7), adaug.Rotate(-30, 30, 9)], 0.4, learned=learned),
        adaug.Branch("aho", [adaug.OccludeFeatures()], 0.3, learned="running"),
    ])  # fmt: skip


@dataclass(frozen=True)
class Watched(Running):
    """Running difficulty that keeps what it was shown."""

    shown: list[Any] = field(default_factory=list, compare=False)

    def observe(self, state: Any, seen: Any) -> Any:
        self.shown.append((seen.view, seen.branch.clone(), seen.difficulty.detach().clone()))
        return super().observe(state, seen)


def train(augmenter: Any, model: torch.nn.Module, sizes: list[int]) -> None:
    """A rank's batches, of these sizes."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for i, n in enumerate(sizes):
        batch = nets.make_batch(n, seed=100 * dist.get_rank() + i)
        result = augmenter.step(model, batch, nets.loss_fn)
        optimizer.zero_grad()
        result.loss.backward()
        optimizer.step()


def made(learned: Any = True, **kwargs: Any) -> tuple[Any, Any]:
    return nets.make_augmenter(policy(learned), seed=None, **kwargs), DistributedDataParallel(nets.make_network())


def error_of(function: Any) -> tuple[str, float]:
    """What a function raises, and after how long."""
    started = time.monotonic()
    try:
        function()
    except RuntimeError as error:
        return str(error), time.monotonic() - started
    return "nothing", time.monotonic() - started


def fewer_batches(rank: int) -> Any:
    """Rank 1 has done its batches and waits for rank 0 somewhere else."""
    augmenter, model = made()
    train(augmenter, model, [4, 4])
    before = nets.cloned(augmenter.state_dict())
    if rank == 1:
        return {"error": error_of(dist.barrier)}
    found = error_of(lambda: augmenter.step(model, nets.make_batch(4), nets.loss_fn))
    return {"error": found, "unchanged": nets.same(before, augmenter.state_dict())}


def one_left(rank: int) -> Any:
    """The last scene: rank 1 ends."""
    augmenter, model = made("running")
    train(augmenter, model, [4])
    if rank == 1:
        return {}
    return {"error": error_of(lambda: augmenter.step(model, nets.make_batch(4), nets.loss_fn))}


def bound_alone(rank: int) -> Any:
    """Rank 1 never comes to bind."""
    augmenter, model = made()
    if rank == 1:
        time.sleep(SECONDS + 2)
        return {}
    found = error_of(lambda: augmenter.bind(model, nets.make_batch(4)))
    return {"error": found, "hooks": nets.count_hooks(model)}


def other_steps(rank: int) -> Any:
    """The ranks have loaded different states."""
    augmenter, model = made()
    augmenter.bind(model, nets.make_batch(4))
    if rank == 1:
        augmenter.load_state_dict({**augmenter.state_dict(), "steps": 7})
    return {"error": error_of(lambda: augmenter.step(model, nets.make_batch(4), nets.loss_fn))}


def running(rank: int) -> Any:
    """Batches of different sizes, and the answers that both ranks give to the sum."""
    watched = Watched()
    branches = [replace(branch, learned=watched) for branch in policy("running").branches]
    augmenter, model = nets.make_augmenter(adaug.Policy(branches), seed=None), DistributedDataParallel(nets.make_network())
    train(augmenter, model, [9, 5, 6, 9, 4, 8, 7, 9] if rank == 0 else [3, 8, 1, 2, 9, 1, 5, 3])
    return {
        "state": augmenter.state_dict()["learners"]["asr+aho"],
        "seen": watched.shown,
        "table": augmenter.difficulty_table().columns,
    }


def skipped(rank: int) -> Any:
    """Rank 1 cannot take its third batch, in a score or in the training pass. Both skip what fails and go on."""
    found = {}
    for learned, fails_at in product([True, "running"], ["a score", "the training pass"]):
        augmenter, model = made(learned)
        optimizer, errors = torch.optim.SGD(model.parameters(), lr=0.05), []
        augmenter.bind(model, nets.make_batch(4))

        def loss_fn(output: Any, batch: Any, i: int, fails_at: str = fails_at) -> Any:
            if rank == 1 and i == 2 and (fails_at == "a score" or torch.is_grad_enabled()):
                raise ValueError("This batch is broken.")
            return nets.loss_fn(output, batch)

        for i in range(6 + rank):  # rank 1 loses its own bad batch, and one more to meet rank 0 again
            try:
                result = augmenter.step(model, nets.make_batch(4, seed=100 * rank + i), partial(loss_fn, i=i))
            except (RuntimeError, ValueError) as error:
                errors.append((i, str(error)))
                continue
            optimizer.zero_grad()
            result.loss.backward()
            optimizer.step()
        found[learned, fails_at] = {"errors": errors, "state": augmenter.state_dict(), "model": model.module.state_dict()}
    return found


def late(rank: int) -> Any:
    """Rank 1 comes when rank 0 has given up; then both go on."""
    augmenter, model = made("running")
    train(augmenter, model, [4])
    if rank == 1:
        time.sleep(SECONDS + 2)
    errors = []
    for _ in range(3):
        try:
            train(augmenter, model, [4])
        except RuntimeError as error:
            errors.append(str(error))
    return {"errors": errors, "steps": augmenter.steps}


SCENES = {
    running: PATIENT, skipped: PATIENT, other_steps: PATIENT, late: SECONDS,
    fewer_batches: SECONDS, bound_alone: SECONDS, one_left: PATIENT,
}  # fmt: skip


def main(rank: int, folder: Path) -> None:
    found = {}
    for scene, seconds in SCENES.items():
        file = folder / f"{scene.__name__}.pg"
        dist.init_process_group(
            "gloo", rank=rank, world_size=2, init_method=f"file://{file}", timeout=timedelta(seconds=seconds)
        )
        torch.manual_seed(rank)
        found[scene.__name__] = scene(rank)
        if scene is one_left:
            break
        with suppress(RuntimeError):
            dist.destroy_process_group()
        (folder / f"{scene.__name__}.{rank}").touch()
        while not (folder / f"{scene.__name__}.{1 - rank}").exists():  # it may still wait for this one
            time.sleep(0.05)
    torch.save(found, folder / f"uneven{rank}.pt")


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))

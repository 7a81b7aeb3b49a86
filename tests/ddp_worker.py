"""One rank of the distributed tests, started by torchrun: `ddp_worker.py FOLDER`. Writes what it saw to rankN.pt."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import networks as nets
import torch
import torch.distributed as dist
from own_learners import Means, Softmax, WorstOf, turned_and_hidden
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

import adaug
from adaug.learners.running import EVERY


def train(augmenter: Any, model: torch.nn.Module, steps: range, n: int) -> list[Any]:
    """Plain DDP training; what each step drew and gave."""
    rank, seen = dist.get_rank(), []
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for i in steps:
        result = augmenter.step(model, nets.make_batch(n, seed=100 * rank + i), nets.loss_fn)
        optimizer.zero_grad()
        result.loss.backward()
        optimizer.step()
        mask = next((mask for _, mask in result.view.feature_masks), None)
        seen.append(nets.cloned([result.losses, result.branch, result.view.matrix, mask]))
    return seen


def twenty_steps(folder: Path) -> Any:
    """No seed given, and another global one on each rank: the generators are alike all the same."""
    model = DistributedDataParallel(nets.make_network())
    augmenter = nets.make_augmenter(seed=None)
    seen = train(augmenter, model, range(20), 9)
    return {"generators": nets.generators(augmenter), "model": model.module.state_dict(), "seen": seen, "seed": augmenter.seed}


def rows_missing(folder: Path) -> Any:
    """One rank has a single row a step, so that most steps leave its branches empty, or the random share."""
    model = DistributedDataParallel(nets.make_network())
    augmenter = nets.make_augmenter()
    seen = train(augmenter, model, range(8), 6 if dist.get_rank() == 0 else 1)
    return {"generators": nets.generators(augmenter), "branches": [step[1] for step in seen]}


def scored_in_training(folder: Path) -> Any:
    """scoring='train' with rows on trial on one rank only: its sum over the ranks must not cross DDP's own."""
    model = DistributedDataParallel(nets.make_network())
    augmenter = nets.make_augmenter(scoring="train")
    train(augmenter, model, range(8), 6 if dist.get_rank() == 0 else 1)
    return {"generators": nets.generators(augmenter)}


class Watched(adaug.Generator):
    """Remembers what it read."""

    def forward(self, features: Any) -> Any:
        self.read = [feature.detach().clone() for feature in features]
        return super().forward(features)


def one_update(folder: Path) -> Any:
    """Batches of different sizes and a NaN on one rank: everything that the mean gradient can be checked from."""
    rank = dist.get_rank()
    made: list[Watched] = []
    told: list[Any] = []

    def generator(shapes: Any, layouts: Any) -> Watched:
        made.append(Watched(shapes, layouts, width=16, size=8))
        with torch.no_grad():  # away from the uniform start, where gradients are special
            for i, parameter in enumerate(made[-1].parameters()):
                parameter += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(i))
        return made[-1]

    def update(probabilities: Any, chosen: Any, harder: Any) -> Any:
        told.append(adaug.RewardPenalty()(probabilities, chosen, harder))
        return told[-1]

    def loss_fn(output: Any, batch: Any) -> Any:
        losses = nets.loss_fn(output, batch)
        return torch.where(batch["label"] == 7, torch.nan, losses)  # one row of rank 1

    policy = adaug.Policy([adaug.Branch("asr", [adaug.Scale(0.75, 1.25, 7), adaug.Rotate(-30, 30, 9)], 1.0)])
    augmenter = nets.make_augmenter(policy, generator=generator, update=update, optimizer=lambda p: torch.optim.SGD(p, lr=1.0))
    batch = nets.make_batch(6 if rank == 0 else 3, seed=rank)
    if rank == 1:
        batch["label"][1] = 7
    model = DistributedDataParallel(nets.make_network())
    augmenter.bind(model, batch)
    before = {name: value.clone() for name, value in made[0].named_parameters()}
    augmenter.step(model, batch, loss_fn)
    after = {name: value.detach() for name, value in made[0].named_parameters()}
    return {
        "moved": {name: before[name] - after[name] for name in before},
        "before": before,
        "shapes": [tuple(feature.shape[1:]) for feature in made[0].read],
        "features": made[0].read,
        "targets": dict(zip(("scale", "rotate"), told, strict=True)),
        "valid": batch["label"] != 7,
    }


def resumed(folder: Path) -> Any:
    """Stopped after three steps, and gone on from the state that rank 0 saved."""
    kwargs: Any = {"seed": 3, "warmup_steps": 1}
    model, augmenter = DistributedDataParallel(nets.make_network().eval()), nets.make_augmenter(**kwargs)
    train(augmenter, model, range(3), 9)
    if dist.get_rank() == 0:
        torch.save({"model": model.module.state_dict(), "augmenter": augmenter.state_dict()}, folder / "state.pt")
    dist.barrier()
    expected = train(augmenter, model, range(3, 6), 9)
    state = torch.load(folder / "state.pt", weights_only=True)
    found = {}
    for moment in ("before binding", "after binding"):
        fresh = nets.make_network().eval()
        fresh.load_state_dict(state["model"])
        again, wrapped = nets.make_augmenter(**{**kwargs, "seed": 8}), DistributedDataParallel(fresh)
        if moment == "after binding":
            again.bind(wrapped, nets.make_batch())
        again.load_state_dict(state["augmenter"])
        found[moment] = nets.same(train(again, wrapped, range(3, 6), 9), expected) and nets.same(
            again.state_dict(), augmenter.state_dict()
        )
    return {"equal": found, "seen": expected}


def pretrained(folder: Path) -> Any:
    """Stage 2 on other images each."""
    model, augmenter = DistributedDataParallel(nets.make_network()), nets.make_augmenter()
    loader = [nets.make_batch(4, seed=dist.get_rank())]
    augmenter.pretrain(model, loader, nets.loss_fn, steps=3, max_views=5)
    return {"generators": nets.generators(augmenter)}


def sharded(folder: Path) -> Any:
    """The same trainings with DDP and with `fully_shard`; rank 1 has a single row, and so passes that it makes for rank 0."""
    rank, found = dist.get_rank(), {}
    policies = {"generators": None, "running": adaug.policies.running(adaug.policies.wide([(0, 1)]))}
    for case, (policy, scoring, named) in {
        "generators, exact": ("generators", "eval", True),
        "generators, scored in training": ("generators", "train", True),
        "running, layers found": ("running", "eval", False),
    }.items():
        for how in ("ddp", "fsdp"):
            torch.manual_seed(rank)
            model: Any = nets.make_network()
            if how == "fsdp":
                mesh = dist.init_device_mesh("cpu", (dist.get_world_size(),))
                for part in (*model.stacks, model):
                    fully_shard(part, mesh=mesh)
            else:
                model = DistributedDataParallel(model)
            layers: Any = {} if named else {"features": None, "occlude": None}
            chosen = {} if policies[policy] is None else {"policy": policies[policy]}
            augmenter = nets.make_augmenter(**chosen, **layers, scoring=scoring)
            n = 6 if rank == 0 else 2 if policy == "generators" else 5
            seen = train(augmenter, model, range(EVERY + 1), n)
            found[case, how] = {"losses": [step[0] for step in seen], "state": nets.cloned(augmenter.state_dict())}
            found[case, how]["layers"] = repr(augmenter).splitlines()[1:3]
    return found


def own_learners(folder: Path) -> Any:
    """Learners that a user wrote, with batches of different sizes: one that adds up over ranks, and one that scores."""
    found = {}
    for name, learned in (("means", (Means(),)), ("mixed", (WorstOf(), Means())), ("response", (Softmax(),))):
        model = DistributedDataParallel(nets.make_network())
        augmenter = nets.make_augmenter(turned_and_hidden(*learned), seed=None)
        train(augmenter, model, range(EVERY + 1), 6 if dist.get_rank() == 0 else 1)
        found[name] = {"state": nets.cloned(augmenter.state_dict()), "weights": nets.cloned(dict(model.named_parameters()))}
    return found


def main(folder: Path) -> None:
    dist.init_process_group("gloo")
    torch.manual_seed(dist.get_rank())
    scenes = (twenty_steps, rows_missing, scored_in_training, one_update, resumed, pretrained, sharded, own_learners)
    found = {scene.__name__: scene(folder) for scene in scenes}
    torch.save(found, folder / f"rank{dist.get_rank()}.pt")
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))

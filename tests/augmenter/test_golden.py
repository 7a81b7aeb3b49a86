"""Golden runs: with the same seed a step gives the same numbers as it did when `golden.json` was written.

A change of these numbers is a change of behaviour, to be named in CHANGELOG. Write the file anew with
`python tests/test_golden.py`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import networks as nets
import pytest
import torch

import adaug
from adaug import policies

GOLDEN = Path(__file__).parent / "golden.json"
PAIRS = [(0, 1)]
MANY_BRANCHES = {"batch": 18}  # so that each of ten branches gets a row

RUNS: dict[str, dict[str, Any]] = {
    "paper": {"policy": lambda: policies.paper(PAIRS)},
    "paper, scored in training": {"policy": lambda: policies.paper(PAIRS), "scoring": "train"},
    "paper, every second step": {"policy": lambda: policies.paper(PAIRS), "update_every": 2, "warmup_steps": 1},
    "paper, masks on the image": {"policy": lambda: policies.paper(PAIRS), "features": (), "occlude": ()},
    "paper, crops of a canvas": {"policy": lambda: policies.paper(PAIRS), "output_size": 32, "border": 4},
    "paper, one for all": {"policy": lambda: policies.paper(PAIRS), "generator": adaug.learners.OneForAll, "features": ()},
    "wide": {"policy": lambda: policies.wide(PAIRS)},
    "wide, at rest": {"policy": lambda: policies.wide(PAIRS, rest=True)},
    "released": {"policy": lambda: policies.released(PAIRS)},
    "trivial": {"policy": lambda: policies.trivial(PAIRS), **MANY_BRANCHES},
    "trivial, learned": {"policy": lambda: policies.trivial(PAIRS, learned=True), **MANY_BRANCHES},
    "uniform": {"policy": lambda: policies.uniform(policies.paper(PAIRS))},
}


def canvas(batch: dict[str, Any], border: int) -> dict[str, Any]:
    """The batch with a border around its images."""
    image = torch.nn.functional.pad(batch["image"], [border] * 4)
    return {**batch, "image": image, "keypoints": batch["keypoints"] + border}


def numbers(policy: Any, *, batch: int = 9, border: int = 0, steps: int = 3, **arguments: Any) -> dict[str, list[float]]:
    """What a run of some steps is told by: losses, branches, views, batches, metrics, and the generators at its end."""
    torch.manual_seed(0)  # of the network's own dropout
    model = nets.make_network()
    policy = policy()
    if any(branch.learned is True for branch in policy.branches):
        arguments = {"generator": nets.library_generator, **arguments}
    augmenter = nets.make_augmenter(policy, **arguments)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    found: dict[str, list[float]] = {}
    for i in range(steps):
        result = augmenter.step(model, canvas(nets.make_batch(batch, seed=i), border), nets.loss_fn)
        optimizer.zero_grad()
        result.loss.backward()
        optimizer.step()
        image, points = result.batch["image"], result.batch["keypoints"]
        seen = {
            "losses": result.losses.detach(),
            "branch": result.branch,
            "matrix": result.view.matrix.sum((1, 2)),
            "images": image.mean((1, 2, 3)),
            "keypoints": points.sum((1, 2)),
            "visibility": result.batch["visibility"].sum(1),
            **result.metrics,
        }
        found |= {f"step {i}: {name}": torch.as_tensor(value).double().flatten().tolist() for name, value in seen.items()}
    if any(operation.in_random_views for operation in augmenter.policy.operations.values()):
        drawn = augmenter.random(canvas(nets.make_batch(batch, seed=7), border))
        found["random"] = drawn["image"].double().mean((1, 2, 3)).tolist()
    if any(branch.learned for branch in augmenter.policy.branches):
        history = augmenter.pretrain(model, [canvas(nets.make_batch(4, seed=8), border)], nets.loss_fn, steps=2, max_views=8)
        found |= {f"pretrain: {name}": value.double().tolist() for name, value in history.items()}
    for name, value in augmenter.distributions(model, canvas(nets.make_batch(batch, seed=9), border)).items():
        found[f"end: {name}"] = value.double().mean(0).tolist()
    return found


@pytest.mark.parametrize("name", RUNS)
def test_the_same_seed_gives_the_numbers_that_it_gave(name: str) -> None:
    expected = json.loads(GOLDEN.read_text(encoding="utf-8"))[name]
    found = numbers(**RUNS[name])
    assert found.keys() == expected.keys()
    for key, values in expected.items():
        assert found[key] == pytest.approx(values, rel=2e-4, abs=2e-5), key


if __name__ == "__main__":
    torch.set_num_threads(1)
    written = {name: {key: [round(x, 6) for x in v] for key, v in numbers(**run).items()} for name, run in RUNS.items()}
    GOLDEN.write_text(json.dumps(written, indent=0).replace(",\n", ", ") + "\n", encoding="utf-8")

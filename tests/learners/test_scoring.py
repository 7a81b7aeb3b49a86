"""Exact scoring: one pass for both views, which says of every row what a pass of its own would."""

from __future__ import annotations

from typing import Any

import networks as nets
import numpy as np
import pytest
import torch
from torch import Tensor

from adaug._batches.parse import parse
from adaug._model.bound import Difficulty
from adaug._runtime.random import Stream
from adaug._steps.halves import Passes, draw
from adaug.policies import Policy


@pytest.mark.parametrize(
    "branch", [[0, 1, 2, 1, 0, 2, 2, 1, 0], [1] * 9, [2] * 9, [0, 0, 0, 0, 1, 0, 0, 0, 2]], ids=["all", "asr", "aho", "few"]
)
@pytest.mark.parametrize("network", ["hourglass", "list of stacks", "classifier"])
def test_one_pass_says_what_two_would(network: str, branch: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Policy, "split", lambda *_: torch.tensor(branch))
    model = nets.make_network(network)
    augmenter = nets.make_augmenter(network=network)
    augmenter.bind(model, nets.make_batch())
    batch, state, difficulty = parse(nets.make_batch(), {}), augmenter._state, Difficulty(nets.loss_fn, "loss_fn")
    bound, passes = state.bound, Passes(state.bound, difficulty, 0)
    drawn = draw(bound.policy, augmenter._groups, state.learners, batch, (32, 32), 0.0, Stream(3), passes)
    (found,) = drawn.evidence.values()
    index, compared = found.trials.index, found.trials.joined(found.trials.reference)
    assert sorted(index.tolist()) == [i for i, number in enumerate(branch) if number]
    (adversarial,) = bound.score(drawn.augmented.select(index), drawn.view.select(index).feature_masks, [difficulty])
    (random,) = bound.score(batch.select(index).apply(compared, (32, 32)), compared.feature_masks, [difficulty])
    assert (adversarial != random).any()
    torch.testing.assert_close(found.adversarial, adversarial, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found.reference, random, rtol=1e-5, atol=1e-6)


def test_a_difficulty_sees_both_views_of_a_row_with_all_that_belongs_to_it() -> None:
    calls: list[dict[str, Any]] = []

    def difficulty(output: Any, batch: dict[str, Any]) -> Tensor:
        calls.append(batch)
        return nets.loss_fn(output, batch)

    batch: dict[str, Any] = nets.make_batch()
    batch |= {"number": torch.arange(9), "names": [f"row {i}" for i in range(9)], "array": np.arange(9)}
    batch |= {"meta": {"path": tuple("abcdefghi")}, "palette": torch.arange(6), "note": "for all", "classes": ["x"] * 6}
    other = dict.fromkeys(["number", "names", "array", "meta", "palette", "note", "classes"], "other")
    augmenter = nets.make_augmenter(difficulty=difficulty, targets=other)
    model = nets.make_network()
    augmenter.step(model, batch, nets.loss_fn)
    seen = calls[-1]  # the first is a trial of the function
    rows = seen["number"].tolist()
    assert len(rows) == 12  # three in each of two branches, twice
    assert rows[:6] == rows[6:]
    assert seen["names"] == [f"row {i}" for i in rows]
    assert seen["array"].tolist() == rows
    assert seen["meta"]["path"] == tuple("abcdefghi"[i] for i in rows)
    assert seen["note"] == "for all"
    assert torch.equal(seen["palette"], batch["palette"])  # of as many numbers as rows are compared, but not of rows
    assert seen["classes"] == ["x"] * 6
    assert {len(seen[name]) for name in ("image", "keypoints", "visibility", "label")} == {12}
    assert torch.equal(seen["label"], batch["label"][rows])


def test_the_model_runs_three_times_a_step() -> None:
    model, sizes = nets.make_network(), []
    augmenter = nets.make_augmenter()
    augmenter.bind(model, nets.make_batch())
    model.register_forward_pre_hook(lambda module, args: sizes.append(len(args[0])))
    augmenter.step(model, nets.make_batch(), nets.loss_fn)
    assert sizes == [6, 12, 9]  # looked at, scored, trained on
    augmenter = nets.make_augmenter(scoring="train")
    model = nets.make_network()
    augmenter.bind(model, nets.make_batch())
    sizes.clear()
    model.register_forward_pre_hook(lambda module, args: sizes.append(len(args[0])))
    augmenter.step(model, nets.make_batch(), nets.loss_fn)
    assert sizes == [6, 6, 9]

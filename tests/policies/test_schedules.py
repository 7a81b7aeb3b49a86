"""Warm-up, update_every, shares that follow the progress."""

from __future__ import annotations

import networks as nets
import pytest
import torch

import adaug
from adaug.policies import Window


def test_in_warm_up_all_rows_are_random_and_nothing_is_learned():
    model, augmenter = nets.make_network(), nets.make_augmenter(warmup_steps=3)
    augmenter.bind(model, nets.make_batch())
    before, runs = nets.generators(augmenter), []
    model.register_forward_hook(lambda *_: runs.append(1))
    for i in range(3):
        result = augmenter.step(model, nets.make_batch(seed=i), nets.loss_fn)
        assert not result.branch.any()
        assert not torch.equal(result.batch["image"], nets.make_batch(seed=i)["image"])  # random views, not none
        assert all(mask.all() for _, mask in result.view.feature_masks)
    assert len(runs) == 3
    assert nets.same(nets.generators(augmenter), before)
    assert augmenter.step(model, nets.make_batch(), nets.loss_fn).branch.any()
    assert not nets.same(nets.generators(augmenter), before)


@pytest.mark.parametrize("every", [1, 2, 3])
def test_generators_learn_at_every_kth_step_and_propose_at_all(every):
    model, augmenter = nets.make_network(), nets.make_augmenter(update_every=every)
    augmenter.bind(model, nets.make_batch())
    runs, learned = [], []
    model.register_forward_hook(lambda *_: runs.append(1))
    for i in range(6):
        before = nets.generators(augmenter)
        runs.clear()
        result = augmenter.step(model, nets.make_batch(seed=i), nets.loss_fn)
        learned.append(not nets.same(nets.generators(augmenter), before))
        assert len(runs) == (2 if learned[-1] else 1)  # one that scores both views, one to train on
        assert set(result.branch.tolist()) == {0, 1, 2}
        assert "entropy/asr.scale" in result.metrics
    assert learned == [i % every == 0 for i in range(6)]


def fading():
    asr, aho = adaug.policies.paper().branches
    return adaug.Policy(
        [
            adaug.Branch("asr", asr.operations, lambda progress: 0.5 * (1 - progress)),
            adaug.Branch("aho", aho.operations, Window(0.5, 0.25, 0.75)),
        ]
    )


@pytest.mark.parametrize("by", ["progress", "total_steps"])
def test_shares_follow_progress(by):
    model = nets.make_network()
    augmenter = nets.make_augmenter(fading(), total_steps=4 if by == "total_steps" else None)
    counts = []
    for i in range(5):
        if by == "progress":
            augmenter.progress = i / 4
        assert augmenter.progress == i / 4
        result = augmenter.step(model, nets.make_batch(16, seed=i), nets.loss_fn)
        result.loss.backward()
        counts.append(result.branch.bincount(minlength=3).tolist())
    assert counts == [[8, 8, 0], [2, 6, 8], [4, 4, 8], [14, 2, 0], [16, 0, 0]]


def test_a_branch_that_is_off_costs_nothing_and_keeps_its_generator():
    model, augmenter = nets.make_network(), nets.make_augmenter(fading())
    augmenter.progress = 1.0
    augmenter.bind(model, nets.make_batch())
    before, runs = nets.generators(augmenter), []
    model.stem.register_forward_hook(lambda *_: runs.append(1))
    augmenter.step(model, nets.make_batch(), nets.loss_fn)
    assert len(runs) == 1
    assert nets.same(nets.generators(augmenter), before)


def test_progress_outside_zero_to_one_is_refused():
    augmenter = nets.make_augmenter()
    for value in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="progress"):
            augmenter.progress = value
    assert augmenter.progress == 0

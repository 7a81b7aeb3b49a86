"""Saved and loaded, pickled and copied, training goes on as if it had never stopped."""

# ruff: noqa: NPY002, PT012
from __future__ import annotations

import copy
import gc
import io
import pickle
import random

import networks as nets
import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

import adaug


def through_a_file(value):
    """What `torch.save` and the safe `torch.load` make of it."""
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def train(augmenter, model, optimizer, steps):
    """Plain training on batches that the step count names; everything that could differ, as it went."""
    seen = []
    for i in steps:
        result = augmenter.step(model, nets.make_batch(8, seed=i), nets.loss_fn)
        optimizer.zero_grad()
        result.loss.backward()
        optimizer.step()
        seen.append(nets.cloned([result.losses, result.branch, result.batch, result.metrics]))
    return seen


def fresh(**kwargs):
    model = nets.make_network()
    kwargs = {"warmup_steps": 1, "update_every": 2, "total_steps": 12, **kwargs}
    return nets.make_augmenter(**kwargs), model, torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)


@pytest.mark.parametrize("stop", [0, 1, 4], ids=["before the first step", "in warm-up", "in training"])
@pytest.mark.parametrize("loaded", ["before binding", "after binding"])
def test_continuing_is_bit_equal_to_never_having_stopped(loaded, stop):
    torch.manual_seed(0)
    augmenter, model, optimizer = fresh()
    augmenter.bind(model, nets.make_batch(8))
    train(augmenter, model, optimizer, range(stop))
    state = through_a_file({"model": model.state_dict(), "opt": optimizer.state_dict(), "aug": augmenter.state_dict()})
    noise = torch.get_rng_state()
    expected = train(augmenter, model, optimizer, range(stop, stop + 4))

    again, model2, optimizer2 = fresh(seed=99)
    if loaded == "after binding":
        train(again, model2, optimizer2, range(2))
    again.load_state_dict(state["aug"])
    model2.load_state_dict(state["model"])
    optimizer2.load_state_dict(state["opt"])
    torch.set_rng_state(noise)
    assert again.steps == stop
    assert nets.same(train(again, model2, optimizer2, range(stop, stop + 4)), expected)
    assert nets.same(again.state_dict(), augmenter.state_dict())
    assert nets.same(model2.state_dict(), model.state_dict())


def test_a_state_from_before_binding_makes_a_bound_augmenter_start_afresh_or_is_refused():
    torch.manual_seed(0)
    augmenter, model, optimizer = fresh()
    state, noise = through_a_file(augmenter.state_dict()), torch.get_rng_state()
    expected = train(augmenter, model, optimizer, range(3))
    used, model2, optimizer2 = fresh()
    train(used, model2, optimizer2, range(4))
    try:
        used.load_state_dict(state)
    except ValueError:
        return
    model2.load_state_dict(nets.make_network().state_dict())
    torch.set_rng_state(noise)
    optimizer2 = torch.optim.SGD(model2.parameters(), lr=0.05, momentum=0.9)
    assert nets.same(train(used, model2, optimizer2, range(3)), expected)


def test_a_state_that_is_loaded_early_can_be_saved_again():
    augmenter, model, optimizer = fresh()
    train(augmenter, model, optimizer, range(3))
    waiting, _, _ = fresh(seed=4)
    waiting.load_state_dict(augmenter.state_dict())
    assert nets.same(through_a_file(waiting.state_dict()), through_a_file(augmenter.state_dict()))
    assert waiting.steps == 3


def test_a_loaded_state_does_not_follow_the_augmenter_that_it_came_from():
    augmenter, model, optimizer = fresh()
    train(augmenter, model, optimizer, range(3))
    waiting, model2, _ = fresh()
    waiting.load_state_dict(augmenter.state_dict())
    expected = nets.generators(augmenter)
    train(augmenter, model, optimizer, range(3, 6))
    waiting.bind(model2, nets.make_batch(8))
    assert nets.same(nets.generators(waiting), expected)


def test_progress_set_by_hand_is_kept():
    augmenter = nets.make_augmenter()
    augmenter.progress = 0.7
    again = nets.make_augmenter()
    again.load_state_dict(through_a_file(augmenter.state_dict()))
    assert again.progress == 0.7


def test_random_views_and_pretraining_resume_too():
    augmenter, model, _ = fresh()
    batch = nets.make_batch(4)
    augmenter.random(batch)
    augmenter.pretrain(model, [batch], nets.loss_fn, steps=1, max_views=5)
    state = through_a_file(augmenter.state_dict())
    again, model2, _ = fresh(seed=5)
    again.load_state_dict(state)
    assert nets.same(again.random(batch), augmenter.random(batch))
    histories = [a.pretrain(m, [batch], nets.loss_fn, steps=2, max_views=5) for a, m in ((augmenter, model), (again, model2))]
    assert nets.same(*histories)
    assert nets.same(again.state_dict(), augmenter.state_dict())


# ---- pickle and deepcopy


def pickled(value):
    return pickle.loads(pickle.dumps(value))


def saved_whole(value):
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize("copied", [pickled, copy.deepcopy, saved_whole])
@pytest.mark.parametrize("bound", [True, False], ids=["bound", "not bound"])
def test_a_copied_augmenter_goes_on_with_a_copied_model(bound, copied):
    torch.manual_seed(0)
    augmenter, model, optimizer = fresh()
    if bound:
        train(augmenter, model, optimizer, range(3))
    twin, noise = copied(augmenter), torch.get_rng_state()
    model2 = copied(model)
    optimizer2 = torch.optim.SGD(model2.parameters(), lr=0.05, momentum=0.9)
    optimizer2.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    start = augmenter.steps
    expected = train(augmenter, model, optimizer, range(start, start + 4))
    torch.set_rng_state(noise)
    assert nets.same(train(twin, model2, optimizer2, range(start, start + 4)), expected)
    assert nets.same(twin.state_dict(), augmenter.state_dict())


@pytest.mark.parametrize("copied", [pickled, copy.deepcopy, saved_whole, lambda model: AveragedModel(model).module])
def test_a_copied_model_carries_inert_hooks(copied):
    augmenter, model, _ = fresh(warmup_steps=0, update_every=1)
    batch = nets.make_batch(24)
    augmenter.bind(model, batch)
    twin = copied(model)
    during = []

    def loss(output, given):
        if torch.is_grad_enabled():
            with torch.no_grad():
                during.append((twin.eval()(given["image"]), nets.clean_copy(twin)(given["image"])))
        return nets.loss_fn(output, given)

    augmenter.step(model, batch, loss).loss.backward()
    assert all(torch.equal(a, b) for a, b in during)
    assert len(during) == 1
    with pytest.raises(ValueError, match="one model"):
        augmenter.step(twin, batch, nets.loss_fn)


def test_a_copy_made_inside_a_step_is_inert():
    """An EMA that is made in the user's loss or forward must not keep the masks for good."""
    augmenter, model, _ = fresh(warmup_steps=0)
    copies = []

    class Copies(nn.Module):
        def forward(self, x):
            if torch.is_grad_enabled() and not copies:
                copies.append(None)
                copies[0] = copy.deepcopy(model)
            return x

    model.heads[1] = nn.Sequential(Copies(), model.heads[1])
    augmenter.step(model, nets.make_batch(24), nets.loss_fn)
    image = nets.make_batch()["image"]
    assert torch.equal(copies[0].eval()(image), copy.deepcopy(copies[0]).eval()(image))


# ---- states that do not fit


def other_features(state):
    augmenter, model, optimizer = fresh(features=["stem"])
    train(augmenter, model, optimizer, range(2))
    return augmenter.state_dict()


def other_policy(state):
    augmenter = nets.make_augmenter(adaug.policies.released([(0, 1)]))
    augmenter.bind(nets.make_network(), nets.make_batch())
    return augmenter.state_dict()


def without(key):
    return lambda state: {name: value for name, value in state.items() if name != key}


def changed(change):
    def apply(state):
        state = copy.deepcopy(state)
        change(state)
        return state

    return apply


UNFIT = {
    "other policy": other_policy,
    "other features": other_features,
    "empty": lambda state: {},
    "a model's": lambda state: nets.make_network().state_dict(),
    "no learners": without("learners"),
    "no steps": without("steps"),
    "no measure": without("measure"),
    "a learner is missing": changed(lambda s: s["learners"].clear()),
    "a learner too many": changed(lambda s: s["learners"].update(more=None)),
    "a learner of other branches": changed(lambda s: s["learners"].update(aho=s["learners"].pop("asr+aho"))),
    "a branch is missing": changed(lambda s: nets.saved_generators(s).pop("aho")),
    "a branch too many": changed(lambda s: nets.saved_generators(s).update(more=nets.saved_generators(s)["aho"])),
    "weights are missing": changed(lambda s: nets.saved_generators(s)["aho"]["generator"].popitem()),
    "no optimizer": changed(lambda s: nets.saved_generators(s)["aho"].pop("optimizer")),
    "another optimizer": changed(lambda s: nets.saved_generators(s)["aho"]["optimizer"]["param_groups"].append({"params": []})),
    "a text": lambda state: "state",
    "nothing": lambda state: None,
    "steps are text": changed(lambda s: s.update(steps="three")),
}


@pytest.fixture(scope="module")
def used():
    """An augmenter after three steps or more: what is refused changes nothing, so that one serves for all."""
    torch.manual_seed(0)
    augmenter, model, optimizer = fresh()
    train(augmenter, model, optimizer, range(3))
    return augmenter, model  # which has to live as long


@pytest.mark.parametrize("name", UNFIT)
def test_a_state_that_does_not_fit_raises_and_changes_nothing(used, name):
    augmenter, model = used
    state = augmenter.state_dict()
    before, bad = copy.deepcopy(state), UNFIT[name](state)
    twin = copy.deepcopy(augmenter)
    with pytest.raises((ValueError, TypeError), match="Found"):
        augmenter.load_state_dict(bad)
    assert nets.same(augmenter.state_dict(), before)
    augmenter.step(model, nets.make_batch(), nets.loss_fn)
    assert twin.steps == augmenter.steps - 1


@pytest.mark.parametrize("name", UNFIT)
def test_a_state_that_does_not_fit_is_refused_at_the_latest_when_binding(used, name):
    augmenter, _ = used
    again, model2, _ = fresh()
    bad, before = UNFIT[name](augmenter.state_dict()), nets.traces(model2)
    with pytest.raises((ValueError, TypeError), match="Found"):
        again.load_state_dict(bad)
        again.bind(model2, nets.make_batch(8))
    assert nets.differences(before, nets.traces(model2)) == []
    again.load_state_dict(augmenter.state_dict())  # and it can be mended
    again.bind(model2, nets.make_batch(8))
    assert nets.same(again.state_dict(), augmenter.state_dict())


# ---- seeds


def first_views(seed, global_seed, steps=2):
    torch.manual_seed(global_seed)
    augmenter, model, optimizer = fresh(seed=seed, warmup_steps=0)
    images = [entry[2]["image"] for entry in train(augmenter, model, optimizer, range(steps))]
    return images, nets.generators(augmenter)


def test_a_given_seed_does_not_depend_on_the_global_one():
    torch.manual_seed(0)
    a = nets.make_augmenter(seed=7)
    torch.manual_seed(1)
    b = nets.make_augmenter(seed=7)
    assert nets.same(a.random(nets.make_batch()), b.random(nets.make_batch()))
    model = nets.make_network().eval()
    batch = nets.make_batch()
    a, b = a.step(model, batch, nets.loss_fn), b.step(copy.deepcopy(model), batch, nets.loss_fn)
    assert nets.same([a.losses, a.batch], [b.losses, b.batch])


def test_without_a_seed_the_global_one_decides():
    assert nets.same(first_views(None, 5), first_views(None, 5))
    assert not nets.same(first_views(None, 5)[0], first_views(None, 6)[0])


def test_a_seed_is_settled_by_the_first_draw_not_before():
    batch, model = nets.make_batch(), nets.make_network().eval()

    def settled(how):
        torch.manual_seed(1)
        augmenter = nets.make_augmenter(seed=None)
        repr(augmenter)
        torch.manual_seed(2)
        how(augmenter)
        torch.manual_seed(3)
        return augmenter.seed

    assert settled(lambda augmenter: augmenter.random(batch)) == 2
    assert settled(lambda augmenter: augmenter.step(model, batch, nets.loss_fn)) == 2
    assert settled(lambda augmenter: augmenter.state_dict()) == 2
    assert settled(copy.deepcopy) == 2  # a copy goes on as the original would
    assert settled(lambda augmenter: None) == 3


def test_other_seeds_and_other_steps_give_other_views():
    assert not nets.same(first_views(1, 5)[0], first_views(2, 5)[0])
    augmenter, model, batch = nets.make_augmenter(), nets.make_network().eval(), nets.make_batch()
    images = [augmenter.step(model, batch, nets.loss_fn).batch["image"] for _ in range(2)]
    assert not torch.equal(*images)
    assert not torch.equal(augmenter.random(batch)["image"], augmenter.random(batch)["image"])


@pytest.mark.parametrize("seed", [None, 3])
def test_the_global_random_states_are_neither_read_nor_advanced(seed):
    model, batch = nets.make_network().eval(), nets.make_batch()
    augmenter = nets.make_augmenter(seed=seed)
    images = []
    for noise in (0, 1):
        again = copy.deepcopy(augmenter)
        torch.manual_seed(noise)
        np.random.seed(noise)
        random.seed(noise)
        states = torch.get_rng_state(), repr(np.random.get_state()), random.getstate()
        images.append(again.step(copy.deepcopy(model), batch, nets.loss_fn).batch["image"])
        assert nets.same(states, (torch.get_rng_state(), repr(np.random.get_state()), random.getstate()))
    assert torch.equal(*images)


def test_what_happens_before_binding_is_saved_too():
    augmenter, model, _ = fresh(total_steps=None)
    augmenter.bind(model, nets.make_batch(8))
    resumed = fresh(total_steps=None)[0]
    resumed.load_state_dict(augmenter.state_dict())
    for i in range(3):
        resumed.random(nets.make_batch(8, seed=i))
    resumed.progress = 0.5
    again = fresh(total_steps=None)[0]
    again.load_state_dict(through_a_file(resumed.state_dict()))
    assert again.progress == 0.5
    assert nets.same(again.random(nets.make_batch(8)), resumed.random(nets.make_batch(8)))
    assert nets.saved_generators(again.state_dict()).keys() == nets.saved_generators(augmenter.state_dict()).keys()


def test_a_loaded_state_is_a_copy():
    augmenter, model, optimizer = fresh()
    train(augmenter, model, optimizer, range(3))
    state = augmenter.state_dict()
    before = copy.deepcopy(state)
    other, other_model, other_optimizer = fresh()
    other.bind(other_model, nets.make_batch(8))
    other.load_state_dict(state)
    train(other, other_model, other_optimizer, range(3))
    assert nets.same(state, before)


def test_a_copy_counts_for_itself():
    augmenter, _, _ = fresh()
    other = copy.copy(augmenter)
    other.random(nets.make_batch(8))
    assert augmenter.state_dict()["counts"]["random"] == 0


def test_a_detached_augmenter_leaves_no_hooks_and_goes_on_with_another_model():
    augmenter, model, optimizer = fresh()
    train(augmenter, model, optimizer, range(3))
    models = copy.deepcopy(model), copy.deepcopy(model)
    twin = copy.deepcopy(augmenter)
    augmenter.detach()
    assert not any(module._forward_hooks for module in model.modules())
    assert augmenter.state_dict()["steps"] == 3
    augmenter.detach()  # nothing left to do
    found = []
    for one, network in zip((augmenter, twin), models, strict=True):
        torch.manual_seed(1)  # of the dropout
        found.append(one.step(network, nets.make_batch(8), nets.loss_fn).losses)
    assert nets.same(*found)


def test_an_augmenter_that_is_gone_takes_its_hooks_along():
    augmenter, model, optimizer = fresh()
    train(augmenter, model, optimizer, range(1))
    assert any(module._forward_hooks for module in model.modules())
    del augmenter
    gc.collect()
    assert not any(module._forward_hooks for module in model.modules())

"""Threads beside a training: a step is the same, and nobody uses a model or an augmenter that another thread is using."""

from __future__ import annotations

import copy
import os
import pickle
import threading
import time
from contextlib import contextmanager

import networks as nets
import pytest
import torch
from attacks.tally import Process
from torch import nn

import adaug
from adaug._model import locks, passes
from adaug._runtime import random


class Gate:
    """Lets a test stop another thread inside a loss."""

    def __init__(self) -> None:
        self.inside, self.open = threading.Event(), threading.Event()

    def loss(self, output, batch):
        self.inside.set()
        assert self.open.wait(30)
        return nets.loss_fn(output, batch)


@contextmanager
def thread(function, *args):
    """A thread that runs a function; what it raises is raised here."""
    raised = []

    def run():
        try:
            function(*args)
        except BaseException as error:
            raised.append(error)

    worker = threading.Thread(target=run, name="the other one")
    worker.start()
    try:
        yield
    finally:
        worker.join(30)
    assert not worker.is_alive()
    if raised:
        raise raised[0]


def brightened(image):
    return image * (0.5 + 0.5 * torch.rand(len(image), 1, 1, 1))


class Drops(adaug.Generator):
    def forward(self, features):
        return super().forward([nn.functional.dropout(feature) for feature in features])


SCENES = {
    "paper": {},
    "scored in training": {"scoring": "train"},
    "a generator with dropout": {"generator": lambda shapes, layouts: Drops(shapes, layouts, width=16, size=8)},
    "functions": {"policy": adaug.Policy(adaug.policies.paper().branches, [adaug.Flip([(0, 1)]), brightened])},
    "dropout in eval": {"dropout": True},
}


class AlwaysDrops(nn.Dropout):
    def forward(self, x):
        return nn.functional.dropout(x, 0.3)


def beside_a_thread(function):
    """What a function gives while another thread, which draws nothing, is there."""
    over, found = threading.Event(), []
    with thread(over.wait, 30):
        found.append(function())
        over.set()
    return found[0]


@pytest.mark.parametrize("scene", SCENES)
def test_a_step_is_the_same_beside_another_thread(scene):
    def train():
        torch.manual_seed(1)
        arguments, model = dict(SCENES[scene]), nets.make_network()
        if arguments.pop("dropout", False):
            model.stacks[0].skip0[3] = AlwaysDrops()
        augmenter = nets.make_augmenter(**arguments)
        seen = []
        for i in range(3):
            result = augmenter.step(model, nets.make_batch(6, seed=i), nets.loss_fn)
            seen.append(nets.cloned([result.losses, result.batch, result.metrics]))
        return [seen, augmenter.state_dict(), torch.get_rng_state()]

    assert nets.same(beside_a_thread(train), train())


@pytest.mark.parametrize("seed", [None, 3])
def test_a_block_leaves_the_random_state_as_it_was(seed):
    before = torch.get_rng_state()
    with random.random_state_kept() if seed is None else random.seeded(seed):
        drawn = torch.rand(3)
    assert torch.equal(torch.get_rng_state(), before)
    expected = torch.random.default_generator if seed is None else torch.Generator().manual_seed(seed)
    assert torch.equal(torch.rand(3, generator=expected), drawn)


# ---- one thread at a time


@pytest.mark.parametrize("same", ["augmenter", "model"])
@pytest.mark.parametrize("act", ["step", "distributions", "bind", "audit"])
def test_a_second_thread_is_told_who_is_there(same, act):
    model, batch, gate = nets.make_network(), nets.make_batch(), Gate()
    augmenter = nets.make_augmenter()
    augmenter.bind(model, batch)
    if same == "augmenter" and act == "audit":
        pytest.skip("an audit has none")
    second = (augmenter, nets.make_network()) if same == "augmenter" else (nets.make_augmenter(), model)
    flags = {name: module.training for name, module in model.named_modules()}
    acts = {
        "step": lambda: second[0].step(second[1], batch, nets.loss_fn),
        "distributions": lambda: second[0].distributions(second[1], batch),
        "bind": lambda: second[0].bind(second[1], batch),
        "audit": lambda: adaug.audit(model, [batch], nets.loss_fn, adaug.policies.trivial(), num_draws=1),
    }
    with thread(augmenter.step, model, batch, gate.loss):
        assert gate.inside.wait(30)
        with pytest.raises(RuntimeError, match=r"should be alone with .*\. Found thread 'the other one' inside `step`"):
            acts[act]()
        gate.open.set()
    assert {name: module.training for name, module in model.named_modules()} == flags
    assert augmenter.steps == 1
    assert not locks._owners
    augmenter.step(model, batch, nets.loss_fn)


def test_threads_with_a_model_each_train_as_if_alone():
    def train(seed, found, model):
        augmenter = nets.make_augmenter(seed=seed)
        for i in range(4):
            found.append(nets.cloned(augmenter.step(model, nets.make_batch(6, seed=i), nets.loss_fn).losses))
        found.append(augmenter.state_dict())

    together, apart = [[], []], [[], []]
    models = [nets.make_network(seed=seed).eval() for seed in (0, 1, 0, 1)]  # by the random state that all share
    with thread(train, 0, together[0], models[0]), thread(train, 1, together[1], models[1]):
        pass
    for seed in range(2):
        train(seed, apart[seed], models[2 + seed])
    assert nets.same(together, apart)


def test_compiled_models_of_two_threads_are_compiled_afterwards():
    stance = lambda: torch._dynamo.eval_frame._stance.stance  # noqa: E731
    models = [nn.Sequential(torch.compile(nn.Linear(2, 2), backend="eager")) for _ in range(2)]
    before, seen = stance(), []

    def look(model):
        for _ in range(50):
            with passes.quiet(model, torch.device("cpu"), "look"):
                time.sleep(0.0002)
                seen.append(stance())

    with thread(look, models[0]), thread(look, models[1]):
        pass
    assert set(seen) == {"force_eager"}
    assert stance() == before


@pytest.mark.parametrize("act", ["state_dict", "load_state_dict", "random", "pretrain", "copy"])
def test_half_a_step_is_no_state(act):
    """A thread that saves or loads during another one's step gets an error, and the step goes on."""
    model, batch, gate = nets.make_network(), nets.make_batch(), Gate()
    augmenter = nets.make_augmenter()
    augmenter.bind(model, batch)
    state = augmenter.state_dict()
    acts = {
        "state_dict": augmenter.state_dict,
        "load_state_dict": lambda: augmenter.load_state_dict(state),
        "random": lambda: augmenter.random(batch),
        "pretrain": lambda: augmenter.pretrain(model, [batch], nets.loss_fn, steps=1),
        "copy": lambda: copy.deepcopy(augmenter),
    }
    with thread(augmenter.step, model, batch, gate.loss):
        assert gate.inside.wait(30)
        with pytest.raises(RuntimeError, match=r"should be alone with .*\. Found thread 'the other one' inside `step`"):
            acts[act]()
        gate.open.set()
    assert augmenter.state_dict()["steps"] == 1


def test_a_thread_may_ask_about_its_own_step():
    model, batch, augmenter = nets.make_network(), nets.make_batch(), nets.make_augmenter()
    found = []

    def loss_fn(output, batch):
        found.append(augmenter.state_dict()["steps"])
        return nets.loss_fn(output, batch)

    augmenter.step(model, batch, loss_fn)
    assert set(found) == {0}
    pickle.dumps(nets.make_augmenter(generator=None))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process")  # that forks has threads: those of this test
def test_a_process_forked_during_another_threads_step_waits_for_nobody():
    def act():
        assert augmenter.state_dict()["steps"] == 0
        nets.make_augmenter().step(nets.make_network(), batch, nets.loss_fn)

    model, batch, gate = nets.make_network(), nets.make_batch(), Gate()
    augmenter = nets.make_augmenter()
    augmenter.bind(model, batch)
    with thread(augmenter.step, model, batch, gate.loss):
        assert gate.inside.wait(30)
        child = Process(act)
        code = child.wait(time.monotonic() + 60)
        gate.open.set()
    assert code == 0
    assert augmenter.steps == 1
    assert not locks._owners

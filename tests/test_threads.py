"""Threads beside a training: their draws are theirs, and nobody steps with a model that another thread is using."""

from __future__ import annotations

import pickle
import threading
from contextlib import contextmanager

import networks as nets
import pytest
import torch
from torch import nn

import adaug
from adaug import _quiet, _random, _turns


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


@contextmanager
def drawing(drawn):
    """A thread that draws from the global random state all the time."""
    over = threading.Event()

    def draw():
        while not over.is_set():
            drawn.append(tuple(torch.randint(2**62, (4,)).tolist()))

    with thread(draw):
        try:
            yield
        finally:
            over.set()


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


@pytest.mark.parametrize("scene", SCENES)
def test_no_draw_of_another_thread_is_repeated(scene):
    arguments = dict(SCENES[scene])
    model, drawn = nets.make_network(), []
    if arguments.pop("dropout", False):
        model.stacks[0].skip0[3] = AlwaysDrops()
    augmenter = nets.make_augmenter(**arguments)
    with drawing(drawn):
        for i in range(4):
            augmenter.step(model, nets.make_batch(6, seed=i), nets.loss_fn)
    assert len(drawn) > 20
    assert len(set(drawn)) == len(drawn)


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


DRAWS = {
    "dropout": lambda x: nn.functional.dropout(x, 0.5),
    "rand": lambda x: torch.rand(5),
    "randn_like": torch.randn_like,
    "randint": lambda x: torch.randint(3, 9, (4,)),
    "permutation": lambda x: torch.randperm(9),
    "native dropout": lambda x: torch.native_dropout(x, 0.5, True)[0],
    "weights": lambda x: nn.init.trunc_normal_(torch.empty(3, 3)),
    "beta": lambda x: torch.distributions.Beta(x + 0.1, x + 0.1).sample(),
    "attention": lambda x: nn.functional.scaled_dot_product_attention(x, x, x, dropout_p=0.5),
    "seeded by itself": lambda x: fixed(),
}


def fixed():
    """Draws that a network wants to be the same each time."""
    with torch.random.fork_rng():
        torch.manual_seed(4)
        return torch.rand(3)


@pytest.mark.parametrize("seed", [None, 3])
@pytest.mark.parametrize("draw", DRAWS)
def test_draws_beside_a_thread_are_the_same_and_leave_no_trace(draw, seed):
    x = torch.rand(2, 3, 4, 4)

    def drawn():
        torch.manual_seed(7)
        before = torch.get_rng_state()
        with _random.random_state_kept() if seed is None else _random.seeded(seed):
            found = [DRAWS[draw](x), DRAWS[draw](x)]
        assert torch.equal(torch.get_rng_state(), before)
        return found

    alone = drawn()
    assert nets.same(beside_a_thread(drawn), alone)
    assert nets.same(alone, [fixed(), fixed()]) == (draw == "seeded by itself")


def test_a_pass_that_draws_nothing_is_watched_once():
    """Watching takes some microseconds an operation, and a pass that draws nothing needs none of it."""
    habit, watched = _random.Habit(), []

    def passes():
        for _ in range(3):
            with _random.random_state_kept(None, habit):
                watched.append(bool(torch.utils._python_dispatch._get_current_dispatch_mode_stack()))

    beside_a_thread(passes)
    assert watched == [True, False, False]

    def disturbed():
        with _random.random_state_kept(None, habit):
            torch.rand(1)

    beside_a_thread(disturbed)
    beside_a_thread(passes)  # something was drawn, here or elsewhere
    assert watched[3:] == [True, False, False]


# ---- turns


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
        "audit": lambda: adaug.audit(model, [batch], nets.loss_fn, adaug.policies.trivial(), draws=1),
    }
    with thread(augmenter.step, model, batch, gate.loss):
        assert gate.inside.wait(30)
        with pytest.raises(RuntimeError, match=r"should be alone with .*\. Found thread 'the other one' inside `step`"):
            acts[act]()
        gate.open.set()
    assert {name: module.training for name, module in model.named_modules()} == flags
    assert augmenter.steps == 1
    assert not _turns._turns
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
    """Both run eagerly for a while, and the one that came first leaves first."""
    stance = lambda: torch._dynamo.eval_frame._stance.stance  # noqa: E731
    modules = [nn.Sequential(torch.compile(nn.Linear(2, 2), backend="eager"))]
    before = stance()
    first, second = _quiet._eager(modules[0].modules()), _quiet._eager(modules[0].modules())
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert stance() == "force_eager"
    second.__exit__(None, None, None)
    assert stance() == before


def test_a_state_is_asked_for_between_two_steps():
    """A thread that saves waits for the step: half a step is no state."""
    model, batch, gate = nets.make_network(), nets.make_batch(), Gate()
    augmenter, found = nets.make_augmenter(), []
    augmenter.bind(model, batch)
    with thread(augmenter.step, model, batch, gate.loss):
        assert gate.inside.wait(30)
        with thread(lambda: found.append(augmenter.state_dict())):
            assert not found
            gate.open.set()
    assert found[0]["steps"] == 1


def test_a_thread_may_ask_about_its_own_step():
    model, batch, augmenter = nets.make_network(), nets.make_batch(), nets.make_augmenter()
    found = []

    def loss_fn(output, batch):
        found.append(augmenter.state_dict()["steps"])
        return nets.loss_fn(output, batch)

    augmenter.step(model, batch, loss_fn)
    assert set(found) == {0}
    pickle.dumps(nets.make_augmenter(generator=None))


def test_a_fork_forgets_the_turns_of_other_threads():
    model, gate = nets.make_network(), Gate()
    augmenter = nets.make_augmenter()
    augmenter.bind(model, nets.make_batch())
    with thread(augmenter.step, model, nets.make_batch(), gate.loss):
        assert gate.inside.wait(30)
        assert len(_turns._turns) == 2
        kept = dict(_turns._turns)
        _turns._forget()  # what a forked process does first
        assert not _turns._turns
        _turns._turns.update(kept)
        gate.open.set()

"""A step that fails leaves the augmenter as it was, what lives on is made to be trained, and bad parts are refused by name."""

from __future__ import annotations

import copy
import itertools

import networks as nets
import pytest
import torch
from torch import nn

import adaug
from adaug.policies import Window


def fresh(**kwargs):
    """Generators and running difficulty in one policy."""
    asr, aho = adaug.policies.paper([(0, 1)]).branches
    running = adaug.Branch("more", [adaug.Scale(0.5, 2, 7), adaug.Rotate(-30, 30, 9)], 0.3, learned="running")
    return nets.make_augmenter(adaug.Policy([asr, aho, running]), **kwargs), nets.make_network()


def in_training(act):
    """A loss that does something else in the training pass."""

    def loss_fn(output, batch):
        losses = nets.loss_fn(output, batch)
        return act(losses) if torch.is_grad_enabled() else losses

    return loss_fn


def raises(error):
    def act(losses):
        raise error

    return act


FAILURES = {
    "an integer loss": (lambda losses: losses.long(), TypeError),
    "a bool loss": (lambda losses: losses > 0, TypeError),
    "a complex loss": (lambda losses: losses.to(torch.complex64), TypeError),
    "a loss that is a number": (lambda losses: 1.0, TypeError),
    "an exception": (raises(RuntimeError("no")), RuntimeError),
    "out of memory": (raises(torch.OutOfMemoryError("no")), torch.OutOfMemoryError),
    "an interrupt": (raises(KeyboardInterrupt), KeyboardInterrupt),
}


@pytest.mark.parametrize("name", FAILURES)
@pytest.mark.parametrize("first", [True, False], ids=["first step", "later step"])
def test_a_training_pass_that_fails_leaves_the_augmenter_as_it_was(name, first):
    act, error = FAILURES[name]
    augmenter, model = fresh()
    for i in range(0 if first else 3):
        augmenter.step(model, nets.make_batch(10, seed=i), nets.loss_fn)
    before, metrics, hooks = copy.deepcopy(augmenter.state_dict()), augmenter.metrics, nets.count_hooks(model)
    with pytest.raises(error):
        augmenter.step(model, nets.make_batch(10), in_training(act))
    assert nets.same(augmenter.state_dict(), before)
    assert augmenter.metrics.keys() == metrics.keys()
    assert all(augmenter.metrics[name] is value for name, value in metrics.items())
    assert nets.count_hooks(model) == hooks
    if first:
        augmenter.bind(nets.make_network(), nets.make_batch(10))  # it is free for another model


@pytest.mark.parametrize("moment", ["predict", "gradients", "observe"])
def test_whatever_fails_in_a_first_step_leaves_nothing_bound(moment, monkeypatch):
    from adaug.learners.adversary import Adversary
    from adaug.learners.running import Running

    owner = Running if moment == "observe" else Adversary
    monkeypatch.setattr(owner, moment, lambda *args, **kwargs: raises(RuntimeError("no"))(None))
    augmenter, model = fresh()
    before = copy.deepcopy(augmenter.state_dict())
    with pytest.raises(RuntimeError, match="no"):
        augmenter.step(model, nets.make_batch(10), nets.loss_fn)
    assert nets.same(augmenter.state_dict(), before)
    assert nets.count_hooks(model) == 0


def test_no_generator_moves_before_the_gradients_of_all_are_known(monkeypatch):
    from adaug.learners.adversary import Adversary

    augmenter, model = fresh()
    augmenter.step(model, nets.make_batch(10), nets.loss_fn)
    usual, calls, before = Adversary.gradients, itertools.count(), copy.deepcopy(augmenter.state_dict())
    monkeypatch.setattr(Adversary, "gradients", lambda *a: raises(MemoryError)(0) if next(calls) else usual(*a))
    with pytest.raises(MemoryError):
        augmenter.step(model, nets.make_batch(10), nets.loss_fn)
    calls = itertools.count()
    with pytest.raises(MemoryError):
        augmenter.pretrain(model, [nets.make_batch(4)], nets.loss_fn, steps=1, max_views=2)
    assert nets.same(augmenter.state_dict(), before)


def test_an_optimizer_that_fails_leaves_what_is_counted_and_summed():
    class Fails(torch.optim.SGD):
        def step(self, closure=None):
            if fails:
                raise RuntimeError("no")
            super().step(closure)

    fails = False
    augmenter, model = fresh(optimizer=lambda parameters: Fails(parameters, lr=0.1))
    augmenter.step(model, nets.make_batch(10), nets.loss_fn)
    before, fails = copy.deepcopy(augmenter.state_dict()), True
    with pytest.raises(RuntimeError, match="no"):
        augmenter.step(model, nets.make_batch(10), nets.loss_fn)
    assert nets.same(augmenter.state_dict(), before)
    assert all(p.grad is None for a in nets.adversaries(augmenter).values() for p in a.generator.parameters())
    fails = False
    augmenter.step(model, nets.make_batch(10), nets.loss_fn)
    assert augmenter.steps == 2


def test_a_difficulty_of_integers_is_refused():
    augmenter, model = fresh(difficulty=lambda output, batch: (nets.loss_fn(output, batch) > 1).long())
    with pytest.raises(TypeError, match=r"`difficulty` should return floating point numbers\. Found torch\.int64; use \.float"):
        augmenter.step(model, nets.make_batch(10), nets.loss_fn)
    assert augmenter.steps == 0
    assert nets.count_hooks(model) == 0


def test_distributions_that_fail_at_first_leave_nothing_bound():
    augmenter, model = fresh(generator=lambda shapes, layouts: nn.Linear(1, 1))
    with pytest.raises(TypeError):
        augmenter.distributions(model, nets.make_batch(10))
    assert nets.count_hooks(model) == 0


# ---- inference mode and no gradients


@pytest.mark.parametrize("first", ["bind", "distributions", "step"])
def test_a_first_use_in_inference_mode_does_not_poison_later_steps(first):
    augmenter, model = fresh()
    with torch.inference_mode():
        {
            "bind": lambda: augmenter.bind(model, nets.make_batch(10)),
            "distributions": lambda: augmenter.distributions(model, nets.make_batch(10)),
            "step": lambda: augmenter.step(model, nets.make_batch(10), nets.loss_fn),
        }[first]()
        assert torch.is_inference_mode_enabled()
    before = nets.generators(augmenter)
    for i in range(4):
        augmenter.step(model, nets.make_batch(10, seed=i), nets.loss_fn).loss.backward()
    assert not nets.same(nets.generators(augmenter), before)
    again, model2 = fresh()
    again.load_state_dict(augmenter.state_dict())
    again.step(model2, nets.make_batch(10), nets.loss_fn).loss.backward()


def test_a_state_that_is_loaded_in_inference_mode_can_be_trained_further():
    augmenter, model = fresh()
    augmenter.step(model, nets.make_batch(10), nets.loss_fn)
    for bound in (True, False):
        again, model2 = fresh()
        if bound:
            again.bind(model2, nets.make_batch(10))
        with torch.inference_mode():
            again.load_state_dict(augmenter.state_dict())
        for i in range(4):
            again.step(model2, nets.make_batch(10, seed=i), nets.loss_fn).loss.backward()


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_pretraining_learns_whatever_the_mode_around_it(mode):
    histories, learned = [], []
    for around in (torch.enable_grad, mode):
        augmenter, model = fresh()
        with around():
            histories.append(augmenter.pretrain(model, [nets.make_batch(4)], nets.loss_fn, steps=2, max_views=4))
        learned.append(nets.generators(augmenter))
    assert nets.same(*histories)
    assert nets.same(*learned)


@pytest.mark.parametrize(
    ("arguments", "pattern"),
    [
        ({"steps": 0}, r"`steps`.*at least 1\. Found 0"), ({"steps": -1}, "`steps`.*Found -1"),
        ({"steps": 1.5}, r"`steps`.*integer.*Found 1\.5"), ({"lr": float("nan")}, "`lr`.*Found nan"),
        ({"lr": 0}, "`lr`.*Found 0"),
        ({"lr": -1.0}, "`lr`.*above 0.*Found -1"), ({"max_views": 0}, "`max_views`.*Found 0"),
        ({"steps": "two", "lr": "fast"}, "(?s)`steps`.*'two'.*`lr`.*'fast'"), ({"loader": 3}, "`loader`.*Found 3"),
        ({"loader": nets.make_batch(2)}, r"`loader`.*Found dict, a batch itself; pass \[batch\]"),
        ({"loss_fn": None}, "`loss_fn` should be callable. Found NoneType"),
    ],
)  # fmt: skip
def test_pretraining_refuses_what_would_learn_nothing(arguments, pattern):
    augmenter, model = fresh()
    given = {"loader": [nets.make_batch(2)], "loss_fn": nets.loss_fn, "steps": 1} | arguments
    with pytest.raises((ValueError, TypeError), match=pattern):
        augmenter.pretrain(model, given.pop("loader"), given.pop("loss_fn"), **given)
    assert nets.count_hooks(model) == 0


# ---- updates, optimizers, generators, schedules


UPDATES = {
    "another shape": (lambda p: p[:, :2], r"shape|probabilities \(\d+, \d+\)\. Found shape"),
    "one row": (lambda p: p[0], "Found shape"),
    "negative": (lambda p: p - 1, "at least 0"),
    "a sum of 2": (lambda p: 2 * p, "sums to 2"),
    "NaN": (lambda p: p * torch.nan, "Found numbers from nan"),
    "a list": (lambda p: p.tolist(), "Found list"),
    "integers": (lambda p: p.long(), "Found torch.int64"),
    "nothing": (lambda p: None, "Found NoneType"),
}


@pytest.mark.parametrize("name", UPDATES)
def test_an_update_that_leaves_the_simplex_is_named_before_the_training_pass(name):
    change, pattern = UPDATES[name]
    augmenter, model = fresh(update=lambda p, chosen, harder: change(p))
    augmenter.bind(model, nets.make_batch(10))
    before, state = nets.traces(model), copy.deepcopy(augmenter.state_dict())
    with pytest.raises((ValueError, TypeError), match=rf"(?s)`update` should return.*{pattern}"):
        augmenter.step(model, nets.make_batch(10), nets.loss_fn)
    assert nets.differences(before, nets.traces(model)) == []
    assert nets.same(augmenter.state_dict(), state)


def frozen(shapes, layouts):
    return adaug.Generator(shapes, layouts).requires_grad_(False)


OTHER = nn.Linear(2, 2)
PARTS = {
    "others' parameters": ({"optimizer": lambda p: torch.optim.SGD(OTHER.parameters(), 0.1)}, "Found 2 others"),
    "not all": ({"optimizer": lambda p: torch.optim.SGD(list(p)[1:], 0.1)}, "leaves out"),
    "no optimizer": ({"optimizer": lambda p: None}, "`optimizer` should return a torch.optim.Optimizer. Found NoneType"),
    "a frozen generator": (
        {"generator": frozen},
        "`generator` should return a module with parameters.*Found Generator without",
    ),
    "no module": ({"generator": lambda shapes, layouts: None}, "`generator` should return an nn.Module. Found NoneType"),
}


@pytest.mark.parametrize("name", PARTS)
def test_an_optimizer_or_a_generator_that_cannot_learn_is_named_and_nothing_is_bound(name):
    arguments, pattern = PARTS[name]
    augmenter, model = fresh(**arguments)
    before = nets.traces(model)
    with pytest.raises((ValueError, TypeError), match=pattern):
        augmenter.step(model, nets.make_batch(10), nets.loss_fn)
    assert nets.differences(before, nets.traces(model)) == []


@pytest.mark.parametrize("share", [lambda t: float("nan"), lambda t: "half", lambda t: None, lambda t: True, lambda t: [0.5]])
def test_a_schedule_that_gives_no_number_is_named(share):
    augmenter = nets.make_augmenter(adaug.Policy([adaug.Branch("some", [adaug.Rotate(-30, 30, 9)], share)]))
    model = nets.make_network()
    with pytest.raises(ValueError, match=r"Shares should be numbers in \[0, 1\].*Found \{'some'"):
        augmenter.step(model, nets.make_batch(), nets.loss_fn)
    assert nets.count_hooks(model) == 0


@pytest.mark.parametrize(
    ("make", "pattern"),
    [
        (lambda: Window(float("nan")), "`share` of Window.*Found nan"),
        (lambda: Window("half", "a", "b"), "(?s)`share`.*`start`.*`end`"),
        (lambda: Window(0.5, 0.8, 0.2), "start <= end. Found start=0.8"),
        (lambda: adaug.AdversarialAugmenter(warmup_steps=1.5), r"`warmup_steps`.*Found 1\.5"),
        (lambda: adaug.learners.Paper(update_every=float("nan")), "`update_every`.*Found nan"),
        (lambda: adaug.AdversarialAugmenter(total_steps=0), "`total_steps`.*Found 0"),
    ],
)
def test_a_schedule_is_of_finite_numbers(make, pattern):
    with pytest.raises(ValueError, match=pattern):
        make()

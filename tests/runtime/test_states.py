"""A state is checked whole before anything is loaded: what would hurt later is refused, and a refused one changes nothing."""

# ruff: noqa: PT012
from __future__ import annotations

import copy

import networks as nets
import pytest
import torch
from torch import nn

import adaug

AHO = ("learners", "asr+aho", "aho")
MORE = ("learners", "more")
GROUP = (*AHO, "optimizer", "param_groups", 0)
KEPT = (*AHO, "optimizer", "state", 0)


def put(*path_and_value):
    """Puts a value at a path of a state."""
    *path, last, value = path_and_value

    def change(state):
        for name in path:
            state = state[name]
        state[last] = value(state[last]) if callable(value) else value

    return change


def first_sum(value):
    def change(sums):
        sums = sums.clone()
        sums[0, 1] += value
        return sums

    return change


def swapped(state):
    """The optimizer's state of a generator whose attributes stood in another order."""
    kept = nets.saved_generators(state)["aho"]["optimizer"]["state"]
    kept[0], kept[1] = kept[1], kept[0]


def reordered(state):
    saved = nets.saved_generators(state)["aho"]["generator"]
    nets.saved_generators(state)["aho"]["generator"] = dict(reversed(list(saved.items())))


def of_another_optimizer(state):
    augmenter = nets.make_augmenter(optimizer=torch.optim.RMSprop)
    augmenter.step(nets.make_network(), nets.make_batch(), nets.loss_fn)
    nets.saved_generators(state)["aho"]["optimizer"] = nets.saved_generators(augmenter.state_dict())["aho"]["optimizer"]


UNFIT = {
    "negative steps": put("steps", -5),
    "a bool for steps": put("steps", True),
    "no counts": put("counts", {}),
    "a negative count": put("counts", "random", -1),
    "progress is NaN": put("progress", float("nan")),
    "progress beyond 1": put("progress", 1.5),
    "a fraction for a seed": put("seed", 0.5),
    "a number for a measure": put("measure", 3),
    "the measure of a user": put("measure", "the user's"),
    "no learner": put("learners", "more", None),
    "a learner that is unknown": lambda state: state["learners"].update(another={}),
    "something unknown": lambda state: state.update(more=1),
    "weights are NaN": put(*AHO, "generator", "heads.occlude.1.weight", lambda w: w * torch.nan),
    "weights of another dtype": put(*AHO, "generator", "heads.occlude.1.weight", lambda w: w.half()),
    "weights are a list": put(*AHO, "generator", "heads.occlude.1.weight", [1.0]),
    "weights in another order": reordered,
    "no mapping of weights": put(*AHO, "generator", [1.0]),
    "False for weights": put(*AHO, "generator", False),
    "a number among the names of weights": lambda state: nets.saved_generators(state)["aho"]["generator"].update(
        {0: torch.ones(1)}
    ),
    "a number among the names of branches": lambda state: nets.saved_generators(state).update({0: {}}),
    "None for an optimizer": put(*AHO, "optimizer", None),
    "no mapping of a branch": put(*AHO, 3),
    "another optimizer's": of_another_optimizer,
    "a larger moment": put(*KEPT, "exp_avg", lambda value: value.new_zeros(10 * value.numel())),
    "a smaller moment": put(*KEPT, "exp_avg", lambda value: value.new_zeros(1)),
    "a moment that is one number": put(*KEPT, "exp_avg", torch.tensor(0.5)),
    "a moment that is NaN": put(*KEPT, "exp_avg", lambda value: value * torch.nan),
    "a moment is missing": lambda state: nets.saved_generators(state)["aho"]["optimizer"]["state"][0].pop("exp_avg"),
    "moments of other parameters": swapped,
    "moments of parameters beyond": lambda state: nets.saved_generators(state)["aho"]["optimizer"]["state"].update({999: {}}),
    "parameters in another order": put(*GROUP, "params", lambda numbers: numbers[::-1]),
    "parameters twice": put(*GROUP, "params", lambda numbers: [0] * len(numbers)),
    "a rate that is NaN": put(*GROUP, "lr", float("nan")),
    "a rate that is text": put(*GROUP, "lr", "fast"),
    "betas that are NaN": put(*GROUP, "betas", (0.9, float("nan"))),
    "one beta": put(*GROUP, "betas", 0.9),
    "a setting is missing": lambda state: nets.saved_generators(state)["aho"]["optimizer"]["param_groups"][0].pop("lr"),
    "a setting too many": put(*GROUP[:-1], 0, lambda group: group | {"speed": 3}),
    "no groups": put(*AHO, "optimizer", "param_groups", None),
    "running difficulty without steps": lambda state: state["learners"]["more"].pop("steps"),
    "running difficulty of negative steps": put(*MORE, "steps", -1),
    "sums that are NaN": put(*MORE, "sums", lambda sums: sums * torch.nan),
    "sums that are not symmetric": put(*MORE, "sums", first_sum(1e3)),
    "negative squares": put(*MORE, "sums", lambda sums: sums - torch.eye(len(sums)) * 1e6),
    "pending sums that are NaN": put(*MORE, "pending", lambda sums: sums + torch.nan),
    "pending sums that are not symmetric": put(*MORE, "pending", first_sum(1e3)),
    "probabilities below 0": put(*MORE, "probabilities", lambda p: p - 0.5),
    "probabilities beyond 1": put(*MORE, "probabilities", lambda p: 2 * p),
    "probabilities of bins that are not": put(*MORE, "probabilities", lambda p: torch.full_like(p, 1 / p.shape[1])),
}


def fresh(**kwargs):
    asr, aho = adaug.policies.paper([(0, 1)]).branches
    running = adaug.Branch("more", [adaug.Scale(0.5, 2, 7), adaug.Rotate(-30, 30, 9)], 0.3, learned="running")
    return nets.make_augmenter(adaug.Policy([asr, aho, running]), **kwargs), nets.make_network()


@pytest.fixture(scope="module")
def used():
    torch.manual_seed(0)
    augmenter, model = fresh()
    for i in range(5):
        augmenter.step(model, nets.make_batch(10, seed=i), nets.loss_fn)
    return augmenter, model


@pytest.fixture(scope="module")
def binding(used):
    """A bound augmenter that every bad state is offered to: none changes it."""
    augmenter, model = fresh()
    augmenter.load_state_dict(used[0].state_dict())
    augmenter.bind(model, nets.make_batch(10))
    return augmenter, model


@pytest.mark.parametrize("name", UNFIT)
def test_what_would_hurt_later_is_refused_and_changes_nothing(used, binding, name):
    state = copy.deepcopy(used[0].state_dict())
    UNFIT[name](state)
    augmenter, _ = binding
    before = copy.deepcopy(augmenter.state_dict())
    with pytest.raises((ValueError, TypeError), match=r"(?s)should .*Found"):
        augmenter.load_state_dict(state)
    assert nets.same(augmenter.state_dict(), before)


@pytest.mark.parametrize(
    "name",
    ["a larger moment", "a moment that is one number", "another optimizer's", "negative steps", "probabilities beyond 1"],
)
def test_it_is_refused_at_binding_too_and_leaves_no_hook(used, name):
    state = copy.deepcopy(used[0].state_dict())
    UNFIT[name](state)
    augmenter, model = fresh()
    before = nets.traces(model)
    with pytest.raises((ValueError, TypeError), match=r"(?s)should .*Found"):
        augmenter.load_state_dict(state)
        augmenter.bind(model, nets.make_batch(10))
    assert nets.differences(before, nets.traces(model)) == []


def test_several_mistakes_are_named_at_once(used):
    state = copy.deepcopy(used[0].state_dict()) | {"steps": -5, "counts": {}, "progress": float("nan")}
    with pytest.raises(ValueError, match=r"(?s)`steps`.*Found -5.*`progress`.*Found nan.*`counts.random`"):
        fresh()[0].load_state_dict(state)


def test_a_loaded_state_goes_on_and_no_two_augmenters_share_it(used, binding):
    augmenter, model = binding
    state = copy.deepcopy(used[0].state_dict())
    augmenter.load_state_dict(state)
    augmenter.step(model, nets.make_batch(10), nets.loss_fn)
    assert nets.same(state, used[0].state_dict())


class Pair(nn.Module):
    """A generator of two layers, in one order or the other."""

    def __init__(self, shapes, layouts, order):
        super().__init__()
        for name in order:
            setattr(self, name, nn.Linear(3, 3 if name == "first" else 16))

    def forward(self, features):
        return {"occlude": self.last(self.first(features[0].mean((2, 3))))}


def paired(order):
    policy = adaug.Policy([adaug.Branch("aho", [adaug.OccludeImage()], 0.5)])
    make = nets.make_augmenter(
        policy, features=(), occlude=None, generator=lambda shapes, layouts: Pair(shapes, layouts, order)
    )
    model = nets.make_network()
    make.step(model, nets.make_batch(), nets.loss_fn)
    return make, model


def test_a_generator_whose_attributes_were_reordered_is_told_so():
    one, _model = paired(["first", "last"])
    other, _model2 = paired(["last", "first"])
    before = copy.deepcopy(other.state_dict())
    with pytest.raises(ValueError, match="in the generator's order"):
        other.load_state_dict(one.state_dict())
    assert nets.same(other.state_dict(), before)


OPTIMIZERS = {
    "SGD": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    "RMSprop": torch.optim.RMSprop,
    "AdamW": lambda p: torch.optim.AdamW(p, lr=1e-3, amsgrad=True),
    "Adagrad": torch.optim.Adagrad,
    "plain SGD": lambda p: torch.optim.SGD(p, lr=0.1),
    "Adafactor": torch.optim.Adafactor,
}


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("steps", [0, 2])
def test_the_state_of_any_optimizer_loads(name, steps):
    policy = adaug.Policy([adaug.Branch("aho", [adaug.OccludeImage()], 0.5)])
    one, two = (nets.make_augmenter(policy, features=(), occlude=None, optimizer=OPTIMIZERS[name]) for _ in range(2))
    models = nets.make_network(), nets.make_network()
    one.bind(models[0], nets.make_batch())
    for i in range(steps):
        one.step(models[0], nets.make_batch(seed=i), nets.loss_fn)
    two.bind(models[1], nets.make_batch())
    two.load_state_dict(one.state_dict())
    assert nets.same(two.state_dict(), one.state_dict())

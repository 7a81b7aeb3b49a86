"""Subclasses of Tensor come back to the user, and do not leak into what learners sum up and save."""

import io

import pytest
import torch
from torch import nn

import adaug
from adaug import AdversarialAugmenter, Branch, Policy, Rotate

N = 6


class Meta(torch.Tensor):
    """As MONAI's MetaTensor: every function returns the class, with what it carries."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        made = super().__torch_function__(func, types, args, kwargs or {})
        carried = next((vars(arg) for arg in args if isinstance(arg, Meta)), {})
        if isinstance(made, Meta):
            vars(made).update(carried)
        return made


class Strict(torch.Tensor):
    """A class that refuses many functions."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        if func in (torch.where, torch.stack, torch.cat, torch.Tensor.index_select, nn.functional.grid_sample):
            raise NotImplementedError(func.__name__)
        return super().__torch_function__(func, types, args, kwargs or {})


def wrapped(tensor, kind, **carried):
    made = tensor.as_subclass(kind)
    vars(made).update(carried)
    return made


def make_batch(kind, seed=0):
    noise = torch.Generator().manual_seed(seed)
    batch = {
        "image": torch.rand(N, 3, 16, 16, generator=noise), "keypoints": torch.rand(N, 4, 2, generator=noise) * 15,
        "mask": torch.randint(0, 3, (N, 16, 16), generator=noise), "label": torch.randint(0, 3, (N,), generator=noise),
    }  # fmt: skip
    return batch if kind is None else {name: wrapped(value, kind, affine="A") for name, value in batch.items()}


def loss_fn(output, batch):
    return (output.mean((2, 3)) - batch["keypoints"].mean((1, 2))[:, None]).square().mean(1) + 0 * batch["label"]


def forward(model, batch):
    return model(batch["image"])


LEARNED = {"running": "running", "paper": adaug.learners.Paper(features=()), "none": False}


def is_plain(tree):
    if isinstance(tree, dict):
        return all(map(is_plain, tree.values()))
    if isinstance(tree, (list, tuple)):
        return all(map(is_plain, tree))
    return not isinstance(tree, torch.Tensor) or type(tree) in (torch.Tensor, nn.Parameter)


@pytest.mark.parametrize("kind", [Meta, Strict])
@pytest.mark.parametrize("learned", LEARNED)
@pytest.mark.parametrize("call", [None, forward], ids=["model(images)", "forward"])
@pytest.mark.parametrize("measure", [None, loss_fn], ids=["found", "given"])
def test_states_are_plain_and_load_anywhere(kind, learned, call, measure):
    if kind is Strict and (call or measure):
        return  # the user's own functions would meet it too
    policy = Policy([Branch("turn", [Rotate(-40, 40, 5)], 0.7, LEARNED[learned])])

    def trained(of):
        torch.manual_seed(0)
        model, augmenter = nn.Conv2d(3, 4, 3, padding=1), AdversarialAugmenter(policy, seed=0, forward=call, difficulty=measure)
        for i in range(9):
            result = augmenter.step(model, make_batch(of, i), loss_fn)
            result.loss.backward()
        return augmenter, result, model

    augmenter, result, model = trained(kind)
    state = augmenter.state_dict()
    assert is_plain(state)
    assert is_plain(result.metrics)
    buffer = io.BytesIO()
    torch.save(state, buffer)
    loaded = torch.load(io.BytesIO(buffer.getvalue()), weights_only=True)
    again = AdversarialAugmenter(policy, seed=0, forward=call, difficulty=measure)
    again.load_state_dict(loaded)
    again.step(model, make_batch(kind, 9), loss_fn)
    plain = trained(None)[0].state_dict()
    assert str(plain["learners"]) == str(state["learners"])


@pytest.mark.parametrize("kind", [Meta, Strict])
def test_the_user_gets_the_class_back(kind):
    batch, bare = make_batch(kind), make_batch(None)
    views = [(Rotate(-40, 40, 5), 30.0)]
    made, expected = adaug.apply_view(batch, views), adaug.apply_view(bare, views)
    for name, value in made.items():
        assert type(value) is kind
        assert value.affine == "A"
        assert torch.equal(value.as_subclass(torch.Tensor), expected[name])
    assert adaug.apply_view(batch, [])["image"] is batch["image"]


def test_difficulties_of_a_class_are_summed_as_numbers():
    augmenter = AdversarialAugmenter(Policy([Branch("turn", [Rotate(-40, 40, 5)], 0.7, "running")]), seed=0)
    for i in range(9):
        batch = augmenter.draw(make_batch(Meta, i))
        augmenter.observe(difficulty=batch["image"].mean((1, 2, 3)))
    assert is_plain(augmenter.state_dict())
    batch = {name: value for name, value in make_batch(Meta).items() if name != "mask"}
    report = adaug.audit(nn.Identity(), [batch], lambda out, batch: out.mean((1, 2, 3)), [Rotate(-40, 40, 3)])
    assert report.scores.shape[0] == N

"""Every kind of network trains; stacks, copies and several augmenters keep apart."""

from __future__ import annotations

import copy

import networks as nets
import pytest
import torch
from torch import nn


@pytest.mark.parametrize("network", nets.NETWORKS)
def test_every_kind_of_network_trains(network):
    model, augmenter = nets.make_network(network), nets.make_augmenter(network=network)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for i in range(3):
        result = augmenter.step(model, nets.make_batch(9, seed=i), nets.loss_fn)
        optimizer.zero_grad()
        result.loss.backward()
        optimizer.step()
        assert result.losses.shape == result.branch.shape == (9,)
        assert result.branch.dtype == torch.long
        assert result.branch.bincount(minlength=3).tolist() == [3, 3, 3]
        assert all(isinstance(v, torch.Tensor) and not v.requires_grad for v in result.metrics.values())
        assert {"loss/random", "loss/asr", "loss/aho", "reward_rate/asr", "reward_rate/aho"} <= result.metrics.keys()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize("returns", ["list", "dict"])
def test_every_stack_is_masked(returns):
    model = nets.Hourglass(returns=returns).eval()
    result = nets.occluding().step(model, nets.make_batch(), lambda output, batch: stacks_of(output).sum(0))
    twin = nets.clean_copy(model)
    with nets.masked_by_hand(twin, nets.HOURGLASS_BRIDGES, [mask for _, mask in result.view.feature_masks]):
        expected = stacks_of(twin(result.batch["image"]))
    plain = stacks_of(twin(result.batch["image"]))
    assert torch.equal(result.losses, expected.sum(0))
    assert (expected != plain).all()  # in each of the stacks


def stacks_of(output):
    maps = list(output.values()) if isinstance(output, dict) else output
    return torch.stack([heat.square().flatten(1).mean(1) for heat in maps])


@pytest.mark.parametrize("network", nets.NETWORKS)
@pytest.mark.parametrize("features", [None, ()])
def test_layers_found_by_itself_or_none_at_all(network, features):
    model = nets.make_network(network)
    augmenter = nets.make_augmenter(network=network, features=features, occlude=None)
    result = augmenter.step(model, nets.make_batch(), nets.loss_fn)
    result.loss.backward()
    assert all(p.grad is not None for p in model.parameters())
    assert ("the image" in repr(augmenter)) == (features == ())
    for name in augmenter._state.bound.hooks.features:
        assert name in repr(augmenter)


def test_a_model_that_was_deepcopied_can_have_an_augmenter_of_its_own():
    model, first = nets.make_network().eval(), nets.occluding()
    first.bind(model, nets.make_batch())
    second = copy.deepcopy(model)
    a = first.step(model, nets.make_batch(), nets.loss_fn)
    b = nets.occluding().step(second, nets.make_batch(), nets.loss_fn)
    assert torch.equal(a.losses, b.losses)


def test_two_augmenters_on_one_model_do_not_meet_each_others_masks():
    model, first, second = nets.make_network().eval(), nets.occluding(), nets.occluding(seed=5)
    first.bind(model, nets.make_batch())
    second.bind(model, nets.make_batch())
    for augmenter in (first, second):
        result = augmenter.step(model, nets.make_batch(), nets.loss_fn)
        assert torch.equal(result.losses, nets.replayed(nets.clean_copy(model), result))


def test_inference_mode_is_put_back_and_refused_clearly_or_works():
    model, augmenter = nets.make_network(), nets.make_augmenter()
    augmenter.bind(model, nets.make_batch())
    with torch.inference_mode():
        found = augmenter.distributions(model, nets.make_batch())
    torch.testing.assert_close(found["asr.scale"].sum(1), torch.ones(9))
    result = augmenter.step(model, nets.make_batch(), nets.loss_fn)
    result.loss.backward()
    assert all(p.grad is not None for p in model.parameters() if isinstance(p, nn.Parameter))

"""Activation checkpointing: masks are there when a layer is run again, or the step says why not."""

# ruff: noqa: PT017
from __future__ import annotations

import networks as nets
import pytest
import torch


def checkpointed(use_reentrant):
    model = nets.Hourglass(checkpointing=use_reentrant)
    model.load_state_dict(nets.make_network().state_dict())
    return model


REENTRANT = pytest.mark.parametrize("use_reentrant", [False, True], ids=["not reentrant", "reentrant"])
QUIET = pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")


@REENTRANT
@QUIET
@pytest.mark.parametrize("how", ["loss", "losses", "autograd.grad", "accumulated", "with another term", "twice"])
def test_checkpointed_gradients_equal_the_plain_ones(use_reentrant, how):
    if use_reentrant and how in ("autograd.grad", "twice"):
        pytest.skip("torch itself refuses these through reentrant checkpoints")
    grads = []
    for model in (checkpointed(use_reentrant).train(), checkpointed(None).train()):
        torch.manual_seed(0)
        augmenter = nets.occluding(0.7)
        for i in range(2):
            if how != "accumulated":
                model.zero_grad()
            result = augmenter.step(model, nets.make_batch(8, seed=i), nets.loss_fn)
            loss = result.loss
            if how == "losses":
                loss = (result.losses * torch.arange(8)).sum()
            elif how == "with another term":
                loss = loss + 1e-2 * sum(p.square().sum() for p in model.parameters())
            if how == "autograd.grad":
                found = torch.autograd.grad(loss, list(model.parameters()))
                for parameter, grad in zip(model.parameters(), found, strict=True):
                    parameter.grad = grad
            elif how == "twice":
                loss.backward(retain_graph=True)
                loss.backward()
            else:
                loss.backward()
        grads.append(nets.gradients(model))
    assert nets.close_gradients(*grads)


@REENTRANT
@QUIET
@pytest.mark.parametrize("between", ["another step", "validation", "a forward of another batch"])
def test_a_checkpointed_step_that_cannot_be_right_raises_or_is_right(use_reentrant, between):
    """Several steps before one backward, or other runs in between: the right gradients or a RuntimeError."""
    grads = []
    for model in (checkpointed(use_reentrant).train(), checkpointed(None).train()):
        torch.manual_seed(0)
        augmenter = nets.occluding(0.7)
        loss = augmenter.step(model, nets.make_batch(8), nets.loss_fn).loss
        if between == "another step":
            loss = loss + augmenter.step(model, nets.make_batch(8, seed=1), nets.loss_fn).loss
        elif between == "validation":
            with torch.no_grad():
                model.eval()(nets.make_batch(8, seed=1)["image"])
            model.train()
        else:
            loss = loss + model(nets.make_batch(8, seed=1)["image"]).square().mean()
        try:
            loss.backward()
        except RuntimeError as error:
            assert "checkpoint" in str(error)
            assert model.checkpointing is not None
            model.zero_grad()
            augmenter.step(model, nets.make_batch(8), nets.loss_fn).loss.backward()  # and it can go on
            return
        grads.append(nets.gradients(model))
    assert nets.close_gradients(*grads)


@REENTRANT
@QUIET
def test_a_checkpointed_model_is_plain_outside_a_step(use_reentrant):
    model, augmenter, image = checkpointed(use_reentrant).eval(), nets.occluding(), nets.make_batch()["image"]
    augmenter.step(model, nets.make_batch(), nets.loss_fn).loss.backward()
    twin = nets.clean_copy(model)
    model.zero_grad()
    model(image).sum().backward()
    twin(image).sum().backward()
    assert nets.close_gradients(nets.gradients(model), nets.gradients(twin))

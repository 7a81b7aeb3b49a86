"""A default dtype of float64 is the user's affair: the same views are drawn, and everything still runs."""

import networks as nets
import numpy as np
import pytest
import torch

import adaug
from adaug import policies


@pytest.fixture
def double():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


SINGLE = nets.make_batch(9)
DOUBLE = {name: value.double() if value.is_floating_point() else value for name, value in SINGLE.items()}


def test_the_same_views_are_drawn(double):
    augmenter = nets.make_augmenter(policies.paper([(0, 1)]))
    found = augmenter.random(DOUBLE)
    torch.set_default_dtype(torch.float32)
    expected = nets.make_augmenter(policies.paper([(0, 1)])).random(SINGLE)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, check_dtype=False, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("scoring", ["eval", "train"])
def test_a_step_runs_and_keeps_the_dtype(double, scoring):
    model, augmenter = nets.make_network(), nets.make_augmenter(scoring=scoring)
    result = augmenter.step(model, DOUBLE, nets.loss_fn)
    assert {result.losses.dtype, result.batch["image"].dtype, result.batch["keypoints"].dtype} == {torch.float64}
    assert result.losses.isfinite().all()
    result.loss.backward()


def test_pretraining_runs(double):
    nets.make_augmenter().pretrain(nets.make_network(), [DOUBLE], nets.loss_fn, steps=1, max_views=2)


def test_a_network_can_be_audited(double):
    found = adaug.audit(
        nets.make_network(), [DOUBLE], nets.loss_fn, [adaug.Rotate(-30, 30, 3)], higher_is_better=False, num_draws=2
    )
    assert np.isfinite(found.scores).all()

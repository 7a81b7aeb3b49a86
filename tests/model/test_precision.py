"""Mixed precision, gradient scaling and accumulation: the gradients are those of a plain pass."""

from __future__ import annotations

import networks as nets
import pytest
import torch


@pytest.mark.parametrize("look_first", [False, True])
@pytest.mark.parametrize("backward_inside", [False, True])
def test_bf16_autocast_trains_every_weight_as_a_plain_pass_would(backward_inside, look_first):
    model, augmenter = nets.make_network(), nets.make_augmenter()
    for i in range(2):
        twin, batch = nets.clean_copy(model), nets.make_batch(12, seed=i)
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            if look_first:
                augmenter.distributions(model, batch)
            state = torch.get_rng_state()
            result = augmenter.step(model, batch, nets.loss_fn)
            if backward_inside:
                result.loss.backward()
        if not backward_inside:
            result.loss.backward()
        torch.set_rng_state(state)
        with torch.autocast("cpu", torch.bfloat16):
            losses = nets.replayed(twin, result)
        losses.mean().backward()
        assert torch.equal(result.losses, losses)
        assert all(p.grad is not None and p.grad.any() for p in model.parameters() if p.ndim > 1)
        assert nets.same(nets.gradients(model), nets.gradients(twin))
        assert all(state.dtype == torch.float32 for state in nets.adversaries(augmenter)["asr"].generator.parameters())
        assert torch.is_autocast_cache_enabled()


def test_looking_inside_autocast_does_not_cost_the_users_own_pass_its_gradients():
    model, augmenter, batch = nets.make_network(), nets.make_augmenter(), nets.make_batch()
    augmenter.bind(model, batch)
    with torch.autocast("cpu", torch.bfloat16):
        augmenter.distributions(model, batch)
        augmenter.pretrain(model, [batch], nets.loss_fn, steps=1, max_views=2)
        nets.loss_fn(model(batch["image"]), batch).mean().backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_models_and_images_of_other_precision(dtype):
    model, batch = nets.make_network().to(dtype), nets.make_batch()
    batch["image"] = batch["image"].to(dtype)
    result = nets.make_augmenter().step(model, batch, nets.loss_fn)
    result.loss.backward()
    assert result.batch["image"].dtype == dtype
    assert all(p.grad is not None and p.grad.dtype == dtype for p in model.parameters())


def test_grad_scaler_changes_nothing_but_the_scale():
    def train(scaler):
        torch.manual_seed(0)
        model, augmenter = nets.make_network(), nets.make_augmenter()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for i in range(4):
            result = augmenter.step(model, nets.make_batch(6, seed=i), nets.loss_fn)
            optimizer.zero_grad()
            scaler.scale(result.loss).backward()
            scaler.step(optimizer)
            scaler.update()
        return model.state_dict(), augmenter.state_dict()

    on, off = (train(torch.amp.GradScaler("cpu", init_scale=2.0**8, enabled=enabled)) for enabled in (True, False))
    assert nets.same(on, off)


def test_grad_scaler_skips_a_step_that_overflows_and_goes_on():
    model, augmenter = nets.make_network(), nets.make_augmenter()
    optimizer, scaler = torch.optim.SGD(model.parameters(), lr=0.1), torch.amp.GradScaler("cpu", init_scale=2.0**8)

    def overflows(output, batch):
        return nets.loss_fn(output, batch) * torch.tensor([torch.inf] + [1.0] * (len(output) - 1))

    before = nets.cloned(dict(model.named_parameters()))
    scaler.scale(augmenter.step(model, nets.make_batch(), overflows).loss).backward()
    scaler.step(optimizer)
    scaler.update()
    assert scaler.get_scale() == 2.0**7
    assert nets.same(nets.cloned(dict(model.named_parameters())), before)
    optimizer.zero_grad()
    scaler.scale(augmenter.step(model, nets.make_batch(), nets.loss_fn).loss).backward()
    scaler.step(optimizer)
    assert all(torch.isfinite(p).all() for p in model.parameters())
    assert torch.isfinite(torch.cat([p.flatten() for p in nets.adversaries(augmenter)["aho"].generator.parameters()])).all()


@pytest.mark.parametrize("at_once", [False, True], ids=["backward each", "one backward"])
def test_gradients_accumulate_over_steps(at_once):
    model, augmenter = nets.make_network().eval(), nets.make_augmenter()
    twin = nets.clean_copy(model)
    results = []
    for i in range(3):
        results.append(augmenter.step(model, nets.make_batch(8, seed=i), nets.loss_fn))
        if not at_once:
            (results[-1].loss / 3).backward()
    if at_once:
        (sum(result.loss for result in results) / 3).backward()
    for result in results:
        (nets.replayed(twin, result).mean() / 3).backward()
    for (name, mine), theirs in zip(model.named_parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, msg=name, rtol=1e-5, atol=1e-7)


def test_a_default_of_double_precision_is_for_the_user_alone():
    model, batch = nets.make_network(), nets.make_batch(12)
    torch.set_default_dtype(torch.float64)
    try:
        augmenter = nets.make_augmenter()
        augmenter.step(model, batch, nets.loss_fn).loss.backward()
    finally:
        torch.set_default_dtype(torch.float32)
    dtypes = {p.dtype for adversary in nets.adversaries(augmenter).values() for p in adversary.generator.parameters()}
    assert dtypes == {torch.float32}


def test_an_image_of_huge_values_does_not_end_the_generators():
    model, batch = nets.make_network(), nets.make_batch(12)
    augmenter = nets.make_augmenter(features=(), occlude=())
    augmenter.step(model, batch, nets.loss_fn)
    batch["image"][3] = 1e25
    for _ in range(4):
        augmenter.step(model, batch, nets.loss_fn)
    for adversary in nets.adversaries(augmenter).values():
        assert all(torch.isfinite(parameter).all() for parameter in adversary.generator.parameters())

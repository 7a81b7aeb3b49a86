"""Bad input gets a typed error that says what was found, and nothing is lost: the next good step goes on."""

# ruff: noqa: E501
from __future__ import annotations

import copy
import dataclasses

import networks as nets
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import adaug

BATCH = nets.make_batch(6)


def with_entry(**entries):
    return lambda: {**nets.make_batch(6), **entries}


def losses(change):
    return lambda output, batch: change(nets.loss_fn(output, batch))


# name -> (batch, loss_fn, type, a pattern of the message)
BAD = {
    "scalar loss": (None, losses(torch.mean), ValueError, r"\(\d,\).*Found shape \(\).*reduction='none'"),
    "loss of two numbers a row": (None, losses(lambda x: torch.stack([x, x], 1)), ValueError, r"Found shape \(\d, 2\)"),
    "loss of too few rows": (None, losses(lambda x: x[:1]), ValueError, r"Found shape \(1,\)"),
    "loss of too many rows": (None, losses(lambda x: torch.cat([x, x])), ValueError, r"Found shape \(\d+,\)"),
    "loss is a float": (None, losses(lambda x: 1.0), TypeError, "tensor.*Found float"),
    "loss is an array": (None, losses(lambda x: x.detach().numpy()), TypeError, "tensor.*Found ndarray"),
    "loss is None": (None, losses(lambda x: None), TypeError, "Found NoneType"),
    "empty batch": (lambda: {key: value[:0] for key, value in nets.make_batch(6).items()}, None, ValueError, "row.*Found an empty"),
    "integer images": (with_entry(image=torch.zeros(6, 3, 32, 32, dtype=torch.int32)), None, TypeError, "Found torch.int32.*255"),
    "images without channels": (with_entry(image=torch.zeros(6, 32, 32)), None, ValueError, r"Found \(6, 32, 32\)"),
    "images as an array": (with_entry(image=np.zeros((6, 3, 32, 32), np.float32)), None, TypeError, "Found ndarray"),
    "a tensor of unknown kind": (with_entry(depth=torch.zeros(6, 32, 32)), None, ValueError, r"Found 'depth'.*targets=\{'depth'"),
    "an array of unknown kind": (with_entry(depth=np.zeros((6, 32, 32))), None, ValueError, "Found 'depth'"),
    "keypoints of other rows": (with_entry(keypoints=torch.zeros(5, 2, 2)), None, ValueError, r"6 rows.*Found \(5, 2, 2\)"),
    "keypoints of one number": (with_entry(keypoints=torch.zeros(6, 2, 1)), None, ValueError, r"Found \(6, 2, 1\)"),
    "integer keypoints": (with_entry(keypoints=torch.zeros(6, 2, 2).long()), None, TypeError, "Found torch.int64"),
    "visibility of other joints": (with_entry(visibility=torch.ones(6, 3)), None, ValueError, r"Found \(6, 3\)"),
    "labels of other rows": (with_entry(label=torch.zeros(5).long()), None, ValueError, r"Found \(5,\)"),
    "no image": (lambda: {"keypoints": torch.zeros(6, 2, 2)}, None, ValueError, "Found 0"),
    "two images": (with_entry(img=torch.zeros(6, 3, 32, 32)), None, ValueError, "Found 2"),
    "no batch at all": (lambda: torch.zeros(6, 3, 32, 32), None, TypeError, "Found Tensor"),
    "None for a batch": (lambda: None, None, TypeError, "Found NoneType"),
    "joints fewer than the flip's": (with_entry(keypoints=torch.zeros(6, 1, 2), visibility=torch.ones(6, 1)), None, ValueError, "Found 1"),
    "images below 0": (with_entry(image=torch.randn(6, 3, 32, 32)), None, ValueError, r"\[0, 1\].*Found"),
    "images up to 255": (with_entry(image=255 * torch.rand(6, 3, 32, 32)), None, ValueError, r"\[0, 1\].*Found.*25"),
}  # fmt: skip


def make_augmenter(**kwargs):
    policy = adaug.policies.paper([(0, 1)])
    return nets.make_augmenter(adaug.Policy(policy.branches, [*policy.common, adaug.Brightness(0.8, 1.2, 3)]), **kwargs)


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("moment", ["first step", "later step"])
def test_bad_input_is_an_error_that_helps_and_costs_nothing(name, moment):
    batch, loss_fn, kind, pattern = BAD[name]
    model, augmenter = nets.make_network(), make_augmenter()
    if moment == "later step":
        augmenter.step(model, nets.make_batch(6), nets.loss_fn)
    before, state = nets.traces(model), copy.deepcopy(augmenter.state_dict())
    given = (batch or (lambda: nets.make_batch(6)))()
    with pytest.raises(kind, match=f"(?s){pattern}"):
        augmenter.step(model, given, loss_fn or nets.loss_fn)
    changed = nets.differences(before, nets.traces(model))
    assert changed in ([], ["hooks"] if moment == "first step" else [])
    found = augmenter.state_dict()
    if moment == "first step" and changed:  # it had bound itself before the loss was known: generators came, no more
        found["learners"] = state["learners"]
    assert nets.same(found, state)
    assert torch.isfinite(augmenter.step(model, nets.make_batch(6), nets.loss_fn).losses).all()


@pytest.mark.parametrize("name", [name for name in BAD if "loss" not in name and "images" not in name[:6]])
@pytest.mark.parametrize("act", ["bind", "distributions", "random", "pretrain"])
def test_other_entrances_check_a_batch_alike(name, act):
    batch, _, kind, pattern = BAD[name]
    model, augmenter = nets.make_network(), make_augmenter()
    before = nets.traces(model)
    with pytest.raises(kind, match=f"(?s){pattern}"):
        {
            "bind": lambda: augmenter.bind(model, batch()),
            "distributions": lambda: augmenter.distributions(model, batch()),
            "random": lambda: augmenter.random(batch()),
            "pretrain": lambda: augmenter.pretrain(model, [batch()], nets.loss_fn, steps=1),
        }[act]()
    assert nets.differences(before, nets.traces(model)) == []


# ---- layers and models


class Idle(nn.Module):
    """Has a layer that its forward never calls, and one that returns no feature map."""

    def __init__(self):
        super().__init__()
        self.encoder, self.idle = nn.Conv2d(3, 8, 3, 4, 1), nn.Conv2d(3, 8, 3)
        self.alias = self.encoder
        self.flat = nn.Flatten()
        self.head = nn.Linear(512, 3)

    def forward(self, x):
        return self.head(self.flat(self.encoder(x)))


@pytest.mark.parametrize("argument", ["features", "occlude"])
@pytest.mark.parametrize(("layers", "pattern"), [
    (["encodr"], "Found 'encodr'.*encoder"),
    (["encoder", "skip*"], r"Found 'skip\*'"),
    (["idle"], "Found.*idle.*encoder"),
    (["flat"], "Found.*flat.*encoder"),
    (["head"], "Found.*head.*encoder"),
])  # fmt: skip
def test_layers_that_cannot_serve_are_named_before_anything_is_attached(argument, layers, pattern):
    model = Idle()
    before = nets.traces(model)
    augmenter = nets.make_augmenter(**{"features": ["encoder"], "occlude": ["encoder"], argument: layers})
    with pytest.raises(ValueError, match=f"(?s)`?{argument}.*{pattern}"):
        augmenter.step(model, BATCH, class_loss)
    assert nets.differences(before, nets.traces(model)) == []


def class_loss(output, batch):
    return F.cross_entropy(output, batch["label"], reduction="none")


def test_a_policy_without_generators_reads_no_layer():
    trivial = adaug.policies.trivial([(0, 1)])
    augmenter = nets.make_augmenter(trivial)
    augmenter.step(nets.make_network(), nets.make_batch(10), nets.loss_fn)
    assert "features=the image" in repr(augmenter)


@pytest.mark.parametrize("policy", [adaug.policies.robust(()), adaug.policies.trivial(())], ids=["robust", "trivial"])
def test_layers_to_mask_that_no_policy_masks_are_told_of(policy, caplog):
    adaug.AdversarialAugmenter(policy)
    adaug.AdversarialAugmenter(policy, occlude=())
    adaug.AdversarialAugmenter(adaug.policies.paper(), occlude=["encoder"])
    assert not caplog.records
    adaug.AdversarialAugmenter(policy, occlude=["encoder"])
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "It is not used" in record.message


def test_a_layer_answers_to_each_of_its_names():
    model = Idle()
    augmenter = nets.make_augmenter(features=["alias"], occlude=["alias", "encoder"])
    augmenter.bind(model, BATCH)
    assert nets.count_hooks(model) == 1
    result = augmenter.step(model, BATCH, class_loss)
    result.loss.backward()


def test_a_layer_that_is_no_longer_called_is_an_error_and_not_silence():
    model = nets.make_network()
    augmenter = nets.make_augmenter()
    augmenter.step(model, BATCH, nets.loss_fn)
    model.stacks = nn.ModuleList([nets.Stack(8, True, 0.0) for _ in range(2)])
    before, state = nets.traces(model), copy.deepcopy(augmenter.state_dict())
    with pytest.raises(RuntimeError, match=r"(?s)Found.*stacks\.0\."):
        augmenter.step(model, BATCH, nets.loss_fn)
    assert nets.differences(before, nets.traces(model)) == []
    assert nets.same(augmenter.state_dict(), state)


def test_a_second_model_is_refused():
    model, augmenter = nets.make_network(), nets.make_augmenter()
    augmenter.step(model, BATCH, nets.loss_fn)
    state, other = copy.deepcopy(augmenter.state_dict()), nets.make_network()
    before = nets.traces(other)
    for act in (lambda: augmenter.step(other, BATCH, nets.loss_fn), lambda: augmenter.bind(other, BATCH)):
        with pytest.raises(ValueError, match=r"one model\. Found.*Hourglass"):
            act()
    assert nets.differences(before, nets.traces(other)) == []
    assert nets.same(augmenter.state_dict(), state)
    augmenter.step(model, BATCH, nets.loss_fn)


def test_data_parallel_over_several_devices_is_refused():
    model = nets.make_network()
    before = nets.traces(model)
    wrapped = nn.DataParallel(model)
    wrapped.device_ids = [0, 1]
    with pytest.raises(TypeError, match=r"DataParallel on devices \[0, 1\].*give `step` the model inside, `model.module`"):
        nets.make_augmenter(features=()).step(wrapped, BATCH, nets.loss_fn)
    assert nets.differences(before, nets.traces(model)) == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="it would move the model there")
@pytest.mark.parametrize("devices", [[], [0]])
def test_data_parallel_of_one_device_is_looked_through(devices):
    model, own = nets.make_network().eval(), nets.make_network().eval()
    wrapped = nn.DataParallel(model)
    wrapped.device_ids = devices
    wrapped.forward = model.forward  # what it does on one
    result = nets.make_augmenter(seed=0).step(wrapped, BATCH, nets.loss_fn)
    expected = nets.make_augmenter(seed=0).step(own, BATCH, nets.loss_fn)
    assert torch.equal(result.losses, expected.losses)


def test_a_model_that_is_no_module_is_refused():
    with pytest.raises(TypeError, match="Found"):
        nets.make_augmenter().step(lambda image: image, BATCH, nets.loss_fn)


@pytest.mark.parametrize(("kwargs", "kind", "pattern"), [
    ({"policy": "paper"}, TypeError, "Found str"),
    ({"warmup_steps": -1}, ValueError, "Found -1"),
    ({"total_steps": 0}, ValueError, "Found.*0"),
    ({"targets": {"image": "picture"}}, (TypeError, ValueError), "Found 'picture'"),
    ({"output_size": -4}, (TypeError, ValueError), "Found.*-4"),
    ({"output_size": (32,)}, (TypeError, ValueError), "Found.*32"),
    ({"difficulty": 0.3}, TypeError, "Found"),
    ({"seed": "seven"}, TypeError, "Found"),
])  # fmt: skip
def test_bad_arguments_are_refused_at_construction(kwargs, kind, pattern):
    with pytest.raises(kind, match=pattern):
        adaug.AdversarialAugmenter(**kwargs)


@pytest.mark.parametrize(("kwargs", "kind", "pattern"), [
    ({"update_every": 0}, ValueError, "`update_every` of Paper.*Found.*0"),
    ({"update": 0.3}, TypeError, "`update` of Paper.*Found"),
    ({"scoring": "both"}, ValueError, "`scoring` of Paper.*Found 'both'"),
    ({"features": "layer1"}, (TypeError, ValueError), "`features` of Paper.*Found"),
])  # fmt: skip
def test_bad_settings_of_a_learner_are_refused_at_construction(kwargs, kind, pattern):
    with pytest.raises(kind, match=pattern):
        adaug.learners.Paper(**kwargs)


def test_two_learners_that_run_the_model_are_refused_at_construction():
    one, other = adaug.learners.Paper(), adaug.learners.Paper(update_every=2)
    asr, aho = adaug.policies.paper().branches
    policy = adaug.Policy([dataclasses.replace(asr, learned=one), dataclasses.replace(aho, learned=other)])
    with pytest.raises(ValueError, match=r"(?s)should share one learner\. Found Paper\(.*update_every=2.*same object"):
        adaug.AdversarialAugmenter(policy)
    equal = adaug.Policy([dataclasses.replace(branch, learned=adaug.learners.Paper(features=())) for branch in (asr, aho)])
    augmenter = adaug.AdversarialAugmenter(equal, seed=0)  # equal ones are one
    augmenter.step(nets.make_network(), BATCH, nets.loss_fn)
    assert nets.adversaries(augmenter).keys() == {"asr", "aho"}


@pytest.mark.parametrize("name", ["steps", "metrics", "seed", "total_steps"])
def test_what_steps_count_is_only_read(name):
    with pytest.raises(AttributeError):
        setattr(nets.make_augmenter(), name, 0)


@pytest.mark.parametrize("act", ["step", "pretrain"])
@pytest.mark.parametrize("scoring", ["eval", "train"])
def test_a_difficulty_of_the_wrong_shape_leaves_nothing_bound_and_is_named(act, scoring):
    augmenter, model = (
        nets.make_augmenter(difficulty=lambda output, batch: torch.zeros(2, 2), scoring=scoring),
        nets.make_network(),
    )
    before, state = nets.traces(model), copy.deepcopy(augmenter.state_dict())
    acts = {
        "step": lambda: augmenter.step(model, nets.make_batch(6), nets.loss_fn),
        "pretrain": lambda: augmenter.pretrain(model, [nets.make_batch(6)], nets.loss_fn, steps=1),
    }
    with pytest.raises(ValueError, match=r"`difficulty` should return one loss per sample.*Found shape \(2, 2\)"):
        acts[act]()
    assert nets.differences(before, nets.traces(model)) == []
    assert nets.same(augmenter.state_dict(), state)
    other = nets.make_network()
    augmenter.bind(other, nets.make_batch(6))  # it is free for another model


def test_a_bad_update_is_known_before_the_training_pass():
    def update(probabilities, chosen, harder):
        raise RuntimeError("no")

    model, augmenter = nets.make_network(), nets.make_augmenter(update=update)
    augmenter.bind(model, BATCH)
    before, learned = nets.traces(model), nets.generators(augmenter)
    with pytest.raises(RuntimeError, match="no"):
        augmenter.step(model, BATCH, nets.loss_fn)
    assert nets.differences(before, nets.traces(model)) == []
    assert nets.same(nets.generators(augmenter), learned)


def test_a_training_pass_that_fails_leaves_the_generators_as_they_were():
    model, augmenter = nets.make_network(), nets.make_augmenter()
    augmenter.step(model, BATCH, nets.loss_fn)
    learned = nets.generators(augmenter)

    def fails_in_training(output, batch):
        values = nets.loss_fn(output, batch)
        if torch.is_grad_enabled():
            raise RuntimeError("out of memory")
        return values

    with pytest.raises(RuntimeError, match="out of memory"):
        augmenter.step(model, BATCH, fails_in_training)
    assert nets.same(nets.generators(augmenter), learned)


# ---- numbers that are not finite


def spoiled(rows, value):
    """A loss that is not finite in the rows with these labels."""

    def loss(output, batch):
        values = nets.loss_fn(output, batch)
        wrong = torch.isin(batch["label"], torch.tensor(rows))
        return torch.where(wrong, values * value, values)

    return loss


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_losses_that_are_not_finite_never_reach_a_generator(value):
    model, augmenter = nets.make_network(), nets.make_augmenter()
    batch = {**nets.make_batch(12), "label": torch.arange(12)}
    augmenter.bind(model, batch)
    before = nets.generators(augmenter)
    result = augmenter.step(model, batch, spoiled([0, 1, 2, 3, 4, 5], value))
    learned = result.branch > 0
    assert int(result.metrics["nonfinite"]) == int((learned & (torch.arange(12) < 6)).sum()) > 0
    assert all(torch.isfinite(result.metrics[name]).all() for name in result.metrics if not name.startswith("loss"))
    after = nets.generators(augmenter)
    assert all(torch.isfinite(v).all() for branch in after.values() for v in branch["generator"].values())
    assert not nets.same(after, before)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_row_without_a_finite_loss_changes_nothing_for_the_others(value):
    """The generators learn as if the bad rows had never been compared: what they hold does not matter."""
    states = []
    for factor in (value, -value):
        model, augmenter = nets.make_network(), nets.make_augmenter()
        batch = {**nets.make_batch(12), "label": torch.arange(12)}
        augmenter.step(model, batch, spoiled([1, 5, 7], factor))
        states.append(nets.generators(augmenter))
    assert nets.same(*states)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_no_finite_loss_at_all_leaves_the_generators_as_they_are(value):
    model, augmenter = nets.make_network(), nets.make_augmenter()
    batch = nets.make_batch(9)
    augmenter.step(model, batch, nets.loss_fn)
    before = nets.generators(augmenter)
    result = augmenter.step(model, batch, losses(lambda x: x * value))
    assert int(result.metrics["nonfinite"]) == 6
    assert nets.same(nets.generators(augmenter), before)
    assert torch.isfinite(augmenter.step(model, batch, nets.loss_fn).losses).all()


def test_a_generator_with_nan_weights_says_so_and_does_not_hurt_the_model():
    model, augmenter = nets.make_network(), nets.make_augmenter()
    augmenter.step(model, BATCH, nets.loss_fn)
    good = copy.deepcopy(augmenter.state_dict())
    with torch.no_grad():
        for parameter in nets.adversaries(augmenter)["asr"].generator.parameters():
            parameter.fill_(torch.nan)
    before, steps = nets.traces(model), augmenter.steps
    with pytest.raises(ValueError, match=r"(?s)finite.*Found NaN.*earlier state"):
        augmenter.step(model, BATCH, nets.loss_fn)
    assert nets.differences(before, nets.traces(model)) == []
    assert augmenter.steps == steps
    augmenter.load_state_dict(good)  # as the message advises
    assert torch.isfinite(augmenter.step(model, BATCH, nets.loss_fn).losses).all()


# ---- small batches


@pytest.mark.parametrize("n", [1, 2, 3, 4])
@pytest.mark.parametrize("network", ["hourglass", "without BN", "classifier"])
def test_small_batches_work(n, network):
    model, augmenter = nets.make_network(network), nets.make_augmenter(network=network)
    seen = set()
    for i in range(6):
        result = augmenter.step(model, nets.make_batch(n, seed=i), nets.loss_fn)
        result.loss.backward()
        assert result.losses.shape == (n,)
        assert torch.isfinite(result.losses).all()
        assert all(torch.isfinite(value).all() for value in result.metrics.values())
        seen |= set(result.branch.tolist())
    assert len(seen) > 1


def test_a_last_batch_of_another_size_works():
    model, augmenter = nets.make_network(), nets.make_augmenter()
    for n in (9, 4, 1, 9):
        augmenter.step(model, nets.make_batch(n), nets.loss_fn).loss.backward()


def test_pretraining_with_an_exhausted_or_empty_loader_says_so():
    model, augmenter = nets.make_network(), nets.make_augmenter()
    with pytest.raises(ValueError, match=r"loader.*Found"):
        augmenter.pretrain(model, [], nets.loss_fn, steps=1)
    with pytest.raises(ValueError, match=r"loader.*Found"):
        augmenter.pretrain(model, iter([nets.make_batch(2)]), nets.loss_fn, steps=2, max_views=2)


def test_images_of_the_wrong_device_are_refused():
    batch = nets.make_batch(3)
    batch["image"] = batch["image"].to("meta")
    with pytest.raises((ValueError, TypeError), match=r"Found.*meta"):
        nets.make_augmenter().step(nets.make_network(), batch, nets.loss_fn)


def test_a_first_step_that_fails_leaves_the_model_as_it_was():
    model, augmenter = nets.make_network(), make_augmenter()
    with pytest.raises(ValueError, match=r"shape \(6,\). Found shape \(\)"):
        augmenter.step(model, nets.make_batch(6), losses(torch.mean))
    assert not any(module._forward_hooks for module in model.modules())
    assert augmenter.state_dict()["learners"] == {"asr+aho": None}
    augmenter.step(nets.make_network(), nets.make_batch(6), nets.loss_fn)  # another model is as good


def test_a_state_still_waits_after_a_first_step_that_failed():
    first = make_augmenter()
    first.step(nets.make_network(), nets.make_batch(6), nets.loss_fn)
    resumed = make_augmenter()
    resumed.load_state_dict(first.state_dict())
    with pytest.raises(ValueError, match="one loss per sample"):
        resumed.step(nets.make_network(), nets.make_batch(6), losses(torch.mean))
    assert nets.same(resumed.state_dict(), first.state_dict())


def test_a_network_may_answer_otherwise_in_training():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nets.make_network()

        def forward(self, x):
            output = self.inner(x)
            return (output, output) if self.training else output

    def loss_fn(output, batch):
        return sum(nets.loss_fn(part, batch) for part in output)

    features = [f"inner.{name}" for name in nets.FEATURES]
    learned = adaug.learners.Paper(features=features, scoring="train")
    augmenter = adaug.AdversarialAugmenter(adaug.policies.paper([(0, 1)], learned), seed=0)
    augmenter.step(Two(), nets.make_batch(12), loss_fn).loss.backward()

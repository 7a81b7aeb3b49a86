"""draw and observe: two lines in a loop that keeps its own forward pass and loss, with the views and the state of `step`."""

import copy
import io

import networks as nets
import pytest
import torch
from torch import nn

import adaug
from adaug import policies
from adaug.learners import Running

PAIRS = [(0, 1)]


class Maps(nn.Module):
    """Heat maps of two keypoints, at a quarter of the image."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 2, 3, 2, 1))

    def forward(self, image):
        return self.layers(image)


def made(policy=None, **kwargs):
    torch.manual_seed(0)
    return adaug.AdversarialAugmenter(policies.robust(PAIRS) if policy is None else policy, seed=3, **kwargs), Maps()


def losses_of(output, batch):
    return output.square().mean((1, 2, 3))


def by_step(augmenter, model, batch):
    result = augmenter.step(model, batch, losses_of)
    return result.batch, result.loss


def by_two_lines(augmenter, model, batch):
    batch = augmenter.draw(batch)
    output = model(batch["image"])
    augmenter.observe(output)
    return batch, losses_of(output, batch).mean()


def trained(way, steps=12, augmenter=None, model=None, start=0):
    if augmenter is None:
        augmenter, model = made()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    seen = []
    for i in range(start, start + steps):
        batch, loss = way(augmenter, model, nets.make_batch(9, seed=i))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        seen.append((batch, loss.detach()))
    return augmenter, model, seen


def test_two_lines_draw_and_learn_what_a_step_does():
    (a, one, seen), (b, other, shown) = (trained(way) for way in (by_step, by_two_lines))
    assert nets.same([batch for batch, _ in seen], [batch for batch, _ in shown])
    assert nets.same([loss for _, loss in seen], [loss for _, loss in shown])
    assert nets.same(one.state_dict(), other.state_dict())
    assert nets.same(a.state_dict(), b.state_dict())
    assert nets.same(dict(a.difficulty_table().columns), dict(b.difficulty_table().columns))


def test_both_ways_may_take_turns():
    a, model, _ = trained(by_step, 5)
    trained(by_two_lines, 5, a, model, start=5)
    b, _, _ = trained(by_two_lines, 10)
    assert nets.same(a.state_dict(), b.state_dict())


def test_a_saved_run_goes_on_to_the_same_bits():
    whole, _, _ = trained(by_two_lines, 20)
    first, model, _ = trained(by_two_lines, 9)
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    again, _ = made()
    again.load_state_dict(torch.load(file, weights_only=True))
    assert again.steps == 9
    trained(by_two_lines, 11, again, model, start=9)
    assert nets.same(whole.state_dict(), again.state_dict())


def test_a_policy_that_draws_nothing_changes_no_bit_of_a_loop():
    plain, lines = [], []
    for kept, way in ((plain, None), (lines, by_two_lines)):
        augmenter, model = made(adaug.Policy(()))
        optimizer = torch.optim.Adam(model.parameters())
        for i in range(5):
            batch = nets.make_batch(6, seed=i)
            loss = losses_of(model(batch["image"]), batch).mean() if way is None else way(augmenter, model, batch)[1]
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            kept.append(loss.detach())
        kept.append(model.state_dict())
    assert nets.same(plain, lines)


def test_numbers_of_ones_own_are_summed_as_a_measure_is():
    measured, _ = made(difficulty=losses_of)
    given, model = made()
    for i in range(10):
        batch = nets.make_batch(9, seed=i)
        output = model(measured.draw(batch)["image"])
        measured.observe(output)
        output = model(given.draw(batch)["image"])
        given.observe(difficulty=losses_of(output, batch))
    a, b = ({**one.state_dict(), "measure": None} for one in (measured, given))
    assert nets.same(a, b)


def test_nothing_is_back_propagated_from_it():
    augmenter, model = made()
    batch = augmenter.draw(nets.make_batch(6))
    output = model(batch["image"])
    losses = losses_of(output, batch)
    augmenter.observe(difficulty=losses)
    losses.mean().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert not any(value.requires_grad for value in augmenter.metrics.values())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_outputs_of_autocast_are_taken(dtype):
    augmenter, model = made()
    batch = augmenter.draw(nets.make_batch(6))
    augmenter.observe(model(batch["image"]).to(dtype))
    assert augmenter.state_dict()["learners"]["asr+aho"]["steps"] == 1


def test_small_batches_may_be_accumulated():
    augmenter, model = made()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for i in range(8):
        _, loss = by_two_lines(augmenter, model, nets.make_batch(5, seed=i))
        (loss / 4).backward()
        if i % 4 == 3:
            optimizer.step()
            optimizer.zero_grad()
    assert augmenter.state_dict()["learners"]["asr+aho"]["steps"] == 8


def test_the_latest_view_can_be_repeated():
    augmenter, _ = made()
    assert augmenter.view is None
    batch = nets.make_batch(6)
    drawn = augmenter.draw(batch)
    again = adaug.apply_view(batch, augmenter.view)
    assert nets.same(drawn, again)


def test_the_batch_stays_as_it_was():
    batch = nets.make_batch(6)
    before = copy.deepcopy(batch)
    made()[0].draw(batch)
    assert nets.same(batch, before)


# ---- what is told, counted or refused


def test_draws_ahead_of_training_are_counted_and_teach_nothing():
    augmenter, model = made()
    for i in range(3):
        batch = augmenter.draw(nets.make_batch(6, seed=i))
    augmenter.observe(model(batch["image"]))
    assert augmenter.metrics["unobserved"] == 2
    assert (augmenter.steps, augmenter.state_dict()["learners"]["asr+aho"]["steps"]) == (3, 1)


def test_an_observation_belongs_to_one_draw():
    augmenter, model = made()
    output = model(nets.make_batch(6)["image"])
    with pytest.raises(RuntimeError, match="should follow a `draw`, once"):
        augmenter.observe(output)
    augmenter.draw(nets.make_batch(6))
    augmenter.observe(output)
    with pytest.raises(RuntimeError, match="should follow a `draw`, once"):
        augmenter.observe(output)


@pytest.mark.parametrize(("arguments", "message"), [
    ({}, "an output or a difficulty"), ({"output": 1, "difficulty": torch.ones(6)}, "an output or a difficulty"),
    ({"difficulty": torch.ones(5)}, r"shape \(6,\). Found shape \(5,\)"), ({"difficulty": 0.5}, "Found float"),
    ({"difficulty": [0.5] * 6}, "Found list"),
    ({"output": torch.tensor(1.0)}, "Found a number for the whole batch"),
    ({"output": torch.ones(6)}, "or difficulty=losses"), ({"output": "text"}, "or difficulty=losses"),
    ({"output": torch.ones(5, 2, 8, 8)}, "or difficulty=losses"),
])  # fmt: skip
def test_a_wrong_observation_changes_nothing_and_may_be_followed_by_a_right_one(arguments, message):
    augmenter, model = made()
    batch = augmenter.draw(nets.make_batch(6))
    before = augmenter.state_dict()
    with pytest.raises((ValueError, TypeError), match=message):
        augmenter.observe(**arguments)
    assert nets.same(before, augmenter.state_dict())
    augmenter.observe(model(batch["image"]))


def test_one_measure_all_along():
    augmenter, model = made()
    augmenter.observe(model(augmenter.draw(nets.make_batch(6))["image"]))
    augmenter.draw(nets.make_batch(6))
    with pytest.raises(ValueError, match="difficulties of one measure"):
        augmenter.observe(difficulty=torch.rand(6))


@pytest.mark.parametrize("policy", [
    policies.paper(PAIRS), policies.uniform(policies.paper(PAIRS)),
    adaug.Policy([adaug.Branch("a", [adaug.Rotate(-9, 9, 3)], 0.5)]),
], ids=["paper", "masks on features", "a generator"])  # fmt: skip
def test_what_needs_the_model_needs_step(policy):
    with pytest.raises(ValueError, match=r"call `step\(model, batch, loss_fn\)`"):
        adaug.AdversarialAugmenter(policy).draw(nets.make_batch(6))


def test_labels_and_masks_have_measures_too():
    images = {"image": torch.rand(6, 3, 32, 32)}
    for batch, output in (
        ({**images, "label": torch.randint(3, (6,))}, torch.rand(6, 3)),
        ({**images, "mask": torch.randint(3, (6, 32, 32))}, torch.rand(6, 3, 32, 32)),
    ):
        augmenter = adaug.AdversarialAugmenter(policies.robust(), seed=0)
        augmenter.draw(batch)
        augmenter.observe(output)
        assert augmenter.difficulty_table().columns


def test_warm_up_and_shares_follow_the_draws():
    policy = policies.running(adaug.Policy([adaug.Branch("a", [adaug.Rotate(-60, 60, 5, rest=0.0)], 1.0)]), Running())
    augmenter = adaug.AdversarialAugmenter(policy, warmup_steps=2, total_steps=4, seed=0)
    for i in range(4):
        augmenter.draw(nets.make_batch(6, seed=i))
        augmenter.observe(difficulty=torch.rand(6))
        assert bool(augmenter.view.magnitudes["a.rotate"].any()) == (i >= 2)
        assert augmenter.progress == (i + 1) / 4


def test_another_kind_of_batch_is_refused_by_observe_and_counted_by_step():
    augmenter, model = made()
    augmenter.observe(model(augmenter.draw(nets.make_batch(6))["image"]))
    labelled = {"image": torch.rand(5, 3, 32, 32), "label": torch.randint(3, (5,))}
    augmenter.draw(labelled)
    with pytest.raises(ValueError, match="difficulties of one measure"):
        augmenter.observe(torch.rand(5, 3))
    before = augmenter.state_dict()["learners"]["asr+aho"]["pending"].clone()
    result = augmenter.step(model, labelled, lambda output, batch: output.square().mean((1, 2, 3)))
    assert result.metrics["unmeasured"] == 5
    assert torch.equal(augmenter.state_dict()["learners"]["asr+aho"]["pending"], before)


def test_a_function_of_the_augmenter_measures_alone_and_its_state_fits_it():
    augmenter, model = made(difficulty=losses_of)
    batch = augmenter.draw(nets.make_batch(6))
    with pytest.raises(ValueError, match="has a `difficulty` function"):
        augmenter.observe(difficulty=torch.rand(6))
    augmenter.observe(model(batch["image"]))
    made(difficulty=losses_of)[0].load_state_dict(augmenter.state_dict())


def test_a_step_ends_a_draw_that_waits():
    augmenter, model = made()
    augmenter.draw(nets.make_batch(6))
    result = augmenter.step(model, nets.make_batch(6, seed=1), losses_of)
    assert augmenter.metrics["unobserved"] == 1
    with pytest.raises(RuntimeError, match="should follow a `draw`"):
        augmenter.observe(result.output)


def test_draws_alone_are_counted_at_once():
    augmenter, _ = made()
    for _ in range(3):
        augmenter.draw(nets.make_batch(6))
    assert augmenter.metrics["unobserved"] == 2
    with pytest.raises(RuntimeError, match="Found none that was seen"):
        augmenter.difficulty_table()


class Drawing(torch.utils.data.Dataset):
    def __init__(self, augmenter):
        self.augmenter = augmenter

    def __len__(self):
        return 2

    def __getitem__(self, index):
        return self.augmenter.draw(nets.make_batch(2))["image"]


def test_a_worker_of_a_loader_may_not_draw():
    augmenter, _ = made()
    assert len(list(torch.utils.data.DataLoader(Drawing(augmenter)))) == 2
    with pytest.raises(RuntimeError, match=r"use adaug\.Augment in a Dataset"):
        list(torch.utils.data.DataLoader(Drawing(augmenter), num_workers=1))


def test_a_sum_beside_the_output_is_no_output():
    augmenter, model = made()
    batch = augmenter.draw(nets.make_batch(6))
    maps = model(batch["image"])
    augmenter.observe((maps, maps.sum()))
    other, model = made()
    other.draw(nets.make_batch(6))
    other.observe(maps)
    assert nets.same(augmenter.state_dict(), other.state_dict())


def test_masks_on_the_image_need_no_model():
    policy = policies.running(policies.paper(PAIRS))
    augmenter, model = made(policy, occlude=())
    augmenter.observe(model(augmenter.draw(nets.make_batch(9))["image"]))
    assert augmenter.state_dict()["learners"]["asr+aho"]["steps"] == 1

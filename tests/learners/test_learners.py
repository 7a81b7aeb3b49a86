"""Learners that a user wrote by public imports alone train, resume, copy and fail as those of the library do."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import networks as nets
import pytest
import torch
from own_learners import OWN, Fixed, Looks, Means, Softmax, WorstOf, turned_and_hidden
from torch import Tensor, nn

import adaug
from adaug.learners import Learner, Paper, Running, Trials

every_own = pytest.mark.parametrize("name", OWN)
KEY = "turn+hide"
MIXED = {
    "means and a response": lambda: turned_and_hidden(Means(), Softmax()),
    "worst of k and means": lambda: turned_and_hidden(WorstOf(), Means()),
    "a fixed one and the paper's": lambda: turned_and_hidden(Fixed(), Paper(nets.FEATURES, generator=nets.SmallGenerator)),
    "one's own and none": lambda: turned_and_hidden(Means(), False),
}


def fresh(learned: Any, **kwargs: Any) -> tuple[Any, nn.Module, torch.optim.Optimizer]:
    policy = learned if isinstance(learned, adaug.Policy) else turned_and_hidden(learned)
    model = nets.make_network()
    return nets.make_augmenter(policy, **kwargs), model, torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)


def train(augmenter: Any, model: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> list[Any]:
    """Plain training on batches that the step count names; everything that could differ, as it went."""
    seen = []
    for i in steps:
        torch.manual_seed(i)  # of the network's dropout
        result = augmenter.step(model, nets.make_batch(8, seed=i), nets.loss_fn)
        optimizer.zero_grad()
        result.loss.backward()
        optimizer.step()
        seen.append(nets.cloned([result.losses, result.branch, result.batch, result.metrics]))
    return seen


def through_a_file(value: Any) -> Any:
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


# ---- training


@every_own
def test_it_trains_the_network_and_draws_by_its_own_distributions(name):
    augmenter, model, optimizer = fresh(OWN[name])
    for step in train(augmenter, model, optimizer, range(10)):
        losses, branch, _, metrics = step
        assert torch.isfinite(losses).all()
        assert branch.bincount(minlength=3).tolist() == [2, 4, 2]
        assert all(torch.isfinite(value).all() for value in metrics.values())
        assert {"loss/random", "loss/turn", "loss/hide"} <= metrics.keys()
    assert all(p.grad is not None for p in model.parameters())
    found = augmenter.distributions(model, nets.make_batch(3))
    assert {key: tuple(p.shape) for key, p in found.items()} == {
        "turn.rotate": (3, 5),
        "turn.scale": (3, 4),
        "hide.occlude": (3, 16),
    }
    assert all(torch.allclose(p.sum(1), torch.ones(3)) for p in found.values())


@pytest.mark.parametrize("name", MIXED)
def test_learners_stand_side_by_side(name):
    augmenter, model, optimizer = fresh(MIXED[name]())
    train(augmenter, model, optimizer, range(9))
    state = augmenter.state_dict()
    assert state["learners"].keys() == {"turn", "hide"}
    again, model2, optimizer2 = fresh(MIXED[name]())
    again.load_state_dict(through_a_file(state))
    model2.load_state_dict(model.state_dict())
    optimizer2.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    expected = train(augmenter, model, optimizer, range(9, 12))
    assert nets.same(train(again, model2, optimizer2, range(9, 12)), expected)
    assert nets.same(again.state_dict(), augmenter.state_dict())


def test_equal_learners_share_a_state_and_others_do_not():
    shared, apart = fresh(turned_and_hidden(Means(), Means()))[0], fresh(turned_and_hidden(Means(), Means(kept=0.5)))[0]
    assert shared.state_dict()["learners"].keys() == {KEY}
    assert apart.state_dict()["learners"].keys() == {"turn", "hide"}


@every_own
def test_in_warm_up_all_rows_are_random(name):
    augmenter, model, optimizer = fresh(OWN[name], warmup_steps=2)
    branches = [step[1].unique().tolist() for step in train(augmenter, model, optimizer, range(4))]
    assert branches == [[0], [0], [0, 1, 2], [0, 1, 2]]


def test_two_that_run_the_model_are_refused():
    with pytest.raises(
        ValueError, match=r"(?s)should share one learner\. Found WorstOf\(k=3\) and WorstOf\(k=4\).*same object"
    ):
        fresh(turned_and_hidden(WorstOf(), WorstOf(4)))
    fresh(turned_and_hidden(WorstOf(), WorstOf()))


def test_pretraining_is_the_papers_alone():
    augmenter, model, _ = fresh(Means())
    with pytest.raises(ValueError, match="`pretrain` should have generators to train"):
        augmenter.pretrain(model, [nets.make_batch()], nets.loss_fn, steps=1)


def test_what_a_learner_lacks_is_said():
    class Unfinished(Learner):
        pass

    augmenter, model, _ = fresh(Unfinished())
    before = nets.traces(model)
    with pytest.raises(NotImplementedError, match=r"Unfinished should define log_probs\(state, branch, rows\)"):
        augmenter.step(model, nets.make_batch(8), nets.loss_fn)
    assert nets.differences(before, nets.traces(model)) == []


# ---- what each does


def test_a_fixed_distribution_is_drawn_as_it_is():
    augmenter, model, _ = fresh(turned_and_hidden(Fixed(outer=4.0), shares=(0.75, 0.0)))
    drawn = torch.zeros(5)
    for i in range(40):
        result = augmenter.step(model, nets.make_batch(16, seed=i), nets.loss_fn)
        angle = result.view.magnitudes["turn.rotate"][result.branch == 1]
        drawn += adaug.Rotate(-60, 60, 5).membership(angle).float().sum(0)
    assert drawn.sum() == 40 * 12
    torch.testing.assert_close(drawn / drawn.sum(), torch.tensor([4.0, 1, 1, 1, 4]) / 11, atol=0.06, rtol=0)
    assert augmenter.state_dict()["learners"] == {KEY: None}


def rightwards(output: Any, batch: dict[str, Tensor]) -> Tensor:
    """The view alone decides, and not the network."""
    return batch["keypoints"].mean((1, 2)) / nets.SIDE


def test_a_response_of_ones_own_goes_beyond_the_cap():
    def after(learner: Running) -> Tensor:
        augmenter, model, _ = fresh(turned_and_hidden(learner, shares=(1.0, 0.0)), difficulty=by_scale)
        for i in range(64):
            augmenter.step(model, nets.make_batch(8, seed=i), nets.loss_fn)
        (row,) = augmenter.distributions(model, nets.make_batch(1))["turn.scale"]
        assert augmenter.difficulty_table().columns["turn.scale"]["probability"] == pytest.approx(row.tolist())
        return row

    def by_scale(output: Any, batch: dict[str, Tensor]) -> Tensor:
        return (batch["keypoints"][:, 0] - batch["keypoints"][:, 1]).norm(dim=1)

    limit = Running(cap=1.5)
    assert after(limit).max() <= 1.5 / 4 + 1e-6
    softly = after(Softmax(cap=1.5, temperature=0.2))
    assert softly.argmax() == 3
    assert softly.max() > 0.5
    assert softly.min() >= 0.05 / 4 - 1e-6, "the floor of running difficulty stays"


class Watched(WorstOf):
    """Remembers how hard each of its draws was."""

    def score(self, trials: Trials, drawn: Any) -> Tensor:
        scores = super().score(trials, drawn)
        self.__dict__.setdefault("found", []).append((trials.index, scores))
        return scores


def test_the_hardest_of_k_views_is_trained_on():
    learner = Watched(4)
    augmenter, model, _ = fresh(learner, difficulty=rightwards)
    augmenter.bind(model, nets.make_batch(8))
    runs: list[int] = []
    model.register_forward_hook(lambda *_: runs.append(1))
    result = augmenter.step(model, nets.make_batch(8), nets.loss_fn)
    assert len(runs) == 4 + 1
    index = learner.found[0][0]
    assert sorted(index.tolist()) == result.branch.nonzero().flatten().tolist()
    scores = torch.stack([scores for _, scores in learner.found])
    assert (scores.amax(0) > scores[0]).any()
    assert torch.equal(rightwards(None, result.batch)[index], scores.amax(0))


def test_a_pass_that_scores_leaves_no_trace():
    augmenter, model, _ = fresh(WorstOf())
    augmenter.bind(model, nets.make_batch(8))
    before: dict[str, Any] = {}

    def loss_fn(output: Any, batch: dict[str, Tensor]) -> Tensor:
        if torch.is_grad_enabled():
            before["after scoring"] = {name: p.grad for name, p in model.named_parameters()}
        return nets.loss_fn(output, batch)

    twin = nets.clean_copy(model)
    state, training = torch.get_rng_state(), {name: module.training for name, module in model.named_modules()}
    result = augmenter.step(model, nets.make_batch(8), loss_fn)
    torch.set_rng_state(state)
    assert all(grad is None for grad in before["after scoring"].values())
    assert {name: module.training for name, module in model.named_modules()} == training
    assert torch.equal(result.losses, nets.replayed(twin, result))
    assert nets.same(dict(model.named_buffers()), dict(twin.named_buffers()))  # those of the training pass, no more


def test_a_look_gives_each_row_a_distribution_of_its_own():
    augmenter, model, _ = fresh(Looks())
    augmenter.bind(model, nets.make_batch(8))
    sizes: list[int] = []
    model.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
    augmenter.step(model, nets.make_batch(8), nets.loss_fn)
    assert sizes == [6, 8], "a look at the rows of branches, and the training pass"
    found, seen = augmenter.distributions(model.eval(), nets.make_batch(8))["turn.rotate"], []
    handle = model.stacks[0].neck.register_forward_hook(lambda *args: seen.append(args[-1]))
    model(nets.make_batch(8)["image"])
    handle.remove()
    size = seen[0].detach().mean((1, 2, 3))[:, None]
    torch.testing.assert_close(found, (size * torch.arange(5)).softmax(1))
    assert not torch.equal(found[0], found[1])


def test_rows_that_are_not_there_are_scored_by_nobody():
    augmenter, model, _ = fresh(turned_and_hidden(WorstOf(), shares=(0.3, 0.3)))
    counts = set()
    for i in range(8):
        result = augmenter.step(model, nets.make_batch(1, seed=i), nets.loss_fn)
        counts.add(int(result.branch))
    assert counts == {0, 1, 2}


def test_means_are_those_of_the_rows():
    learner = Means(kept=1.0, sharpness=0.0)
    augmenter, model, _ = fresh(learner, difficulty=rightwards)
    expected = {"turn.rotate": torch.zeros(5, 2), "turn.scale": torch.zeros(4, 2), "hide.occlude": torch.zeros(16, 2)}
    for i in range(4):
        result = augmenter.step(model, nets.make_batch(8, seed=i), nets.loss_fn)
        difficulty = rightwards(None, result.batch)
        for name, magnitude in result.view.magnitudes.items():
            bins = result.view.operations[name].membership(magnitude).float()
            expected[name] += torch.stack([(bins * difficulty[:, None]).sum(0), bins.sum(0)], 1)
    (state,) = augmenter.state_dict()["learners"].values()
    assert state.pop("steps") == 4
    for name, value in expected.items():
        torch.testing.assert_close(state[name], value, rtol=1e-5, atol=1e-5)
    assert expected["turn.rotate"][:, 1].sum() == 4 * 8  # random views are turned too
    found = result.metrics["mean/turn.scale"]
    torch.testing.assert_close(found, state["turn.scale"][:, 0] / state["turn.scale"][:, 1].clamp(min=1e-6))


# ---- states


@every_own
@pytest.mark.parametrize("stop", [0, 3, 9], ids=["before the first step", "after three steps", "after nine"])
@pytest.mark.parametrize("loaded", ["before binding", "after binding"])
def test_killed_and_resumed_it_is_bit_equal_to_one_that_went_on(name, loaded, stop):
    augmenter, model, optimizer = fresh(OWN[name])
    train(augmenter, model, optimizer, range(stop))
    state = through_a_file({"model": model.state_dict(), "opt": optimizer.state_dict(), "aug": augmenter.state_dict()})
    expected = train(augmenter, model, optimizer, range(stop, stop + 4))
    again, model2, optimizer2 = fresh(OWN[name], seed=99)
    if loaded == "after binding":
        train(again, model2, optimizer2, range(2))
    again.load_state_dict(state["aug"])
    model2.load_state_dict(state["model"])
    optimizer2 = torch.optim.SGD(model2.parameters(), lr=0.05, momentum=0.9)
    optimizer2.load_state_dict(state["opt"])
    assert again.steps == stop
    assert nets.same(again.state_dict(), state["aug"])
    assert nets.same(train(again, model2, optimizer2, range(stop, stop + 4)), expected)
    assert nets.same(again.state_dict(), augmenter.state_dict())


def pickled(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value))


def saved_whole(value: Any) -> Any:
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@every_own
@pytest.mark.parametrize("copied", [pickled, copy.deepcopy, saved_whole])
def test_a_copy_goes_on_with_a_copied_model(name, copied):
    augmenter, model, optimizer = fresh(OWN[name])
    train(augmenter, model, optimizer, range(9))
    twin, model2 = copied(augmenter), copied(model)
    assert nets.same(twin.state_dict(), augmenter.state_dict())
    optimizer2 = torch.optim.SGD(model2.parameters(), lr=0.05, momentum=0.9)
    optimizer2.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    expected = train(augmenter, model, optimizer, range(9, 13))
    assert nets.same(train(twin, model2, optimizer2, range(9, 13)), expected)
    assert nets.same(twin.state_dict(), augmenter.state_dict())


def test_a_loaded_state_is_a_copy_and_a_saved_one_too():
    augmenter, model, optimizer = fresh(Means())
    train(augmenter, model, optimizer, range(3))
    state = augmenter.state_dict()
    before = copy.deepcopy(state)
    again, model2, optimizer2 = fresh(Means())
    again.load_state_dict(state)
    train(again, model2, optimizer2, range(3, 5))
    train(augmenter, model, optimizer, range(3, 5))
    assert nets.same(state, before)
    state["learners"][KEY]["turn.rotate"].fill_(7.0)
    assert not (again.state_dict()["learners"][KEY]["turn.rotate"] == 7).any()


def broken(state: Any, **parts: Any) -> Any:
    state = copy.deepcopy(state)
    state["learners"][KEY] |= parts
    return state


UNFIT = {
    "another shape": lambda s: broken(s, **{"turn.rotate": torch.zeros(4, 2)}),
    "a list": lambda s: broken(s, **{"turn.rotate": [0.0]}),
    "too much": lambda s: broken(s, more=torch.zeros(2)),
    "a text": lambda s: broken(s, steps="three"),
    "of one that keeps nothing": lambda s: {**s, "learners": {KEY: None}},
    "no mapping": lambda s: {**s, "learners": {KEY: 3}},
    "of other branches": lambda s: {**s, "learners": {"turn": s["learners"][KEY]}},
}


@pytest.mark.parametrize("name", UNFIT)
def test_a_state_that_does_not_fit_is_refused_and_changes_nothing(name):
    augmenter, model, optimizer = fresh(Means())
    train(augmenter, model, optimizer, range(3))
    before = copy.deepcopy(augmenter.state_dict())
    with pytest.raises((ValueError, TypeError), match=r"(?s)should .*Found"):
        augmenter.load_state_dict(UNFIT[name](before))
    assert nets.same(augmenter.state_dict(), before)


def test_a_state_of_another_learner_is_refused():
    augmenter, model, optimizer = fresh(Means())
    train(augmenter, model, optimizer, range(3))
    for other in (Softmax(), Fixed()):
        with pytest.raises(ValueError, match=r"A state should belong to the augmenter's own policy"):
            fresh(other)[0].load_state_dict(augmenter.state_dict())


# ---- steps that fail


def raises(*_: Any, **__: Any) -> Any:
    raise MemoryError("out of memory")


def in_training(output: Any, batch: dict[str, Tensor]) -> Tensor:
    losses = nets.loss_fn(output, batch)
    return raises() if torch.is_grad_enabled() else losses


@every_own
@pytest.mark.parametrize("steps", [0, 7])
@pytest.mark.parametrize("where", ["the first pass", "the training pass", "what is logged"])
def test_a_step_that_raises_leaves_the_state_as_it_was(name, steps, where, monkeypatch):
    augmenter, model, optimizer = fresh(OWN[name])
    train(augmenter, model, optimizer, range(steps))
    before = copy.deepcopy(augmenter.state_dict())
    learners = dict(augmenter._state.learners)
    loss_fn = {"the first pass": raises, "the training pass": in_training, "what is logged": nets.loss_fn}[where]
    with monkeypatch.context() as patch:
        if where == "what is logged":
            patch.setattr(type(OWN[name]), "metrics", raises)
        with pytest.raises(MemoryError):
            augmenter.step(model, nets.make_batch(8, seed=steps), loss_fn)
    assert nets.same(augmenter.state_dict(), before)
    if steps:
        assert all(augmenter._state.learners[key] is state for key, state in learners.items())
    else:
        assert nets.count_hooks(model) == 0
    again, model2, optimizer2 = fresh(OWN[name])
    again.load_state_dict(before)
    model2.load_state_dict(model.state_dict())
    optimizer2.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    found = train(augmenter, model, optimizer, range(steps, steps + 2))
    assert nets.same(found, train(again, model2, optimizer2, range(steps, steps + 2)))


def test_one_learner_that_fails_leaves_the_others_as_they_were(monkeypatch):
    augmenter, model, optimizer = fresh(turned_and_hidden(Means(), Softmax()))
    train(augmenter, model, optimizer, range(7))  # the next step would answer
    before = copy.deepcopy(augmenter.state_dict())
    for learner in (Means, Softmax):
        with monkeypatch.context() as patch:
            patch.setattr(learner, "observe", raises)
            with pytest.raises(MemoryError):
                augmenter.step(model, nets.make_batch(8, seed=7), nets.loss_fn)
        assert nets.same(augmenter.state_dict(), before)


def test_rows_without_a_finite_difficulty_say_nothing():
    def loss_fn(output: Any, batch: dict[str, Tensor]) -> Tensor:
        return nets.loss_fn(output, batch) * torch.where(batch["label"] == 0, torch.nan, 1.0)

    augmenter, model, _ = fresh(Means(), difficulty=loss_fn)
    for i in range(3):
        augmenter.step(model, nets.make_batch(12, seed=i), nets.loss_fn)
    (state,) = augmenter.state_dict()["learners"].values()
    assert all(torch.isfinite(value).all() for name, value in state.items() if name != "steps")
    assert 0 < state["turn.rotate"][:, 1].sum() < 36

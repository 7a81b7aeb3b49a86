"""Running difficulty: bins that training shows to be hard are drawn more often, and noise moves nothing."""

from __future__ import annotations

import copy
import io
import itertools
import logging
import math
from collections.abc import Callable
from typing import Any

import networks as nets
import pytest
import torch
from torch import Tensor, nn

import adaug
from adaug import policies
from adaug._batches.parse import parse
from adaug._runtime.random import Stream
from adaug._steps.groups import groups_of
from adaug.learners import DifficultyTable, Rows, Running, Seen, Start
from adaug.learners.measures import measure_of, measured
from adaug.learners.running import EVERY, RunningState
from adaug.learners.table import difficulty_table
from adaug.policies import Branch, Policy, Window
from adaug.policies._draw import draw_rows

CPU = torch.device("cpu")
WIDE = policies.running(policies.wide())
PAIRS = [(0, 1)]
Hard = Callable[[int, adaug.View, Tensor], Tensor | float]


def simulate(
    hard: Hard, *, policy: Policy = WIDE, rows: int = 16, steps: int = 300, noise: float = 1.0, seed: int = 0
) -> tuple[RunningState, list[dict[str, Tensor]]]:
    """Steps without a network: the difficulty of a row is what `hard` says of its view, and noise."""
    (group,) = groups_of(policy).values()
    learner, branches, told = group.learner, group.of(policy), []
    state = learner.start(Start(policy, branches, branches, CPU, (), lambda number: Stream(seed, number)))
    g = torch.Generator().manual_seed(seed)
    for step in range(steps):
        stream = Stream(seed, step)
        branch = policy.split(rows, 0.0, stream)

        def distributions(owner: Branch, state: RunningState = state) -> dict[str, Tensor]:
            return learner.log_probs(state, owner, Rows(rows, CPU))

        drawn = draw_rows(policy, distributions, branch.numpy(), policy.draw_random(rows, stream), stream)
        view = policy.view(drawn, rows, (32, 32), (32, 32))
        difficulty = noise * torch.randn(rows, generator=g) + hard(step, view, branch)
        state = learner.observe(state, Seen(view, branch, lambda told=difficulty: told, lambda told=difficulty: told))
        told.append(learner.metrics(state))
    return state, told


def table_of(running: RunningState, about: str, *, may_grow: bool) -> DifficultyTable:
    return difficulty_table([running], about, may_grow=may_grow)


def lowest_entropy(told: list[dict[str, Tensor]]) -> float:
    """Of all steps and operations, over that of the uniform distribution."""
    return min(
        float(value) / math.log(one[name.replace("entropy", "distribution")].numel())
        for one in told
        for name, value in one.items()
        if name.startswith("entropy/")
    )


def turned_right(step: int, view: adaug.View, branch: Tensor) -> Tensor:
    return (view.magnitudes["asr.rotate"] > 46.7).float()  # the last of nine bins


# ---- what it does


@pytest.mark.parametrize("rows", [8, pytest.param(32, marks=pytest.mark.slow)])
def test_noise_moves_nothing(rows):
    _, told = simulate(lambda *_: 0.0, rows=rows, steps=600)
    assert lowest_entropy(told) > 0.95


@pytest.mark.slow
@pytest.mark.parametrize("policy", [WIDE, policies.running(policies.trivial())], ids=["wide", "trivial"])
def test_noise_moves_nothing_for_5000_steps(policy):
    _, told = simulate(lambda *_: 0.0, policy=policy, steps=5000)
    assert lowest_entropy(told) > 0.95


@pytest.mark.parametrize("rows", [8, 64])
def test_the_hardest_bin_gets_what_the_cap_allows(rows):
    _, told = simulate(turned_right, rows=rows, noise=0.3)
    assert told[-1]["distribution/asr.rotate"][-1] > 0.9 * 2.5 / 9
    assert told[-1]["entropy/asr.scale"] > 0.95 * math.log(7), "scales are not to blame"


def test_it_follows_when_the_hardest_bin_moves():
    def hard(step: int, view: adaug.View, branch: Tensor) -> Tensor:
        angle = view.magnitudes["asr.rotate"]
        return ((angle > 46.7) if step < 300 else (angle < -46.7)).float()

    _, told = simulate(hard, steps=700, noise=0.3)
    assert told[299]["distribution/asr.rotate"][-1] > 0.9 * 2.5 / 9
    assert told[-1]["distribution/asr.rotate"][0] > 0.8 * 2.5 / 9


@pytest.mark.parametrize("how", [Running(), Running(cap=4, floor=0.2), Running(cap=100, floor=0.01)])
def test_cap_and_floor_hold(how):
    _, told = simulate(turned_right, policy=policies.running(policies.wide(), how), noise=0.1)
    for one in told:
        for name, value in one.items():
            if name.startswith("distribution/"):
                assert abs(float(value.sum()) - 1) < 1e-5
                assert value.max() <= min(1.0, how.cap / len(value)) + 1e-6
                assert value.min() >= how.floor / len(value) - 1e-6
    assert told[-1]["distribution/asr.rotate"][-1] > 0.85 * (1 - how.floor) * min(1.0, how.cap / 9)


def test_a_bin_is_not_called_hard_for_the_company_it_keeps():
    """Hidden rows are harder, and drawn differently: means of the bins alone would mix this up with the bins."""
    rest = {"rest": 0.0}
    policy = policies.running(
        Policy([Branch("a", [adaug.Rotate(-60, 60, 4, **rest)], 0.3), Branch("b", [adaug.OccludeImage((2, 2), (1, 2))], 0.6)])
    )

    def hard(step: int, view: adaug.View, branch: Tensor) -> Tensor:
        hidden = 1 - view.magnitudes["b.occlude"].flatten(1) if "b.occlude" in view.magnitudes else torch.zeros(len(branch), 4)
        angle = view.magnitudes["a.rotate"]
        return 5.0 * (branch == 2) + hidden @ torch.tensor([0.0, 0.0, 0.0, 1.0]) + 0.5 * (angle > 30)

    running, _ = simulate(hard, policy=policy, rows=64, steps=400, noise=0.2)
    table = table_of(running, "it", may_grow=False).columns
    by_bin = torch.tensor(table["a.rotate"]["difficulty"])
    assert torch.allclose(by_bin - by_bin[:3].mean(), torch.tensor([0.0, 0.0, 0.0, 0.5]), atol=0.06), by_bin
    cells = torch.tensor(table["b.occlude"]["difficulty"])
    assert torch.allclose(cells - cells[:3].mean(), torch.tensor([0.0, 0.0, 0.0, 1.0]), atol=0.12), cells


def test_rows_without_a_finite_difficulty_say_nothing():
    def hard(step: int, view: adaug.View, branch: Tensor) -> Tensor:
        wrong = torch.tensor([torch.nan, torch.inf, -torch.inf]).repeat(len(branch))[: len(branch)]
        return torch.where(torch.arange(len(branch)) % 2 == 0, turned_right(step, view, branch), wrong)

    running, told = simulate(hard, noise=0.3, rows=32)
    assert torch.isfinite(running.sums).all()
    assert told[-1]["distribution/asr.rotate"][-1] > 0.9 * 2.5 / 9


def test_rows_without_a_finite_membership_say_nothing(monkeypatch):
    """Of an operation of the user's: one such row would make all sums NaN for good."""
    whole = adaug.Rotate.membership

    def broken(self: adaug.Rotate, magnitude: Tensor) -> Tensor:
        return torch.where(magnitude[:, None] > 0, torch.nan, whole(self, magnitude).float())

    monkeypatch.setattr(adaug.Rotate, "membership", broken)
    running, _ = simulate(lambda step, view, branch: 1.0, steps=8)
    assert torch.isfinite(running.sums).all()
    assert 0 < running.sums.diagonal()[:3].sum() < 8 * 16


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_units_of_difficulty_do_not_matter(scale):
    _, plain = simulate(turned_right, steps=100)
    _, told = simulate(lambda *given: 7 * scale + scale * turned_right(*given), steps=100, noise=scale)
    for name, value in plain[-1].items():
        found = told[-1][name] if name[:5] != "diffi" else told[-1][name].double() / scale - 7
        assert torch.allclose(found.float(), value, atol=1e-4)


def test_draws_beyond_the_bins_belong_to_none():
    operation = adaug.Rotate(-30, 30, 3)
    angle = torch.tensor([-31.0, -30.0, -10.1, 0.0, 29.9, 30.0, 30.1, torch.nan])
    assert operation.membership(angle).int().tolist() == [
        [0, 0, 0], [1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 1], [0, 0, 0], [0, 0, 0]
    ]  # fmt: skip
    scale = adaug.Scale(0.5, 2.0, 4, log=True)
    drawn = scale.draw(torch.arange(4)[:, None], Stream(0))
    assert torch.equal(scale.membership(drawn).int(), torch.eye(4).int())
    for variant in ("up", "down", "independent"):
        occlude = adaug.OccludeFeatures((4, 4), (1,), variant)
        hidden = occlude.membership(occlude.at(5, 2))
        assert hidden.shape == (2, 16)
        assert hidden.argmax(1).tolist() == [5, 5]
        assert torch.allclose(hidden.sum(1), torch.ones(2))


# ---- in a step


def steps_of(augmenter: Any, model: nn.Module, count: int, first: int = 0, **more: Any) -> Any:
    for i in range(first, first + count):
        torch.manual_seed(i)  # of the network's dropout
        result = augmenter.step(model, {**nets.make_batch(8, seed=i), **more}, nets.loss_fn)
    return result


def by_angle(output: Any, batch: dict[str, Tensor]) -> Tensor:
    """How far the first keypoint lies to the right: the view decides."""
    return batch["keypoints"][:, 0, 0]


def test_a_step_takes_one_pass_and_no_hook_but_for_masks_of_features():
    model, augmenter = nets.make_network(), nets.make_augmenter(policies.robust(PAIRS))
    augmenter.bind(model, nets.make_batch())
    runs: list[int] = []
    model.register_forward_hook(lambda *_: runs.append(1))
    result = steps_of(augmenter, model, 4)
    assert len(runs) == 4
    assert not nets.adversaries(augmenter)
    assert {"distribution/asr.scale", "entropy/aho.occlude", "loss/asr", "loss/random"} <= result.metrics.keys()
    for policy, hooks in ((policies.robust(PAIRS), False), (WIDE, True)):
        other = nets.make_network()
        bound = adaug.AdversarialAugmenter(policy, seed=0)  # hooks go when it goes
        bound.bind(other, nets.make_batch())
        assert (nets.count_hooks(other) > 0) == hooks


def test_both_kinds_of_learning_stand_in_one_policy():
    asr, aho = policies.paper(PAIRS).branches
    policy = Policy([asr, Branch("aho", aho.operations, 1 / 3, "running"), Branch("turn", [adaug.Shear(-9, 9, 3)], 0.1, False)])
    model, augmenter = nets.make_network(), nets.make_augmenter(policy)
    result = steps_of(augmenter, model, 6)
    assert set(nets.adversaries(augmenter)) == {"asr"}
    assert set(augmenter.difficulty_table().columns) == {"aho.occlude", "turn.shear_x"}
    assert {"reward_rate/asr", "entropy/asr.scale", "entropy/aho.occlude", "entropy/turn.shear_x"} <= result.metrics.keys()
    shown = augmenter.distributions(model, nets.make_batch(4))
    assert shown["aho.occlude"].shape == (4, 16)
    assert torch.allclose(shown["turn.shear_x"], torch.full((4, 3), 1 / 3))


def test_what_is_uniform_stays_uniform_and_is_told_of():
    model, augmenter = nets.make_network(), nets.make_augmenter(policies.uniform(policies.wide(PAIRS)))
    steps_of(augmenter, model, 12)
    table = augmenter.difficulty_table()
    for column in table.columns.values():
        assert all(abs(p * len(column["bin"]) - 1) < 1e-6 for p in column["probability"])
        assert sum(column["rows"]) > 0


def through_a_file(state: Any) -> Any:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("way", ["state", "file", "copy"])
def test_it_resumes_bit_for_bit(way):
    model = nets.make_network()
    whole = nets.make_augmenter(policies.robust(PAIRS))
    steps_of(whole, model, 9)
    part, other = nets.make_augmenter(policies.robust(PAIRS)), nets.make_network()
    steps_of(part, other, 5)
    if way == "copy":
        again = copy.deepcopy(part)
    else:
        state = part.state_dict()
        if way == "file":
            state = through_a_file(state)
        again = nets.make_augmenter(policies.robust(PAIRS))
        again.load_state_dict(state)
    steps_of(part, other, 3, first=5)  # what was saved is not touched by it
    result = steps_of(again, other, 4, first=5)
    assert torch.equal(nets.running(again).sums, nets.running(whole).sums)
    assert torch.equal(nets.running(again).answer.probabilities, nets.running(whole).answer.probabilities)
    assert nets.same(result.metrics, whole.metrics)


def test_schedules_and_warm_up_rest_without_forgetting():
    policy = policies.running(policies.wide(PAIRS))
    policy = Policy([Branch(b.name, b.operations, Window(1 / 3, 0.5), b.learned) for b in policy.branches], policy.common)
    model, augmenter = nets.make_network(), nets.make_augmenter(policy, total_steps=8, warmup_steps=2)
    branches = [steps_of(augmenter, model, 1, first=i).branch.unique().tolist() for i in range(8)]
    assert branches[:4] == [[0]] * 4
    assert all(found == [0, 1, 2] for found in branches[4:])
    assert sum(augmenter.difficulty_table().columns["asr.rotate"]["rows"]) > 4 * 8


@pytest.mark.parametrize("steps", [2, EVERY - 1, EVERY])  # the step that fails would add sums, answer, or follow an answer
def test_a_failing_step_teaches_nothing(steps, monkeypatch):
    model, augmenter = nets.make_network(), nets.make_augmenter(policies.robust(PAIRS))
    steps_of(augmenter, model, steps)
    before = nets.cloned(augmenter.state_dict())

    def broken(*_: Any) -> Tensor:
        raise MemoryError("out of memory")

    with pytest.raises(MemoryError):
        augmenter.step(model, nets.make_batch(), broken)
    assert nets.same(augmenter.state_dict(), before)
    monkeypatch.setattr(Running, "metrics", broken)  # after the sums were added
    with pytest.raises(MemoryError):
        augmenter.step(model, nets.make_batch(), nets.loss_fn)
    assert nets.same(augmenter.state_dict(), before)


@pytest.mark.parametrize("resumed", [False, True])
def test_a_batch_of_another_kind_does_not_count(resumed):
    """Without keypoints the loss would be summed into errors; a resumed run knows what it summed before."""
    model, augmenter = nets.make_network(), nets.make_augmenter(policies.robust(PAIRS))
    steps_of(augmenter, model, 3)
    before = nets.cloned(augmenter.state_dict())
    if resumed:
        augmenter = nets.make_augmenter(policies.robust(PAIRS))
        augmenter.load_state_dict(through_a_file(before))
    other = {"image": nets.make_batch(8)["image"]}
    for _ in range(2):
        augmenter.step(model, other, lambda output, batch: output.square().flatten(1).mean(1))
    assert torch.equal(nets.running(augmenter).pending, before["learners"]["asr+aho"]["pending"])
    assert before["measure"] == augmenter.state_dict()["measure"] == augmenter.difficulty_table().measure
    assert before["measure"].startswith("the error of the heat maps' peaks")
    steps_of(augmenter, model, 1)
    assert nets.running(augmenter).pending.diagonal()[:3].sum() == 8 * 4


@pytest.mark.parametrize("saved", [None, by_angle])
def test_sums_of_another_measure_are_refused(saved):
    other = by_angle if saved is None else None
    augmenter = nets.make_augmenter(policies.robust(PAIRS), difficulty=saved)
    again = nets.make_augmenter(policies.robust(PAIRS), difficulty=other)
    again.load_state_dict(augmenter.state_dict())  # nothing was summed yet
    steps_of(augmenter, nets.make_network(), 1)
    before = nets.cloned(again.state_dict())
    with pytest.raises(ValueError, match=r"should go on with the measure that it summed up.*Found.*build it as it was saved"):
        again.load_state_dict(augmenter.state_dict())
    assert nets.same(again.state_dict(), before)


# ---- what is fair


def scaled(factor: float) -> tuple[Tensor, dict[str, Tensor]]:
    """Heat maps that miss by an eighth of the person, who is shown at some size."""
    points = 32 + factor * torch.tensor([[[-8.0, -8.0], [8.0, 8.0]]])
    missed = points + factor * torch.tensor([2.0, 0.0])
    heatmaps = adaug.keypoints.render_heatmaps(missed, 64, 1.5)
    return heatmaps, {"image": torch.zeros(1, 3, 64, 64), "keypoints": points, "visibility": torch.ones(1, 2)}


@pytest.mark.parametrize("form", ["one", "stacks"])
def test_heat_maps_are_measured_by_the_size_of_the_person(form):
    found = []
    for factor in (0.7, 1.0, 1.6):
        output, batch = scaled(factor)
        given = [torch.zeros_like(output), output] if form == "stacks" else output
        found.append(float(measured(given, parse(batch, None))))
    assert max(found) < 1.02 * min(found)
    assert abs(found[1] - 2 / 16) < 0.003


def test_masks_are_measured_by_the_iou_of_what_is_there():
    mask = torch.zeros(2, 8, 8, dtype=torch.long)
    mask[0, :4, :4], mask[1, :2, :2] = 1, 2  # a large object, and a small one of another class
    mask[:, 7] = 255
    right = torch.nn.functional.one_hot(mask.clamp(max=2), 3).permute(0, 3, 1, 2).float()
    half = right.clone()
    half[0, 1, :2], half[0, 0, :2] = 0, 1
    half[1, 2, :1], half[1, 0, :1] = 0, 1
    batch = parse({"image": torch.zeros(2, 3, 8, 8), "mask": mask}, None)
    measure = measure_of(half, batch)
    assert measure is not None
    assert "IoU" in measure.about
    assert measured(right, batch).tolist() == [0.0, 0.0]
    background = torch.tensor([40 / 48, 52 / 54])
    assert torch.allclose(measured(half, batch), 1 - (background + 0.5) / 2, atol=1e-6)
    coarse = torch.nn.functional.avg_pool2d(right, 2)
    assert measured(coarse, batch).tolist() == [0.0, 0.0]
    one = {"image": torch.zeros(2, 3, 8, 8), "mask": (mask == 1).long()}
    assert measured(right[:, 1:2] * 8 - 4, parse(one, None)).tolist() == [0.0, 0.0]
    assert measured(right[:, 1:2], parse(one, None)).tolist() == [0.0, 0.0]


def test_labels_are_measured_by_the_probability_of_the_true_class():
    logits = torch.tensor([[0.0, 0.0], [50.0, -50.0], [50.0, -50.0], [1.0, 2.0]])
    batch = parse({"image": torch.zeros(4, 3, 8, 8), "label": torch.tensor([0, 0, 1, -100])}, None)
    assert torch.allclose(measured(logits, batch), torch.tensor([0.5, 0.0, 1.0, torch.nan]), equal_nan=True)


@pytest.mark.parametrize("output", [
    torch.zeros(2, 5), {"logits": torch.zeros(2, 3, 8, 8)}, torch.zeros(2, 3, 8, 8), torch.zeros(3, 2, 8, 8), None, [],
    torch.zeros(2, 2, 8, 8).long(),
], ids=str)  # fmt: skip
def test_where_nothing_is_known_to_be_fairer_the_loss_it_is(output):
    batch = parse({"image": torch.zeros(2, 3, 8, 8), "keypoints": torch.zeros(2, 2, 2)}, None)
    assert measure_of(output, batch) is None


def test_the_loss_as_a_last_resort_is_said_once(caplog):
    model, augmenter = nets.make_network(), nets.make_augmenter(policies.running(policies.wide(PAIRS)))
    batch = nets.make_batch(8)
    targets = {"points": "other", "seen": "other"}
    augmenter = nets.make_augmenter(policies.running(policies.wide(())), targets=targets)

    def loss_fn(output: Any, rows: dict[str, Any]) -> Tensor:
        return (output if isinstance(output, Tensor) else output[-1]).square().flatten(1).mean(1)

    with caplog.at_level(logging.WARNING, "adaug"):
        for _ in range(3):
            augmenter.step(model, {"image": batch["image"], "points": batch["keypoints"], "seen": [1] * 8}, loss_fn)
    assert [record.message for record in caplog.records if "uses the loss" in record.message] != []
    assert len([record for record in caplog.records if "uses the loss" in record.message]) == 1
    assert str(augmenter.difficulty_table()).startswith("difficulty: the loss")


def test_the_users_difficulty_goes_first():
    model, augmenter = nets.make_network(), nets.make_augmenter(policies.robust(PAIRS), difficulty=by_angle)
    result = steps_of(augmenter, model, 1)
    pending = nets.running(augmenter).pending[:3]
    assert torch.allclose((pending[:, -1].sum() / pending[:, :3].sum()).float(), by_angle(None, result.batch).mean())
    assert "the user's" in str(augmenter.difficulty_table())


def test_a_bin_that_leads_by_its_size_alone_is_told_of():
    def size(step: int, view: adaug.View, branch: Tensor) -> Tensor:
        return view.magnitudes["asr.scale"].square()

    running, _ = simulate(size, noise=0.2)
    (note,) = table_of(running, "the loss", may_grow=True).notes
    assert "asr.scale" in note
    assert not table_of(running, "an error", may_grow=False).notes
    turned, _ = simulate(turned_right, noise=0.2)
    assert not table_of(turned, "the loss", may_grow=True).notes


# ---- what is told, and refused


def test_the_table_reads_well():
    running, _ = simulate(turned_right, noise=0.3)
    table = table_of(running, "an error", may_grow=False)
    rotate = table.columns["asr.rotate"]
    assert set(rotate) == {"bin", "difficulty", "error", "probability", "rows"}
    assert all(len(column) == 9 for column in rotate.values())
    assert rotate["bin"][0] == "-53°"
    assert max(range(9), key=lambda i: rotate["difficulty"][i]) == 8
    assert rotate["difficulty"][8] - rotate["difficulty"][4] > 0.8
    lines = str(table).splitlines()
    assert lines[0] == "difficulty: an error"
    assert len(lines) == 1 + 3 + 7 + 9 + 16
    assert any(line.lstrip().startswith("+53°") and "±" in line and "%" in line for line in lines)


def test_a_table_follows_some_steps():
    with pytest.raises(RuntimeError, match="should follow training passes"):
        nets.make_augmenter(policies.robust(PAIRS)).difficulty_table()


def test_pretraining_needs_generators():
    with pytest.raises(
        ValueError, match=r"`pretrain` should have generators to train\. Found that no branch learns by the paper"
    ):
        nets.make_augmenter(WIDE).pretrain(nets.make_network(), [nets.make_batch()], nets.loss_fn, steps=1)


@pytest.mark.parametrize("learned", ["Running", 1, None, "generator", 0.5, Running, object()])
def test_a_way_to_learn_is_a_learner_or_a_short_name(learned):
    with pytest.raises(ValueError, match=r"`learned` of branch .* should be an adaug.learners.Learner, \"running\".*Found"):
        Branch("a", [adaug.Rotate(-9, 9, 3)], 0.5, learned)


@pytest.mark.parametrize("wrong", [{"cap": 1}, {"cap": math.nan}, {"floor": 0}, {"floor": 1}, {"floor": math.nan}], ids=str)
def test_settings_have_a_range(wrong):
    with pytest.raises(ValueError, match=r"should be (above|between).*Found"):
        Running(**wrong)


def test_nothing_is_hidden_if_no_row_shall_be():
    model, augmenter = nets.make_network(), nets.make_augmenter(policies.robust(PAIRS, hidden=0))
    for i in range(3):
        result = steps_of(augmenter, model, 1, first=i)
        assert set(result.branch.tolist()) <= {0, 1}
        assert "aho.occlude" not in result.view.magnitudes
    assert augmenter.difficulty_table()


def test_policies_turn_into_each_other():
    wide = policies.wide(PAIRS)
    assert all(branch.learned == "running" for branch in policies.running(wide).branches)
    assert policies.uniform(policies.running(wide)) == policies.uniform(wide)
    assert policies.running(wide, Running(cap=4)).branches[0].learned == Running(cap=4)
    robust = policies.robust(PAIRS)
    assert robust.branches[0].operations == wide.branches[0].operations
    assert robust.branches[1].operations == (adaug.OccludeImage((4, 4), (1, 2)),), "no network is touched"
    assert all(branch.learned == "running" for branch in robust.branches)
    assert [branch.share for branch in policies.robust(PAIRS, share=1 / 6).branches] == [1 / 6, 1 / 3]
    assert [branch.share for branch in policies.robust(PAIRS, hidden=0).branches] == [1 / 3, 0]
    with pytest.raises(ValueError, match="share"):
        policies.robust(PAIRS, share=2)
    with pytest.raises(ValueError, match=r"should sum to at most 1"):
        policies.robust(PAIRS, share=0.8)


@pytest.mark.parametrize("damage", [
    {"sums": torch.zeros(3, 3)}, {"probabilities": torch.zeros(3, 9)}, {"sums": None}, {"steps": "many"},
], ids=list)  # fmt: skip
def test_a_state_that_does_not_fit_is_refused(damage):
    model, augmenter = nets.make_network(), nets.make_augmenter(policies.robust(PAIRS))
    steps_of(augmenter, model, 2)
    state = augmenter.state_dict()
    before = copy.deepcopy(state["learners"])
    for name, value in damage.items():
        state["learners"]["asr+aho"][name] = value
    with pytest.raises(ValueError, match=r"running difficulty.*Found"):
        augmenter.load_state_dict(state)
    assert nets.same(augmenter.state_dict()["learners"], before)


def test_half_precision_is_summed_in_full():
    def half(output: Any, batch: Any) -> Tensor:
        return torch.ones(8, dtype=torch.bfloat16)

    model, augmenter = nets.make_network(), nets.make_augmenter(policies.robust(PAIRS), difficulty=half)
    with torch.autocast("cpu", torch.bfloat16):
        steps_of(augmenter, model, 2 * EVERY + 5)
    running = nets.running(augmenter)
    assert running.sums.dtype == running.pending.dtype == torch.float64
    old, pending = (sums.diagonal()[:3].sum() for sums in (running.sums, running.pending))
    assert math.isclose(float(old), 8 * EVERY * (1 + math.exp(-EVERY / 256)), rel_tol=1e-9)
    assert pending == 8 * 5


def test_what_is_usual_is_taken_off():
    """The mean falls while a network learns; bins that were drawn long ago should not look hard for it."""

    def hard(step: int, view: adaug.View, branch: Tensor) -> Tensor:
        return 5 * math.exp(-step / 60) + turned_right(step, view, branch)

    running, told = simulate(hard, noise=0.3)
    assert told[-1]["distribution/asr.rotate"][-1] > 0.85 * 2.5 / 9
    assert told[-1]["entropy/asr.scale"] > 0.95 * math.log(7)
    sums = running.sums + running.pending
    shares = running.columns.shares
    left = sums[:shares, -1].sum() / sums.diagonal()[:shares].sum()
    mean = sum(table_of(running, "it", may_grow=False).columns["asr.scale"]["difficulty"]) / 7
    assert math.isclose(mean, float(running.baseline + left), rel_tol=1e-6)


def test_rows_of_all_shares_count():
    model, augmenter = nets.make_network(), nets.make_augmenter(policies.robust(PAIRS))
    steps_of(augmenter, model, 1)
    angles = augmenter.difficulty_table().columns["asr.rotate"]["rows"]
    assert math.isclose(sum(angles), 8, rel_tol=1e-6)
    pairs = itertools.pairwise(augmenter.difficulty_table().columns)
    assert list(pairs) == [("asr.scale", "asr.rotate"), ("asr.rotate", "aho.occlude")]

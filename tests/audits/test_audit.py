"""The audit: every image under every view, what the table says, and that nothing is touched or lost."""

from __future__ import annotations

import ast
import errno
import itertools
import json
import math
import re
import zipfile
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import networks as nets
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.modules.module import register_module_forward_pre_hook

import adaug
from adaug import Audit, Branch, Brightness, Flip, OccludeFeatures, OccludeImage, Policy, Rotate, Scale, apply_view
from adaug.audits.records import FamilyTable
from adaug.audits.statistics import Estimate

ROTATE, SCALE, CELLS = Rotate(-60, 60, 5), Scale(0.5, 2.0, 3, log=True), OccludeImage((2, 2), 1)
VIEWS = [ROTATE, SCALE, CELLS]


def loader(n: int = 10, batch: int = 4) -> list[dict[str, Tensor]]:
    everything = nets.make_batch(n)
    return [{key: value[i : i + batch] for key, value in everything.items()} for i in range(0, n, batch)]


def hits(output: Any, batch: dict[str, Tensor]) -> Tensor:
    """Which joints are found, [B, K] of 0 and 1; here: a function of what the network gives and where the joints are."""
    return (output.float().mean((2, 3)) > batch["keypoints"].mean(2) / 60 - 0.2).float()


def by_image(output: Any, batch: dict[str, Tensor]) -> Tensor:
    return output.float().mean((1, 2, 3)) + batch["keypoints"].mean((1, 2)) / 100


def make_audit(scores: Any, views: tuple[str, ...] = ("a", "b", "c"), **kwargs: Any) -> Audit:
    """An audit of a table whose first column is the image as it is and whose others are one family."""
    table = np.asarray(scores, dtype=np.float32)
    families = (FamilyTable("as it is", ("as it is",), 0), FamilyTable("some", views[: table.shape[1] - 1], 1))
    images = tuple(str(i) for i in range(len(table)))
    return Audit(table, families, images=images, **kwargs)


# ---- every image under every view


@pytest.mark.parametrize("score", [by_image, hits], ids=["images", "joints"])
def test_scores_are_those_of_a_loop_over_views(score: Any) -> None:
    model = nets.make_network().eval()
    audit = adaug.audit(model, loader(), score, VIEWS, num_draws=3)
    batch = nets.make_batch(10)
    plan: list[list[tuple[Any, Any]]] = [[]]
    plan += [[(operation, centre)] for operation in VIEWS for centre in operation.centres()]
    plan += [[(ROTATE, a), (SCALE, s)] for a, s in itertools.product(ROTATE.centres(), SCALE.centres())]
    assert len(audit.views) == len(plan) + 3
    for i, done in enumerate(plan):
        seen = apply_view(batch, done)
        with torch.no_grad():
            expected = score(model(seen["image"]), seen)
        if score is hits:
            expected = torch.where(seen["visibility"] > 0, expected, torch.nan)
        torch.testing.assert_close(
            torch.from_numpy(audit.scores[:, i]), expected, atol=1e-5, rtol=1e-5, equal_nan=True, msg=audit.views[i]
        )
    assert audit.views[0] == "as it is"
    assert audit.views[1:6] == tuple(f"rotate {label}" for label in ROTATE.labels())
    assert "rotate -48°, scale 0.63" in audit.views


def test_views_that_do_the_same_are_seen_once() -> None:
    seen = []

    def model(image: Tensor) -> Tensor:
        seen.append(len(image))
        return image.mean((2, 3))

    audit = adaug.audit(model, [nets.make_batch(64)], lambda output, batch: output.mean(1), VIEWS, num_draws=0, num_pictures=0)
    assert len(audit.views) == 1 + 5 + 3 + 4 + 15
    assert len(seen) == len(audit.views) - 2 - 7  # a turn by 0°, a scale of 1, and the seven pairs with one of them
    assert float(audit.mean("rotate +0°")) == float(audit.mean("as it is"))
    np.testing.assert_array_equal(audit.table(["rotate -48°"]), audit.table(["rotate -48°, scale 1.00"]))


def test_joint_draws_are_the_same_for_all_images_models_and_batches() -> None:
    policy = adaug.policies.wide([(0, 1)])
    one, other = (adaug.audit(nets.make_network(seed=s).eval(), loader(10, b), positions, policy) for s, b in ((0, 4), (1, 1)))
    np.testing.assert_allclose(one.scores, other.scores, atol=1e-4)
    again = adaug.audit(nets.make_network().eval(), loader(), positions, policy, seed=1)
    assert not np.allclose(one.table("draws"), again.table("draws"), atol=1e-2)
    np.testing.assert_allclose(one.table("scale"), again.table("scale"))


def positions(output: Any, batch: dict[str, Tensor]) -> Tensor:
    """A score that tells the view alone."""
    return batch["keypoints"].sum((1, 2))


def test_a_joint_draw_says_what_was_drawn() -> None:
    audit = adaug.audit(
        nets.make_network(), loader(), by_image, Policy([Branch("a", VIEWS, 0.5)], [Flip([(0, 1)])]), num_draws=8
    )
    assert audit.detail("rotate +0°") == "rotate +0°"
    details = [audit.detail(view) for view in audit.family("draws").views]
    assert len(set(details)) == 8
    for i, detail in enumerate(details):
        assert re.fullmatch(rf"draw {i + 1} \(rotate [+-]\d+°, scale \d\.\d\d, occlude \(\d, \d\)(, mirrored)?\)", detail), (
            detail
        )
    assert {detail.endswith("mirrored)") for detail in details} == {True, False}


def test_a_policy_gives_its_operations_once_and_its_mirror() -> None:
    audit = adaug.audit(nets.make_network(), loader(), by_image, adaug.policies.wide([(0, 1)]), num_draws=2)
    assert [family.name for family in audit.families] == [
        "as it is", "scale", "rotate", "occlude", "mirrored", "scale × rotate", "draws",
    ]  # fmt: skip
    assert len(audit.columns("scale × rotate")) == 49  # nine rotations are thinned to seven
    assert audit.grid("rotate", "scale").mean.shape == (7, 7)
    twice = Policy([Branch("one", [Rotate(-30, 30, 3)], 0.3), Branch("other", [Rotate(-60, 60, 3), SCALE], 0.3)], [SCALE])
    names = [family.name for family in adaug.audit(nets.make_network(), loader(), by_image, twice, num_draws=0).families]
    assert names[:4] == ["as it is", "scale", "one.rotate", "other.rotate"]
    assert "draws" not in names


def test_masks_on_features_become_masks_on_the_image() -> None:
    features, image = (
        adaug.audit(nets.make_network(), loader(), by_image, [operation((2, 2), 1)], num_draws=2).scores
        for operation in (OccludeFeatures, OccludeImage)
    )
    np.testing.assert_array_equal(features, image)


def test_joints_that_leave_the_frame_do_not_count() -> None:
    audit = adaug.audit(nets.make_network(), loader(), hits, [Scale(1.0, 5.0, 4)], num_draws=0)
    counted = audit.counted("scale")
    assert (np.diff(counted) <= 0).all()
    assert counted[-1] < 0.7
    assert audit.in_all_views("scale") == pytest.approx(counted[-1])
    seen = apply_view(nets.make_batch(10), [(Scale(1, 5, 4), 4.5)])
    assert np.array_equal(np.isfinite(audit.scores[:, -1]), (seen["visibility"] > 0).numpy())
    alike = audit.curve("scale", alike=True)
    stays = np.isfinite(audit.scores).all(1)
    expected = [float(row[kept].mean()) for row, kept in zip(audit.scores[:, 1], stays, strict=True) if kept.any()]
    assert float(alike.mean[0]) == pytest.approx(np.mean(expected))
    assert audit.excluded["views in which nothing of an image counts"] > 0


def test_keypoints_without_visibility_do_not_count_outside_either() -> None:
    batches = [{key: value for key, value in batch.items() if key != "visibility"} for batch in loader()]
    audit = adaug.audit(nets.make_network(), batches, hits, [Scale(1.0, 5.0, 2)], num_draws=0)
    assert np.isnan(audit.scores[:, -1]).any()
    assert np.isfinite(audit.scores[:, 0]).all()


def test_a_larger_canvas_is_cut() -> None:
    batches = [{"image": torch.rand(3, 3, 48, 48), "label": torch.arange(3)}]
    shapes = []

    def model(image: Tensor) -> Tensor:
        shapes.append(tuple(image.shape[-2:]))
        return image.mean((2, 3))

    adaug.audit(model, batches, lambda output, batch: output.mean(1), [SCALE], num_draws=1, output_size=32)
    assert set(shapes) == {(32, 32)}


# ---- no trace


@pytest.mark.parametrize("mode", [True, False])
def test_the_model_the_loader_and_the_random_state_are_left_alone(mode: bool) -> None:
    model, batches = nets.make_network().train(mode), loader()
    before, copied = nets.traces(model), nets.cloned(batches)
    one = adaug.audit(model, batches, hits, adaug.policies.wide([(0, 1)]), num_draws=2)
    assert nets.differences(before, nets.traces(model)) == []
    assert nets.same(batches, copied)
    np.testing.assert_array_equal(
        one.scores, adaug.audit(model.eval(), batches, hits, adaug.policies.wide([(0, 1)]), num_draws=2).scores
    )


def test_a_score_that_raises_leaves_the_model_as_it_was() -> None:
    model = nets.make_network().train()
    before = nets.traces(model)
    with pytest.raises(KeyError):
        adaug.audit(model, loader(), lambda output, batch: batch["nothing"], VIEWS)
    assert nets.differences(before, nets.traces(model)) == []


# ---- statistics


def test_statistics_by_hand() -> None:
    audit = make_audit([[1, 1, 0, 1], [1, 0, 0, 0], [0, 1, 1, math.nan], [1, 1, 1, 1]])
    assert float(audit.mean()) == pytest.approx((3 / 4 + 1 / 4 + 2 / 3 + 1) / 4)
    name, worst = audit.worst("some")
    assert (name, float(worst)) == ("b", 0.5)
    assert float(audit.worst_per_image("some")) == pytest.approx(2 / 4)
    assert float(audit.in_every_view()) == pytest.approx(1 / 4)
    assert float(audit.in_every_view("some")) == pytest.approx(2 / 4)
    assert float(audit.cvar(0.5)) == pytest.approx((0.5 + 0 + 0.5 + 1) / 4)
    assert float(audit.cvar(0.01)) == float(audit.worst_per_image())
    assert [float(value) for value in audit.by_view()] == pytest.approx([3 / 4, 3 / 4, 1 / 2, 2 / 3])
    case = audit.weakest(1)[0]
    assert (case.image, case.view, case.score, case.as_it_is) == (1, "a", 0, 1)
    assert audit.relative().table().tolist()[1] == [0, -1, -1, -1]


def test_errors_are_turned() -> None:
    audit = make_audit([[0.1, 0.2, 0.9], [0.3, 0.1, 0.2]], higher_is_better=False)
    name, worst = audit.worst()
    assert (name, float(worst)) == ("b", pytest.approx(0.55))
    assert worst.low <= worst <= worst.high
    assert float(audit.worst_per_image()) == pytest.approx(0.6)
    assert audit.weakest(1)[0].image == 0
    with pytest.raises(ValueError, match="scores of 0 and 1"):
        audit.in_every_view()


def test_parts_and_groups() -> None:
    scores = [[[1, 0, 1], [0, 0, 1]], [[1, 1, math.nan], [1, 0, math.nan]]]
    audit = make_audit(scores, ("a",), groups={"left": [0], "rest": [1, 2]})
    assert audit.table().tolist() == [[pytest.approx(2 / 3), pytest.approx(1 / 3)], [1, 0.5]]
    assert audit.table(group="left").tolist() == [[1, 0], [1, 1]]
    assert float(audit.in_every_view()) == pytest.approx(2 / 5)
    assert float(audit.in_every_view(group="rest")) == pytest.approx(1 / 3)
    with pytest.raises(KeyError, match="one of left, rest"):
        audit.table(group="right")
    with pytest.raises(KeyError, match="one of as it is, some"):
        audit.mean("rotate")


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    random = np.random.default_rng(0)
    held = 0
    for i in range(60):
        audit = make_audit(random.normal(0.5, 1.0, (80, 2)), ("a",), seed=i)
        mean = audit.mean()
        held += mean.low <= 0.5 <= mean.high
        assert mean.low < mean < mean.high
    assert held >= 51  # 57 are expected of 60
    assert make_audit([[1.0, 0.0]] * 5, ("a",)).mean().low == 0.5


def test_one_image_says_nothing_of_others() -> None:
    audit, other = make_audit([[1.0, 0.5]], ("a",)), make_audit([[0.0, 0.0]], ("a",))
    assert float(audit.mean()) == 0.75
    assert math.isnan(audit.mean().low)
    comparison = audit.compare(other)
    assert comparison.worse() == comparison.better() == []
    assert "–" in str(audit)


def test_an_estimate_is_a_number() -> None:
    estimate = Estimate(0.5, 0.4, 0.6)
    assert estimate + 1 == 1.5
    assert repr(estimate) == "0.5 (0.4 to 0.6)"


def test_a_view_without_anything_is_no_view_at_all() -> None:
    audit = make_audit([[1, math.nan, 0.5], [0, math.nan, 1.0]])
    assert audit.worst("some")[0] == "b"
    assert math.isnan(audit.by_view()[1])
    assert "–" not in str(audit.mean("some"))
    assert json.loads(audit.to_json())["by_view"][1] == {"value": None, "low": None, "high": None}


# ---- to read and to keep


def test_the_page_fits_a_terminal_and_says_what_there_is() -> None:
    groups = {"nose": [0], "tail": [1]}
    audit = adaug.audit(nets.make_network(), loader(), hits, adaug.policies.wide([(0, 1)]), groups=groups)
    text = str(audit)
    assert all(len(line) <= 96 for line in text.splitlines())
    assert len(text.splitlines()) < 45
    for word in ("10 images of 2 parts", "as it is", "rotate", "scale × rotate", "draws", "tail", "worst per image", "Weakest"):
        assert word in text
    many = tuple(f"translate_x {i}, translate_y {i}" for i in range(3))
    wide = (
        FamilyTable("as it is", ("as it is",), 0),
        FamilyTable("translate_x × translate_y, and a name without an end", many, 1),
    )
    page = str(Audit(np.eye(5, 4, dtype=np.float32), wide, images=tuple("12345")))
    assert all(len(line) <= 96 for line in page.splitlines())
    assert "in every view" in page
    assert repr(audit) == f"<Audit: 10 images, {len(audit.views)} views, 2 parts; print it for a page>"
    assert json.loads(audit.to_json())["families"]["rotate"]["mean"]["value"] == pytest.approx(float(audit.mean("rotate")))


def test_a_file_holds_all_of_it(tmp_path: Any) -> None:
    audit = adaug.audit(nets.make_network(), loader(), hits, VIEWS, groups={"nose": [0]}, num_draws=3)
    read = Audit.load(audit.save(tmp_path / "sub" / "one.audit"))
    assert sorted(path.name for path in (tmp_path / "sub").iterdir()) == ["one.audit"]
    np.testing.assert_array_equal(read.scores, audit.scores)
    assert read.families == audit.families
    assert (read.higher_is_better, dict(read.groups), list(read.images), read.seed) == (
        True,
        {"nose": (0,)},
        list(audit.images),
        0,
    )
    assert str(read) == str(audit)
    assert read.to_json() == audit.to_json()
    assert len(read.pictures) == len(audit.pictures) == 10
    for mine, theirs in zip(audit.pictures, read.pictures, strict=True):
        np.testing.assert_array_equal(mine.pixels, theirs.pixels)
        assert mine.labels.keys() == theirs.labels.keys() == {"keypoints", "visible", "label"}
        assert mine.predictions.keys() == {"keypoints"}


@pytest.mark.parametrize("damage", ["cut", "flipped", "text", "pickle", "other"])
def test_a_damaged_file_is_named(damage: str, tmp_path: Any) -> None:
    path = make_audit(np.random.default_rng(0).random((50, 3))).save(tmp_path / "one.audit")
    data = bytearray(path.read_bytes())
    if damage == "cut":
        data = data[: len(data) // 2]
    elif damage == "flipped":
        data[200] ^= 0xFF
    elif damage == "text":
        data = bytearray(b"nothing of the kind")
    path.write_bytes(data)
    if damage == "pickle":
        with path.open("wb") as file:
            np.savez(file, described=np.array([{}], dtype=object), scores=np.zeros(3))
    if damage == "other":
        with path.open("wb") as file:
            np.savez(file, scores=np.zeros(3))
    with pytest.raises(ValueError, match=r"one\.audit should be an audit.*audit again"):
        Audit.load(path)


def test_no_changed_bit_of_a_file_goes_unnoticed(tmp_path: Any) -> None:
    audit = adaug.audit(nets.make_network(), loader(4), hits, VIEWS, num_draws=1, num_pictures=2)
    path = audit.save(tmp_path / "one.npz")
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
    for position in [*range(8 * (len(whole) - 100), 8 * len(whole), 8), *rng.integers(8 * len(whole), size=300)]:
        flipped = bytearray(whole)
        flipped[position // 8] ^= 1 << position % 8
        path.write_bytes(flipped)
        with pytest.raises(ValueError, match=rf"^{path} should be an audit.*delete it and audit again"):
            Audit.load(path)
    for content in (b"", whole[:-1], whole + b"\0"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=rf"^{path} should be an audit"):
            Audit.load(path)


def test_a_full_disk_leaves_the_file_that_was_there(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(number: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    audit = make_audit(np.random.default_rng(0).random((50, 3)))
    path = audit.save(tmp_path / "one.audit")
    whole = path.read_bytes()
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match=r"room for .*one\.audit\. Found the disk full"):
        audit.save(path)
    assert path.read_bytes() == whole
    assert list(tmp_path.iterdir()) == [path]


def test_pictures_show_what_a_view_hurts_most() -> None:
    images = torch.zeros(3, 3, 8, 8)
    images[1, :, :4, :4] = 1.0  # all that this one has lies in the first cell

    def score(output: Tensor, batch: dict[str, Tensor]) -> Tensor:
        return torch.where(batch["label"] == 1, output.mean((1, 2, 3)), torch.ones(len(output)))

    batches = [{"image": images, "label": torch.arange(3)}]
    audit = adaug.audit(lambda image: image, batches, score, [OccludeImage((2, 2), 1)], num_draws=0)
    first = audit.pictures[0]
    assert (first.image, audit.views[first.view], int(first.labels["label"])) == (1, "occlude (1, 1)", 1)
    assert first.pixels.max() == 0


def test_pictures_may_be_few_or_none() -> None:
    model = nets.make_network().eval()
    many, few, none = (
        adaug.audit(model, loader(40), by_image, VIEWS, num_draws=0, num_pictures=n).pictures for n in (12, 3, 0)
    )
    assert [picture.image for picture in few] == [picture.image for picture in many[:3]]
    assert none == ()


def test_the_gallery_is_bounded_and_the_same_in_any_batches() -> None:
    model = nets.make_network().eval()
    one, other = (adaug.audit(model, loader(40, batch), by_image, VIEWS, num_draws=0) for batch in (40, 3))
    assert len(one.pictures) == 12
    assert {picture.image for picture in one.pictures} == {picture.image for picture in other.pictures}


# ---- going on


class Breaks(Exception):
    pass


@pytest.mark.parametrize("error", [Breaks, KeyboardInterrupt])
def test_what_was_computed_is_not_lost_and_not_computed_again(error: type[BaseException], tmp_path: Any) -> None:
    model, path, looked = nets.make_network(), tmp_path / "long.audit", []

    def counted(module: Any, args: Any) -> None:
        if module is model:
            looked.append(len(args[0]))

    def broken() -> Any:
        yield from loader()[:2]
        raise error

    handle = register_module_forward_pre_hook(counted)
    try:
        whole = adaug.audit(model, loader(), hits, VIEWS, num_draws=2, num_pictures=0)
        passes = sum(looked) // 10  # of an image
        with pytest.raises(error) as caught:
            adaug.audit(model, broken(), hits, VIEWS, num_draws=2, path=path)
        assert len(caught.value.audit) == 8
        np.testing.assert_array_equal(Audit.load(path).scores, whole.scores[:8])
        looked.clear()
        resumed = adaug.audit(model, loader(), hits, VIEWS, num_draws=2, num_pictures=0, path=path)
        assert sum(looked) == 2 * passes
    finally:
        handle.remove()
    np.testing.assert_array_equal(resumed.scores, whole.scores)
    np.testing.assert_array_equal(Audit.load(path).scores, whole.scores)
    assert resumed.excluded == whole.excluded


# ---- two audits


def pair(change: float, n: int = 60) -> tuple[Audit, Audit]:
    random = np.random.default_rng(1)
    scores = random.random((n, 4))
    after = scores.copy()
    after[:, 2] += change + 0.01 * random.normal(size=n)
    return make_audit(scores), make_audit(after)


def test_what_gets_worse_is_named_and_what_stays_is_not() -> None:
    before, after = pair(-0.5)
    comparison = before.compare(after)
    assert "mean, some" in comparison.worse()
    assert "worst per image, all views" in comparison.worse(by=0.1)
    assert comparison.worse(by=0.9) == []
    assert comparison.better() == []
    back = after.compare(before)
    assert back.worse() == []
    assert "mean, some" in back.better(by=0.1)
    by_view = comparison.by_view("some")
    assert [change.better for change in by_view] == [None, False, None]
    assert float(by_view[1].difference) == pytest.approx(-0.5, abs=0.01)
    assert by_view[1].difference.high - by_view[1].difference.low < 0.02  # paired: the spread of images does not count
    assert not before.compare(before).worse()
    assert "worse" in str(comparison)
    assert all(len(line) <= 110 for line in str(comparison).splitlines())


def test_of_many_figures_that_move_by_chance_none_is_beyond_doubt() -> None:
    random, named, alone = np.random.default_rng(0), 0, 0
    for i in range(30):
        scores = (random.random((100, 9)) < 0.7).astype(float)
        again = np.where(random.random(scores.shape) < 0.2, random.random(scores.shape) < 0.7, scores)
        comparison = make_audit(scores, tuple("abcdefgh"), seed=i).compare(make_audit(again, tuple("abcdefgh"), seed=i))
        named += bool(comparison.worse() or comparison.better())
        alone += any(
            abs(change.difference) * comparison._width > 1.96 * (change.difference.high - change.difference)
            for change in comparison.changes
        )
    assert alone > 5  # each for itself, some figure nearly always seems to have moved
    assert named <= 5


def test_per_cent_is_the_unit_of_scores_of_0_and_100() -> None:
    audit, other = make_audit([[100, 100], [100, 0]] * 50, ("a",)), make_audit([[100, 0], [100, 0]] * 50, ("a",))
    assert float(audit.in_every_view()) == 50.0
    assert "in every view, all views" in audit.compare(other).worse(by=0.5)
    assert audit.compare(other).worse(by=60) == []
    wrong = make_audit([[0, 0]] * 100, ("a",))  # nothing tells its unit
    change = wrong.compare(audit).in_every_view()
    assert float(change.difference) == 50.0
    assert 30 < change.difference.low < 50 < change.difference.high < 70
    assert "in every view" in str(audit)


def test_where_higher_is_worse_more_is_worse() -> None:
    before, after = (make_audit(audit.scores, higher_is_better=False) for audit in pair(0.5))
    assert "mean, some" in before.compare(after).worse(by=0.1)
    assert before.compare(after).mean("some").difference > 0


def test_right_in_every_view_is_compared_too() -> None:
    before = make_audit([[1, 1, 1, 0]] * 30 + [[1, 1, 1, 1]] * 10)
    after = make_audit([[1, 1, 1, 1]] * 40)
    change = before.compare(after).in_every_view()
    assert (change.before, change.after, change.better) == (0.25, 1.0, True)
    assert float(change.difference) == pytest.approx(0.75)


def test_audits_of_other_things_are_not_compared() -> None:
    audit = make_audit([[1, 0], [0, 1]], ("a",))
    for other, pattern in (
        (make_audit([[1, 0], [0, 1]], ("b",)), "same families"),
        (make_audit([[1, 0], [0, 1]], ("a",), higher_is_better=False), "same higher_is_better"),
        (make_audit([[1, 0]], ("a",)), "same images in the same order. Found 2 and 1"),
    ):
        with pytest.raises(ValueError, match=pattern):
            audit.compare(other)


# ---- what cannot be audited


@pytest.mark.parametrize(
    ("change", "error", "pattern"),
    [
        ({"score": lambda o, b: torch.zeros(5)}, ValueError, r"one number per image.*Found \(5,\)"),
        ({"score": lambda o, b: "good"}, TypeError, "should return a tensor, an array or a list.*Found str"),
        ({"score": lambda o, b: [[1.0], [1.0, 0.0]]}, TypeError, "should return a tensor.*Found list"),
        ({"score": lambda o, b: torch.full((len(o),), math.inf)}, ValueError, "finite, or NaN.*Found inf"),
        ({"score": lambda o, b: torch.zeros(len(o), 2, 2)}, ValueError, r"Found \(\d+, 2, 2\)"),
        ({"score": None}, TypeError, "`score` should be callable. Found NoneType"),
        ({"model": 3}, TypeError, "`model` should be callable. Found int"),
        ({"views": ["rotate"]}, TypeError, "operations such as adaug.Rotate. Found 'rotate'"),
        ({"views": Policy((), [Flip()])}, ValueError, "A Flip should know which keypoints change places"),
        ({"higher_is_better": "less"}, TypeError, "True or False. Found 'less'"),
        ({"num_draws": -1}, ValueError, "`num_draws` should.*at least 0. Found -1"),
        ({"num_pictures": 1.5}, ValueError, r"`num_pictures` should.*Found 1\.5"),
        ({"loader": []}, ValueError, "at least one batch. Found none"),
        ({"loader": nets.make_batch(3)}, TypeError, r"Found dict, a batch itself; pass \[batch\]"),
        ({"views": "rotate"}, TypeError, "operations such as adaug.Rotate. Found 'rotate'"),
        ({"groups": {"left": [0]}}, ValueError, r"come with scores of parts, \[B, K\]. Found left"),
        (
            {"score": hits, "groups": {"left": [2]}},
            ValueError,
            r"`groups\['left'\]` should hold parts from 0 to 1. Found \[2\]",
        ),
        ({"targets": {"image": "picture"}}, ValueError, "Found 'picture'"),
        ({"views": [Brightness(0.5, 1.5, 2)], "loader": [{"image": torch.randn(2, 3, 32, 32)}]}, ValueError, r"\[0, 1\]"),
        ({"loader": [{"image": torch.rand(2, 3, 32, 32), "depth": torch.rand(2, 32, 32)}]}, ValueError, "Found 'depth'"),
    ],
)
def test_what_cannot_be_audited_is_said(change: dict[str, Any], error: type[Exception], pattern: str) -> None:
    arguments = {"model": nets.make_network(), "loader": loader(), "score": by_image, "views": VIEWS} | change
    with pytest.raises(error, match=pattern):
        adaug.audit(**arguments)


def test_parts_that_differ_from_batch_to_batch_are_refused() -> None:
    def score(output: Any, batch: dict[str, Tensor]) -> Tensor:
        return torch.zeros(len(output), 3 if bool(batch["image"].max() <= 0.25) else 2)

    batches = [*loader(4), {**nets.make_batch(4), "image": torch.full((4, 3, 32, 32), 0.25)}]
    with pytest.raises(ValueError, match=r"the same parts for every batch, \(2,\)\. Found \(3,\)") as caught:
        adaug.audit(nets.make_network(), batches, score, [CELLS], num_draws=0)
    assert len(caught.value.audit) == 4


def test_a_mask_whose_outside_nobody_named_is_not_silent() -> None:
    batch = {"image": torch.rand(2, 3, 16, 16), "mask": torch.ones(2, 16, 16).long()}

    def score(output: Any, batch: dict[str, Tensor]) -> Tensor:
        return (batch["mask"] == 1).float().mean((1, 2))

    with pytest.warns(UserWarning, match=r"should have a fill for pixels outside the canvas.*Found none.*fill=255"):
        adaug.audit(lambda image: image, [batch], score, [SCALE])
    adaug.audit(lambda image: image, [batch], score, [CELLS])  # nothing moves
    adaug.audit(lambda image: image, [batch], score, [SCALE], targets={"mask": adaug.Target("mask", fill=255)})


def test_one_operation_a_numpy_score_and_no_pairs_will_do() -> None:
    one = adaug.audit(nets.make_network(), loader(), lambda o, b: by_image(o, b).numpy(), ROTATE, num_draws=0)
    assert [family.name for family in one.families] == ["as it is", "rotate"]
    assert float(one.mean("rotate +0°")) == float(one.by_view("rotate")[2])
    assert len(adaug.audit(nets.make_network(), loader(), by_image, VIEWS, num_draws=0, pairs=False).views) == 1 + 5 + 3 + 4
    with pytest.raises(KeyError, match="`operation` should be one of rotate"):
        one.curve("rotation")
    with pytest.raises(TypeError, match="should be compared with an Audit"):
        one.compare("another")  # type: ignore[arg-type]


def test_images_without_a_score_are_counted_and_named() -> None:
    def score(output: Any, batch: dict[str, Tensor]) -> Tensor:
        return torch.where(batch["label"] == 1, torch.nan, torch.ones(len(output)))

    audit = adaug.audit(nets.make_network(), loader(), score, [CELLS], num_draws=0)
    lost = int((nets.make_batch(10)["label"] == 1).sum())
    assert audit.excluded == {"images without a score": lost}
    assert f"{lost} images without a score" in str(audit)
    assert float(audit.mean()) == 1.0


# ---- its files


def test_imports_of_the_audit_run_one_way_lazy_ones_too() -> None:
    folder = Path(adaug.audits.__file__).parent
    graph: dict[str, set[str]] = {}
    for path in folder.rglob("*.py"):
        name = ".".join(["adaug.audits", *path.relative_to(folder).with_suffix("").parts]).removesuffix(".__init__")
        nodes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)]
        graph[name] = {f"{node.module}.{alias.name}" for node in nodes for alias in node.names}
        assert not any((node.module or "") == "adaug" for node in nodes), name
    below = {
        name: {other for other in graph if any(f"{found}.".startswith(f"{other}.") for found in graph[name])} for name in graph
    }
    for name in below:  # `from a.b.c import d` names a.b.c; that a and a.b stand around it is no import of theirs
        below[name] = {o for o in below[name] if not any(p.startswith(f"{o}.") for p in below[name])} - {"adaug.audits"}
    assert list(TopologicalSorter(below).static_order())[-1] == "adaug.audits"

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from adaug.keypoints import render_heatmaps
from examples import face_alignment
from examples.datasets.w300 import write_pts
from examples.face_alignment import FLIP_PAIRS, GROUPS, draw_faces, frontal, inter_ocular

TINY = ["--size", "32", "--epochs", "1", "--batch-size", "6", "--faces", "12", "6"]


def mirrored_names() -> list[int]:
    order = list(range(68))
    for right, left in FLIP_PAIRS:
        order[right], order[left] = left, right
    return order


# -- points ----------------------------------------------------------------------------------------------------------


def test_flip_pairs_are_an_involution_that_leaves_the_middle_line():
    order = mirrored_names()
    assert sorted(order) == list(range(68))
    assert [order[i] for i in order] == list(range(68))
    assert [i for i in range(68) if order[i] == i] == [8, 27, 28, 29, 30, 33, 51, 57, 62, 66]


def test_pairs_stay_in_their_part_and_parts_make_up_the_face():
    for right, left in FLIP_PAIRS:
        (part,) = (name for name, members in GROUPS.items() if right in members)
        assert left in GROUPS[part]
    assert sorted(point for part in GROUPS.values() for point in part) == list(range(68))


def test_pairs_are_mirror_images_on_a_frontal_face():
    face = frontal()
    np.testing.assert_allclose(face[mirrored_names()], face * (-1, 1, 1), atol=1e-12)
    assert all(face[right, 0] < 0 < face[left, 0] or face[left, 0] < 0 < face[right, 0] for right, left in FLIP_PAIRS)
    assert (face[:17, 0] < 0).sum() == 8  # the person's right is on the left of an image
    assert face[36, 0] < face[39, 0] < face[42, 0] < face[45, 0]


# -- drawing ---------------------------------------------------------------------------------------------------------


def test_faces_fill_the_centre_and_depend_on_their_own_number():
    faces, fewer, others = draw_faces(4, 32, seed=0), draw_faces(2, 32, seed=0), draw_faces(2, 32, seed=1)
    assert faces["image"].shape == (4, 3, 48, 48)
    low, high = faces["keypoints"].amin(1), faces["keypoints"].amax(1)
    torch.testing.assert_close((low + high) / 2, torch.full((4, 2), 23.5))
    torch.testing.assert_close((high - low).amax(1), torch.full((4,), 32 / 1.25))
    assert all(torch.equal(fewer[name], value[:2]) for name, value in faces.items())
    assert not torch.equal(others["image"], fewer["image"])
    assert faces["image"].std((1, 2, 3)).min() > 0.05


def test_what_is_drawn_lies_where_the_points_are():
    """Brows are darker than the cheeks, in most faces: some have something in front of them."""
    faces = draw_faces(24, 64, seed=0)
    grey = faces["image"].mean(1)

    def darkest(points: torch.Tensor) -> torch.Tensor:
        x, y = points.round().long().clamp(1, 94).unbind(-1)
        rows = torch.arange(len(points))[:, None]
        return torch.stack([grey[rows, y + dy, x + dx] for dy in (-1, 0, 1) for dx in (-1, 0, 1)]).amin(0)

    points = faces["keypoints"]
    brows, cheeks = points[:, [19, 24]], (points[:, [41, 46]] + points[:, [3, 13]]) / 2
    assert (darkest(brows) < 0.8 * darkest(cheeks)).float().mean() > 0.8


# -- errors ----------------------------------------------------------------------------------------------------------


def test_errors_are_those_of_a_plain_reference():
    rng = np.random.default_rng(0)
    truth = rng.uniform(0, 100, (200, 68, 2))
    truth[:, 36], truth[:, 45] = (20, 40), (80, 45)
    predicted = truth + rng.normal(0, 1, truth.shape) * rng.uniform(0.5, 8, (200, 1, 1))
    expected = []
    for p, t in zip(predicted, truth, strict=True):
        eyes = np.hypot(*(t[36] - t[45]))
        expected.append(np.mean([np.hypot(*(a - b)) for a, b in zip(p, t, strict=True)]) / eyes)
    errors = face_alignment.nme(torch.from_numpy(predicted), torch.from_numpy(truth))
    np.testing.assert_allclose(errors.numpy(), expected, rtol=1e-12)
    # As 300-W's scripts do it: the cumulative error curve at many thresholds, integrated, over the last threshold.
    thresholds = np.linspace(0, 0.08, 80001)
    curve = np.searchsorted(np.sort(expected), thresholds, side="right") / len(expected)
    area = np.sum((curve[1:] + curve[:-1]) / 2 * np.diff(thresholds)) / 0.08
    measures = face_alignment.measures(errors)
    assert measures == pytest.approx(
        {"NME": 100 * np.mean(expected), "AUC@0.08": 100 * area, "FR@0.08": 100 - 100 * curve[-1]}, abs=1e-3
    )
    assert 5 < measures["FR@0.08"] < 95


def test_the_ends_of_the_measures():
    def of(*errors: float) -> list[float]:
        return list(face_alignment.measures(torch.tensor(errors)).values())

    assert of(0.0, 0.0) == [0, 100, 0]
    assert of(1.0) == [100, 0, 100]
    assert of(0.04) == pytest.approx([4, 50, 0])
    assert of(0.0, 0.09)[2] == 50


def test_the_loss_is_least_where_the_points_are_and_knows_which_count():
    faces = draw_faces(3, 32, seed=0)
    truth = render_heatmaps(faces["keypoints"], 12, stride=4).clamp(min=1e-9).log()
    right, uniform = (face_alignment.loss_fn(output, faces) for output in (truth, torch.zeros_like(truth)))
    assert (right < uniform).all()
    torch.testing.assert_close(uniform, torch.full((3,), 144.0).log())
    hidden = {**faces, "visibility": torch.zeros(3, 68)}
    hidden["visibility"][:, 30] = 1
    few = truth.clone()
    few[:, :30] = few[:, 31:] = 0  # what is said of the others does not matter
    torch.testing.assert_close(face_alignment.loss_fn(few, hidden), face_alignment.loss_fn(truth, hidden))


def test_the_difficulty_does_not_grow_with_the_face():
    small, large = (draw_faces(2, size, seed=0) for size in (32, 64))
    for faces, side in ((small, 12), (large, 24)):
        shifted = faces["keypoints"] + torch.tensor([0.1, 0.0]) * inter_ocular(faces["keypoints"])[:, None, None]
        faces["error"] = face_alignment.difficulty(render_heatmaps(shifted, side, stride=4).clamp(min=1e-9).log(), faces)
    torch.testing.assert_close(small["error"], large["error"], rtol=0.1, atol=0)


# -- the example -----------------------------------------------------------------------------------------------------


def check(scores: dict[str, dict[str, float]]) -> None:
    for measures in scores.values():
        assert list(measures) == [*face_alignment.ERRORS, *face_alignment.SHOWN]
        assert all(np.isfinite(list(measures.values())))


def test_the_example_runs_and_repeats_itself(capsys, tmp_path):
    scores = face_alignment.main(TINY)
    check(scores)
    assert list(scores) == ["random", "robust"]
    printed = capsys.readouterr().out
    assert "12 training and 6 test faces" in printed
    assert f"{scores['random']['NME']:13.2f}{scores['robust']['NME']:13.2f}" in printed
    assert "audit.html" not in printed
    assert face_alignment.main([*TINY, "--out", str(tmp_path)]) == scores
    assert f"{tmp_path / 'audit.html'}: where both are weak" in capsys.readouterr().out
    assert (tmp_path / "audit.html").is_file()
    assert scores["random"] != scores["robust"]


def test_the_papers_generators(capsys):
    check(face_alignment.main([*TINY, "--arms", "adversarial"]))
    printed = capsys.readouterr().out
    assert not any(word in printed for word in (": better", ": same", ": not")), "one network alone is not compared"


def test_the_example_reads_300w(tmp_path):
    for part in ("trainset", "testset"):
        (tmp_path / part).mkdir()
        for i in range(4):
            write_pts(tmp_path / part / f"{i}.pts", frontal()[:, :2] * 40 + (50 + i, 20))
            Image.new("RGB", (100, 90), (40 * i, 90, 120)).save(tmp_path / part / f"{i}.png")
    faces = face_alignment.read_faces(tmp_path / "trainset", 32)
    low, high = faces["keypoints"].amin(1), faces["keypoints"].amax(1)
    torch.testing.assert_close((low + high) / 2, torch.full((4, 2), 23.5))
    torch.testing.assert_close((high - low).amax(1), torch.full((4,), 32 / 1.25))
    check(face_alignment.main(["--data", str(tmp_path), *TINY[:-5], "--batch-size", "3", "--faces", "3", "4"]))
    with pytest.raises(FileNotFoundError, match="Found none"):
        face_alignment.read_faces(tmp_path / "nowhere", 32)


def test_a_turned_face_is_found_where_it_went():
    """Under every view of the audit, with eyes as far apart as the view shows them."""
    faces, views = draw_faces(2, 32, seed=0), []

    def told(output, batch, found=face_alignment.found):  # it comes after the network, so it answers in its place
        views.append(batch["keypoints"])
        near = batch["keypoints"] + 0.25 * face_alignment.NEAR * inter_ocular(batch["keypoints"])[:, None, None]
        return found(render_heatmaps(near, 8, stride=4).clamp(min=1e-9).log(), batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(face_alignment, "found", told)
        audited = face_alignment.audit(lambda image: torch.zeros(len(image), 68, 8, 8), faces, 32)
    assert float(audited.mean()) > 0.98
    assert {name: tuple(points) for name, points in audited.groups.items()} == {k: tuple(v) for k, v in GROUPS.items()}
    moved = torch.cat([(points[:2] - (faces["keypoints"] - 8)).norm(dim=-1).mean(1) for points in views])
    assert moved.max() > 2  # they did go somewhere


def test_a_point_is_found_when_it_is_near_enough():
    points = draw_faces(1, 64, seed=0)["keypoints"]
    truth = points.clone()
    truth[:, 60] += torch.tensor([0.2, 0.0]) * inter_ocular(points)
    maps = render_heatmaps(points, 24, stride=4).clamp(min=1e-9).log()
    hits = face_alignment.found(maps, {"keypoints": truth})
    assert hits.shape == (1, 68)
    assert hits[0, 60] == 0
    assert hits[0, [i for i in range(68) if i != 60]].mean() > 0.98

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from adaug.keypoints import render_heatmaps
from examples import face_alignment
from examples.datasets.drawn_faces import draw_faces, frontal, pose_face, shape_face
from examples.datasets.w300 import W300, auc, failure_rate, inter_ocular, load_w300, nme, read_pts, write_pts

REAL = Path(__file__).parents[2].parent / "shared" / "data" / "face300w" / "helen"


def mirrored_names() -> list[int]:
    order = list(range(68))
    for right, left in W300.flip_pairs:
        order[right], order[left] = left, right
    return order


# -- markup ----------------------------------------------------------------------------------------------------------


def test_flip_pairs_are_an_involution_that_leaves_the_middle_line():
    order = mirrored_names()
    assert sorted(order) == list(range(68))
    assert [order[i] for i in order] == list(range(68))
    assert [i for i in range(68) if order[i] == i] == [8, 27, 28, 29, 30, 33, 51, 57, 62, 66]
    assert [W300.names[i] for i in (36, 45)] == ["right eye 0", "left eye 3"]


def test_pairs_stay_in_their_part_and_parts_make_up_the_face():
    for right, left in W300.flip_pairs:
        part = [name for name, members in W300.groups.items() if right in members]
        assert left in W300.groups[part[0]]
    assert sorted(sum(W300.groups.values(), ())) == list(range(68))
    assert {end for limb in W300.limbs for end in limb} == set(range(68))


def test_pairs_are_mirror_images_on_a_frontal_face():
    face = frontal()
    np.testing.assert_allclose(face[mirrored_names()], face * (-1, 1, 1), atol=1e-12)
    assert all(face[right, 0] < 0 < face[left, 0] or face[left, 0] < 0 < face[right, 0] for right, left in W300.flip_pairs)
    assert (face[:17, 0] < 0).sum() == 8  # the person's right is on the left of an image
    assert face[36, 0] < face[39, 0] < face[42, 0] < face[45, 0]


@pytest.mark.parametrize("seed", range(20))
def test_every_face_is_made_like_a_face(seed):
    rng = np.random.default_rng(seed)
    face = shape_face(rng)
    right, left = np.array([36, 37, 38, 39, 40, 41]), np.array([45, 44, 43, 42, 47, 46])
    np.testing.assert_allclose(face[right], face[left] * (-1, 1, 1), atol=1e-9)
    y = face[:, 1]
    assert y[17:27].max() < y[36:48].min()  # brows above eyes above nose tip above mouth above chin
    assert y[36:48].max() < y[30] < y[33] < y[51] < y[57] < y[8]
    assert (y[[41, 40, 47, 46]] > y[[37, 38, 43, 44]]).all()
    assert (y[[67, 66, 65]] >= y[[61, 62, 63]] - 1e-9).all()  # lips do not cross
    head = pose_face(rng, face, 64, 96)
    side = (head.points.max(0) - head.points.min(0)).max()
    assert side == pytest.approx(64 / 1.25)
    np.testing.assert_allclose(head.at(face), head.points)


# -- drawing ---------------------------------------------------------------------------------------------------------


def test_faces_fill_the_centre_and_depend_on_their_own_number():
    faces, fewer, others = (
        draw_faces(4, size=32, canvas=48),
        draw_faces(2, size=32, canvas=48),
        draw_faces(2, size=32, canvas=48, seed=1),
    )
    assert faces.images.shape == (4, 3, 48, 48)
    assert faces.joints is W300
    low, high = faces.keypoints.amin(1), faces.keypoints.amax(1)
    torch.testing.assert_close((low + high) / 2, torch.full((4, 2), 23.5))
    torch.testing.assert_close((high - low).amax(1), torch.full((4,), 32 / 1.25))
    torch.testing.assert_close(faces.pck_length, inter_ocular(faces.keypoints))
    assert torch.equal(fewer.images, faces.images[:2])
    assert torch.equal(fewer.keypoints, faces.keypoints[:2])
    assert not torch.equal(others.images, fewer.images)
    assert faces.images.float().std((1, 2, 3)).min() > 10
    with pytest.raises(ValueError, match="size"):
        draw_faces(1, size=64, canvas=32)
    with pytest.raises(ValueError, match="negative"):
        draw_faces(-1)


def test_what_is_drawn_lies_where_the_points_are():
    """Eyes are darker (lids, iris) than the cheeks below them, in most faces: some wear glasses or hold a card."""
    faces = draw_faces(24, size=64, canvas=64)
    grey = faces.images.float().mean(1)
    eyes = torch.stack([faces.keypoints[:, 36:42].mean(1), faces.keypoints[:, 42:48].mean(1)], 1)  # [N, 2, 2]
    cheeks = eyes + 0.9 * (faces.keypoints[:, 33] - faces.keypoints[:, 27])[:, None] * 0.7

    def darkest(points: torch.Tensor) -> torch.Tensor:
        x, y = points.round().long().clamp(1, 62).unbind(-1)
        rows = torch.arange(len(points))[:, None]
        return torch.stack([grey[rows, y + dy, x + dx] for dy in (-1, 0, 1) for dx in (-1, 0, 1)]).amin(0)

    assert (darkest(eyes) < darkest(cheeks)).float().mean() > 0.8


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
    errors = nme(torch.from_numpy(predicted), torch.from_numpy(truth))
    np.testing.assert_allclose(errors.numpy(), expected, rtol=1e-12)
    # As 300-W's scripts do it: the cumulative error curve at many thresholds, integrated, over the last threshold.
    thresholds = np.linspace(0, 0.08, 80001)
    curve = np.searchsorted(np.sort(expected), thresholds, side="right") / len(expected)
    assert auc(errors) == pytest.approx(np.sum((curve[1:] + curve[:-1]) / 2 * np.diff(thresholds)) / 0.08, abs=1e-5)
    assert failure_rate(errors) == pytest.approx(1 - curve[-1], abs=1e-12)
    assert 0.05 < failure_rate(errors) < 0.95


def test_the_ends_of_the_measures():
    assert auc(torch.zeros(3)) == 1
    assert auc(torch.ones(3)) == 0
    assert auc(torch.tensor([0.04])) == pytest.approx(0.5)
    assert failure_rate(torch.tensor([0.0, 0.09])) == 0.5


# -- files -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three faces, the image of each black but for a white spot on one point."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:160, :140]
    for i, k in enumerate((0, 30, 57)):
        points = frontal()[:, :2] * 60 + (70, 50) + rng.normal(0, 1, (68, 2))
        spot = np.clip(5 - np.hypot(x - points[k, 0], y - points[k, 1]), 0, 1) * 255
        Image.fromarray(spot.astype(np.uint8)).convert("RGB").save(tmp_path / f"{i}.png")
        write_pts(tmp_path / f"{i}.pts", points)
    return tmp_path


def test_points_come_back_and_the_file_counts_from_one(tmp_path):
    points = np.random.default_rng(0).uniform(-3, 400, (68, 2))
    points[0] = (0, 0)  # the centre of the first pixel
    write_pts(tmp_path / "face.pts", points)
    lines = (tmp_path / "face.pts").read_text().split("\n")
    assert lines[:4] == ["version: 1", "n_points: 68", "{", "1.0000 1.0000"]
    np.testing.assert_allclose(read_pts(tmp_path / "face.pts"), points, atol=5e-5)
    (tmp_path / "face.pts").write_text("version: 1\r\nn_points:  68\r\n{\r\n" + "2 3 \r\n" * 68 + "}\r\n")
    np.testing.assert_array_equal(read_pts(tmp_path / "face.pts"), np.tile([1.0, 2.0], (68, 1)))


def test_spots_lie_on_their_points(folder):
    faces = load_w300(folder, size=64, canvas=96, progress=False)
    weight = (faces.images.double().mean(1) - 8).clamp(min=0)
    grid = torch.arange(96.0, dtype=torch.float64)
    mass = weight.sum((1, 2))
    centre = torch.stack([(weight.sum(1) * grid).sum(1), (weight.sum(2) * grid).sum(1)], 1) / mass[:, None]
    for i, k in enumerate((0, 30, 57)):
        torch.testing.assert_close(centre[i], faces.keypoints[i, k].double(), rtol=0, atol=0.15)


def test_a_file_that_is_missing_or_broken_is_named(folder):
    broken = {
        "short": "version: 1\n{\n1 2\n}\n",
        "no braces": "1 2\n" * 68,
        "cut off": "{\n" + "1 2\n" * 68,
        "words": "{\n" + "one two\n" * 68 + "}",
        "not a number": "{\n" + "nan 2\n" * 68 + "}",
        "three columns": "{\n" + "1 2 3\n" * 68 + "}",
    }
    good = (folder / "1.pts").read_text()
    for text in broken.values():
        (folder / "1.pts").write_text(text)
        with pytest.raises(ValueError, match=r"1\.pts should hold 68 points"):
            load_w300(folder, progress=False)
    (folder / "1.pts").unlink()
    with pytest.raises(FileNotFoundError, match=r"1\.png without a \.pts"):
        load_w300(folder, progress=False)
    (folder / "1.pts").write_text(good)
    image = (folder / "1.png").read_bytes()
    (folder / "1.png").write_bytes(image[: len(image) // 2])
    with pytest.raises(OSError, match=r"1\.png cannot be read"):
        load_w300(folder, progress=False)
    (folder / "1.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"1\.pts without an image"):
        load_w300(folder, progress=False)
    with pytest.raises(FileNotFoundError, match="Found none"):
        load_w300(folder / "nowhere", progress=False)


@pytest.mark.skipif(not REAL.is_dir(), reason=f"the Helen part of 300-W is not at {REAL}")
@pytest.mark.parametrize(("part", "count"), [("trainset", 870), ("testset", 330)])
def test_helen(part, count):
    faces = load_w300(REAL / part, size=48, canvas=72, progress=False)
    assert len(faces) == count
    assert faces.images.dtype == torch.uint8
    inner = faces.cropped(48)
    assert (inner.keypoints > -0.5).all()
    assert (inner.keypoints < 47.5).all()
    assert (faces.keypoints[:, 36, 0] < faces.keypoints[:, 45, 0]).all()  # nobody is upside down or mirrored
    assert 0.3 < float((faces.pck_length / 48).mean()) < 0.6
    assert faces.images.flatten(1).float().std(1).min() > 5


# -- the example -----------------------------------------------------------------------------------------------------


def check(scores: dict[str, dict[str, float]], arms: Sequence[str] = ("random", "robust")) -> None:
    assert list(scores) == list(arms)
    for measures in scores.values():
        assert list(measures)[:6] == ["NME", "AUC@0.08", "FR@0.08", "NME, training", "as it is", "grid mean"]
        assert {"in every view", "worst hidden", "rotate -60°", "scale 1.41"} <= measures.keys()
        assert all(np.isfinite(list(measures.values())))


def test_the_example_runs_and_repeats_itself(capsys, tmp_path):
    tiny = ["--size", "32", "--width", "16", "--epochs", "1", "--batch-size", "6", "--faces", "12", "6"]
    scores = face_alignment.main(tiny)
    check(scores)
    printed = capsys.readouterr().out
    assert f"{scores['robust']['NME'] - scores['random']['NME']:+.2f}" in printed
    assert "From random to robust: 6 images" in printed
    assert "audit.html" not in printed
    assert face_alignment.main([*tiny, "--out", str(tmp_path)]) == scores
    assert f"{tmp_path / 'audit.html'}: where both are weak" in capsys.readouterr().out
    assert (tmp_path / "audit.html").is_file()
    assert scores["random"] != scores["robust"]


def test_the_example_reads_300w(folder, tmp_path):
    for part in ("trainset", "testset"):
        (tmp_path / "root" / part).mkdir(parents=True)
        for i in range(3):
            for kind in ("png", "pts"):
                (tmp_path / "root" / part / f"{i}.{kind}").write_bytes((folder / f"{i}.{kind}").read_bytes())
    root = str(tmp_path / "root")
    check(face_alignment.main(["--data", root, "--size", "32", "--width", "16", "--epochs", "1", "--batch-size", "3"]))


@pytest.mark.slow
def test_few_real_faces_under_every_arm(tmp_path, monkeypatch):
    folders = []
    faces = draw_faces(9, size=32, canvas=48, seed=0)
    monkeypatch.setattr(face_alignment, "load_w300", lambda folder, **_: folders.append(folder.name) or faces)
    usual = face_alignment.evaluate
    counts = []
    monkeypatch.setattr(
        face_alignment, "evaluate", lambda model, some, *how: counts.append(len(some)) or usual(model, some, *how)
    )
    tiny = ["--size", "32", "--width", "16", "--epochs", "1", "--batch-size", "3", "--faces", "6", "100"]
    check(face_alignment.main(["--data", str(tmp_path), *tiny, "--arms", *face_alignment.ARMS]), face_alignment.ARMS)
    assert folders == ["trainset", "testset"]
    assert counts == [9, 6] * len(face_alignment.ARMS)  # on all that there are, and on those it was trained on


@pytest.mark.parametrize(("name", "reach", "rests"), [("paper", 30, False), ("wide", 60, False), ("rest", 60, True)])
def test_policies_by_name(name, reach, rests):
    policy = face_alignment.POLICIES[name]
    scale, rotate = policy.branches[0].operations
    assert (rotate.low, rotate.high, scale.rest is not None) == (-reach, reach, rests)
    assert tuple(policy.flip.pairs) == W300.flip_pairs


def test_a_turned_face_is_found_where_it_went():
    """Under every view of the audit, with eyes as far apart as the view shows them."""
    faces, views = draw_faces(2, size=32, canvas=48, seed=0), []

    class Knows(torch.nn.Module):
        """Is told by the score, which comes after it, so that it answers with nothing but is scored with the truth."""

        def forward(self, image):
            return [torch.zeros(len(image), 68, 8, 8)]

    def told(output, batch, found=face_alignment.found):
        views.append(batch["keypoints"])
        near = batch["keypoints"] + 0.5 * face_alignment.NEAR * inter_ocular(batch["keypoints"])[:, None, None] * 0.5
        return found([render_heatmaps(near, 8, stride=4).clamp(min=1e-9).log()], batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(face_alignment, "found", told)
        audited = face_alignment.audit(Knows(), faces, 32)
    assert float(audited.mean()) > 0.98
    assert dict(audited.groups) == dict(W300.groups)
    moved = torch.cat([(points[:2] - faces.cropped(32).keypoints).norm(dim=-1).mean(1) for points in views])
    assert moved.max() > 2  # they did go somewhere


def test_a_point_is_found_when_it_is_near_enough():
    faces = draw_faces(1, size=64, canvas=64, seed=0)
    truth = faces.keypoints.clone()
    truth[:, 60] += torch.tensor([0.2, 0.0]) * faces.pck_length
    maps = [render_heatmaps(faces.keypoints, 16, stride=4).clamp(min=1e-9).log()]
    hits = face_alignment.found(maps, {"keypoints": truth})
    assert hits.shape == (1, 68)
    assert hits[0, 60] == 0
    assert hits[0, [i for i in range(68) if i != 60]].mean() > 0.98

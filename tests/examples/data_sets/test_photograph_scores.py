from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.io import loadmat, savemat  # type: ignore[import-untyped, unused-ignore]
from torch import Tensor, nn

from adaug.keypoints import render_heatmaps
from benchmarks.paper.prediction_files import write_json, write_server_file
from examples.datasets import mpii
from examples.datasets.cropping import Originals
from examples.datasets.people import LSP, MPII, Joints, People
from examples.datasets.photograph_pck import normalized_distances, pck_in_photographs
from examples.hourglass.data import PCKH
from examples.hourglass.evaluation import pck, predict

REAL = Path(__file__).parents[3].parent / "shared" / "data" / "mpii"
TABLE_1 = ["Head", "Sho.", "Elb.", "Wri.", "Hip", "Knee", "Ank.", "Mean"]


def draw(n: int = 40, joints: Joints = MPII, seed: int = 0) -> Originals:
    rng = np.random.default_rng(seed)
    keypoints = rng.uniform(100, 400, (n, len(joints), 2))
    return Originals(
        files=tuple(Path(f"{i}.jpg") for i in range(n)),
        centre=keypoints.mean(1),
        side=rng.uniform(350, 600, n),
        keypoints=keypoints,
        visibility=(rng.random((n, len(joints))) < 0.8).astype(float),
        pck_length=rng.uniform(20, 60, n),
        joints=joints,
    )


def noisy(people: Originals, spread: float = 0.5, seed: int = 1) -> np.ndarray:
    """Predictions whose distance to the truth is of the order of the length that PCK divides by."""
    noise = np.random.default_rng(seed).normal(0, spread, people.keypoints.shape)
    return people.keypoints + noise * people.pck_length[:, None, None]


@pytest.mark.parametrize("joints", [MPII, LSP], ids=lambda joints: joints.name)
def test_the_columns_are_those_of_the_tables(joints: Joints) -> None:
    people = draw(joints=joints)
    assert list(pck_in_photographs(noisy(people), people, 0.5)) == TABLE_1
    assert set(pck_in_photographs(people.keypoints, people, 0.1).values()) == {100.0}
    scores = [pck_in_photographs(noisy(people), people, threshold)["Mean"] for threshold in PCKH.curve]
    assert scores == sorted(scores)


def test_a_group_is_the_mean_of_its_joints_and_the_mean_is_over_all_joints() -> None:
    people = draw(4)
    visibility, predicted = np.zeros((4, 16)), people.keypoints.copy()
    visibility[:, 10] = 1  # right wrist: 4 labelled, 1 correct
    visibility[0, 15] = 1  # left wrist: 1 labelled, correct
    visibility[:, [6, 7]] = 1  # pelvis and thorax do not count
    predicted[1:, 10] += 1000
    predicted[:, 6] += 1000
    predicted[2, 10] = np.nan  # not predicted is wrong, not left out
    scores = pck_in_photographs(predicted, replace(people, visibility=visibility), 0.5)
    assert scores["Wri."] == pytest.approx((25 + 100) / 2)
    assert scores["Mean"] == pytest.approx(100 * 2 / 5)
    assert np.isnan(scores["Knee"])


def test_on_the_threshold_is_correct() -> None:
    people = replace(draw(1), pck_length=np.array([10.0]), visibility=np.ones((1, 16)))
    predicted = np.round(people.keypoints) + np.array([3.0, 4.0])
    people = replace(people, keypoints=np.round(people.keypoints))
    assert pck_in_photographs(predicted, people, 0.5)["Mean"] == 100
    assert pck_in_photographs(predicted, people, 0.499)["Mean"] == 0
    assert (normalized_distances(predicted, people) == 0.5).all()
    with pytest.raises(ValueError, match="should have the shape"):
        pck_in_photographs(predicted[:, :14], people, 0.5)


def test_the_crop_does_not_change_the_score() -> None:
    """The same people and predictions in their crops, counted by the library."""
    people = draw(200)
    predicted = noisy(people)
    crops = People(
        torch.zeros(200, 3, 64, 64, dtype=torch.uint8),
        torch.from_numpy(people.to_crop(people.keypoints, 64)).float(),
        torch.from_numpy(people.visibility).float(),
        torch.from_numpy(people.pck_length * 64 / people.side).float(),
        MPII,
    )
    inside = torch.from_numpy(people.to_crop(predicted, 64)).float()
    assert pck(inside, crops, 0.5)["Mean"] == pytest.approx(pck_in_photographs(predicted, people, 0.5)["Mean"], abs=0.05)


class Drawn(nn.Module):
    """Heat maps of the brightest pixel of each crop, whichever joint: a network that is right."""

    def __init__(self, joints: int, stride: int) -> None:
        super().__init__()
        self.joints, self.stride, self.parameter = joints, stride, nn.Parameter(torch.zeros(1))

    def forward(self, image: Tensor) -> list[Tensor]:
        b, _, h, w = image.shape
        index = image.mean(1).flatten(1).argmax(1)
        point = torch.stack([index % w, index // w], -1)[:, None].float().expand(b, self.joints, 2)
        return [render_heatmaps(point, h // self.stride, stride=self.stride)]


@pytest.mark.parametrize("flip", [False, True])
def test_predictions_come_back_into_the_photograph(flip: bool) -> None:
    size, canvas, people = 64, 96, draw(10)
    inside = np.random.default_rng(2).integers(22, 74, (10, 1, 2))  # of the canvas; within its central crop
    truth = people.to_image(inside.astype(float), size, canvas)
    images = torch.zeros(10, 3, canvas, canvas, dtype=torch.uint8)
    images[torch.arange(10), :, inside[:, 0, 1], inside[:, 0, 0]] = 255
    crops = People(images, torch.zeros(10, 16, 2), torch.ones(10, 16), torch.ones(10), MPII)
    predicted = people.to_image(predict(Drawn(16, 4), crops, size, "mse", flip=flip, batch_size=4).double().numpy(), size)
    assert predicted.shape == (10, 16, 2)
    error = np.linalg.norm(predicted - truth, axis=-1) * size / people.side[:, None]  # in pixels of the crop
    assert error.max() < 0.02


# -- files -----------------------------------------------------------------------------------------------------------


def person(image: str, source: tuple[int, int], *, is_test: bool = True) -> mpii.Annotation:
    zeros = np.zeros(16, bool)
    return mpii.Annotation(image, (10.0 * source[0], 20.0), 1.5, np.zeros((16, 2)), zeros, zeros, None, False, is_test, source)


@pytest.fixture
def release() -> mpii.Release:
    """Images 2 and 4 are of the test set; in the second of these only rectangle 3 is separated."""
    people = [person("a.jpg", (1, 1), is_test=False), person("b.jpg", (2, 1))]
    people += [person("d.jpg", (4, 1)), person("d.jpg", (4, 3))]
    images, train = ["a.jpg", "b.jpg", "c.jpg", "d.jpg", "e.jpg"], np.array([True, False, True, False, False])
    return mpii.Release(people, images, train, [[1], [1], [], [3], []])


def test_the_servers_file(tmp_path: Path, release: mpii.Release) -> None:
    people = [release.people[3], release.people[1]]
    predicted = np.random.default_rng(0).uniform(0, 500, (2, 16, 2))
    path = tmp_path / "pred_keypoints_mpii.mat"
    write_server_file(path, predicted, people, release)
    pred = loadmat(str(path), struct_as_record=False)["pred"]
    assert pred.shape == (1, 3)  # one per test image, in their order
    assert [str(entry.image[0, 0].name[0]) for entry in pred[0]] == ["b.jpg", "d.jpg", "e.jpg"]
    assert [entry.annorect.shape[-1] for entry in pred[0]] == [1, 3, 0]
    first, second = pred[0, 0].annorect[0, 0], pred[0, 1].annorect[0, 2]
    for rectangle, expected in ((first, predicted[1]), (second, predicted[0])):
        points = rectangle.annopoints[0, 0].point[0]
        assert [int(point.id[0, 0]) for point in points] == list(range(16))
        written = [[point.x[0, 0], point.y[0, 0]] for point in points]
        np.testing.assert_allclose(written, expected + 1)
    assert second.objpos[0, 0].x[0, 0] == 41
    others = pred[0, 1].annorect[0]
    assert others[0].annopoints.size == 0
    assert others[0].objpos[0, 0].y[0, 0] == 21
    assert others[1].objpos.size == 0
    # And through the reader of the official file, which has the same form.
    separated = np.empty((3, 1), object)
    separated[:, 0] = [1, 3, np.zeros((0, 0))]
    as_release = {"annolist": pred, "img_train": np.ones((1, 3)), "single_person": separated}
    savemat(tmp_path / "again.mat", {"RELEASE": as_release})
    again = mpii.read_mat(tmp_path / "again.mat")
    np.testing.assert_allclose([person.joints for person in again], predicted[::-1])
    assert [person.centre for person in again] == [people[1].centre, people[0].centre]
    with pytest.raises(ValueError, match="should be the 2 separated people"):
        write_server_file(path, predicted[:1], people[:1], release)
    with pytest.raises(ValueError, match="should have the shape"):
        write_server_file(path, predicted[:, :14], people, release)


def test_json(tmp_path: Path, release: mpii.Release) -> None:
    predicted = np.random.default_rng(0).uniform(0, 500, (4, 16, 2))
    write_json(tmp_path / "predictions.json", predicted, release.people)
    content = json.loads((tmp_path / "predictions.json").read_text())
    np.testing.assert_allclose([row["joints"] for row in content["people"]], predicted, atol=5e-4)
    assert [tuple(row["source"]) for row in content["people"]] == [p.source for p in release.people]
    assert content["joints"] == list(MPII.names)


# -- against an independent count ------------------------------------------------------------------------------------


@pytest.mark.skipif(not (REAL / "valid.h5").is_file(), reason="needs MPII's valid.h5 in ../shared/data")
def test_pckh_of_the_published_validation_people() -> None:
    h5py = pytest.importorskip("h5py", reason="needs h5py to read valid.h5")
    with h5py.File(REAL / "valid.h5") as file:
        parts, heads, scale, centre = (file[name][()] for name in ("part", "normalize", "scale", "center"))
    rng = np.random.default_rng(0)
    predicted = parts + rng.laplace(0, 0.2, parts.shape) * heads[:, None, None]

    # The reference: the toolkit's definition in coordinates that count from 1, and nothing of ours.
    labelled, rows = parts.any(-1), {}
    distance = np.sqrt(((predicted - parts) ** 2).sum(-1)) / heads[:, None]
    for threshold in PCKH.curve:
        correct, counted = ((distance <= threshold) & labelled).sum(0), labelled.sum(0)
        each, real = 100 * correct / counted, [j for j in range(16) if j not in (6, 7)]
        pairs = [(8, 9), (12, 13), (11, 14), (10, 15), (2, 3), (1, 4), (0, 5)]
        rows[threshold] = [*((each[a] + each[b]) / 2 for a, b in pairs), 100 * correct[real].sum() / counted[real].sum()]

    # Ours: into the crop of 256 pixels and back, in coordinates that count from 0.
    people = replace(draw(len(parts)), centre=centre - 1, side=200 * scale)
    people = replace(people, keypoints=parts - 1, visibility=labelled.astype(float), pck_length=heads)
    mapped = people.to_image(people.to_crop(predicted - 1, 256), 256)
    for threshold, row in rows.items():
        assert list(pck_in_photographs(mapped, people, threshold).values()) == pytest.approx(row, abs=1e-9)
    assert 5 < rows[0.1][-1] < 40 < rows[0.5][-1] < 99

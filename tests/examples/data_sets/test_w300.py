"""300-W as the data sets read it: its points, its files, and what is said of broken ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from examples import face_alignment, segmentation
from examples.datasets.w300 import W300, load_w300, read_pts, write_pts

REAL = Path(__file__).parents[3].parent / "shared" / "data" / "face300w" / "helen"


def test_the_points_are_those_of_the_example() -> None:
    assert set(W300.flip_pairs) == set(face_alignment.FLIP_PAIRS)
    assert [*W300.groups.values()] == [tuple(points) for points in face_alignment.GROUPS.values()]
    assert {end for limb in W300.limbs for end in limb} == set(range(68))
    assert [W300.names[i] for i in (36, 45)] == ["right eye 0", "left eye 3"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three faces, the image of each black but for a white spot on one point."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:160, :140]
    for i, k in enumerate((0, 30, 57)):
        points = face_alignment.frontal()[:, :2] * 60 + (70, 50) + rng.normal(0, 1, (68, 2))
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


def test_the_examples_read_the_same_faces(folder: Path) -> None:
    faces = load_w300(folder, size=64, canvas=96, progress=False)
    read = face_alignment.read_faces(folder, 64)
    torch.testing.assert_close(read["image"], faces.images.float() / 255)
    torch.testing.assert_close(read["keypoints"], faces.keypoints)
    regions = segmentation.read_faces(folder, 64)
    assert torch.equal(regions["image"], read["image"])


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

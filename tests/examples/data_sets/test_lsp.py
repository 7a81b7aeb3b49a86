from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat  # type: ignore[import-untyped, unused-ignore]

from examples.datasets.crop_cache import load_crops
from examples.datasets.lsp import load_lsp, read_lsp, read_lspet
from examples.datasets.people import LSP, People

REAL = Path(__file__).parents[3].parent / "shared" / "data"
N, WIDTH, HEIGHT = 4, 100, 120


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Four images in the published form, each with a white spot on joint `i`, the joints in MATLAB's coordinates."""
    rng = np.random.default_rng(0)
    joints = rng.uniform((25, 25), (75, 95), (N, 14, 2))  # (0, 0) the centre of the first pixel
    joints[:, 9] = joints[:, 2] + (3, 30)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    for name, digits in (("lsp", 4), ("lspet", 5)):
        (tmp_path / name / "images").mkdir(parents=True)
        for i in range(N):
            distance = np.hypot(x - joints[i, i, 0], y - joints[i, i, 1])
            spot = (255 * np.clip(5 - distance, 0, 1)).astype(np.uint8)
            image = Image.fromarray(np.repeat(spot[..., None], 3, 2))
            image.save(tmp_path / name / "images" / f"im{i + 1:0{digits}d}.jpg", quality=95)
    flags = np.zeros((N, 14, 1))
    flags[:, 0] = 1
    savemat(tmp_path / "lsp" / "joints.mat", {"joints": np.concatenate([joints + 1, flags], 2).transpose(2, 1, 0)})
    labelled = np.where(flags[:, :, 0] > 0, -500.0, 1.0)  # joint 0 is rubbish there
    extended = np.concatenate([np.where(labelled[..., None] < 0, -500, joints + 1), labelled[..., None] > 0], 2)
    savemat(tmp_path / "lspet" / "joints.mat", {"joints": extended.transpose(1, 2, 0)})
    return tmp_path


def load_lspet(root: Path, **cache: Any) -> People:
    return load_crops(read_lspet(root / "lspet"), "lspet", size=64, canvas=96, **cache)[0]


@pytest.mark.parametrize(("size", "canvas"), [(64, 96), (33, 50), (128, 128)])
def test_spots_lie_where_their_joints_are(root: Path, size: int, canvas: int) -> None:
    options = {"size": size, "canvas": canvas, "cache_dir": root, "progress": False}
    for split, first in (("train", 0), ("test", 2)):
        people = load_lsp(root, split, **options)  # type: ignore[arg-type]
        assert people.images.shape == (2, 3, canvas, canvas)
        assert people.joints == LSP
        weight = (people.images.double().mean(1) - 8).clamp_min(0)  # [2, canvas, canvas], less JPEG's noise
        grid = torch.arange(canvas, dtype=torch.float64)
        mass = weight.sum((1, 2))
        x, y = (weight.sum(1) * grid).sum(1) / mass, (weight.sum(2) * grid).sum(1) / mass
        for i in range(2):
            expected = people.keypoints[i, first + i].double()
            torch.testing.assert_close(torch.stack([x[i], y[i]]), expected, rtol=0, atol=0.15)


def test_the_person_fills_the_centre(root: Path) -> None:
    people = load_lsp(root, cache_dir=root, progress=False)
    low, high = people.keypoints.amin(1), people.keypoints.amax(1)
    torch.testing.assert_close((low + high) / 2, torch.full((2, 2), 47.5))
    torch.testing.assert_close((high - low).amax(1), torch.full((2,), 64 / 1.25))
    torso = (people.keypoints[:, 9] - people.keypoints[:, 2]).norm(dim=1)
    torch.testing.assert_close(people.pck_length, torso)


def test_flags_mean_occluded_in_lsp_and_labelled_in_its_extension(root: Path) -> None:
    assert read_lsp(root / "lsp").visibility.all()
    extended = load_lspet(root, cache_dir=root, progress=False)
    assert len(extended) == N
    assert (extended.visibility[:, 0] == 0).all()
    assert (extended.visibility[:, 1:] == 1).all()
    inside = extended.keypoints[:, 1:]
    assert inside.min() >= 16
    assert inside.max() <= 80


def test_exchanged_files_are_recognised(root: Path) -> None:
    shutil.copy(root / "lsp" / "joints.mat", root / "lspet" / "joints.mat")
    with pytest.raises(ValueError, match=r"lspet.joints.mat should hold"):
        read_lspet(root / "lspet")


@pytest.mark.parametrize("damage", ["truncated", "missing", "not an image"])
def test_a_broken_image_is_named_or_left_out(root: Path, damage: str) -> None:
    path = root / "lspet" / "images" / "im00002.jpg"
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:900] if damage == "truncated" else b"no image")
    with pytest.raises(OSError, match="im00002"):
        load_lspet(root, cache_dir=root, progress=False)
    for _ in range(2):  # the second time from the cache
        with pytest.warns(UserWarning, match="1 of 4 people's images"):
            people = load_lspet(root, cache_dir=root, progress=False, skip_corrupt=True)
        assert len(people) == len(people.keypoints) == N - 1


def test_a_missing_data_set_says_what_is_expected(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"`root` should hold lsp/joints\.mat"):
        load_lsp(tmp_path)


def test_crops_are_kept_where_caches_are(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(root / "xdg"))
    first = load_lsp(root, progress=False)
    assert len(list((root / "xdg" / "adaug").glob("lsp-train-*/images.npy"))) == 1
    monkeypatch.setattr("examples.datasets.crop_cache.cut_rows", None)  # no more is cut
    torch.testing.assert_close(load_lsp(root, progress=False).images, first.images)


@pytest.mark.skipif(not (REAL / "lsp" / "joints.mat").is_file(), reason="needs Leeds Sports Pose in ../shared/data")
def test_the_published_people(tmp_path: Path) -> None:
    raw = read_lsp(REAL / "lsp")
    assert len(raw.files) == 2000
    torso = np.linalg.norm(raw.keypoints[:, 9] - raw.keypoints[:, 2], axis=1).mean()
    assert 40 < torso < 52
    for split in ("train", "test"):
        people = load_lsp(REAL, split, size=32, canvas=48, cache_dir=tmp_path, progress=False)
        assert len(people) == 1000
        assert people.visibility.all()
        central = people.cropped(32).keypoints
        assert central.min() >= 2
        assert central.max() <= 29
        x, y = people.keypoints.round().long().unbind(2)
        pixels = people.images.sum(1)[torch.arange(1000)[:, None], y, x]
        # Joints lie on people, and people in the image: not in the black around it.
        assert (pixels > 0).float().mean() > 0.98
    extended = REAL / "lspet"
    if (extended / "joints.mat").is_file():
        assert read_lspet(extended).visibility.mean() == pytest.approx(0.88, abs=0.02)

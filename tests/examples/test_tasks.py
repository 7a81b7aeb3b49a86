"""The smaller examples: segmentation, classification, and the plain loop."""

from __future__ import annotations

import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from examples import plain_loop, segmentation

ROOT = Path(__file__).parents[2]


# -- segmentation ----------------------------------------------------------------------------------------------------


def test_scenes_depend_on_their_own_number_and_mark_borders():
    data, fewer = segmentation.draw_scenes(6, 48, seed=0), segmentation.draw_scenes(2, 48, seed=0)
    assert torch.equal(fewer["image"], data["image"][:2])
    assert torch.equal(fewer["mask"], data["mask"][:2])
    assert data["image"].shape == (6, 3, 48, 48)
    assert data["image"].dtype == torch.float32
    assert 0 <= float(data["image"].min()) < 0.3 < 0.7 < float(data["image"].max()) <= 1
    assert data["mask"].dtype == torch.uint8
    assert set(data["mask"].unique().tolist()) <= {0, 1, 2, 3, 255}
    inside = data["mask"].long()
    for a, b in ((inside[:, 1:], inside[:, :-1]), (inside[:, :, 1:], inside[:, :, :-1])):
        touching = (a != b) & (a != 255) & (b != 255)
        assert touching.float().mean() < 0.01  # labels meet only where a border runs exactly between two pixels
    assert 0.02 < float((data["mask"] == 255).float().mean()) < 0.2


def test_the_loss_is_the_mean_over_the_valid_pixels_of_each_image():
    torch.manual_seed(0)
    output, mask = torch.randn(3, 5, 8, 8), torch.randint(0, 5, (3, 8, 8)).byte()
    mask[0, :5] = 255
    mask[2] = 255
    losses = segmentation.loss_fn(output, {"mask": mask})
    log_probs = output.double().log_softmax(1).numpy()
    for i in range(3):
        rows = [-log_probs[i, mask[i, y, x], y, x] for y in range(8) for x in range(8) if mask[i, y, x] != 255]
        assert float(losses[i]) == pytest.approx(np.mean(rows) if rows else 0, rel=1e-5)


def test_iou_is_that_of_a_plain_reference():
    rng = np.random.default_rng(0)
    mask, predicted = rng.integers(0, 4, (2, 3, 16, 16))  # class 4 is nowhere
    mask[rng.random(mask.shape) < 0.1] = 255
    expected = []
    for c in range(5):
        valid = mask != 255
        union = ((mask == c) | (predicted == c)) & valid
        expected.append(((mask == c) & (predicted == c)).sum() / union.sum() if union.any() else math.nan)
    iou = segmentation.class_iou(torch.from_numpy(predicted), torch.from_numpy(mask).byte(), 5)
    np.testing.assert_allclose(iou.numpy(), expected)
    perfect = segmentation.class_iou(torch.from_numpy(predicted), torch.from_numpy(predicted).byte(), 5)
    np.testing.assert_array_equal(perfect.numpy(), [1, 1, 1, 1, math.nan])


def test_iou_of_each_image_is_that_of_a_plain_reference():
    torch.manual_seed(0)
    mask = torch.randint(0, 3, (3, 16, 16)).byte()  # class 3 is nowhere
    mask[torch.rand(mask.shape) < 0.2] = 255
    mask[1][mask[1] == 2] = 0
    output = torch.randn(3, 4, 16, 16)
    scores = segmentation.iou_of_each(output, {"mask": mask})
    for i in range(3):
        plain = segmentation.class_iou(output[i].argmax(0), mask[i], 4)
        for label in range(4):
            expected = plain[label] if (mask[i] == label).any() else math.nan
            assert float(scores[i, label]) == pytest.approx(float(expected), nan_ok=True)
    assert torch.isnan(scores[1, 2])


def test_what_a_view_brings_in_from_outside_does_not_count():
    """A network that knows every pixel is right in every view, though zooming out and rotating show unlabelled borders."""
    data = segmentation.draw_scenes(4, 48, seed=0)
    seen = []

    def knows(image):
        return torch.zeros(len(image), 4, *image.shape[-2:])

    def told(output, batch, score=segmentation.iou_of_each):
        seen.append((batch["mask"] == segmentation.IGNORE).float().mean())
        truth = torch.where(batch["mask"] == segmentation.IGNORE, 0, batch["mask"]).long()
        return score(torch.nn.functional.one_hot(truth, 4).permute(0, 3, 1, 2).float(), batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(segmentation, "iou_of_each", told)
        audited = segmentation.audit(knows, data)
    assert np.nanmin(audited.scores) == 1.0
    assert {name: list(columns) for name, columns in audited.groups.items()} == {
        name: [label] for label, name in enumerate(segmentation.CLASSES)
    }
    assert max(seen) > 4 * seen[0]
    absent = torch.stack([(data["mask"] == label).flatten(1).any(1) for label in range(4)], 1)
    np.testing.assert_array_equal(np.isfinite(audited.scores[:, 0]), absent.numpy())


def test_segmentation_runs_and_ignored_pixels_stay_ignored(monkeypatch, capsys, tmp_path):
    labels = []

    def watched(output, batch, loss_fn=segmentation.loss_fn):
        labels.append(batch["mask"].unique())
        return loss_fn(output, batch)

    monkeypatch.setattr(segmentation, "loss_fn", watched)
    scores = segmentation.main(
        ["--size", "32", "--epochs", "1", "--batch-size", "6", "--scenes", "12", "4", "--out", str(tmp_path)]
    )
    assert set(torch.cat(labels).tolist()) <= {0, 1, 2, 3, 255}
    assert list(scores) == ["random", "robust"]
    for arm in scores.values():
        assert list(arm)[: len(segmentation.CLASSES) + 3] == [*segmentation.CLASSES, "mIoU", "as it is", "grid mean"]
        assert "in every view" not in arm, "IoU is not right or wrong"
        assert 0 <= arm["worst per image"] <= arm["grid mean"] <= 100
    printed = capsys.readouterr().out
    assert "robust" in printed
    assert f"{tmp_path / 'audit.html'}: where both are weak" in printed
    assert (tmp_path / "audit.html").is_file()


# -- classification --------------------------------------------------------------------------------------------------


def test_digits():
    classification = pytest.importorskip("examples.classification", reason="needs scikit-learn, of the [examples] extra")
    (image, label), (test, _) = classification.digits(100)
    assert image.shape == (100, 1, 32, 32)
    assert test.shape == (797, 1, 32, 32)
    assert 0 <= float(image.min()) < float(image.max()) <= 1
    assert label[:10].tolist() == list(range(10))
    with pytest.raises(ValueError, match="797"):
        classification.digits(1797)


def test_classification_runs(capsys, tmp_path, monkeypatch):
    classification = pytest.importorskip("examples.classification", reason="needs scikit-learn, of the [examples] extra")
    train, test = classification.digits(16)
    monkeypatch.setattr(classification, "digits", lambda _: (train, tuple(part[:60] for part in test)))
    scores = classification.main(["--epochs", "1", "--batch-size", "8", "--digits", "16", "--out", str(tmp_path)])
    assert list(scores) == ["random", "robust"]
    for arm in scores.values():
        assert list(arm)[:2] == ["as it is", "grid mean"]
        assert arm["worst per image"] == arm["in every view"]
        assert all(0 <= value <= 100 for value in arm.values())
    printed = capsys.readouterr().out
    assert "From random to robust: 60 images" in printed
    assert (tmp_path / "audit.html").is_file()


# -- the plain loop --------------------------------------------------------------------------------------------------


def test_the_plain_loop_runs(capsys):
    scores = plain_loop.main(["--epochs", "1", "--people", "12"])
    assert list(scores) == ["random", "robust"]
    assert all(0 <= value <= 100 for value in scores.values())
    assert f"{scores['robust'] - scores['random']:+6.1f}" in capsys.readouterr().out


@pytest.mark.slow
def test_the_plain_loop_can_be_copied_alone(tmp_path):
    """It runs in an empty folder, with nothing but adaug on the path."""
    shutil.copy(ROOT / "examples" / "plain_loop.py", tmp_path)
    (tmp_path / "adaug").symlink_to(ROOT / "adaug")
    command = [sys.executable, "plain_loop.py", "--epochs", "1", "--people", "12"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "difference" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("how", [["examples/plain_loop.py"], ["-m", "examples.face_alignment"]])
def test_scripts_start_both_ways(how):
    done = subprocess.run([sys.executable, *how, "--help"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--epochs" in done.stdout

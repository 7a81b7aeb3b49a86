from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from PIL import Image

from examples import segmentation
from examples.datasets.w300 import write_pts
from examples.face_alignment import frontal


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


def test_iou_of_each_image_is_that_of_a_plain_reference():
    torch.manual_seed(0)
    mask = torch.randint(0, 3, (3, 16, 16)).byte()  # class 3 is nowhere
    mask[torch.rand(mask.shape) < 0.2] = 255
    mask[1][mask[1] == 2] = 0
    output = torch.randn(3, 4, 16, 16)
    scores = segmentation.iou_of_each(output, {"mask": mask})
    predicted = output.argmax(1)
    for i in range(3):
        valid = mask[i] != 255
        for label in range(4):
            union = ((mask[i] == label) | (predicted[i] == label)) & valid
            iou = float(((mask[i] == label) & (predicted[i] == label)).sum() / union.sum())
            expected = iou if (mask[i] == label).any() else math.nan
            assert float(scores[i, label]) == pytest.approx(expected, nan_ok=True)
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
        audited = segmentation.audit(knows, data, segmentation.CLASSES, 48)
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
    tiny = ["--size", "32", "--epochs", "1", "--batch-size", "6", "--images", "12", "4"]
    scores = segmentation.main([*tiny, "--out", str(tmp_path)])
    assert set(torch.cat(labels).tolist()) <= {0, 1, 2, 3, 255}
    assert list(scores) == ["random", "robust"]
    for arm in scores.values():
        assert list(arm) == [*segmentation.SHOWN, *segmentation.CLASSES]
        assert 0 <= arm["worst per image"] <= arm["grid mean"] <= 100
    printed = capsys.readouterr().out
    assert "robust" in printed
    assert f"{tmp_path / 'audit.html'}: where both are weak" in printed
    assert (tmp_path / "audit.html").is_file()


def test_faces_become_regions(tmp_path):
    for part in ("trainset", "testset"):
        (tmp_path / part).mkdir()
        for i in range(3):
            write_pts(tmp_path / part / f"{i}.pts", frontal()[:, :2] * 40 + (50 + i, 20))
            Image.new("RGB", (100, 90), (200, 90, 120)).save(tmp_path / part / f"{i}.png")
    faces = segmentation.read_faces(tmp_path / "trainset", 64)
    mask = faces["mask"]
    assert (faces["image"].shape, mask.shape) == ((3, 3, 96, 96), (3, 96, 96))
    assert mask.unique().tolist() == list(range(len(segmentation.REGIONS)))
    assert (mask[:, 48, 48] == segmentation.REGIONS.index("nose")).all(), "the middle of the box around a frontal face"
    assert (mask[:, [0, -1]] == 0).all()
    tiny = ["--size", "32", "--epochs", "1", "--batch-size", "3", "--images", "3", "2", "--arms", "robust"]
    (scores,) = segmentation.main(["--data", str(tmp_path), *tiny]).values()
    assert list(scores) == [*segmentation.SHOWN, *segmentation.REGIONS]
    with pytest.raises(FileNotFoundError, match="Found none"):
        segmentation.read_faces(tmp_path / "nowhere", 32)

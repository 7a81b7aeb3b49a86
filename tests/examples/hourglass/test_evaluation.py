from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from adaug import keypoints
from examples.datasets.drawn_people import draw_people
from examples.datasets.people import MPII, People
from examples.hourglass.evaluation import audit, evaluate, evaluating, pck, predict
from examples.hourglass.tables import GRID, average, difference, markdown_table, said, show, statistics


@pytest.fixture(scope="module")
def people() -> People:
    return draw_people(12, size=32, canvas=48)


class Oracle(nn.Module):
    """Knows every image by heart, also mirrored, and answers with the heat maps of its person."""

    def __init__(self, people: People) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.images = people.images.float() / 255
        maps = keypoints.render_heatmaps(people.keypoints, 16, stride=2)
        self.images = torch.cat([self.images, self.images.flip(-1)])
        self.maps = torch.cat([maps, keypoints.flip_heatmaps(maps, people.joints.flip_pairs)])

    def forward(self, image: Tensor) -> list[Tensor]:
        distance = torch.cdist(image.flatten(1), self.images.flatten(1))
        return [self.maps[distance.argmin(1)] * self.scale]


def test_pck_against_a_slow_count(people: People) -> None:
    rng = np.random.default_rng(0)
    predicted = people.keypoints + torch.from_numpy(rng.normal(0, 2, people.keypoints.shape)).float()
    visible = people.visibility.clone()
    visible[::3, ::2] = 0
    partly = People(people.images, people.keypoints, visible, people.pck_length, MPII)
    scores = pck(predicted, partly, 0.5)
    for group, joints in [*MPII.groups.items(), ("Mean", [j for members in MPII.groups.values() for j in members])]:
        correct = counted = 0
        for i in range(len(people)):
            for j in joints:
                if visible[i, j] > 0:
                    counted += 1
                    distance = float(np.hypot(*(predicted[i, j] - people.keypoints[i, j]).tolist()))
                    correct += distance <= 0.5 * float(people.pck_length[i])
        assert scores[group] == pytest.approx(100 * correct / counted)
    assert list(scores) == [*MPII.groups, "Mean"]


@pytest.mark.parametrize("flip", [False, True])
def test_predictions_come_back_in_pixels_and_leave_the_network_as_it_was(people: People, flip: bool) -> None:
    cropped = people.cropped(32)
    model = Oracle(cropped).train()
    predicted = predict(model, cropped, 32, "mse", flip=flip, batch_size=5)
    inside = ((cropped.keypoints > 0) & (cropped.keypoints < 31)).all(-1)
    torch.testing.assert_close(predicted[inside], cropped.keypoints[inside], atol=0.35, rtol=0)
    assert model.training
    assert not predicted.requires_grad


def test_every_person_counts_once_whatever_the_number_of_ranks(people: People) -> None:
    cropped = people.cropped(32)
    model = Oracle(cropped)
    whole = evaluate(model, people, "mse", size=32, thresholds=[0.5])[0.5]["Mean"]
    parts = [evaluate(model, people, "mse", size=32, thresholds=[0.5], rank=rank, ranks=5)[0.5]["Mean"] for rank in range(5)]
    sizes = [len(range(rank, 12, 5)) for rank in range(5)]
    assert sum(part * n for part, n in zip(parts, sizes, strict=True)) / 12 == pytest.approx(whole)


DOTS = torch.tensor([[40.0, 40.0], [56.0, 44.0], [46.0, 58.0]])  # red, green and blue, on a canvas of 96 pixels
LAYOUT = 47.5 + 17 * torch.rand(len(MPII), 2, generator=torch.Generator().manual_seed(0)).mul(2).sub(1)
JOINTS = [joint for group in MPII.groups.values() for joint in group]


def dotted(beside: float = 0.0) -> People:
    """Three people in one pose: a dot of each colour tells a view, and with it where the joints are, or `beside` them."""
    images = (255 * keypoints.render_heatmaps(DOTS[None], 96, 2.0)).byte().repeat(3, 1, 1, 1)
    joints = (LAYOUT + torch.tensor([beside, 0.0])).repeat(3, 1, 1)
    return People(images, joints, torch.ones(3, len(MPII)), torch.full((3,), 8.0), MPII)


class SeesDots(nn.Module):
    """Finds the dots, and so the view, and so the joints, but for those that it has lost."""

    def __init__(self, lost: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.scale, self.lost = nn.Parameter(torch.ones(())), lost

    def forward(self, image: Tensor) -> list[Tensor]:
        weight = image.clamp(min=0).flatten(2).unsqueeze(-1)
        row, column = torch.meshgrid(*[torch.arange(float(side)) for side in image.shape[-2:]], indexing="ij")
        dots = (weight * torch.stack([column, row], -1).flatten(0, 1)).sum(2) / weight.sum(2).clamp(min=1e-6)
        known, wanted = (torch.cat([points, torch.ones(len(points), 1)], 1) for points in (DOTS, LAYOUT))
        joints = wanted @ torch.linalg.solve(known, dots)
        joints[:, list(self.lost)] = 0
        return [keypoints.render_heatmaps(joints, image.shape[-1]) * self.scale]


def test_an_audit_finds_the_joints_wherever_a_view_puts_them() -> None:
    audited = audit(SeesDots(lost=(0, 5)), dotted(), "mse", size=64, threshold=0.2)
    assert [family.name for family in audited.families] == ["as it is", "rotate", "scale", "occlude", GRID]
    assert len(audited.columns(GRID)) == 21
    assert [round(centre) for centre in audited.curve("rotate").axis.centres] == [-60, -40, -20, 0, 20, 40, 60]
    np.testing.assert_allclose(audited.curve("scale").axis.centres, [0.5**0.5, 1, 2**0.5], rtol=1e-6)
    assert dict(audited.groups) == dict(MPII.groups)
    assert np.isnan(audited.scores[..., [6, 7]]).all(), "pelvis and thorax are in no group"
    seen = audited.scores[:, audited.columns(GRID)]
    assert np.isfinite(seen[..., JOINTS]).mean() > 0.9
    assert np.nanmin(seen[..., [joint for joint in JOINTS if joint not in (0, 5)]]) == 1
    assert float(audited.mean(group="Ank.")) == 0
    assert float(audited.in_every_view(GRID)) == pytest.approx(12 / 14)
    assert statistics(said(audited))["in every view"] == pytest.approx(100 * 12 / 14)


@pytest.mark.parametrize(("threshold", "hits"), [(0.45, 0), (0.55, 1)])
def test_the_length_that_pck_divides_by_follows_the_view(threshold: float, hits: int) -> None:
    """Joints half a length beside the labels are half a length beside them in a view of any size."""
    audited = audit(SeesDots(), dotted(beside=4.0), "mse", size=64, threshold=threshold)
    seen = audited.scores[:, audited.columns(GRID)]
    assert (seen[np.isfinite(seen)] == hits).all()


def test_an_audit_counts_as_pck_does(people: People) -> None:
    rng = np.random.default_rng(0)
    off = replace(people, keypoints=people.keypoints + torch.from_numpy(rng.normal(0, 2, people.keypoints.shape)).float())
    cropped = people.cropped(32)
    model = Oracle(cropped)
    audited = audit(model, off, "mse", size=32, threshold=0.5)
    shown = off.cropped(32)
    there = ((shown.keypoints >= -0.5) & (shown.keypoints < 31.5)).all(-1)
    inside = replace(shown, visibility=shown.visibility * there)
    expected = pck(predict(model, cropped, 32, "mse", flip=False), inside, 0.5)
    plain = audited.scores[:, 0]
    for group, joints in MPII.groups.items():
        assert 100 * np.nanmean(plain[:, joints]) == pytest.approx(expected[group])
    assert 100 * np.nanmean(plain) == pytest.approx(expected["Mean"])


def test_a_comparison_is_short_and_says_what_is_beyond_doubt(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    people = dotted()
    worse, better = (audit(SeesDots(lost), people, "mse", size=64, threshold=0.2) for lost in ((0, 5), ()))
    lines = show({"a": worse, "b": worse, "c": better}, tmp_path)
    printed = capsys.readouterr().out
    assert printed.startswith("From a to c: 3 images turned and scaled (the grid: 21 views)")
    assert len(printed.splitlines()) < 16
    assert all(len(line) <= 96 for line in printed.splitlines())
    assert re.search(r"\| in every view, rotate × scale +\| 85\.7 \| 100\.0 \| +\+14\.3 \|", printed)
    assert lines == [f"  {tmp_path / 'audit.html'}: where both are weak, on which images, and what is different with c"]
    assert "From a to c" in (tmp_path / "audit.html").read_text()
    assert show({"a": worse}, None) == []
    (line,) = show({"a": worse}, tmp_path)
    assert line.endswith("where a is weak")
    assert capsys.readouterr().out == ""


def test_evaluating_puts_flags_back_after_an_error() -> None:
    model = nn.Sequential(nn.Conv2d(2, 2, 1), nn.Dropout())
    model[1].eval()
    with pytest.raises(RuntimeError, match="channels"), evaluating(model):
        model(torch.zeros(1, 3, 2, 2))
    with evaluating(model):
        assert not any(module.training for module in model.modules())
        assert not torch.is_grad_enabled()
    assert model.training
    assert model[0].training
    assert not model[1].training


def test_table() -> None:
    scores = {"random": {"Head": 97.25, "Mean": 87.0}, "asr": {"Head": 97.0, "Mean": float("nan")}}
    rows = {**scores, "asr − random": difference({"Head": 97.0, "Mean": 88.0}, scores["random"])}
    assert markdown_table(rows, "%") == (
        "| %            | Head | Mean |\n"
        "|--------------|-----:|-----:|\n"
        "| random       | 97.2 | 87.0 |\n"
        "| asr          | 97.0 |    – |\n"
        "| asr − random | −0.2 | +1.0 |"
    )
    assert average([{"Mean": 1.0}, {"Mean": 2.0}]) == {"Mean": 1.5}

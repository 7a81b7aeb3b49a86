from __future__ import annotations

import numpy as np
import pytest
import torch
from examples.datasets.fixed_views import TestView as View
from examples.datasets.fixed_views import show
from torch import Tensor, nn

from adaug import keypoints
from examples.datasets.drawn_people import draw_people
from examples.datasets.people import MPII, People
from examples.hourglass.evaluation import evaluate, evaluating, pck, predict
from examples.markdown_tables import average, difference, markdown_table


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


def test_turning_moves_joints_about_the_centre(people: People) -> None:
    upright, quarter = show(people, 32, View()), show(people, 32, View(90))
    torch.testing.assert_close(upright.images, people.cropped(32).images)
    x, y = upright.keypoints.unbind(-1)
    torch.testing.assert_close(quarter.keypoints, torch.stack([y, 31 - x], -1), atol=1e-3, rtol=0)
    torch.testing.assert_close(quarter.images.int(), upright.images.rot90(1, (2, 3)).int(), atol=2, rtol=0)
    larger = show(people, 32, View(scale=1.4))
    torch.testing.assert_close(larger.pck_length, people.pck_length * 1.4)
    torch.testing.assert_close(larger.keypoints - 15.5, (upright.keypoints - 15.5) * 1.4, atol=1e-3, rtol=0)
    gone = ((larger.keypoints < -0.5) | (larger.keypoints >= 31.5)).any(-1)
    assert gone.any()
    assert not larger.visibility[gone].any()
    assert larger.visibility[~gone].all()


@pytest.mark.parametrize("view", [View(hidden_cells=3), View(90, hidden_cells=3)], ids=str)
def test_hidden_cells_are_black_and_the_same_every_time(people: People, view: View) -> None:
    plain, hidden = show(people, 32, View(view.rotation)), show(people, 32, view)
    cells = (hidden.images == 0).all(1).unfold(1, 8, 8).unfold(2, 8, 8).flatten(3).all(3).flatten(1)  # [n, 16]
    dark = (plain.images == 0).all(1).unfold(1, 8, 8).unfold(2, 8, 8).flatten(3).all(3).flatten(1)
    assert ((cells & ~dark).sum(1) <= 3).all()
    assert cells.sum(1).float().mean() >= 3
    assert len(cells.unique(dim=0)) > 6  # others in each image
    kept = ~cells.view(-1, 1, 4, 4).repeat_interleave(8, 2).repeat_interleave(8, 3)
    assert torch.equal(hidden.images * kept, plain.images * kept)
    assert torch.equal(hidden.images, show(people, 32, view).images)
    assert torch.equal(hidden.keypoints, plain.keypoints)  # a hidden joint is still asked for
    assert torch.equal(hidden.visibility, plain.visibility)


def test_hidden_cells_belong_to_a_person(people: People) -> None:
    """However many ranks share the people."""
    whole, numbers = show(people, 32, View(hidden_cells=2)), range(1, 12, 3)
    part = show(people.subset(numbers), 32, View(hidden_cells=2), numbers=numbers)
    assert torch.equal(part.images, whole.images[1::3])


def test_names_of_views() -> None:
    names = [str(view) for view in (View(), View(-30), View(scale=0.7), View(60, 1.4), View(hidden_cells=2))]
    assert names == ["upright", "-30°", "×0.7", "+60° ×1.4", "2 hidden"]


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

"""What left the frame does not count: a perfect network is right in every view, whatever its labels are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import networks as nets
import numpy as np
import pytest
import torch
from torch import Tensor

import adaug
from adaug import Audit, Flip, Policy, Rotate, Scale, Translate

VIEWS = Policy([adaug.Branch("a", [Rotate(-90, 90, 5), Scale(0.5, 3.0, 3), Translate(-0.6, 0.6, 3)], 1.0)], [Flip([(0, 1)])])
SIDE = 32


def model(image: Any) -> Any:
    return image


def boxes(n: int, count: int, seed: int = 0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    corner = torch.rand(n, count, 2, generator=g) * 24
    return torch.cat([corner, corner + 4], -1)


def images(n: int) -> Tensor:
    return nets.make_batch(n)["image"]


def overlap(found: Tensor, true: Tensor) -> Tensor:
    """1 where a box is found: IoU above a half. A box without area has no IoU."""
    low, high = torch.maximum(found[..., :2], true[..., :2]), torch.minimum(found[..., 2:], true[..., 2:])
    area = (high - low).clamp(min=0).prod(-1)
    whole = (true[..., 2:] - true[..., :2]).prod(-1)
    return (area / whole.clamp(min=1e-9) > 0.5).float()


def of_boxes(output: Any, batch: dict[str, Tensor]) -> Tensor:
    return overlap(batch["boxes"], batch["boxes"])


def of_listed(output: Any, batch: Any) -> Tensor:
    found = [overlap(row["boxes"], row["boxes"]) for row in batch[1]]
    return torch.nn.utils.rnn.pad_sequence(found, batch_first=True)


def seen(points: Tensor) -> Tensor:
    """1 where a point lies in the frame: nobody finds others."""
    return ((points >= 0) & (points <= SIDE - 1)).all(-1).float()


def of_points(output: Any, batch: dict[str, Tensor]) -> Tensor:
    return seen(batch["keypoints"])


def of_people(output: Any, batch: dict[str, Tensor]) -> Tensor:
    return seen(batch["keypoints"]).amax(2)


def of_flat_people(output: Any, batch: dict[str, Tensor]) -> Tensor:
    return seen(batch["keypoints"]).flatten(1)


def of_maps(output: Any, batch: dict[str, Tensor]) -> Tensor:
    return (batch["heatmaps"].amax((2, 3)) > 0.3).float()


def several(n: int) -> Tensor:
    return 4 + 24 * torch.rand(n, 3, 4, 2, generator=torch.Generator().manual_seed(1))


def listed(counts: list[int]) -> Any:
    rows = [
        {"boxes": boxes(1, max(count, 1), i)[0, :count], "labels": torch.ones(count).long()} for i, count in enumerate(counts)
    ]
    return list(images(len(counts))), rows


def maps(n: int) -> Tensor:
    return adaug.keypoints.render_heatmaps(nets.make_batch(n)["keypoints"], SIDE, 1.5)


HALF = torch.tensor([1.0, 0.0])
CASES: dict[str, tuple[Any, Any, Any]] = {
    "boxes": (of_boxes, [{"image": images(4), "boxes": boxes(4, 3)}], {}),
    "lists of boxes": (of_listed, [listed([3, 1, 2]), listed([1, 4])], {"targets": {0: "image"}}),
    "people": (of_points, [{"image": images(4), "keypoints": several(4)}], {}),
    "people in one row": (of_flat_people, [{"image": images(4), "keypoints": several(4)}], {}),
    "whole people": (of_people, [{"image": images(4), "keypoints": several(4)}], {}),
    "joints": (of_points, [nets.make_batch(4)], {}),
    "heat maps": (of_maps, [{"image": images(4), "heatmaps": maps(4)}], {}),
    "heat maps that are not all visible": (
        of_maps,
        [{"image": images(4), "heatmaps": maps(4) * HALF[:, None, None], "visibility": HALF.expand(4, 2)}],
        {},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_perfect_network_is_right_in_every_view(name: str, tmp_path: Path) -> None:
    score, batches, more = CASES[name]
    audit = adaug.audit(model, batches, score, VIEWS, num_draws=8, num_pictures=2, path=tmp_path / "a", **more)
    finite = audit.scores[np.isfinite(audit.scores)]
    wrong = [view for view, column in zip(audit.views, audit.scores.swapaxes(0, 1), strict=True) if (column == 0).any()]
    if name in ("boxes", "lists of boxes"):
        assert wrong == []
    else:  # edges of half a pixel, and blurred peaks
        assert float((finite == 1).mean()) > 0.95, wrong
    assert 0.3 < np.isfinite(audit.scores).mean() < 0.98
    assert np.isfinite(audit.scores[:, 0]).any()
    again = adaug.audit(model, batches, score, VIEWS, num_draws=8, num_pictures=2, path=tmp_path / "a", **more)
    np.testing.assert_array_equal(again.scores, audit.scores)
    audit.compare(Audit.load(tmp_path / "a"))


def test_images_have_their_own_numbers_of_boxes() -> None:
    score, batches, more = CASES["lists of boxes"]
    audit = adaug.audit(model, batches, score, [Scale(1, 3, 2)], num_draws=0, **more)
    assert audit.scores.shape[2] == 4
    assert np.isfinite(audit.scores[:, 0]).sum(1).tolist() == [3, 1, 2, 1, 4]


def test_other_parts_may_not_differ_from_batch_to_batch() -> None:
    def score(output: Any, batch: dict[str, Tensor]) -> Tensor:
        return torch.ones(len(output), 2 + int(batch["first"][0] == 0))

    batches = [{"image": images(2), "first": torch.full((2,), i)} for i in range(2)]
    with pytest.raises(ValueError, match="the same parts for every batch"):
        adaug.audit(model, batches, score, [Scale(1, 3, 2)], targets={"first": "label"})


def test_groups_of_joints_of_several_people() -> None:
    score, batches, _ = CASES["people"]
    audit = adaug.audit(model, batches, score, [Scale(1, 3, 2)], groups={"first": range(4), "others": range(4, 12)})
    assert audit.scores.shape[2] == 12
    assert float(audit.mean("as it is", "first")) == 1.0

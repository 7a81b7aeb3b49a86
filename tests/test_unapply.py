"""unapply_view leads labels and predictions from a view back to the image as it was."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import adaug
from adaug import Target, View
from adaug._views.view import make_view

PAIRS = [(0, 1), (2, 3)]
SIZE, VIEW, N = (48, 40), (32, 32), 12
POLICY = adaug.policies.robust(PAIRS)


def batch() -> dict[str, Any]:
    noise = torch.Generator().manual_seed(0)
    points = torch.rand(N, 5, 2, generator=noise) * 8 + torch.tensor([16.0, 20.0])
    return {
        "image": torch.rand(N, 3, *SIZE, generator=noise),
        "keypoints": torch.cat([points, torch.ones(N, 5, 1)], -1),
        "heatmaps": adaug.keypoints.render_heatmaps(points, SIZE, sigma=2.0),
        "boxes": torch.tensor([[14.0, 18, 26, 30]]).repeat(N, 1, 1),
        "mask": torch.ones(N, *SIZE, dtype=torch.long),
        "area": torch.full((N,), 144.0),
        "image_id": torch.arange(N),
    }


@pytest.fixture(scope="module", params=["Augment", "draw"])
def seen(request: pytest.FixtureRequest) -> tuple[dict[str, Any], View]:
    if request.param == "Augment":
        made, view = adaug.Augment(POLICY, seed=1, output_size=VIEW)(batch(), view=True)
    else:
        augmenter = adaug.AdversarialAugmenter(POLICY, seed=1, output_size=VIEW)
        made, view = augmenter.draw(batch()), augmenter.view
    assert view is not None
    assert view.flipped is not None
    assert 0 < int(view.flipped.sum()) < N
    return made, view


def test_everything_comes_back_to_its_place(seen: tuple[dict[str, Any], View]) -> None:
    made, view = seen
    before, labels = batch(), {key: entry for key, entry in made.items() if key != "image"}
    back = adaug.unapply_view(labels, view)
    assert list(back) == list(labels)
    stays = made["keypoints"][..., 2] == 1
    torch.testing.assert_close(back["keypoints"][..., :2], before["keypoints"][..., :2], atol=1e-3, rtol=0)
    assert stays.float().mean() > 0.5
    torch.testing.assert_close(back["area"], before["area"], atol=1e-2, rtol=1e-4)
    assert torch.equal(back["image_id"], before["image_id"])
    assert back["heatmaps"].shape == before["heatmaps"].shape
    assert back["mask"].shape == before["mask"].shape
    peaks, _ = adaug.keypoints.decode_heatmaps(back["heatmaps"])
    far = (peaks - before["keypoints"][..., :2]).norm(dim=-1)
    assert far[stays].mean() < 1.0  # a perfect finder is perfect in the image's own pixels, mirrored rows included
    inside = (made["boxes"][:, 0] > 0).all(-1) & (made["boxes"][:, 0] < 32).all(-1)
    around = back["boxes"][inside, 0]
    assert len(around)
    assert (around[:, :2] <= before["boxes"][inside, 0, :2] + 0.01).all()
    assert (around[:, 2:] >= before["boxes"][inside, 0, 2:] - 0.01).all()


def test_a_batch_with_its_images_comes_back_too(seen: tuple[dict[str, Any], View]) -> None:
    made, view = seen
    back = adaug.unapply_view(made, view)
    assert back["image"].shape == batch()["image"].shape
    alone = adaug.unapply_view({"keypoints": made["keypoints"]}, view)
    assert torch.equal(back["keypoints"], alone["keypoints"])


def as_tuple(made: dict[str, Any]) -> tuple[Any, dict[Any, Any], Any]:
    return (made["heatmaps"], made["keypoints"]), {0: "heatmaps", 1: "keypoints"}, lambda back: back[1]


def nested(made: dict[str, Any]) -> tuple[Any, dict[Any, Any], Any]:
    return {"out": {"points": made["keypoints"]}}, {("out", "points"): "keypoints"}, lambda back: back["out"]["points"]


def rows(made: dict[str, Any]) -> tuple[Any, dict[Any, Any], Any]:
    each = [{"keypoints": points[None], "labels": torch.ones(1, dtype=torch.long)} for points in made["keypoints"]]
    return each, {}, lambda back: torch.cat([row["keypoints"] for row in back])


def flat(made: dict[str, Any]) -> tuple[Any, dict[Any, Any], Any]:
    entries = {"points": made["keypoints"], "batch_idx": torch.arange(N)}
    return entries, {"points": Target("keypoints", rows="batch_idx")}, lambda back: back["points"]


def columns(made: dict[str, Any]) -> tuple[Any, dict[Any, Any], Any]:
    entries = {"points": made["keypoints"][..., :2].flatten(1)}
    return entries, {"points": "keypoints"}, lambda back: back["points"].unflatten(1, (-1, 2))


def in_unit(made: dict[str, Any]) -> tuple[Any, dict[Any, Any], Any]:
    def read(back: Any) -> Tensor:
        height, width = SIZE
        return back["points"] * torch.tensor([width, height]) - 0.5

    return {"points": (made["keypoints"][..., :2] + 0.5) / 32}, {"points": Target("keypoints", unit="unit")}, read


@pytest.mark.parametrize("structure", [as_tuple, nested, rows, flat, columns, in_unit], ids=lambda function: function.__name__)
def test_predictions_come_in_any_structure(seen: tuple[dict[str, Any], View], structure: Any) -> None:
    made, view = seen
    entries, targets, read = structure(made)
    back = adaug.unapply_view(entries, view, targets=targets)
    assert type(back) is type(entries)
    found = read(back)[..., :2]
    torch.testing.assert_close(found, batch()["keypoints"][..., :2], atol=1e-3, rtol=0)


def moved_by(operation: Any, magnitude: float, size: tuple[int, int], n: int) -> View:
    return make_view([("by", operation, operation.at(magnitude, n, torch.device("cpu")))], n, size, size)


def test_a_list_of_views_takes_a_list_of_rows() -> None:
    sizes = [(24, 32), (40, 20)]
    given = [{"boxes": torch.tensor([[6.0, 6, 14, 16]])}, {"boxes": torch.tensor([[4.0, 14, 12, 24], [5, 15, 9, 19]])}]
    views = [moved_by(adaug.Rotate(-90, 90, 3), 90.0, size, 1) for size in sizes]
    moved = [
        adaug.apply_view([{"image": torch.rand(3, *size), **row}], view)[0]
        for row, size, view in zip(given, sizes, views, strict=True)
    ]
    back = adaug.unapply_view([{"boxes": row["boxes"]} for row in moved], views)
    for row, before in zip(back, given, strict=True):
        torch.testing.assert_close(row["boxes"], before["boxes"], atol=1e-3, rtol=0)


def test_confidences_outside_the_image_stay() -> None:
    view = moved_by(adaug.Translate(-0.5, 0.5, 3), 0.4, (32, 32), 2)
    predicted = torch.tensor([[[1.0, 1.0, 0.7]]]).repeat(2, 1, 1)  # in the part that the image does not show
    back = adaug.unapply_view({"keypoints": predicted}, view)["keypoints"]
    assert (back[..., :2] < 0).any()
    assert torch.equal(back[..., 2], predicted[..., 2])


def test_gradients_flow_back() -> None:
    made, view = adaug.Augment(POLICY, seed=1)(batch(), view=True)
    maps = made["heatmaps"].requires_grad_()
    adaug.unapply_view({"heatmaps": maps}, view)["heatmaps"].sum().backward()
    assert maps.grad is not None
    assert maps.grad.abs().sum() > 0


def test_test_time_averaging() -> None:
    """Three lines: draw, lead back, add. A network that sees each pixel by itself gives what it gives without views."""
    augment = adaug.Augment(adaug.Policy((), [adaug.Flip(())]), seed=0)
    image = torch.rand(4, 3, 16, 16)
    total = torch.zeros(4, 3, 16, 16)
    for _ in range(4):
        turned, view = augment({"image": image}, view=True)
        logits = {"logits": turned["image"] * 2}
        total += adaug.unapply_view(logits, view, targets={"logits": Target("heatmaps", pairs=())})["logits"]
    torch.testing.assert_close(total / 4, image * 2, atol=1e-4, rtol=0)


def test_a_view_that_moves_nothing_gives_copies() -> None:
    _, view = adaug.Augment(adaug.Policy(()), seed=0)({"image": torch.rand(2, 3, 8, 8)}, view=True)
    points = torch.rand(2, 3, 2)
    back = adaug.unapply_view({"keypoints": points}, view)["keypoints"]
    assert torch.equal(back, points)
    assert back is not points


BAD: dict[str, tuple[Any, Any, type[Exception], str]] = {
    "unknown name": ({"logits": torch.rand(N, 5, 32, 32)}, None, ValueError, "'logits' without one"),
    "rows": ({"keypoints": torch.rand(3, 5, 2)}, None, ValueError, f"{N} rows"),
    "size": ({"heatmaps": torch.rand(N, 5, 48, 40)}, None, ValueError, "32 x 32"),
    "no view": ({"keypoints": torch.rand(N, 5, 2)}, [], ValueError, "as many rows"),
    "pairs": ({"keypoints": torch.rand(N, 5, 2)}, [(adaug.Rotate(-9, 9, 3), 4.0)], TypeError, "should be a View"),
    "no sizes": ({"keypoints": torch.rand(1, 5, 2)}, View(matrix=torch.eye(3)[None]), ValueError, "know its sizes"),
    "a tensor": (torch.rand(N, 5, 2), None, TypeError, "a mapping or a tuple"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_does_not_fit_is_refused(seen: tuple[dict[str, Any], View], name: str) -> None:
    entries, view, error, message = BAD[name]
    with pytest.raises(error, match=message):
        adaug.unapply_view(entries, seen[1] if view is None else view)

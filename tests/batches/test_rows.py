"""Batches in lists, as torchvision's detectors have them, and models that take more than images."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from networks import BRIDGES
from torch import Tensor, nn

import adaug

SIDE = 32


class Detector(nn.Module):
    """Takes lists, in training with labels: gives a dict of losses of the batch, in evaluation boxes, as theirs do."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU())
        self.head = nn.Linear(8, 4)
        self.calls: list[Any] = []

    def forward(self, images: list[Tensor], targets: list[dict[str, Tensor]] | None = None) -> Any:
        assert isinstance(images, list)
        self.calls.append(targets)
        boxes = self.head(self.body(torch.stack(images)).mean((2, 3)))
        if not self.training or targets is None:
            return [{"boxes": box[None]} for box in boxes]
        losses = [(box - row["boxes"]).abs().sum() / SIDE for box, row in zip(boxes, targets, strict=True)]
        return {"loss_box": torch.stack(losses).mean(), "loss_class": boxes.square().mean()}


def batch() -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """Four images with 2, 1, 0 and 3 objects, each of which fills its box."""
    images, rows = [], []
    for i, count in enumerate((2, 1, 0, 3)):
        x = 4.0 * torch.arange(1, count + 1)
        boxes = torch.stack([x, x + i, x + 8, x + 12], 1)
        masks = torch.zeros(count, SIDE, SIDE, dtype=torch.uint8)
        for mask, (x1, y1, x2, y2) in zip(masks, boxes.int().tolist(), strict=True):
            mask[y1 : y2 + 1, x1 : x2 + 1] = 1
        keypoints = torch.cat([boxes.unflatten(1, (2, 2)), torch.full((count, 2, 1), 2.0)], 2)
        rows.append({"boxes": boxes, "masks": masks, "keypoints": keypoints, "labels": torch.ones(count, dtype=torch.long)})
        images.append(torch.rand(3, SIDE, SIDE))
    return images, rows


def image_by_image(model: nn.Module, batch: Any) -> list[dict[str, Tensor]]:
    return [model([image], [row]) for image, row in zip(*batch, strict=True)]


def summed(output: list[dict[str, Tensor]], batch: Any) -> Tensor:
    return torch.stack([sum(losses.values(), torch.zeros(())) for losses in output])


def test_lists_come_back_as_they_came_and_follow_their_pixels() -> None:
    images, rows = batch()
    turned, moved = adaug.apply_view((images, rows), [(adaug.Rotate(-90, 90, 9), 90.0)])
    for image, before, after, given in zip(turned, rows, moved, images, strict=True):
        torch.testing.assert_close(image, torch.rot90(given, 1, (1, 2)), atol=1e-5, rtol=0)
        assert {name: value.shape for name, value in after.items()} == {name: value.shape for name, value in before.items()}
        assert torch.equal(after["masks"], torch.rot90(before["masks"], 1, (1, 2)))
        assert after["masks"].dtype == torch.uint8
        x1, y1, x2, y2 = before["boxes"].unbind(1)
        torch.testing.assert_close(after["boxes"], torch.stack([y1, SIDE - x2, y2, SIDE - x1], 1))
        x, y = before["keypoints"][..., 0], before["keypoints"][..., 1]
        torch.testing.assert_close(after["keypoints"][..., :2], torch.stack([y, SIDE - 1 - x], -1))


def test_lists_of_tensors_beside_lists_of_images() -> None:
    images, rows = batch()
    given = {"image": images, "boxes": [row["boxes"] for row in rows], "mask": [row["masks"].sum(0) for row in rows]}
    made = adaug.apply_view(given, [(adaug.Scale(0.5, 2, 5), 1.0)], output_size=16)
    assert [tuple(image.shape) for image in made["image"]] == [(3, 16, 16)] * 4
    assert [len(boxes) for boxes in made["boxes"]] == [2, 1, 0, 3]
    assert [tuple(mask.shape) for mask in made["mask"]] == [(16, 16)] * 4
    torch.testing.assert_close(made["boxes"][3], (rows[3]["boxes"] - 8).clamp(0, 16))


@pytest.mark.parametrize("learned", ["running", False])
def test_a_detector_trains_on_lists_in_its_own_call(learned: Any) -> None:
    policy = adaug.Policy([adaug.Branch("asr", [adaug.Rotate(-60, 60, 9)], share=0.5, learned=learned)], [adaug.Flip(())])
    model, augmenter = Detector(), adaug.AdversarialAugmenter(policy, forward=image_by_image, seed=0)
    given = batch()
    for _ in range(4):
        result = augmenter.step(model, given, summed)
        result.loss.backward()
    images, rows = result.batch
    assert [len(row["boxes"]) for row in rows] == [2, 1, 0, 3]
    assert all(targets is not None for targets in model.calls), "the model was never asked without its labels"
    assert torch.equal(result.losses, summed(image_by_image(model, (images, rows)), None))
    torch.testing.assert_close(given[1][0]["boxes"], batch()[1][0]["boxes"])
    assert augmenter.difficulty_table().columns["asr.rotate"]["bin"]


def test_generators_look_and_score_by_the_users_call() -> None:
    """Scored as in training, where a detector gives losses; a look needs the labels too."""
    learned = adaug.learners.Paper(features=["body.3"], scoring="train")
    policy = adaug.Policy([adaug.Branch("asr", [adaug.Rotate(-60, 60, 9)], 0.5, learned)])
    torch.manual_seed(0)
    model = Detector()
    augmenter = adaug.AdversarialAugmenter(policy, forward=lambda model, batch: _padded(model, *batch), seed=0)
    for _ in range(3):
        metrics = augmenter.step(model, batch(), lambda output, batch: output).metrics
    assert metrics["distribution/asr.rotate"].shape == (9,)
    assert "reward_rate/asr" in metrics


def _padded(model: Any, images: list[Tensor], rows: list[dict[str, Tensor]]) -> Tensor:
    boxes = model.head(model.body(torch.stack(images)).mean((2, 3)))
    return torch.stack([(box - row["boxes"]).abs().sum() / SIDE for box, row in zip(boxes, rows, strict=True)])


def test_a_model_that_returns_its_own_losses() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Conv2d(3, 2, 3, padding=1)

        def forward(self, pixel_values: Tensor, labels: Tensor) -> Any:
            return {"loss": F.cross_entropy(self.net(pixel_values), labels, reduction="none").mean((1, 2))}

    batch = {"pixel_values": torch.rand(6, 3, 16, 16), "mask": torch.randint(0, 2, (6, 16, 16))}
    augmenter = adaug.AdversarialAugmenter(
        adaug.policies.paper(learned=adaug.learners.Paper(features=["net"])),
        forward=lambda model, batch: model(batch["pixel_values"], labels=batch["mask"]),
        seed=0,
    )
    result = augmenter.step(Own(), batch, lambda output, batch: output["loss"])
    assert result.losses.shape == (6,)
    assert torch.equal(result.output["loss"], result.losses)


class Boxes(Tensor):
    """As torchvision's BoundingBoxes: it names its own format."""

    format = "XYWH"


class Centred(Boxes):
    format = "CXCYWH"


@pytest.mark.parametrize("listed", [True, False])
def test_boxes_that_name_their_own_format_are_read_by_it(listed: bool) -> None:
    given = torch.tensor([[4.0, 4, 10, 6]]).as_subclass(Boxes)  # as corners, 4 to 14 and 4 to 10
    image = torch.rand(3, SIDE, SIDE)
    sample: Any = ([image], [{"boxes": given}]) if listed else {"image": image[None], "boxes": given[None].as_subclass(Boxes)}
    made = adaug.apply_view(sample, [(adaug.Rotate(-90, 90, 9), 90.0)])
    moved = made[1][0]["boxes"] if listed else made["boxes"][0]
    torch.testing.assert_close(moved.as_subclass(Tensor), torch.tensor([[4.0, 18, 6, 10]]))


def test_lists_that_do_not_fit_are_named() -> None:
    images, rows = batch()
    policy = adaug.policies.robust(())
    with pytest.raises(ValueError, match=r"list 0 should have one size.*\(3, 32, 32\), \(3, 32, 40\).*adaug\.Augment"):
        adaug.AdversarialAugmenter(policy).random(([*images[:3], torch.rand(3, 32, 40)], rows))
    with pytest.raises(ValueError, match=r"\(1, 'depth'\) without one; pass targets=\{\(1, 'depth'\): kind\}"):
        adaug.AdversarialAugmenter(policy).random((images, [row | {"depth": torch.ones(len(row["boxes"]))} for row in rows]))
    with pytest.raises(ValueError, match=r"Found \(1, 'boxs'\), which match none; the nearest are \(1, 'boxes'\)"):
        adaug.AdversarialAugmenter(policy, targets={(1, "boxs"): "boxes"}).random((images, rows))
    mixed = [{"boxes": row["boxes"].as_subclass(kind)} for row, kind in zip(rows, (Boxes, Boxes, Boxes, Centred), strict=True)]
    with pytest.raises(ValueError, match=r"\(1, 'boxes'\) should have one format. Found xywh, cxcywh; convert them"):
        adaug.AdversarialAugmenter(policy).random((images, mixed))
    with pytest.raises(ValueError, match="same names"):
        adaug.AdversarialAugmenter(policy).random((images, [*rows[:3], {"boxes": rows[3]["boxes"]}]))
    adaug.AdversarialAugmenter(policy, targets={(1, "area"): "other"}).random((images, [row | {"area": 1.0} for row in rows]))


def test_hidden_features_of_lists() -> None:
    class Listed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleDict({name: nn.Conv2d(3 if i == 0 else 4, 4, 3, 2, 1) for i, name in enumerate(BRIDGES)})

        def forward(self, images: list[Tensor]) -> Tensor:
            x = torch.stack(images)
            for layer in self.layers.values():
                x = layer(x)
            return x

    augmenter = adaug.AdversarialAugmenter(adaug.policies.running(adaug.policies.wide(())), seed=0)
    result = augmenter.step(Listed(), {"image": batch()[0]}, lambda output, batch: output.square().mean((1, 2, 3)))
    assert "occlude=['layers" in repr(augmenter)
    assert result.losses.shape == (4,)


def test_what_the_user_says_of_rows_counts() -> None:
    """Nearest first: a name inside, then the entry that all rows are in."""
    images, rows = batch()
    pairs = [(adaug.Rotate(-90, 90, 9), 90.0)]
    _, left = adaug.apply_view((images, rows), pairs, targets={1: "other"})
    assert all(torch.equal(a["boxes"], b["boxes"]) for a, b in zip(left, rows, strict=True))
    _, moved = adaug.apply_view((images, rows), pairs, targets={1: "other", (1, "boxes"): "boxes"})
    assert not torch.equal(moved[0]["boxes"], rows[0]["boxes"])
    assert torch.equal(moved[0]["keypoints"], rows[0]["keypoints"])
    given = {"image": images, "boxes": [row["boxes"] for row in rows]}
    kept = adaug.apply_view(given, pairs, targets={("boxes",): "other"})
    assert all(torch.equal(a, b) for a, b in zip(kept["boxes"], given["boxes"], strict=True))


def test_rows_that_a_name_would_leave_behind_are_refused() -> None:
    images, rows = batch()
    mapped = [row | {"label": torch.zeros(SIDE, SIDE, dtype=torch.long)} for row in rows]
    with pytest.raises(ValueError, match=r"\(1, 'label'\).*a value for each pixel.*targets=\{\(1, 'label'\): \"mask\"\}"):
        adaug.apply_view((images, mapped), [(adaug.Rotate(-90, 90, 9), 90.0)])
    adaug.apply_view((images, mapped), [(adaug.Rotate(-90, 90, 9), 90.0)], targets={(1, "label"): "label"})

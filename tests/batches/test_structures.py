"""Batches as other people's loops hold them: each structure through every verb, against one plain batch."""

from __future__ import annotations

import copy
from collections import namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import adaug
from adaug import Rotate, Scale, Target

N, SIDE, K = 4, 32, 5
TURN = [(Rotate(-90, 90, 9), 33.0), (Scale(0.5, 2, 5), torch.tensor([0.8, 1.0, 1.2, 1.4]))]
POLICY = adaug.policies.robust(())


def plain() -> tuple[Tensor, Tensor, Tensor]:
    """Images, points and a box in each."""
    noise = torch.Generator().manual_seed(0)
    points = torch.rand(N, K, 2, generator=noise) * 12 + 10
    return torch.rand(N, 3, SIDE, SIDE, generator=noise), points, torch.tensor([[8.0, 9, 20, 22]]).repeat(N, 1)


class Boxes:
    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


class Instances:
    """Like detectron2's: fields are attributes, which __setattr__ puts into a dictionary."""

    def __init__(self, **fields: Any) -> None:
        object.__setattr__(self, "_fields", dict(fields))

    def __setattr__(self, name: str, value: Any) -> None:
        self._fields[name] = value

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "_fields" or name not in self._fields:
            raise AttributeError(name)
        return self._fields[name]


@dataclass
class Persons:
    keypoints: Any


@dataclass
class Sample:
    gt_instances: Persons


Pair = namedtuple("Pair", ["image", "labels"])  # as people write them


@dataclass
class Case:
    """A batch in some structure, what is said about it, and how to read points or boxes from it."""

    make: Callable[[Tensor, Tensor, Tensor], Any]
    read: Callable[[Any], Any]
    targets: dict[Any, Any]
    boxes: bool = False
    augments: bool = True
    model: bool = True


CASES = {
    "detectron2": Case(
        lambda image, points, boxes: [
            {
                "image": (255 * image[i]).round().to(torch.uint8),
                "instances": Instances(gt_boxes=Boxes(boxes[i : i + 1]), gt_classes=torch.tensor([i])),
                "height": 480,
                "file_name": f"{i}.jpg",
            }
            for i in range(N)
        ],
        lambda made: torch.cat([row["instances"].gt_boxes.tensor for row in made]),
        {("instances", "gt_boxes", "tensor"): "boxes"},
        boxes=True,
        model=False,
    ),
    "mmpose": Case(
        lambda image, points, boxes: {
            "inputs": list(image),
            "data_samples": [Sample(Persons(points[i : i + 1].numpy())) for i in range(N)],
        },
        lambda made: torch.cat([torch.as_tensor(sample.gt_instances.keypoints) for sample in made["data_samples"]]),
        {("data_samples", "gt_instances", "keypoints"): "keypoints"},
        model=False,
    ),
    "DETR": Case(
        lambda image, points, boxes: (
            list(image),
            [
                {
                    "boxes": boxes[i : i + 1],
                    "labels": torch.tensor([1]),
                    "iscrowd": torch.tensor([0]),
                    "area": torch.tensor([156.0]),
                    "orig_size": torch.tensor([480, 640]),
                    "size": torch.tensor([SIDE, SIDE]),
                    "image_id": torch.tensor([i]),
                }
                for i in range(N)
            ],
        ),
        lambda made: torch.cat([target["boxes"] for target in made[1]]),
        {},
        boxes=True,
        model=False,
    ),
    "top-down": Case(
        lambda image, points, boxes: (
            image,
            torch.ones(N, K, SIDE // 4, SIDE // 4),
            torch.ones(N, K, 1),
            {"center": torch.rand(N, 2), "scale": torch.rand(N, 2), "joints": points, "image": ["a.jpg"] * N},
        ),
        lambda made: made[3]["joints"],
        {1: "heatmaps", 2: "visibility", (3, "joints"): "keypoints"},
    ),
    "YOLO": Case(
        lambda image, points, boxes: {
            "img": image,
            "bboxes": torch.cat([(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]], 1) / SIDE,
            "cls": torch.zeros(N, 1),
            "batch_idx": torch.arange(N),
            "im_file": ["a.jpg"] * N,
        },
        lambda made: (
            SIDE
            * torch.cat(
                [made["bboxes"][:, :2] - made["bboxes"][:, 2:] / 2, made["bboxes"][:, :2] + made["bboxes"][:, 2:] / 2], 1
            )
        ),
        {"bboxes": Target("boxes", rows="batch_idx", unit="unit", format="cxcywh")},
        boxes=True,
        augments=False,
    ),
    "columns": Case(
        lambda image, points, boxes: {"img": image, "landmarks": points.flatten(1)},
        lambda made: made["landmarks"].unflatten(1, (K, 2)),
        {},
    ),
    "nested": Case(
        lambda image, points, boxes: {"data": {"image": image}, "labels": {"kpts": points, "ids": ["a"] * N}},
        lambda made: made["labels"]["kpts"],
        {("data", "image"): "image", ("labels", "kpts"): "keypoints"},
    ),
    "named tuple": Case(
        lambda image, points, boxes: Pair(image, {"keypoints": points}),
        lambda made: made.labels["keypoints"],
        {(1, "keypoints"): "keypoints"},
        augments=False,
    ),
}


def expected(view: Any, boxes: bool) -> Tensor:
    image, points, edges = plain()
    made = adaug.apply_view({"image": image, "keypoints": points, "boxes": edges[:, None]}, view)
    return made["boxes"][:, 0] if boxes else made["keypoints"]


@pytest.mark.parametrize("rest", ["other"])
@pytest.mark.parametrize("verb", ["apply_view", "draw", "step", "Augment"])
@pytest.mark.parametrize("name", CASES)
def test_every_structure_in_every_verb(name: str, verb: str, rest: str) -> None:
    case = CASES[name]
    if (verb == "Augment" and not case.augments) or (verb == "step" and not case.model):
        pytest.skip("covered by the other verbs")
    given = case.make(*plain())
    before = copy.deepcopy(case.read(given))
    view: Any
    if verb == "apply_view":
        view, made = TURN, adaug.apply_view(given, TURN, targets=case.targets, rest=rest)
    elif verb == "Augment":
        made, view = adaug.Augment(POLICY, seed=3, targets=case.targets, rest=rest)(given, view=True)
    else:
        augmenter = adaug.AdversarialAugmenter(POLICY, seed=3, targets=case.targets, rest=rest)
        if verb == "draw":
            made = augmenter.draw(given)
        else:
            made = augmenter.step(nn.Conv2d(3, 3, 1), given, lambda output, batch: output.flatten(1).mean(1)).batch
        view = augmenter.view
    assert type(made) is type(given)
    if verb == "Augment" and isinstance(view, list):
        image, points, boxes = plain()
        rows = [
            adaug.apply_view({"image": image[i : i + 1], "keypoints": points[i : i + 1], "boxes": boxes[None, i : i + 1]}, one)
            for i, one in enumerate(view)
        ]
        wanted = torch.cat([row["boxes"][:, 0] if case.boxes else row["keypoints"] for row in rows])
    else:
        wanted = expected(view, case.boxes)
    assert not torch.equal(wanted, expected([], case.boxes))  # something moved
    torch.testing.assert_close(torch.as_tensor(case.read(made)), wanted, atol=1e-3, rtol=1e-4)
    assert torch.equal(torch.as_tensor(case.read(given)), torch.as_tensor(before)), "the user's own batch stays"


def test_what_usual_names_mean_in_detection() -> None:
    given = CASES["DETR"].make(*plain())
    made = adaug.apply_view(given, [(Scale(0.5, 2, 3), 2.0)], output_size=(16, 24))
    row, before = made[1][0], given[1][0]
    assert row["size"].tolist() == [16, 24]
    assert row["orig_size"].tolist() == [480, 640]
    torch.testing.assert_close(row["area"], before["area"] * 4)
    for name in ("labels", "iscrowd", "image_id"):
        assert torch.equal(row[name], before[name])


def test_center_and_scale_of_a_crop_stay() -> None:
    given = CASES["top-down"].make(*plain())
    made = adaug.apply_view(given, TURN, targets=CASES["top-down"].targets)
    assert torch.equal(made[3]["center"], given[3]["center"])
    assert torch.equal(made[3]["scale"], given[3]["scale"])


@pytest.mark.parametrize("verb", ["AdversarialAugmenter", "Augment", "apply_view", "audit"])
def test_rest_leaves_what_nobody_named(verb: str) -> None:
    image, points, _ = plain()
    batch = {"image": image, "keypoints": points, "mystery": torch.rand(N, 7)}

    def run(rest: str | None) -> Any:
        if verb == "AdversarialAugmenter":
            return adaug.AdversarialAugmenter(POLICY, seed=0, rest=rest).draw(batch)
        if verb == "Augment":
            return adaug.Augment(POLICY, seed=0, rest=rest)(batch)
        if verb == "apply_view":
            return adaug.apply_view(batch, TURN, rest=rest)
        seen: list[Any] = []

        def score(output: Tensor, batch: Any) -> Tensor:
            seen.append(batch)
            return output.flatten(1).mean(1)

        adaug.audit(nn.Conv2d(3, 1, 1), [batch], score, [Rotate(-30, 30, 3)], rest=rest, progress=False)
        return seen[0]

    with pytest.raises(ValueError, match=r"'mystery' without one.*rest=\"other\" leaves"):
        run(None)
    assert torch.equal(run("other")["mystery"][:1], batch["mystery"][:1])
    with pytest.raises(ValueError, match="`rest`"):
        run("image")


@pytest.mark.parametrize("verb", ["AdversarialAugmenter", "Augment", "apply_view"])
def test_a_second_image_gets_the_same_view(verb: str) -> None:
    image, _, _ = plain()
    batch, targets = (
        {"image": image, "depth": image.mean(1, keepdim=True), "image2": image},
        {"image2": "image", "depth": "image"},
    )
    if verb == "apply_view":
        made = adaug.apply_view(batch, TURN, targets=targets)
    elif verb == "Augment":
        made = adaug.Augment(POLICY, seed=0, targets=targets)(batch)
    else:
        made = adaug.AdversarialAugmenter(POLICY, seed=0, targets=targets).draw(batch)
    assert torch.equal(made["image2"], made["image"])
    assert made["depth"].shape == (N, 1, SIDE, SIDE)
    assert not torch.equal(made["image"], image)


def test_images_of_integers_are_drawn_and_a_step_says_what_to_do() -> None:
    image, points, _ = plain()
    batch = {"image": (255 * image).round().to(torch.uint8), "keypoints": points}
    made = adaug.apply_view(batch, TURN)
    assert made["image"].dtype == torch.uint8
    exact = adaug.apply_view({"image": batch["image"].float() / 255, "keypoints": points}, TURN)
    assert torch.equal(made["image"], (exact["image"] * 255).round().to(torch.uint8))
    augmenter = adaug.AdversarialAugmenter(POLICY, seed=0)
    with pytest.raises(TypeError, match="pass `forward`"):
        augmenter.step(nn.Conv2d(3, 3, 1), batch, lambda output, batch: output.flatten(1).mean(1))

    def forward(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        return model(batch["image"].float() / 255)

    own = adaug.AdversarialAugmenter(POLICY, seed=0, forward=forward)
    result = own.step(nn.Conv2d(3, 3, 1), batch, lambda output, batch: output.flatten(1).mean(1))
    assert result.batch["image"].dtype == torch.uint8


@pytest.mark.parametrize("columns", [2, 3])
def test_rows_of_numbers_are_points(columns: int) -> None:
    image, points, _ = plain()
    third = torch.ones(N, K, 1)
    whole = points if columns == 2 else torch.cat([points, third], -1)
    target = Target("keypoints", format=None if columns == 2 else "xyv")
    view = TURN
    made = adaug.apply_view({"image": image, "points": whole.flatten(1)}, view, targets={"points": target})
    assert torch.equal(made["points"], adaug.apply_view({"image": image, "keypoints": whole}, view)["keypoints"].flatten(1))
    with pytest.raises(ValueError, match="numbers for each keypoint"):
        adaug.apply_view({"image": image, "points": torch.rand(N, 7)}, view, targets={"points": target})


def test_numpy_rows_come_back_as_numpy() -> None:
    case = CASES["mmpose"]
    made = adaug.apply_view(case.make(*plain()), TURN, targets=case.targets, rest="other")
    assert isinstance(made["data_samples"][0].gt_instances.keypoints, np.ndarray)


def test_triples_in_a_row_are_no_pairs() -> None:
    image, points, _ = plain()
    triples = torch.cat([points[:, :4], torch.full((N, 4, 1), 2.0)], -1).flatten(1)
    with pytest.raises(ValueError, match='format="xyv"'):
        adaug.apply_view({"image": image, "keypoints": triples}, TURN)


def test_a_second_image_in_a_list() -> None:
    rows = [{"image": image, "next": image} for image in plain()[0]]
    for row in adaug.apply_view(rows, TURN, targets={"next": "image"}):
        assert torch.equal(row["image"], row["next"])


def test_a_size_of_something_else_is_asked_for() -> None:
    with pytest.raises(ValueError, match="A size of images should be that of the images"):
        adaug.apply_view({"image": plain()[0], "size": torch.full((N, 2), 8.0)}, TURN)

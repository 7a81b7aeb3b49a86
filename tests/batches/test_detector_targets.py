"""torchvision's targets, with a 0-dimensional image_id: the same `targets` for every verb."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import networks as nets
import pytest
import torch
from torch import Tensor, nn

import adaug
from adaug import Rotate, Target


def target(count: int, number: int) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(number)
    corner = 4 + 12 * torch.rand(count, 2, generator=g)
    return {
        "boxes": torch.cat([corner, corner + 8], 1),
        "labels": torch.ones(count).long(),
        "image_id": torch.tensor(number),
        "area": torch.full((count,), 64.0),
        "iscrowd": torch.zeros(count).long(),
        "masks": torch.ones(count, 32, 32, dtype=torch.uint8),
    }


def batch() -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    return [torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(i)) for i in range(3)], [
        target(n, n) for n in (2, 1, 0)
    ]


class Detector(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 2, 1)

    def forward(self, images: list[Tensor]) -> Tensor:
        out: Tensor = self.layer(torch.stack(images))
        return out


def mean(output: Tensor, seen: Any) -> Tensor:
    return output.square().mean((1, 2, 3))


def augmented(targets: Any) -> Any:
    return adaug.Augment(adaug.policies.trivial(flip_pairs=()), targets=targets, seed=0)(batch())


def one_sample(targets: Any) -> Any:
    augment = adaug.Augment(adaug.policies.trivial(flip_pairs=()), targets=targets, seed=0)
    rows = [augment((image, row), index=i) for i, (image, row) in enumerate(zip(*batch(), strict=True))]
    return [image for image, _ in rows], [row for _, row in rows]


def stepped(targets: Any) -> Any:
    return adaug.AdversarialAugmenter(adaug.policies.robust(()), targets=targets, seed=0).step(Detector(), batch(), mean).batch


VERBS: dict[str, Callable[[Any], Any]] = {
    "step": stepped,
    "draw": lambda targets: adaug.AdversarialAugmenter(adaug.policies.robust(()), targets=targets, seed=0).draw(batch()),
    "Augment": augmented,
    "Augment one sample": one_sample,
    "apply_view": lambda targets: adaug.apply_view(batch(), [(Rotate(-30, 30, 3), 20.0)], targets=targets),
}
STAY: dict[Any, Any] = {(1, "area"): "other", (1, "iscrowd"): "other"}
GROWS: dict[Any, Any] = {(1, "area"): "area"}
TARGETS: dict[str, Any] = {
    "names alone": STAY,
    "boxes by name": STAY | {(1, "boxes"): "boxes"},
    "image and masks": STAY | {0: "image", (1, "masks"): Target("mask", fill=0)},
    "all of it": STAY
    | {0: "image", (1, "boxes"): Target("boxes", format="xyxy"), (1, "labels"): "label", (1, "image_id"): "other"},
}


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("targets", TARGETS.values(), ids=TARGETS)
def test_every_verb_takes_the_same_targets(verb: str, targets: Any) -> None:
    before = batch()
    images, rows = VERBS[verb](targets)
    assert [tuple(image.shape) for image in images] == [(3, 32, 32)] * 3
    for row, own in zip(rows, before[1], strict=True):
        for name in ("image_id", "labels", "area", "iscrowd"):
            assert torch.equal(row[name], own[name])
        assert row["boxes"].shape == own["boxes"].shape
        assert row["masks"].dtype == torch.uint8
    if verb != "step":
        assert not nets.same(list(images), before[0])
    if verb == "apply_view":
        assert not torch.equal(rows[0]["boxes"], before[1][0]["boxes"])


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("targets", [{(1, "area"): "areas"}, STAY | {(1, "nothing"): "other"}, STAY | {(1, "boxes"): "box"}])
def test_every_verb_refuses_the_same_targets(verb: str, targets: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=r"should .*Found"):
        VERBS[verb](targets)


@pytest.mark.parametrize("verb", VERBS)
def test_names_alone_tell_what_detectors_take(verb: str) -> None:
    (named, by_name), (declared, by_kind) = VERBS[verb](None), VERBS[verb](GROWS)
    assert nets.same(list(named), list(declared))
    assert nets.same(list(by_name), list(by_kind))
    if verb == "apply_view":  # a turn keeps areas
        assert torch.allclose(by_name[0]["area"].float(), batch()[1][0]["area"].float(), rtol=1e-4)


@pytest.mark.parametrize("verb", VERBS)
def test_all_that_is_inside_may_stay(verb: str) -> None:
    _, rows = VERBS[verb]({1: "other"})
    assert nets.same(list(rows), batch()[1])


def test_boxes_of_samples_follow_as_those_of_lists_do() -> None:
    augment = adaug.Augment(adaug.policies.trivial(flip_pairs=()), targets=STAY, seed=0)
    for i, (image, row) in enumerate(zip(*batch(), strict=True)):
        (moved, seen), view = augment((image, row), index=i, view=True)
        images, rows = adaug.apply_view(([image], [row]), view, targets=STAY)
        assert torch.allclose(images[0], moved)
        assert nets.same(rows[0], seen)

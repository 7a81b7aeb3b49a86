"""Boxes are edges, as in COCO and torchvision; keypoints are pixel centres; a box may ask for a visible part."""

import hypothesis.strategies as st
import networks as nets
import numpy as np
import pytest
import reference
import torch
from hypothesis import given

import adaug
from adaug import Flip, Policy, Rotate, Scale, Target, Translate
from adaug._batches.parse import parse

FORMS = {
    "xyxy": lambda low, high: np.concatenate([low, high], -1),
    "xywh": lambda low, high: np.concatenate([low, high - low], -1),
    "cxcywh": lambda low, high: np.concatenate([(low + high) / 2, high - low], -1),
}
UNITS = {
    "pixels": lambda e, s: e,
    "unit": lambda e, s: e / s,
    "signed": lambda e, s: 2 * e / s - 1,
    (5, 2): lambda e, s: (e - 5) / 2,
}


def flipped(boxes, size, **options):
    return adaug.AdversarialAugmenter(Policy((), (Flip((), p=1.0),)), seed=0, **options).random(
        {"image": torch.rand(1, 3, *size), "boxes": torch.tensor([boxes])}
    )["boxes"][0]


def test_a_flip_keeps_the_edges():
    assert flipped([[0.0, 0, 10, 10], [0, 0, 100, 50], [30, 0, 100, 7]], (50, 100)).tolist() == [
        [90, 0, 100, 10], [0, 0, 100, 50], [0, 0, 70, 7],
    ]  # fmt: skip


@pytest.mark.parametrize("turns", range(4))
@pytest.mark.parametrize("size", [(24, 24), (17, 17)])
def test_the_whole_image_stays_the_whole_image(turns, size):
    whole = torch.tensor([[[0.0, 0, size[1], size[0]]]])
    batch = {"image": torch.rand(1, 3, *size), "boxes": whole}
    made = adaug.apply_view(batch, [(Rotate(-90, 90, 9), 90.0 * turns)])["boxes"]
    torch.testing.assert_close(made, whole, atol=1e-4, rtol=0)


@given(
    st.sampled_from(list(FORMS)), st.sampled_from(list(UNITS)), st.integers(12, 40), st.integers(12, 40),
    st.floats(-90, 90), st.floats(0.5, 2), st.floats(-0.4, 0.4), st.sampled_from([0.0, 0.3, 0.7, 1.0]), st.integers(0, 99),
)  # fmt: skip
def test_boxes_of_any_unit_and_format_are_edges(form, unit, height, width, turn, scale, shift, least, seed):
    noise, size = np.random.default_rng(seed), np.array([width, height])
    low = noise.random((2, 5, 2)) * size
    high = low + noise.random((2, 5, 2)) * 15
    high[0, 0] = low[0, 0]  # padding
    given_ = FORMS[form](UNITS[unit](low, size), UNITS[unit](high, size))
    target = Target("boxes", unit=unit, format=form, min_visibility=least)
    batch = {"image": torch.rand(2, 3, height, width), "boxes": torch.from_numpy(given_)}
    pairs = [(Rotate(-90, 90, 9), turn), (Scale(0.5, 2, 9), scale), (Translate(-1, 1, 9), shift)]
    made, matrix = nets.view_of(batch, pairs, targets={"boxes": target})
    edges = np.concatenate([low, high], -1)[0]
    expected = reference.boxes(matrix, edges, (height, width), least)
    either = [reference.boxes(matrix, edges, (height, width), part) for part in (max(0, least - 1e-4), least + 1e-4)]
    sure = (either[0] == either[1]).all(-1) | (least == 0)
    expected = FORMS[form](UNITS[unit](expected[:, :2], size), UNITS[unit](expected[:, 2:], size))
    np.testing.assert_allclose(made["boxes"][0].numpy()[sure], expected[sure], atol=2e-3)


def test_a_visible_part_can_be_asked_for():
    batch = {"image": torch.rand(1, 3, 20, 20), "boxes": torch.tensor([[[0.0, 5, 10, 15], [10, 5, 20, 15]]])}
    for least, kept in ((0.0, [True, True]), (0.55, [False, True]), (1.0, [False, True])):
        made = adaug.apply_view(
            batch, [(Translate(-1, 1, 9), -0.25)], targets={"boxes": Target("boxes", min_visibility=least)}
        )["boxes"]
        assert ((made[..., 2:] - made[..., :2]).prod(-1) > 0)[0].tolist() == kept
    with pytest.raises(ValueError, match=r"`min_visibility` of a Target should be a number in \[0, 1\]. Found 1.5"):
        Target("boxes", min_visibility=1.5)
    with pytest.raises(ValueError, match="`min_visibility` should be given for boxes"):
        Target("mask", min_visibility=0.5)


# ---- tv_tensors, by stand-ins with their names: torchvision itself is no dependency


def tv(name, tensor, **carried):
    kind = type(name, (torch.Tensor,), {"__module__": "torchvision.tv_tensors._any"})
    made = tensor.as_subclass(kind)
    vars(made).update(carried)
    return made


@pytest.mark.parametrize("name", ["thing", "label", "mask"])
@pytest.mark.parametrize("form", FORMS)
def test_tv_tensors_are_read_by_their_own_type_and_format(name, form):
    low, high = np.array([[[2.0, 3]]]), np.array([[[8.0, 12]]])
    boxes = torch.from_numpy(FORMS[form](low, high)).float()
    pairs = [(Rotate(-90, 90, 9), 90.0)]
    expected, _ = nets.view_of(
        {"image": torch.rand(1, 3, 20, 20), "boxes": boxes}, pairs, targets={"boxes": Target("boxes", format=form)}
    )
    own = {"image": torch.rand(1, 3, 20, 20), name: tv("BoundingBoxes", boxes, format=form.upper(), canvas_size=(20, 20))}
    made = adaug.apply_view(own, pairs)[name]
    assert type(made).__name__ == "BoundingBoxes"
    torch.testing.assert_close(made.as_subclass(torch.Tensor), expected["boxes"])


def test_a_sample_of_tv_tensors_needs_no_targets():
    mask = torch.zeros(1, 20, 20, dtype=torch.uint8)
    mask[0, 3:12, 2:8] = 1
    sample = (
        tv("Image", torch.rand(3, 20, 20)),
        {"boxes": tv("BoundingBoxes", torch.tensor([[2.0, 3, 8, 12]]), format="XYXY"), "masks": tv("Mask", mask), "label": 3},
    )
    turn = adaug.Augment(Policy([adaug.Branch("turn", [Rotate(89.999, 90.001, 2)], 1.0)]), seed=0)
    _, made = turn(sample)
    torch.testing.assert_close(made["boxes"].as_subclass(torch.Tensor), torch.tensor([[3.0, 12, 12, 18]]), atol=1e-2, rtol=0)
    assert torch.equal(made["masks"].as_subclass(torch.Tensor), mask.rot90(1, (1, 2)))


@pytest.mark.parametrize("form", ["XYWHR", "CXCYWHR", "XYXYXYXY"])
def test_a_format_that_adaug_does_not_know_is_refused(form):
    boxes = tv("BoundingBoxes", torch.rand(1, 2, 4), format=form)
    with pytest.raises(ValueError, match=f"format that adaug moves, xyxy, xywh, cxcywh. Found {form.lower()}; convert"):
        parse({"image": torch.rand(1, 3, 20, 20), "boxes": boxes}, None)

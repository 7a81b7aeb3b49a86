"""Points in other units and boxes of other formats are moved as their pixels are, and come back as they were given."""

import networks as nets
import pytest
import torch

import adaug
from adaug import AdversarialAugmenter, Flip, Policy, Rotate, Scale, Target
from adaug._batches.units import box_from_pixels, box_to_pixels, from_pixels, to_pixels

pytestmark = pytest.mark.numeric

CANVAS, SIZE = (40, 60), (32, 48)  # (h, w)
EVERYTHING = Policy((), (Flip(((0, 1),)), Scale(0.7, 1.4, 3), Rotate(-40, 40, 3)))
# unit -> (pixels of an image (h, w) -> values)
UNITS = {
    "pixels": lambda points, size: points,
    "unit": lambda points, size: (points + 0.5) / torch.tensor([size[1], size[0]]),
    "signed": lambda points, size: (2 * points + 1) / torch.tensor([size[1], size[0]]) - 1,
    (100, 50): lambda points, size: (points - 100) / 50,
    ((3.0, -2.0), (10.0, -5.0)): lambda points, size: (points - points.new_tensor([3, -2])) / points.new_tensor([10, -5]),
}
EDGES = {  # the same for the edges of boxes
    "pixels": lambda edges, size: edges,
    "unit": lambda edges, size: edges / torch.tensor([size[1], size[0]]),
    "signed": lambda edges, size: 2 * edges / torch.tensor([size[1], size[0]]) - 1,
}
FORMATS = {
    "xyxy": lambda low, high: torch.cat([low, high], -1),
    "xywh": lambda low, high: torch.cat([low, high - low], -1),
    "cxcywh": lambda low, high: torch.cat([(low + high) / 2, high - low], -1),
}


def seen(batch, policy=EVERYTHING, **options):
    return AdversarialAugmenter(policy, seed=3, output_size=SIZE, **options).random(batch)


def images(n=6):
    return torch.rand(n, 3, *CANVAS)


def points(n=6, k=4):
    return torch.rand(n, k, 2) * torch.tensor([CANVAS[1], CANVAS[0]]) - 0.5


@pytest.mark.parametrize("unit", UNITS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_points_of_any_unit_move_as_pixels_do(unit, dtype):
    where, visibility = points().to(dtype), torch.ones(6, 4)
    plain = seen({"image": images(), "keypoints": where, "visibility": visibility})
    batch = {"image": images(), "keypoints": UNITS[unit](where, CANVAS), "visibility": visibility}
    result = seen(batch, targets={"keypoints": Target("keypoints", unit=unit)})
    expected = UNITS[unit](plain["keypoints"], SIZE)
    torch.testing.assert_close(result["keypoints"], expected, atol=2e-5, rtol=1e-5)
    assert result["keypoints"].dtype == dtype
    assert torch.equal(result["visibility"], plain["visibility"])
    assert 0 < plain["visibility"].mean() < 1


def test_the_edges_of_the_image_are_0_and_1_or_minus_1_and_1():
    edges = torch.tensor([[-0.5, -0.5], [CANVAS[1] - 0.5, CANVAS[0] - 0.5], [(CANVAS[1] - 1) / 2, (CANVAS[0] - 1) / 2]])
    torch.testing.assert_close(to_pixels(torch.tensor([[0.0, 0], [1, 1], [0.5, 0.5]]), "unit", CANVAS), edges)
    torch.testing.assert_close(to_pixels(torch.tensor([[-1.0, -1], [1, 1], [0, 0]]), "signed", CANVAS), edges)


@pytest.mark.parametrize("unit", UNITS, ids=str)
@pytest.mark.parametrize("form", FORMATS)
def test_units_and_formats_are_undone(unit, form):
    where = torch.cat([points(), points() + 70], -1)
    back = to_pixels(from_pixels(where[..., :2], unit, CANVAS, torch.float64), unit, CANVAS)
    torch.testing.assert_close(back, where[..., :2], check_dtype=False, atol=1e-4, rtol=1e-5)
    if isinstance(unit, tuple) and isinstance(unit[0], tuple):
        return  # a negative scale turns boxes inside out
    there = box_from_pixels(where, unit, form, CANVAS, torch.float64)
    torch.testing.assert_close(box_to_pixels(there, unit, form, CANVAS), where, check_dtype=False, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("unit", ["pixels", "unit", "signed"])
@pytest.mark.parametrize("form", FORMATS)
def test_boxes_of_any_unit_and_format_move_as_pixels_do(unit, form):
    low = points(k=3) * 0.5
    high = low + 3 + 10 * torch.rand(6, 3, 2)
    plain = seen({"image": images(), "boxes": torch.cat([low, high], -1)})["boxes"]
    given = FORMATS[form](EDGES[unit](low, CANVAS), EDGES[unit](high, CANVAS))
    result = seen({"image": images(), "boxes": given}, targets={"boxes": Target("boxes", unit=unit, format=form)})["boxes"]
    expected = FORMATS[form](EDGES[unit](plain[..., :2], SIZE), EDGES[unit](plain[..., 2:], SIZE))
    torch.testing.assert_close(result, expected, atol=2e-5, rtol=1e-5)


def test_a_third_column_is_visibility_in_any_unit():
    where = torch.cat([UNITS["unit"](points(), CANVAS), torch.full((6, 4, 1), 2.0)], -1)
    result = seen({"image": images(), "keypoints": where}, targets={"keypoints": Target("keypoints", unit="unit")})["keypoints"]
    inside = ((result[..., :2] >= 0) & (result[..., :2] < 1)).all(-1)
    assert torch.equal(result[..., 2], torch.where(inside, 2.0, 0.0))


def test_losses_and_difficulties_see_the_users_unit():
    model, shown = torch.nn.Conv2d(3, 2, 3), []

    def loss_fn(output, batch):
        shown.append(batch["keypoints"])
        return output.flatten(1).mean(1) + batch["keypoints"].flatten(1).mean(1)

    batch = {"image": images(), "keypoints": UNITS["unit"](points(), CANVAS)}
    policy = Policy([adaug.Branch("turn", [Rotate(-10, 10, 2)], 0.5, adaug.learners.Paper(features=()))])
    augmenter = AdversarialAugmenter(policy, seed=0, targets={"keypoints": Target("keypoints", unit="unit")})
    augmenter.step(model, batch, loss_fn)
    assert all(float(value.min()) > -0.5 and float(value.max()) < 1.5 for value in shown)


def test_an_audit_leaves_out_what_left_the_frame_in_any_unit():
    batch = {"image": images(), "keypoints": UNITS["unit"](points(), CANVAS)}
    targets = {"keypoints": Target("keypoints", unit="unit")}
    report = adaug.audit(
        torch.nn.Identity(), [batch], lambda output, batch: torch.ones(len(output), 4), [Scale(0.5, 1.0, 2)], targets=targets,
        num_draws=0, num_pictures=0,
    )  # fmt: skip
    assert torch.from_numpy(report.scores).isfinite().all()


# ---- refusals


@pytest.mark.parametrize(
    ("values", "unit"),
    [
        (torch.rand(4, 3, 2), '"unit"'),
        (torch.rand(4, 3, 2) * 2 - 1, '"signed"'),
        ((torch.rand(4, 3, 2) * 38 - 100) / 50, r"\(offset, scale\)\), by which pixel = offset \+ scale \* value"),
    ],
    ids=["unit", "signed", "(k - 100) / 50"],
)
def test_points_that_cannot_be_pixels_are_refused(values, unit):
    batch, augmenter = {"image": images(4), "keypoints": values}, AdversarialAugmenter(Policy((), (Rotate(-9, 9, 2),)), seed=0)
    state = augmenter.state_dict()
    with pytest.raises(ValueError, match=rf"'keypoints' should be in pixels.*60 x 40.*unit={unit}"):
        augmenter.random(batch)
    with pytest.raises(ValueError, match="should be in pixels"):
        adaug.apply_view(batch, [])
    assert nets.same(augmenter.state_dict(), state)
    seen(batch, targets={"keypoints": Target("keypoints", unit="pixels")})  # who says so means it


@pytest.mark.parametrize("value", [0.0, -1.0, torch.nan, 1.0])
def test_marks_of_nobody_are_no_unit(value):
    seen({"image": images(4), "keypoints": torch.full((4, 3, 2), value)})


def test_boxes_inside_out_are_refused_with_the_formats():
    boxes = torch.tensor([30.0, 20, 4, 6]).expand(4, 2, 4)  # cx, cy, w, h
    with pytest.raises(ValueError, match=r"'boxes' should have x1 <= x2.*Found \[30.0, 20.0, 4.0, 6.0\].*format=.*cxcywh"):
        seen({"image": images(4), "boxes": boxes})
    seen({"image": images(4), "boxes": boxes}, targets={"boxes": Target("boxes", format="cxcywh")})
    with pytest.raises(ValueError, match="a width and a height of at least 0"):
        seen({"image": images(4), "boxes": -boxes}, targets={"boxes": Target("boxes", format="xywh")})
    with pytest.raises(ValueError, match=r"'boxes' should be in pixels.*unit=\"unit\""):
        seen({"image": images(4), "boxes": torch.tensor([0.1, 0.2, 0.4, 0.5]).expand(4, 2, 4)})


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("extent", [(0.0, 0.0), (8.0, 0.0), (0.0, 5.0)])
@pytest.mark.parametrize("at", [(20.0, 20.0), (0.0, 0.0), (-1.0, -1.0)])
def test_boxes_without_area_stay_without_area(form, extent, at):
    low = torch.tensor(at).expand(6, 2, 2)
    boxes = FORMATS[form](low, low + torch.tensor(extent))
    result = seen({"image": images(), "boxes": boxes}, targets={"boxes": Target("boxes", format=form)})["boxes"]
    if form == "xyxy":
        result = torch.cat([result[..., :2], result[..., 2:] - result[..., :2]], -1)
    assert not result[..., 2:].any()


NO_UNITS = ["pixel", "normalized", (1,), (0, 0), (0, (1, 0)), "ab", 3, (torch.nan, 1), (0, torch.nan), (0, torch.inf)]


@pytest.mark.parametrize("unit", NO_UNITS)
def test_a_unit_that_is_none_is_refused(unit):
    with pytest.raises(ValueError, match=r"`unit` of a Target should be one of pixels, unit, signed.*Found"):
        Target("keypoints", unit=unit)


@pytest.mark.parametrize(
    ("kind", "option"), [("mask", {"unit": "unit"}), ("keypoints", {"format": "xywh"}), ("keypoints", {"fill": 3.0})]
)
def test_what_a_kind_does_not_have_is_refused(kind, option):
    with pytest.raises(ValueError, match=rf"`{next(iter(option))}` should be given for .*Found it for {kind}"):
        Target(kind, **option)
    with pytest.raises(ValueError, match="`format` of a Target should be one of xyxy"):
        Target("boxes", format="yxyx")

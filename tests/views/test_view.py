"""Targets follow the pixels: blobs, discs, heat maps and boxes are drawn, moved, and found where they should be."""

import contextlib

import kornia
import pytest
import torch

from adaug import AdversarialAugmenter, Brightness, Flip, Policy, Rotate, Scale, Shear, Target, Translate
from adaug._batches.parse import parse
from adaug._runtime.geometry import centred
from adaug._runtime.random import Stream
from adaug._views.view import View
from adaug._views.warp import Grid, sampling_grid, swap_pairs, warp, warp_points
from adaug.keypoints import flip_heatmaps, flip_keypoints, render_heatmaps

pytestmark = pytest.mark.numeric

PAIRS = ((0, 2),)
EVERYTHING = (
    Flip(PAIRS), Scale(0.8, 1.25, 5), Rotate(-40, 40, 5), Translate(-0.05, 0.05, 3), Translate(-0.05, 0.05, 3, axis="y"),
    Shear(-10, 10, 3), Shear(-10, 10, 3, axis="y"),
)  # fmt: skip
POLICIES = {
    "nothing": (), "flip": (Flip(PAIRS, p=1.0),), "scale": (Scale(0.8, 1.25, 5),), "rotate": (Rotate(-40, 40, 5),),
    "translate x": (Translate(-0.1, 0.1, 3),), "translate y": (Translate(-0.1, 0.1, 3, axis="y"),),
    "shear x": (Shear(-20, 20, 3),), "shear y": (Shear(-20, 20, 3, axis="y"),), "everything": EVERYTHING,
}  # fmt: skip
RIGID = ("nothing", "flip", "rotate", "translate x", "translate y")  # these keep a Gaussian's width
FRAMES = [((64, 64), (64, 64)), ((72, 64), (72, 64)), ((97, 81), (64, 64)), ((80, 96), (63, 48)), ((65, 64), (64, 64))]

every_policy = pytest.mark.parametrize("common", POLICIES.values(), ids=POLICIES.keys())
every_frame = pytest.mark.parametrize(("canvas", "output"), FRAMES, ids=str)


def near_centre(canvas, n=6, k=3, within=6.0):
    """Keypoints [n, k, 2] that every view above keeps in its frame."""
    offset = (Stream(1).uniform(n, k, 2) - 0.5) * 2 * within
    return offset + torch.tensor([(canvas[1] - 1) / 2, (canvas[0] - 1) / 2])


def pixels(size):
    y, x = torch.meshgrid(torch.arange(size[0]), torch.arange(size[1]), indexing="ij")
    return torch.stack([x, y], -1).float()


def blobs(points, size, sigma=1.5):
    """One channel for each keypoint, with a Gaussian at it. [n, k, 2] -> [n, k, h, w]."""
    distance = (pixels(size) - points[:, :, None, None]).square().sum(-1)
    return torch.exp(-distance / (2 * sigma**2))


def discs(points, size, radius=6.0):
    return (pixels(size) - points[:, :, None, None]).norm(dim=-1) <= radius


def centroids(planes):
    """Centres of mass [n, k, 2] of [n, k, h, w], x then y."""
    mass = planes.float()[..., None]
    return (mass * pixels(planes.shape[-2:])).sum((2, 3)) / mass.sum((2, 3))


def unswapped(values, batch):
    """Channels in the order of before the flip: an image's channels are colours and stay, keypoints change names."""
    return torch.where(batch["flipped"].reshape(-1, *[1] * (values.ndim - 1)), values[:, [2, 1, 0]], values)


def seen(batch, common, output, targets: dict | None = None, seed=0):
    """A random view through the public door, with the flips found by replaying the same stream."""
    policy = Policy((), common)
    result = AdversarialAugmenter(policy, output_size=output, targets=targets, seed=seed).random(batch)
    magnitudes = policy.draw_random(len(batch["image"]), Stream(seed, 1, 0, 0))
    return {**result, "flipped": magnitudes.get("common.flip", torch.zeros(len(batch["image"]), dtype=torch.bool))}


# ---- keypoints, masks, heat maps, boxes


def test_geometry_is_as_exact_inside_autocast():
    """16 bits would put a keypoint up to a pixel beside its blob."""
    policy = Policy((), (Flip(PAIRS), Scale(0.8, 1.25, 5), Rotate(-40, 40, 5)))
    points = near_centre((256, 256), within=80.0) + 0.3
    batch = {"image": render_heatmaps(points, 256, 3.0), "keypoints": points}
    exact = AdversarialAugmenter(policy, seed=0).random(batch)
    with torch.autocast("cpu", torch.bfloat16):
        found = AdversarialAugmenter(policy, seed=0).random(batch)
    for name, value in exact.items():
        assert torch.equal(found[name], value), name


@pytest.mark.parametrize("size", [(5, 7), (64, 48), (1, 1)])
def test_a_grid_is_the_affine_grid(size):
    theta = torch.randn(3, 2, 3, generator=torch.Generator().manual_seed(0))
    grid = Grid(theta)
    expected = torch.nn.functional.affine_grid(theta, [3, 1, *size], align_corners=False)
    torch.testing.assert_close(grid.points(size), expected, atol=1e-6, rtol=1e-6)
    assert grid.points(size) is grid.points(size)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@every_frame
@every_policy
def test_keypoints_follow_the_pixels(common, canvas, output, dtype):
    points = near_centre(canvas)
    batch = {"image": blobs(points, canvas).to(dtype), "keypoints": points}
    result = seen(batch, common, output)
    assert result["image"].shape == (6, 3, *output)
    assert result["image"].dtype == dtype
    assert (centroids(result["image"]) - unswapped(result["keypoints"], result)).abs().max() < 0.05


@every_frame
@every_policy
def test_masks_follow_the_pixels_and_keep_their_values(common, canvas, output):
    points = near_centre(canvas)
    labels = (discs(points, canvas) * torch.tensor([1, 2, 4])[:, None, None]).sum(1)  # where discs overlap: their sum
    batch = {"image": blobs(points, canvas), "keypoints": points, "mask": labels}
    result = seen(batch, common, output)
    assert result["mask"].shape == (6, *output)
    assert result["mask"].dtype == torch.int64
    assert set(result["mask"].unique().tolist()) <= set(labels.unique().tolist())
    bits = torch.stack([(result["mask"] // bit) % 2 for bit in (1, 2, 4)], 1)
    assert (centroids(bits) - unswapped(result["keypoints"], result)).abs().max() < 0.75  # the nearest pixel: half of one away


@pytest.mark.parametrize("canvas", [32, 33, 34, 47])
def test_a_cropped_mask_takes_each_of_its_columns_once(canvas):
    """At an odd difference every output pixel lies between two of the canvas: rounding to even would double half of them."""
    columns = torch.arange(canvas).expand(1, canvas, canvas)
    result = seen({"image": torch.rand(1, 3, canvas, canvas), "mask": columns}, (), (32, 32))["mask"][0, 0]
    assert (result.diff() == 1).all()


@pytest.mark.parametrize(("canvas", "output"), [((64, 64), (64, 64)), ((96, 80), (64, 48)), ((68, 64), (64, 64))], ids=str)
@pytest.mark.parametrize("name", POLICIES)
def test_heatmaps_of_stride_4_follow_the_keypoints(name, canvas, output):
    points, stride = near_centre(canvas), 4
    maps = render_heatmaps(points, (canvas[0] // 4, canvas[1] // 4), 1.2, stride=stride)
    result = seen({"image": blobs(points, canvas), "keypoints": points, "heatmaps": maps}, POLICIES[name], output)
    assert result["heatmaps"].shape == (6, 3, output[0] // 4, output[1] // 4)
    if name in RIGID:
        expected = render_heatmaps(result["keypoints"], (output[0] // 4, output[1] // 4), 1.2, stride=stride)
        assert (result["heatmaps"] - expected).abs().max() < 0.17  # bilinear interpolation lowers a peak of sigma 1.2
    found = (centroids(result["heatmaps"]) + 0.5) * stride - 0.5
    assert (found - result["keypoints"]).abs().max() < 0.2  # pixels of the image, 0.05 of the heat map


@every_frame
@every_policy
def test_boxes_hold_their_moved_corners_and_their_pixels(common, canvas, output):
    points = near_centre(canvas)
    low, high = points - 4, points + torch.tensor([6.0, 3.0])
    boxes = torch.cat([low, high], -1) + 0.5  # edges, not centres
    filled = ((pixels(canvas) >= low[:, :, None, None]) & (pixels(canvas) <= high[:, :, None, None])).all(-1)
    x1, y1, x2, y2 = torch.cat([low, high], -1).unbind(-1)
    corners = torch.stack([x1, y1, x2, y1, x2, y2, x1, y2], -1).unflatten(-1, (4, 2))
    batch = {"image": filled.float(), "boxes": boxes, "keypoints": corners.flatten(1, 2)}
    flipless = tuple(Flip((), p=op.p) if isinstance(op, Flip) else op for op in common)
    result = seen(batch, flipless, output)
    moved = result["keypoints"].unflatten(1, (3, 4)) + 0.5
    frame = torch.tensor([output[1], output[0]])
    torch.testing.assert_close(result["boxes"][..., :2], moved.amin(2).clamp(min=0), atol=1e-3, rtol=0)
    torch.testing.assert_close(result["boxes"][..., 2:], moved.amax(2).minimum(frame), atol=1e-3, rtol=0)
    at = pixels(output)
    x1y1, x2y2 = result["boxes"][:, :, None, None].split(2, -1)
    outside = (at < x1y1 - 2) | (at > x2y2 + 2)  # bilinear interpolation reaches a pixel of the canvas further
    assert (result["image"] * outside.any(-1)).max() < 1e-3


def test_a_box_that_leaves_the_frame_stays_in_the_list_without_area():
    batch = {"image": torch.rand(1, 3, 32, 32), "boxes": torch.tensor([[[1.0, 1, 4, 4], [12, 12, 20, 20]]])}
    boxes = seen(batch, (Scale(3.9, 4.1, 2),), (32, 32))["boxes"]
    area = (boxes[..., 2:] - boxes[..., :2]).prod(-1)
    assert area[0, 0] == 0
    assert area[0, 1] > 64


def test_a_box_is_cut_to_the_frame_at_the_outer_edges_of_its_pixels():
    batch = {"image": torch.rand(1, 3, 32, 24), "boxes": torch.tensor([[[10.0, 10, 22, 14], [12, 14, 13, 30]]])}
    boxes = seen(batch, (Scale(3.9999, 4.0001, 2),), (32, 24))["boxes"]
    expected = torch.tensor([[[4.0, 0, 24, 8], [12, 8, 16, 32]]])
    torch.testing.assert_close(boxes, expected, atol=5e-3, rtol=0)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64, torch.bool, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("channels", [(), (2,)])
def test_masks_keep_their_dtype_and_number_of_dimensions(dtype, channels):
    mask = (torch.rand(2, *channels, 32, 32) * 250).round().to(dtype)
    result = seen({"image": torch.rand(2, 3, 32, 32), "mask": mask}, EVERYTHING[1:], (32, 32))["mask"]
    assert result.dtype == dtype
    assert result.shape == mask.shape
    assert set(result.flatten().tolist()) <= {*mask.flatten().tolist(), 0}


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
def test_outside_the_canvas_a_mask_has_its_fill(dtype):
    batch = {"image": torch.ones(2, 3, 32, 32), "mask": torch.full((2, 32, 32), 7, dtype=dtype)}
    result = seen(batch, (Scale(0.4, 0.5, 2),), (32, 32), {"mask": Target("mask", fill=255)})
    assert set(result["mask"].unique().tolist()) == {7, 255}
    assert ((result["mask"] == 255) != (result["image"][:, 0] < 0.5)).float().mean() < 0.01


def test_outside_the_canvas_an_image_has_its_fill():
    batch = {"image": torch.ones(1, 3, 32, 32)}
    image = seen(batch, (Scale(0.4, 0.5, 2),), (32, 32), {"image": Target("image", fill=0.25)})["image"]
    torch.testing.assert_close(image[..., 0, 0], torch.full((1, 3), 0.25))
    torch.testing.assert_close(image[..., 16, 16], torch.ones(1, 3))


FILLS = [-1e9, 255, 300, -3, 0.25, torch.nan, torch.inf, -torch.inf]
INTEGERS = [torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64]
FLOATS = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


def holds(dtype, fill):
    if dtype.is_floating_point:
        return fill != -1e9 or dtype != torch.float16
    least, most = (0, 1) if dtype == torch.bool else (torch.iinfo(dtype).min, torch.iinfo(dtype).max)
    return least <= fill <= most and fill == fill // 1


@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize("dtype", [*INTEGERS, *FLOATS], ids=str)
def test_a_fill_lies_outside_and_nowhere_else(dtype, fill):
    """Against the same view with no fill, and a view of ones, which says what is outside."""
    values = torch.rand(3, 2, 24, 24) * 100
    mask = (values if dtype.is_floating_point else values.round()).to(dtype)
    batch = {"image": torch.rand(3, 3, 24, 24), "mask": mask, "ones": torch.ones_like(mask)}
    views = (Scale(0.5, 0.7, 2), Rotate(-30, 30, 2))
    targets = {"mask": Target("mask", fill=fill), "ones": "mask"}
    if not holds(dtype, fill):
        with pytest.raises(ValueError, match=r"The fill of 'mask' should be a number that its dtype holds.*Found .*torch"):
            seen(batch, views, (24, 24), targets)
        return
    usual = seen(batch, views, (24, 24), {"ones": "mask"})
    result = seen(batch, views, (24, 24), targets)["mask"]
    inside = usual["ones"] == 1
    assert 0.1 < inside.float().mean() < 0.9
    assert torch.equal(result[inside], usual["mask"][inside])
    expected = torch.full_like(result, fill if dtype.is_floating_point else int(fill))
    torch.testing.assert_close(result[~inside], expected[~inside], rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize("kind", ["image", "heatmaps"])
def test_a_fill_between_pixels_touches_the_border_alone(kind, fill):
    batch = {"image": torch.rand(3, 3, 24, 24), "heatmaps": torch.rand(3, 3, 12, 12)}
    views = (Scale(0.5, 0.7, 2), Rotate(-30, 30, 2))
    usual, result = (seen(batch, views, (24, 24), targets)[kind] for targets in ({}, {kind: Target(kind, fill=fill)}))
    share = seen({**batch, kind: torch.ones_like(batch[kind])}, views, (24, 24))[kind]
    outside = share == 0
    inside = torch.nn.functional.max_pool2d(1 - share, 3, 1, 1) < 1e-5  # more than a pixel from the border
    assert 0.1 < inside.float().mean() < 0.9
    assert torch.equal(result[inside], usual[inside])
    torch.testing.assert_close(result[outside], torch.full_like(result, fill)[outside], rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("value", [2**24 + 1, 2**40 + 1, -(2**31)])
def test_large_integers_of_a_mask_are_kept(value):
    batch = {"image": torch.rand(1, 3, 16, 16), "mask": torch.full((1, 16, 16), value)}
    result = seen(batch, (Rotate(-30, 30, 2),), (16, 16), {"mask": Target("mask", fill=-7)})["mask"]
    assert set(result.unique().tolist()) == {value, -7}


@pytest.mark.parametrize("fill", ["255", None, [1]])
def test_a_fill_is_a_number(fill):
    with pytest.raises(TypeError, match=r"`fill` of a Target should be a number\. Found"):
        Target("mask", fill=fill)


def test_a_zoomed_out_view_of_a_larger_canvas_shows_the_surroundings():
    canvas = torch.ones(4, 3, 110, 110)
    out = (Scale(0.7, 0.75, 2), Rotate(-10, 10, 2))
    torch.testing.assert_close(seen({"image": canvas}, out, (64, 64))["image"], torch.ones(4, 3, 64, 64))
    assert seen({"image": canvas[..., :64, :64]}, out, (64, 64))["image"].min() == 0


def test_a_larger_canvas_without_operations_is_cropped_at_its_centre():
    image = torch.rand(2, 3, 40, 50)
    torch.testing.assert_close(seen({"image": image}, (), (32, 32))["image"], image[..., 4:36, 9:41], atol=1e-5, rtol=0)


# ---- visibility


@pytest.mark.parametrize("shape", [(2, 4), (2, 4, 1)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.int64, torch.bool])
def test_points_that_leave_the_frame_are_marked_and_stay(shape, dtype):
    points = torch.tensor([[16.0, 16], [1, 1], [15, 17], [31, 16]]).expand(2, 4, 2)
    visibility = torch.tensor([2, 2, 0, 1]).expand(2, 4).reshape(shape).to(dtype)
    batch = {"image": torch.rand(2, 3, 32, 32), "keypoints": points, "visibility": visibility}
    result = seen(batch, (Scale(3.9, 4.1, 2),), (32, 32))
    assert result["keypoints"].shape == points.shape
    assert result["visibility"].dtype == dtype
    assert torch.equal(result["visibility"], (visibility * torch.tensor([1, 0, 1, 0]).reshape(4, *shape[2:])).to(dtype))


def test_a_point_on_the_last_half_pixel_is_inside_and_beyond_it_is_not():
    points = torch.tensor([[[-0.49, 3.0], [-0.51, 3.0], [7.49, 3.0], [7.51, 3.0], [3.0, -0.51], [3.0, 7.49]]])
    batch = {"image": torch.rand(1, 1, 8, 8), "keypoints": points, "visibility": torch.ones(1, 6)}
    policy, flip = Policy((), (Flip((), p=1.0),)), Stream(0)
    parsed = parse(batch, None)
    result = parsed.apply(policy.view(policy.draw_random(1, flip), 1, (8, 8), (8, 8)), (8, 8)).to_user()
    assert result["visibility"].tolist() == [[1, 0, 1, 0, 0, 1]]


def test_a_third_column_is_visibility_and_moves_with_its_keypoint():
    points = torch.tensor([[[16.0, 16, 2], [1, 1, 1], [15, 17, 1]]]).expand(5, 3, 3)
    result = seen({"image": torch.rand(5, 3, 32, 32), "keypoints": points}, (Flip(PAIRS, p=1.0), Scale(3.9, 4.1, 2)), (32, 32))
    assert result["keypoints"].shape == (5, 3, 3)
    assert result["keypoints"][0, :, 2].tolist() == [1, 0, 2]


def test_a_keypoint_without_a_place_stays_unseen():
    points = torch.tensor([[[torch.nan, torch.nan], [16.0, 16.0]]])
    batch = {"image": torch.rand(1, 3, 32, 32), "keypoints": points, "visibility": torch.tensor([[0.0, 1.0]])}
    result = seen(batch, (Rotate(-30, 30, 3),), (32, 32))
    assert result["visibility"].tolist() == [[0, 1]]
    assert torch.isfinite(result["keypoints"][0, 1]).all()


def test_people_in_an_image_keep_their_own_visibility():
    points = torch.rand(2, 3, 4, 2) * 31
    batch = {"image": torch.rand(2, 3, 32, 32), "keypoints": points, "visibility": torch.ones(2, 3, 4)}
    result = seen(batch, (Flip(((0, 3),), p=1.0), Translate(0.3, 0.4, 2)), (32, 32))
    x = result["keypoints"][..., 0]
    assert torch.equal(result["visibility"] == 1, (x >= -0.5) & (x < 31.5))
    torch.testing.assert_close(result["keypoints"][..., [3, 1, 2, 0], 1], points[..., 1])


def test_two_sets_of_keypoints_keep_their_own_visibility():
    body, hand = torch.full((1, 2, 2), 16.0), torch.full((1, 2, 2), 1.0)
    batch = {"image": torch.rand(1, 3, 32, 32), "body": body, "hand": hand, "seen": torch.ones(1, 2), "held": torch.ones(1, 2)}
    targets = {"body": "keypoints", "hand": "keypoints", "seen": "visibility", "held": "visibility"}
    with contextlib.suppress(ValueError):  # to say that it cannot is as good
        result = seen(batch, (Scale(3.9, 4.1, 2),), (32, 32), targets)
        assert result["seen"].tolist() == [[1, 1]]
        assert result["held"].tolist() == [[0, 0]]


# ---- flips


def flipped_batch():
    points = near_centre((64, 60))
    return {
        "image": blobs(points, (64, 60)), "keypoints": points, "visibility": torch.arange(18.0).reshape(6, 3),
        "heatmaps": render_heatmaps(points, (16, 15), 1.5, stride=4), "mask": discs(points, (64, 60)).long().sum(1),
        "boxes": torch.cat([points - 3, points + 5], -1),
    }  # fmt: skip


def test_a_flip_mirrors_everything_and_exchanges_left_and_right():
    batch = flipped_batch()
    result = seen(batch, (Flip(PAIRS, p=1.0),), (64, 60))
    torch.testing.assert_close(result["image"], batch["image"].flip(-1), atol=1e-5, rtol=0)  # colours do not change places
    torch.testing.assert_close(result["keypoints"], flip_keypoints(batch["keypoints"], 60, PAIRS))
    torch.testing.assert_close(result["heatmaps"], flip_heatmaps(batch["heatmaps"], PAIRS), atol=1e-5, rtol=0)
    assert torch.equal(result["visibility"], batch["visibility"][:, [2, 1, 0]])
    assert torch.equal(result["mask"], batch["mask"].flip(-1))
    x1, y1, x2, y2 = batch["boxes"].unbind(-1)
    torch.testing.assert_close(result["boxes"], torch.stack([60 - x2, y1, 60 - x1, y2], -1))


def test_a_flip_is_an_involution():
    batch = flipped_batch()
    common = (Flip(PAIRS, p=1.0),)
    once = seen(batch, common, (64, 60))
    del once["flipped"]
    twice = seen(once, common, (64, 60))
    for key, value in batch.items():
        torch.testing.assert_close(twice[key], value, atol=2e-5, rtol=0)


def test_only_the_rows_that_were_drawn_are_flipped():
    batch = flipped_batch()
    result = seen(batch, (Flip(PAIRS),), (64, 60))
    assert 0 < result["flipped"].sum() < 6
    kept = ~result["flipped"]
    torch.testing.assert_close(result["keypoints"][kept], batch["keypoints"][kept])
    assert torch.equal(result["visibility"][kept], batch["visibility"][kept])
    torch.testing.assert_close(result["heatmaps"][kept], batch["heatmaps"][kept], atol=1e-5, rtol=0)


def test_swapping_without_pairs_costs_nothing():
    values = torch.rand(2, 3)
    assert swap_pairs(values, torch.tensor([True, False]), (), 1) is values


# ---- the warp itself


@every_frame
def test_the_warp_is_kornias(canvas, output):
    """kornia takes pixel matrices with align_corners=True: corner pixels are the ends of its normalised axis, so pixel
    (x, y) means what it means here. Compared everywhere: a canvas's border fades into zeros over one pixel in both."""
    policy = Policy((), EVERYTHING)
    view = policy.view(policy.draw_random(4, Stream(5)), 4, canvas, output)
    image = torch.rand(4, 2, *canvas)
    expected = kornia.geometry.warp_affine(image, view.matrix[:, :2], output, padding_mode="zeros", align_corners=True)
    found = warp(image, sampling_grid(view.matrix, canvas, output), output)
    torch.testing.assert_close(found, expected, atol=2e-4, rtol=0)


def test_points_move_as_kornias():
    matrix = torch.eye(3).expand(2, 3, 3) + torch.tensor([[0.1, 0.2, 3], [-0.3, 0, 4], [0, 0, 0]])
    points = torch.rand(2, 5, 2)
    torch.testing.assert_close(warp_points(points, matrix), kornia.geometry.transform_points(matrix, points))


@every_frame
def test_the_centre_of_the_canvas_goes_to_the_centre_of_the_output(canvas, output):
    matrix = centred(torch.diag_embed(torch.tensor([[2.0, 3.0, 1.0]])), canvas, output)
    centre = torch.tensor([[[(canvas[1] - 1) / 2, (canvas[0] - 1) / 2]]])
    torch.testing.assert_close(warp_points(centre, matrix), torch.tensor([[[(output[1] - 1) / 2, (output[0] - 1) / 2]]]))


def test_operations_compose_in_the_order_of_the_policy_after_the_flip():
    rotate, translate = Rotate(-90, 90, 2), Translate(-1, 1, 2)
    drawn = {"common.rotate": torch.tensor([90.0]), "common.translate_x": torch.tensor([0.25])}
    magnitudes = {"common.flip": torch.tensor([True]), **drawn}
    view = Policy((), (Flip(()), rotate, translate)).view(magnitudes, 1, (9, 9), (9, 9))
    # (8, 4), right of the centre -> mirrored to (0, 4) -> turned counter-clockwise to (4, 8) -> 2.25 to the right
    torch.testing.assert_close(warp_points(torch.tensor([[[8.0, 4.0]]]), view.matrix), torch.tensor([[[6.25, 8.0]]]))


# ---- what is left alone


def test_an_identity_view_gives_back_the_same_images_and_equal_labels():
    batch = flipped_batch()
    result = AdversarialAugmenter(Policy(())).random(batch)
    assert result["image"] is batch["image"]
    assert all(torch.equal(result[key], value) for key, value in batch.items())
    parsed = parse(batch, None)
    assert parsed.apply(View(), (64, 60)).image is batch["image"]


def test_colour_alone_moves_nothing():
    batch = flipped_batch()
    result = AdversarialAugmenter(Policy((), (Brightness(0.5, 0.9, 2),))).random(batch)
    assert all(torch.equal(result[key], value) for key, value in batch.items() if key != "image")
    assert result["image"].mean() < batch["image"].mean()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_every_target_keeps_its_dtype(dtype):
    floating = {key: value.to(dtype) for key, value in flipped_batch().items() if key != "mask"}
    result = seen({**floating, "mask": flipped_batch()["mask"]}, EVERYTHING, (48, 40))
    assert all(result[key].dtype == dtype for key in floating)


def test_the_matrix_of_the_view_maps_the_keypoints_that_came_out():
    """What was drawn is returned and can be replayed."""
    policy = Policy((), EVERYTHING)
    points = near_centre((64, 60))
    view = policy.view(policy.draw_random(6, Stream(3)), 6, (64, 60), (64, 60))
    parsed = parse({"image": blobs(points, (64, 60)), "keypoints": points}, None)
    one, other = parsed.apply(view, (64, 60)), parsed.apply(view, (64, 60))
    assert torch.equal(one.image, other.image)
    replayed = swap_pairs(warp_points(points, view.matrix), view.flipped, PAIRS, 1)
    torch.testing.assert_close(one.entries["keypoints"], replayed)


def test_rows_of_a_view_are_views_of_the_rows():
    policy, (batch, index) = Policy((), (*EVERYTHING, Brightness(0.5, 0.9, 2))), (flipped_batch(), torch.tensor([4, 1]))
    view = policy.view(policy.draw_random(6, Stream(3)), 6, (64, 60), (64, 60))
    parsed = parse(batch, None)
    whole, part = parsed.apply(view, (64, 60)).select(index), parsed.select(index).apply(view.select(index), (64, 60))
    for key in batch:
        torch.testing.assert_close(whole.entries[key], part.entries[key], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("side", [256, 1024, 2048])
def test_a_mask_cut_half_a_pixel_off_keeps_every_pixel_once(side):
    canvas = side + 1  # its centre lies between two pixels of the view
    matrix = centred(torch.eye(3)[None], (1, canvas), (1, side))
    mask = torch.arange(canvas, dtype=torch.float32)[None, None, None]
    found = warp(mask, sampling_grid(matrix, (1, canvas), (1, side)), (1, side), mode="nearest").flatten()
    assert found.diff().unique().tolist() == [1]


@pytest.mark.parametrize("size", [2**70, (8, 2**17), 0, (8, -1)])
def test_a_view_size_that_cannot_be_is_refused(size):
    with pytest.raises(ValueError, match=r"`output_size` should be .*two positive integers of at most 65536"):
        AdversarialAugmenter(output_size=size)

"""Maps fit their image: their sizes tell the stride, or it is declared, or they are refused."""

from functools import partial

import hypothesis.strategies as st
import networks as nets
import numpy as np
import pytest
import reference
import torch
from hypothesis import given

import adaug
from adaug import Augment, Flip, Policy, Rotate, Scale, Target
from adaug._batches.parse import parse

QUARTER = [(Rotate(-90, 90, 9), 90.0)]
MOVE = [(Rotate(-90, 90, 9), 25.0), (Scale(0.5, 2, 9), 1.2)]
SIDES = st.integers(2, 5)


def image(height, width, n=2):
    return torch.rand(n, 3, height, width)


@given(SIDES, SIDES, st.integers(1, 6), st.integers(1, 5), st.sampled_from(["mask", "heatmaps"]))
def test_maps_move_as_their_image_does_at_any_stride_that_divides(rows, columns, stride, count, kind):
    size, side = (4 * rows, 4 * columns), (4 * rows * stride, 4 * columns * stride)
    maps = torch.randint(0, 9, (2, count, *size)) if kind == "mask" else torch.rand(2, count, *size)
    made, matrix = nets.view_of({"image": image(*side), "maps": maps}, MOVE, targets={"maps": kind})
    assert made["maps"].shape == maps.shape
    order = 0 if kind == "mask" else 1
    for plane, found in zip(maps[0].double().numpy(), made["maps"][0].double().numpy(), strict=True):
        expected, sure = reference.warped(plane, reference.at_stride(matrix, stride), size, order)
        np.testing.assert_allclose(found[sure], expected[sure], atol=1e-3)


@given(st.integers(13, 40), st.integers(13, 40), st.integers(2, 6), st.sampled_from(["ceil", "floor"]))
def test_a_declared_stride_need_not_divide(height, width, stride, rounds):
    size = tuple(int(getattr(np, rounds)(side / stride)) for side in (height, width))
    maps = torch.rand(2, 2, *size)
    batch = {"image": image(height, width), "heatmaps": maps}
    made, matrix = nets.view_of(batch, MOVE, targets={"heatmaps": Target("heatmaps", stride=stride)})
    expected, _ = reference.warped(maps[0, 0].double().numpy(), reference.at_stride(matrix, stride), size, 1)
    np.testing.assert_allclose(made["heatmaps"][0, 0].numpy(), expected, atol=1e-3)


@given(st.integers(8, 40), st.integers(8, 40), st.integers(5, 40), st.integers(5, 40), st.sampled_from(["mask", "heatmaps"]))
def test_sizes_that_tell_no_stride_are_refused(height, width, h, w, kind):
    tells = h * width == w * height and (height % h == 0 or h % height == 0)
    batch = {"image": image(height, width), kind: torch.zeros(2, 2, h, w)}
    if tells:
        assert parse(batch, None)
    else:
        with pytest.raises(ValueError, match=rf"'{kind}'.* should have last sizes.*Found \(2, 2, {h}, {w}\); "):
            parse(batch, None)


@pytest.mark.parametrize(
    ("shape", "advice"),
    [((2, 16, 24), "swapped; use .transpose"), ((2, 24, 16, 5), "last; use .movedim"), ((2, 24, 16, 1), "last; use .movedim"),
     ((2, 12, 8, 5), "last; use .movedim"), ((2, 5, 16, 24), "swapped"), ((2, 7, 7), "stride=")],
)  # fmt: skip
def test_layouts_are_refused_and_their_neighbours_succeed(shape, advice):
    with pytest.raises(ValueError, match=advice):
        parse({"image": image(24, 16), "mask": torch.zeros(shape)}, None)
    for right in ((2, 24, 16), (2, 5, 24, 16), (2, 1, 24, 16), (2, 5, 12, 8)):
        assert parse({"image": image(24, 16), "mask": torch.zeros(right)}, None)


def test_sizes_that_may_be_channels_last_are_asked_for():
    maps = {"image": image(64, 32), "heatmaps": torch.rand(2, 64, 32, 16)}
    with pytest.raises(ValueError, match="should say which of its sizes are those of the image"):
        parse(maps, None)
    assert parse(maps, {"heatmaps": Target("heatmaps", stride=2)})


@pytest.mark.parametrize("layout", ["[H, W, 1] beside CHW", "[W, H]", "[H, W, N]"])
def test_a_mark_of_one_pixel_is_not_lost_in_a_sample(layout):
    mask = torch.zeros(24, 16, dtype=torch.uint8)
    mask[5, 3] = 1
    wrong = {"[H, W, 1] beside CHW": mask[..., None], "[W, H]": mask.T, "[H, W, N]": mask[..., None].repeat(1, 1, 3)}[layout]
    turn = Augment(Policy([adaug.Branch("turn", [Rotate(89.9, 90.1, 2)], 1.0)]), seed=0)
    with pytest.raises(ValueError, match=r"'mask'.*should have last sizes"):
        turn({"image": torch.rand(3, 24, 16), "mask": wrong})
    square = torch.zeros(24, 24, dtype=torch.uint8)
    square[5, 3] = 1
    assert turn({"image": torch.rand(3, 24, 24), "mask": square})["mask"].sum() == 1
    last = Augment(turn.policy, seed=0, channels="last")
    assert last({"image": np.ones((24, 24, 3), np.float32), "mask": square.numpy()[..., None]})["mask"].sum() == 1


@pytest.mark.parametrize("bands", range(2, 14))
def test_many_bands_come_first_or_are_refused(bands):
    flip = Policy((), (Flip(p=1.0),))
    last = np.random.default_rng(0).random((30, 24, bands), np.float32)
    with pytest.raises(ValueError, match="come last"):
        Augment(flip, seed=0)(last)
    with pytest.raises(ValueError, match="come last"):
        parse({"image": torch.from_numpy(last)[None]}, None)
    first = {"image": torch.from_numpy(last).permute(2, 0, 1)[None]}
    torch.testing.assert_close(adaug.AdversarialAugmenter(flip).random(first)["image"], first["image"].flip(-1))
    np.testing.assert_allclose(Augment(flip, seed=0, channels="last")(last), last[:, ::-1], atol=1e-5)
    odd = {"image": torch.rand(2, 30, 24, bands)}
    assert parse(odd, {"image": Target("image", format="bands")}).size == (24, bands)


@pytest.mark.parametrize(("stride", "output", "fits"), [(4, (24, 32), True), (4, (26, 32), False), (2, (26, 30), True)])
def test_a_view_is_a_multiple_of_the_stride(stride, output, fits):
    batch = {"image": image(48, 48), "heatmaps": torch.rand(2, 1, 48 // stride, 48 // stride)}
    if fits:
        made = adaug.apply_view(batch, [], output_size=output)
        assert made["heatmaps"].shape[-2:] == (output[0] // stride, output[1] // stride)
    else:
        with pytest.raises(ValueError, match=r"multiple of the stride of 'heatmaps', 4 pixels. Found \(26, 32\)"):
            adaug.apply_view(batch, [], output_size=output)
        targets = {"heatmaps": Target("heatmaps", stride=stride)}
        assert adaug.apply_view(batch, [], output_size=output, targets=targets)["heatmaps"].shape[-2:] == (7, 8)


@pytest.mark.parametrize("size", [(96, 33), (33, 33), (96, 64), (50, 70)])
def test_perfect_maps_have_no_error_at_any_size(size):
    points = torch.tensor([[[5.0, 9.0], [25.0, 28.0], [14.0, 20.0]]])
    maps = adaug.keypoints.render_heatmaps(points, (-(-size[0] // 4), -(-size[1] // 4)), 1.5, stride=4)
    batch = {"image": torch.rand(1, 3, *size), "keypoints": points}
    error = partial(adaug.keypoints.normalized_error, stride=4)(maps, batch)
    assert float(error) < 1e-3
    if size[0] % 4 or size[1] % 4:
        with pytest.raises(ValueError, match=r"stride of heat maps should divide the image, or be given.*stride=4"):
            adaug.keypoints.normalized_error(maps, batch)
    else:
        assert float(adaug.keypoints.normalized_error(maps, batch)) < 1e-3

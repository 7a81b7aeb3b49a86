"""Heat maps and back, flips, the size-free error, PCK."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from adaug.keypoints import PCK, decode_heatmaps, flip_heatmaps, flip_keypoints, normalized_error, render_heatmaps

pytestmark = pytest.mark.numeric

PAIRS = ((0, 2), (1, 3))


@given(
    st.sampled_from([1, 2, 4]),
    st.integers(4, 64),
    st.integers(4, 64),
    st.floats(0.7, 3.0),
    st.integers(0, 10**6),
    st.booleans(),
)
def test_decoding_inverts_rendering(stride, height, width, sigma, seed, at_border):
    torch.manual_seed(seed)
    fraction = torch.rand(2, 5, 2)
    if at_border:  # within a pixel of a corner
        fraction = fraction.round() + (fraction - 0.5) / (stride * max(height, width))
        fraction = fraction.clamp(0, 1)
    points = fraction * torch.tensor([width, height]) * stride - 0.5
    decoded, scores = decode_heatmaps(render_heatmaps(points, (height, width), sigma, stride=stride), stride=stride)
    assert (decoded - points).abs().max() < 0.1
    assert ((scores > 0) & (scores <= 1)).all()


def test_a_peak_has_height_1_at_its_pixel_and_width_sigma():
    maps = render_heatmaps(torch.tensor([[[7.5, 3.5]]]), (8, 8), 1.5, stride=2)  # (3.5, 1.5) in heat-map pixels
    assert maps.shape == (1, 1, 8, 8)
    torch.testing.assert_close(maps[0, 0, 1, 3].item(), np.exp(-(0.5**2 + 0.5**2) / (2 * 1.5**2)).item())
    assert render_heatmaps(torch.tensor([[[4.0, 2.0]]]), 8)[0, 0, 2, 4] == 1


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 1)])
def test_invisible_joints_get_an_empty_map(shape):
    visibility = torch.tensor([[1, 0, 2], [0, 0, 1]])
    maps = render_heatmaps(torch.full((2, 3, 2), 5.0), 12, visibility=visibility.reshape(shape))
    assert torch.equal(maps.flatten(2).any(2), visibility > 0)


def test_a_joint_without_a_place_and_without_visibility_gets_an_empty_map():
    points = torch.tensor([[[torch.nan, torch.nan], [3.0, 3.0]]])
    maps = render_heatmaps(points, 8, visibility=torch.tensor([[0, 1]]))
    assert torch.isfinite(maps).all()
    assert maps[0, 0].sum() == 0


@pytest.mark.parametrize("value", [0.0, -1.0, 3.0])
def test_flat_maps_decode_to_something_finite(value):
    points, scores = decode_heatmaps(torch.full((1, 2, 6, 5), value))
    assert torch.isfinite(points).all()
    assert (scores == value).all()


def test_decoding_keeps_gradients_and_dtype_out_of_it():
    maps = render_heatmaps(torch.full((1, 2, 2), 5.0), 12).bfloat16().requires_grad_()
    points, scores = decode_heatmaps(maps)
    assert not points.requires_grad
    assert points.dtype == scores.dtype == torch.bfloat16


@pytest.mark.parametrize("columns", [2, 3])
def test_flipping_keypoints_twice_gives_them_back_and_swaps_pairs_once(columns):
    points = torch.rand(2, 5, columns) * 20
    flipped = flip_keypoints(points, 32, PAIRS)
    torch.testing.assert_close(flipped[:, 0, 0], 31 - points[:, 2, 0])
    assert torch.equal(flipped[:, 4, 1:], points[:, 4, 1:])
    torch.testing.assert_close(flip_keypoints(flipped, 32, PAIRS), points)


def test_flipped_heatmaps_are_heatmaps_of_flipped_keypoints():
    points = torch.rand(2, 5, 2) * 28 + 1
    maps = render_heatmaps(points, (8, 10), stride=4)
    expected = render_heatmaps(flip_keypoints(points, 40, PAIRS), (8, 10), stride=4)
    torch.testing.assert_close(flip_heatmaps(maps, PAIRS), expected, atol=1e-5, rtol=0)
    assert torch.equal(flip_heatmaps(flip_heatmaps(maps, PAIRS), PAIRS), maps)


def person():
    truth = torch.rand(4, 6, 2) * 40 + 10
    predicted = truth + torch.randn(4, 6, 2) * 4
    visibility = (torch.rand(4, 6) < 0.7).float()
    visibility[:, :2] = 1
    return predicted, {"image": torch.zeros(4, 3, 64, 64), "keypoints": truth, "visibility": visibility}


@pytest.mark.parametrize("factor", [0.5, 2.0, 4.0])
def test_normalized_error_does_not_depend_on_the_size_of_person_and_image(factor):
    predicted, batch = person()
    scaled = {
        "image": torch.zeros(4, 3, int(64 * factor), int(64 * factor)),
        "keypoints": (batch["keypoints"] + 0.5) * factor - 0.5,
        "visibility": batch["visibility"],
    }
    torch.testing.assert_close(normalized_error((predicted + 0.5) * factor - 0.5, scaled), normalized_error(predicted, batch))


def test_normalized_error_of_a_person_alone_is_the_same_in_a_larger_image():
    predicted, batch = person()
    moved = {**batch, "image": torch.zeros(4, 3, 200, 200), "keypoints": batch["keypoints"] + 30}
    torch.testing.assert_close(normalized_error(predicted + 30, moved), normalized_error(predicted, batch))


def test_normalized_error_by_hand():
    truth = torch.tensor([[[0.0, 0.0], [20.0, 10.0], [99.0, 99.0]]])
    batch = {"image": torch.zeros(1, 3, 64, 64), "keypoints": truth, "visibility": torch.tensor([[1, 2, 0]])}
    predicted = torch.tensor([[[3.0, 4.0], [20.0, 50.0], [0.0, 0.0]]])  # 5 / 20 and 40 / 20, clipped to 0.5
    torch.testing.assert_close(normalized_error(predicted, batch), torch.tensor([(0.25 + 0.5) / 2], dtype=torch.float32))
    for threshold, missed in ((0.2, 1.0), (0.3, 0.5), (2.1, 0.0)):
        torch.testing.assert_close(
            normalized_error(predicted, batch, threshold=threshold), torch.tensor([missed], dtype=torch.float32)
        )


def test_normalized_error_reads_heatmaps_and_the_last_stack():
    _, batch = person()
    maps = render_heatmaps(batch["keypoints"], 16, stride=4)
    assert normalized_error([torch.zeros_like(maps), maps], batch).max() < 0.01


def test_normalized_error_without_labelled_joints_is_nan():
    predicted, batch = person()
    batch["visibility"][0] = 0
    assert torch.equal(normalized_error(predicted, batch).isnan(), torch.tensor([True, False, False, False]))


@pytest.mark.parametrize(
    ("output", "truth", "match"),
    [
        ((2, 4, 8, 8), (2, 3, 4, 2), r"keypoints of one person.*Found \(2, 3, 4, 2\); crop"),
        ((2, 5, 8, 8), (2, 4, 2), r"heat maps \[2, 4, h, w\] or keypoints \[2, 4, 2\].*Found \(2, 5, 8, 8\)"),
        ((2, 8), (2, 4, 2), r"Found \(2, 8\)"),
    ],
    ids=["several people", "other joints", "flat"],
)
def test_normalized_error_names_shapes_that_do_not_fit(output, truth, match):
    with pytest.raises(ValueError, match=match):
        normalized_error(torch.rand(output), {"image": torch.rand(2, 3, 32, 32), "keypoints": torch.rand(truth)})


def test_normalized_error_takes_visibility_from_a_third_column():
    predicted, batch = person()
    inline = {
        "image": batch["image"],
        "keypoints": torch.cat([batch["keypoints"], batch["visibility"][..., None]], -1),
    }
    torch.testing.assert_close(normalized_error(predicted, inline), normalized_error(predicted, batch))


def reference_pck(predicted, truth, sizes, threshold, visibility):
    correct = labelled = 0
    for p, t, size, seen in zip(predicted, truth, sizes, visibility, strict=True):
        for j in range(len(t)):
            if seen[j] > 0:
                labelled += 1
                correct += np.hypot(*(p[j] - t[j])) <= threshold * size
    return correct / labelled


@pytest.mark.parametrize("threshold", [0.1, 0.2, 0.5])
@pytest.mark.parametrize("normalizer", ["torso", "number", "function", "sizes"])
@pytest.mark.parametrize("partly", [True, False])
def test_pck_agrees_with_ten_lines_of_numpy(threshold, normalizer, partly):
    predicted, batch = person()
    truth, visibility = batch["keypoints"], batch["visibility"] if partly else torch.ones(4, 6)
    torso = (truth[:, 0] - truth[:, 3]).norm(dim=1)
    given_sizes = torch.tensor([5.0, 10.0, 20.0, 40.0])
    argument, sizes = {
        "torso": ((0, 3), torso),
        "number": (12.5, torch.full((4,), 12.5)),
        "function": (lambda points: points[..., 0].amax(1), truth[..., 0].amax(1)),
        "sizes": (None, given_sizes),
    }[normalizer]
    metric = PCK(threshold, argument)
    for rows in (slice(0, 1), slice(1, 4)):
        metric.update(
            predicted[rows], truth[rows], visibility[rows] if partly else None, given_sizes[rows] if argument is None else None
        )
    expected = reference_pck(predicted.numpy(), truth.numpy(), sizes.numpy(), threshold, visibility.numpy())
    assert metric.compute().item() == pytest.approx(expected)


def test_pck_per_joint_and_reset():
    metric = PCK(0.5, 10.0)
    truth = torch.zeros(2, 3, 2)
    predicted = torch.tensor([[[0.0, 0], [9, 0], [0, 0]], [[0.0, 4], [0, 0], [0, 0]]])
    metric.update(predicted, truth, torch.tensor([[1, 1, 0], [1, 1, 0]]))
    per_joint = metric.per_joint()
    assert per_joint[:2].tolist() == [1.0, 0.5]
    assert per_joint[2].isnan()
    assert metric.compute() == 0.75
    metric.reset()
    assert metric.compute().isnan()
    metric.update(predicted, truth)
    assert metric.compute() == pytest.approx(5 / 6)


@pytest.mark.parametrize(
    "call",
    [
        lambda: PCK(0.0),
        lambda: PCK(-1.0, 3.0),
        lambda: PCK(0.5).update(torch.zeros(1, 2, 2), torch.zeros(1, 2, 2)),
        lambda: PCK(0.5, 1.0).update(torch.zeros(1, 2, 2), torch.zeros(1, 3, 2)),
    ],
    ids=["zero", "negative", "no sizes", "shapes"],
)
def test_pck_refuses_what_it_cannot_count(call):
    with pytest.raises(ValueError, match=r"should .* Found"):
        call()


def test_integer_keypoints_are_rendered_as_others_are():
    points = torch.tensor([[[3, 4]]])
    torch.testing.assert_close(render_heatmaps(points, 8), render_heatmaps(points.float(), 8))

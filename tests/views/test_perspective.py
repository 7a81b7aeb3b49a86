"""A matrix whose last row is not 0 0 1 is divided by w: for pixels, points, boxes and masks alike."""

from dataclasses import KW_ONLY, dataclass

import hypothesis.strategies as st
import networks as nets
import numpy as np
import pytest
import reference
import torch
from hypothesis import given

import adaug
from adaug import Flip, Policy, Rotate, Scale, Target
from adaug._views.view import View
from adaug.operations import Geometric

SIZE = (40, 32)


@dataclass(frozen=True)
class Tilt(Geometric):
    """Tilts the image about an axis; `times` scales the whole matrix, which moves nothing."""

    _: KW_ONLY
    along: int = 0
    times: float = 1.0

    def matrix(self, magnitude, size):
        made = torch.eye(3, device=magnitude.device, dtype=magnitude.dtype).repeat(len(magnitude), 1, 1)
        made[:, 2, self.along] = magnitude / max(size)
        return made * self.times


TILTS = st.tuples(
    st.floats(-0.7, 0.7), st.floats(-0.7, 0.7), st.sampled_from([1.0, 2.0, -0.5]), st.floats(-40, 40), st.floats(0.7, 1.4)
).map(
    lambda v: [
        (Tilt(-1, 1, 4, times=v[2]), v[0]),
        (Rotate(-90, 90, 9), v[3]),
        (Tilt(-1, 1, 4, along=1), v[1]),
        (Scale(0.5, 2, 9), v[4]),
    ]
)


@given(TILTS, st.integers(0, 99))
def test_pixels_points_boxes_and_masks_are_divided(views, seed):
    noise = torch.Generator().manual_seed(seed)
    image = torch.rand(2, 1, *SIZE, generator=noise)
    points = torch.rand(2, 6, 2, generator=noise) * torch.tensor([SIZE[1], SIZE[0]])
    low = points * 0.7
    batch = {
        "image": image, "keypoints": points, "visibility": torch.ones(2, 6),
        "mask": torch.randint(0, 5, (2, *SIZE), generator=noise),
        "boxes": torch.cat([low, low + 6], -1), "heatmaps": torch.rand(2, 1, 20, 16, generator=noise),
        "flow": torch.rand(2, 2, 20, 16, generator=noise) - 0.5, "density": torch.rand(2, *SIZE, generator=noise),
    }  # fmt: skip
    made, matrix = nets.view_of(batch, views, targets={"flow": "vectors", "density": "density"})
    places = reference.points(matrix, points[0].double().numpy())
    np.testing.assert_allclose(made["keypoints"][0].numpy(), places, atol=5e-3)
    border = np.abs(places + 0.5).min() < 1e-2 or np.abs(places + 0.5 - np.array([SIZE[1], SIZE[0]])).min() < 1e-2
    assert border or np.array_equal(made["visibility"][0].numpy() == 1, reference.visible(places, SIZE))
    np.testing.assert_allclose(
        made["boxes"][0].numpy(), reference.boxes(matrix, batch["boxes"][0].double().numpy(), SIZE), atol=5e-3
    )
    expected, _ = reference.warped(image[0, 0].double().numpy(), matrix, SIZE, 1)
    np.testing.assert_allclose(made["image"][0, 0].numpy(), expected, atol=5e-3)
    expected, sure = reference.warped(batch["mask"][0].double().numpy(), matrix, SIZE, 0)
    assert (made["mask"][0].numpy() == expected)[sure].all()
    expected, _ = reference.warped(batch["heatmaps"][0, 0].double().numpy(), reference.at_stride(matrix, 2), (20, 16), 1)
    np.testing.assert_allclose(made["heatmaps"][0, 0].numpy(), expected, atol=5e-3)
    expected = reference.vectors(batch["flow"][0].double().numpy(), matrix, (20, 16), 2, kept=False)
    np.testing.assert_allclose(made["flow"][0].numpy(), expected, atol=2e-2)
    least, most = reference.stays(batch["density"][0].double().numpy(), matrix, SIZE, 1)
    assert least - 1e-2 <= float(made["density"][0].sum()) <= most + 1e-2


def test_what_lies_behind_the_observer_is_gone():
    batch = {
        "image": torch.ones(1, 1, 32, 32), "keypoints": torch.tensor([[[2.0, 16.0], [28.0, 16.0]]]),
        "visibility": torch.ones(1, 2),
        "boxes": torch.tensor([[[0.0, 8, 6, 24], [24, 8, 31, 24], [0, 0, 32, 32]]]),
    }  # fmt: skip
    made = adaug.apply_view(batch, [(Tilt(-4, 4, 4), 4.0)])  # divided by 0 at x = 7.5
    assert made["visibility"].tolist() == [[0, 1]]
    assert made["image"].isfinite().all()
    assert made["boxes"].isfinite().all()
    area = (made["boxes"][..., 2:] - made["boxes"][..., :2]).prod(-1)[0]
    assert (area > 0).tolist() == [False, True, True]
    x = made["boxes"][0, 2]
    assert float(x[0]) == 0  # its left part reaches the frame
    assert made["keypoints"].isfinite().all()


def test_views_of_a_perspective_are_replayed_selected_and_drawn():
    batch = {"image": torch.rand(4, 3, *SIZE), "keypoints": torch.rand(4, 3, 2) * 30}
    policy = Policy([adaug.Branch("tilt", [Tilt(-0.6, 0.6, 5)], 0.5, "running")], [Flip(())])
    augmenter = adaug.AdversarialAugmenter(policy, seed=0)
    made = augmenter.draw(batch)
    view = augmenter.view
    assert view.perspective
    again = adaug.apply_view(batch, view)
    assert all(torch.equal(again[name], made[name]) for name in made)
    own = View(matrix=view.matrix, canvas=SIZE, size=SIZE)  # nobody says that it is one
    torch.testing.assert_close(adaug.apply_view(batch, own)["image"], made["image"])
    one = adaug.apply_view({name: value[1:2] for name, value in batch.items()}, view.select(torch.tensor([1])))
    torch.testing.assert_close(one["keypoints"][0], made["keypoints"][1], atol=1e-4, rtol=0)


@pytest.mark.parametrize("views", [[(Rotate(-30, 30, 3), 20.0)], [(Scale(0.5, 2, 3), 1.3)], []], ids=["turn", "scale", "none"])
def test_usual_views_divide_nothing(views):
    view = adaug.apply.view_of(adaug._batches.parse.parse({"image": torch.rand(2, 3, *SIZE)}, None), views, SIZE)
    assert view.perspective is False


def test_boxes_and_points_of_any_unit_are_divided():
    batch = {
        "image": torch.rand(1, 1, 32, 32),
        "keypoints": torch.tensor([[[20.0, 10.0]]]),
        "boxes": torch.tensor([[[20.5, 10.5, 24, 14]]]),
    }
    plain = adaug.apply_view(batch, [(Tilt(-1, 1, 4), 0.5)])
    unit = {**batch, "keypoints": (batch["keypoints"] + 0.5) / 32, "boxes": batch["boxes"] / 32}
    targets = {"keypoints": Target("keypoints", unit="unit"), "boxes": Target("boxes", unit="unit")}
    made = adaug.apply_view(unit, [(Tilt(-1, 1, 4), 0.5)], targets=targets)
    torch.testing.assert_close(made["keypoints"], (plain["keypoints"] + 0.5) / 32)
    torch.testing.assert_close(made["boxes"], plain["boxes"] / 32)


@pytest.mark.parametrize("seed", range(20))
def test_boxes_that_go_behind_the_observer_hold_what_is_seen_of_them(seed):
    """Their box in the frame is that of many points inside them which are seen."""
    noise = np.random.default_rng(seed)
    low = noise.random((6, 2)) * np.array([SIZE[1], SIZE[0]]) * 0.8
    edges = np.concatenate([low, low + 4 + noise.random((6, 2)) * 20], -1)
    batch = {"image": torch.rand(1, 1, *SIZE), "boxes": torch.from_numpy(edges)[None]}
    tilts = [(Tilt(-9, 9, 4), float(noise.uniform(2, 4))), (Tilt(-9, 9, 4, along=1), float(noise.uniform(-2, 2)))]
    made, matrix = nets.view_of(batch, tilts)
    for box, found in zip(edges, made["boxes"][0].numpy(), strict=True):
        steps = np.linspace(0, 1, 400)
        inside = box[:2] - 0.5 + np.stack(np.meshgrid(steps, steps), -1).reshape(-1, 2) * (box[2:] - box[:2])
        seen = reference.points(matrix, inside[reference.depth(matrix, inside) > 1e-4]) + 0.5
        seen = seen[((seen >= 0) & (seen <= np.array([SIZE[1], SIZE[0]]))).all(-1)]
        if len(seen) > 50:
            assert (found[:2] <= seen.min(0) + 0.1).all()
            assert (found[2:] >= seen.max(0) - 0.1).all()


@dataclass(frozen=True)
class Pan(Geometric):
    """A turn of the camera about both axes by as many 1/1000 per pixel: two numbers a row, so [n, 2]."""

    pans: float = 1.0

    def draw(self, chosen, stream):
        return torch.stack([super().draw(chosen, stream), stream.uniform(len(chosen))], 1)

    def draw_random(self, n, stream):
        return torch.stack([super().draw_random(n, stream), stream.uniform(n)], 1)

    def membership(self, magnitude):
        return super().membership(magnitude[:, 0])

    def matrix(self, magnitude, size):
        matrix = torch.eye(3).repeat(len(magnitude), 1, 1)
        matrix[:, 2, :2] = magnitude * self.pans / 1000
        return matrix


@pytest.mark.parametrize("pans", [0.0, 1.0])
def test_magnitudes_of_several_numbers_are_tried_as_they_are_drawn(pans):
    policy = Policy([adaug.Branch("pan", [Pan(-2, 2, 3, pans)], share=1.0)])
    _, view = adaug.Augment(policy, seed=0)({"image": torch.rand(4, 3, 16, 16)}, view=True)
    assert view.perspective is (pans > 0)

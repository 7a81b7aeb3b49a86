"""A third column of keypoints is a visibility only if it can be one, and "not labelled" stays so in every view."""

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

import adaug
from adaug import AdversarialAugmenter, Policy, Rotate, Scale, Target, Translate

N, SIDE = 4, 32
VIEWS = st.lists(
    st.sampled_from([(Rotate(-90, 90, 9), 40.0), (Scale(0.3, 3, 9), 2.9), (Translate(-1, 1, 9), 0.6)]),
    min_size=1,
    max_size=3,
    unique_by=str,
)
FLAGS = [-1, 0, 1, 2]


@given(VIEWS, st.lists(st.sampled_from(FLAGS), min_size=6, max_size=6), st.sampled_from(["third", "[B, K]", "[B, K, 1]"]),
       st.sampled_from([torch.float32, torch.float64, torch.int64, torch.int8]))  # fmt: skip
def test_what_is_not_labelled_stays_so_in_every_view(views, flags, form, dtype):
    points = torch.rand(N, 6, 2) * SIDE
    visibility = torch.tensor(flags).expand(N, 6)
    batch = {"image": torch.rand(N, 3, SIDE, SIDE), "keypoints": points}
    if form == "third":
        batch["keypoints"] = torch.cat([points, visibility[..., None]], -1)
    else:
        batch["visibility"] = visibility.to(dtype) if form == "[B, K]" else visibility[..., None].to(dtype)
    made = adaug.apply_view(batch, views)
    places = made["keypoints"][..., :2]
    inside = ((places >= -0.5) & (places < SIDE - 0.5)).all(-1)
    found = (made["keypoints"][..., 2] if form == "third" else made["visibility"].reshape(N, 6)).long()
    assert torch.equal(found, torch.where(inside | (visibility < 1), visibility, 0))


def test_maps_that_nobody_labelled_stay_unlabelled():
    maps = adaug.keypoints.render_heatmaps(torch.tensor([[[3.0, 3], [16, 16], [3, 3]]]), SIDE)
    batch = {"image": torch.rand(1, 3, SIDE, SIDE), "heatmaps": maps, "visibility": torch.tensor([[1, 2, -1]])}
    assert adaug.apply_view(batch, [(Scale(0.3, 3, 9), 2.5)])["visibility"].tolist() == [[0, 2, -1]]


@pytest.mark.parametrize("value", [torch.nan, -0.3, -2.0, 3.0, 1.5, 7.25, 40.0, torch.inf, -torch.inf], ids=str)
def test_what_cannot_be_a_visibility_is_declared_or_refused(value):
    points = torch.cat([torch.rand(N, 5, 2) * SIDE, torch.ones(N, 5, 1)], -1)
    points[1, 2, 2] = value
    batch = {"image": torch.rand(N, 3, SIDE, SIDE), "keypoints": points}
    policy = Policy((), (Scale(2.9, 3.0, 2),))
    with pytest.raises(ValueError, match=r"third column of 'keypoints' should be a visibility.*Found .*format=\"xyz\""):
        AdversarialAugmenter(policy, seed=0).random(batch)
    depth = AdversarialAugmenter(policy, seed=0, targets={"keypoints": Target("keypoints", format="xyz")}).random(batch)
    assert torch.equal(depth["keypoints"][..., 2].nan_to_num(9), points[..., 2].nan_to_num(9))  # depth stays as it is
    seen = AdversarialAugmenter(policy, seed=0, targets={"keypoints": Target("keypoints", format="xyv")}).random(batch)
    assert (seen["keypoints"][..., 2] == 0).any()


def test_confidences_are_visibilities():
    points = torch.cat([torch.rand(N, 5, 2) * SIDE, torch.rand(N, 5, 1)], -1)
    made = adaug.apply_view({"image": torch.rand(N, 3, SIDE, SIDE), "keypoints": points}, [(Scale(0.5, 2, 5), 1.9)])[
        "keypoints"
    ]
    inside = ((made[..., :2] >= -0.5) & (made[..., :2] < SIDE - 0.5)).all(-1)
    assert torch.equal(made[..., 2], torch.where(inside, points[..., 2], 0))


def test_depth_counts_for_no_visibility():
    points = torch.cat([torch.rand(N, 5, 2) * SIDE, torch.full((N, 5, 1), -3.0)], -1)
    policy = Policy([adaug.Branch("turn", [Rotate(-30, 30, 3)], 1.0, "running")])
    augmenter = AdversarialAugmenter(policy, seed=0, targets={"keypoints": Target("keypoints", format="xyz")})
    augmenter.draw({"image": torch.rand(N, 3, SIDE, SIDE), "keypoints": points})
    augmenter.observe(torch.rand(N, 5, SIDE, SIDE))
    assert augmenter.difficulty_table().measure.startswith("the error of the heat maps' peaks")
    assert all(value == value for value in augmenter.difficulty_table().columns["turn.rotate"]["difficulty"])

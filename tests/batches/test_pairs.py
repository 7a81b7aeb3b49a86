"""Pairs belong to an entry: each has its own, or none, and those of a flip belong to one set of keypoints."""

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

import adaug
from adaug import AdversarialAugmenter, Augment, Flip, Policy, Target

N, SIDE = 3, 24
PAIRS = st.permutations(range(6)).flatmap(
    lambda order: st.integers(0, 3).map(lambda k: [tuple(order[2 * i : 2 * i + 2]) for i in range(k)])
)


def swapped(count, pairs):
    order = list(range(count))
    for left, right in pairs:
        order[left], order[right] = right, left
    return order


def flipped(batch, pairs, **targets):
    policy = Policy((), (Flip(pairs, p=1.0),))
    return AdversarialAugmenter(policy, seed=0, targets=targets).random({"image": torch.rand(N, 3, SIDE, SIDE), **batch})


@given(
    PAIRS,
    PAIRS,
    st.sampled_from(["keypoints", "heatmaps", "mask", "vectors", "density", "visibility", "ids", "label ids", "one-hot"]),
)
def test_an_entry_has_its_own_pairs(own, of_flip, what):
    body = torch.rand(N, 6, 2) * (SIDE - 1)
    order = swapped(6, own)
    value, kind = {
        "keypoints": (torch.rand(N, 6, 2) * SIDE, "keypoints"), "heatmaps": (torch.rand(N, 6, SIDE, SIDE), "heatmaps"),
        "mask": (torch.randint(0, 9, (N, 6, SIDE, SIDE)), "mask"), "vectors": (torch.rand(N, 12, SIDE, SIDE), "vectors"),
        "density": (torch.rand(N, 6, SIDE, SIDE), "density"), "visibility": (torch.randint(0, 3, (N, 6)), "visibility"),
        "ids": (torch.randint(0, 6, (N, SIDE, SIDE)), "mask"), "label ids": (torch.randint(0, 6, (N, 4)), "label"),
        "one-hot": (torch.eye(6)[torch.randint(0, 6, (N,))], "label"),
    }[what]  # fmt: skip
    batch = {"keypoints": body, "it": value}
    made = flipped(batch, of_flip, it=Target(kind, pairs=own))
    if kind == "keypoints":
        expected = value[:, order] * torch.tensor([-1.0, 1]) + torch.tensor([SIDE - 1.0, 0])
    elif what in ("ids", "label ids"):
        expected = torch.tensor(order)[value]
        expected = expected.flip(-1) if what == "ids" else expected
    elif what == "vectors":
        expected = (value.unflatten(1, (6, 2))[:, order].flip(-1) * torch.tensor([-1.0, 1])[:, None, None]).flatten(1, 2)
    else:
        expected = value[:, order].flip(-1) if value.ndim == 4 else value[:, order]
    torch.testing.assert_close(made["it"], expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(made["keypoints"][..., 1], body[:, swapped(6, of_flip), 1])


def test_one_list_for_two_sets_is_refused():
    batch = {"keypoints": torch.rand(N, 6, 2) * SIDE, "polygon": torch.rand(N, 20, 2) * SIDE}
    with pytest.raises(ValueError, match=r"one set of keypoints. Found 'keypoints', 'polygon'.*pairs=\(\)"):
        flipped(batch, [(0, 1)], polygon="keypoints")
    for pairs, target in (((), Target("keypoints")), ([(0, 1)], Target("keypoints", pairs=()))):
        made = flipped(batch, pairs, polygon=target)
        torch.testing.assert_close(made["polygon"][..., 1], batch["polygon"][..., 1])


def test_part_masks_beside_a_skeleton_are_asked_for():
    batch = {"keypoints": torch.rand(N, 6, 2) * SIDE, "mask": torch.randint(0, 2, (N, 6, SIDE, SIDE))}
    with pytest.raises(
        ValueError, match=r"'mask', of kind mask, should say what changes places.*pairs=\[\(0, 1\)\].*pairs=\(\)"
    ):
        flipped(batch, [(0, 1)])
    assert torch.equal(flipped(batch, [(0, 1)], mask=Target("mask", pairs=()))["mask"], batch["mask"].flip(-1))
    moved = flipped(batch, [(0, 1)], mask=Target("mask", pairs=[(0, 1)]))["mask"]
    assert torch.equal(moved, batch["mask"][:, [1, 0, 2, 3, 4, 5]].flip(-1))
    people = {"keypoints": torch.rand(N, 4, 6, 2) * SIDE, "mask": torch.randint(0, 2, (N, 4, SIDE, SIDE))}
    assert torch.equal(flipped(people, [(0, 1)])["mask"], people["mask"].flip(-1))  # one for each person


def test_a_visibility_follows_the_pairs_of_its_keypoints():
    batch = {"keypoints": torch.rand(N, 3, 2) * SIDE, "visibility": torch.tensor([[0, 1, 2]] * N)}
    made = flipped(batch, None, keypoints=Target("keypoints", pairs=[(0, 2)]))
    assert made["visibility"].tolist() == [[2, 1, 0]] * N


@pytest.mark.parametrize("label", [3, torch.tensor(3), torch.tensor([3, 0, 4])])
def test_labels_of_a_sample_change_sides(label):
    augment = Augment(Policy((), (Flip(p=1.0),)), seed=0, targets={"side": Target("label", pairs=[(3, 4)])})
    made = augment({"image": torch.rand(3, SIDE, SIDE), "side": label})["side"]
    expected = 4 if isinstance(label, int) else torch.where(label == 3, 4, torch.where(label == 4, 3, label))
    assert type(made) is type(label)
    assert made == expected if isinstance(label, int) else torch.equal(made, expected)


@pytest.mark.parametrize(
    ("kind", "shape"),
    [("mask", (N, 6, SIDE, SIDE)), ("keypoints", (N, 6, 2)), ("heatmaps", (N, 6, 6, 6)), ("vectors", (N, 12, 6, 6))],
)
def test_own_pairs_beyond_an_entry_are_refused(kind, shape):
    with pytest.raises(ValueError, match=r"`pairs` of 'it' should be from 0 to 5. Found 6"):
        flipped({"it": torch.rand(shape) * SIDE}, (), it=Target(kind, pairs=[(0, 6)]))
    flipped({"it": torch.rand(shape) * SIDE}, (), it=Target(kind, pairs=[(0, 5)]))
    with pytest.raises(ValueError, match="each number once"):
        Target(kind, pairs=[(0, 1), (1, 2)])
    with pytest.raises(ValueError, match="`pairs` should be given for"):
        Target("boxes", pairs=())


def test_replayed_views_keep_the_pairs_of_entries():
    batch = {"image": torch.rand(N, 3, SIDE, SIDE), "mask": torch.randint(0, 3, (N, SIDE, SIDE))}
    targets = {"mask": Target("mask", pairs=[(1, 2)])}
    made, view = Augment(Policy((), (Flip(p=0.5),)), seed=0, targets=targets)(batch, view=True)
    assert torch.equal(adaug.apply_view(batch, view, targets=targets)["mask"], made["mask"])


@pytest.mark.parametrize("classes", [2, 4])
def test_integer_labels_of_zeros_and_ones_say_what_they_are(classes):
    """[B, C] of 0 and 1 may be one-hot or class numbers; every other dtype or value tells."""
    columns = torch.nn.functional.one_hot(torch.tensor([0, 1, classes - 1]), classes)
    ids = torch.tensor([[0, 1], [1, 1], [0, 0]])
    with pytest.raises(ValueError, match='format="one-hot"'):
        flipped({"label": columns}, None, label=Target("label", pairs=[(0, 1)]))
    swapped = columns[:, [1, 0, *range(2, classes)]]
    for dtype in (torch.int64, torch.uint8, torch.float32, torch.bool):
        target = Target("label", pairs=[(0, 1)], format="one-hot")
        made = flipped({"label": columns.to(dtype)}, None, label=target)["label"]
        assert torch.equal(made, swapped.to(dtype))
    made = flipped({"label": ids}, None, label=Target("label", pairs=[(0, 1)], format="ids"))["label"]
    assert torch.equal(made, 1 - ids)
    made = flipped({"label": ids + 2}, None, label=Target("label", pairs=[(2, 3)]))["label"]
    assert torch.equal(made, 3 - ids)
    with pytest.raises(ValueError, match="should be from 0 to"):
        flipped({"label": columns}, None, label=Target("label", pairs=[(0, classes)], format="one-hot"))

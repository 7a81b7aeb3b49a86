"""Objects of all images in one tensor [N, ...] are moved with the image that each names, never by row number."""

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given

import adaug
from adaug import AdversarialAugmenter, Augment, Branch, Flip, OccludeImage, Policy, Rotate, Scale, Target
from adaug._batches.parse import parse

B, SIDE = 4, 24
POLICY = Policy([Branch("turn", [Rotate(-80, 80, 9), Scale(0.6, 1.5, 5)], 1.0, "running")], [Flip([(0, 1)])])
INDEX = st.lists(st.integers(0, B - 1), min_size=0, max_size=9)


def objects(n, kind):
    low = torch.rand(n, 2) * 15
    return {
        "boxes": torch.cat([low, low + 6], -1), "keypoints": torch.rand(n, 3, 2) * SIDE,
        "mask": torch.randint(0, 5, (n, SIDE, SIDE)),
        "heatmaps": torch.rand(n, 3, 6, 6), "vectors": torch.rand(n, 2, 6, 6),
        "density": torch.rand(n, 6, 6), "label": torch.arange(n) % 5,
    }[kind]  # fmt: skip


KINDS = ["boxes", "keypoints", "mask", "heatmaps", "vectors", "density", "label"]


@given(INDEX, st.sampled_from(KINDS), st.sampled_from(["[N]", "[N, 1]", "float", "array", "nested"]), st.integers(0, 99))
def test_objects_move_with_their_image(index, kind, form, seed):
    value, image = objects(len(index), kind), torch.rand(B, 3, SIDE, SIDE)
    numbers = torch.tensor(index, dtype=torch.long)
    given_ = {
        "[N]": numbers,
        "[N, 1]": numbers[:, None],
        "float": numbers.float(),
        "array": numbers.numpy(),
        "nested": {"at": numbers},
    }[form]
    key = ("of", "at") if form == "nested" else "of"
    pairs = [(0, 1)] if kind in ("keypoints", "heatmaps", "label") else None
    targets = {"it": Target(kind, rows=key, pairs=pairs)} | ({} if form == "nested" else {"of": "other"})
    made, view = Augment(POLICY, seed=seed, targets=targets)({"image": image, "it": value, "of": given_}, view=True)
    assert made["it"].shape == value.shape
    alone = {"it": Target(kind, pairs=pairs)}
    for i, row in enumerate(index):
        one = value[i : i + 1, None] if kind == "boxes" else value[i : i + 1]
        single = adaug.apply_view({"image": image[row : row + 1], "it": one}, view.select(torch.tensor([row])), targets=alone)
        torch.testing.assert_close(made["it"][i], single["it"][0, 0] if kind == "boxes" else single["it"][0])


@given(INDEX, st.lists(st.integers(0, B - 1), min_size=1, max_size=6))
def test_objects_are_picked_and_joined_by_image(index, rows):
    numbers = torch.tensor(index, dtype=torch.long)
    batch = {
        "image": torch.rand(B, 3, SIDE, SIDE),
        "boxes": objects(len(index), "boxes"),
        "of": numbers,
        "which": torch.arange(len(index)),
    }
    targets = {"boxes": Target("boxes", rows="of"), "which": Target("label", rows="of")}
    parsed = parse(batch, targets)
    chosen = parsed.select(torch.tensor(rows))
    expected = [(j, i) for j, row in enumerate(rows) for i, image in enumerate(index) if image == row]
    assert list(zip(chosen.entries["of"].tolist(), chosen.entries["which"].tolist(), strict=True)) == expected
    joined = parsed.joined(chosen, chosen)
    both = expected + [(j + len(rows), i) for j, i in expected]
    assert list(zip(joined.entries["of"].tolist(), joined.entries["which"].tolist(), strict=True)) == both
    assert torch.equal(joined.entries["boxes"], batch["boxes"][[i for _, i in both]] if both else batch["boxes"][:0])


@pytest.mark.parametrize("n", [B, B + 3, 0])
@pytest.mark.parametrize("name", ["batch_idx", "image_index", "img_idx"])
def test_without_rows_objects_are_refused(n, name):
    numbers = torch.zeros(n, dtype=torch.long)
    for kind in ("boxes", "keypoints", "mask", "label"):
        batch = {"image": torch.rand(B, 3, SIDE, SIDE), kind: objects(n, kind), name: numbers}
        if kind == "label" and n == B:
            continue  # one number for each row, which stays as it is
        with pytest.raises(ValueError, match=rf"'{kind}'.*rows="):
            AdversarialAugmenter(POLICY, seed=0).random(batch)
        made = Augment(
            POLICY, seed=0, targets={kind: Target(kind, rows=name, pairs=() if kind in ("keypoints", "mask") else None)}
        )(batch)
        assert made[kind].shape == batch[kind].shape
    one_each = {"image": torch.rand(B, 3, SIDE, SIDE), "keypoints": objects(B, "keypoints"), name: torch.arange(B)}
    assert AdversarialAugmenter(Policy((), (Rotate(20, 40, 2),)), seed=0).random(one_each)


def test_learners_with_passes_of_their_own_see_the_objects_of_their_rows():
    shown = []

    def loss_fn(output, batch):
        assert len(batch["boxes"]) == len(batch["of"]) == len(batch["number"])
        shown.append((len(output), batch["of"].max().item()))
        sums = torch.zeros(len(output)).index_add(0, batch["of"], batch["boxes"].sum(1))
        return output.mean((1, 2, 3)) + 0 * sums

    policy = Policy(
        [
            Branch("turn", [Rotate(-30, 30, 3)], 0.25, adaug.learners.Paper(features=())),
            Branch("hide", [OccludeImage()], 0.25, False),
        ]
    )
    targets = {"boxes": Target("boxes", rows="of"), "number": Target("label", rows="of")}
    batch = {"image": torch.rand(B, 3, SIDE, SIDE), "boxes": objects(8, "boxes"), "of": torch.tensor([3, 3, 0, 1, 2, 0, 1, 2])}
    batch["number"] = torch.arange(8)
    augmenter, model = AdversarialAugmenter(policy, seed=0, targets=targets), torch.nn.Conv2d(3, 2, 3)
    for _ in range(3):
        result = augmenter.step(model, batch, loss_fn)
    assert torch.equal(result.batch["number"], batch["number"])
    assert all(most < rows for rows, most in shown)
    assert len({rows for rows, _ in shown}) > 1


@pytest.mark.parametrize(("index", "match"), [
    (torch.tensor([0, 1, B]), r"'of' should name images of the batch, from 0 to 3. Found 0 to 4"),
    (torch.tensor([0, -1, 2]), "Found -1 to 2"), (["a", "b", "c"], r"'of' should hold the image of each object"),
    (torch.zeros(3, 2), r"\[N\] integers. Found \(3, 2\)"), (torch.tensor([0.5, 1, 2]), r"\[N\] integers"),
    (torch.tensor([True, False, True]), r"\[N\] integers"), (torch.tensor([0, 1]), "2 rows, one for each object"),
])  # fmt: skip
def test_images_that_are_none_are_refused(index, match):
    batch = {"image": torch.rand(B, 3, SIDE, SIDE), "boxes": objects(3, "boxes"), "of": index}
    with pytest.raises((ValueError, TypeError), match=match):
        adaug.apply_view(batch, [(Rotate(-9, 9, 2), 5.0)], targets={"boxes": Target("boxes", rows="of"), "of": "other"})
    right = {**batch, "of": np.array([0, 3, 3])}
    adaug.apply_view(right, [(Rotate(-9, 9, 2), 5.0)], targets={"boxes": Target("boxes", rows="of"), "of": "other"})


def test_rows_name_an_entry():
    batch = {"image": torch.rand(B, 3, SIDE, SIDE), "boxes": objects(3, "boxes"), "of": torch.zeros(3).long()}
    with pytest.raises(ValueError, match=r"should name entries of the batch. Found 'off'.*'of'"):
        adaug.apply_view(batch, [], targets={"boxes": Target("boxes", rows="off"), "of": "other"})


def test_a_measure_of_one_person_an_image_leaves_flat_objects_out():
    batch = {"image": torch.rand(B, 3, SIDE, SIDE), "keypoints": objects(B, "keypoints"), "of": torch.tensor([1, 1, 0, 2])}
    targets = {"keypoints": Target("keypoints", rows="of"), "of": "other"}
    augmenter, model = AdversarialAugmenter(POLICY, seed=0, targets=targets), torch.nn.Conv2d(3, 3, 3, padding=1)
    augmenter.step(model, batch, lambda output, batch: output.mean((1, 2, 3)))
    assert augmenter.difficulty_table().measure == "the loss"
    report = adaug.audit(model, [batch], lambda output, batch: output.mean((1, 2, 3)), [Rotate(-9, 9, 2)], targets=targets)
    assert report.scores.shape[0] == B

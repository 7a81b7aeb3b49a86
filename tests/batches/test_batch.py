"""A user's batch: its structure survives, what is unclear is refused, nothing is changed in place."""

import types
from collections import OrderedDict, UserDict, defaultdict, namedtuple
from collections.abc import MutableMapping

import networks as nets
import numpy as np
import pytest
import torch

from adaug import AdversarialAugmenter, Brightness, Flip, Policy, Rotate, Scale, Target
from adaug._batches.kinds import KINDS
from adaug._batches.parse import parse

pytestmark = pytest.mark.numeric

Pair = namedtuple("Pair", ["picture", "points"])
TURN = Policy((), (Rotate(20, 40, 2),))


def full(n=4, **more):
    """A batch with every kind."""
    return {
        "image": torch.rand(n, 3, 16, 16), "keypoints": torch.rand(n, 5, 2) * 15, "visibility": torch.ones(n, 5),
        "heatmaps": torch.rand(n, 5, 4, 4), "mask": torch.randint(3, (n, 16, 16)),
        "boxes": torch.tensor([2.0, 3, 9, 8]).expand(n, 2, 4), "label": torch.arange(n), "id": [f"row {i}" for i in range(n)],
        **more,
    }  # fmt: skip


def turned(batch, policy=TURN, **options):
    return AdversarialAugmenter(policy, seed=0, **options).random(batch)


# ---- structure


@pytest.mark.parametrize(
    "kind", [dict, OrderedDict, UserDict, types.MappingProxyType, lambda entries: defaultdict(list, entries)],
    ids=["dict", "OrderedDict", "UserDict", "MappingProxyType", "defaultdict"],
)  # fmt: skip
def test_mappings_keep_their_type_and_order(kind):
    batch = kind(full())
    result = turned(batch)
    assert type(result) is type(batch)
    assert list(result) == list(batch)
    assert not torch.equal(result["image"], batch["image"])
    assert not torch.equal(result["keypoints"], batch["keypoints"])


@pytest.mark.parametrize("kind", [tuple, list, lambda values: Pair(*values)], ids=["tuple", "list", "namedtuple"])
def test_sequences_keep_their_type_and_take_targets_by_position(kind):
    batch = kind((torch.rand(4, 3, 16, 16), torch.rand(4, 5, 2) * 15))
    result = turned(batch, targets={1: "keypoints"})
    assert type(result) is type(batch)
    assert len(result) == 2
    torch.testing.assert_close(result[1], turned({"image": batch[0], "keypoints": batch[1]})["keypoints"])


def test_targets_name_keys_that_are_not_the_usual_ones():
    batch = full()
    renamed = {"x": batch["image"], "kps": batch["keypoints"], "ok": batch["visibility"], "id": batch["id"]}
    result = turned(renamed, targets={"x": "image", "kps": Target("keypoints"), "ok": "visibility"})
    torch.testing.assert_close(result["kps"], turned(batch)["keypoints"])
    assert torch.equal(result["ok"], turned(batch)["visibility"])


@pytest.mark.parametrize("name", ["images", "img", "pixel_values"])
def test_usual_names_of_an_image_are_known(name):
    assert not torch.equal(turned({name: (image := torch.rand(2, 3, 16, 16))})[name], image)


def test_targets_override_the_usual_names():
    batch = {"image": torch.rand(2, 3, 16, 16), "keypoints": torch.rand(2, 7)}
    assert torch.equal(turned(batch, targets={"keypoints": "other"})["keypoints"], batch["keypoints"])


def test_image_and_integer_label_make_a_classification_batch():
    batch = (torch.rand(4, 3, 16, 16), torch.arange(4))
    assert torch.equal(turned(batch)[1], batch[1])


def test_labels_and_others_are_carried_along_unchanged():
    extra = {"meta": {"nested": [1, 2]}, "name": ["a"] * 4, "weight": torch.rand(4), "path": "folder"}
    batch = full(**extra)
    result = turned(batch)
    assert all(result[key] is batch[key] for key in ("id", "meta", "name", "path"))
    assert all(torch.equal(result[key], batch[key]) for key in ("label", "weight"))


@pytest.mark.parametrize(
    "policy", [TURN, Policy((), (Flip(((0, 1),), p=1.0), Scale(0.5, 2, 3), Brightness(0.5, 1.5, 2)))], ids=["turn", "all"]
)  # fmt: skip
def test_the_batch_is_never_modified(policy):
    batch = full()
    before = {key: value.clone() if isinstance(value, torch.Tensor) else list(value) for key, value in batch.items()}
    result = turned(batch, policy, output_size=12)
    for key, value in before.items():
        assert torch.equal(batch[key], value) if isinstance(value, torch.Tensor) else batch[key] == value
    result["id"] = None
    assert batch["id"] is not None


def test_a_shorter_batch_of_rows_is_the_same_rows():
    batch = full(extra=np.arange(4), pairs=[(i, i) for i in range(4)])
    index = torch.tensor([2, 0])
    chosen = parse(batch, {"extra": "label", "pairs": "other"}).select(index).to_user()
    assert chosen["label"].tolist() == [2, 0]
    assert chosen["id"] == ["row 2", "row 0"]
    assert chosen["pairs"] == [(2, 2), (0, 0)]
    assert list(chosen["extra"]) == [2, 0]
    assert torch.equal(chosen["image"], batch["image"][index])


def test_rows_reach_into_nested_entries():
    chosen = (
        parse(full(meta={"head_size": torch.arange(4), "names": list("abcd")}), None).select(torch.tensor([2, 0])).to_user()
    )
    assert chosen["meta"]["head_size"].tolist() == [2, 0]
    assert chosen["meta"]["names"] == ["c", "a"]


def test_a_namedtuple_that_is_as_long_as_the_batch_survives():
    meta = Pair(torch.arange(2), "source")
    chosen = parse({"image": torch.rand(2, 3, 8, 8), "meta": meta}, None).select(torch.tensor([1])).to_user()
    assert isinstance(chosen["meta"], Pair)


# ---- refusals


def refused(batch, error, match, **options):
    augmenter = AdversarialAugmenter(TURN, seed=0, **options)
    before = augmenter.state_dict()
    with pytest.raises(error, match=match):
        augmenter.random(batch)
    assert nets.same(augmenter.state_dict(), before)


@pytest.mark.parametrize(
    "value",
    [torch.rand(4, 6), np.ones((4, 2)), [torch.rand(3), torch.rand(2)] * 2, {"inner": torch.rand(4)}, torch.tensor(1.0)],
    ids=["tensor", "array", "list", "mapping", "scalar"],
)  # fmt: skip
def test_numbers_of_unknown_kind_are_named(value):
    refused(full(mystery=value), ValueError, r"should have a kind.*'mystery'.*targets=")


def test_a_float_at_a_position_is_of_unknown_kind():
    refused((torch.rand(4, 3, 8, 8), torch.rand(4, 10)), ValueError, r"should have a kind.*Found 1 ")


def test_text_of_unknown_kind_is_carried():
    assert turned(full(remark=["a"] * 4))["remark"] == ["a"] * 4


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"image": torch.zeros(4, 3, 8, 8, dtype=torch.int16)}, TypeError, r"floating point.*int16.*/ 255"),
        ({"image": torch.rand(0, 3, 8, 8)}, ValueError, "at least one row.*empty"),
        ({"image": torch.rand(3, 8, 8)}, ValueError, r"\[B, C, H, W\].*\(3, 8, 8\)"),
        ({"image": np.ones((4, 3, 8, 8), np.float32)}, TypeError, "tensor.*ndarray"),
        ({"keypoints": torch.rand(3, 5, 2)}, ValueError, r"'keypoints'.*4 rows.*\(3, 5, 2\)"),
        ({"keypoints": torch.rand(4, 11)}, ValueError, r"'keypoints'.*\(4, 11\)"),
        ({"keypoints": torch.rand(4, 5, 4)}, ValueError, r"'keypoints'.*2 or 3"),
        ({"keypoints": np.ones((4, 5, 2))}, TypeError, "'keypoints'.*ndarray"),
        ({"keypoints": torch.ones(4, 5, 2).long()}, TypeError, r"'keypoints'.*floating.*\.float\(\)"),
        ({"keypoints": torch.rand(4, 5, 2, device="meta")}, ValueError, "'keypoints'.*device.*cpu.*meta"),
        ({"visibility": torch.ones(4, 6)}, ValueError, r"(?i)visibility.*\(4, 5\).*\(4, 6\)"),
        ({"visibility": torch.ones(2, 10)}, ValueError, "'visibility'.*4 rows"),
        ({"heatmaps": torch.rand(2, 5, 4, 4)}, ValueError, "'heatmaps'.*4 rows"),
        ({"mask": torch.ones(4)}, ValueError, "'mask'.*3 or 4 dimensions"),
        ({"boxes": torch.rand(4, 2, 5)}, ValueError, "'boxes'.*4"),
        ({"label": torch.arange(3)}, ValueError, "'label'.*4 images"),
        ({"label": torch.tensor(3)}, ValueError, "'label'.*4 images"),
    ],
    ids=lambda value: "" if not isinstance(value, dict) else next(iter(value)),
)  # fmt: skip
def test_what_does_not_fit_its_kind_is_named(change, error, match):
    refused({**full(), **change}, error, match)


def test_labels_may_live_on_another_device_but_pixels_may_not():
    refused(full(mask=torch.ones(4, 16, 16, device="meta")), ValueError, "'mask'.*device.*cpu.*meta")


@pytest.mark.parametrize("batch", [None, torch.rand(4, 3, 8, 8), "text", 3])
def test_a_batch_is_a_mapping_or_a_sequence(batch):
    refused(batch, TypeError, "mapping or a tuple")


@pytest.mark.parametrize("batch", [{}, {"label": torch.arange(4)}, ()], ids=["empty", "labels", "tuple"])
def test_a_batch_without_images_is_refused(batch):
    refused(batch, ValueError, r"one entry of kind image\. Found 0")


def test_a_batch_with_two_images_asks_which_it_is():
    refused(full(img=torch.rand(4, 3, 16, 16)), ValueError, r"one entry of kind image\. Found 2")


def test_an_unknown_kind_lists_those_that_exist():
    with pytest.raises(ValueError, match=r"targets.*" + ".*".join(KINDS)):
        AdversarialAugmenter(targets={"keypoints": "keypoint"})


# ---- flips


def flipping(pairs, **batch):
    return turned(batch or full(), Policy((), (Flip(pairs, p=1.0),)))


def test_a_flip_without_pairs_is_refused_when_there_are_sides():
    with pytest.raises(ValueError, match=r"which keypoints change places.*pairs=None"):
        flipping(None)
    with pytest.raises(ValueError, match="which keypoints change places"):
        flipping(None, image=torch.rand(2, 3, 8, 8), heatmaps=torch.rand(2, 4, 2, 2))


def test_a_flip_without_pairs_mirrors_images_and_labels():
    image = torch.rand(2, 3, 8, 8)
    result = flipping(None, image=image, label=torch.arange(2))
    torch.testing.assert_close(result["image"], image.flip(-1), atol=1e-5, rtol=0)


def test_no_pairs_are_legal():
    batch = full()
    torch.testing.assert_close(flipping((), **batch)["keypoints"][..., 0], 15 - batch["keypoints"][..., 0])


@pytest.mark.parametrize(
    "pairs", [[(0, 1), (1, 2)], [(0, 0)], [(-1, 2)], [1, 0, 2], [(0, 1, 2)], [(0,)], (0, 1)],
    ids=["duplicate", "itself", "negative", "permutation", "triple", "single", "flat"],
)  # fmt: skip
def test_pairs_that_are_no_pairs_are_refused_at_construction(pairs):
    with pytest.raises(ValueError, match=r"`pairs` of Flip should .* Found"):
        Flip(pairs)


def test_pairs_beyond_the_keypoints_are_refused():
    with pytest.raises(ValueError, match=r"from 0 to 4\. Found 5"):
        flipping(((0, 5),))


def test_visibility_alone_has_sides_too():
    batch = {"image": torch.rand(2, 3, 8, 8), "visibility": torch.tensor([[1, 0], [1, 0]])}
    assert flipping(((0, 1),), **batch)["visibility"].tolist() == [[0, 1], [0, 1]]
    for pairs in (None, ((0, 9),)):
        with pytest.raises(ValueError, match="Flip"):
            flipping(pairs, **batch)


def test_pairs_come_in_either_order_as_lists_or_tuples():
    expected = flipping(((0, 1), (2, 3)), **(batch := full()))["keypoints"]
    for pairs in ([[0, 1], [2, 3]], [(3, 2), (1, 0)], np.array([[0, 1], [2, 3]]).tolist()):
        assert torch.equal(flipping(pairs, **batch)["keypoints"], expected)


@pytest.mark.parametrize(("name", "kind"), [("labels", "label"), ("weight", "other")])
def test_a_value_a_pixel_is_not_carried_along_by_its_name(name, kind):
    batch = {"pixel_values": torch.rand(2, 3, 8, 6), name: torch.zeros(2, 8, 6)}
    with pytest.raises(ValueError, match=rf"'{name}' should hold nothing that moves.*\(2, 8, 6\).*targets=.*mask.*'{kind}'"):
        parse(batch, None)
    assert parse(batch, {name: kind}).kinds[name].kind == kind  # who says so means it
    assert parse({**batch, name: torch.zeros(2, 8)}, None).kinds[name].kind == kind


class Stored(MutableMapping):
    """A mapping around a dict, as users write them."""

    def __init__(self, entries):
        self.entries = dict(entries)

    def __getitem__(self, key):
        return self.entries[key]

    def __setitem__(self, key, value):
        self.entries[key] = value

    def __delitem__(self, key):
        del self.entries[key]

    def __iter__(self):
        return iter(self.entries)

    def __len__(self):
        return len(self.entries)


def test_a_mapping_around_a_dict_is_not_written_through():
    image = torch.rand(2, 3, 8, 8)
    batch = Stored({"image": image, "label": torch.zeros(2).long()})
    made = parse(batch, None).with_image(image + 1).to_user()
    assert type(made) is Stored
    assert torch.equal(made["image"], image + 1)
    assert batch["image"] is image


def test_visibility_lies_as_the_keypoints_do():
    batch = {"image": torch.rand(2, 3, 8, 8), "keypoints": torch.rand(2, 3, 4, 2)}
    with pytest.raises(ValueError, match=r"each keypoint, \(2, 3, 4\). Found \(2, 12\)"):
        parse({**batch, "visibility": torch.ones(2, 12)}, None)
    assert parse({**batch, "visibility": torch.ones(2, 3, 4)}, None)

"""Nothing goes stale in silence: what the library cannot move is declared or refused, and so is a name that matches nothing."""

import collections
import dataclasses

import networks as nets
import numpy as np
import pytest
import torch

import adaug
from adaug import AdversarialAugmenter, Flip, Policy, Rotate, Scale, Translate
from adaug._batches.parse import parse

TURN = Policy((), (Rotate(20, 40, 2),))
Pair = collections.namedtuple("Pair", ["points", "name"])


def image(n=4, side=32):
    return torch.rand(n, 3, side, side)


def seen(batch, policy=TURN, **options):
    return AdversarialAugmenter(policy, seed=0, **options).random(batch)


@dataclasses.dataclass
class Holder:
    boxes: torch.Tensor


class Slotted:
    __slots__ = ("tensor",)

    def __init__(self, tensor):
        self.tensor = tensor


STALE = {
    "a list of points": {"mystery": [torch.rand(3, 2) for _ in range(4)]},
    "a list of numbers": {"mystery": [[[1.0, 2.0], [3.0, 4.0]]] * 4},
    "polygons": {"mystery": [[np.ones((5, 2))]] * 4},
    "flat polygons": {"mystery": [[[1, 2, 3, 4]]] * 4},
    "an object": {"mystery": [Holder(torch.rand(3, 4))] * 4},
    "an object with slots": {"mystery": Slotted(torch.rand(4, 4))},
    "a dict a row": {"mystery": [{"boxes": torch.rand(2, 4)}] * 4},
}


@pytest.mark.parametrize("name", STALE)
def test_what_holds_numbers_and_has_no_kind_is_refused_or_declared(name):
    batch = {"image": image(), **STALE[name]}
    with pytest.raises(ValueError, match=r"should have a kind.*Found 'mystery' without one; pass targets="):
        seen(batch)
    assert seen(batch, targets={"mystery": "other"})["mystery"] is not None


@pytest.mark.parametrize("key", ["keypoints", "boxes", "mask"])
def test_lists_of_a_known_kind_say_what_to_do(key):
    with pytest.raises(TypeError, match=rf"'{key}'.*should be a tensor.*Found list; pad its rows.*other"):
        seen({"image": image(), key: [torch.rand(3, 4)] * 4})


@pytest.mark.parametrize(
    "value",
    [
        torch.zeros(4, 16, 16), torch.zeros(4, 5, 8, 8), np.zeros((4, 32, 32)), torch.zeros(4, 11, 11).long(),
        [torch.zeros(16, 16)] * 4, {"inside": torch.zeros(4, 16, 16)},
    ],
    ids=["half size", "class maps", "numpy", "a third", "list", "nested"],
)  # fmt: skip
@pytest.mark.parametrize("name", ["labels", "weights"])
def test_maps_of_any_resolution_are_not_carried_along_by_their_name(name, value):
    batch = {"image": image(), name: value}
    with pytest.raises((ValueError, TypeError), match=rf"'{name}' should hold nothing that moves.*targets="):
        seen(batch)
    seen(batch, targets={name: "other"})


@pytest.mark.parametrize("value", [torch.zeros(4, 16), torch.zeros(4, 3, 7), torch.zeros(4), [1] * 4, torch.zeros(4, 1, 1)])
def test_labels_that_are_no_maps_are_carried(value):
    seen({"image": image(), "labels": value})


def test_a_usual_name_inside_a_carried_entry_is_refused_or_declared():
    meta = {"name": ["a"] * 4, "joints": torch.rand(4, 5, 2) * 31, "scale": torch.ones(4)}
    with pytest.raises(ValueError, match=r"Found 'joints' in it.*targets=\{\('meta', 'joints'\): \"keypoints\"\}"):
        seen({"image": image(), "meta": meta})
    assert torch.equal(seen({"image": image(), "meta": meta}, targets={"meta": "other"})["meta"]["joints"], meta["joints"])


def test_all_that_nobody_knows_is_named_at_once():
    batch = {"image": image(), "a": torch.rand(4, 2), "b": {"c": torch.rand(4), "name": ["x"] * 4}, "text": ["t"] * 4}
    with pytest.raises(ValueError, match=r"Found 'a', \('b', 'c'\) without.*targets=\{'a': kind, \('b', 'c'\): kind\}"):
        seen(batch)


# ---- names and shapes


@pytest.mark.parametrize(
    ("targets", "nearest"),
    [({"jonts": "keypoints"}, "'joints'"), ({"masks": "mask"}, "'mask'"), ({("meta", "joint"): "keypoints"}, "'xy'"),
     ({7: "label"}, "'image'")],
)  # fmt: skip
def test_names_that_match_nothing_are_refused_with_the_nearest(targets, nearest):
    batch = {"image": image(), "joints": torch.rand(4, 2, 2) * 31, "mask": torch.zeros(4, 32, 32), "meta": {"xy": ["a"] * 4}}
    augmenter = AdversarialAugmenter(TURN, targets=targets, seed=0)
    state = augmenter.state_dict()
    with pytest.raises(ValueError, match=rf"`targets` should name entries of the batch\. Found .*nearest are .*{nearest}"):
        augmenter.random(batch)
    assert nets.same(augmenter.state_dict(), state)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_colours_that_come_last_are_refused(channels):
    with pytest.raises(ValueError, match=r"\[B, C, H, W\]\. Found \(4, 32, 24, \d\).*permute\(0, 3, 1, 2\)"):
        seen({"image": torch.rand(4, 32, 24, channels)})
    seen({"image": torch.rand(4, channels, 32, 24)})
    seen({"image": torch.rand(4, 12, 32, 24)})


# ---- entries inside others


def nested():
    points = torch.rand(4, 5, 2) * 31
    return {"image": image(), "meta": collections.OrderedDict(joints=points, name=["a"] * 4, deep={"seen": torch.ones(4, 5)})}


def test_a_tuple_names_an_entry_inside_another():
    batch = nested()
    before = batch["meta"]["joints"].clone()
    targets = {("meta", "joints"): "keypoints", ("meta", "deep", "seen"): "visibility"}
    result = seen(batch, Policy((), (Scale(2.9, 3.1, 2),)), targets=targets)
    flat = {"image": batch["image"], "keypoints": before, "visibility": torch.ones(4, 5)}
    flat = seen(flat, Policy((), (Scale(2.9, 3.1, 2),)))
    assert torch.equal(result["meta"]["joints"], flat["keypoints"])
    assert torch.equal(result["meta"]["deep"]["seen"], flat["visibility"])
    assert 0 < flat["visibility"].mean() < 1
    assert type(result["meta"]) is collections.OrderedDict
    assert list(result["meta"]) == ["joints", "name", "deep"]
    assert torch.equal(batch["meta"]["joints"], before)


def test_a_tuple_leads_through_positions_and_named_tuples():
    pictures, points = image(), torch.rand(4, 5, 2) * 31
    result = seen((pictures, [Pair(points, "n"), 3]), targets={(1, 0, 0): "keypoints"})
    assert isinstance(result, tuple)
    assert isinstance(result[1][0], Pair)
    assert result[1][1] == 3
    assert torch.equal(result[1][0].points, seen({"image": pictures, "keypoints": points})["keypoints"])


def test_the_image_itself_may_lie_inside():
    batch = {"inputs": {"rgb": image(), "name": ["a"] * 4}, "label": torch.arange(4)}
    result = seen(batch, targets={("inputs", "rgb"): "image"})
    assert not torch.equal(result["inputs"]["rgb"], batch["inputs"]["rgb"])
    still = seen(batch, Policy(()), targets={("inputs", "rgb"): "image"})
    assert still["inputs"]["rgb"] is batch["inputs"]["rgb"]
    model, policy = torch.nn.Conv2d(3, 2, 3), adaug.policies.paper(learned=adaug.learners.Paper(features=()))
    augmenter = AdversarialAugmenter(policy, targets={("inputs", "rgb"): "image"}, seed=0)
    augmenter.step(model, batch, lambda output, batch: output.flatten(1).mean(1) * batch["inputs"]["rgb"].flatten(1).mean(1))


def test_what_lies_beside_a_declared_entry_needs_a_kind_too():
    batch = {
        "image": image(),
        "target": {"points": torch.rand(4, 2, 2) * 31, "depth": torch.rand(4, 9), "labels": torch.arange(4)},
    }
    with pytest.raises(ValueError, match=r"Found \('target', 'depth'\) without one"):
        seen(batch, targets={("target", "points"): "keypoints"})
    result = seen(batch, targets={("target", "points"): "keypoints", ("target", "depth"): "other"})
    assert torch.equal(result["target"]["labels"], batch["target"]["labels"])


def test_a_usual_name_beside_a_declared_entry_is_refused_too():
    batch = {"image": image(), "meta": {"joints": torch.rand(4, 5, 2) * 31, "boxes": torch.rand(4, 2, 4)}}
    with pytest.raises(ValueError, match=r"Found 'boxes' in it.*\('meta', 'boxes'\)"):
        seen(batch, targets={("meta", "joints"): "keypoints"})


def test_rows_are_picked_inside_too():
    batch = nested()
    parsed = parse(batch, {("meta", "joints"): "keypoints", ("meta", "deep", "seen"): "visibility"})
    chosen = parsed.select(torch.tensor([2, 0])).to_user()
    assert torch.equal(chosen["meta"]["joints"], batch["meta"]["joints"][[2, 0]])
    assert len(chosen["meta"]["name"]) == 2
    assert type(chosen["meta"]) is collections.OrderedDict


# ---- heat maps without keypoints


@pytest.mark.parametrize("shape", [(1, 3), (1, 3, 1)])
def test_visibility_follows_the_peaks_of_heat_maps(shape):
    points = torch.tensor([[[4.0, 16.0], [16.0, 16.0], [28.0, 16.0]]])
    maps = adaug.keypoints.render_heatmaps(points, 16, 1.0, stride=2)
    batch = {"image": image(1), "heatmaps": maps, "visibility": torch.tensor([1.0, 2.0, 3.0]).reshape(shape)}
    policy = Policy((), (Translate(0.3, 0.31, 2),))  # about ten pixels to the right
    assert seen(batch, policy)["visibility"].flatten().tolist() == [1, 2, 0]
    mirrored = seen(batch, Policy((), (Flip(((0, 2),), p=1.0), Translate(0.3, 0.31, 2))))
    assert mirrored["visibility"].shape == shape
    assert mirrored["visibility"].flatten().tolist() == [3, 2, 0]  # the first left on the other side
    empty = {**batch, "heatmaps": torch.zeros_like(maps)}
    assert seen(empty, policy)["visibility"].flatten().tolist() == [1, 2, 3]


def test_flip_pairs_are_those_of_the_maps():
    batch = {"image": image(2), "heatmaps": torch.rand(2, 4, 8, 8), "visibility": torch.ones(2, 4, 1)}
    seen(batch, Policy((), (Flip(((0, 3),), p=1.0),)))
    with pytest.raises(ValueError, match=r"from 0 to 3\. Found 4"):
        seen(batch, Policy((), (Flip(((0, 4),), p=1.0),)))
    with pytest.raises(ValueError, match=r"one number for each heat map, \(2, 4\)\. Found \(2, 5\)"):
        seen({**batch, "visibility": torch.ones(2, 5)})


# ---- views of other batches


def view_of(n=4, side=32, **options):
    model = torch.nn.Conv2d(3, 2, 3)
    augmenter = AdversarialAugmenter(TURN, seed=0, **options)
    return augmenter.step(model, {"image": image(n, side)}, lambda output, batch: output.flatten(1).mean(1)).view


def test_a_view_is_for_as_many_rows():
    with pytest.raises(ValueError, match=r"as many rows as it was made for, 4\. Found 6; .*view\.select"):
        adaug.apply_view({"image": image(6)}, view_of())
    view = view_of()
    first = adaug.apply_view({"image": (pictures := image())}, view)["image"]
    rows = torch.tensor([3, 1])
    torch.testing.assert_close(adaug.apply_view({"image": pictures[rows]}, view.select(rows))["image"], first[rows])


def test_a_view_is_for_images_of_a_size():
    with pytest.raises(ValueError, match=r"size that it was made for, \(32, 32\)\. Found \(48, 48\)"):
        adaug.apply_view({"image": image(4, 48)}, view_of())
    view = view_of(output_size=24)
    assert adaug.apply_view({"image": image()}, view)["image"].shape[-1] == 24
    with pytest.raises(ValueError, match=r"size that it was made for, \(24, 24\)\. Found \(16, 16\).*output_size"):
        adaug.apply_view({"image": image()}, view, output_size=16)

"""A name alone exempts nothing: numbers that may be coordinates are asked for, and classes are carried."""

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

import adaug
from adaug import AdversarialAugmenter, Augment, Policy, Rotate

SIDE, N = 32, 4
TURN = Policy((), (Rotate(20, 40, 2),))
NAMES = ["label", "labels", "class", "classes", "id", "ids", "index", "weight", "weights", "image_id"]


def coordinates(shape, kind):
    values = torch.rand(shape) * SIDE
    values[0] = torch.tensor(5.25).expand(values[0].shape)  # whatever the noise is, these are no classes
    return {"float": values, "double": values.double(), "unit": values / SIDE, "integers": values.long() + 2}[kind]


def seen(batch, **options):
    return AdversarialAugmenter(TURN, seed=0, **options).random(batch)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["float", "double", "unit", "integers"])
@pytest.mark.parametrize(
    "shape",
    [(N, 68, 2), (N, 136), (N, 7, 5), (N, 4), (N, 3, 4), (N, 2), (N, 2, 3, 2), (N, 1, 4), (N, 51), (N, 5), (N, 3, 16)],
    ids=str,
)
def test_coordinates_are_asked_for_whatever_their_name(name, kind, shape):
    batch = {"image": torch.rand(N, 3, SIDE, SIDE), name: coordinates(shape, kind)}
    with pytest.raises(
        ValueError, match=rf"'{name}' should hold nothing that moves.*(coordinates|a value for each pixel).*pass"
    ):
        seen(batch)
    assert torch.equal(seen(batch, targets={name: "label"})[name], batch[name])  # who says so means it


@pytest.mark.parametrize(
    "where", ["a sample", "an array", "a list", "meta", "lists", "a list in a sample", "integers in lists"]
)
def test_coordinates_are_asked_for_wherever_they_stand(where):
    points = coordinates((N, 6, 2), "float")
    image = torch.rand(N, 3, SIDE, SIDE)
    sample = {"image": image[0], "labels": points[0].numpy() if where == "an array" else points[0]}
    call = {
        "a sample": lambda: Augment(TURN, seed=0)(sample),
        "an array": lambda: Augment(TURN, seed=0)(sample),
        "a list": lambda: seen((list(image), [{"labels": row} for row in points])),
        "meta": lambda: seen({"image": image, "meta": {"centre": points[:, 0]}}),
        "lists": lambda: seen({"image": image, "labels": points.tolist()}),
        "a list in a sample": lambda: Augment(TURN, seed=0)({"image": image[0], "labels": points[0, 0].tolist()}),
        "integers in lists": lambda: seen({"image": image, "meta": {"corners": points.long().tolist()}}),
    }[where]
    with pytest.raises(ValueError, match="should hold nothing that moves"):
        call()


CLASSES = {
    "one a row": lambda: torch.randint(0, 900, (N,)),
    "one a row, in a column": lambda: torch.randint(0, 900, (N, 1)),
    "an age": lambda: 90 * torch.rand(N),
    "one-hot": lambda: torch.eye(10)[torch.randint(0, 10, (N,))],
    "several": lambda: torch.randint(0, 2, (N, 40)),
    "several, bool": lambda: torch.rand(N, 40) > 0.5,
    "probabilities": lambda: torch.rand(N, 10).softmax(1),
    "mixed": lambda: 0.3 * torch.eye(10)[:N] + 0.7 * torch.eye(10)[1 : N + 1],
    "words": lambda: torch.randint(0, 30000, (N, 12)) + 100,
    "words with padding": lambda: torch.cat([torch.randint(0, 30000, (N, 11)) + 50, torch.full((N, 1), -100)], 1),
    "three tasks": lambda: torch.randint(0, 9, (N, 3)),
    "two tasks": lambda: torch.randint(0, 9, (N, 2)),
    "digits": lambda: torch.randint(0, 10, (N, 6)),
    "nothing": lambda: torch.zeros(N, 0),
}


@pytest.mark.parametrize("name", ["label", "labels", "classes"])
@pytest.mark.parametrize("what", CLASSES)
def test_classes_are_carried(name, what):
    value = CLASSES[what]()
    made = seen({"image": torch.rand(N, 3, SIDE, SIDE), name: value})[name]
    assert torch.equal(made, value)


@given(st.integers(2, 9), st.sampled_from(["boxes", "masks", "keypoints"]), st.sampled_from(["labels", "weights", "ids"]))
def test_one_number_for_each_object_is_carried(count, beside, name):
    objects = {
        "boxes": torch.tensor([2.0, 3, 9, 8]).expand(N, count, 4),
        "masks": torch.zeros(N, count, SIDE, SIDE),
        "keypoints": torch.rand(N, count, 2) * SIDE,
    }
    value = torch.randint(0, 20, (N, count))
    assert torch.equal(seen({"image": torch.rand(N, 3, SIDE, SIDE), beside: objects[beside], name: value})[name], value)


@pytest.mark.parametrize(
    "shape", [(N, 24, 32), (N, 32, 24), (N, 24, 32, 5), (N, 5, 24, 32), (N, 12, 16), (N, 16, 12), (N, 24 * 32)], ids=str
)
@pytest.mark.parametrize("name", ["labels", "weights"])
def test_a_value_for_each_pixel_is_asked_for_in_any_layout(shape, name):
    with pytest.raises(ValueError, match="a value for each pixel"):
        seen({"image": torch.rand(N, 3, 24, 32), name: torch.zeros(shape, dtype=torch.long)})
    assert seen({"image": torch.rand(N, 3, 24, 32), name: torch.zeros(N, dtype=torch.long)})


def test_lists_of_labels_for_objects_are_carried():
    images = [torch.rand(3, SIDE, SIDE) for _ in range(3)]
    rows = [{"boxes": torch.tensor([[2.0, 3, 9, 8]]).repeat(n, 1), "labels": torch.arange(5, 5 + n)} for n in (2, 0, 4)]
    _, made = adaug.AdversarialAugmenter(TURN, seed=0).random((images, rows))
    assert all(torch.equal(a["labels"], b["labels"]) for a, b in zip(made, rows, strict=True))


@pytest.mark.parametrize(
    "value", [[3, 1, 4, 2], [0.5, 20.0, 3.0, 90.0], ["a"] * N, [[0.0, 1.0], [1.0, 0.0]] * 2, [(1, 0)] * N], ids=str
)
def test_lists_of_classes_are_carried(value):
    assert seen({"image": torch.rand(N, 3, SIDE, SIDE), "labels": value})["labels"] == value

"""Forms of entries that cannot be moved give the entry's name and the remedy, and those that can be are converted."""

import numpy as np
import pytest
import torch

import adaug
from adaug import AdversarialAugmenter, Augment, Branch, Flip, Policy, Rotate

FLIP, TURN = Policy((), (Flip((), p=1.0),)), Policy([Branch("turn", [Rotate(20, 40, 2)], 1.0)])
N, SIDE = 2, 16


def make_batch():
    return {
        "image": torch.rand(N, 3, SIDE, SIDE), "keypoints": torch.rand(N, 4, 2) * 15,
        "mask": torch.randint(0, 3, (N, SIDE, SIDE)),
        "boxes": torch.tensor([2.0, 3, 9, 8]).repeat(N, 3, 1), "heatmaps": torch.rand(N, 4, 8, 8),
    }  # fmt: skip


def row(batch):
    return {name: value[0] for name, value in batch.items()}


FORMS = {
    "sparse": (lambda x: x.to_sparse(), r"dense tensor. Found a sparse tensor; use .to_dense\(\)"),
    "nested": (lambda x: torch.nested.nested_tensor(list(x)), r"dense tensor. Found a nested tensor; use .*to_padded_tensor"),
    "meta": (lambda x: x.to("meta"), "on the device|device meta"),
}


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("name", ["image", "keypoints", "mask", "boxes", "heatmaps"])
@pytest.mark.parametrize("form", ["sparse", "nested", "meta"])
def test_tensors_without_plain_values_are_named(name, form):
    make, match = FORMS[form]
    batch = {**make_batch(), name: make(make_batch()[name])}
    for call in (AdversarialAugmenter(FLIP, seed=0).random, lambda batch: adaug.apply_view(batch, []), Augment(FLIP, seed=0)):
        with pytest.raises((TypeError, ValueError), match=match) as raised:
            call(batch)
        assert f"'{name}'" in str(raised.value) or form == "meta"  # then all others are elsewhere
        call(make_batch())


@pytest.mark.parametrize("shape", [(0, 3, 8, 8), (2, 3, 0, 8), (2, 3, 8, 0), (2, 0, 8, 8), (0,)])
def test_empty_images_are_named(shape):
    for call in (AdversarialAugmenter(FLIP, seed=0).random, Augment(FLIP, seed=0)):
        with pytest.raises(ValueError, match=r"should .*Found .*'image'|'image'.*Found|should .*Found"):
            call({"image": torch.rand(shape)})


@pytest.mark.parametrize("name", ["mask", "heatmaps"])
def test_maps_without_pixels_are_named(name):
    with pytest.raises(ValueError, match=f"'{name}'.*should have last sizes"):
        Augment(FLIP, seed=0)({**make_batch(), name: torch.zeros(N, 4, 0, SIDE)})


def test_no_objects_are_legal():
    batch = {
        **make_batch(),
        "boxes": torch.zeros(N, 0, 4),
        "mask": torch.zeros(N, 0, SIDE, SIDE),
        "keypoints": torch.zeros(N, 0, 2),
    }
    del batch["heatmaps"]
    for call in (AdversarialAugmenter(FLIP, seed=0).random, Augment(FLIP, seed=0), Augment(TURN, seed=0)):
        made = call(batch)
        assert made["boxes"].shape == (N, 0, 4)
        assert made["mask"].shape == (N, 0, SIDE, SIDE)


@pytest.mark.parametrize("name", ["image", "keypoints", "mask", "boxes", "heatmaps"])
@pytest.mark.parametrize("dtype", [object, str, "M8[s]", complex], ids=str)
def test_arrays_of_no_numbers_are_named(name, dtype):
    sample = {key: value.numpy() for key, value in row(make_batch()).items()}
    wrong = np.zeros(sample[name].shape, dtype) if dtype is not object else sample[name].astype(object)
    with pytest.raises(TypeError, match=rf"'{name}' should be an array of numbers. Found dtype .*; stack its rows"):
        Augment(FLIP, seed=0)({**sample, name: wrong})
    Augment(FLIP, seed=0)(sample)


@pytest.mark.parametrize("name", ["image", "keypoints", "mask", "boxes", "heatmaps"])
@pytest.mark.parametrize("order", [">", "<"])
def test_big_endian_arrays_are_converted(name, order):
    sample = {key: value.numpy() for key, value in row(make_batch()).items()}
    swapped = {**sample, name: sample[name].astype(sample[name].dtype.newbyteorder(order))}
    expected, made = Augment(TURN, seed=0)(sample, index=0), Augment(TURN, seed=0)(swapped, index=0)
    assert made[name].dtype == swapped[name].dtype
    np.testing.assert_array_equal(made[name], expected[name])


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, ">i4"])
@pytest.mark.parametrize("form", ["array", "tensor"])
@pytest.mark.parametrize("name", ["keypoints", "boxes"])
def test_integer_coordinates_are_converted(name, form, dtype):
    value = np.array([[2, 3], [7, 9]] if name == "keypoints" else [[2, 3, 9, 12]]).astype(dtype)
    given = value if form == "array" else torch.from_numpy(value.astype(np.dtype(dtype).newbyteorder("=")))
    sample = {"image": torch.rand(3, SIDE, SIDE), name: given}
    expected = Augment(TURN, seed=0)({**sample, name: torch.from_numpy(value.astype(np.float32))}, index=0)[name]
    made = Augment(TURN, seed=0)(sample, index=0)[name]
    assert type(made) is type(given)
    np.testing.assert_allclose(np.asarray(made), expected.numpy(), atol=1e-5)  # and not rounded


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.int8, bool])
def test_integer_images_say_what_to_do(dtype):
    with pytest.raises(TypeError, match=r"'image' should hold floating point numbers, uint8 or uint16. Found .*astype"):
        Augment(FLIP, seed=0)({"image": np.ones((3, SIDE, SIDE), dtype)})
    with pytest.raises(TypeError, match=r"'image' should hold .*image.float\(\) / 255"):
        Augment(FLIP, seed=0)({"image": torch.ones((3, SIDE, SIDE)).to(torch.from_numpy(np.ones(1, dtype)).dtype)})
    for fine in (np.uint8, np.uint16, np.float16, np.float32, np.float64):
        assert Augment(FLIP, seed=0)({"image": np.ones((3, SIDE, SIDE), fine)})["image"].dtype == fine

"""Clips, volumes and grey batches: one view for all frames can be asked for, and where two readings fit, it asks."""

import numpy as np
import pytest
import torch

import adaug
from adaug import Augment, Branch, Brightness, Flip, Policy, Rotate, Target

TURN = Policy([Branch("turn", [Rotate(20, 60, 4), Brightness(0.5, 0.9, 3)], 1.0)], [Flip([(0, 1)], p=0.5)])


def single(view, i):
    return view.select(torch.tensor([i]))


@pytest.mark.parametrize("channels", ["first", "last"])
@pytest.mark.parametrize("form", ["tensor", "array", "uint8"])
def test_all_frames_of_a_clip_get_one_view(channels, form):
    clip, points = torch.rand(7, 3, 16, 20), torch.rand(7, 4, 2) * 16
    given = clip.movedim(1, -1) if channels == "last" else clip
    given = (255 * given).byte() if form == "uint8" else given
    sample = {
        "image": given.numpy() if form == "array" else given,
        "keypoints": points,
        "mask": torch.randint(0, 3, (7, 16, 20)),
        "label": 3,
    }
    made, view = Augment(TURN, seed=0, clips=True, channels=channels)(sample, view=True)
    assert made["label"] == 3
    assert made["image"].shape == given.shape
    assert len(view.matrix) == 7
    assert torch.equal(view.matrix, view.matrix[:1].expand(7, 3, 3))
    exact = clip if form != "uint8" else (255 * clip).byte() / 255
    for i in range(7):
        frame = adaug.apply_view(
            {"image": exact[i : i + 1], "keypoints": points[i : i + 1], "mask": sample["mask"][i : i + 1]}, single(view, i)
        )
        found = torch.as_tensor(np.asarray(made["image"]))[i]
        found = found.movedim(-1, 0) if channels == "last" else found
        torch.testing.assert_close(found / (255 if form == "uint8" else 1), frame["image"][0], atol=3e-3, rtol=0)
        torch.testing.assert_close(made["keypoints"][i], frame["keypoints"][0])
        assert torch.equal(made["mask"][i], frame["mask"][0])


def test_clips_of_a_batch_get_different_views():
    batch = {"image": torch.rand(3, 5, 3, 16, 16), "keypoints": torch.rand(3, 5, 2, 2) * 16, "label": torch.arange(3)}
    before = {name: value.clone() for name, value in batch.items()}
    made, view = Augment(TURN, seed=0, clips=True)(batch, view=True)
    assert {name: value.shape for name, value in made.items()} == {name: value.shape for name, value in batch.items()}
    assert torch.equal(made["label"], batch["label"])
    matrices = view.matrix.unflatten(0, (3, 5))
    assert torch.equal(matrices, matrices[:, :1].expand_as(matrices))
    assert len({float(matrix[0, 0, 0]) for matrix in matrices}) == 3
    for i in range(3):
        alone = adaug.apply_view(
            {"image": batch["image"][i], "keypoints": batch["keypoints"][i]}, view.select(torch.arange(5 * i, 5 * i + 5))
        )
        torch.testing.assert_close(made["image"][i], alone["image"])
        torch.testing.assert_close(made["keypoints"][i], alone["keypoints"])
    assert all(torch.equal(batch[name], value) for name, value in before.items())


def test_lists_of_clips():
    clips = [torch.rand(n, 3, 16, 16) for n in (4, 6)]
    (made, labels), views = Augment(TURN, seed=0, clips=True)((clips, torch.arange(2)), view=True)
    assert [clip.shape for clip in made] == [clip.shape for clip in clips]
    assert labels.tolist() == [0, 1]
    assert [len(view.matrix) for view in views] == [4, 6]


ASKED = {
    "a grey batch": ((64, 16, 16), lambda n: {"label": torch.arange(n)}),
    "a grey batch alone": ((64, 16, 16), lambda n: {}),
    "a volume": ((20, 16, 16), lambda n: {"label": 1}),
    "a clip with one label": ((8, 3, 16, 16), lambda n: {"label": 1}),
    "a clip with one NumPy label": ((8, 3, 16, 16), lambda n: {"label": np.int64(1)}),
    "a clip with a label of no dimension": ((8, 3, 16, 16), lambda n: {"label": torch.tensor(1)}),
    "a clip, channels first": ((3, 8, 16, 16), lambda n: {}),
    "clips": ((2, 8, 3, 16, 16), lambda n: {}),
}


@pytest.mark.parametrize("what", ASKED)
@pytest.mark.parametrize("form", ["tensor", "array"])
def test_where_two_readings_fit_it_asks(what, form):
    shape, more = ASKED[what]
    image = torch.rand(shape)
    batch = {"image": image.numpy() if form == "array" else image, **more(shape[0])}
    with pytest.raises(ValueError, match=r"'image' should .*Found .*(clips=True|bands)"):
        Augment(TURN, seed=0)(batch)
    with pytest.raises(ValueError, match=r"should .*Found .*clips=True"):
        Augment(TURN, seed=0)((batch["image"], 3))


NEIGHBOURS = {
    "a grey image": ((16, 16), lambda n: {"label": 1}),
    "an image": ((3, 16, 16), lambda n: {"label": 1}),
    "an image with alpha": ((4, 16, 16), lambda n: {"label": 1}),
    "a batch": ((8, 3, 16, 16), lambda n: {"label": torch.arange(n)}),
    "a batch without labels": ((8, 3, 16, 16), lambda n: {}),
    "a batch of three": ((3, 3, 16, 16), lambda n: {}),
    "a grey batch with its channel": ((64, 1, 16, 16), lambda n: {"label": torch.arange(n)}),
    "three images of many bands": ((3, 8, 16, 16), lambda n: {"label": torch.arange(n)}),
}


@pytest.mark.parametrize("what", NEIGHBOURS)
def test_what_can_be_read_in_one_way_is_read(what):
    shape, more = NEIGHBOURS[what]
    policy = Policy([Branch("turn", [Rotate(20, 60, 4)], 1.0)])
    made, view = Augment(policy, seed=0)({"image": torch.rand(shape), **more(shape[0])}, view=True)
    assert made["image"].shape == shape
    assert len(view.matrix) == (shape[0] if len(shape) == 4 else 1)


@pytest.mark.parametrize("shape", [(64, 16, 16), (3, 8, 16, 16)])
def test_bands_can_be_declared(shape):
    policy, targets = Policy([Branch("turn", [Rotate(20, 60, 4)], 1.0)]), {"image": Target("image", format="bands")}
    made, view = Augment(policy, seed=0, targets=targets)({"image": torch.rand(shape)}, view=True)
    assert made["image"].shape == shape
    assert len(view.matrix) == (1 if len(shape) == 3 else shape[0])


def test_clips_say_what_they_need():
    augment = Augment(TURN, seed=0, clips=True)
    with pytest.raises(ValueError, match=r"'image' should be a clip \[T, C, H, W\].*Found \(3, 16, 16\)"):
        augment({"image": torch.rand(3, 16, 16)})
    with pytest.raises(ValueError, match=r"'keypoints', of kind keypoints, should have a value for each frame, \[7, \.\.\.\]"):
        augment({"image": torch.rand(7, 3, 16, 16), "keypoints": torch.rand(4, 2)})
    with pytest.raises(ValueError, match="no functions in `common`"):
        Augment(Policy((), (lambda image: image * 0.5,)), seed=0, clips=True)(torch.rand(7, 3, 16, 16))
    with pytest.raises(TypeError, match="`clips` should be True or False"):
        Augment(TURN, clips=1)

"""Functions in `common` move no pixels, or are refused by name; neither they nor losses write to the user's batch."""

from __future__ import annotations

import random
import warnings

import kornia.augmentation as K
import networks as nets
import numpy as np
import pytest
import torch
from kornia import enhance, filters
from torch import nn

import adaug
from adaug import AdversarialAugmenter, Policy
from adaug.policies._functions import check_functions

IMAGES = torch.zeros(2, 3, 128, 128)


class Mirror(nn.Module):
    """As torchvision's RandomHorizontalFlip."""

    def __init__(self, p=0.5):
        super().__init__()
        self.p = p

    def forward(self, image):
        return image.flip(-1) if torch.rand(1) < self.p else image


class Compose:
    """As torchvision's Compose."""

    def __init__(self, *transforms):
        self.transforms = list(transforms)

    def __call__(self, image):
        for transform in self.transforms:
            image = transform(image)
        return image


def a_little_noise(image):
    return image + 0.1 * torch.randn_like(image)


def one_to_the_side(image):
    return image.roll(1, -1)


@pytest.mark.parametrize("by", range(1, 13))
def test_a_move_is_found_however_far_it_is(by):
    with pytest.raises(TypeError, match="moved a bright point"):
        check_functions([lambda image: image.roll(by, -1)], torch.rand(2, 3, 64, 48))
    check_functions([lambda image: image.roll(by, 1)], torch.rand(2, 3, 64, 48))  # channels


MOVES = {
    "affine": lambda: K.ImageSequential(K.ColorJiggle(0.1), K.RandomAffine(10.0, p=0.1)),
    "affine itself": lambda: K.RandomAffine(2.0),
    "a mirror image": lambda: K.ImageSequential(K.RandomHorizontalFlip(p=0.01)),
    "elastic": lambda: K.ImageSequential(K.RandomElasticTransform(p=0.3)),
    "thin plates": lambda: K.AugmentationSequential(K.RandomThinPlateSpline(p=0.3), data_keys=["input"]),
    "fisheye": lambda: K.RandomFisheye(*[torch.tensor([-0.3, 0.3])] * 2, torch.tensor([0.9, 1.0]), p=0.5),
    "mosaic": lambda: K.RandomMosaic(p=0.3),
    "jigsaw": lambda: K.ImageSequential(K.RandomJigsaw((2, 2), p=0.5)),
    "mixed rows": lambda: K.RandomMixUpV2(p=0.5),
    "one of several": lambda: K.ImageSequential(K.ColorJiggle(0.1), K.RandomAffine(10.0), random_apply=1),
    "torchvision's": lambda: Mirror(0.5),
    "composed": lambda: Compose(nn.Identity(), Mirror(0.5)),
    "a function": lambda: one_to_the_side,
    "python's random": lambda: lambda image: image.flip(-1) if random.random() < 0.5 else image,
    "numpy's random": lambda: lambda image: image.flip(-2) if np.random.rand() < 0.5 else image,  # noqa: NPY002
    "a blur and a turn": lambda: lambda image: filters.gaussian_blur2d(image, (21, 21), (4.0, 4.0)).flip(-1),
    "a permutation of rows": lambda: lambda image: image[torch.randperm(len(image))],
    "a crop": lambda: K.ImageSequential(K.RandomResizedCrop((128, 128), p=0.3)),
}
STAYS = {
    "jiggle": lambda: K.ColorJiggle(0.5, 0.5, 0.5, 0.1, p=0.5),
    "jpeg": lambda: K.RandomJPEG((5.0, 50.0)),
    "erasing": lambda: K.RandomErasing((0.3, 0.5), p=0.5),
    "motion blur": lambda: K.RandomMotionBlur(5, 35.0, 0.5),
    "autocontrast": lambda: K.RandomAutoContrast(),
    "normalise": lambda: K.Normalize(torch.full((3,), 0.5), torch.full((3,), 0.2)),
    "several": lambda: K.ImageSequential(K.RandomGaussianBlur((7, 7), (0.5, 3.0), p=0.5), K.RandomGamma((0.5, 2.0))),
    "noise": lambda: a_little_noise,
    "gamma": lambda: lambda image: image.clamp(0, 1) ** 1.7,
    "dropout": lambda: nn.Dropout(0.3),
    "a blur of one's own": lambda: lambda image: filters.gaussian_blur2d(image, (21, 21), (4.0, 4.0)),
    "a median": lambda: lambda image: filters.median_blur(image, (5, 5)),
    "jpeg of one's own": lambda: lambda image: enhance.jpeg_codec_differentiable(image, torch.full((len(image),), 20.0)),
    "histograms": lambda: lambda image: enhance.equalize_clahe(image.clamp(0, 1)),
    "erasing of one's own": lambda: lambda image: K.RandomErasing((0.3, 0.5), p=0.5)(image),
    "salt": lambda: lambda image: torch.where(torch.rand_like(image) < 0.05, 1.0, image),
    "a mirror that is off": lambda: Mirror(0.0),
    "composed": lambda: Compose(nn.Identity(), nn.Dropout(0.2)),
    "python's random": lambda: lambda image: image * random.uniform(0.5, 1),
    "numpy's random": lambda: lambda image: image + 0.1 * torch.from_numpy(np.random.randn(*image.shape)).float(),  # noqa: NPY002
    "made for one size": lambda: lambda image: image * torch.linspace(0.5, 1, 160)[:, None] * torch.ones(160, 160),
}


@pytest.mark.parametrize("name", MOVES)
def test_functions_that_move_pixels_are_refused_by_name(name):
    batch = {"image": torch.rand(2, 3, 128, 128), "label": torch.arange(2)}
    before, state = nets.cloned(batch), torch.get_rng_state()
    with pytest.raises(TypeError, match=r"(?s)should .*move no pixels.*use adaug's own"):
        AdversarialAugmenter(Policy((), [MOVES[name]()]), seed=0).random(batch)
    assert nets.same(batch, before)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("name", STAYS)
def test_functions_that_move_nothing_pass(name):
    side = 160 if name == "made for one size" else 128
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check_functions([STAYS[name]()], torch.zeros(2, 3, side, side))


@pytest.mark.parametrize("function", [lambda image: image[..., :64], lambda image: None, lambda image: image.mean(1, True)])
def test_what_is_no_image_of_the_same_shape_is_refused(function):
    batch, augmenter = {"image": torch.rand(2, 3, 64, 80)}, AdversarialAugmenter(Policy((), [function]), seed=0)
    state = augmenter.state_dict()
    with pytest.raises(TypeError, match=r"images of the shape that they get\. Found .*returned"):
        augmenter.random(batch)
    assert nets.same(augmenter.state_dict(), state)


def test_an_image_of_the_same_shape_is_taken():
    function = lambda image: image[..., :80] * 0.5  # noqa: E731
    batch = {"image": torch.rand(2, 3, 64, 80)}
    result = AdversarialAugmenter(Policy((), [function]), seed=0).random(batch)
    assert torch.equal(result["image"], batch["image"] * 0.5)


def test_trying_leaves_the_random_states_and_the_function_alone():
    function = K.ImageSequential(K.RandomGaussianNoise(p=0.5), K.ColorJiggle(0.2, p=0.5))
    before = torch.get_rng_state(), random.getstate(), repr(np.random.get_state()), function[0].p  # noqa: NPY002
    check_functions([function], IMAGES)
    after = torch.get_rng_state(), random.getstate(), repr(np.random.get_state()), function[0].p  # noqa: NPY002
    assert nets.same(list(before), list(after))


def test_functions_are_tried_once():
    calls = []
    policy = Policy((), [lambda image: calls.append(len(image)) or image * 0.5])
    augmenter = AdversarialAugmenter(policy, seed=0)
    augmenter.random({"image": torch.rand(5, 3, 16, 16)})
    tried = len(calls)
    augmenter.random({"image": torch.rand(5, 3, 16, 16)})
    assert len(calls) == tried + 1


@pytest.mark.parametrize("function", [K.ColorJiggle(0.2, p=0.3), K.ImageSequential(K.RandomBrightness((0.5, 1.5)))], ids=str)
def test_functions_that_clamp_ask_for_images_in_the_unit_range(function):
    augmenter = AdversarialAugmenter(Policy((), [function]), seed=0)
    with pytest.raises(ValueError, match=r"(ColorJiggle|ImageSequential).*should get images in \[0, 1\]\. Found values"):
        augmenter.random({"image": torch.randn(4, 3, 16, 16)})
    augmenter.random({"image": torch.rand(4, 3, 16, 16)})


def test_functions_that_do_not_clamp_take_any_images():
    for function in (K.RandomGaussianNoise(), K.Normalize(torch.zeros(3), torch.ones(3)), a_little_noise):
        AdversarialAugmenter(Policy((), [function]), seed=0).random({"image": 3 * torch.randn(4, 3, 16, 16)})


# ---- in place


def make_augmenter(policy, **options):
    if any(branch.learned is True for branch in policy.branches):
        return nets.make_augmenter(policy, **options)
    return AdversarialAugmenter(policy, seed=0)  # what compares views is refused where nothing learns


@pytest.mark.parametrize("act", ["step", "random"])
def test_a_function_that_writes_to_its_images_writes_to_a_copy(act):
    policy = Policy((), [lambda image: image.mul_(0.5)])
    batch = nets.make_batch(4)
    before = nets.cloned(batch)
    augmenter = make_augmenter(policy)
    for _ in range(2):
        if act == "step":
            result = augmenter.step(nets.make_network(), batch, nets.loss_fn).batch
            augmenter.detach()
        else:
            result = augmenter.random(batch)
        assert torch.equal(result["image"], before["image"] * 0.5)
    assert nets.same(batch, before)


POLICIES = {"nothing": Policy(()), "paper": adaug.policies.paper([(0, 1)]), "never alike": adaug.policies.trivial([(0, 1)])}


@pytest.mark.parametrize("scoring", ["eval", "train"])
@pytest.mark.parametrize("policy", POLICIES)
def test_a_loss_that_writes_to_its_batch_changes_nothing_else(policy, scoring):
    seen = []

    def writes(output, batch):
        seen.append(float(batch["keypoints"].abs().max()))
        batch["keypoints"].div_(32)
        batch["visibility"].mul_(0.5)
        batch["meta"]["head"].zero_()
        batch["label"].add_(1)
        return output.flatten(1).mean(1) + batch["keypoints"].flatten(1).mean(1)

    def reads(output, batch):
        return output.flatten(1).mean(1) + batch["keypoints"].flatten(1).mean(1) / 32

    losses = []
    for loss_fn in (writes, reads):
        batch = nets.make_batch(9) | {"meta": {"head": torch.ones(9), "name": ["a"] * 9}}
        before, model = nets.cloned(batch), nets.make_network()
        augmenter = make_augmenter(POLICIES[policy], difficulty=loss_fn, scoring=scoring)
        torch.manual_seed(0)
        for _ in range(2):
            losses.append(augmenter.step(model, batch, loss_fn).losses.detach())
        assert nets.same(batch, before)
    torch.testing.assert_close(losses[:2], losses[2:])
    assert min(seen) > 2  # pixels, each time


def test_a_difficulty_that_writes_to_its_images_spoils_no_batch():
    def writes(output, batch):
        return batch["image"].sub_(1).flatten(1).mean(1)

    batch, model = nets.make_batch(9), nets.make_network()
    before = nets.cloned(batch)
    nets.make_augmenter(difficulty=writes).step(model, batch, nets.loss_fn)
    adaug.audit(model, [batch], writes, [adaug.Rotate(-20, 20, 2)], num_draws=0, num_pictures=0)
    assert nets.same(batch, before)


def test_what_a_view_does_not_touch_is_a_copy_and_images_are_not():
    batch = nets.make_batch(3) | {"name": ["a"] * 3, "array": np.arange(3)}
    result = AdversarialAugmenter(Policy(()), targets={"array": "other"}).random(batch)
    assert result["image"] is batch["image"]
    assert result["name"] is batch["name"]
    result["keypoints"].zero_()
    result["array"][:] = 9
    assert batch["keypoints"].any()
    assert batch["array"].tolist() == [0, 1, 2]

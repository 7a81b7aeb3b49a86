"""Channels that are not colour: colour operations touch what they can name, keep alpha, and refuse the rest."""

import numpy as np
import pytest
import torch

import adaug
from adaug import AdversarialAugmenter, Augment, Brightness, Contrast, Flip, Policy, Rotate, Saturation, Target
from adaug._batches.kinds import MODES

COLOURS = {"brightness": Brightness(0.4, 0.6, 2), "contrast": Contrast(0.4, 0.6, 2), "saturation": Saturation(0.4, 0.6, 2)}
PLAIN = ("brightness", "contrast")


def dimmed(image, name, target=None):
    targets = {} if target is None else {"image": target}
    return AdversarialAugmenter(Policy((), (COLOURS[name],)), seed=0, targets=targets).random({"image": image})["image"]


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize(("channels", "colours"), [(1, 1), (2, 1), (3, 3), (4, 3)])
def test_alpha_stays(name, channels, colours):
    image = torch.rand(2, channels, 8, 8)
    made = dimmed(image, name)
    assert torch.equal(made[:, colours:], image[:, colours:])
    torch.testing.assert_close(made[:, :colours], dimmed(image[:, :colours], name))
    assert not torch.equal(made[:, :colours], image[:, :colours])


@pytest.mark.parametrize("name", COLOURS)
@pytest.mark.parametrize(
    ("form", "channels", "colours"), [("LA", 2, 1), ("RGBA", 4, 3), ("RGBX", 4, 3), ("RGB", 3, 3), ("L", 1, 1)]
)
def test_named_colours_are_touched(name, form, channels, colours):
    image = torch.rand(2, channels, 8, 8)
    made = dimmed(image, name, Target("image", format=form))
    assert torch.equal(made[:, colours:], image[:, colours:])
    torch.testing.assert_close(made[:, :colours], dimmed(image[:, :colours], name))


@pytest.mark.parametrize("name", COLOURS)
@pytest.mark.parametrize("channels", [5, 6, 13])
def test_bands_are_refused_or_declared(name, channels):
    image = torch.rand(2, channels, 16, 16)
    with pytest.raises(ValueError, match=rf"{name.title()} should get images of .*Found {channels}"):
        dimmed(image, name)
    moved = AdversarialAugmenter(Policy((), (Flip(p=1.0),))).random({"image": image})["image"]
    torch.testing.assert_close(moved, image.flip(-1), atol=1e-5, rtol=0)
    if name in PLAIN:
        assert not torch.equal(dimmed(image, name, Target("image", format="bands"))[:, -1], image[:, -1])
    else:
        with pytest.raises(ValueError, match=r"3 channels.*or 1"):
            dimmed(image, name, Target("image", format="bands"))


@pytest.mark.parametrize("name", COLOURS)
@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "RGBX", "CMYK", "HSV", "YCbCr", "LAB", "La", "RGBa"])
@pytest.mark.parametrize("form", ["picture", "tensor"])
def test_colours_are_told_by_pils_mode(mode, name, form):
    pil = pytest.importorskip("PIL.Image")
    array = np.random.default_rng(0).integers(0, 255, (12, 16, len(mode) if mode not in ("YCbCr",) else 3), dtype=np.uint8)
    picture = pil.frombytes(mode, (16, 12), np.ascontiguousarray(array).tobytes())
    image = picture if form == "picture" else torch.from_numpy(array).permute(2, 0, 1)
    targets = {} if form == "picture" else {0: Target("image", format=mode)}
    augment = Augment(Policy([adaug.Branch("light", [COLOURS[name]], 1.0)]), seed=0, targets=targets)
    flip = Augment(Policy((), (Flip(p=1.0),)), seed=0, targets=targets)
    turned = np.asarray(flip((image,))[0])
    np.testing.assert_array_equal(turned, np.asarray(image)[:, ::-1] if form == "picture" else np.asarray(image)[..., ::-1])
    if mode in ("L", "LA", "RGB", "RGBA", "RGBX"):
        made = np.asarray(augment((image,))[0])
        made = made if form == "picture" else made.transpose(1, 2, 0)
        made = made.reshape(array.shape)
        colours = {"L": 1, "LA": 1}.get(mode, 3)
        np.testing.assert_array_equal(made[..., colours:], array[..., colours:])
        assert (made[..., :colours] != array[..., :colours]).any() or (name == "saturation" and colours == 1)
    else:
        with pytest.raises(ValueError, match=rf"{name.title()} should get.*Found {mode} pictures; convert them to RGB"):
            augment((image,))


def test_modes_without_colours_are_refused_and_say_what_to_do():
    pil = pytest.importorskip("PIL.Image")
    for mode in ("P", "1", "PA"):
        with pytest.raises(ValueError, match=rf"0 should be a colour or grey picture. Found mode '{mode}'; use .convert"):
            Augment(Policy((), (Flip(p=1.0),)), seed=0)(
                (pil.new("L", (16, 12)).convert("P") if mode == "P" else pil.new(mode, (16, 12)),)
            )
    with pytest.raises(ValueError, match=r"`format` should be given for image, if it is 'RGB'. Found it for boxes"):
        Target("boxes", format="RGB")
    assert all(Target("image", format=mode) for mode in MODES)
    with pytest.raises(ValueError, match=r"should have 3 channels, because its format is RGB. Found \(2, 4, 8, 8\)"):
        dimmed(torch.rand(2, 4, 8, 8), "brightness", Target("image", format="RGB"))


def test_functions_of_users_get_all_channels():
    shown = []
    operation = adaug.operations.Apply(0.1, 0.9, 2, function=lambda image, magnitude: shown.append(image.shape) or image)
    AdversarialAugmenter(Policy((), (operation, Rotate(-9, 9, 2))), seed=0).random({"image": torch.rand(2, 7, 16, 16)})
    assert shown == [(2, 7, 16, 16)]

"""A small `make attack`, and that it would notice: an attack that calls everything right is none."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

import attacks.labels as labels_attack
import pytest
import torch
from attacks.inputs import follows
from attacks.tally import Process, Tally

from adaug._views.view import View
from adaug._views.warp import warp_boxes as ORIGINAL

sys.path.insert(0, str(Path(__file__).parent))

import attack

NEEDS_FORK = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


@pytest.mark.parametrize(
    ("family", "most"), [("inputs", 60), ("labels", 300), ("states", 40), ("files", 40), ("audits", 40), ("outliers", 6)]
)
def test_nothing_is_silent_or_half_done(family, most):
    tally = Tally(120, 0, most)
    attack.FAMILIES[family](tally)
    assert sum(tally.counts.values()) == most
    bad = [said for said in tally.found.values() if said.startswith(attack.BAD)]
    assert bad == []


@NEEDS_FORK
@pytest.mark.slow
@pytest.mark.parametrize(("family", "most"), [("kills", 6), ("ranks", 4)])
@pytest.mark.filterwarnings("ignore:This process")  # that forks has threads: those of the test runner
def test_processes_may_die(family, most):
    results = attack.attack([family], 240, 3, most)
    assert results[family]["counts"] == {"held": most}, results


def judged(act, right=lambda _: "", kept=lambda: True):
    tally = Tally(10, 0)
    tally.judge("it", act, right, kept)
    return dict(tally.counts)


def raising(error):
    def act():
        raise error

    return act


def test_outcomes_are_told_apart():
    good = ValueError("`x` should be 1. Found 2.")
    assert judged(lambda: 1) == judged(raising(good)) == {"held": 1}
    assert judged(raising(KeyError("`x` should be 1. Found 2."))) == judged(raising(ValueError("no"))) == {"unhelpful": 1}
    assert judged(lambda: 1, lambda _: "another image") == {"silent": 1}
    assert judged(raising(good), kept=lambda: False) == {"half-done": 1}


@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8])
def test_labels_that_do_not_follow_are_noticed(dtype):
    x, y = torch.arange(20) / 19, torch.arange(20)[:, None] / 19
    image = torch.stack([x.expand(20, 20), y.expand(20, 20), torch.ones(20, 20)])[None]
    image = image if dtype.is_floating_point else (255 * image).round().to(dtype)
    mask = ((x > 0.5).long() + 2 * (y > 0.5).long())[None]
    batch = {"image": image, "keypoints": torch.tensor([[[4.5, 6.0], [12.0, 3.5]]]), "mask": mask}
    assert follows(batch, batch, "") == ""
    flipped = {"image": image.flip(-1), "mask": mask.flip(-1)}
    right = torch.tensor([[[7.0, 3.5], [14.5, 6.0]]])  # mirrored, and their names exchanged
    assert follows(batch, {**flipped, "keypoints": right}, "") == ""
    assert "keypoint" in follows(batch, {**flipped, "keypoints": right.flip(1)}, "")
    assert "keypoint" in follows(batch, {**flipped, "keypoints": right + 0.5}, "")
    assert "mask" in follows(batch, {**flipped, "keypoints": right, "mask": mask}, "")


MISTAKES = {
    "boxes are centres": (
        "boxes",
        "adaug._views.warp.warp_boxes",
        lambda boxes, matrix, size, **options: _beside(boxes, matrix, size),
    ),
    "points drift": ("perspective", "adaug._views.warp.warp_points", lambda points, matrix, **options: points + 0.1),
    "pairs are lost": ("sides", "adaug._views.warp.swap_pairs", lambda values, flipped, pairs, dim: values),
    "-1 becomes 0": (
        "flags",
        "adaug._batches.moving.moves.invisible",
        lambda visibility, gone: visibility * ~gone.reshape(visibility.shape),
    ),
    "vectors stay": ("fields", "adaug._views.fields.turn_vectors", lambda fields, *args, **options: fields),
    "sums change": ("maps", "adaug._views.fields.move_density", lambda maps, *args, **options: 2 * maps),
    "strides are guessed": (
        "maps",
        "adaug._runtime.geometry.told_stride",
        lambda size, image: image[0] / size[0] if size[0] else None,
    ),
    "names exempt": ("names", "adaug._batches.fits.check_numbers", lambda *args: None),
    "alpha is a colour": ("channels", "adaug._batches.moving.colours.colour_channels", lambda target, channels: channels),
    "frames are rows": ("clips", "adaug._views.view.View.select", lambda view, index: view),
    "objects are rows": (
        "flat",
        "adaug._batches.moving.flat.image_of",
        lambda entries, rows: torch.arange(len(entries[rows])) % 2,
    ),
    "bits are lost": (
        "forms",
        "adaug._views.warp._gathered",
        lambda image, points, fill: image.flip(-1).float().to(image.dtype),
    ),
}


def _beside(boxes, matrix, size):
    return ORIGINAL(boxes + 0.5, matrix, size) - 0.5


@pytest.mark.parametrize("mistake", MISTAKES)
def test_labels_that_go_wrong_are_noticed(mistake, monkeypatch):
    """Each mistake is put into the library, and the attack's family calls it silent (or a crash)."""
    family, path, wrong = MISTAKES[mistake]
    module, name = path.rsplit(".", 1)
    owner = View if module.endswith("View") else importlib.import_module(module)
    original = vars(owner)[name]
    for other in [owner, *(part for key, part in sys.modules.items() if key.startswith("adaug"))]:
        if vars(other).get(name) is original:
            monkeypatch.setattr(other, name, wrong)
    monkeypatch.setattr("attacks.labels.FAMILIES", [member for member in labels_attack.FAMILIES if member.__name__ == family])
    tally = Tally(60, 0, 60)
    attack.FAMILIES["labels"](tally)
    assert tally.counts["silent"] + tally.counts["unhelpful"] > 0


@NEEDS_FORK
@pytest.mark.filterwarnings("ignore:This process")
def test_a_process_says_how_it_ended():
    assert Process(lambda: None).wait(float("inf")) == 0
    assert Process(raising(ValueError())).wait(float("inf")) == 1
    assert Process(lambda: os.kill(os.getpid(), 15)).wait(float("inf")) == -15

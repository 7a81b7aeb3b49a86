"""Layers as they are in the wild: left out of some passes, of odd sizes, written to by what follows."""

from __future__ import annotations

import networks as nets
import pytest
import torch
from torch import nn

import adaug
from adaug._model.finding import maps_of
from adaug._model.hooks import Hooks
from adaug._model.layers import Layer, describe


class Drops(nn.Module):
    """A residual network whose blocks are left out at times, as by LayerDrop."""

    def __init__(self, always=False, when=lambda: torch.rand(1) < 0.5):
        super().__init__()
        self.stem, self.block = nn.Conv2d(3, 8, 3, 4, 1), nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Conv2d(8, 2, 1)
        self.always, self.when = always, when

    def forward(self, image):
        x = self.stem(image)
        if not ((self.training or self.always) and self.when()):
            x = x + self.block(x)
        return self.head(x)


def loss_fn(output, batch):
    return output.square().flatten(1).mean(1)


def augmenter(**options):
    policy = adaug.Policy([adaug.Branch("aho", [adaug.OccludeFeatures()], 1.0)])
    return nets.make_augmenter(policy, features=["stem"], occlude=["block"], **options)


@pytest.mark.parametrize("scoring", ["eval", "train"])
def test_a_layer_that_leaves_out_a_training_pass_stops_nothing(scoring):
    torch.manual_seed(0)
    model, augment = Drops(), augmenter(scoring=scoring)
    for i in range(8):
        augment.step(model, nets.make_batch(6, seed=i), loss_fn).loss.backward()


def drops_in_training_passes(dropped):
    return Drops(when=lambda: bool(dropped) and torch.is_grad_enabled())


def drops_in_all_passes(dropped):
    return Drops(always=True, when=lambda: bool(dropped))


@pytest.mark.parametrize(("drops", "scoring"), [(drops_in_all_passes, "eval"), (drops_in_training_passes, "train")])
def test_a_layer_that_leaves_out_a_pass_that_scores_teaches_nothing(drops, scoring):
    dropped = []
    model, augment = drops(dropped), augmenter(scoring=scoring)
    augment.step(model, nets.make_batch(6), loss_fn)
    before = nets.generators(augment)
    dropped.append(True)
    result = augment.step(model, nets.make_batch(6, seed=1), loss_fn)
    assert int(result.metrics["nonfinite"]) == 6
    assert nets.same(nets.generators(augment), before)
    dropped.clear()
    augment.step(model, nets.make_batch(6, seed=2), loss_fn)
    assert not nets.same(nets.generators(augment), before)


def test_a_layer_that_leaves_out_a_training_pass_tells_running_difficulty_nothing():
    dropped, policy = [], adaug.Policy([adaug.Branch("aho", [adaug.OccludeFeatures()], 1.0, "running")])
    model, augment = drops_in_training_passes(dropped), nets.make_augmenter(policy, occlude=["block"])

    def rows(seed):
        augment.step(model, nets.make_batch(6, seed=seed), loss_fn)
        return float(nets.running(augment).pending.diagonal()[:2].sum())

    assert rows(0) == 6
    dropped.append(True)
    assert rows(1) == 6
    dropped.clear()
    assert rows(2) == 12


def test_a_layer_to_read_that_does_not_run_is_an_error_that_speaks_of_layers():
    dropped = []
    model = Drops(always=True, when=lambda: bool(dropped))
    augment = nets.make_augmenter(features=["block"], occlude=["stem"])
    augment.step(model, nets.make_batch(6), loss_fn)
    before = nets.generators(augment)
    dropped.append(True)
    with pytest.raises(RuntimeError, match=r"`features` should run.*Found none of block called; name layers that always run"):
        augment.step(model, nets.make_batch(6), loss_fn)
    assert nets.same(nets.generators(augment), before)


# ---- odd sizes


@pytest.mark.parametrize(
    ("size", "image", "fits"),
    [((4, 16), (100, 500), True), ((4, 15), (100, 500), True), ((16, 4), (500, 100), True), ((7, 32), (200, 1000), True),
     ((3, 13), (97, 401), True), ((8, 8), (64, 64), True), ((8, 16), (64, 64), False), ((16, 32), (100, 500), False),
     ((8, 4), (100, 500), False)],
)  # fmt: skip
def test_maps_of_odd_sizes_are_maps(size, image, fits):
    layer = describe(torch.zeros(2, 5, *size), torch.zeros(2, 3, *image))
    assert (layer == Layer(5, size)) if fits else layer is None


def test_every_map_of_a_long_image_is_found():
    strides = nn.Sequential(*(nn.Conv2d(3 if i == 0 else 8, 8, 3, 2, 1) for i in range(5)), nn.Conv2d(8, 1, 1))
    maps = maps_of(strides, torch.zeros(2, 3, 100, 500), strides)
    assert list(maps) == [str(i) for i in range(6)]
    assert maps["4"].layer == Layer(8, (4, 16))


# ---- what follows in place


@pytest.mark.parametrize("follows", [nn.ReLU(inplace=True), nn.SiLU(inplace=True), nn.Dropout(0.5, inplace=True)], ids=str)
def test_a_layer_is_read_as_it_gave_its_map(follows):
    model = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), follows, nn.Conv2d(4, 4, 3, 2, 1)).eval()
    image = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        expected = model[0](image)
        hooks = Hooks(model, {"0": Layer(4, (16, 16)), "2": Layer(4, (8, 8))}, {})
        for _ in range(2):
            assert torch.equal(hooks.look(lambda: model(image))[0], expected)
    assert expected.min() < 0


def test_only_what_is_written_to_is_copied_and_looked_at_twice():
    model = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(inplace=True), nn.Conv2d(4, 4, 3, 2, 1)).eval()
    runs, given = [], {}
    model[0].register_forward_hook(lambda *_: runs.append(1))
    model[2].register_forward_hook(lambda module, args, output: given.update(last=output))
    hooks = Hooks(model, {"0": Layer(4, (16, 16)), "2": Layer(4, (8, 8))}, {})
    with torch.no_grad():
        for _ in range(3):
            features = hooks.look(lambda: model(torch.rand(2, 3, 32, 32)))
            assert features[1] is given["last"]
    assert len(runs) == 4
    with torch.inference_mode():
        assert hooks.look(lambda: model(torch.rand(2, 3, 32, 32)))[0].min() < 0

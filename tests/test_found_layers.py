"""features=None on networks of many kinds: what is hidden is hidden, and the layers are those that matter."""

from __future__ import annotations

import architectures as nets
import pytest
import torch
from networks import differences, traces

import adaug
from adaug._model.finding.find import find_layers
from adaug._model.finding.leak import with_a_change
from adaug._model.finding.probe import probe
from adaug._model.hooks import Hooks
from adaug._model.layers import Layer, describe, is_unclear, tensors_in
from adaug._model.passes import quiet

SIDE = 128
NETWORKS = {
    "deeplab": (nets.DeepLab, ["backbone.0", "backbone.1", "backbone.2", "classifier.1"]),
    "deeplab with auxiliary logits": (lambda: nets.DeepLab(aux=True), ["backbone.0", "backbone.1", "backbone.2"]),
    "swin": (nets.Swin, ["layers.0", "layers.1", "layers.2"]),
    "resnetv2": (nets.ResNetV2, ["stem", "stages.0", "stages.1", "stages"]),
    "nfnet": (lambda: nets.ResNetV2(norm=False), ["stem", "stages.0", "stages.1", "stages"]),
    "maxvit": (nets.MaxVit, ["stem", "stages.0", "stages.1", "stages"]),
    "dpn": (nets.DualPath, ["features.0", "features"]),
    "xception": (nets.Xception, ["conv2", "block1", "block2", "block3"]),
    "princeton-vl": (nets.PoseNet, ["hgs.0.0.up1", "hgs.0.0.low2.up1", "hgs.0.0.low2.low2"]),
    "frozen": (nets.Frozen, ["backbone.0", "backbone.1", "backbone"]),
}


def made(name, size=SIDE):
    """A network whose running statistics have seen something."""
    torch.manual_seed(0)
    model = NETWORKS[name][0]()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        model(torch.rand(4, 3, size, size))
    return model.eval()


def found(model, size=SIDE):
    pair = with_a_change(torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(1)))
    with quiet(model, torch.device("cpu"), "look"):
        probed = probe(model, pair, model)
        return find_layers(model, probed, pair, model), probed


def outputs(model, image):
    with torch.no_grad():
        return list(tensors_in(model(image)))


@pytest.mark.parametrize("name", NETWORKS)
def test_the_layers_are_stages_and_bridges(name):
    layers, expected = list(found(made(name))[0].read), NETWORKS[name][1]
    assert layers[: len(expected)] == expected


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("cell", [(1, 1), (2, 1), (0, 3)])
def test_what_is_hidden_does_not_reach_the_output(name, cell):
    model, noise = made(name), torch.Generator().manual_seed(2)
    layers, probed = found(model)
    pair = torch.rand(1, 3, SIDE, SIDE, generator=noise).repeat(2, 1, 1, 1)
    inside = [slice(at * SIDE // 4 + 12, at * SIDE // 4 + 20) for at in cell]
    pair[1][:, inside[0], inside[1]] = torch.rand(3, 8, 8, generator=noise)
    mask = torch.ones(2, 1, 4, 4)
    mask[:, :, cell[0], cell[1]] = 0
    plain = outputs(model, pair)
    hooks = Hooks(model, {}, {layer: probed.layers[layer] for layer in layers.hide})
    with torch.no_grad(), hooks.masked([(adaug.OccludeFeatures(), mask)]):
        hidden = outputs(model, pair)
    hooks.remove()
    assert torch.equal(outputs(model, pair)[0], plain[0])
    for before, after in zip(plain, hidden, strict=True):
        assert (after[1] - after[0]).norm() <= 0.2 * (before[1] - before[0]).norm()
        assert (after[0] - before[0]).norm() >= 1e-3 * before[0].norm()


@pytest.mark.parametrize("name", NETWORKS)
def test_no_mask_is_on_logits(name):
    model = made(name)
    logits = {"deeplab": 21, "deeplab with auxiliary logits": 21}.get(name, 5)
    layers, probed = found(model)
    assert all(probed.layers[layer].channels != logits for layer in {*layers.read, *layers.hide})


def test_masks_of_an_hourglass_are_on_the_bridges_of_every_stack():
    hidden = found(made("princeton-vl"))[0].hide
    assert {"hgs.0.0.up1", "hgs.1.0.up1", "hgs.1.0.low2.up1", "hgs.1.0.low2.low2"} <= set(hidden)
    assert not any("skip_layer" in name for name in hidden)


# ---- channels last


def test_channels_may_come_last():
    output = torch.rand(2, 8, 6, 16)
    layer = describe(output, torch.rand(2, 3, 64, 48))
    assert layer == Layer(16, (8, 6), channels_last=True)
    assert layer.as_map(output).shape == (2, 16, 8, 6)
    mask = torch.ones(2, 1, 8, 6)
    mask[0, 0, 2, 3] = 0
    masked = layer.masked(output, mask)
    assert not masked[0, 2, 3].any()
    assert int((masked == 0).all(-1).sum()) == 1


@pytest.mark.parametrize("last", [False, True])
def test_where_shapes_do_not_tell_it_does_what_changes(last):
    pair = with_a_change(torch.rand(1, 3, 64, 64))
    output = torch.nn.Conv2d(3, 16, 4, 4)(pair)
    output = output.permute(0, 2, 3, 1) if last else output
    assert describe(output, pair) == Layer(16, (16, 16), channels_last=last)
    assert not is_unclear(output, pair)


def test_what_nothing_tells_is_left_out_and_said():
    pair = with_a_change(torch.rand(1, 3, 64, 64))
    output = torch.ones(2, 16, 16, 16)
    assert is_unclear(output, pair)

    class Constant(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(16, 16, 16))

        def forward(self, x):
            return self.weight.expand(len(x), -1, -1, -1)

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.table, self.head = nets.conv(3, 16, 3, 4), Constant(), torch.nn.Linear(16, 5)

        def forward(self, x):
            return self.head((self.stem(x) * self.table(x)).mean((2, 3)))

    layers = found(Model().eval(), 64)[0]
    assert layers.read == ("stem",)
    assert layers.skipped == ("table",)
    assert "it left out table" in layers.said(reads=True, hides=True)


def test_as_many_channels_as_rows_are_told_apart_in_a_network():
    torch.manual_seed(0)
    layers, probed = found(nets.Swin(square=True).eval(), 64)
    assert layers.read == ("layers.0", "layers.1", "layers.2")
    assert probed.layers["layers.0"] == Layer(16, (16, 16), channels_last=True)


# ---- what is said, and what is left as it was


def test_what_was_found_is_said_once(caplog):
    torch.manual_seed(0)
    augmenter = adaug.AdversarialAugmenter(adaug.policies.paper(()), seed=0)
    model, batch = nets.Swin(), {"image": torch.rand(6, 3, 64, 64)}
    for _ in range(3):
        augmenter.step(model, batch, lambda output, batch: output.square().mean(1)).loss.backward()
    said = [record.getMessage() for record in caplog.records if record.name == "adaug"]
    assert len(said) == 1
    assert all(name in said[0] for name in augmenter._bound.hooks.occlude)


def test_named_layers_are_not_talked_about(caplog):
    augmenter = adaug.AdversarialAugmenter(adaug.policies.paper(()), features=["layers.0", "layers.2"], seed=0)
    augmenter.bind(nets.Swin(), {"image": torch.rand(6, 3, 64, 64)})
    assert not caplog.records
    assert list(augmenter._bound.hooks.occlude) == ["layers.0", "layers.2"]


@pytest.mark.parametrize("name", ["deeplab", "princeton-vl"])
def test_looking_for_layers_leaves_no_trace(name):
    model = made(name).train()
    before = traces(model)
    found(model)
    assert differences(before, traces(model)) == []

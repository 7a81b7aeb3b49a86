"""features=None on many networks: what is hidden is hidden, the layers are those of the table, or names are asked for."""

from __future__ import annotations

import pytest
import torch
from networks import differences, loss_fn, make_batch, traces
from torch import nn

import adaug
from adaug._model.finding import find, maps_of, with_a_change
from adaug._model.hooks import Hooks
from adaug._model.layers import Layer, describe, is_unclear, tensors_in
from adaug._model.passes import quiet
from adaug.learners import Paper
from benchmarks import architectures as nets
from benchmarks.found_layers import SMALL, Outcome, found_in, make_network, row
from benchmarks.result_files import RESULTS

SIDE = 128
LARGE = [name for name, (_, size) in SMALL.items() if size == (SIDE, SIDE)]


def made(name):
    return make_network(*SMALL[name])


def found(model, size=SIDE):
    """The layers to read, those to mask, and all that give maps."""
    pair = with_a_change(torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(1)))
    with quiet(model, torch.device("cpu"), "look"):
        maps = maps_of(model, pair, model)
        return *find(model, maps, pair, model, masks=True), maps


def outputs(model, image):
    with torch.no_grad():
        return list(tensors_in(model(image)))


@pytest.mark.parametrize("name", SMALL)
def test_the_layers_are_those_of_the_table(name):
    cells = row(name, found_in(made(name), SMALL[name][1]), Outcome(["before"], [])).split(" | ")
    table = (RESULTS / "found_layers.md").read_text(encoding="utf-8").splitlines()
    (line,) = (line.split(" | ") for line in table if line.startswith(f"| {name} |"))
    assert line[3] == cells[3]
    assert line[2] in (cells[2], "the same")
    if line[2] == "the same":
        assert line[1] == cells[2]


@pytest.mark.parametrize(("name", "layers"), [
    ("U-Net", ["enc1", "enc2", "mid"]), ("Swin", ["layers.0", "layers.1", "norm"]),
    ("class token", ["blocks.1", "blocks.2", "blocks.3"]),
    ("DeepLab", ["backbone.0", "backbone.1", "backbone.2", "backbone.3"]),
    ("hourglass of princeton-vl", ["pre.1", "hgs.0.0.up1", "hgs.0.0.low2.up1", "hgs.0.0.low2.low2"]),
])  # fmt: skip
def test_the_layers_are_stages_bridges_and_blocks(name, layers):
    assert found(made(name), SMALL[name][1][0])[0] == layers


@pytest.mark.parametrize("name", LARGE)
@pytest.mark.parametrize("cell", [(1, 1), (2, 1), (0, 3)])
def test_what_is_hidden_does_not_reach_the_output(name, cell):
    model, noise = made(name), torch.Generator().manual_seed(2)
    _, masked, maps = found(model)
    pair = torch.rand(1, 3, SIDE, SIDE, generator=noise).repeat(2, 1, 1, 1)
    inside = [slice(at * SIDE // 4 + 12, at * SIDE // 4 + 20) for at in cell]
    pair[1][:, inside[0], inside[1]] = torch.rand(3, 8, 8, generator=noise)
    mask = torch.ones(2, 1, 4, 4)
    mask[:, :, cell[0], cell[1]] = 0
    plain = outputs(model, pair)
    hooks = Hooks(model, {}, {layer: maps[layer].layer for layer in masked})
    with torch.no_grad(), hooks.masked([(adaug.OccludeFeatures(), mask)]):
        hidden = outputs(model, pair)
    hooks.remove()
    assert torch.equal(outputs(model, pair)[0], plain[0])
    for before, after in zip(plain, hidden, strict=True):
        assert (after[1] - after[0]).norm() <= 0.2 * (before[1] - before[0]).norm()
        assert (after[0] - before[0]).norm() >= 1e-3 * before[0].norm()


@pytest.mark.parametrize("name", [name for name in LARGE if "deep" not in name])  # its features have as many channels
def test_no_mask_is_on_logits(name):
    model = made(name)
    logits = next(iter(tensors_in(outputs(model, torch.rand(2, 3, SIDE, SIDE))))).shape[1 if "stacks" not in name else 2]
    read, masked, maps = found(model)
    assert all(maps[layer].layer.channels != logits for layer in {*read, *masked})


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


def test_what_nothing_tells_is_left_out():
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

    read, _, maps = found(Model().eval(), 64)
    assert read == ["stem"]
    assert not maps["table"].fits


def test_as_many_channels_as_rows_are_told_apart_in_a_network():
    read, _, maps = found(made("Swin, as many channels as rows"), 64)
    assert read == ["layers.0", "layers.1", "norm"]
    assert maps["layers.0"].layer == Layer(16, (16, 16), channels_last=True)


# ---- names are asked for


class Beside(nn.Module):
    """Sees the image, and through a convolution if `through`."""

    def __init__(self, through):
        super().__init__()
        self.through, self.conv, self.head = through, nn.Conv2d(3, 3, 3, 2, 1), nn.Linear(3, 5)

    def forward(self, x):
        features = self.conv(x).relu().mean((2, 3))
        return self.head(features if self.through else features + x.mean((2, 3)))


FLAT = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 3))


@pytest.mark.parametrize(("model", "words"), [
    (Beside(False), r"conv, where masks let \d+% of a hidden change through; name layers.*\[C, h, w\]: conv \[3, 16, 16\]\."),
    (FLAT, r"none that fits; name layers.*pass features=\(\).*\[C, h, w\]: none\."),
], ids=["a way past the masks", "no maps"])  # fmt: skip
def test_names_are_asked_for_before_anything_has_changed(model, words):
    before, augmenter = traces(model), adaug.AdversarialAugmenter(adaug.policies.paper([(0, 1)]), seed=0)
    state = augmenter.state_dict()
    with pytest.raises(ValueError, match=r"(?s)features=None should find layers.*Found " + words):
        augmenter.step(model, make_batch(), loss_fn)
    assert differences(before, traces(model)) == []
    assert augmenter.state_dict().keys() == state.keys()
    assert augmenter.steps == 0


@pytest.mark.parametrize(("model", "layers"), [
    (Beside(True), {}), (Beside(False), {"features": ["conv"]}), (Beside(False), {"occlude": ["conv"]}),
    (Beside(False), {"occlude": ()}), (FLAT, {"features": ()}),
], ids=["no way past", "named", "occlude named", "masks on the image", "the image"])  # fmt: skip
def test_what_is_named_or_hidden_goes_on(model, layers):
    how = Paper(features=layers.get("features"))
    augmenter = adaug.AdversarialAugmenter(adaug.policies.paper([(0, 1)], how), occlude=layers.get("occlude"), seed=0)
    assert augmenter.step(model, make_batch(), loss_fn).loss.isfinite()


def test_where_nothing_is_masked_no_mask_is_tried():
    turns = adaug.Branch("turns", [adaug.Rotate(-20, 20, 3)], 0.5)
    augmenter = adaug.AdversarialAugmenter(adaug.Policy([turns]), seed=0)
    augmenter.bind(Beside(False), make_batch())
    assert list(augmenter._state.bound.hooks.features) == ["conv"]


# ---- what is said, and what is left as it was


def test_what_was_found_is_said_once(caplog):
    torch.manual_seed(0)
    augmenter = adaug.AdversarialAugmenter(adaug.policies.paper(()), seed=0)
    model, batch = nets.Swin(), {"image": torch.rand(6, 3, 64, 64)}
    for _ in range(3):
        augmenter.step(model, batch, lambda output, batch: output.square().mean(1)).loss.backward()
    messages = [record.getMessage() for record in caplog.records if record.name == "adaug"]
    assert len(messages) == 1
    assert all(name in messages[0] for name in augmenter._state.bound.hooks.occlude)


def test_named_layers_are_not_talked_about(caplog):
    augmenter = adaug.AdversarialAugmenter(adaug.policies.paper((), Paper(features=["layers.0", "layers.2"])), seed=0)
    augmenter.bind(nets.Swin(), {"image": torch.rand(6, 3, 64, 64)})
    assert not caplog.records
    assert list(augmenter._state.bound.hooks.occlude) == ["layers.0", "layers.2"]


@pytest.mark.parametrize("name", ["DeepLab", "hourglass of princeton-vl"])
def test_looking_for_layers_leaves_no_trace(name):
    model = made(name).train()
    before = traces(model)
    found(model)
    assert differences(before, traces(model)) == []

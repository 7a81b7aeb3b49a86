"""Finding good layers, and occluding them, on networks that nobody here wrote and on small ones of every kind."""

import warnings
from collections import namedtuple

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import adaug
from adaug._model.layers import describe
from adaug.learners import Paper
from benchmarks.architectures import Tokens
from benchmarks.found_layers import found_in
from benchmarks.public_networks import transformers_networks

B = 6


def train(model, batch, loss_fn, steps=2, **arguments):
    torch.manual_seed(0)
    augmenter = adaug.AdversarialAugmenter(adaug.policies.paper((), Paper(**arguments)), seed=0)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    for _ in range(steps):
        loss = augmenter.step(model, batch, loss_fn).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        assert loss.isfinite()
    assert any(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert "features=[" in repr(augmenter)
    return augmenter


def classes(size=64):
    return {"pixel_values": torch.rand(B, 3, size, size), "labels": torch.randint(0, 5, (B,))}


def cross_entropy(output, batch):
    logits = output if isinstance(output, torch.Tensor) else output.logits
    return F.cross_entropy(logits, batch["labels"], reduction="none")


def segmentation_loss(output, batch):
    logits = output if isinstance(output, torch.Tensor) else output.logits
    logits = F.interpolate(logits, size=batch["mask"].shape[-2:], mode="bilinear", align_corners=False)
    return F.cross_entropy(logits, batch["mask"], reduction="none").mean((1, 2))


def segments():
    return {"pixel_values": torch.rand(B, 3, 64, 64), "mask": torch.randint(0, 5, (B, 64, 64))}


@pytest.mark.parametrize("class_token", [True, False])
def test_occlusion_of_tokens_hides_those_of_the_occluded_cells(class_token):
    model = Tokens(class_token).eval()
    bound = train(model, classes(), cross_entropy, features=["blocks.1"])._state.bound
    model.eval()
    kept = {}
    model.blocks[1].register_forward_hook(lambda module, args, output: kept.update(tokens=output))
    occlusion = adaug.OccludeFeatures(grid=(4, 4), cells=1)
    chosen = torch.tensor([[6]])  # row 1, column 2 of the grid, of 8 x 8 patches
    with torch.no_grad(), bound.hooks.masked([(occlusion, occlusion.mask(chosen, torch.rand(1, 2)))]):
        model(torch.rand(1, 3, 64, 64))
    zero = (kept["tokens"] == 0).all(2)[0]
    if class_token:
        assert not zero[0]
        zero = zero[1:]
    hidden = torch.zeros(8, 8, dtype=torch.bool)
    hidden[2:4, 4:6] = True
    assert torch.equal(zero.view(8, 8), hidden)


@pytest.mark.parametrize(("shape", "image", "size"), [
    ((2, 16, 8, 8), (64, 64), (8, 8)), ((2, 64, 16), (64, 64), (8, 8)), ((2, 65, 16), (64, 64), (8, 8)),
    ((2, 48, 16), (64, 48), (8, 6)), ((2, 8, 8, 16), (64, 64), (8, 8)), ((2, 7, 16), (64, 64), None),
    ((32, 16, 8), (64, 64), None),
])  # fmt: skip
def test_an_output_is_read_as_the_map_that_it_is(shape, image, size):
    layer = describe(torch.rand(shape), torch.rand(2, 3, *image))
    assert (layer and layer.size) == size
    if layer:
        assert layer.as_map(torch.rand(shape)).shape == (2, layer.channels, *size)


def test_a_softmax_over_places_is_not_taken_for_tokens():
    model = nn.Sequential(
        nn.Conv2d(3, 32, 3, 4, 1), nn.Conv2d(32, 16, 1), nn.Flatten(2), nn.Softmax(2), nn.Unflatten(2, (16, 16))
    )
    assert found_in(model, (64, 64)).read == ["0"]


@pytest.mark.parametrize("name", ["resnet", "vit", "convnext", "segformer", "upernet", "vitpose"])
def test_networks_of_transformers_train_as_they_are(name):
    pytest.importorskip("transformers")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # theirs, not ours
        model = transformers_networks()[f"transformers: {name}"][0]()
    batch, loss_fn = (classes(), cross_entropy) if name in ("resnet", "vit", "convnext") else (segments(), segmentation_loss)
    if name == "vitpose":
        batch = {"pixel_values": torch.rand(B, 3, 64, 48), "keypoints": torch.rand(B, 17, 2) * 48}

        def loss_fn(output, batch):
            target = adaug.keypoints.render_heatmaps(batch["keypoints"], output.heatmaps.shape[-2:], stride=4)
            return (output.heatmaps - target).square().mean((1, 2, 3))

    augmenter = train(model, batch, loss_fn)
    layers = augmenter._state.bound.hooks.features
    assert len(layers) >= 3
    areas = [layer.area for layer in layers.values()]
    assert areas == sorted(areas, reverse=True)


class Named(nn.Module):
    """A layer that returns a namedtuple."""

    Output = namedtuple("Output", ["maps", "mean"])

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, 2, 1)

    def forward(self, x):
        maps = self.conv(x)
        return self.Output(maps, maps.mean())


class ReadsNamed(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.head = Named(), nn.Linear(8, 4)

    def forward(self, x):
        return self.head(self.layer(x).maps.mean((2, 3)))


def test_an_occluded_layer_may_return_a_namedtuple():
    augmenter = adaug.AdversarialAugmenter(adaug.policies.paper(learned=Paper(features=["layer"])), seed=0)
    batch = {"image": torch.rand(6, 3, 16, 16)}
    augmenter.step(ReadsNamed(), batch, lambda output, batch: output.square().mean(1)).loss.backward()

"""Finding good layers, and occluding them, on networks that nobody here wrote and on small ones of every kind."""

import warnings
from collections import namedtuple

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import adaug
from adaug._model.finding.find import find_layers
from adaug._model.finding.leak import with_a_change
from adaug._model.finding.probe import probe
from adaug._model.layers import describe
from adaug.learners import Paper
from examples.hourglass.model import StackedHourglass

B = 6


class UNet(nn.Module):
    """Three levels with concatenating skips."""

    def __init__(self):
        super().__init__()
        self.enc1, self.enc2, self.mid = (self.block(*sizes) for sizes in ((3, 8), (8, 16), (16, 32)))
        self.dec2, self.dec1, self.head = self.block(48, 16), self.block(24, 8), nn.Conv2d(8, 5, 1)

    @staticmethod
    def block(inputs, outputs):
        return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU())

    def forward(self, x):
        a = self.enc1(x)
        b = self.enc2(F.max_pool2d(a, 2))
        c = self.mid(F.max_pool2d(b, 2))
        b = self.dec2(torch.cat([b, F.interpolate(c, scale_factor=2.0)], 1))
        return self.head(self.dec1(torch.cat([a, F.interpolate(b, scale_factor=2.0)], 1)))


class Branches(nn.Module):
    """HRNet-like: two resolutions side by side, exchanged and fused."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1)
        self.high1, self.low1 = nn.Conv2d(8, 8, 3, 1, 1), nn.Conv2d(8, 16, 3, 2, 1)
        self.high2, self.low2 = nn.Conv2d(8, 8, 3, 1, 1), nn.Conv2d(16, 16, 3, 1, 1)
        self.up, self.head = nn.Conv2d(16, 8, 1), nn.Conv2d(8, 5, 1)

    def forward(self, x):
        x = self.stem(x).relu()
        high, low = self.high1(x).relu(), self.low1(x).relu()
        high, low = self.high2(high).relu(), self.low2(low).relu()
        return self.head(high + F.interpolate(self.up(low), scale_factor=2.0))


class Tokens(nn.Module):
    """A vision transformer of three blocks, with or without a class token."""

    def __init__(self, class_token):
        super().__init__()
        self.patch = nn.Conv2d(3, 16, 8, 8)
        self.token = nn.Parameter(torch.zeros(1, 1, 16)) if class_token else None
        make = lambda: nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)  # noqa: E731
        self.blocks = nn.ModuleList(make() for _ in range(4))
        self.head = nn.Linear(16, 5)

    def forward(self, x):
        x = self.patch(x).flatten(2).transpose(1, 2)
        if self.token is not None:
            x = torch.cat([self.token.expand(len(x), -1, -1), x], 1)
        for block in self.blocks:
            x = block(x)
        return self.head(x[:, 0] if self.token is not None else x.mean(1))


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


def found(model, size=(64, 64)):
    with torch.no_grad():
        pair = with_a_change(torch.rand(1, 3, *size))
        return list(find_layers(model, probe(model.eval(), pair, model), pair, model).read)


@pytest.mark.parametrize(("model", "layers"), [
    (StackedHourglass(stacks=2, width=16, depth=3, stride=2), ["hg.0.skip1", "hg.0.skip2", "hg.0.skip3", "hg.0.neck"]),
    (UNet(), ["enc1", "enc2", "mid"]),
    (Branches(), ["stem", "low2"]),
    (Tokens(class_token=True), ["blocks.1", "blocks.2", "blocks.3"]),
    (Tokens(class_token=False), ["blocks.1", "blocks.2", "blocks.3"]),
], ids=["hourglass", "unet", "branches", "class token", "no class token"])  # fmt: skip
def test_the_layers_found_are_those_that_a_person_would_name(model, layers):
    assert found(model) == layers


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
    assert set(found(model)) <= {"0", "1"}


def test_a_model_without_maps_is_shown_and_hides_the_image_and_says_so_once(caplog):
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64 * 64, 5))
    augmenter = adaug.AdversarialAugmenter(adaug.policies.paper(()), seed=0)
    for _ in range(3):
        assert augmenter.step(model, classes(), cross_entropy).loss.isfinite()
    said = [record.getMessage() for record in caplog.records if record.name == "adaug"]
    assert said == ["features=None found no layer that fits: generators read and masks multiply the image."]
    assert "occlude=the image" in repr(augmenter)


def transformers_models():
    """Real networks from their configurations, with random weights."""
    t = pytest.importorskip("transformers")
    small = {"hidden_sizes": [8, 16, 32, 64], "depths": [1, 1, 1, 1]}
    convnext = t.ConvNextConfig(**small, out_features=["stage1", "stage2", "stage3", "stage4"])
    vit = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "patch_size": 8}
    return {
        "resnet": lambda: t.ResNetForImageClassification(
            t.ResNetConfig(embedding_size=8, **small, layer_type="basic", num_labels=5)
        ),
        "vit": lambda: t.ViTForImageClassification(t.ViTConfig(image_size=64, intermediate_size=32, num_labels=5, **vit)),
        "convnext": lambda: t.ConvNextForImageClassification(t.ConvNextConfig(**small, num_labels=5)),
        "segformer": lambda: t.SegformerForSemanticSegmentation(
            t.SegformerConfig(**small, decoder_hidden_size=16, num_labels=5)
        ),
        "upernet": lambda: t.UperNetForSemanticSegmentation(
            t.UperNetConfig(backbone_config=convnext, hidden_size=16, num_labels=5, auxiliary_in_channels=32)
        ),
        "vitpose": lambda: t.VitPoseForPoseEstimation(
            t.VitPoseConfig(
                backbone_config=t.VitPoseBackboneConfig(
                    **{**vit, "patch_size": [8, 8]}, image_size=[64, 48], out_features=["stage4"]
                ),
                num_labels=17, use_simple_decoder=False,
            )
        ),
    }  # fmt: skip


@pytest.mark.parametrize("name", ["resnet", "vit", "convnext", "segformer", "upernet", "vitpose"])
def test_networks_of_transformers_train_as_they_are(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # theirs, not ours
        model = transformers_models()[name]()
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

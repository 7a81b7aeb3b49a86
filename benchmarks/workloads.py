"""Networks, batches and losses to time a step on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import adaug
from examples import segmentation
from examples.classification import Residual
from examples.datasets.people import MPII
from examples.hourglass.losses import heatmap_mse
from examples.hourglass.model import StackedHourglass

Rows = dict[str, Tensor]
LossFunction = Callable[[Any, Rows], Tensor]


@dataclass(frozen=True)
class Workload:
    """A network to train: how to build it, its images, and the layers that the augmenter uses."""

    network: Callable[[], nn.Module]
    batch: Callable[[int, int], Rows]  # (images, side) -> rows
    loss_fn: LossFunction
    side: int
    images: int
    layers: dict[str, Any]
    about: str


class SmallCNN(nn.Module):
    """The network of pytorch/examples/mnist, [B, 1, 28, 28] -> logits [B, 10]."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 32, 3), nn.Conv2d(32, 64, 3)
        self.dropout1, self.dropout2 = nn.Dropout(0.25), nn.Dropout(0.5)
        self.fc1, self.fc2 = nn.Linear(64 * 12 * 12, 128), nn.Linear(128, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.conv2(F.relu(self.conv1(x)))), 2)
        x = F.relu(self.fc1(self.dropout1(x).flatten(1)))
        logits: Tensor = self.fc2(self.dropout2(x))
        return logits


class ResNet(nn.Module):
    """A network like ResNet-18 from the blocks of examples/classification.py: [B, 3, H, W] -> logits [B, 10]."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        widths = [width, width, 2 * width, 4 * width, 8 * width]
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        self.stages = nn.ModuleList(
            nn.Sequential(Residual(widths[i], widths[i + 1], 2 if i else 1), Residual(widths[i + 1], widths[i + 1], 1))
            for i in range(4)
        )
        self.score = nn.Linear(8 * width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x)
        logits: Tensor = self.score(x.mean((2, 3)))
        return logits


def _people(n: int, side: int) -> Rows:
    return {
        "image": torch.rand(n, 3, side, side),
        "keypoints": torch.rand(n, len(MPII), 2) * side,
        "visibility": torch.ones(n, len(MPII)),
    }


def _labelled(channels: int) -> Callable[[int, int], Rows]:
    """Batches of images with class labels."""
    return lambda n, side: {"image": torch.rand(n, channels, side, side), "label": torch.randint(10, (n,))}


def _cross_entropy(output: Tensor, rows: Rows) -> Tensor:
    return F.cross_entropy(output, rows["label"], reduction="none")


def _heatmap_loss(output: list[Tensor], rows: Rows) -> Tensor:
    side, size = rows["image"].shape[-1], output[-1].shape[-1]
    return heatmap_mse(
        output, adaug.keypoints.render_heatmaps(rows["keypoints"], size, stride=side // size), rows["visibility"]
    )


def _hourglass(side: int, images: int, **arguments: Any) -> Workload:
    about = f"{arguments['stacks']}-stack hourglass, {arguments['width']} channels"
    layers = {"features": ["hg.0.skip*", "hg.0.neck"], "occlude": ["hg.*.skip*", "hg.*.neck"]}
    return Workload(lambda: StackedHourglass(len(MPII), **arguments), _people, _heatmap_loss, side, images, layers, about)


WORKLOADS = {
    "hourglass-256": _hourglass(256, 6, stacks=1, width=256),
    "hourglass-128": _hourglass(128, 12, stacks=2, width=128, depth=3),
    "stacks-128": _hourglass(128, 6, stacks=8, width=96, depth=3),
    "hourglass-64": _hourglass(64, 48, stacks=1, width=64, depth=3, stride=2),
    "resnet-64": Workload(
        ResNet,
        _labelled(3),
        _cross_entropy,
        64,
        48,
        {"features": ["stages.*"], "occlude": ["stages.*"]},
        "ResNet-18 in shape, 32 channels at first",
    ),
    "unet-128": Workload(
        lambda: segmentation.UNet(width=24),
        lambda n, side: {"image": torch.rand(n, 3, side, side), "mask": torch.randint(4, (n, side, side), dtype=torch.uint8)},
        segmentation.loss_fn,
        128,
        12,
        {"features": ["down.*"], "occlude": ["down.*"], "targets": {"mask": adaug.Target("mask", fill=segmentation.IGNORE)}},
        "U-Net, 24 channels at first",
    ),
    "mnist-28": Workload(
        SmallCNN,
        _labelled(1),
        _cross_entropy,
        28,
        64,
        {"features": ["conv*"], "occlude": ["conv*"]},
        "two-layer CNN of PyTorch's MNIST example",
    ),
}

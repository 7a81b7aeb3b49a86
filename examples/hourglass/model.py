"""Stacked hourglass networks with residual or dense blocks (Newell et al., ECCV 2016; Peng, Tang et al., CVPR 2018)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

GROWTH = 32  # channels that a dense layer adds
WIDTHS = {"residual": 256, "dense": 128}  # the paper's channels of an hourglass
NECK = 4  # a dense layer's 1x1 convolution gives NECK * GROWTH channels

BlockFactory = Callable[[int, int], nn.Module]


def _convolution(inputs: int, outputs: int, kernel: int) -> nn.Sequential:
    """BN-ReLU-convolution, the pre-activation unit of every block."""
    convolution = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
    return nn.Sequential(nn.BatchNorm2d(inputs), nn.ReLU(inplace=True), convolution)


class Residual(nn.Module):
    """Pre-activation bottleneck: 1x1 halves the width, 3x3, 1x1 doubles it; [B, inputs, h, w] -> [B, outputs, h, w]."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        half = outputs // 2
        self.body = nn.Sequential(_convolution(inputs, half, 1), _convolution(half, half, 3), _convolution(half, outputs, 1))
        # In-place ReLUs follow a BatchNorm, never the block's own input, so the shortcut stays intact.
        self.shortcut = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.shortcut(x) + self.body(x)
        return out


class DenseBlock(nn.Module):
    """Densely connected bottlenecks (`layers` of them), each adding GROWTH channels; then BN-ReLU-1x1 to the block's width."""

    def __init__(self, inputs: int, outputs: int, layers: int) -> None:
        super().__init__()
        widths = [inputs + GROWTH * i for i in range(layers)]
        self.layers = nn.ModuleList(
            nn.Sequential(_convolution(width, NECK * GROWTH, 1), _convolution(NECK * GROWTH, GROWTH, 3)) for width in widths
        )
        self.transition = _convolution(inputs + GROWTH * layers, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.cat([x, layer(x)], dim=1)
        out: Tensor = self.transition(x)
        return out


def _residual_block(inputs: int, outputs: int, modules: int) -> nn.Sequential:
    return nn.Sequential(Residual(inputs, outputs), *(Residual(outputs, outputs) for _ in range(modules - 1)))


class Hourglass(nn.Module):
    """Halves the resolution `depth` times and doubles it again, with a bridge at every resolution. Keeps [B, width, h, w].

    The bridges are `skip1` (finest) to `skip{depth}` and `neck` (lowest resolution). `down{i}` and `up{i}` lead below bridge i
    and back. All bridges are computed before any `up`.
    """

    def __init__(self, width: int, depth: int, block: BlockFactory, bridge: BlockFactory) -> None:
        super().__init__()
        self.depth = depth
        for level in range(1, depth + 1):
            self.add_module(f"skip{level}", bridge(width, width))
            self.add_module(f"down{level}", block(width, width))
        self.neck = block(width, width)
        for level in range(depth, 0, -1):
            self.add_module(f"up{level}", block(width, width))

    def forward(self, x: Tensor) -> Tensor:
        bridges: list[Tensor] = []
        for level in range(1, self.depth + 1):
            bridges.append(self.get_submodule(f"skip{level}")(x))
            x = self.get_submodule(f"down{level}")(F.max_pool2d(x, 2))
        x = self.neck(x)
        for level in range(self.depth, 0, -1):
            x = self.get_submodule(f"up{level}")(x)
            x = bridges[level - 1] + F.interpolate(x, scale_factor=2.0, mode="nearest")
        return x


class StackedHourglass(nn.Module):
    """Images [B, 3, H, W] -> heat-map logits of every stack, each [B, joints, H / stride, W / stride].

    The paper's networks: `StackedHourglass(modules=3)` (9.4 M parameters, its "38M"),
    `StackedHourglass(block="dense", modules=6)` (4.4 M, its "18M") and `StackedHourglass(stacks=8)` (25.4 M).
    For 64x64 images use `stride=2, depth=3`. Heat maps are then 32x32, and the neck is 4x4 as in the paper.

    `width=None` means the paper's width: 256 for residual blocks, 128 for dense ones. `modules` is the number of residual
    modules, or of dense layers, in a block.
    """

    def __init__(
        self,
        joints: int = 16,
        *,
        stacks: int = 1,
        modules: int = 1,
        width: int | None = None,
        depth: int = 4,
        block: Literal["residual", "dense"] = "residual",
        stride: Literal[2, 4] = 4,
    ) -> None:
        super().__init__()
        if block not in ("residual", "dense"):
            raise ValueError(f"`block` should be 'residual' or 'dense'. Found {block!r}.")
        if stride not in (2, 4):
            raise ValueError(f"`stride` should be 4, or 2 for small images. Found {stride!r}.")
        if width is None:
            width = WIDTHS[block]
        if width < 4 or width % 4:
            raise ValueError(f"`width` should be a positive multiple of 4 (the stem has a quarter of it). Found {width}.")
        for name, value in {"joints": joints, "stacks": stacks, "modules": modules, "depth": depth}.items():
            if value < 1:
                raise ValueError(f"`{name}` should be at least 1. Found {value}.")
        self.joints, self.stride, self.depth = joints, stride, depth

        make: BlockFactory
        bridge: BlockFactory
        if block == "residual":
            make = bridge = partial(_residual_block, modules=modules)
        else:
            make = partial(DenseBlock, layers=modules)
            # With dense blocks on the bridges too, there would be 6.1 M parameters: 24 MB, not the paper's 18.
            bridge = partial(_convolution, kernel=1)

        self.stem = nn.Sequential(
            nn.Conv2d(3, width // 4, 7, stride=2, padding=3, bias=False),
            nn.BatchNorm2d(width // 4),
            nn.ReLU(inplace=True),
            Residual(width // 4, width // 2),
            nn.MaxPool2d(2) if stride == 4 else nn.Identity(),
            Residual(width // 2, width // 2),
            Residual(width // 2, width),
        )
        self.hg = nn.ModuleList(Hourglass(width, depth, make, bridge) for _ in range(stacks))
        self.features = nn.ModuleList(
            nn.Sequential(make(width, width), _convolution(width, width, 1), nn.BatchNorm2d(width), nn.ReLU(inplace=True))
            for _ in range(stacks)
        )
        self.score = nn.ModuleList(nn.Conv2d(width, joints, 1) for _ in range(stacks))
        self.merge_features = nn.ModuleList(nn.Conv2d(width, width, 1) for _ in range(stacks - 1))
        self.merge_scores = nn.ModuleList(nn.Conv2d(joints, width, 1) for _ in range(stacks - 1))
        for score in self.score:
            # Small first logits, near the all-zero map for MSE and near the uniform map for cross-entropy.
            nn.init.normal_(score.get_parameter("weight"), std=1e-3)
            nn.init.zeros_(score.get_parameter("bias"))

    def forward(self, image: Tensor) -> list[Tensor]:
        self._check(image)
        x = self.stem(image)  # [B, width, H / stride, W / stride]
        outputs: list[Tensor] = []
        for stack, hourglass in enumerate(self.hg):
            features = self.features[stack](hourglass(x))
            heatmaps = self.score[stack](features)  # [B, joints, H / stride, W / stride]
            outputs.append(heatmaps)
            if stack + 1 < len(self.hg):
                x = x + self.merge_features[stack](features) + self.merge_scores[stack](heatmaps)
        return outputs

    def _check(self, image: Tensor) -> None:
        if image.ndim != 4 or image.shape[1] != 3:
            raise ValueError(f"`image` should have the shape [B, 3, H, W]. Found {tuple(image.shape)}.")
        step = self.stride * 2**self.depth
        if image.shape[2] % step or image.shape[3] % step or 0 in image.shape[2:]:
            raise ValueError(
                f"`image` should have height and width divisible by stride * 2**depth = {step}. "
                f"Found {image.shape[2]}x{image.shape[3]}. Resize it, or choose another `depth` or `stride`."
            )

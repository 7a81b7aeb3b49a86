"""Small networks that return classes, built like well-known ones: their order of layers, their layouts and their names."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups)


def conv_bn(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(conv(inputs, outputs, kernel, stride), nn.BatchNorm2d(outputs), nn.ReLU())


class WindowBlock(nn.Module):
    """Attention within windows of [B, h, w, C], then an MLP, both residual."""

    def __init__(self, width: int, window: int) -> None:
        super().__init__()
        self.window = window
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, 2, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        b, h, w, c = x.shape
        s = min(self.window, h, w)
        windows = self.norm1(x).view(b, h // s, s, w // s, s, c).transpose(2, 3).reshape(-1, s * s, c)
        windows = self.attn(windows, windows, windows, need_weights=False)[0]
        x = x + windows.view(b, h // s, w // s, s, s, c).transpose(2, 3).reshape(b, h, w, c)
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class Merging(nn.Module):
    """Four neighbours become one place of twice the width."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.reduction = nn.LayerNorm(4 * width), nn.Linear(4 * width, 2 * width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        b, h, w, c = x.shape
        x = x.view(b, h // 2, 2, w // 2, 2, c).transpose(2, 3).reshape(b, h // 2, w // 2, 4 * c)
        out: Tensor = self.reduction(self.norm(x))
        return out


class Swin(nn.Module):
    """Stages of [B, h, w, C]. `square`: as many channels as the first stage has rows and columns, on 64 x 64 pixels."""

    def __init__(self, square: bool = False) -> None:
        super().__init__()
        width = 16 if square else 12
        self.patch = nn.Conv2d(3, width, 4, 4)
        stages = [[WindowBlock(width << i, 4) for _ in range(2)] for i in range(3)]
        self.layers = nn.ModuleList(
            nn.Sequential(*([Merging(width << (i - 1))] if i else []), *blocks) for i, blocks in enumerate(stages)
        )
        self.norm, self.head = nn.LayerNorm(4 * width), nn.Linear(4 * width, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).permute(0, 2, 3, 1)
        for layer in self.layers:
            x = layer(x)
        out: Tensor = self.head(self.norm(x).mean((1, 2)))
        return out


class PreActivation(nn.Module):
    """A block of ResNetV2 or, without normalisation, of NFNet: the shortcut leaves after the first activation."""

    def __init__(self, inputs: int, outputs: int, stride: int, norm: bool) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(inputs) if norm else nn.Identity()
        self.downsample = nn.Conv2d(inputs, outputs, 1, stride) if stride > 1 or inputs != outputs else None
        self.conv1, self.conv2 = conv(inputs, outputs // 2, 1), conv(outputs // 2, outputs // 2, 3, stride)
        self.conv3 = conv(outputs // 2, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm1(x))
        shortcut = x if self.downsample is None else self.downsample(y)
        out: Tensor = shortcut + 0.5 * self.conv3(F.relu(self.conv2(F.relu(self.conv1(y)))))
        return out


class ResNetV2(nn.Module):
    def __init__(self, norm: bool = True) -> None:
        super().__init__()
        self.stem = conv(3, 8, 3, 2)
        widths = (8, 16, 32, 64)
        self.stages = nn.Sequential(*(
            nn.Sequential(PreActivation(a, b, 2, norm), PreActivation(b, b, 1, norm))
            for a, b in pairwise(widths)
        ))  # fmt: skip
        self.final_conv = nn.Identity() if norm else conv(64, 256, 1)
        self.norm = nn.BatchNorm2d(64) if norm else nn.Identity()
        self.head = nn.Linear(64 if norm else 256, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.final_conv(self.norm(self.stages(self.stem(x)))))
        out: Tensor = self.head(x.mean((2, 3)))
        return out


class MaxVit(nn.Module):
    """Stages of a convolution block and attention within windows and over a grid of all the map."""

    class Block(nn.Module):
        def __init__(self, inputs: int, outputs: int) -> None:
            super().__init__()
            self.shortcut = nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(inputs, outputs, 1))
            self.conv = nn.Sequential(conv_bn(inputs, outputs, 1), conv_bn(outputs, outputs, 3, 2))
            self.attn_block, self.attn_grid = WindowBlock(outputs, 4), WindowBlock(outputs, 4)

        def forward(self, x: Tensor) -> Tensor:
            x = self.attn_block((self.shortcut(x) + self.conv(x)).permute(0, 2, 3, 1))
            b, h, w, c = x.shape
            s = min(4, h, w)
            grid = x.view(b, s, h // s, s, w // s, c).permute(0, 2, 1, 4, 3, 5).reshape(b, h, w, c)
            grid = self.attn_grid(grid).view(b, h // s, s, w // s, s, c).permute(0, 2, 1, 4, 3, 5)
            return grid.reshape(b, h, w, c).permute(0, 3, 1, 2)

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn(3, 8, 3, 2)
        self.stages = nn.Sequential(*(self.Block(a, b) for a, b in ((8, 16), (16, 24), (24, 32))))
        self.head = nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.stages(self.stem(x)).mean((2, 3)))
        return out


class DualPath(nn.Module):
    """DPN: blocks that hand on a residual and a dense part as a tuple."""

    class Block(nn.Module):
        def __init__(self, residual: int, dense: int, grows: int, stride: int) -> None:
            super().__init__()
            self.residual = residual
            self.c1x1_w_s2 = conv(dense, residual + grows, 1, stride) if stride > 1 else None
            self.c1x1_a, self.c3x3_b = conv(dense, 8, 1), conv(8, 8, 3, stride)
            self.c1x1_c = conv(8, residual + grows, 1)

        def forward(self, x: Tensor | tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
            parts: tuple[Tensor, ...] = x if isinstance(x, tuple) else (x,)
            joined = torch.cat(parts, 1)
            if self.c1x1_w_s2 is not None:
                parts = self.c1x1_w_s2(joined).split([self.residual, 4], 1)
            new = self.c1x1_c(F.relu(self.c3x3_b(F.relu(self.c1x1_a(joined)))))
            return parts[0] + new[:, : self.residual], torch.cat([parts[1], new[:, self.residual :]], 1)

    class Join(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.bn = nn.BatchNorm2d(width)

        def forward(self, x: tuple[Tensor, Tensor]) -> Tensor:
            return F.relu(self.bn(torch.cat(x, 1)))

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            conv_bn(3, 8, 3, 2), self.Block(12, 8, 4, 2), self.Block(12, 20, 4, 1), self.Block(24, 24, 4, 2), self.Join(32)
        )
        self.classifier = nn.Conv2d(32, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).mean((2, 3), keepdim=True)).flatten(1)


class Xception(nn.Module):
    """Separable convolutions without padding at first, and shortcuts that are called skip and go past no resolution."""

    class Block(nn.Module):
        def __init__(self, inputs: int, outputs: int) -> None:
            super().__init__()
            self.skip = nn.Conv2d(inputs, outputs, 1, 2)
            self.rep = nn.Sequential(
                nn.ReLU(), conv(inputs, inputs, groups=inputs), conv(inputs, outputs, 1), nn.BatchNorm2d(outputs),
                nn.MaxPool2d(3, 2, 1),
            )  # fmt: skip

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.rep(x) + self.skip(x)
            return out

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 8, 3, 2), nn.Conv2d(8, 12, 3)
        self.block1, self.block2, self.block3 = self.Block(12, 16), self.Block(16, 24), self.Block(24, 32)
        self.conv3, self.fc = conv(32, 48, 1), nn.Linear(48, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv2(self.conv1(x).relu()).relu()
        out: Tensor = self.fc(self.conv3(self.block3(self.block2(self.block1(x)))).relu().mean((2, 3)))
        return out


class Frozen(nn.Module):
    """A backbone that runs without gradients, so that nothing flows back to the image."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(conv_bn(3, 8, 3, 2), conv_bn(8, 16, 3, 2), conv_bn(16, 32, 3, 2))
        self.head = nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            x = self.backbone(x)
        out: Tensor = self.head(x.mean((2, 3)))
        return out


class Tokens(nn.Module):
    """A vision transformer of four blocks, with or without a class token."""

    def __init__(self, class_token: bool) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 16, 8, 8)
        self.token = nn.Parameter(torch.zeros(1, 1, 16)) if class_token else None
        self.blocks = nn.ModuleList(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True) for _ in range(4))
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        if self.token is not None:
            x = torch.cat([self.token.expand(len(x), -1, -1), x], 1)
        for block in self.blocks:
            x = block(x)
        out: Tensor = self.head(x[:, 0] if self.token is not None else x.mean(1))
        return out

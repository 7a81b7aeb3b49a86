"""Small networks built like well-known ones: their order of layers, their layouts, their names, and where their logits are."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups)


def conv_bn(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(conv(inputs, outputs, kernel, stride), nn.BatchNorm2d(outputs), nn.ReLU())


class DeepLab(nn.Module):
    """As torchvision's: a backbone that gives a dictionary, logits at 1/16 that are scaled up, perhaps auxiliary ones."""

    class Backbone(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for i, (inputs, outputs) in enumerate(((3, 8), (8, 12), (12, 16), (16, 24))):
                self.add_module(str(i), conv_bn(inputs, outputs, stride=2))

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            maps = {}
            for name, layer in self.named_children():
                x = maps[name] = layer(x)
            return {"out": maps["3"], "aux": maps["1"]}

    def __init__(self, aux: bool = False) -> None:
        super().__init__()
        self.backbone = self.Backbone()
        self.classifier = nn.Sequential(conv_bn(24, 32, 1), conv_bn(32, 32), nn.Conv2d(32, 21, 1))
        self.aux_classifier = nn.Sequential(conv_bn(12, 8), nn.Conv2d(8, 21, 1)) if aux else None

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        maps, size = self.backbone(x), x.shape[-2:]
        out = {"out": F.interpolate(self.classifier(maps["out"]), size=size, mode="bilinear", align_corners=False)}
        if self.aux_classifier is not None:
            out["aux"] = F.interpolate(self.aux_classifier(maps["aux"]), size=size, mode="bilinear", align_corners=False)
        return out


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
            parts = x if isinstance(x, tuple) else (x,)
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


class Residual(nn.Module):
    """Of the stacked hourglass of princeton-vl: its projection is called skip_layer, in use or not."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        half = outputs // 2
        self.conv1, self.conv2, self.conv3 = conv(inputs, half, 1), conv(half, half), conv(half, outputs, 1)
        self.skip_layer = conv(inputs, outputs, 1)
        self.need_skip = inputs != outputs

    def forward(self, x: Tensor) -> Tensor:
        residual = self.skip_layer(x) if self.need_skip else x
        out: Tensor = self.conv3(self.conv2(self.conv1(x.relu()).relu()).relu()) + residual
        return out


class Hourglass(nn.Module):
    def __init__(self, depth: int, width: int, more: int = 8) -> None:
        super().__init__()
        self.up1, self.pool1, self.low1 = Residual(width, width), nn.MaxPool2d(2, 2), Residual(width, width + more)
        self.low2 = Hourglass(depth - 1, width + more) if depth > 1 else Residual(width + more, width + more)
        self.low3 = Residual(width + more, width)
        self.up2 = nn.Upsample(scale_factor=2, mode="nearest")

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.up1(x) + self.up2(self.low3(self.low2(self.low1(self.pool1(x)))))
        return out


class PoseNet(nn.Module):
    """The stacked hourglass of princeton-vl: bridges hgs.{i}.0.up1, heat maps of every stack."""

    def __init__(self, stacks: int = 2, width: int = 16) -> None:
        super().__init__()
        self.pre = nn.Sequential(conv_bn(3, 8, 3, 2), Residual(8, 12), nn.MaxPool2d(2, 2), Residual(12, width))
        self.hgs = nn.ModuleList(nn.Sequential(Hourglass(2, width)) for _ in range(stacks))
        self.features = nn.ModuleList(nn.Sequential(Residual(width, width), conv_bn(width, width, 1)) for _ in range(stacks))
        self.outs = nn.ModuleList(conv(width, 5, 1) for _ in range(stacks))
        self.merge_features = nn.ModuleList(conv(width, width, 1) for _ in range(stacks - 1))
        self.merge_preds = nn.ModuleList(conv(5, width, 1) for _ in range(stacks - 1))

    def forward(self, x: Tensor) -> Tensor:
        x, outputs = self.pre(x), []
        for i, hourglass in enumerate(self.hgs):
            feature = self.features[i](hourglass(x))
            outputs.append(self.outs[i](feature))
            if i < len(self.hgs) - 1:
                x = x + self.merge_preds[i](outputs[-1]) + self.merge_features[i](feature)
        return torch.stack(outputs, 1)


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

"""Small networks that return maps, built like well-known ones: DeepLab, a U-Net, HRNet, stacked hourglasses."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.architectures import conv, conv_bn


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


class UNet(nn.Module):
    """Three levels with concatenating skips."""

    def __init__(self) -> None:
        super().__init__()
        self.enc1, self.enc2, self.mid = (self.block(*sizes) for sizes in ((3, 8), (8, 16), (16, 32)))
        self.dec2, self.dec1, self.head = self.block(48, 16), self.block(24, 8), nn.Conv2d(8, 5, 1)

    @staticmethod
    def block(inputs: int, outputs: int) -> nn.Sequential:
        return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        a = self.enc1(x)
        b = self.enc2(F.max_pool2d(a, 2))
        c = self.mid(F.max_pool2d(b, 2))
        b = self.dec2(torch.cat([b, F.interpolate(c, scale_factor=2.0)], 1))
        out: Tensor = self.head(self.dec1(torch.cat([a, F.interpolate(b, scale_factor=2.0)], 1)))
        return out


class Branches(nn.Module):
    """HRNet-like: two resolutions side by side, exchanged and fused."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1)
        self.high1, self.low1 = nn.Conv2d(8, 8, 3, 1, 1), nn.Conv2d(8, 16, 3, 2, 1)
        self.high2, self.low2 = nn.Conv2d(8, 8, 3, 1, 1), nn.Conv2d(16, 16, 3, 1, 1)
        self.up, self.head = nn.Conv2d(16, 8, 1), nn.Conv2d(8, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        high, low = self.high1(x).relu(), self.low1(x).relu()
        high, low = self.high2(high).relu(), self.low2(low).relu()
        out: Tensor = self.head(high + F.interpolate(self.up(low), scale_factor=2.0))
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

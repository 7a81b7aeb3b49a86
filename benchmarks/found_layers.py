"""Which layers does features=None find, in networks of many kinds? And which did adaug 0.2.0 find?

    python benchmarks/found_layers.py

Without timm and torchvision, their networks are left out.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import architectures as nets
from benchmarks import dense_architectures as dense
from benchmarks.public_networks import Make, timm_networks, transformers_networks
from examples.hourglass.model import StackedHourglass

Size = tuple[int, int]

BUILT_ALIKE: dict[str, tuple[Make, Size]] = {
    "DeepLab": (dense.DeepLab, (128, 128)),
    "DeepLab with auxiliary logits": (lambda: dense.DeepLab(aux=True), (128, 128)),
    "Swin": (nets.Swin, (128, 128)),
    "Swin, as many channels as rows": (lambda: nets.Swin(square=True), (64, 64)),
    "ResNetV2": (nets.ResNetV2, (128, 128)),
    "NFNet": (lambda: nets.ResNetV2(norm=False), (128, 128)),
    "MaxViT": (nets.MaxVit, (128, 128)),
    "DPN": (nets.DualPath, (128, 128)),
    "Xception": (nets.Xception, (128, 128)),
    "hourglass of princeton-vl": (dense.PoseNet, (128, 128)),
    "without gradients": (nets.Frozen, (128, 128)),
    "U-Net": (dense.UNet, (64, 64)),
    "HRNet": (dense.Branches, (64, 64)),
    "class token": (lambda: nets.Tokens(class_token=True), (64, 64)),
    "no class token": (lambda: nets.Tokens(class_token=False), (64, 64)),
    "hourglass of the examples": (lambda: StackedHourglass(stacks=2, width=16, depth=3, stride=2), (64, 64)),
    "hourglass of the examples, deep": (lambda: StackedHourglass(stacks=2, width=16), (128, 128)),
}


def networks() -> dict[str, tuple[Make, Size]]:
    """All networks by name, each with the image size that it is tried on."""
    return {**BUILT_ALIKE, **transformers_networks(), **timm_networks()}


def trained_a_bit(make: Make, size: Size) -> nn.Module:
    """A network in evaluation mode whose running statistics have seen some images."""
    torch.manual_seed(0)
    model = make()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = None
    model.train()
    with torch.no_grad():
        model(torch.rand(4, 3, *size))
    return model.eval()

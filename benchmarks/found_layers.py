"""Which layers does features=None find in networks of many kinds? Which did adaug 0.2.0 find?

    python benchmarks/found_layers.py

Networks of packages that are not installed are left out. What 0.2.0 found is in results/found_layers_before.json.
"""

from __future__ import annotations

import json
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import adaug
from benchmarks import architectures as nets
from benchmarks import dense_architectures as dense
from benchmarks.public_networks import Make, Size, timm_networks, transformers_networks
from benchmarks.result_files import RESULTS, save
from examples.hourglass.model import StackedHourglass

SMALL: dict[str, tuple[Make, Size]] = {
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
    return {**SMALL, **transformers_networks(), **timm_networks()}


def make_network(make: Make, size: Size) -> nn.Module:
    """A network in evaluation mode whose running statistics have seen some images."""
    torch.manual_seed(0)
    model = make()
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)):
            module.momentum = None
    model.train()
    with torch.no_grad():
        model(torch.rand(4, 3, *size))
    return model.eval()


@dataclass(frozen=True)
class Outcome:
    """What was found in one network: layers to read and to mask, or the error that asks for names."""

    read: list[str]
    hide: list[str]
    leak: float = 0.0  # of older outcomes
    error: str = ""


def found_in(model: nn.Module, size: Size) -> Outcome:
    """What `bind` finds in a model for the paper's policy. It also checks that masks hide a change in a hidden cell."""
    augmenter = adaug.AdversarialAugmenter(adaug.policies.paper(), seed=0)
    try:
        augmenter.bind(model, {"image": torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(1))})
    except ValueError as error:
        return Outcome([], [], error=str(error))
    layers = augmenter.layers
    augmenter.detach()
    return Outcome(list(layers["features"]), list(layers["occlude"]))


def row(name: str, found: Outcome, before: Outcome) -> str:
    """A line of the table."""
    now = "asks for names" if found.error else "the same" if found.read == before.read else _names(found.read)
    more = [layer for layer in found.hide if layer not in found.read]
    return f"| {name} | {_names(before.read)} | {now} | {_names(more) or 'no'} |"


def _names(layers: list[str]) -> str:
    return " ".join(f"`{name}`" for name in layers)


def main() -> None:
    warnings.simplefilter("ignore")  # of others
    stored = json.loads((RESULTS / "found_layers_before.json").read_text())
    before = {name: Outcome(**layers) for name, layers in stored["layers"].items()}
    found = {name: found_in(make_network(make, size), size) for name, (make, size) in networks().items()}
    named = sum(not outcome.error for outcome in found.values())
    same = sum(outcome.read == before[name].read for name, outcome in found.items())
    lines = [
        f"Layers are found in {named} of {len(found)} networks; adaug asks for names in {len(found) - named}. In {same} they "
        "are those that 0.2.0 read. Where layers are found, masks on them let less than a fifth of a change in a hidden cell "
        "reach the output, or no change reaches it even without masks.",
        "",
        "| network | 0.2.0 read | read now | masked as well |",
        "|---|---|---|---|",
        *(row(name, outcome, before[name]) for name, outcome in found.items()),
        "",
        f"0.2.0: {stored['made by']}.",
    ]
    save("found_layers", {}, "\n".join(lines))


if __name__ == "__main__":
    main()

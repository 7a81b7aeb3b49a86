"""How long would the paper's runs take, and how much memory do they need? Counted on one image, not measured on a GPU.

    python benchmarks/network_costs.py

Torch's counter gives the operations of a forward pass, and hooks of autograd the bytes that it keeps. Hours are operations
divided by an assumed rate, for MPII's training people and the epochs of `--paper`. For adversarial steps the formula of
docs/performance.md applies, with the measured depth of the look.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.result_files import save
from examples.hourglass.config import PAPER
from examples.hourglass.model import StackedHourglass

NETWORKS: dict[str, dict[str, Any]] = {
    "residual, 1 × 3": {"modules": 3},
    "dense, 1 × 6": {"block": "dense", "modules": 6},
    "residual, 8 × 1": {"stacks": 8},
}
PEOPLE = 22_246  # MPII's training people without Tompson's validation people
SHARE = 2 / 3  # share of the rows in learned branches
RATE = 10e12  # assumed operations per second
IMAGE = (1, 3, 256, 256)


class _Stop(Exception):
    """Ends a forward pass."""


def forward_operations(model: nn.Module, until: str | None = None) -> int:
    """Multiplications and additions of a forward pass of one image, up to a layer if one is named."""

    def stop(*_: Any) -> None:
        raise _Stop

    handle = model.get_submodule(until).register_forward_hook(stop) if until else None
    with torch.no_grad(), FlopCounterMode(display=False) as counter, suppress(_Stop):
        model(torch.zeros(IMAGE))
    if handle is not None:
        handle.remove()
    return int(counter.get_total_flops())


def kept_bytes(model: nn.Module) -> int:
    """The bytes that autograd keeps for one image until the backward pass, without weights."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = model(torch.zeros(IMAGE))
    del output
    return sum(kept.values())


def measure(arguments: dict[str, Any]) -> dict[str, float]:
    """The costs of one network."""
    model = StackedHourglass(**arguments).train()
    forward, look = forward_operations(model), forward_operations(model, "hg.0.neck")
    depth = look / forward
    first, _, third = PAPER.epochs
    plain = 3 * forward * PEOPLE  # a forward pass counts 1, a backward pass 2
    adversarial = (3 + SHARE * (depth + 2)) * forward * PEOPLE
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return {
        "parameters": parameters,
        "gflop_forward": forward / 1e9,
        "depth_of_look": depth,
        "activation_mib": kept_bytes(model) / 2**20,
        "hours_random": (first + third) * plain / RATE / 3600,
        "hours_stage_2": (PAPER.pretrain_views + 2 * depth) * forward * PEOPLE / RATE / 3600,  # the views, and a look a branch
        "hours_adversarial": (first * plain + third * adversarial) / RATE / 3600,
    }


def table(networks: dict[str, dict[str, float]]) -> str:
    """The costs as Markdown."""
    lines = [
        "| network, 256 × 256 | parameters | forward, GFLOP an image | the look's part of it | activations, MiB an image | "
        "hours, random | hours, adversarial | hours, stage 2 |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for name, cost in networks.items():
        lines.append(
            f"| {name} | {cost['parameters'] / 1e6:.2f} M | {cost['gflop_forward']:.1f} | {cost['depth_of_look']:.2f} | "
            f"{cost['activation_mib']:.0f} | {cost['hours_random']:.0f} | {cost['hours_adversarial']:.0f} | "
            f"{cost['hours_stage_2']:.1f} |"
        )
    first, _, third = PAPER.epochs
    return "\n".join([
        *lines,
        "",
        f"**Counted and computed, not measured**: hours for {first} + {third} epochs of {PEOPLE:,} people at an assumed "
        f"{RATE / 1e12:.0f} TFLOP/s sustained, without the evaluations, on one GPU; an epoch of stage 2, which "
        "adversarial arms take besides, has a column of its own. n GPUs need a batch that they can share: 24 people on 8 GPUs "
        "are three a GPU, too few for BatchNorm and for a GPU's speed, and a larger batch is another training. "
        "Activations are of 32-bit floats; 16 bits halve them. Memory is batch × activations, and about four times the "
        "weights. Operations alone do not tell the dense network's time, whose concatenations move much memory.",
    ])  # fmt: skip


def main() -> None:
    networks = {name: measure(arguments) for name, arguments in NETWORKS.items()}
    print(table(networks))
    print(f"written to {save('network_costs', networks, table(networks))}")


if __name__ == "__main__":
    main()

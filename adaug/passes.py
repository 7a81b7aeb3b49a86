"""The user's model as the library sees it: bound once, then looked through and scored without a trace."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.func import functional_call

from adaug.batch import Batch, check_flip
from adaug.layers import Layer, Probe, find_layers, is_compiled, match_layers, probe, refuse_inner_ddp, refuse_sharded, unwrap
from adaug.operations import OccludeFeatures, OccludeImage, Photometric
from adaug.policy import Policy
from adaug.taps import FeatureMasks, Taps, quiet
from adaug.view import Size

LossFunction = Callable[[Any, Any], Tensor]  # (output, batch) -> one number per sample, [B]
Measure = tuple[LossFunction, str]  # what gives one number per sample, and what an error should call it
Shape = tuple[int, int, int]
D = TypeVar("D", torch.device, None)


@dataclass(frozen=True)
class Bound:
    """One model with its hooks. `policy` is the user's, with masks on the image when no layer takes them."""

    model: nn.Module
    device: torch.device
    policy: Policy
    taps: Taps
    shapes: tuple[Shape, ...]  # of the features that the generators read

    def look(self, rows: Batch) -> list[Tensor]:
        """The features that the generators read, as the model has them now."""
        if not self.taps.features:
            return [rows.image]
        with quiet(self.model, self.device):
            return self.taps.look(self.model, rows.image)

    def score(self, rows: Batch, masks: FeatureMasks, measure: Measure, *, training: bool = False) -> Tensor:
        """The difficulty of every row, float32 [n]; eval behaviour, so that rows do not influence each other.

        training: in the behaviour of the training pass, to be compared with it.
        """
        with quiet(self.model, self.device, training=training), self.taps.masked(masks):
            if not training:
                return difficulty_of(self.model(rows.image), rows, measure)
            # Running statistics move in copies: a pending backward pass may need the buffers as they are.
            buffers = {name: buffer.clone() for name, buffer in self.model.named_buffers()}
            return difficulty_of(functional_call(self.model, buffers, (rows.image,)), rows, measure)


def bind(
    model: nn.Module, rows: Batch, policy: Policy, features: Sequence[str] | None, occlude: Sequence[str] | None, output: Size
) -> Bound:
    """Finds the layers, attaches the hooks, and tries them on the first rows. Raises before anything is attached."""
    inner = unwrap(model)
    refuse_sharded(inner.modules())  # once: a walk through a large network takes milliseconds
    refuse_inner_ddp(inner)
    device = device_of(inner, rows.image.device)
    branches = policy.branches
    hides = any(isinstance(op, OccludeFeatures) for branch in branches for op in branch.operations)
    reads = any(branch.learned for branch in branches)
    first = rows.image_only().rows(torch.arange(min(2, len(rows)), device=device))
    image = first.seen(policy.view({}, len(first), rows.size, output, device=device), output).image
    seen = Probe({}, set(), {})
    if (reads and features != ()) or (hides and occlude != ()):
        with quiet(inner, device):
            seen = probe(inner, image)
    read: list[str] = []
    if features is None and (reads or (hides and occlude is None)):
        read = find_layers(seen)
    elif features:
        read = match_layers(inner, features, "features")
    hidden = (match_layers(inner, occlude, "occlude") if occlude else list(read) if occlude is None else []) if hides else []
    layers = seen.layers
    silent = [name for name in [*(read if reads else ()), *hidden] if name not in layers]
    if silent:
        raise ValueError(
            "Layers of `features` and `occlude` should run in the model's forward and return feature maps [B, C, h, w] or "
            f"tokens [B, N, C]. Found that {', '.join(dict.fromkeys(silent))} did not; those that do are "
            f"{', '.join(list(layers)[:20])}."
        )
    taps = Taps(inner, {name: layers[name] for name in read} if reads else {}, {name: layers[name] for name in hidden})
    if is_compiled(model.modules()):
        torch.compiler.reset()  # compiled code that predates the hooks would never call them
    maps = list(taps.features.values()) or [Layer(image.shape[1], (image.shape[2], image.shape[3]))]
    shapes = tuple((layer.channels, *layer.size) for layer in maps)
    return Bound(inner, device, policy if hidden else _on_image(policy), taps, shapes)


def device_of(model: nn.Module, default: D) -> torch.device | D:
    """Where the model is; `default` when it has no parameters."""
    tensor = next(itertools.chain(model.parameters(), model.buffers()), None)
    return default if tensor is None else tensor.device


def difficulty_of(output: Any, rows: Batch, measure: Measure) -> Tensor:
    """What a measure says of every row, float32 [n], without a graph."""
    function, name = measure
    with torch.no_grad():
        values = function(output, rows.user())
    check_losses(values, len(rows), name)
    return values.detach().float()


def check_losses(values: Any, n: int, name: str) -> None:
    """Raises unless `values` holds one number per sample."""
    if not isinstance(values, Tensor):
        raise TypeError(f"`{name}` should return a tensor, one loss per sample, shape ({n},). Found {type(values).__name__}.")
    if values.shape != (n,):
        raise ValueError(
            f"`{name}` should return one loss per sample, shape ({n},). Found shape {tuple(values.shape)}. "
            "Use reduction='none' and average over the other dimensions."
        )


def check_policy(policy: Policy, rows: Batch, *, wait: bool = True) -> None:
    """Raises ValueError when a batch cannot go through a policy: flips without pairs, colours outside [0, 1].

    wait: whether to look at pixel values on a GPU too, which means waiting for it.
    """
    if policy.flip is not None:
        check_flip(rows, policy.flip.pairs)
    operations = [*policy.common, *(operation for branch in policy.branches for operation in branch.operations)]
    coloured = [type(operation).__name__ for operation in operations if isinstance(operation, Photometric)]
    if not coloured or (rows.image.device.type != "cpu" and not wait):
        return
    low, high = (float(edge) for edge in rows.image.detach().aminmax())
    if low < -0.01 or high > 1.01:
        raise ValueError(
            f"{', '.join(coloured)} should get images in [0, 1]. Found values from {low:.3g} to {high:.3g}; normalise inside "
            "the model, or leave the colour operations out."
        )


def _on_image(policy: Policy) -> Policy:
    """The policy with every mask on the image."""
    return replace(
        policy,
        branches=[
            replace(
                branch,
                operations=[
                    OccludeImage(op.grid, op.cells) if isinstance(op, OccludeFeatures) else op for op in branch.operations
                ],
            )
            for branch in policy.branches
        ],
    )

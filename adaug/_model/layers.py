"""Layers by name or pattern, and how to read their outputs as feature maps.

A feature map is [B, C, h, w], or [B, h, w, C] with channels last, or the tokens [B, N, C] of a transformer, perhaps after a
class token or registers.
"""

from __future__ import annotations

import difflib
import fnmatch
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from adaug._batches.tree import leaves
from adaug._runtime.geometry import Size

PREFIXES = (0, 1, 2, 5)  # tokens before the patches: none, a class token, with a distillation token, with registers
NEAR = 0.11  # two places are the same if they are at most this part of a side apart


@dataclass(frozen=True)
class Layer:
    """What a layer returns for one row.

    Attributes:
        channels: C.
        size: Height and width of its map.
        prefix: The number of tokens before those of the map. None if it does not return tokens.
        channels_last: Whether it returns [B, h, w, C].
    """

    channels: int
    size: Size
    prefix: int | None = None
    channels_last: bool = False

    @property
    def area(self) -> int:
        """The number of pixels in its map."""
        return self.size[0] * self.size[1]

    def as_map(self, output: Tensor) -> Tensor:
        """Its output as a feature map [B, C, h, w]."""
        if self.prefix is None:
            return output.movedim(3, 1) if self.channels_last else output
        return output[:, self.prefix :].transpose(1, 2).unflatten(2, self.size)

    def masked(self, output: Tensor, mask: Tensor) -> Tensor:
        """Its output times a mask [B, 1, h, w]. Tokens before those of the map stay as they are."""
        if self.prefix is None:
            return output * (mask.movedim(1, 3) if self.channels_last else mask).to(output.dtype)
        places = mask.flatten(1)[..., None].to(output.dtype)  # [B, N, 1]
        return torch.cat([output[:, : self.prefix], output[:, self.prefix :] * places], 1)


def describe(output: Tensor, image: Tensor) -> Layer | None:
    """Describes a layer's output: a feature map or tokens of a grid. None if it is neither.

    Its shape and that of the image decide. In a shape like [2, 16, 16, 16] channels may come first or last. Then the place
    where the first two rows differ decides. If this tells nothing, channels come first.
    """
    possible = readings(output, image)
    return (_where_it_changes(possible, output, image) or possible)[0] if possible else None


def is_unclear(output: Tensor, image: Tensor) -> bool:
    """Whether neither the shape nor a change in the image tells where a map has its channels."""
    possible = readings(output, image)
    return len(possible) > 1 and len(_where_it_changes(possible, output, image)) != 1


def readings(output: Tensor, image: Tensor) -> list[Layer]:
    """All readings of an output that its shape and that of the image allow."""
    if output.ndim not in (3, 4) or len(output) != len(image):
        return []
    aspect = image.shape[-1] / image.shape[-2]
    if output.ndim == 4:
        first = Layer(output.shape[1], (output.shape[2], output.shape[3]))
        last = Layer(output.shape[3], (output.shape[1], output.shape[2]), channels_last=True)
        # a single place cannot be hidden, and pooled channels [B, C, 1, 1] are not a map of C x 1
        return [layer for layer in (first, last) if _fits(layer.size, aspect) and (layer is first or min(layer.size) > 1)]
    for prefix in PREFIXES:
        n = output.shape[1] - prefix
        height = round(math.sqrt(n / aspect)) if n > 0 else 0
        if height > 1 and height * round(height * aspect) == n:
            return [Layer(output.shape[2], (height, n // height), prefix)]
    return []


def _fits(size: Size, aspect: float) -> bool:
    """Whether a map has the aspect ratio of the image. Each side may be off by a pixel."""
    height, width = size
    return abs(width - height * aspect) <= 1 + 0.1 * width or abs(height - width / aspect) <= 1 + 0.1 * height


def _where_it_changes(possible: Sequence[Layer], output: Tensor, image: Tensor) -> list[Layer]:
    """The readings in which the first two rows differ at the same place as in the image."""
    if len(possible) < 2 or len(image) < 2 or output.is_meta:
        return []
    changed = _centre((image[1] - image[0]).abs().sum(0))
    maps = [layer.as_map(output.detach()) for layer in possible]
    centres = [_centre((rows[1] - rows[0]).abs().sum(0)) for rows in maps]
    return [layer for layer, centre in zip(possible, centres, strict=True) if float((centre - changed).abs().max()) < NEAR]


def _centre(weight: Tensor) -> Tensor:
    """The centre of mass [2] of weights [h, w], from 0 to 1 down and across. NaN if all weights are 0."""
    weight = weight.float()
    places = [(torch.arange(n, device=weight.device) + 0.5) / n for n in weight.shape]
    return torch.stack([(weight.sum(1 - axis) * places[axis]).sum() for axis in (0, 1)]) / weight.sum()


def layer_names(model: nn.Module) -> dict[str, nn.Module]:
    """The layers by the names that the user knows, also if parts are compiled."""
    return {
        name.replace("_orig_mod.", ""): module
        for name, module in model.named_modules(remove_duplicate=False)
        if name and not name.endswith("_orig_mod")
    }


def match_layers(model: nn.Module, patterns: Sequence[str], argument: str) -> list[str]:
    """The layers that match names or fnmatch patterns, in the model's order.

    If a pattern matches a layer and its parts, only the layer counts, so "hg.0.skip*" does not match the inside of a skip.
    If a pattern matches nothing, the ValueError names the nearest layers.
    """
    layers = layer_names(model)
    names = list(layers)
    chosen: set[str] = set()
    for pattern in patterns:
        matched = [name for name in names if fnmatch.fnmatchcase(name, pattern)]
        if not matched:
            near = difflib.get_close_matches(pattern, names, n=5, cutoff=0.3) or names[:5]
            raise ValueError(
                f"`{argument}` should name layers of the model. Found {pattern!r}, which matches none; "
                f"the nearest are {', '.join(near)}."
            )
        hits = set(matched)
        chosen |= {name for name in matched if not any(parent in hits for parent in parents(name))}
    meant = {id(layers[name]) for name in chosen}
    first = {id(layers[name]): name for name in reversed(names)}  # a layer with two names goes by the first
    return [name for name in names if id(layers[name]) in meant and first[id(layers[name])] == name]


def parents(name: str) -> Iterator[str]:
    """The names of the modules around a layer, from the inside out."""
    while "." in name:
        name = name.rpartition(".")[0]
        yield name


def tensors_in(output: Any) -> Iterator[Tensor]:
    """The tensors in an output: the output itself, or those in its tuples, lists and mappings."""
    return (leaf for _, leaf in leaves(output) if isinstance(leaf, Tensor))

"""Which layers a generator reads and a mask multiplies: by name, by pattern, or found; and how their outputs are maps.

A feature map is [B, C, h, w], or tokens [B, N, C] of a transformer, perhaps behind a class token or registers.
"""

from __future__ import annotations

import difflib
import fnmatch
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from adaug._warp import Size

PREFIXES = (0, 1, 2, 5)  # tokens before the patches: none, a class token, with a distillation token, with registers


@dataclass(frozen=True)
class Layer:
    """What a layer gives for one row.

    Attributes:
        channels: C.
        size: Height and width of its map.
        prefix: The number of tokens before those of the map; None where it gives no tokens.
    """

    channels: int
    size: Size
    prefix: int | None = None

    @property
    def area(self) -> int:
        """Places in its map."""
        return self.size[0] * self.size[1]

    def as_map(self, output: Tensor) -> Tensor:
        """Its output as a feature map [B, C, h, w]."""
        if self.prefix is None:
            return output
        return output[:, self.prefix :].transpose(1, 2).unflatten(2, self.size)

    def masked(self, output: Tensor, mask: Tensor) -> Tensor:
        """Its output times a mask [B, 1, h, w]; tokens before the patches are kept."""
        if self.prefix is None:
            return output * mask.to(output.dtype)
        places = mask.flatten(1)[..., None].to(output.dtype)  # [B, N, 1]
        return torch.cat([output[:, : self.prefix], output[:, self.prefix :] * places], 1)


def describe(output: Tensor, image: Tensor) -> Layer | None:
    """What a layer's output is, judged by its shape and the image's: a feature map, tokens of a grid, or None."""
    if output.ndim not in (3, 4) or len(output) != len(image):
        return None
    aspect = image.shape[-1] / image.shape[-2]
    if output.ndim == 4:
        height, width = output.shape[2:]
        # each side may be off by a pixel, or it is something else, such as [B, h, w, C]
        fits = abs(width - height * aspect) <= 1 + 0.1 * width or abs(height - width / aspect) <= 1 + 0.1 * height
        return Layer(output.shape[1], (height, width)) if fits else None
    for prefix in PREFIXES:
        n = output.shape[1] - prefix
        height = round(math.sqrt(n / aspect)) if n > 0 else 0
        if height > 1 and height * round(height * aspect) == n:
            return Layer(output.shape[2], (height, n // height), prefix)
    return None


def layer_names(model: nn.Module) -> dict[str, nn.Module]:
    """The layers by the names that the user knows, whatever part is compiled."""
    return {
        name.replace("_orig_mod.", ""): module
        for name, module in model.named_modules(remove_duplicate=False)
        if name and not name.endswith("_orig_mod")
    }


def match_layers(model: nn.Module, patterns: Sequence[str], argument: str) -> list[str]:
    """The layers that names or fnmatch patterns mean, in the model's order.

    Of a layer and its own parts only the layer is meant, so that "hg.0.skip*" does not reach inside a skip.
    Raises ValueError that names the nearest layers when a pattern matches none.
    """
    if isinstance(patterns, str):
        patterns = [patterns]
    names = list(layer_names(model))
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
        chosen |= {name for name in matched if not any(parent in hits for parent in _parents(name))}
    layers = layer_names(model)
    meant = {id(layers[name]) for name in chosen}
    first = {id(layers[name]): name for name in reversed(names)}  # a layer of two names goes by the first
    return [name for name in names if id(layers[name]) in meant and first[id(layers[name])] == name]


def _parents(name: str) -> Iterator[str]:
    while "." in name:
        name = name.rpartition(".")[0]
        yield name


@dataclass(frozen=True)
class Probe:
    """What a look at the whole model showed.

    Attributes:
        layers: Those that give maps, in the order in which they finish.
        simple: Those that return one tensor that is not the model's output, so that a mask there has a say in it.
        weights: The number of parameters of each.
    """

    layers: dict[str, Layer]
    simple: set[str]
    weights: dict[str, int]


def probe(model: nn.Module, image: Tensor) -> Probe:
    """Runs the model once and describes what its layers give."""
    layers: dict[str, Layer] = {}
    single: dict[str, Tensor] = {}

    def watch(name: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            tensors = list(tensors_in(output))
            layer = describe(tensors[0], image) if tensors else None
            if layer is not None and name not in layers:
                layers[name] = layer
                if len(tensors) == 1:
                    single[name] = tensors[0]

        return hook

    modules = layer_names(model)
    with ExitStack() as stack:
        for name, module in modules.items():
            stack.callback(module.register_forward_hook(watch(name)).remove)
        final = {tensor.untyped_storage().data_ptr() for tensor in tensors_in(model(image))}  # views of it too
    weights = {name: sum(parameter.numel() for parameter in modules[name].parameters()) for name in layers}
    return Probe(layers, {name for name, tensor in single.items() if tensor.untyped_storage().data_ptr() not in final}, weights)


BRIDGES = ("skip", "bridge", "lateral")  # what the layers are called that a decoder gets its features through
NECKS = ("neck", "middle", "mid_block")  # and what the lowest is called
INSIDE = ("attn", "attention")  # where a map is made small for a moment


def find_layers(probed: Probe, most: int = 5) -> list[str]:
    """The layers to read when the user names none.

    Skip, bridge or lateral layers of the first stack, if some are called so, with the neck below them; else the
    largest layer of each resolution on the way down. A network of one resolution (a transformer) has no way down:
    there it is blocks at a quarter, a half and three quarters, because a mask after the last block would hide what
    no class token reads any more.
    """
    # A layer without weights (a softmax, a flattening) may only look like one that gives features.
    path = [name for name in probed.layers if probed.weights[name] and not any(word in name.lower() for word in INSIDE)]
    inner = {name: probed.layers[name] for name in path if name in probed.simple and probed.layers[name].area > 1}
    inner = inner or probed.layers
    if not inner:
        raise ValueError(
            "`features` should be given: no layer of this model returns feature maps [B, C, h, w] or tokens [B, N, C]. "
            "Name layers that do, or pass features=() to let the generator read the image."
        )
    smallest = min(layer.area for layer in inner.values())
    down: dict[int, list[str]] = {}
    for name, layer in inner.items():
        if smallest in down and layer.area != smallest:
            break  # on the way up
        if not down or layer.area <= min(down):
            down.setdefault(layer.area, []).append(name)
    chosen = {
        area: max(reversed(names), key=lambda name: (_called(name, NECKS), probed.weights[name]))
        for area, names in down.items()
    }
    bridges: dict[int, str] = {}
    for name in inner:
        if _called(name, BRIDGES) and not any(_called(parent, BRIDGES) for parent in _parents(name)):
            bridges.setdefault(inner[name].area, name)  # the first stack's
    if len(bridges) > 1:
        chosen = bridges | {area: name for area, name in chosen.items() if area < min(bridges)}
    if len(chosen) > 1:
        return [name for name in inner if name in set(chosen.values())][-most:]
    blocks = _longest_chain(list(inner))
    if len(blocks) < 4:
        return list(chosen.values())
    return [blocks[len(blocks) * i // 4] for i in (1, 2, 3)]


def _called(name: str, words: Sequence[str]) -> bool:
    return any(word in name.rpartition(".")[2].lower() for word in words)


def _longest_chain(names: Sequence[str]) -> list[str]:
    """The numbered parts of the container that has the most of them: the blocks of a transformer."""
    chains: dict[str, list[str]] = {}
    for name in names:
        parent, _, part = name.rpartition(".")
        if part.isdigit():
            chains.setdefault(parent, []).append(name)
    return max(chains.values(), key=len, default=[])


def tensors_in(output: Any) -> Iterator[Tensor]:
    """The tensors in an output: itself, or those in its tuples, lists and mappings."""
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, (tuple, list, Mapping)):
        for item in output.values() if isinstance(output, Mapping) else output:
            yield from tensors_in(item)

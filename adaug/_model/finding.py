"""Finds the layers that generators read and masks multiply, if the user names none, and checks that masks hide."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from adaug._model.hooks import Hooks
from adaug._model.layers import Layer, describe, is_unclear, layer_names, tensors_in
from adaug.operations import OccludeFeatures

MOST = 5  # resolutions to read
HIDDEN = 0.2  # a cell counts as hidden if at most this part of a change in it reaches the output
GRID, CELL = (4, 4), (1, 2)  # the cells, and the (row, column) of the one in which the two images differ
INSIDE = ("attn", "attention")  # names of layers inside which a map is made small for a moment

Run = Callable[[Tensor], Any]  # calls the model with images


@dataclass(frozen=True)
class Map:
    """A layer that returned a map.

    Attributes:
        layer: What it returned.
        came_from: The number of pixels of the map that it got. 0 if it got none.
        fits: Whether it can be read and masked: it has weights, and returns one clear map that is not the model's output.
    """

    layer: Layer
    came_from: int
    fits: bool


def maps_of(model: nn.Module, images: Tensor, run: Run) -> dict[str, Map]:
    """Runs the model once. Returns the layers that give maps by name, in the order in which they finish."""
    maps: dict[str, Map] = {}
    places: dict[str, int] = {}  # in memory, to know the model's output and views of it
    kept: list[Tensor] = []  # or their memory would be used again

    def watch(name: str, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        tensors = list(tensors_in(output))
        layer = describe(tensors[0], images) if tensors else None
        if layer is None or name in maps:
            return
        got = next((describe(tensor, images) for tensor in tensors_in((args, kwargs))), None)
        weighs = any(True for _ in module.parameters()) and not any(word in name.lower() for word in INSIDE)
        fits = weighs and len(tensors) == 1 and layer.area > 1 and not is_unclear(tensors[0], images)
        maps[name] = Map(layer, got.area if got else 0, fits)
        places[name] = tensors[0].untyped_storage().data_ptr()
        kept.append(tensors[0])

    with ExitStack() as stack:
        for name, module in layer_names(model).items():
            stack.callback(module.register_forward_hook(partial(watch, name), with_kwargs=True).remove)
        outputs = {tensor.untyped_storage().data_ptr() for tensor in tensors_in(run(images.clone()))}
    return {name: Map(m.layer, m.came_from, m.fits and places[name] not in outputs) for name, m in maps.items()}


def way_down(maps: Mapping[str, Map]) -> list[str]:
    """The layers to read: one for each resolution, from the image down to where it rises again (the paper's bridges).

    It is the last of those with most channels. A block or a stage counts, its parts do not. If there is only one resolution,
    as in a transformer, the blocks at a quarter, a half and three quarters of the depth take its place.
    """
    areas: dict[str, int] = {}
    for name, area in ((name, found.layer.area) for name, found in maps.items() if found.fits):
        inside = [part for part in areas if part.startswith(f"{name}.")]  # parts finish before what they lie in
        if all(areas[part] >= area for part in inside):  # an hourglass goes below its own resolution, and stays in parts
            limit = math.inf if maps[name].came_from < 8 * area else 2 * area  # a backbone stays in stages
            areas = {part: other for part, other in areas.items() if part not in inside or other >= limit}
        areas[name] = area
    levels: list[str] = []
    for name, area in areas.items():
        if levels and area >= 2 * areas[levels[-1]]:
            break
        if not levels or 2 * area <= areas[levels[-1]]:
            levels.append(name)
        elif maps[name].layer.channels >= maps[levels[-1]].layer.channels:
            levels[-1] = name
    blocks: dict[str, list[str]] = {}
    for name in maps if len(levels) == 1 else ():
        if maps[name].fits and name.rpartition(".")[2].isdigit():
            blocks.setdefault(name.rpartition(".")[0], []).append(name)
    chain = max(blocks.values(), key=len, default=[])
    return [chain[len(chain) * i // 4] for i in (1, 2, 3)] if len(chain) > 3 else levels[-MOST:]


def find(model: nn.Module, maps: Mapping[str, Map], pair: Tensor, run: Run, *, masks: bool) -> tuple[list[str], list[str]]:
    """Finds layers to read, and layers to mask: the same, and the very first one if a hidden cell shows without it.

    Args:
        model: The model, in evaluation mode.
        maps: Its layers.
        pair: An image and the same image with a changed cell, [2, C, H, W], from `with_a_change`.
        run: A function that calls the model.
        masks: Whether the layers will be masked. Otherwise no mask is tried.
    """
    read, result = way_down(maps), "none that fits"
    first = [name for name, found in maps.items() if found.fits][:1]
    for hide in (read, list(dict.fromkeys(first + read))) if read else ():
        share = leak(model, {name: maps[name].layer for name in hide}, pair, run) if masks else 0.0
        if not share > HIDDEN:  # NaN: a new network may return the same for all images
            return read, hide
        result = f"{', '.join(hide)}, where masks let {share:.0%} of a hidden change through"
    outer = sorted(maps, key=lambda name: name.count("."))[:20]
    shapes = ", ".join(f"{name} {[maps[name].layer.channels, *maps[name].layer.size]}" for name in outer) or "none"
    raise ValueError(
        f"features=None should find layers to read and to mask. Found {result}; name layers in `features` and `occlude`, or "
        f"pass features=() to read and hide parts of the image. Layers that return maps [C, h, w]: {shapes}."
    )


def with_a_change(image: Tensor) -> Tensor:
    """One image, and the same image with a change in the middle of a cell: [1, C, H, W] -> [2, C, H, W]."""
    pair = image[:1].repeat(2, 1, 1, 1)
    sides = zip(pair.shape[2:], CELL, GRID, strict=True)
    rows, columns = (slice(int(n * (at + 0.375) / k), math.ceil(n * (at + 0.625) / k)) for n, at, k in sides)
    low, high = (value[:, None, None] for value in pair[0].flatten(1).aminmax(dim=1))
    part = pair[1, :, rows, columns]
    pair[1, :, rows, columns] = torch.where(part < (low + high) / 2, high, low) + (low == high)
    return pair


def leak(model: nn.Module, hide: Mapping[str, Layer], pair: Tensor, run: Run) -> float:
    """Hides the changed cell and returns the part of the outputs' change that is left. NaN if they do not change anyway."""
    mask = torch.ones(2, 1, *GRID, device=pair.device)
    mask[:, :, CELL[0], CELL[1]] = 0
    hooks = Hooks(model, {}, hide)
    try:
        plain = _changes(run(pair.clone()))
        with hooks.masked([(OccludeFeatures(GRID, (1,)), mask)]):
            masked = _changes(run(pair.clone()))
    finally:
        hooks.remove()
    shares = [after / before for before, after in zip(plain, masked, strict=True) if before > 0 and math.isfinite(before)]
    return sum(shares) / len(shares) if shares else math.nan


def _changes(output: Any) -> list[float]:
    """How much each output differs between its two rows."""
    pairs = [tensor for tensor in tensors_in(output) if tensor.is_floating_point() and tensor.shape[:1] == (2,)]
    return [float((rows[1].float() - rows[0].float()).norm()) for rows in pairs]

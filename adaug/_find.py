"""Which layers to read and to mask when the user names none: proposed by how features flow, chosen by what a mask hides."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node

from adaug._hooks import Hooks
from adaug._layers import parents, tensors_in
from adaug._probe import Flow, Probe
from adaug.operations import OccludeFeatures

MOST = 5  # layers to read
HIDDEN = 0.2  # of the change in a cell that may still reach the output: then the cell counts as hidden
MERGES = ("AddBackward", "CatBackward")  # where a decoder gets its features
NECKS = ("neck", "middle", "mid_block")  # what the lowest layer of several alike may be called
INSIDE = ("attn", "attention")  # where a map is made small for a moment
GRID = (4, 4)
CELL = (1, 2)  # of the grid: where the first two rows of the image that is looked at differ


@dataclass(frozen=True)
class Found:
    """Layers that were found.

    Attributes:
        read: For generators.
        hide: For masks: those that are read, and the same ones of later stacks.
        leak: Of the change in a hidden cell that still reaches the output, from 0; NaN where it cannot be said.
        skipped: Layers that were left out because nothing says where their channels are.
    """

    read: tuple[str, ...] = ()
    hide: tuple[str, ...] = ()
    leak: float = math.nan
    skipped: tuple[str, ...] = ()

    def said(self, *, reads: bool, hides: bool) -> str:
        """A line on what was found, for the user.

        Args:
            reads: Whether generators read it.
            hides: Whether masks multiply it.
        """
        users = ["generators read"] * reads + ["masks multiply"] * hides
        if not self.read:
            line = f"features=None found no layer that fits: {' and '.join(users)} the image"
        else:
            layers = [list(names) for names in (self.read,) * reads + (self.hide,) * hides]
            line = f"features=None found layers: {', '.join(f'{a} {b}' for a, b in zip(users, layers, strict=True))}"
            if hides and self.leak > HIDDEN:
                line += (
                    "; masks change nothing" if math.isinf(self.leak) else f"; {self.leak:.0%} of what is hidden gets through"
                )
                line += ", so name better layers in `occlude`, or pass occlude=() to hide parts of the image"
        if self.skipped:
            names = ", ".join(self.skipped[:3]) + (", ..." if len(self.skipped) > 3 else "")
            line += f"; left out are {names}: nothing says whether their channels come first or last"
        return line + "."


def find_layers(model: nn.Module, probed: Probe, pair: Tensor, run: Callable[[Tensor], Any]) -> Found:
    """The layers of the first proposal that hides a cell, or of the one that hides it best.

    Costs one pass of two rows without masks, and one with each proposal that is tried, of at most four.

    Args:
        model: The model, in eval behaviour.
        probed: What a pass of `pair` through it showed.
        pair: An image [2, C, H, W] and the same one with a cell changed, as `with_a_change` makes it.
        run: Calls the model with it.
    """
    best, skipped = Found(), tuple(name for name in probed.layers if name in probed.unclear)
    plain = _outputs(run, pair)
    for read, hide in proposals(probed):
        hooks = Hooks(model, {}, {name: probed.layers[name] for name in hide})
        try:
            with hooks.masked([(OccludeFeatures(GRID, (1,)), _mask(pair))]):
                masked = _outputs(run, pair)
        finally:
            hooks.remove()
        leak = _leak(plain, masked)
        if not best.read or leak < best.leak:
            best = Found(tuple(read), tuple(hide), leak)
        if leak <= HIDDEN or math.isnan(leak):
            break
    return Found(best.read, best.hide, best.leak, skipped)


def with_a_change(image: Tensor) -> Tensor:
    """One image [1, C, H, W], and the same one with something else in the middle of a cell: [2, C, H, W]."""
    pair = image[:1].repeat(2, 1, 1, 1)
    low, high = (value[:, None, None] for value in pair[0].flatten(1).aminmax(dim=1))
    rows, columns = (
        slice(int(n * (at + 0.375) / cells), max(int(n * (at + 0.375) / cells) + 1, int(n * (at + 0.625) / cells)))
        for n, at, cells in zip(pair.shape[2:], CELL, GRID, strict=True)
    )
    part = pair[1, :, rows, columns]
    other = torch.where(part < (low + high) / 2, high, low)
    pair[1, :, rows, columns] = torch.where(high > low, other, part + 1)
    return pair


def _mask(pair: Tensor) -> Tensor:
    mask = torch.ones(2, 1, *GRID, device=pair.device)
    mask[:, :, CELL[0], CELL[1]] = 0
    return mask


def _outputs(run: Callable[[Tensor], Any], pair: Tensor) -> list[Tensor]:
    """What the model says of both rows, in tensors that have a row for each."""
    tensors = (tensor for tensor in tensors_in(run(pair.clone())) if tensor.is_floating_point())
    return [tensor.float() for tensor in tensors if tensor.ndim and len(tensor) == 2]


def _leak(plain: Sequence[Tensor], masked: Sequence[Tensor]) -> float:
    """What is left of each output's change behind a mask, on average; infinite if the mask does nothing, NaN without a change.

    A network at its start may give the same for all images, to the last bit.
    """
    before, after = ([float((rows[1] - rows[0]).norm()) for rows in outputs] for outputs in (plain, masked))
    shares = [b / a for a, b in zip(before, after, strict=False) if a > 0 and math.isfinite(a)]
    if not shares:
        return math.nan
    idle = all(torch.equal(a, b) for a, b in zip(plain, masked, strict=False))
    return math.inf if idle else sum(shares) / len(shares)


# ---- proposals


def proposals(probed: Probe) -> Iterator[tuple[list[str], list[str]]]:
    """Layers to read and layers to mask, what is liked best first.

    1. Bridges: what goes past a lower resolution and meets what comes back up from it, with the lowest one; masks also
       multiply the same layers of later stacks.
    2. Stages: of each resolution on the way down, the largest layer that all of what comes later goes through. With one
       resolution (a transformer) blocks at a quarter, a half and three quarters, because a mask after the last block would
       hide what no class token reads any more.

    After each, the same with masks on the first layer of all too: nothing has left its cell there.
    """
    view = _View(probed)
    chosen: list[tuple[list[str], list[str]]] = []
    bridges = view.bridges()
    if len(bridges) > 1:
        lowest = min(map(view.area, bridges))
        read = view.in_order([*bridges, *(name for name in view.stages(down=True) if view.area(name) < lowest)])[-MOST:]
        chosen.append((read, _in_later_stacks(read, probed)))
    stages = view.stages()
    if len(stages) == 1:
        blocks = _longest_chain(view.each_of(view.chain()))
        stages = [blocks[len(blocks) * i // 4] for i in (1, 2, 3)] if len(blocks) > 3 else stages
    if stages:
        chosen.append((stages, []))
    for read, later in chosen:
        yield read, [*read, *later]
        for first in view.chain()[:1]:
            if first not in read:
                yield read, [first, *read, *later]


class _View:
    """The layers of a probe that may serve, and how they lie in its flow."""

    def __init__(self, probed: Probe) -> None:
        self.probed, self.flow = probed, probed.flow
        self.low: dict[Node, float] = {}
        self.risen: set[Node] = set()
        usable = [
            name
            for name, layer in probed.layers.items()
            if probed.weights[name] and name in probed.simple and name not in probed.unclear and layer.area > 1
        ]
        if self.flow is None:
            self.of: dict[Node, str] = {}
            self.usable = [name for name in usable if not any(word in name.lower() for word in INSIDE)]
            return
        self._descend(self.flow)
        order = {node: i for i, node in enumerate(self.flow.nodes)}
        used = self.flow.before(probed.weighted)  # behind the last weights there are only outputs
        self.of = {}
        for name in usable:
            node = probed.nodes.get(name)
            if node not in order or node not in used:
                continue
            if node not in self.of or probed.weights[name] >= probed.weights[self.of[node]]:
                self.of[node] = name  # of a layer and its last part the layer
        self.usable = [self.of[node] for node in sorted(self.of, key=order.__getitem__)]
        self.nodes = {name: node for node, name in self.of.items()}
        on = self.flow.paths_on(self.flow.outputs)
        self.traffic = {node: self.flow.paths[node] * on[node] for node in self.of}

    def area(self, name: str) -> int:
        """Places in a layer's map."""
        return self.probed.layers[name].area

    def in_order(self, names: Sequence[str]) -> list[str]:
        """Finest first, then as they come."""
        return sorted(set(names), key=lambda name: (-self.area(name), self.usable.index(name)))

    def chain(self, *, down: bool | None = None) -> list[str]:
        """The layers that everything goes through on its way to the lowest resolution, or to the output.

        Args:
            down: Whether it leads to the lowest resolution; by default where more resolutions are met.
        """
        if self.flow is None:
            return self.usable
        if not self.usable:
            return []
        first = [name for name in self.usable if self.nodes[name] not in self.risen]  # of several stacks the first one's
        below = [self._all_through(self.nodes[self._lowest(names)]) for names in (first, self.usable) if names]
        lowest = max(below, key=lambda names: len(self.largest(names)))
        through = self._all_through(max(self.flow.outputs, key=self.flow.paths.__getitem__))
        if down is None:
            down = len(self.largest(through)) < min(3, len(self.largest(lowest)))
        return lowest if down else through

    def _all_through(self, target: Node) -> list[str]:
        """The layers that every path from the image to a node goes through."""
        assert self.flow is not None
        cuts = self.flow.cuts(target)
        return [name for name in self.usable if self.nodes[name] in cuts]

    def _lowest(self, names: Sequence[str]) -> str:
        """Of the layers of the lowest resolution the one that most goes through."""
        smallest = min(map(self.area, names))
        return max(
            (name for name in names if self.area(name) == smallest),
            key=lambda name: (
                self.traffic[self.nodes[name]],
                any(word in name.rpartition(".")[2].lower() for word in NECKS),
                self.probed.weights[name],
                self.usable.index(name),
            ),
        )

    def each_of(self, names: Sequence[str]) -> list[str]:
        """These and the layers that give the same: the last block of a container beside the container."""
        given = {self.probed.nodes.get(name, name) for name in names}
        return [name for name in self.probed.layers if self.probed.nodes.get(name, name) in given]

    def stages(self, *, down: bool | None = None) -> list[str]:
        """The largest layer of each resolution of a chain."""
        return self.largest(self.chain(down=down))[-MOST:]

    def largest(self, chain: Sequence[str]) -> list[str]:
        """The largest layer of each resolution on the way down, finest first; the insides of a block are passed over."""
        levels: list[list[str]] = []
        smallest = min(map(self.area, chain), default=0)
        for name in chain:
            if levels and self.area(levels[-1][0]) == smallest != self.area(name):
                break  # on the way up
            if not levels or 2 * self.area(name) <= self.area(levels[-1][0]):
                levels.append([name])
            elif self.area(name) <= self.area(levels[-1][0]):
                levels[-1].append(name)
        return [
            max(reversed(names), key=lambda name: (not self._in_block(name), self.probed.weights[name])) for names in levels
        ]

    def _in_block(self, name: str) -> bool:
        """Whether it is a part of what goes on to the next resolution, such as the first convolution of a block."""
        around = [self.area(parent) for parent in parents(name) if parent in self.probed.layers]
        return any(2 * area <= self.area(name) < 8 * area for area in around)

    def bridges(self) -> list[str]:
        """The first layer of each resolution whose features meet what comes back up from a lower one."""
        if self.flow is None:
            return []
        found: dict[int, str] = {}
        for node in self.flow.nodes:
            inputs = self.flow.inputs[node]
            if len(inputs) < 2 or not node.name().startswith(MERGES):
                continue
            below = min(self.low[parent] for parent in inputs)
            for parent in inputs:
                name = self._given_by(parent)
                if name and self.low[parent] >= self.area(name) >= 2 * below:
                    found.setdefault(self.area(name), name)
        return list(found.values())

    def _descend(self, flow: Flow) -> None:
        """Notes the lowest resolution that features have been at, and which have come up from it again."""
        areas = {node: self.probed.layers[name].area for name, node in self.probed.nodes.items()}
        for node in flow.nodes:
            below = min((self.low[parent] for parent in flow.inputs[node]), default=math.inf)
            here = areas.get(node, 1)
            self.low[node] = min(below, here) if here > 1 else below
            if any(parent in self.risen for parent in flow.inputs[node]) or here >= 2 * below:
                self.risen.add(node)

    def _given_by(self, node: Node) -> str | None:
        """The layer whose features these are, at its resolution."""
        assert self.flow is not None
        while node not in self.of:
            if len(self.flow.inputs[node]) != 1 or node.name().startswith("Upsample"):
                return None
            node = self.flow.inputs[node][0]
        return self.of[node]


def _in_later_stacks(names: Sequence[str], probed: Probe) -> list[str]:
    """The layers that are called like these but for the number of the stack, their first."""
    patterns = [re.sub(r"(^|\\\.)\d+(?=\\\.|$)", r"\1\\d+", re.escape(name), count=1) for name in names]
    alike = {
        other
        for name, pattern in zip(names, patterns, strict=True)
        for other, layer in probed.layers.items()
        if layer == probed.layers[name] and re.fullmatch(pattern, other)
    }
    return [name for name in probed.layers if name in alike and name not in names]


def _longest_chain(names: Sequence[str]) -> list[str]:
    """The numbered parts of the container that has the most of them: the blocks of a transformer."""
    chains: dict[str, list[str]] = {}
    for name in names:
        parent, _, part = name.rpartition(".")
        if part.isdigit():
            chains.setdefault(parent, []).append(name)
    return max(chains.values(), key=len, default=[])

"""The layers that can be read and masked, and their places between the image and the output."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from torch.autograd.graph import Node as GraphNode

from adaug._model.finding.flow import Flow, Node
from adaug._model.finding.probe import Probe
from adaug._model.layers import parents

MERGES = ("AddBackward", "CatBackward")  # operations where a decoder gets features from the encoder
NECKS = ("neck", "middle", "mid_block")  # usual names of the lowest layer, if several have the lowest resolution


class Candidates:
    """The layers of a probe that can be read and masked: they have weights and return one map, and weights come after them.

    Attributes:
        names: The names of these layers, in the order of the flow. A layer and its last part return the same; then only the
            layer counts.
    """

    def __init__(self, probed: Probe) -> None:
        self._probed, self._flow = probed, probed.flow
        self._of = _by_node(probed)
        self.names = [self._of[node] for node in self._flow.nodes if node in self._of]
        self._node = {name: node for node, name in self._of.items()}
        self._low, self._risen = _descent(self._flow, {node: probed.layers[name].area for name, node in probed.nodes.items()})
        on = self._flow.paths_on(self._flow.outputs)
        self._traffic = {name: self._flow.paths[node] * on[node] for name, node in self._node.items()}

    def area(self, name: str) -> int:
        """The number of pixels in a layer's map."""
        return self._probed.layers[name].area

    def finest_first(self, names: Sequence[str]) -> list[str]:
        """Sorts layers: the finest first, then in the order of the flow."""
        return sorted(set(names), key=lambda name: (-self.area(name), self.names.index(name)))

    # ---- what all goes through

    def to_the_output(self) -> list[str]:
        """The layers that every path to the output goes through. Of several outputs it takes the one with most paths."""
        return self._all_through(max(self._flow.outputs, key=self._flow.paths.__getitem__))

    def ways_down(self) -> list[list[str]]:
        """The layers that every path to the lowest resolution goes through: in the first stack, and in all stacks."""
        first = [name for name in self.names if self._node[name] not in self._risen]
        return [self._all_through(self._node[self._lowest(names)]) for names in (first, self.names) if names]

    def _all_through(self, target: Node) -> list[str]:
        cuts = self._flow.cuts(target)
        return [name for name in self.names if self._node[name] in cuts]

    def _lowest(self, names: Sequence[str]) -> str:
        """The layer of the lowest resolution that most paths go through."""
        smallest = min(map(self.area, names))
        return max(
            (name for name in names if self.area(name) == smallest),
            key=lambda name: (
                self._traffic[name],
                any(word in name.rpartition(".")[2].lower() for word in NECKS),
                self._probed.weights[name],
                self.names.index(name),
            ),
        )

    # ---- what goes past the lower resolutions

    def bridges(self) -> list[str]:
        """The first layer of each resolution whose features are merged with features from a lower resolution."""
        found: dict[int, str] = {}
        for node, inputs in self._flow.inputs.items():
            if len(inputs) < 2 or not _operation(node).startswith(MERGES):
                continue
            below = min(self._low[parent] for parent in inputs)
            for parent in inputs:
                name = self._given_by(parent)
                if name and self._low[parent] >= self.area(name) >= 2 * below:
                    found.setdefault(self.area(name), name)
        return list(found.values())

    def _given_by(self, node: Node) -> str | None:
        """The layer that these features come from, at the same resolution."""
        while node not in self._of:
            if len(self._flow.inputs[node]) != 1 or _operation(node).startswith("Upsample"):
                return None
            node = self._flow.inputs[node][0]
        return self._of[node]

    # ---- a layer and what it lies in

    def weight(self, name: str) -> tuple[bool, int]:
        """How well a layer represents its resolution, for sorting. The first convolution of a block counts less."""
        around = [self.area(parent) for parent in parents(name) if parent in self._probed.layers]
        in_block = any(2 * area <= self.area(name) < 8 * area for area in around)  # the block goes on to the next resolution
        return not in_block, self._probed.weights[name]

    def same(self, names: Sequence[str]) -> list[str]:
        """These layers and those that return the same, such as the last block of a container and the container."""
        given = {self._probed.nodes.get(name, name) for name in names}
        return [name for name in self._probed.layers if self._probed.nodes.get(name, name) in given]


def _by_node(probed: Probe) -> dict[Node, str]:
    """The layers that can be read and masked, by their nodes."""
    there = set(probed.flow.nodes) & probed.flow.before(probed.weighted)  # behind the last weights there are only outputs
    found: dict[Node, str] = {}
    for name, layer in probed.layers.items():
        node = probed.nodes.get(name)
        fits = probed.weights[name] and name in probed.simple and name not in probed.unclear and layer.area > 1
        if fits and node in there and (node not in found or probed.weights[name] >= probed.weights[found[node]]):
            found[node] = name
    return found


def _descent(flow: Flow, areas: Mapping[Node, int]) -> tuple[dict[Node, float], set[Node]]:
    """The lowest resolution on the way to each node, and the nodes after which the resolution has risen again."""
    low: dict[Node, float] = {}
    risen: set[Node] = set()
    for node, inputs in flow.inputs.items():
        below = min((low[parent] for parent in inputs), default=math.inf)
        here = areas.get(node, 1)
        low[node] = min(below, here) if here > 1 else below
        if here >= 2 * below or not risen.isdisjoint(inputs):
            risen.add(node)
    return low, risen


def _operation(node: Node) -> str:
    return node.name() if isinstance(node, GraphNode) else ""

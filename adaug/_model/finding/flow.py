"""The flow of a pass through a model: a graph of its operations from the image to the outputs, and the paths in it."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence

from torch.autograd.graph import Node as GraphNode

Node = Hashable  # the result of an operation: a node of autograd's graph, or the name of a layer if there is no graph
END = "(the output)"  # the last node of a line


class Flow:
    """A graph of the operations of a pass.

    Args:
        inputs: Each node -> the nodes that it was computed from. Inputs come before their users. The image comes first and has
            no inputs.
        outputs: The nodes that the model returned.
    """

    def __init__(self, inputs: Mapping[Node, Sequence[Node]], outputs: Sequence[Node]) -> None:
        self.inputs, self.outputs = inputs, outputs
        self.nodes = list(inputs)
        self.paths: dict[Node, int] = {}  # how many paths lead there from the image
        for node, parents in inputs.items():
            self.paths[node] = sum(self.paths[parent] for parent in parents) if parents else 1

    @classmethod
    def of_graph(cls, image: GraphNode, outputs: Sequence[GraphNode]) -> Flow | None:
        """The flow from autograd's graph. None if no path in it leads from the image to an output."""
        inputs: dict[Node, list[Node]] = {image: []}
        for node in _inputs_first(outputs):
            parents: list[Node] = [parent for parent in _parents(node) if parent in inputs]
            if parents and node != image:
                inputs[node] = parents
        reached = [node for node in outputs if node in inputs]
        return cls(inputs, reached) if reached else None

    @classmethod
    def in_a_line(cls, names: Iterable[str]) -> Flow:
        """The flow of layers that run one after the other: the assumption if there is no autograd graph."""
        nodes = [*names, END]
        return cls({node: nodes[max(i - 1, 0) : i] for i, node in enumerate(nodes)}, [END])

    def paths_on(self, targets: Iterable[Node]) -> dict[Node, int]:
        """How many paths lead from each node to one of the targets."""
        count = dict.fromkeys(self.nodes, 0)
        for node in targets:
            count[node] += 1
        for node in reversed(self.nodes):
            for parent in self.inputs[node]:
                count[parent] += count[node]
        return count

    def cuts(self, target: Node) -> set[Node]:
        """The nodes that every path from the image to the target goes through."""
        on = self.paths_on([target])
        return {node for node in self.nodes if self.paths[node] * on[node] == self.paths[target]}

    def before(self, nodes: Iterable[Node]) -> set[Node]:
        """The nodes from which a path leads to one of `nodes`."""
        there = set(nodes)
        found: set[Node] = set()
        for node in reversed(self.nodes):
            if node in there or node in found:
                found.update(self.inputs[node])
        return found


def _inputs_first(outputs: Sequence[GraphNode]) -> list[GraphNode]:
    """All nodes that the outputs were computed from. Inputs come before their users."""
    order: list[GraphNode] = []
    seen: set[GraphNode] = set()
    stack = [(node, False) for node in outputs]
    while stack:
        node, done = stack.pop()
        if done:
            order.append(node)
        elif node not in seen:
            seen.add(node)
            stack.append((node, True))
            stack.extend((parent, False) for parent in _parents(node))
    return order


def _parents(node: GraphNode) -> list[GraphNode]:
    return [parent for parent, _ in node.next_functions if parent is not None]

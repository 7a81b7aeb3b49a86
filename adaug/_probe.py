"""One pass through the whole model: which layers give maps, and how what they give flows from the image to the output.

The flow is that of autograd's graph, whose nodes say what was made of what, whatever the modules are called.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node

from adaug._layers import Layer, describe, is_unclear, layer_names, tensors_in

Paths = Mapping[Node, int]  # how many lead to a node, or on from it


class Flow:
    """What was made of what, from the image on.

    Args:
        image: The node of the image.
        outputs: The nodes of the model's outputs.
    """

    def __init__(self, image: Node, outputs: Sequence[Node]) -> None:
        every = _inputs_first(outputs)
        reached = {image}
        for node in every:
            if any(parent in reached for parent in _parents(node)):
                reached.add(node)
        self.nodes = [node for node in every if node in reached]
        self.inputs = {node: [parent for parent in _parents(node) if parent in reached] for node in self.nodes}
        self.inputs[image] = []
        self.outputs = [node for node in outputs if node in reached]
        self.paths: dict[Node, int] = {image: 1}  # from the image
        for node in self.nodes:
            self.paths.setdefault(node, sum(self.paths[parent] for parent in self.inputs[node]))

    def paths_on(self, targets: Iterable[Node]) -> Paths:
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
        """The nodes from which a path leads on to one of some others."""
        there = set(nodes)
        found: set[Node] = set()
        for node in reversed(self.nodes):
            if node in there or node in found:
                found.update(self.inputs[node])
        return found


def _inputs_first(outputs: Sequence[Node]) -> list[Node]:
    """Everything that outputs were made of, each after what it was made of."""
    order: list[Node] = []
    seen: set[Node] = set()
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


def _parents(node: Node) -> list[Node]:
    return [parent for parent, _ in node.next_functions if parent is not None]


@dataclass(frozen=True)
class Probe:
    """What a pass through the whole model showed.

    Attributes:
        layers: Those that give maps, in the order in which they finish.
        simple: Those that return one tensor that is not the model's output, so that a mask there has a say in it.
        weights: The number of parameters of each.
        unclear: Those of which nothing says whether channels come first or last.
        nodes: What each gave, in the flow.
        weighted: What modules gave that have parameters of their own.
        flow: From the image to the output; None where autograd does not see it (a model that runs without gradients).
    """

    layers: dict[str, Layer] = field(default_factory=dict)
    simple: set[str] = field(default_factory=set)
    weights: dict[str, int] = field(default_factory=dict)
    unclear: set[str] = field(default_factory=set)
    nodes: dict[str, Node] = field(default_factory=dict)
    weighted: set[Node] = field(default_factory=set)
    flow: Flow | None = None


def probe(model: nn.Module, image: Tensor, run: Callable[[Tensor], Any], *, flow: bool = True) -> Probe:
    """Runs the model once and describes what its layers give.

    Args:
        model: The model.
        image: [B, C, H, W].
        run: Calls the model with it.
        flow: Whether to look at the flow too, for which gradients are on.
    """
    if flow and image.is_floating_point():
        try:
            with torch.enable_grad():
                return _probe(model, image.detach().requires_grad_() * 1, run)
        except RuntimeError:  # some code does not run with gradients
            pass
    with torch.no_grad():
        return _probe(model, image, run)


def _probe(model: nn.Module, image: Tensor, run: Callable[[Tensor], Any]) -> Probe:
    found = Probe()
    single: dict[str, Tensor] = {}

    def watch(name: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            tensors = list(tensors_in(output))
            if tensors and tensors[0].grad_fn is not None and any(True for _ in module.parameters(recurse=False)):
                found.weighted.add(tensors[0].grad_fn)
            layer = describe(tensors[0], seen) if tensors else None
            if layer is None or name in found.layers:
                return
            found.layers[name] = layer
            found.weights[name] = sum(parameter.numel() for parameter in module.parameters())
            if is_unclear(tensors[0], seen):
                found.unclear.add(name)
            if tensors[0].grad_fn is not None:
                found.nodes[name] = tensors[0].grad_fn
            if len(tensors) == 1:
                single[name] = tensors[0]

        return hook

    start, seen = image.grad_fn, image.detach().clone()  # a model may write to its image
    with ExitStack() as stack:
        for name, module in layer_names(model).items():
            stack.callback(module.register_forward_hook(watch(name)).remove)
        outputs = list(tensors_in(run(image)))
    final = {tensor.untyped_storage().data_ptr() for tensor in outputs}  # views of it too
    found.simple.update(name for name, tensor in single.items() if tensor.untyped_storage().data_ptr() not in final)
    ends = [tensor.grad_fn for tensor in outputs if tensor.grad_fn is not None]
    flow = Flow(start, ends) if start is not None else None
    return Probe(**{**vars(found), "flow": flow if flow is not None and flow.outputs else None})

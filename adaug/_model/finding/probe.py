"""One pass through the whole model: which layers return maps, and how features flow from the image to the output.

The flow comes from autograd's graph, so it does not depend on the names of modules.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from adaug._model.finding.flow import END, Flow, Node
from adaug._model.layers import Layer, describe, is_unclear, layer_names, tensors_in

INSIDE = ("attn", "attention")  # names of layers inside which a map is made small for a moment


@dataclass(frozen=True)
class Probe:
    """The result of a pass through the whole model.

    Attributes:
        layers: The layers that return maps, in the order in which they finish.
        simple: Those that return one tensor which is not the model's output, so that a mask there can change the output.
        weights: The number of parameters of each layer.
        unclear: Layers for which adaug cannot tell whether channels come first or last.
        nodes: The node of each layer in the flow.
        weighted: The nodes of modules that have parameters of their own.
        flow: The flow from the image to the output. For a model that runs without gradients, its layers in a line.
    """

    layers: dict[str, Layer] = field(default_factory=dict)
    simple: set[str] = field(default_factory=set)
    weights: dict[str, int] = field(default_factory=dict)
    unclear: set[str] = field(default_factory=set)
    nodes: dict[str, Node] = field(default_factory=dict)
    weighted: set[Node] = field(default_factory=set)
    flow: Flow = field(default_factory=lambda: Flow.in_a_line(()))


def probe(model: nn.Module, image: Tensor, run: Callable[[Tensor], Any], *, flow: bool = True) -> Probe:
    """Runs the model once and describes what its layers return.

    Args:
        model: The model.
        image: The images, [B, C, H, W].
        run: A function that calls the model with them.
        flow: Whether to find the flow too, which needs gradients.
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
    final = {tensor.untyped_storage().data_ptr() for tensor in outputs}  # views of it count too
    found.simple.update(name for name, tensor in single.items() if tensor.untyped_storage().data_ptr() not in final)
    ends = [tensor.grad_fn for tensor in outputs if tensor.grad_fn is not None]
    flow = None if start is None else Flow.of_graph(start, ends)
    return _in_a_line(found) if flow is None else replace(found, flow=flow)


def _in_a_line(found: Probe) -> Probe:
    """The result, with layers in a line as its flow."""
    names = [name for name in found.layers if not any(word in name.lower() for word in INSIDE)]
    return replace(found, nodes={name: name for name in names}, weighted={END}, flow=Flow.in_a_line(names))

"""One pass through the whole model: which layers give maps, and how what they give flows from the image to the output.

The flow is that of autograd's graph, which says what was made of what, whatever the modules are called.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from adaug._flow import END, Flow, Node
from adaug._layers import Layer, describe, is_unclear, layer_names, tensors_in

INSIDE = ("attn", "attention")  # names of layers where a map is made small for a moment, beside what goes on


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
        flow: From the image to the output. Where autograd does not see it (a model that runs without gradients), the layers
            one after the other.
    """

    layers: dict[str, Layer] = field(default_factory=dict)
    simple: set[str] = field(default_factory=set)
    weights: dict[str, int] = field(default_factory=dict)
    unclear: set[str] = field(default_factory=set)
    nodes: dict[str, Node] = field(default_factory=dict)
    weighted: set[Node] = field(default_factory=set)
    flow: Flow = field(default_factory=lambda: Flow.in_a_line(()))


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
    flow = None if start is None else Flow.of_graph(start, ends)
    return _in_a_line(found) if flow is None else replace(found, flow=flow)


def _in_a_line(found: Probe) -> Probe:
    """What was found, as if its layers ran one after the other."""
    names = [name for name in found.layers if not any(word in name.lower() for word in INSIDE)]
    return replace(found, nodes={name: name for name in names}, weighted={END}, flow=Flow.in_a_line(names))

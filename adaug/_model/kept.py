"""Puts back what a pass changes in a model, whatever its forward does: buffers, parameters and plain attributes.

What a forward adds to a list or dict of its own stays there: such a list may be the user's record of what ran.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

_met: weakref.WeakSet[nn.Module] = weakref.WeakSet()  # models that have run once in `all_kept`
_restless: weakref.WeakSet[nn.Module] = weakref.WeakSet()  # modules of torch's own that changed then, such as observed ones


class Snapshot:
    """What one module holds itself, without the modules inside."""

    def __init__(self, module: nn.Module, *, attributes: bool) -> None:
        self.module = module
        self.tensors = [
            (held, name, tensor, tensor.detach().clone())
            for held in (module._parameters, module._buffers)
            for name, tensor in held.items()
            if tensor is not None and tensor.layout == torch.strided and not tensor.is_meta
        ]
        own = vars(module).items() if attributes else ()
        self.attributes = {name: value for name, value in own if not _set_otherwise(name)}
        self.with_attributes = attributes

    def moved(self) -> bool:
        """Whether something is other now. It waits for the device."""
        inside = {name: value for name, value in vars(self.module).items() if not _set_otherwise(name)}
        assigned = self.with_attributes and [*map(id, inside.values())] != [*map(id, self.attributes.values())]
        return assigned or any(held.get(name) is not t or not _equal(t, was) for held, name, t, was in self.tensors)

    def put_back(self) -> None:
        for held, name, tensor, was in self.tensors:
            held[name] = tensor  # type: ignore[assignment]  # one type for parameters and buffers
            with torch.inference_mode(tensor.is_inference()), torch.no_grad():
                tensor.data.copy_(was)  # `.data` counts no version, which a pending backward pass would miss
        if not self.with_attributes:
            return
        inside = vars(self.module)
        for name in [name for name in inside if name not in self.attributes and not _set_otherwise(name)]:
            del inside[name]
        inside.update(self.attributes)


@contextmanager
def all_kept(models: Sequence[nn.Module], modules: Sequence[nn.Module], *, attributes: bool = True) -> Iterator[None]:
    """A block after which modules hold what they held before.

    Layers of torch.nn change nothing in evaluation mode, and copying them at each pass would cost too much. So they are copied
    at a model's first pass only, and from then on if they changed in it.

    Args:
        models: The models, as the user knows them.
        modules: All modules in them.
        attributes: Whether plain attributes count too.
    """
    first = any(model not in _met for model in models)
    if first:
        _refuse_lazy(modules)
    kept = [Snapshot(one, attributes=attributes) for one in modules if first or not _is_quiet(one)]
    try:
        yield
        if first:
            _restless.update(one.module for one in kept if one.moved())
            _met.update(models)
    finally:
        for one in kept:
            one.put_back()


def _set_otherwise(name: str) -> bool:
    """Whether an attribute is no setting of the user's: what torch keeps, hooks, and the flag that a pass sets itself."""
    return name in ("_parameters", "_buffers", "_modules", "training") or "_hooks" in name


def _is_quiet(module: nn.Module) -> bool:
    return type(module).__module__.startswith("torch.nn.modules.") and module not in _restless


def _refuse_lazy(modules: Sequence[nn.Module]) -> None:
    lazy = [
        type(module).__name__
        for module in modules
        if any(held is not None and is_lazy(held) for held in module._parameters.values())
    ]
    if lazy:
        raise ValueError(
            f"The model's parameters should have their shapes. Found {lazy[0]}, which gets them when it first runs; run the "
            "model once on a batch of its own."
        )


def _equal(one: Tensor, other: Tensor) -> bool:
    return bool(torch.equal(one.detach(), other)) or bool(((one == other) | ((one != one) & (other != other))).all())

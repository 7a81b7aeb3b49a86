"""Hooks on the user's model: they record features for a generator, and multiply features by masks.

They stay on the model from binding on, because compiled code never calls a hook that is added later. Outside a step they do
nothing. A copy of the model has copies of the hooks that do nothing at all.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from adaug._batches.tree import leaves, replace
from adaug._model.layers import Layer, layer_names, tensors_in
from adaug.operations import Operation

FeatureMasks = list[tuple[Operation, Tensor]]  # pairs of an operation that hides and its masks


class _Look(BaseException):
    """Ends a look after the last layer. It is not an Exception, so that no model catches it as a failure."""


class _Hook:
    """The hook of one layer. A copy or a pickle of it (with the user's model) does nothing and needs no adaug to load."""

    def __init__(self, hooks: Hooks, name: str) -> None:
        self.hooks, self.name = hooks, name

    def __call__(self, module: nn.Module, args: Any, output: Any) -> Any:
        return self.hooks.passed(self.name, output)

    def __reduce__(self) -> tuple[Any, ...]:
        return getattr, (nullcontext(), "__exit__")  # takes anything, returns None, and is in Python itself


class Hooks:
    """The hooks on one model.

    Args:
        model: The model.
        features: The layers that `look` records.
        occlude: The layers that `masked` multiplies.
        whole: Whether a look runs to the model's end, because a model that stops early would leave something undone.
    """

    def __init__(
        self, model: nn.Module, features: Mapping[str, Layer], occlude: Mapping[str, Layer], *, whole: bool = False
    ) -> None:
        self._whole = whole
        self.features, self.occlude = dict(features), dict(occlude)
        areas = sorted({layer.area for layer in occlude.values()}, reverse=True)
        self._levels = {name: areas.index(layer.area) for name, layer in occlude.items()}  # the finest resolution is 0
        self._called = False  # whether any hook was called while masks were armed
        self._met = False  # whether an armed mask has met a layer
        self._trained = False  # whether this happened in a training pass
        self._traced = False  # whether this happened in compiled code, which does not tell which layers it skips
        self._ran_unmasked = False  # whether the model ran without masks since the last masked pass
        self._recorded: dict[str, Tensor] | None = None
        self._versions: dict[str, int] = {}  # of recorded tensors; torch counts them up at every write in place
        self._overwritten: set[str] = set()  # layers whose output is written to later, such as by an in-place activation
        self._ran: set[str] = set()  # occluded layers that ran in a masked pass
        self._skipped: frozenset[str] = frozenset()
        self._masks: FeatureMasks | None = None
        self._backward: dict[int, list[FeatureMasks]] = {}  # graph task -> masks of the passes it goes back through
        modules = layer_names(model)
        names = dict.fromkeys([*features, *occlude])
        self._handles = [modules[name].register_forward_hook(_Hook(self, name)) for name in names]

    def remove(self) -> None:
        """Takes the hooks off the model."""
        for handle in self._handles:
            handle.remove()

    def look(self, run: Callable[[], Any]) -> list[Tensor]:
        """Runs the model up to the last layer of `features` and returns their outputs, in the order of `features`.

        An output that the model later writes to is copied. The first look notices this, and looks a second time.
        """
        recorded = self._looked(run)
        overwritten = {name for name, version in self._versions.items() if recorded[name]._version != version}
        if overwritten:
            self._overwritten |= overwritten
            recorded = self._looked(run)
        return [recorded[name] for name in self.features]

    def _looked(self, run: Callable[[], Any]) -> dict[str, Tensor]:
        self._recorded, self._versions = {}, {}
        try:
            run()
        except _Look:
            pass
        finally:
            recorded, self._recorded = self._recorded, None
        missing = [name for name in self.features if name not in recorded]
        if missing:
            raise RuntimeError(
                f"Each layer of `features` should run in the model's forward. Found none of {', '.join(missing)} called; "
                "name layers that always run."
            )
        return recorded

    def _record(self, name: str, output: Any, recorded: dict[str, Tensor]) -> None:
        if name in recorded:
            return
        feature = _map_of(output, self.features[name], name)
        if name in self._overwritten or feature.is_inference():  # inference tensors count no versions
            recorded[name] = feature.clone()
            return
        recorded[name] = feature
        self._versions[name] = feature._version

    @contextmanager
    def masked(self, masks: FeatureMasks) -> Iterator[None]:
        """A block in which the layers of `occlude` are multiplied by the masks.

        Raises RuntimeError if compiled code never calls the hooks. A layer may skip a pass (LayerDrop): see `nan_if_skipped`.
        """
        self._skipped = frozenset()
        if not masks or not self.occlude:
            yield
            return
        self._masks, self._called, self._met, self._ran_unmasked, self._ran = masks, False, False, False, set()
        try:
            yield
        finally:
            self._masks = None
        trains = torch.is_grad_enabled()
        self._trained |= self._met and trains
        if trains and not (self._called or self._trained) and _dynamo_ran():
            raise RuntimeError(
                "The masks should have met the layers of `occlude`. Found no hook called: the model was compiled before "
                "they were attached. Call `augmenter.bind(model, batch)` before the model's first compiled call."
            )
        if not (trains and self._traced):
            self._skipped = frozenset(self.occlude) - self._ran

    def nan_if_skipped(self, measured: Tensor) -> Tensor:
        """Replaces what the latest masked pass measured, [n], by NaN if a masked layer did not run and so hid nothing.

        In compiled code this goes unnoticed.
        """
        return torch.full_like(measured, torch.nan) if self._skipped else measured

    def keep_for_backward(self, losses: Tensor, masks: FeatureMasks, owner: object) -> None:
        """Keeps the masks for the backward pass of `losses`, in which activation checkpointing runs layers again.

        Args:
            losses: [B], with graph.
            masks: The masks of the pass that the losses come from.
            owner: The hooks go when this object goes, so it is kept until the backward pass.
        """
        if not losses.requires_grad or not masks or not self.occlude:
            return
        losses.register_hook(partial(self._arm, masks, owner))

    def _arm(self, masks: FeatureMasks, owner: object, gradient: Tensor) -> None:
        task = torch._C._current_graph_task_id()
        self._backward = {task: [*self._backward.get(task, []), masks]}

    def passed(self, name: str, output: Any) -> Any:
        """Called by a hook after its layer has run."""
        if self._recorded is not None and name in self.features:
            self._record(name, output, self._recorded)
            if len(self._recorded) == len(self.features) and not self._whole:
                raise _Look
        masks = self._masks
        if masks is None:
            if not torch.compiler.is_compiling() and self._backward:  # in this order: dynamo would guard on the tasks
                masks = self._masks_of_backward()
            if masks is None:
                self._ran_unmasked = True
                return None
        self._called = True
        if name not in self.occlude:
            return None
        self._met = True
        if torch.compiler.is_compiling():
            self._traced = True
        else:
            self._ran.add(name)
        return self._multiplied(output, masks, name)

    def _masks_of_backward(self) -> FeatureMasks | None:
        task = torch._C._current_graph_task_id()
        if task == -1:
            self._backward = {}
            return None
        kept = self._backward.get(task, [])
        if len(kept) != 1 or self._ran_unmasked:
            raise RuntimeError(
                "With activation checkpointing of occluded layers each step should be followed by its own backward pass. "
                "Found several steps, another run of the model, or nested reentrant checkpoints in between; call "
                "loss.backward() right after each step, or checkpoint other layers."
            )
        return kept[0]

    def _multiplied(self, output: Any, masks: FeatureMasks, name: str) -> Any:
        """An output whose first tensor is multiplied by the masks."""
        layer = self.occlude[name]
        size = _map_of(output, layer, name).shape[-2:]
        path, map_ = next((path, leaf) for path, leaf in leaves(output) if isinstance(leaf, Tensor))
        for operation, mask in masks:
            map_ = layer.masked(map_, operation.resized(mask, (size[0], size[1]), self._levels[name]))
        return replace(output, {path: map_})


def _dynamo_ran() -> bool:
    """Whether this process compiled anything. If not, a hook that was not called means that its layer did not run."""
    dynamo = sys.modules.get("torch._dynamo")
    return dynamo is not None and bool(dynamo.utils.counters["frames"])


def _map_of(output: Any, layer: Layer, name: str) -> Tensor:
    """The feature map in an output. It should look like the one at binding, but may have another size."""
    tensor = next(tensors_in(output), None)
    fits = tensor is not None and tensor.ndim == (4 if layer.prefix is None else 3)
    if tensor is None or not fits or (layer.prefix is not None and tensor.shape[1] != layer.prefix + layer.area):
        returned = "no tensor" if tensor is None else f"shape {tuple(tensor.shape)}"
        raise ValueError(f"{name!r} should return a map as it did at binding, like {layer}. Found {returned}.")
    return layer.as_map(tensor)

"""The network's inside: hooks that record what a generator reads and multiply what an occlusion hides.

The hooks stay on the user's model from binding on, because `torch.compile` never sees one that is added later, and
do nothing outside a step. A copy of the model carries inert copies of them.
"""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from adaug.operations import OccludeFeatures

FeatureMasks = list[tuple[OccludeFeatures, Tensor]]


def unwrap(model: nn.Module) -> nn.Module:
    """The user's module inside DistributedDataParallel and torch.compile."""
    while True:
        if isinstance(model, nn.DataParallel):
            raise TypeError("Use DistributedDataParallel. Found DataParallel, whose replicas would meet other rows' masks.")
        inner = getattr(model, "_orig_mod", None)
        if inner is None and isinstance(model, nn.parallel.DistributedDataParallel):
            inner = model.module
        if not isinstance(inner, nn.Module):
            return model
        model = inner


def is_compiled(model: nn.Module) -> bool:
    """Whether any part of the model is compiled, so that its compiled code may predate a hook."""
    return any(
        hasattr(module, "_orig_mod") or getattr(module, "_compiled_call_impl", None) is not None for module in model.modules()
    )


def layer_names(model: nn.Module) -> dict[str, nn.Module]:
    """The layers by the names that the user knows, whatever part is compiled."""
    return {
        name.replace("_orig_mod.", ""): module
        for name, module in model.named_modules()
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
    return [name for name in names if name in chosen]


def _parents(name: str) -> Iterator[str]:
    while "." in name:
        name = name.rpartition(".")[0]
        yield name


def probe(model: nn.Module, image: Tensor) -> tuple[dict[str, tuple[int, ...]], set[str]]:
    """Which layers give feature maps [B, C, h, w], in the order in which they finish: name -> shape.

    Also the names of those that give the model's own output: a mask there would hide predictions.
    """
    maps: dict[str, Tensor] = {}

    def watch(name: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            found = _first_map(output)
            if found is not None:
                maps.setdefault(name, found)

        return hook

    with ExitStack() as stack:
        for name, module in layer_names(model).items():
            stack.callback(module.register_forward_hook(watch(name)).remove)
        final = {id(tensor) for tensor in _tensors(model(image))}
    shapes = {name: tuple(found.shape) for name, found in maps.items()}
    return shapes, {name for name, found in maps.items() if id(found) in final}


def find_layers(shapes: Mapping[str, tuple[int, ...]], final: Set[str], most: int = 5) -> list[str]:
    """The layers to read when the user names none: the last of each resolution on the way down, but no `final` one.

    In a stack of hourglasses or U-Nets that is the way down of the first, which is what the paper reads.
    """
    areas = {name: shape[-2] * shape[-1] for name, shape in shapes.items() if name not in final}
    if not areas:
        raise ValueError(
            "`features` should be given: no layer of this model returns feature maps [B, C, h, w]. "
            "Name layers that do, or pass features=() to let the generator read the image."
        )
    smallest = min(areas.values())
    if smallest == 1 and len(set(areas.values())) > 1:  # globally pooled features have lost the place of things
        smallest = min(area for area in areas.values() if area > 1)
    last: dict[int, str] = {}
    reached = False
    for name, area in areas.items():
        if reached and area != smallest:
            break
        reached = reached or area == smallest
        if not last or area <= min(last):
            last[area] = name
    return list(last.values())[-most:]


class _Look(BaseException):
    """Ends a look once every layer has been read. Not an Exception, so that no model mistakes it for a failure."""


class _Hook:
    """One layer's hook. A copy or a pickle of it (with the user's model) does nothing."""

    def __init__(self, taps: Taps | None, name: str) -> None:
        self.taps, self.name = taps, name

    def __call__(self, module: nn.Module, args: Any, output: Any) -> Any:
        return None if self.taps is None else self.taps.passed(self.name, output)

    def __reduce__(self) -> tuple[Any, ...]:
        return (_Hook, (None, self.name))


class Taps:
    """The hooks on one model. `features` are recorded by `look`, `occlude` are masked by `masked`."""

    def __init__(self, model: nn.Module, features: Sequence[str], occlude: Sequence[str]) -> None:
        self.features, self.occlude = list(features), list(occlude)
        self.levels: dict[str, int] = {}  # occluded layer -> rank of its resolution, the finest 0
        self._met = False  # whether an armed mask has met a layer
        self._ran_unmasked = False  # whether the model ran otherwise since the last masked pass
        self._recorded: dict[str, Tensor] | None = None
        self._masks: FeatureMasks | None = None
        self._backward: dict[int, list[FeatureMasks]] = {}  # graph task -> masks of the passes it goes back through
        layers = layer_names(model)
        names = dict.fromkeys([*self.features, *self.occlude])
        self._handles = [layers[name].register_forward_hook(_Hook(self, name)) for name in names]

    def remove(self) -> None:
        """Takes the hooks off the model."""
        for handle in self._handles:
            handle.remove()

    def set_levels(self, shapes: Mapping[str, Sequence[int]]) -> None:
        """Ranks the occluded layers by their resolutions, from the shapes of their outputs."""
        areas = {name: shapes[name][-2] * shapes[name][-1] for name in self.occlude}
        order = sorted(set(areas.values()), reverse=True)
        self.levels = {name: order.index(area) for name, area in areas.items()}

    def look(self, model: nn.Module, image: Tensor) -> list[Tensor]:
        """Runs the model until the last layer of `features` and returns what they gave, in their order."""
        self._recorded = {}
        try:
            model(image)
        except _Look:
            pass
        finally:
            recorded, self._recorded = self._recorded, None
        missing = [name for name in self.features if name not in recorded]
        if missing:
            raise RuntimeError(
                f"Each layer of `features` should run in the model's forward. Found none of {', '.join(missing)} called; "
                "name layers that are."
            )
        return [recorded[name] for name in self.features]

    @contextmanager
    def masked(self, masks: FeatureMasks) -> Iterator[None]:
        """Multiplies the occluded layers by the masks while it lasts. Raises when no layer was reached."""
        if not masks or not self.occlude:
            yield
            return
        self._masks, self._met, self._ran_unmasked = masks, False, False
        try:
            yield
        finally:
            self._masks = None
        if not self._met:
            raise RuntimeError(
                "The masks should have met the layers of `occlude`. Found no hook called: the model was compiled before "
                "they were attached. Call `augmenter.bind(model, batch)` before the model's first compiled call."
            )

    def keep_for_backward(self, losses: Tensor, masks: FeatureMasks) -> None:
        """Lets layers that activation checkpointing runs again in the backward pass of `losses` meet the same masks."""
        if not losses.requires_grad or not masks or not self.occlude:
            return

        def arm(gradient: Tensor) -> None:
            task = torch._C._current_graph_task_id()
            self._backward = {task: [*self._backward.get(task, []), masks]}

        losses.register_hook(arm)

    def passed(self, name: str, output: Any) -> Any:
        """What a hook does when its layer has run."""
        if self._recorded is not None and name in self.features:
            found = _first_map(output)
            if found is None:
                raise ValueError(
                    f"A layer of `features` should return a feature map [B, C, h, w]. Found {name!r} returning "
                    f"{_shape_of(output)}."
                )
            self._recorded.setdefault(name, found)
            if len(self._recorded) == len(self.features):
                raise _Look
        masks = self._masks
        if masks is None:
            if self._backward and not torch.compiler.is_compiling():
                masks = self._masks_of_backward()
            if masks is None:
                self._ran_unmasked = True
                return None
        if name not in self.levels:
            return None
        self._met = True
        return _multiplied(output, masks, name, self.levels[name])

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


def _multiplied(output: Any, masks: FeatureMasks, name: str, level: int) -> Any:
    if isinstance(output, (tuple, list)) and output and isinstance(output[0], Tensor):
        return type(output)([_multiplied(output[0], masks, name, level), *output[1:]])
    if not isinstance(output, Tensor) or output.ndim != 4:
        raise ValueError(
            f"A layer of `occlude` should return a feature map [B, C, h, w]. Found {name!r} returning {_shape_of(output)}."
        )
    for occlusion, mask in masks:
        output = output * occlusion.resized(mask, (output.shape[-2], output.shape[-1]), level).to(output.dtype)
    return output


def _tensors(output: Any) -> Iterator[Tensor]:
    """The tensors in an output: itself, or those in its tuples, lists and mappings."""
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, (tuple, list, Mapping)):
        for item in output.values() if isinstance(output, Mapping) else output:
            yield from _tensors(item)


def _first_map(output: Any) -> Tensor | None:
    """The first feature map of a layer's output."""
    return next((tensor for tensor in _tensors(output) if tensor.ndim == 4), None)


def _shape_of(output: Any) -> str:
    return f"a tensor of shape {tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__


@contextmanager
def quiet(model: nn.Module, device: torch.device) -> Iterator[None]:
    """A pass that leaves no trace: eval behaviour, no gradients, random state put back, flags restored.

    The autocast cache is off inside: weights that were cast without gradients would be used again, without
    gradients, by the training pass.
    """
    modules = list(model.modules())
    flags = [module.training for module in modules]
    cpu = torch.get_rng_state()
    cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    cached = torch.is_autocast_cache_enabled()
    try:
        for module in modules:
            module.training = False  # not .eval(), which a user's module may have overridden
        torch.set_autocast_cache_enabled(False)
        with torch.no_grad():
            yield
    finally:
        torch.set_autocast_cache_enabled(cached)
        for module, flag in zip(modules, flags, strict=True):
            module.training = flag
        torch.set_rng_state(cpu)
        if cuda is not None:
            torch.cuda.set_rng_state(cuda, device)

"""The user's model as the library uses it: bound once, then looked at and scored without a trace."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from adaug._batches.batch import Batch, UserBatch
from adaug._batches.moving.held import plain
from adaug._model.call import Call
from adaug._model.finding import Map, find, maps_of, with_a_change
from adaug._model.hooks import FeatureMasks, Hooks
from adaug._model.layers import Layer, Shape, match_layers
from adaug._model.passes import quiet
from adaug._model.wrappers import device_of, is_compiled, refuse_fsdp1, refuse_inner_ddp, shards, unwrap
from adaug._runtime.checks import checked, function
from adaug._runtime.geometry import Size
from adaug._runtime.ranks import same_as_first
from adaug.policies import Policy

LossFunction = Callable[[Any, UserBatch], Tensor]  # (output, batch) -> one number per sample, [B]


@dataclass(frozen=True)
class Difficulty:
    """The measure that views are compared by: a function of the user's, and the name of its argument for errors."""

    function: LossFunction
    argument: str

    def __post_init__(self) -> None:
        checked({self.argument: self.function}, {self.argument: function()})
        _refuse_criterion(self.function, self.argument)

    def __call__(self, output: Any, batch: Batch) -> Tensor:
        """The difficulty of each row, float32 [n], without a graph. Raises TypeError or ValueError if the shape is wrong."""
        with torch.no_grad():
            values = self.function(output, batch.with_own_image().to_user())
        check_losses(values, len(batch), self.argument)
        return plain(values).detach().float()


@dataclass(frozen=True)
class BoundModel:
    """One model with its hooks.

    Attributes:
        model: The user's module, without wrappers such as DDP.
        device: The device of the model.
        policy: The user's policy. If there is no layer to mask, its masks are on the image.
        hooks: The hooks on the layers that generators read and masks multiply.
        shapes: The shapes of the features that generators read.
        call: How to call the model.
        sharded: Whether every pass gathers parameters from all ranks.
        notice: A line about the layers that adaug found, if the user named none.
    """

    model: nn.Module
    device: torch.device
    policy: Policy
    hooks: Hooks
    shapes: tuple[Shape, ...]
    call: Call
    sharded: bool
    notice: str = ""

    def check_same(self, model: nn.Module) -> torch.device | None:
        """Raises ValueError for another model, and RuntimeError if it was sharded meanwhile. Returns its device."""
        inner = self.model if model is self.model else unwrap(model)
        if inner is not self.model:
            raise ValueError(
                f"An augmenter should stay with one model. Found a second one ({type(inner).__name__}); "
                "make another augmenter for it, because an augmenter learns the weaknesses of one network."
            )
        if not self.sharded and shards([inner]):
            raise RuntimeError(
                "A model should be sharded before it is bound. Found `fully_shard` after the first step; call "
                "`augmenter.detach()`, and the next step binds again."
            )
        return device_of(inner, None)

    def look(self, batch: Batch) -> list[Tensor]:
        """Runs the model without a trace and returns the features that generators read."""
        if not self.hooks.features:
            return [batch.image]
        with quiet(self.model, self.device, "look"):
            return [plain(features) for features in self.hooks.look(lambda: self.call(self.model, batch))]

    def score(
        self, batch: Batch, masks: FeatureMasks, difficulties: Sequence[Difficulty], *, training: bool = False
    ) -> list[Tensor]:
        """Measures each difficulty of every row, float32 [n], in one pass that leaves no trace.

        Values are NaN, which nothing learns from, if a masked layer did not run and so hid nothing (LayerDrop).

        Args:
            batch: The rows as the model should see them.
            masks: The masks of features.
            difficulties: The measures.
            training: Whether the model behaves as in the training pass. By default it is in evaluation mode, where rows do not
                influence each other.
        """
        with quiet(self.model, self.device, "score", training=training), self.hooks.masked(masks):
            if training:  # change copies of the buffers: a pending backward pass may need the buffers as they are
                buffers = {name: buffer.clone() for name, buffer in self.model.named_buffers()}
                output = self.call.on_copies(self.model, batch, buffers)
            else:
                output = self.call(self.model, batch)
            scores = [difficulty(output, batch) for difficulty in difficulties]
        return [self.hooks.nan_if_skipped(values) for values in scores]

    def run_one_row(self, batch: Batch, view_size: Size) -> None:
        """Runs one row and ignores the result, because other ranks of a sharded model may run this pass."""
        first = batch.select(torch.zeros(1, dtype=torch.long, device=self.device))
        with quiet(self.model, self.device, "look"):
            self.call(self.model, first.apply(self.policy.view({}, 1, batch.size, view_size, device=self.device), view_size))

    def train(
        self, model: nn.Module, batch: Batch, user: UserBatch, masks: FeatureMasks, loss_fn: LossFunction
    ) -> tuple[Any, Tensor]:
        """Runs the training pass through the model as the user wrapped it. Returns its output and the losses [B], with graph.

        `user` is the batch in the user's structure.
        """
        with self.hooks.masked(masks):
            output = self.call(model, batch, user)
            losses = _called(loss_fn, output, user)
        check_losses(losses, len(batch), "loss_fn")
        self.hooks.keep_for_backward(losses, masks, self)
        return output, losses


def bind(
    model: nn.Module,
    batch: Batch,
    policy: Policy,
    features: Sequence[str] | None,
    occlude: Sequence[str] | None,
    view_size: Size,
    call: Call,
    *,
    looks: bool,
) -> BoundModel:
    """Finds the layers and attaches the hooks. An error comes before anything is attached.

    Args:
        model: The user's model.
        batch: A batch, to try the model on.
        policy: The user's policy.
        features: The layers that a look reads; None to find them.
        occlude: The layers that masks multiply; None for those of `features`.
        view_size: The size of the views.
        call: How to call the model.
        looks: Whether there will be looks.
    """
    inner = unwrap(model)
    refuse_fsdp1(inner.modules())  # only once, because a walk through a large network takes milliseconds
    refuse_inner_ddp(inner)
    device = device_of(inner, batch.image.device)
    twice = call.needs(batch).select(torch.zeros(2, dtype=torch.long, device=device))
    twice = twice.apply(policy.view({}, 2, batch.size, view_size, device=device), view_size)
    chosen = _choose(inner, twice, policy, features, occlude, call, looks=looks)
    sharded = bool(shards(inner.modules()))
    hooks = Hooks(inner, chosen.read, chosen.hide, whole=sharded)
    if (chosen.read or chosen.hide) and is_compiled(model.modules()):
        torch.compiler.reset()  # compiled code that predates the hooks would never call them
    maps = list(chosen.read.values()) or [Layer(twice.image.shape[1], twice.size)]
    shapes = tuple((layer.channels, *layer.size) for layer in maps)
    return BoundModel(inner, device, policy if chosen.hide else policy.on_image(), hooks, shapes, call, sharded, chosen.notice)


@dataclass(frozen=True)
class _Chosen:
    """The layers that generators read and those that masks multiply, and a line about them if adaug found them."""

    read: dict[str, Layer]
    hide: dict[str, Layer]
    notice: str


def _choose(
    model: nn.Module,
    twice: Batch,
    policy: Policy,
    features: Sequence[str] | None,
    occlude: Sequence[str] | None,
    call: Call,
    *,
    looks: bool,
) -> _Chosen:
    """Chooses the layers that the user named, or finds some, by passes of a batch of two equal rows.

    Raises ValueError if a chosen layer returns no map.
    """
    reads, hides = looks, policy.hides_features
    finds = features is None and (reads or (hides and occlude is None))
    names_to_hide = features if occlude is None else occlude
    maps: dict[str, Map] = {}
    read: Sequence[str] = ()
    masked: Sequence[str] = ()
    if finds or (reads and features) or (hides and names_to_hide):
        with quiet(model, twice.image.device, "bind"):
            pair = with_a_change(twice.image)
            same_as_first(pair)  # so that all ranks find the same layers, by the same passes

            def run(images: Tensor) -> Any:
                return call(model, twice.with_image(images))

            maps = maps_of(model, pair, run)
            if finds:
                read, masked = find(model, maps, pair, run, masks=hides and occlude is None)
    if not finds:
        read = masked = match_layers(model, features or (), "features")
    if occlude is not None and hides:
        masked = match_layers(model, occlude, "occlude")
    read, hide = read if reads else (), masked if hides else ()
    silent = [name for name in dict.fromkeys([*read, *hide]) if name not in maps]
    if silent:
        raise ValueError(
            "Layers of `features` and `occlude` should run in the model's forward and return feature maps [B, C, h, w] or "
            f"tokens [B, N, C]. Found that {', '.join(silent)} did not; those that do are {', '.join(list(maps)[:20])}."
        )
    users = {"generators read": read, "masks multiply": hide if occlude is None else ()}
    found = [f"{user} {list(names)}" for user, names in users.items() if names and finds]
    notice = f"features=None found layers: {', '.join(found)}." if found else ""
    return _Chosen({name: maps[name].layer for name in read}, {name: maps[name].layer for name in hide}, notice)


def _refuse_criterion(function: Any, argument: str) -> None:
    """Raises TypeError if a function is a criterion of torch, which takes a target and not a batch."""
    of_torch = getattr(function, "__module__", "") == "torch.nn.functional"
    if of_torch or isinstance(function, torch.nn.modules.loss._Loss):
        raise TypeError(_not_a_criterion(function, argument))


def _called(loss_fn: LossFunction, output: Any, user: UserBatch) -> Tensor:
    """The losses of a user's function. If it is a criterion of the user's, its error says what to do."""
    if not isinstance(loss_fn, nn.Module):
        return loss_fn(output, user)
    try:
        return loss_fn(output, user)
    except (TypeError, AttributeError) as error:
        raise TypeError(_not_a_criterion(loss_fn, "loss_fn")) from error


def _not_a_criterion(function: Any, argument: str) -> str:
    name = f"nn.{type(function).__name__}()" if isinstance(function, nn.Module) else f"F.{function.__name__}"
    name = name if type(function).__module__.startswith("torch.") or not name.startswith("nn.") else name[3:]
    return (
        f"`{argument}` should be a function (output, batch) -> one loss per sample. Found {name}, which takes a target; use "
        f"adaug.per_sample({name}, target=...), where target is the key or position of the labels in your batch."
    )


def check_losses(values: Any, n: int, argument: str) -> None:
    """Raises TypeError or ValueError unless `values` holds one real number per sample."""
    if not isinstance(values, Tensor):
        raise TypeError(
            f"`{argument}` should return a tensor, one loss per sample, shape ({n},). Found {type(values).__name__}."
        )
    if values.shape != (n,):
        raise ValueError(
            f"`{argument}` should return one loss per sample, shape ({n},). Found shape {tuple(values.shape)}. "
            "Use reduction='none' and average over the other dimensions, or adaug.per_sample(your_loss)."
        )
    if not values.is_floating_point():
        raise TypeError(f"`{argument}` should return floating point numbers. Found {values.dtype}; use .float().")

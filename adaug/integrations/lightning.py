"""Lightning: a callback that saves, restores and logs an augmenter, and can draw and observe for a `training_step`."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import lightning as L
from torch import nn

from adaug._batches.tree import leaves
from adaug._steps.saving import NAME, warn_unsaved
from adaug.augmenter import AdversarialAugmenter

__all__ = ["AugmenterCallback"]


class AugmenterCallback(L.Callback):
    """Saves an augmenter in Lightning's checkpoints, and logs its scalars. With `draw=True` it is all that a module needs.

        trainer = L.Trainer(callbacks=[AugmenterCallback(augmenter, draw=True)])

    Then `training_step` stays as it is: it gets batches that were drawn, and the output of the network is observed. Otherwise
    `training_step` calls `draw` and `observe`, or `step` with the network (not the LightningModule). The callback sets the
    augmenter's `progress` from the trainer's steps, unless the augmenter has `total_steps`. A checkpoint without the
    augmenter's state is loaded with a warning.

    Args:
        augmenter: The augmenter.
        draw: Whether to draw before each `training_step`, and to observe after it.
        output: With `draw`, the name of the submodule whose first output in `training_step` is observed, such as "head". By
            default it is the LightningModule, if `training_step` calls it, or else its only submodule that is called.
        log: Whether to log the scalars of each step.
        name: The prefix of these scalars, and part of the state's key. With several callbacks, each needs its own.

    Raises:
        ValueError: `output` is given without `draw`.
    """

    def __init__(
        self,
        augmenter: AdversarialAugmenter,
        *,
        draw: bool = False,
        output: str | None = None,
        log: bool = True,
        name: str = NAME,
    ) -> None:
        if output is not None and not draw:
            raise ValueError(f"`output` should come with draw=True. Found {output!r} without it; pass draw=True too.")
        self.augmenter, self.log_scalars, self.name = augmenter, log, name
        self.draw, self.output = draw, output
        self._restore: list[Any] = []  # what puts the module back

    @property
    def state_key(self) -> str:
        return f"{super().state_key}[{self.name}]"

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.draw:
            self._wrap(pl_module)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._unwrap()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self._unwrap()

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int) -> None:
        total = trainer.estimated_stepping_batches
        if self.augmenter.total_steps is None and 0 < total < float("inf"):
            self.augmenter.progress = min(1.0, trainer.global_step / total)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self.log_scalars:
            scalars = {name: value.float() for name, value in self.augmenter.metrics.items() if value.ndim == 0}
            pl_module.log_dict({f"{self.name}/{name}": value for name, value in scalars.items()})

    def state_dict(self) -> dict[str, Any]:
        return self.augmenter.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.augmenter.load_state_dict(state_dict)

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        if trainer.state.fn == "fit" and self.state_key not in checkpoint.get("callbacks", {}):
            warn_unsaved(f"Lightning's has no {self.state_key}")

    # ---- draws and observations around `training_step`

    def _wrap(self, pl_module: L.LightningModule) -> None:
        """Lets the module's `training_step` get drawn batches, until `_unwrap`."""
        training_step, calls = pl_module.training_step, Calls(pl_module, self.output)

        @functools.wraps(training_step)
        def drawn(batch: Any, *args: Any, **kwargs: Any) -> Any:
            batch = self.augmenter.draw(batch)
            with calls.kept():
                result = training_step(batch, *args, **kwargs)
            self.augmenter.observe(calls.output())
            return result

        own = vars(pl_module).get("training_step")  # torch.compile and others leave one there
        pl_module.training_step = drawn  # type: ignore[method-assign]
        self._restore = [calls.remove, lambda: vars(pl_module).pop("training_step")]
        if own is not None:
            self._restore.append(lambda: setattr(pl_module, "training_step", own))

    def _unwrap(self) -> None:
        for restore in self._restore:
            restore()
        self._restore = []


class Calls:
    """What the parts of a module return first while it runs: the module itself, and the submodules that it calls.

    Args:
        module: The module.
        name: The only submodule that counts. None for all direct ones, those in lists and dictionaries of modules too.
    """

    def __init__(self, module: nn.Module, name: str | None) -> None:
        self._first: dict[str, Any] = {}
        self._keeps = False
        parts = dict(module.named_modules())
        if name is not None and name not in parts:
            raise ValueError(f"`output` should name a submodule. Found {name!r}; it has {', '.join(_direct(module))}.")
        parts = {part: parts[part] for part in (["", *_direct(module)] if name is None else [name])}
        self._hooks = [part.register_forward_hook(functools.partial(self._keep, name)) for name, part in parts.items()]

    def _keep(self, name: str, module: nn.Module, inputs: Any, output: Any) -> None:
        if self._keeps:
            self._first.setdefault(name, output)

    @contextmanager
    def kept(self) -> Iterator[None]:
        """A block whose calls count."""
        self._first, self._keeps = {}, True
        try:
            yield
        finally:
            self._keeps = False

    def output(self) -> Any:
        """The output to observe: the module's own, or the only one that is more than numbers, as losses and metrics are.

        Raises RuntimeError if it is not clear which.
        """
        if "" in self._first:
            return self._first[""]
        found = [
            name for name, output in self._first.items() if any(getattr(leaf, "ndim", 0) > 1 for _, leaf in leaves(output))
        ]
        if len(found) != 1:
            raise RuntimeError(
                "`training_step` should call one submodule, whose output tells how hard the views were. Found "
                f"{' and '.join(found) or 'none'}; pass AugmenterCallback(..., output=NAME), with the name of the right one."
            )
        return self._first[found[0]]

    def remove(self) -> None:
        for hook in self._hooks:
            hook.remove()


def _direct(module: nn.Module, prefix: str = "") -> list[str]:
    """The names of the submodules. Those that only hold others, which nobody calls, stand for what they hold."""
    names = []
    for name, child in module.named_children():
        holds = isinstance(child, (nn.ModuleList, nn.ModuleDict))
        names += _direct(child, f"{prefix}{name}.") if holds else [f"{prefix}{name}"]
    return names

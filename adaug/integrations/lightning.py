"""Lightning: a callback that saves, restores and logs the augmenter of a `training_step`."""

from __future__ import annotations

from typing import Any

import lightning as L

from adaug.augmenter import AdversarialAugmenter

__all__ = ["AugmenterCallback"]


class AugmenterCallback(L.Callback):
    """Saves an augmenter in Lightning's checkpoints, and logs its scalars with Lightning's loggers.

        def training_step(self, batch, index):
            return self.augmenter.step(self.network, batch, self.loss_fn).loss

    Give the augmenter the network (`self.network`), not the LightningModule. The callback sets the augmenter's `progress` from
    the trainer's steps, unless the augmenter has `total_steps`.

    Args:
        augmenter: The augmenter that `training_step` uses.
        log: Whether to log the scalars of each step.
        name: The prefix of these scalars. With several callbacks, each needs its own.
    """

    def __init__(self, augmenter: AdversarialAugmenter, *, log: bool = True, name: str = "adaug") -> None:
        self.augmenter, self.log_scalars, self.name = augmenter, log, name

    @property
    def state_key(self) -> str:
        return f"{super().state_key}[{self.name}]"

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

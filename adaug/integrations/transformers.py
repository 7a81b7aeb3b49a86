"""Hugging Face: a callback that saves, restores and logs the augmenter of a Trainer's `compute_loss`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from adaug.augmenter import AdversarialAugmenter

__all__ = ["AugmenterCallback"]


class AugmenterCallback(TrainerCallback):
    """Saves an augmenter in the Trainer's checkpoints, and adds its scalars to the Trainer's logs.

        class Augmented(Trainer):
            def compute_loss(self, model, inputs, return_outputs=False, **kwargs):
                if not model.training:
                    return super().compute_loss(model, inputs, return_outputs, **kwargs)
                result = augmenter.step(model, inputs, loss_fn)
                return (result.loss, result.output) if return_outputs else result.loss

    The callback sets the augmenter's `progress` from the Trainer's steps, unless the augmenter has `total_steps`. Put callbacks
    that report logs, such as TensorBoardCallback, after this one, or they do not see its scalars:
    TrainingArguments(report_to="none") and callbacks=[AugmenterCallback(augmenter), TensorBoardCallback()].

    Args:
        augmenter: The augmenter that `compute_loss` uses.
        log: Whether to add the scalars of the latest step to the Trainer's logs.
        name: The prefix of these scalars, and the name of the state's file in a checkpoint.
        checkpoint: The folder to resume from, if it is not the Trainer's own checkpoint of that step in `output_dir`.
    """

    def __init__(
        self,
        augmenter: AdversarialAugmenter,
        *,
        log: bool = True,
        name: str = "adaug",
        checkpoint: str | Path | None = None,
    ) -> None:
        self.augmenter, self.log_scalars, self.name, self.checkpoint = augmenter, log, name, checkpoint

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Loads the state when training resumes. Raises FileNotFoundError if the checkpoint has none."""
        if not state.global_step:
            return
        folder = Path(self.checkpoint or args.resume_from_checkpoint or self._folder(args, state))
        path = folder / f"{self.name}.pt"
        if not path.exists():
            raise FileNotFoundError(
                f"A checkpoint should hold the augmenter's state in {path.name}. Found none in {folder}; pass the folder "
                "that training resumes from, AugmenterCallback(augmenter, checkpoint=...)."
            )
        self.augmenter.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self.augmenter.total_steps is None and state.max_steps > 0:
            self.augmenter.progress = min(1.0, state.global_step / state.max_steps)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if state.is_world_process_zero:  # it is the same on every rank
            torch.save(self.augmenter.state_dict(), self._folder(args, state) / f"{self.name}.pt")

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if not self.log_scalars or logs is None or "loss" not in logs:  # an evaluation, or the summary at the end
            return
        scalars = {f"{self.name}/{name}": float(value) for name, value in self.augmenter.metrics.items() if value.ndim == 0}
        logs.update(scalars)
        if state.log_history:
            state.log_history[-1].update(scalars)

    @staticmethod
    def _folder(args: TrainingArguments, state: TrainerState) -> Path:
        return Path(args.output_dir or ".") / f"checkpoint-{state.global_step}"

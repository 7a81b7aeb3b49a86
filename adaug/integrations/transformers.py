"""Hugging Face: one call that augments a Trainer, and a callback that saves, restores and logs the augmenter."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from adaug._steps.saving import NAME, warn_unsaved
from adaug.augmenter import AdversarialAugmenter

__all__ = ["AugmenterCallback", "augmented"]


def augmented(trainer: Trainer, augmenter: AdversarialAugmenter, *, log: bool = True, name: str = NAME) -> None:
    """Lets a Trainer train on drawn batches. Its loss stays its own, and its evaluation as it is.

        trainer = Trainer(model=model, args=args, train_dataset=train_dataset)
        augmented(trainer, augmenter)

    Each training pass draws its batch, and the augmenter observes the model's output. Checkpoints hold the augmenter's state,
    and `trainer.train(resume_from_checkpoint=...)` goes on with it; a checkpoint without one is loaded with a warning.

    Args:
        trainer: The Trainer. Its `compute_loss` may be one of your own that can return outputs.
        augmenter: The augmenter. Learners with passes of their own, such as the paper's, need `step` in `compute_loss`.
        log: Whether to add the scalars of the latest step to the Trainer's logs.
        name: The prefix of these scalars, and the name of the state's file in a checkpoint.

    Raises:
        ValueError: The Trainer is augmented already.
    """
    if any(isinstance(one, AugmenterCallback) for one in trainer.callback_handler.callbacks):
        raise ValueError(
            "`augmented` should get a Trainer without an augmenter. Found an AugmenterCallback in it; call `augmented` once, "
            "without that callback."
        )
    callback = AugmenterCallback(augmenter, log=log, name=name)
    trainer.callback_handler.callbacks.insert(0, callback)  # those that report logs should see its scalars
    compute_loss, train = trainer.compute_loss, trainer.train

    @functools.wraps(compute_loss)
    def drawn(model: Any, inputs: Any, return_outputs: bool = False, **kwargs: Any) -> Any:
        if not model.training:  # an evaluation
            return compute_loss(model, inputs, return_outputs, **kwargs)
        loss, output = compute_loss(model, augmenter.draw(inputs), True, **kwargs)
        whole = augmenter.difficulty is not None or not (isinstance(output, Mapping) and "logits" in output)
        augmenter.observe(output if whole else output["logits"])
        return (loss, output) if return_outputs else loss

    @functools.wraps(train)
    def resuming(resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> Any:
        last = resume_from_checkpoint is True and get_last_checkpoint(trainer.args.output_dir)  # type: ignore[no-untyped-call]
        told = last or resume_from_checkpoint
        callback.checkpoint = None if isinstance(told, bool) else told
        return train(resume_from_checkpoint, *args, **kwargs)

    vars(trainer).update(compute_loss=drawn, train=resuming)


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
        name: str = NAME,
        checkpoint: str | Path | None = None,
    ) -> None:
        self.augmenter, self.log_scalars, self.name, self.checkpoint = augmenter, log, name, checkpoint

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Loads the state when training resumes. Raises FileNotFoundError if it is not where it was expected."""
        if not state.global_step:
            return
        folder = Path(self.checkpoint or args.resume_from_checkpoint or self._folder(args, state))
        path = folder / f"{self.name}.pt"
        if not path.exists() and self.checkpoint and folder.is_dir():  # it is the right folder
            warn_unsaved(f"there is no {path.name} in {folder}")
            return
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

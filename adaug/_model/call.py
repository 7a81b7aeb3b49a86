"""How to call the user's model: with the images of a batch, or by the user's function."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.func import functional_call

from adaug._batches.batch import Batch, UserBatch

Forward = Callable[[nn.Module, UserBatch], Any]  # (model, batch) -> output


@dataclass(frozen=True)
class Call:
    """Calls a model on a batch.

    Attributes:
        forward: The user's function. None means `model(images)`.
    """

    forward: Forward | None = None

    def __call__(self, model: nn.Module, batch: Batch, user: UserBatch | None = None) -> Any:
        """The output for a batch. `user` is the same batch in the user's structure, if the caller has it."""
        if self.forward is None:
            return model(batch.inputs)
        return self.forward(model, batch.with_own_image().to_user() if user is None else user)

    def on_copies(self, model: nn.Module, batch: Batch, buffers: dict[str, Tensor]) -> Any:
        """The same call, which changes `buffers` instead of the model's own."""
        whole = _Called(model, self)
        return functional_call(whole, {f"model.{name}": buffer for name, buffer in buffers.items()}, (batch,))

    def needs(self, batch: Batch) -> Batch:
        """The part of a batch that a call needs: the images, or all of it for a function of the user's."""
        return batch.image_only() if self.forward is None else batch


class _Called(nn.Module):
    def __init__(self, model: nn.Module, call: Call) -> None:
        super().__init__()
        self.model, self.call = model, call

    def forward(self, batch: Batch) -> Any:
        return self.call(self.model, batch)

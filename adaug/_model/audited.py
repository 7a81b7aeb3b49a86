"""The model of an audit: a network, or any function of images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from adaug._batches.batch import Batch
from adaug._model.passes import quiet
from adaug._model.wrappers import device_of, refuse_fsdp1, unwrap


class AuditedModel:
    """Runs a model and leaves no trace on it."""

    def __init__(self, model: nn.Module | Callable[[Tensor], Any]) -> None:
        self._model: Any = model
        self._device: torch.device | None = None  # None: that of the images
        if isinstance(model, nn.Module):
            inner = self._model = unwrap(model)
            refuse_fsdp1(inner.modules())
            self._device = device_of(inner, None)

    def __call__(self, inputs: Any) -> Any:
        """What the model returns. Call it inside `untouched`."""
        return self._model(inputs)

    @contextmanager
    def untouched(self) -> Iterator[None]:
        """Runs the model in evaluation mode, without gradients, and puts back whatever changes."""
        if isinstance(self._model, nn.Module):
            with quiet(self._model, self._device or torch.device("cpu"), "audit"):
                yield
        else:
            with torch.no_grad():
                yield

    def placed(self, batch: Batch) -> Batch:
        """The batch on the model's device."""
        if self._device is None:
            return batch
        return replace(batch, entries={key: self._moved(entry) for key, entry in batch.entries.items()})

    def _moved(self, entry: Any) -> Any:
        return entry.to(self._device, non_blocking=True) if isinstance(entry, Tensor) else entry

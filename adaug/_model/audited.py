"""The model of an audit: a network, or any function of images."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

from adaug._batches.batch import Batch
from adaug._model.call import Call, Forward
from adaug._model.inside import modules_in
from adaug._model.passes import quiet
from adaug._model.wrappers import device_of, refuse_fsdp1, unwrap


class AuditedModel:
    """Runs a model and leaves no trace on it, nor on the networks that a function or a score refers to.

    Args:
        model: A network, or a function of images.
        score: The user's score.
        forward: The user's function (model, batch) -> output. None means `model(images)`.
    """

    def __init__(
        self, model: nn.Module | Callable[[Tensor], Any], score: Callable[..., Any], forward: Forward | None = None
    ) -> None:
        self._model: Any = unwrap(model) if isinstance(model, nn.Module) else model
        self._call = Call(forward)
        self._networks = list(dict.fromkeys(map(unwrap, modules_in((model, forward)))))
        refuse_fsdp1(module for network in self._networks for module in network.modules())
        self._device = device_of(unwrap(model), None) if isinstance(model, nn.Module) else None  # None: that of the images
        unknown = torch.device("cuda" if torch.cuda.is_available() else "cpu")  # a function may use a GPU
        self._where = self._device or unknown
        own = {id(module) for network in self._networks for module in network.modules()}
        self._beside = [network for network in map(unwrap, modules_in(score)) if id(network) not in own]

    def __call__(self, batch: Batch) -> Any:
        """What the model returns for a batch. Call it inside `untouched`."""
        with self._found_later():
            return self._call(self._model, batch)

    @contextmanager
    def untouched(self) -> Iterator[None]:
        """Runs networks in evaluation mode, without gradients, and puts back whatever changes."""
        with quiet(self._networks, self._where, "audit"), quiet(self._beside, self._where, "audit", attributes=False):
            yield

    @contextmanager
    def _found_later(self) -> Iterator[None]:
        """Networks that a function calls, and that nobody could see in it, become quiet when it calls them."""
        known = {id(module) for network in (*self._networks, *self._beside) for module in network.modules()}
        thread = threading.get_ident()

        def called(module: nn.Module, args: Any) -> None:
            if threading.get_ident() == thread and id(module) not in known:
                known.update(map(id, module.modules()))
                quieted.enter_context(quiet(module, self._where, "audit"))

        with ExitStack() as quieted:
            handle = register_module_forward_pre_hook(called)
            quieted.callback(handle.remove)
            yield

    def placed(self, batch: Batch) -> Batch:
        """The batch on the model's device."""
        if self._device is None:
            return batch
        return replace(batch, entries={key: self._moved(entry) for key, entry in batch.entries.items()})

    def _moved(self, entry: Any) -> Any:
        return entry.to(self._device, non_blocking=True) if isinstance(entry, Tensor) else entry

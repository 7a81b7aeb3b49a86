"""A pass through the user's model that leaves no trace on it."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn

from adaug._model.kept import all_kept
from adaug._model.locks import lock
from adaug._model.wrappers import is_compiled, shards
from adaug._runtime.random import random_state_kept


@contextmanager
def quiet(
    model: nn.Module | Sequence[nn.Module],
    device: torch.device,
    act: str,
    *,
    training: bool = False,
    attributes: bool = True,
) -> Iterator[None]:
    """A pass that leaves no trace: in evaluation mode, without gradients. What it changes is put back.

    These are random states, training flags, and what the user's modules hold: parameters, buffers and plain attributes.

    Compiled parts run uncompiled. The autocast cache is off: otherwise the
    training pass would reuse weights that were cast without gradients.

    Args:
        model: The model, or several.
        device: The device whose random state is kept.
        act: What the pass is for.
        training: Whether modules keep their own training flags. Then the caller must take care of buffers.
        attributes: Whether plain attributes are put back.
    """
    models = [model] if isinstance(model, nn.Module) else list(model)
    modules = list(dict.fromkeys(module for one in models for module in one.modules()))
    whole = [] if shards(modules) else modules  # what is sharded changes while it runs
    with lock(act, *models), all_kept(models, whole, attributes=attributes):  # two threads would mix up the flags
        flags = [module.training for module in modules]
        cached = torch.is_autocast_cache_enabled()
        try:
            if not training:
                _flag(modules, itertools.repeat(False))
            torch.set_autocast_cache_enabled(False)
            with random_state_kept(device), torch.no_grad(), _eager(modules):
                yield
        finally:
            torch.set_autocast_cache_enabled(cached)
            _flag(modules, flags)
            for module in shards(modules):  # otherwise only a backward pass would do it
                module.reshard()


def _flag(modules: Iterable[nn.Module], flags: Iterable[bool]) -> None:
    """Sets training flags. It does not call .eval(), which a user's module may override."""
    for module, flag in zip(modules, flags, strict=False):
        if module.training is not flag:
            if "training" in module.__dict__:
                module.__dict__["training"] = flag  # Module.__setattr__ takes longer than the rest of a look at a small network
            else:
                module.training = flag


def _eager(modules: Iterable[nn.Module]) -> AbstractContextManager[Any]:
    """Runs compiled code as it was written, because dynamo would permanently give up code that a look stops early."""
    return torch.compiler.set_stance("force_eager") if is_compiled(modules) else nullcontext()

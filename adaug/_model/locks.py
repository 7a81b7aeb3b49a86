"""Lets only one thread at a time use a model or an augmenter. A second one gets an error."""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Concatenate, ParamSpec, TypeVar

from torch import nn

from adaug._model.wrappers import unwrap

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


Owner = tuple[int, threading.Thread, str]  # a process, one of its threads, and what the thread is doing
_owners: dict[int, Owner] = {}  # by the id of the model or augmenter in use


def locked(method: Callable[Concatenate[T, P], R]) -> Callable[Concatenate[T, P], R]:
    """A method during which no other thread may use its object or the model that is its first argument."""

    @functools.wraps(method)
    def inner(self: T, /, *args: P.args, **kwargs: P.kwargs) -> R:
        model = args[0] if args else kwargs.get("model")
        models = [unwrap(model)] if isinstance(model, nn.Module) else []
        with lock(method.__name__, self, *models):
            return method(self, *args, **kwargs)

    return inner


@contextmanager
def lock(act: str, *things: object) -> Iterator[None]:
    """A block in which no other thread may use these models and augmenters. The same thread may, again and again.

    Raises RuntimeError if another thread is using one of them, or for a step inside a step. `act` is the method that the user
    called, for this error.
    """
    me: Owner = (os.getpid(), threading.current_thread(), act)
    taken = []
    try:
        for key in map(id, things):
            process, thread, other = owner = _owners.setdefault(key, me)  # one operation, so no two threads are both first
            if process != me[0]:  # a forked process does not have the threads of its parent
                owner = _owners[key] = me
            elif thread is not me[1]:
                raise RuntimeError(
                    f"`{act}` should be alone with its model and its augmenter. Found thread {thread.name!r} inside `{other}` "
                    "with one of them; give each thread a model and an augmenter of its own, or hold one lock around each step "
                    "with its backward pass, and around each `state_dict()`."
                )
            if owner is me:
                taken.append(key)
            elif act == "step" and other in ("step", "pretrain"):
                raise RuntimeError(
                    f"`step` should begin when the step before it is through. Found it inside `{other}`, in `loss_fn`, "
                    "`forward` or the model; call it in your training loop."
                )
        yield
    finally:
        for key in taken:
            _owners.pop(key, None)

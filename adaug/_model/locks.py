"""Lets only one thread at a time use a model or an augmenter."""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Concatenate, ParamSpec, TypeVar

from torch import nn

from adaug._model.wrappers import unwrap

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


@dataclass
class _Turn:
    """A thread that is using something: how many calls deep, and its outermost call."""

    thread: int
    name: str
    act: str
    depth: int = 0


_turns: dict[int, _Turn] = {}  # by the id of the thing in use
_changed = threading.Condition()


def alone(method: Callable[Concatenate[T, P], R]) -> Callable[Concatenate[T, P], R]:
    """A method during which no other thread may use its object or the model that is its first argument."""

    @functools.wraps(method)
    def inner(self: T, /, *args: P.args, **kwargs: P.kwargs) -> R:
        model = args[0] if args else kwargs.get("model")
        models = [unwrap(model)] if isinstance(model, nn.Module) else []
        with turn(method.__name__, self, *models):
            return method(self, *args, **kwargs)

    return inner


def waiting(method: Callable[Concatenate[T, P], R]) -> Callable[Concatenate[T, P], R]:
    """A method that waits while another thread uses its object."""

    @functools.wraps(method)
    def inner(self: T, /, *args: P.args, **kwargs: P.kwargs) -> R:
        with turn(method.__name__, self, wait=True):
            return method(self, *args, **kwargs)

    return inner


@contextmanager
def turn(act: str, *things: object, wait: bool = False) -> Iterator[None]:
    """A block in which no other thread may use these things. The same thread may, again and again.

    Args:
        act: The name of the method that the user called, for errors.
        things: Models and augmenters.
        wait: Whether to wait for another thread. By default another thread inside is a RuntimeError.
    """
    me = threading.get_ident()
    keys = [id(thing) for thing in things]
    with _changed:
        while other := next((_turns[key] for key in keys if key in _turns and _turns[key].thread != me), None):
            if not wait:
                raise RuntimeError(
                    f"`{act}` should be alone with its model and its augmenter. Found thread {other.name!r} inside "
                    f"`{other.act}` with one of them; give each thread a model and an augmenter of its own, or hold one lock "
                    "around each step with its backward pass."
                )
            _changed.wait()
        for key in keys:
            _turns.setdefault(key, _Turn(me, threading.current_thread().name, act)).depth += 1
    try:
        yield
    finally:
        with _changed:
            for key in keys:
                _turns[key].depth -= 1
                if not _turns[key].depth:
                    del _turns[key]
            _changed.notify_all()


def _forget() -> None:
    """Removes the turns of other threads in a forked process, which does not have these threads."""
    global _changed
    _changed = threading.Condition()
    me = threading.get_ident()
    for key in [key for key, held in _turns.items() if held.thread != me]:
        del _turns[key]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)

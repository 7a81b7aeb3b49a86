"""Subclasses of Tensor, such as tv_tensors and MONAI's: plain inside the library, and as they came for the user."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from adaug._runtime.geometry import Size


def is_subclass(entry: Any) -> bool:
    """Whether it is a tensor of a class of its own."""
    return isinstance(entry, Tensor) and type(entry) not in (Tensor, nn.Parameter)


def plain(tensor: Tensor) -> Tensor:
    """The same tensor without its class. Sums and states of such tensors can be saved and loaded anywhere."""
    return tensor.as_subclass(Tensor) if is_subclass(tensor) else tensor


def like(given: Tensor, made: Tensor, view_size: Size) -> Tensor:
    """A tensor of the class of another one, with its attributes."""
    if not is_subclass(given):
        return made
    wrapped = made.as_subclass(type(given))
    vars(wrapped).update(vars(given))
    if "canvas_size" in vars(given):
        vars(wrapped)["canvas_size"] = tuple(view_size)
    return wrapped

"""How the user holds a tensor that the library reads in another form: with a class of its own, as integers, or flat."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from adaug._batches.kinds import Key, Target
from adaug._runtime.geometry import Size

MOST = {torch.uint8: 255, torch.uint16: 65535}  # the integer that stands for 1 in an image


@dataclass(frozen=True)
class Held:
    """A tensor of the user's that the library reads in another form.

    Attributes:
        given: As the user has it.
        read: As the library reads it.
        columns: The numbers of each keypoint, if keypoints [n, columns * K] are read as [n, K, columns].
    """

    given: Tensor
    read: Tensor
    columns: int | None = None

    def target(self, key: Key, target: Target) -> Target:
        """What is said about the tensor as the library reads it. Raises ValueError if the user's dtype cannot hold its fill."""
        if not target.fill or self.given.dtype == self.read.dtype:
            return target
        most = MOST[self.given.dtype]
        check_fill(key, self.given.dtype, target.fill, most)
        return replace(target, fill=target.fill / most)

    def back(self, moved: Tensor, view_size: Size) -> Tensor:
        """What became of the tensor, as the user has it."""
        moved = moved if self.columns is None else moved.flatten(-2)
        if self.given.dtype != self.read.dtype:
            most = MOST[self.given.dtype]
            moved = (moved * most).round().clamp(0, most).to(self.given.dtype)
        return like(self.given, moved, view_size)


def held(key: Key, given: Tensor, target: Target) -> Held | None:
    """How the library reads a tensor. None: as it is.

    Images of uint8 and uint16 stand for 0 to 1. Keypoints [n, 2 * K] are x, y, x, y, ...
    """
    read = plain(given)
    if target.kind == "image" and read.dtype in MOST:
        return Held(given, read.to(torch.get_default_dtype()) / MOST[read.dtype])
    if target.kind == "keypoints" and read.ndim == 2:
        columns = 2 if target.format is None else 3
        if read.shape[1] % columns or not read.shape[1]:
            raise ValueError(
                f"{key!r}, of kind keypoints, should have {columns} numbers for each keypoint in a row. Found "
                f'{tuple(read.shape)}; if each has a visibility too, pass adaug.Target("keypoints", format="xyv").'
            )
        return Held(given, read.unflatten(1, (-1, columns)), columns)
    return None if read is given else Held(given, read)


def check_fill(key: Key, dtype: torch.dtype, fill: float, most: int | None = None) -> None:
    """Raises ValueError if a dtype cannot hold the fill.

    Args:
        key: The entry's key.
        dtype: Its dtype.
        fill: The fill.
        most: The integer that stands for 1, in images of integers.
    """
    if not fill:
        return
    if dtype.is_floating_point:
        holds, between = not math.isfinite(fill) or abs(fill) <= torch.finfo(dtype).max, f"up to {torch.finfo(dtype).max:.3g}"
    else:
        low, high = (0, 1) if dtype == torch.bool else (torch.iinfo(dtype).min, torch.iinfo(dtype).max)
        low, high = (low, high) if most is None else (0, most)
        holds = math.isfinite(fill) and fill == int(fill) and low <= fill <= high
        between = f"an integer from {low} to {high}"
    if not holds:
        raise ValueError(
            f"The fill of {key!r} should be a number that its dtype holds, {between}. Found {fill} for {dtype}; "
            "choose another one, or another dtype."
        )


def is_subclass(entry: object) -> bool:
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

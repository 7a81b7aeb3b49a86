"""The forms that an entry may have in a Dataset (single, channels last, integers, arrays, pictures), as tensors of a batch."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from adaug._batches.checks.shapes import FLOATING, check_layout
from adaug._batches.kinds import CARRIED, MAPS
from adaug._batches.moving.held import MOST, like, plain
from adaug._runtime.geometry import Size

Channels = Literal["first", "last"]
PLANES = ("image", *MAPS)
UNSIGNED = (torch.uint16, torch.uint32, torch.uint64)  # torch has few functions for these


@dataclass(frozen=True)
class Entry:
    """An entry that moves with the pixels, in the user's form and as a tensor of a batch.

    Attributes:
        given: The entry in the user's form.
        tensor: [n, ...], channels first, images in floating point.
        kind: Its kind.
        single: Whether the user's form has no dimension of the batch.
        last: Whether its channels come last.
        flat: Whether it has no channels.
        most: The integer that stands for 1. None for images in floating point.
        frames: The first dimensions of clips, which are one dimension of the tensor.
        dtype: The user's dtype.
    """

    given: Any
    tensor: Any
    kind: str
    single: bool = False
    last: bool = False
    flat: bool = False
    most: int | None = None
    frames: tuple[int, ...] | None = None
    dtype: torch.dtype | None = None

    def back(self, moved: Any, view_size: Size) -> Any:
        """The moved tensor in the user's type, dtype and layout. Coordinates of integers come back in floating point."""
        if self.most is not None:
            moved = (moved * self.most).round().clamp(0, self.most)
        if self.flat:
            moved = moved.squeeze(-3)
        elif self.last:
            moved = moved.movedim(-3, -1)
        if self.frames is not None:
            moved = moved.reshape(*self.frames, *moved.shape[1:])
        if isinstance(moved, (Tensor, np.ndarray)) and self.single:
            moved = moved[0]
        if self.kind == "other":
            return moved  # what a function of the user's made
        if isinstance(self.given, np.ndarray):
            floats = self.kind in FLOATING and self.given.dtype.kind in "iu"
            return np.ascontiguousarray(moved.numpy().astype(np.float32 if floats else self.given.dtype))
        if is_picture(self.given):
            return _picture_like(self.given, moved.numpy())
        if not isinstance(self.given, Tensor):
            return type(self.given)(moved.item())
        floats = self.kind in FLOATING and not self.given.is_floating_point()
        return like(self.given, moved.to(torch.float32 if floats else self.given.dtype).contiguous(), view_size)


def is_array(entry: Any) -> bool:
    """Whether an entry is a tensor, an array or a PIL picture."""
    return isinstance(entry, (Tensor, np.ndarray)) or is_picture(entry)


def is_picture(entry: Any) -> bool:
    """Whether an entry is a PIL picture. This does not import PIL."""
    module = sys.modules.get("PIL.Image")
    return module is not None and isinstance(entry, module.Image)


def is_number(entry: Any) -> bool:
    """Whether an entry is an integer of Python or NumPy, such as the label of a sample."""
    return isinstance(entry, (int, np.integer)) and not isinstance(entry, bool)


def lift(given: Any, kind: str, single: bool, channels: Channels, key: Any, frames: tuple[int, ...] | None = None) -> Entry:
    """Makes the Entry of an array, a tensor, a picture or a number. Raises TypeError or ValueError if it has another form.

    Args:
        given: The entry in the user's form.
        kind: Its kind.
        single: Whether it is part of one sample.
        channels: Where the channels of arrays and tensors stand.
        key: Its key, for errors.
        frames: The first dimensions of clips, which become one.
    """
    tensor = _tensor(given, kind, key)
    dtype = tensor.dtype
    if frames is not None:
        if tuple(tensor.shape[: len(frames)]) != frames:
            raise ValueError(
                f"{key!r}, of kind {kind}, should have a value for each frame, [{', '.join(map(str, frames))}, ...]. Found "
                f"{tuple(tensor.shape)}."
            )
        tensor = tensor.flatten(0, len(frames) - 1)
    tensor = tensor[None] if single else tensor
    if kind in CARRIED:
        return Entry(given, tensor, kind, single, frames=frames, dtype=dtype)
    flat = kind == "image" and single and tensor.ndim == 3
    last = (channels == "last" or is_picture(given)) and kind in PLANES and tensor.ndim == 4
    tensor = tensor[:, None] if flat else tensor.movedim(-1, -3) if last else tensor
    most = MOST.get(tensor.dtype) if kind == "image" else None
    if most is not None:
        tensor = tensor.to(torch.float32) / most
    elif kind == "image" and not tensor.is_floating_point():
        remedy = "image.float() / 255" if isinstance(given, Tensor) else ".astype(np.float32) and divide by the largest value"
        raise TypeError(f"{key!r} should hold floating point numbers, uint8 or uint16. Found {tensor.dtype}; use {remedy}.")
    elif kind in FLOATING and not tensor.is_floating_point():
        tensor = tensor.to(torch.float32)
    elif tensor.dtype in UNSIGNED:
        tensor = tensor.long()
    return Entry(given, tensor, kind, single, last, flat, most, frames, dtype)


def _tensor(given: Any, kind: str, key: Any) -> Tensor:
    if isinstance(given, Tensor):
        check_layout(key, given)
        return plain(given)
    if is_picture(given):
        if kind == "image" and given.mode in ("P", "PA", "1"):
            raise ValueError(f"{key!r} should be a colour or grey picture. Found mode {given.mode!r}; use .convert('RGB').")
        return torch.from_numpy(np.array(given))
    if isinstance(given, np.ma.MaskedArray):
        raise TypeError(f"{key!r} should hold a value everywhere. Found a masked array; use .filled(value).")
    array = np.array(given)  # a copy: not every array can be shared
    if array.dtype.kind not in "biuf":
        raise TypeError(
            f"{key!r} should be an array of numbers. Found dtype {array.dtype}; stack its rows with np.stack, or use "
            ".astype(np.float32)."
        )
    if array.dtype.itemsize > 8:
        array = array.astype(np.float64)
    return torch.from_numpy(array.astype(array.dtype.newbyteorder("="), copy=False))


def _picture_like(given: Any, array: Any) -> Any:
    """An array [h, w] or [h, w, c] as a picture with the same mode and palette."""
    from PIL import Image

    if given.mode == "1":
        return Image.fromarray(array.astype(bool))
    own = np.ascontiguousarray(array.astype(np.asarray(given).dtype))
    made = Image.frombytes(given.mode, (array.shape[1], array.shape[0]), own.tobytes())
    if given.mode == "P":
        made.putpalette(given.getpalette())
    return made

"""Turns what a Dataset holds (single samples, integers, channels last, PIL pictures, arrays) into a batch, and back."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from adaug._batches.batch import Batch, UserBatch
from adaug._batches.kinds import Key, Target, as_it_says, guess
from adaug._batches.parse import parse
from adaug._batches.rows import declared
from adaug._batches.tree import Path, children, key_of, map_leaves, replace, walk
from adaug._runtime.geometry import Size

Channels = Literal["first", "last"]
MOVING = ("image", "keypoints", "visibility", "heatmaps", "mask", "boxes")
PLANES = ("image", "heatmaps", "mask")
MOST = {torch.uint8: 255, torch.uint16: 65535}  # the integer that stands for 1 in an image
UNSIGNED = (torch.uint16, torch.uint32, torch.uint64)  # torch has few functions for these


@dataclass(frozen=True)
class Entry:
    """An entry that moves with the pixels, in the user's form and as a tensor of a batch.

    Attributes:
        given: The entry in the user's form.
        tensor: [n, ...], channels first, images in floating point.
        single: Whether the user's form has no dimension of the batch.
        last: Whether its channels come last.
        flat: Whether it has no channels.
        most: The integer that stands for 1. None for images in floating point.
    """

    given: Any
    tensor: Tensor
    single: bool
    last: bool
    flat: bool
    most: int | None

    def back(self, moved: Tensor, view_size: Size) -> Any:
        """The moved tensor in the user's type, dtype and layout."""
        if self.most is not None:
            moved = (moved * self.most).round().clamp(0, self.most)
        if self.flat:
            moved = moved.squeeze(-3)
        elif self.last:
            moved = moved.movedim(-3, -1)
        moved = moved[0] if self.single else moved
        if isinstance(self.given, np.ndarray):
            return np.ascontiguousarray(moved.numpy().astype(self.given.dtype))
        if not isinstance(self.given, Tensor):
            return _picture_like(self.given, moved.numpy())
        return _tensor_like(self.given, moved.to(self.given.dtype).contiguous(), view_size)


@dataclass
class Lifted:
    """A user's batch or sample as a batch of the library.

    Attributes:
        source: The user's own object.
        given: The user's targets.
        single: Whether it is one sample, without the dimension of a batch.
        channels: Whether channels of arrays and tensors come "first" or "last".
        entries: The entries that move with the pixels, by path.
        batch: The whole as a batch.
    """

    source: UserBatch
    given: Mapping[Key, Target]
    single: bool
    channels: Channels
    entries: dict[Path, Entry] = field(default_factory=dict, init=False)
    batch: Batch = field(init=False)

    def __post_init__(self) -> None:
        lifted = map_leaves(self._lifted, self.source)
        self.batch = parse(lifted, {key: self._target(key, target) for key, target in self._targets().items()})

    def back(self, moved: Batch, view_size: Size) -> UserBatch:
        """The moved batch in the user's structure. What did not change is copied."""
        changes = {}
        for path, entry in self.entries.items():
            now = moved.entries[key_of(path)]
            if now is not self.batch.entries[key_of(path)]:
                changes[path] = entry.back(now, view_size)
        return replace(self.source, changes, copies=True)

    def _lifted(self, path: Path, entry: Any) -> Any:
        kind = self._kind(path, entry)
        if kind in MOVING and is_array(entry):
            self.entries[path] = _entry(entry, kind, self.single, self.channels, path)
            return self.entries[path].tensor
        if isinstance(entry, (Tensor, np.ndarray)):
            return entry[None] if self.single else entry
        return entry

    def _kind(self, path: Path, entry: Any) -> str | None:
        if not path:
            return None
        target = (
            self._inside(path, entry) or self.given.get(key_of(path)) or (guess(path[0], entry) if len(path) == 1 else None)
        )
        return None if target is None else target.kind

    def _inside(self, path: Path, entry: Any) -> Target | None:
        """The target of an entry inside a sample, as a row of a list has it: from the user, or from its name."""
        if not self.single or len(path) == 1 or not isinstance(path[-1], str):
            return None
        return declared(path, self.given) or guess(path[-1], entry)

    def _targets(self) -> dict[Key, Target]:
        """The user's targets, and those of boxes, which may know their own format."""
        guessed = {key: guess(key, entry.given) for (key, *rest), entry in self.entries.items() if not rest}
        inside = {path: self._inside(path, entry.given) for path, entry in self.entries.items()}
        known = {key: kind for key, kind in guessed.items() if kind and kind.kind == "boxes"}
        return known | {path: target for path, target in inside.items() if target} | dict(self.given)

    def _target(self, key: Key, target: Target) -> Target:
        """The target of an entry in the batch: its fill divided like the image, and a box's own format."""
        entry = self.entries.get(key if isinstance(key, tuple) and key in self.entries else (key,))
        if entry is None:
            return target
        if entry.most is not None:
            return dataclasses.replace(target, fill=target.fill / entry.most)
        return as_it_says(target, entry.given)


def image_of(batch: UserBatch, given: Mapping[Key, Target]) -> Any:
    """The image of a batch or a sample. None if no entry is one."""
    for key, target in given.items():
        if target.kind == "image":
            try:
                return walk(batch, (key,))
            except LookupError:
                try:
                    return walk(batch, key)
                except LookupError:
                    return None
    for key, entry in children(batch):
        kind = given.get(key) or guess(key, entry)
        if kind is not None and kind.kind == "image":
            return entry
    return None


def is_array(entry: Any) -> bool:
    """Whether an entry is a tensor, an array or a PIL picture."""
    return isinstance(entry, (Tensor, np.ndarray)) or is_picture(entry)


def is_picture(entry: Any) -> bool:
    """Whether an entry is a PIL picture. This does not import PIL."""
    module = sys.modules.get("PIL.Image")
    return module is not None and isinstance(entry, module.Image)


def _entry(given: Any, kind: str, single: bool, channels: Channels, path: Path) -> Entry:
    name = repr(key_of(path))
    if is_picture(given):
        if kind == "image" and given.mode in ("P", "1"):
            raise ValueError(f"{name} should be a colour or grey picture. Found mode {given.mode!r}; use .convert('RGB').")
        tensor = torch.from_numpy(np.array(given))
        channels = "last"
    elif isinstance(given, np.ndarray):
        tensor = torch.from_numpy(np.array(given))  # a copy: not every array can be shared
    else:
        tensor = given.as_subclass(Tensor)
    tensor = tensor[None] if single else tensor
    flat = kind == "image" and single and tensor.ndim == 3
    last = channels == "last" and kind in PLANES and tensor.ndim == 4
    if flat:
        tensor = tensor[:, None]
    elif last:
        tensor = tensor.movedim(-1, -3)
    elif kind == "image" and tensor.ndim == 4 and tensor.shape[3] in (1, 3, 4) and min(tensor.shape[1:3]) > 4:
        raise ValueError(
            f"{name} should have its channels first. Found {tuple(given.shape)}, whose channels seem to come last; pass "
            'channels="last" if they do.'
        )
    most = MOST.get(tensor.dtype) if kind == "image" else None
    if most is not None:
        tensor = tensor.to(torch.float32) / most
    elif tensor.dtype in UNSIGNED:
        tensor = tensor.long()
    return Entry(given, tensor, single, last, flat, most)


def _tensor_like(given: Tensor, made: Tensor, view_size: Size) -> Tensor:
    """A tensor of the same class with the same attributes, such as one of torchvision's tv_tensors."""
    if type(given) in (Tensor, nn.Parameter):
        return made
    wrapped = made.as_subclass(type(given))
    vars(wrapped).update(vars(given))
    if "canvas_size" in vars(given):
        vars(wrapped)["canvas_size"] = tuple(view_size)
    return wrapped


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

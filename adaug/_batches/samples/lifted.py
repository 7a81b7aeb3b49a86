"""Turns what a Dataset holds (single samples, clips, arrays, pictures) into a batch of the library, and back."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from adaug._batches.batch import Batch, UserBatch
from adaug._batches.kinds import MODES, PLAIN, Key, Target
from adaug._batches.moving.held import check_fill
from adaug._batches.names import as_it_says, guess, own_kind
from adaug._batches.parse import parse
from adaug._batches.rows import declared
from adaug._batches.samples.forms import Channels, Entry, is_array, is_number, is_picture, lift
from adaug._batches.tree import Path, is_container, key_of, map_leaves, replace, walk
from adaug._runtime.geometry import Size


@dataclass
class Lifted:
    """A user's batch or sample as a batch of the library.

    Attributes:
        source: The user's own object.
        given: The user's targets.
        single: Whether it is one sample, without the dimension of a batch.
        channels: Whether channels of arrays and tensors come "first" or "last".
        frames: The first dimensions of what belongs to frames of clips: (T,) in a sample, (B, T) in a batch.
        rest: "other" leaves tensors of unknown kind as they are.
        entries: The entries that move with the pixels, by path.
        batch: The whole as a batch.
    """

    source: UserBatch
    given: Mapping[Key, Target]
    single: bool
    channels: Channels
    frames: tuple[int, ...] | None = None
    rest: str | None = None
    entries: dict[Path, Entry] = field(default_factory=dict, init=False)
    batch: Batch = field(init=False)

    def __post_init__(self) -> None:
        lifted = map_leaves(self._lifted, self.source, opens=self._opens)
        lifted = replace(lifted, {path: self._lifted(path, entry) for path, entry in self._attributes().items()})
        known = {key_of(path): self._said(path, entry.given) for path, entry in self.entries.items()}
        given = {key: target for key, target in known.items() if target is not None} | dict(self.given)
        self.batch = parse(lifted, {key: self._target(key, target) for key, target in given.items()}, self.rest)

    def back(self, moved: Batch, view_size: Size) -> UserBatch:
        """The moved batch in the user's structure. What did not change is copied."""
        changes = {}
        for path, entry in self.entries.items():
            now = moved.entries[key_of(path)]
            if now is not self.batch.entries[key_of(path)]:
                form = self.batch.forms.get(key_of(path))
                changes[path] = entry.back(now if form is None else form.back(now, view_size), view_size)
        return replace(self.source, changes, copies=True)

    def _attributes(self) -> dict[Path, Any]:
        """The attributes of objects that the user's targets name."""
        found: dict[Path, Any] = {}
        for path in self.given:
            if isinstance(path, tuple) and path not in self.entries:
                with suppress(LookupError):
                    found[path] = walk(self.source, path)
        return found

    def _opens(self, path: Path, entry: Any) -> bool:
        moved = path and (target := self.given.get(key_of(path))) is not None and target.move is not None
        return is_container(path, entry) and not moved

    def _lifted(self, path: Path, entry: Any) -> Any:
        target = self._said(path, entry) or PLAIN["other"]
        if target.move is not None:
            rows, frames = self._rows(entry)
            self.entries[path] = Entry(entry, rows, "other", self.single and rows is not entry, frames=frames)
        elif not target.carried and (is_array(entry) or (target.kind == "label" and is_number(entry))):
            self.entries[path] = lift(entry, target.kind, self.single, self.channels, key_of(path), self.frames)
        else:
            rows, frames = self._rows(entry)
            return None if self.frames is not None and isinstance(rows, (Tensor, np.ndarray)) and frames is None else rows
        return self.entries[path].tensor

    def _rows(self, entry: Any) -> tuple[Any, tuple[int, ...] | None]:
        """An entry with one dimension of rows, and the dimensions of clips that became this one."""
        if not isinstance(entry, (Tensor, np.ndarray)):
            return entry, None
        if self.frames is None:
            return (entry[None] if self.single else entry), None
        n = len(self.frames)
        return (entry.reshape(-1, *entry.shape[n:]), self.frames) if tuple(entry.shape[:n]) == self.frames else (entry, None)

    def _said(self, path: Path, entry: Any) -> Target | None:
        """What the user says about an entry, or its type or its name. Inside a sample, names tell as in a row of a list."""
        if not path:
            return None
        if self.single and len(path) > 1 and isinstance(path[-1], str):
            return declared(path, self.given) or guess(path[-1], entry)
        return self.given.get(key_of(path)) or (guess(path[0], entry) if len(path) == 1 else own_kind(entry))

    def _target(self, key: Key, target: Target) -> Target:
        """The target of an entry in the batch: its fill divided like the image, and what it says about itself."""
        entry = self.entries.get(key if isinstance(key, tuple) and key in self.entries else (key,))
        if entry is None:
            return target
        if is_picture(entry.given) and target.kind == "image" and target.format is None and entry.given.mode in MODES:
            target = dataclasses.replace(target, format=entry.given.mode)
        if entry.dtype is not None and target.fill:
            check_fill(key, entry.dtype, target.fill, entry.most)
            target = dataclasses.replace(target, fill=target.fill / (entry.most or 1))
        return as_it_says(target, entry.given)

"""The user's mini-batch with the kind of each entry, and how a view moves it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from adaug._batches import tree
from adaug._batches.kinds import SIZES, Key, Target
from adaug._batches.moving import flat, moves
from adaug._batches.moving.colours import colour_channels
from adaug._batches.moving.held import Held
from adaug._batches.moving.moves import Motion
from adaug._batches.rows import cut
from adaug._batches.tree import Path
from adaug._batches.units import box_to_pixels, to_pixels
from adaug._runtime.geometry import Size, full_precision
from adaug._views.view import View
from adaug.keypoints import Pairs, labelled

UserBatch = Any  # a user's batch: a mapping, a tuple or a list
STAND_IN = object()  # the key of what stands for the images of a batch that has none


@dataclass(frozen=True)
class Batch:
    """A user's batch with the kind of each of its entries.

    Attributes:
        entries: The entries by name or position.
        kinds: The kind of each entry.
        source: The user's own object, for its structure.
        listed: The entries that came as lists of rows. Here they are padded tensors.
        guessed: The entries that stay as they are because of their name or position alone. Of lists, the first row.
        forms: Entries that the user has in another form.
        rows: The user's own list, if it has a mapping for each row. `source` then is a mapping of lists.
    """

    entries: dict[Key, Any]
    kinds: dict[Key, Target]
    source: UserBatch
    listed: frozenset[Key] = frozenset()
    guessed: Mapping[Key, Any] = field(default_factory=dict)
    forms: Mapping[Key, Held] = field(default_factory=dict)
    rows: Sequence[Any] | None = None

    @property
    def image(self) -> Tensor:
        """The images [B, C, H, W]."""
        image: Tensor = self.entries[self._image_key]
        return image

    @property
    def inputs(self) -> Any:
        """The images for the model, one tensor or a list. Raises TypeError if the user has them as integers."""
        key = self._image_key
        if key in self.forms and not (given := self.forms[key].given).is_floating_point():
            raise TypeError(
                f"Images should be floating point where adaug calls the model. Found {given.dtype} at {key!r}; "
                "use image.float() / 255, or pass `forward`, (model, batch) -> output, for a model that takes integers."
            )
        return list(self.image) if key in self.listed else self.image

    @property
    def size(self) -> Size:
        """Height and width of the images."""
        return self.image.shape[-2], self.image.shape[-1]

    @property
    def sizes(self) -> list[Size]:
        """The sizes of the images: one for all, or one for each."""
        return [self.size]

    @property
    def parts(self) -> Sequence[Batch]:
        """What it consists of: itself, or a batch of one row for each image."""
        return [self]

    def __len__(self) -> int:
        return len(self.image)

    def has(self, kind: str) -> bool:
        """Whether there is an entry of a kind."""
        return bool(self.keys_of(kind))

    def entries_of(self, kind: str) -> list[Tensor]:
        """The entries of a kind with a row for each image. Keypoints and boxes are in pixels (xyxy), whatever the user has."""
        return [self.in_pixels(key) for key in self.keys_of(kind) if self.kinds[key].rows is None]

    def labelled_keypoints(self) -> tuple[Tensor, Tensor] | None:
        """The first keypoints in pixels, [B, ..., K, 2 or 3], and which of them count, [B, ..., K]. None without keypoints."""
        sets, visible = self.entries_of("keypoints"), self.entries_of("visibility")
        return (sets[0], labelled(sets[0], visible[0] if visible else None)) if sets else None

    def joint_dim(self, visibility: Tensor) -> int:
        """The dimension of a visibility that counts the keypoints."""
        points = self.keys_of("keypoints")
        if points:
            return self.entries[points[0]].ndim - 2
        single = visibility.ndim == 3 and visibility.shape[-1] == 1  # [B, K, 1]
        return 1 if self.has("heatmaps") or single else visibility.ndim - 1

    def in_pixels(self, key: Key) -> Tensor:
        """An entry. Keypoints [..., 2 or 3] and boxes (xyxy) are in pixels, whatever the user has."""
        entry, target = self.entries[key], self.kinds[key]
        if target.kind == "boxes":
            return box_to_pixels(entry, target.unit, target.format, self.size)
        if target.kind != "keypoints":
            return entry
        entry = entry[..., :2] if target.format == "xyz" else entry
        if target.unit in (None, "pixels"):
            return entry
        xy = to_pixels(entry[..., :2], target.unit, self.size)
        return torch.cat([xy, entry[..., 2:].to(xy.dtype)], -1)

    def keys_of(self, kind: str) -> list[Key]:
        """The keys of the entries of a kind."""
        return [key for key, target in self.kinds.items() if target.kind == kind]

    @property
    def _image_key(self) -> Key:
        return self.keys_of("image")[0]

    # ---- other batches

    @property
    def flat(self) -> dict[Key, list[Key]]:
        """The entries with objects of all images, by the key of the entry that holds the image of each object."""
        found: dict[Key, list[Key]] = {}
        for key, target in self.kinds.items():
            if target.rows is not None:
                found.setdefault(target.rows, [target.rows]).append(key)
        return found

    def select(self, index: Tensor) -> Batch:
        """The batch of the rows `index` [n] long."""
        rows = partial(_select, index=index, n=len(self))
        entries = tree.map_leaves(rows, self.entries, opens=tree.has_names)
        for image, keys in self.flat.items():
            objects, numbers = flat.picked(flat.image_of(self.entries, image), index)
            entries = entries | {key: flat.take(self.entries[key], objects) for key in keys}
            entries[image] = flat.like(self.entries[image], numbers)
        return replace(self, entries=entries, rows=None if self.rows is None else flat.take(self.rows, index))

    def joined(self, first: Batch, second: Batch) -> Batch:
        """Joins two batches that were made from rows of this one."""
        rows = partial(_joined, n=len(self))
        entries = tree.map_leaves(rows, self.entries, first.entries, second.entries, opens=tree.has_names)
        for image, keys in self.flat.items():
            entries = entries | {key: flat.join(first.entries[key], second.entries[key]) for key in keys}
            entries[image] = flat.join(first.entries[image], second.entries[image] + len(first))
        return replace(self, entries=entries, rows=None if self.rows is None else flat.join(first.rows, second.rows))

    def with_image(self, image: Tensor) -> Batch:
        """The same batch with other images."""
        return replace(self, entries={**self.entries, self._image_key: image})

    def image_only(self) -> Batch:
        """The batch with only its images, for a look."""
        key = self._image_key
        entries, kinds = {key: self.entries[key]}, {key: self.kinds[key]}
        return replace(self, entries=entries, kinds=kinds, source={}, listed=self.listed & {key}, rows=None)

    def to_user(self) -> UserBatch:
        """The batch in the user's structure. Labels are copies, so writing to them changes no other batch; images are not."""
        own: dict[Path, Any] = {}
        entries = {key: entry for key, entry in self.entries.items() if key is not STAND_IN}
        for key, entry in entries.items():
            image, path = self.kinds[key].kind == "image", key if self._is_nested(key) else (key,)
            if key in self.listed:
                own.update(cut(key, self._held(key, copies=not image), self.entries[key[0]], self.kinds[key]))
            elif image or key in self.forms:
                own[path] = self._held(key, copies=not image)
            elif self._is_nested(key):
                own[path] = tree.replace(entry, {}, copies=True)
        top = {key: entry for key, entry in entries.items() if not self._is_nested(key)}
        made = tree.with_children(self.source, tree.replace(top, own, copies=True))
        if self.rows is None:
            return made
        rows = [tree.with_children(row, {name: made[name][i] for name in row}) for i, row in enumerate(self.rows)]
        return tree.with_children(self.rows, dict(enumerate(rows)))

    def _held(self, key: Key, *, copies: bool = False) -> Tensor:
        """An entry as the user has it. One that stayed is the user's own, or a copy of it."""
        entry, form = self.entries[key], self.forms.get(key)
        if form is None:
            return entry.clone() if copies else entry
        if entry is form.read and not copies:
            return form.given
        return form.back(entry.clone() if copies else entry, self.size)

    def _is_nested(self, key: Key) -> bool:
        return isinstance(key, tuple) and not (isinstance(self.source, Mapping) and key in self.source)

    def with_own_image(self) -> Batch:
        """The same batch. If its images are the user's own tensor, they are copied."""
        key = self._image_key
        return self.with_image(self.image.clone()) if self.as_given(key) is self._held(key) else self

    def as_given(self, key: Key) -> Any:
        """An entry in the user's own object, as it was before any view. None if that object has none at this key."""
        try:
            return tree.walk(self.source, key if self._is_nested(key) else (key,))
        except LookupError:
            return None

    def apply(self, view: View, view_size: Size | None, *, back: bool = False) -> Batch:
        """The batch under a view. Entries that the view does not touch stay as they are.

        Args:
            view: The view.
            view_size: Its size. None: that of the images.
            back: Whether it leads back to the image. Then what leaves the frame stays visible: a prediction may lie there.
        """
        view_size = view_size or self.size
        view.check(len(self), self.size, view_size)
        with full_precision(self.image.device):
            entries = dict(self.entries) if view.matrix is None else self._moved(view, view.matrix, view_size, back)
            for key in self.keys_of("image"):
                entries[key] = view.paint(entries[key], colour_channels(self.kinds[key], entries[key].shape[1]))
            return replace(self, entries=entries)

    # ---- what a view moves

    def pairs_of(self, key: Key, pairs: Pairs | None) -> Pairs | None:
        """What changes places in an entry: its own pairs, those of the keypoints for a visibility, or those of a flip."""
        target = self.kinds[key]
        if target.pairs is None and target.kind == "visibility" and self.has("keypoints"):
            target = self.kinds[self.keys_of("keypoints")[0]]
        return pairs if target.pairs is None else target.pairs

    def _moved(self, view: View, matrix: Tensor, view_size: Size, back: bool) -> dict[Key, Any]:
        """The entries after the matrix and the flip of a view."""
        entries, whole = dict(self.entries), Motion.of(view, matrix, self.size, view_size, hides=not back)
        motions = {image: whole.select(flat.image_of(self.entries, image)) for image in self.flat}
        gone: Tensor | None = None
        for key, target in self.kinds.items():
            entry, motion = entries[key], motions.get(target.rows, whole)
            pairs = self.pairs_of(key, view.pairs) or ()
            if target.kind == "image":
                entries[key] = moves.image(entry, target, motion)
            elif target.kind == "heatmaps":
                entries[key] = moves.heatmaps(key, entry, target, motion, pairs)
                if gone is None and whole.hides and self.has("visibility"):
                    gone = moves.gone_peaks(entry, target, motion, pairs)
            elif target.kind == "boxes":
                entries[key] = moves.boxes(entry, target, motion)
            elif target.kind in SIZES:
                entries[key] = moves.size(entry, target, motion)
            elif target.kind in moves.MAPS:
                entries[key] = moves.MAPS[target.kind](key, entry, target, motion)
            elif target.move is not None:
                entries[key] = moves.by_function(key, entry, target.move, view, len(self))
            elif target.kind == "label" and target.pairs is not None:
                entries[key] = moves.label(entry, target, motion)
        for key in self.keys_of("keypoints"):
            target, pairs = self.kinds[key], self.pairs_of(key, view.pairs) or ()
            entries[key], gone = moves.keypoints(entries[key], target, motions.get(target.rows, whole), pairs)
        for key in self.keys_of("visibility"):
            visible, pairs = entries[key], self.pairs_of(key, view.pairs) or ()
            visible = motions.get(self.kinds[key].rows, whole).swapped(visible, pairs, self.joint_dim(visible))
            entries[key] = moves.invisible(visible, gone) if whole.hides and gone is not None else visible
        return entries


def _select(path: Path, entry: Any, index: Tensor, n: int) -> Any:
    """Some rows of an entry with n rows. An entry without rows stays as it is."""
    return flat.take(entry, index) if tree.has_rows(entry, n) else entry


def _joined(path: Path, entry: Any, first: Any, second: Any, n: int) -> Any:
    """Joins two entries that were selected from one with n rows. An entry without rows stays as it is."""
    return flat.join(first, second) if tree.has_rows(entry, n) else entry

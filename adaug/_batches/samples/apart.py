"""Batches whose images have different sizes, as detectors take them: a batch of one row for each image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial, reduce
from typing import Any, cast

from torch import Tensor

from adaug._batches.batch import Batch, UserBatch
from adaug._batches.kinds import Key, Target, as_targets
from adaug._batches.moving.flat import join
from adaug._batches.parse import parse
from adaug._batches.rows import is_rows
from adaug._batches.samples.listed import opens
from adaug._batches.samples.readings import image_of
from adaug._batches.tree import Path, has_rows, map_leaves
from adaug._runtime.geometry import Size
from adaug._views.view import View


@dataclass(frozen=True)
class Apart(Batch):
    """A batch of rows that cannot be stacked. It has no entries that cover all rows.

    Attributes:
        each: A batch of one for each row, structured like the user's.
    """

    each: tuple[Batch, ...] = ()

    @property
    def image(self) -> Tensor:
        """The first image, [1, C, H, W]. It tells the device."""
        return self.each[0].image

    @property
    def parts(self) -> Sequence[Batch]:
        """The batches of one row."""
        return self.each

    @property
    def sizes(self) -> list[Size]:
        """The size of each image."""
        return [row.size for row in self.each]

    def __len__(self) -> int:
        return len(self.each)

    def with_image(self, image: Tensor) -> Batch:
        """Refused: one tensor cannot hold the images."""
        raise ValueError(
            "A policy with functions in `common` should get images of one size, because these see them together. Found "
            f"{len(self)} images of different sizes; pad them, or use operations such as adaug.Brightness."
        )

    def apply(self, view: View, view_size: Size | None, *, back: bool = False) -> Batch:
        """The batch under a view. Without a view size, each row keeps the size that its view makes."""
        view.check_rows(len(self))
        rows = zip(self.each, view.each(len(self)), strict=True)
        return replace(
            self, each=tuple(row.apply(one, view_size or cast("Size | None", one.size), back=back) for row, one in rows)
        )

    def to_user(self) -> UserBatch:
        """The batch in the user's structure."""
        made = [row.to_user() for row in self.each]
        if is_rows(self.source, {}, alone=True):
            return type(self.source)([row for one in made for row in one])
        return map_leaves(partial(_gathered, n=len(self)), self.source, *made, opens=opens)


def read(batch: UserBatch, targets: Mapping[Any, str | Target] | None, rest: str | None) -> Batch:
    """Reads a user's batch as `parse` does, also one whose images have different sizes. Raises the same errors."""
    given = as_targets(targets)
    n = _rows_apart(batch, given)
    if n is None:
        return parse(batch, targets, rest)
    flat = [key for key, target in given.items() if target.rows is not None]
    if flat:
        raise ValueError(
            f"Images of different sizes should have their objects in lists, one for each image. Found {flat[0]!r}, with the "
            "objects of all images in one tensor; split it, or pad the images to one size."
        )
    rows = (
        [type(batch)([row]) for row in batch]
        if is_rows(batch, given)
        else [map_leaves(partial(_row, i=i, n=n), batch, opens=opens) for i in range(n)]
    )
    return Apart({}, {}, batch, each=tuple(parse(row, targets, rest) for row in rows))


def _rows_apart(batch: UserBatch, given: Mapping[Key, Target]) -> int | None:
    """The number of rows if images have different sizes, else None."""
    if not isinstance(batch, (Mapping, list, tuple)) or not batch:
        return None
    images = [image_of(row, given)[1] for row in batch] if is_rows(batch, given) else image_of(batch, given)[1]
    if not isinstance(images, (list, tuple)) or not all(isinstance(image, Tensor) for image in images):
        return None
    return len(images) if len({image.shape[-2:] for image in images}) > 1 else None


def _row(path: Path, entry: Any, i: int, n: int) -> Any:
    """Row i of n, as one of one."""
    return entry[i : i + 1] if has_rows(entry, n) else entry


def _gathered(path: Path, entry: Any, *rows: Any, n: int) -> Any:
    """Puts n rows together again: the reverse of `_row`."""
    return reduce(join, rows) if has_rows(entry, n) else entry

"""Batches with lists of rows, as detectors take them: padded to tensors, and cut to lists again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from adaug._batches.checks.unmoved import holds_numbers
from adaug._batches.kinds import PLAIN, Key, Target
from adaug._batches.names import as_it_says, guess, refuse_unknown
from adaug._batches.tree import Path, is_named_tuple, key_of, walk


def is_rows(batch: Any, given: Mapping[Key, Target]) -> bool:
    """Whether a batch is a list with a mapping for each row (detectron2), which holds an image [C, H, W]."""
    rows = isinstance(batch, (list, tuple)) and not is_named_tuple(batch) and len(batch) > 0
    return rows and all(isinstance(row, Mapping) and any(_is_image(*item, given) for item in row.items()) for row in batch)


def _is_image(name: Any, entry: Any, given: Mapping[Key, Target]) -> bool:
    kind = given.get(name) or guess(name, entry) if isinstance(name, str) else None
    return kind is not None and kind.kind == "image" and getattr(entry, "ndim", 3) < 4


def as_columns(rows: Sequence[Mapping[Any, Any]]) -> dict[Key, list[Any]]:
    """A mapping for each row as a mapping of lists. Raises ValueError if rows have different names."""
    return {name: [row[name] for row in rows] for name in _names("a batch", rows)}


def _names(whose: str, rows: Sequence[Mapping[Any, Any]]) -> list[Any]:
    """The names that all rows share. Raises ValueError if some have others."""
    names = [sorted(map(str, row)) for row in rows]
    if any(other != names[0] for other in names):
        raise ValueError(f"All rows of {whose} should have the same names. Found {names}.")
    return list(rows[0])


def listed_rows(entries: Mapping[Key, Any], given: Mapping[Key, Target]) -> dict[Path, list[Any]]:
    """The lists of rows in a batch. There are none if the images are not a list of tensors.

    Returns:
        Path without the number of the row -> the value of each row. Such as ("images",) for a list of tensors, ("targets",
        "boxes") for a list of mappings, and ("samples", "instances", "boxes") for attributes that `given` names.
    """
    n = next((len(entry) for key, entry in entries.items() if _is_images(key, entry, given)), None)
    rows: dict[Path, list[Any]] = {}
    for key, entry in entries.items() if n is not None else ():
        if not isinstance(entry, (list, tuple)) or is_named_tuple(entry) or len(entry) != n:
            continue
        if all(isinstance(row, (Tensor, np.ndarray)) for row in entry):
            rows[key,] = list(entry)
        elif all(isinstance(row, Mapping) for row in entry):
            rows |= {(key, name): [row[name] for row in entry] for name in _names(repr(key), entry)}
        else:
            rows[key,] = list(entry)
        inside = [path for path in given if isinstance(path, tuple) and len(path) > 1 and path[0] == key and path not in rows]
        rows |= {path: each for path in inside if (each := _walked(entry, path[1:])) is not None}
    return rows


def _walked(rows: Sequence[Any], path: Path) -> list[Any] | None:
    """What each row holds at a path. None if a row has no such path."""
    try:
        return [walk(row, path) for row in rows]
    except LookupError:
        return None


def declared(path: Path, given: Mapping[Key, Target]) -> Target | None:
    """The user's target for a path in rows, or for the whole entry around it."""
    return next((given[key] for key in (key_of(path), path, path[0]) if key in given), None)


def kinds_of_rows(
    rows: Mapping[Path, Sequence[Any]], given: Mapping[Key, Target], rest: str | None
) -> tuple[dict[Path, Target], set[Path]]:
    """The kind of everything in rows, and the paths of which nothing tells the kind.

    Raises ValueError that names all of these that hold numbers, unless `rest` says what they are.
    """
    kinds: dict[Path, Target] = {}
    unknown: set[Path] = set()
    for path, each in rows.items():
        beside = [other[-1] for other in rows if other[:-1] == path[:-1]]
        kind = declared(path, given) or guess(path[-1], each, beside)
        targets = [as_it_says(kind or PLAIN["other"], row) for row in each]
        kinds[path] = targets[0]
        if any(other != targets[0] for other in targets):
            formats = dict.fromkeys(str(target.format) for target in targets)
            raise ValueError(f"Rows of {key_of(path)!r} should have one format. Found {', '.join(formats)}; convert them.")
        if kind is None and holds_numbers(each):
            unknown.add(path)
    refuse_unknown([key_of(path) for path in kinds if path in unknown], rest)
    return kinds, unknown


def padded(path: Path, rows: Sequence[Any], target: Target) -> Tensor:
    """Joins rows to one tensor [n, ...]. Rows with fewer boxes, people or masks are filled up with zeros.

    Raises TypeError or ValueError if rows do not fit together.
    """
    name = repr(key_of(path))
    if target.rows is not None:
        raise ValueError(
            f"`rows` should be given for objects of all images in one tensor. Found it for {name}, a list; leave it out."
        )
    rows = [torch.from_numpy(row) if isinstance(row, np.ndarray) else row for row in rows]
    for row in rows:
        if not isinstance(row, Tensor) or not row.ndim:
            raise TypeError(f"Rows of {name}, of kind {target.kind}, should be tensors. Found {type(row).__name__} among them.")
    if target.kind == "image":
        sizes = list(dict.fromkeys(tuple(row.shape) for row in rows))
        if len(sizes) > 1:
            raise ValueError(
                f"Images in the list {name} should have one size, because the model sees them together. Found "
                f"{', '.join(map(str, sizes[:4]))}; resize or pad them in the data set, or use adaug.Augment, which "
                "augments each image by itself."
            )
        return torch.stack(list(rows))
    if len({row.shape[1:] for row in rows}) > 1 or len({row.dtype for row in rows}) > 1:
        found = ", ".join(f"{tuple(row.shape)} {row.dtype}" for row in rows[:4])
        raise ValueError(f"Rows of {name} should differ only in their first dimension. Found {found}.")
    return pad_sequence(list(rows), batch_first=True)


def cut(path: Path, moved: Tensor, entry: Sequence[Any], target: Target) -> dict[Path, Any]:
    """Cuts a padded tensor to rows again, each as long as it came. Returns them by their paths in the batch.

    Args:
        path: The path without the number of the row.
        moved: The padded tensor after a view, [n, ...].
        entry: The user's entry at the first part of the path.
        target: The kind of the rows.
    """
    rows: dict[Path, Any] = {}
    for i, row in enumerate(moved):
        came = walk(entry, (i, *path[1:]))
        whole = target.kind == "image" or (target.kind == "mask" and came.ndim == 2)  # no dimension of objects
        own = (path[0], i, *path[1:])
        row = row if whole else row[: len(came)]
        rows[own] = row.cpu().numpy() if isinstance(came, np.ndarray) else row
    return rows


def _is_images(key: Key, entry: Any, given: Mapping[Key, Target]) -> bool:
    kind = given.get(key) or guess(key, entry)
    several = isinstance(entry, (list, tuple)) and len(entry) > 0 and all(isinstance(image, Tensor) for image in entry)
    return kind is not None and kind.kind == "image" and several

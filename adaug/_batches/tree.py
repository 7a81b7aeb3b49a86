"""Entries inside entries: finds them by tuples, copies them, and puts them back into the user's structure."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from typing import Any

import numpy as np
from torch import Tensor

Path = tuple[Any, ...]


def key_of(path: Path) -> Any:
    """The key that users write for a path: a name or position alone for an entry of the batch itself, else the tuple."""
    return path[0] if len(path) == 1 else path


def walk(container: Any, path: Path) -> Any:
    """The entry at a path of names and positions. Raises LookupError if there is none."""
    for part in path:
        if not isinstance(container, (Mapping, list, tuple)) or (isinstance(part, str) and not isinstance(container, Mapping)):
            raise LookupError(part)
        container = container[part]
    return container


def leaves(entry: Any, path: Path, through: frozenset[Path]) -> Iterator[tuple[Path, Any]]:
    """The leaves of nested mappings with their paths. Sequences are opened only on the paths in `through`."""
    if isinstance(entry, Mapping):
        for name, item in entry.items():
            yield from leaves(item, (*path, name), through)
    elif isinstance(entry, (list, tuple)) and path in through:
        for position, item in enumerate(entry):
            yield from leaves(item, (*path, position), through)
    else:
        yield path, entry


def ancestors(paths: Iterable[Path]) -> frozenset[Path]:
    """All paths on the way to these paths."""
    return frozenset(path[:i] for path in paths for i in range(1, len(path)))


def rebuilt(entry: Any, path: Path, replaced: Mapping[Path, Any]) -> Any:
    """An entry with replacements, in containers of the same types. Other tensors and arrays are copied.

    A container without tensors, arrays and replacements stays the same object.
    """
    if path in replaced:
        return replaced[path]
    if isinstance(entry, Tensor):
        return entry.clone()
    if isinstance(entry, np.ndarray):
        return entry.copy()
    if isinstance(entry, Mapping):
        items = {name: rebuilt(item, (*path, name), replaced) for name, item in entry.items()}
        if all(items[name] is item for name, item in entry.items()):
            return entry
        return with_items(entry, items)
    if isinstance(entry, (list, tuple)) and not all(isinstance(item, str) for item in entry):
        values = [rebuilt(item, (*path, i), replaced) for i, item in enumerate(entry)]
        if all(mine is theirs for mine, theirs in zip(values, entry, strict=True)):
            return entry
        return with_values(entry, values)
    return entry


def with_items(mapping: Mapping[Any, Any], items: Mapping[Any, Any]) -> Any:
    """A mapping of the same type with other items."""
    if not isinstance(mapping, MutableMapping):
        return type(mapping)(items)  # type: ignore[call-arg]
    made = copy.copy(mapping)  # a copy keeps what a subclass adds, and leaves the user's mapping as it is
    if not isinstance(mapping, dict) and not hasattr(type(mapping), "__copy__"):  # copy its storage too, or both would share it
        vars(made).update({name: copy.copy(value) for name, value in vars(mapping).items()})
    made.update(items)
    return made


def with_values(sequence: list[Any] | tuple[Any, ...], values: list[Any]) -> Any:
    """A sequence of the same type with other values."""
    return type(sequence)(*values) if hasattr(sequence, "_fields") else type(sequence)(values)

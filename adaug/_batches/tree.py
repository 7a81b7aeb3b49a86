"""Entries inside entries: all walks through the mappings, tuples and lists of a batch or of a model's output.

A tree is a tensor, an array or anything else (a leaf), or a container of trees. A path is the names and positions on the way to
one of them. It may also go through attributes of the user's objects, such as ("instances", "gt_boxes", "tensor"). Containers
and objects keep their types, also the user's own, and are never changed in place.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from typing import Any

import numpy as np
from torch import Tensor

Path = tuple[Any, ...]
Opens = Callable[[Path, Any], bool]  # whether a walk goes into the container at a path
CLOSED = (Tensor, np.ndarray, str, bytes, type, list, tuple)  # their attributes are no entries


def key_of(path: Path) -> Any:
    """The key that users write for a path: a name or position alone for an entry of the batch itself, else the tuple."""
    return path[0] if len(path) == 1 else path


def ancestors(paths: Iterable[Path]) -> frozenset[Path]:
    """All paths on the way to these paths."""
    return frozenset(path[:i] for path in paths for i in range(1, len(path)))


# ---- which containers a walk goes into


def is_container(path: Path, tree: Any) -> bool:
    """Mappings, tuples and lists: what a walk opens by default."""
    return isinstance(tree, (Mapping, list, tuple))


def has_names(path: Path, tree: Any) -> bool:
    """Mappings and named tuples, but no lists, which may hold rows."""
    return isinstance(tree, Mapping) or is_named_tuple(tree)


def is_named_tuple(tree: Any) -> bool:
    """Whether it is a tuple whose items have names."""
    return isinstance(tree, tuple) and hasattr(tree, "_fields")


def has_rows(tree: Any, n: int) -> bool:
    """Whether a tensor, an array or a list has n rows."""
    if isinstance(tree, (Tensor, np.ndarray)):
        return tree.ndim > 0 and len(tree) == n
    return isinstance(tree, (list, tuple)) and len(tree) == n


def no_rows(path: Path, tree: Any) -> bool:
    """No list holds rows."""
    return False


def is_record(tree: Any) -> bool:
    """Whether it is an instance of a dataclass, like Hugging Face's outputs (which may also be mappings)."""
    return dataclasses.is_dataclass(tree) and not isinstance(tree, type)


# ---- walks


def children(tree: Any) -> list[tuple[Any, Any]]:
    """The pairs (name or position, tree) of a container."""
    if is_record(tree):
        return [(field.name, getattr(tree, field.name)) for field in dataclasses.fields(tree)]
    return list(tree.items() if isinstance(tree, Mapping) else enumerate(tree))


def walk(tree: Any, path: Path) -> Any:
    """The tree at a path. Raises LookupError if there is none."""
    for part in path:
        if isinstance(tree, Mapping) or (isinstance(tree, (list, tuple)) and isinstance(part, int)):
            tree = tree[part]
        elif isinstance(part, str) and not isinstance(tree, CLOSED) and hasattr(tree, part):
            tree = getattr(tree, part)
        else:
            raise LookupError(part)
    return tree


def leaves(tree: Any, path: Path = (), opens: Opens = is_container) -> Iterator[tuple[Path, Any]]:
    """The leaves with their paths. `path` is that of the tree itself."""
    if not opens(path, tree):
        yield path, tree
        return
    for name, item in children(tree):
        yield from leaves(item, (*path, name), opens)


def map_leaves(function: Callable[..., Any], *trees: Any, path: Path = (), opens: Opens = is_container) -> Any:
    """The first tree with `function(path, leaf, ...)` for each leaf, where ... are what the other trees have in its place.

    A container in which nothing changes stays the same object.
    """
    tree, *others = trees
    if not opens(path, tree):
        return function(path, *trees)
    known, changed = children(tree), {}
    for name, item in known:
        beside = [getattr(other, name) if is_record(other) else other[name] for other in others]
        changed[name] = map_leaves(function, item, *beside, path=(*path, name), opens=opens)
    return tree if all(changed[name] is item for name, item in known) else with_children(tree, changed)


def map_rows(function: Callable[[Any], Any], tree: Any, n: int, are_rows: Opens = no_rows) -> Any:
    """The tree with `function(rows)` for every tensor or array of n rows. All else stays.

    A walk also goes into records. `are_rows(path, list)` says which lists hold rows; the function gets these too.
    """

    def changed(path: Path, value: Any) -> Any:
        return function(value) if has_rows(value, n) else value

    def opens(path: Path, value: Any) -> bool:
        return (is_container(path, value) or is_record(value)) and not are_rows(path, value)

    return map_leaves(changed, tree, opens=opens)


def replace(tree: Any, changes: Mapping[Path, Any], path: Path = (), *, copies: bool = False) -> Any:
    """A tree with other values at some paths. With `copies`, all other tensors and arrays are copies."""
    through = ancestors(changes)

    def changed(path: Path, leaf: Any) -> Any:
        if path in changes:
            return changes[path]
        if copies and isinstance(leaf, (Tensor, np.ndarray)):
            return leaf.clone() if isinstance(leaf, Tensor) else leaf.copy()
        return _with_attributes(path, leaf) if path in through else leaf

    def _with_attributes(path: Path, thing: Any) -> Any:
        names = dict.fromkeys(other[len(path)] for other in changes if other[: len(path)] == path)
        inside = {name: replace(getattr(thing, name), changes, (*path, name), copies=copies) for name in names}
        return with_attributes(thing, inside)

    return map_leaves(changed, tree, path=path, opens=lambda path, tree: path not in changes and is_container(path, tree))


def with_attributes(thing: Any, values: Mapping[str, Any]) -> Any:
    """A copy of an object of the user's with other attributes. Its own containers are copied too, or both would share them."""
    if is_record(thing):
        return dataclasses.replace(thing, **values)
    made = copy.copy(thing)
    for name, held in list(vars(made).items()) if hasattr(made, "__dict__") else []:
        if isinstance(held, (dict, list, set)):
            vars(made)[name] = copy.copy(held)
    for name, value in values.items():
        setattr(made, name, value)
    return made


def with_children(tree: Any, items: Mapping[Any, Any]) -> Any:
    """A container of the same type with other trees, by name or position. A mapping may get further names."""
    if is_record(tree):
        return type(tree)(**items)
    if not isinstance(tree, Mapping):
        values = [items[i] for i in range(len(items))]
        return type(tree)(*values) if is_named_tuple(tree) else type(tree)(values)
    if not isinstance(tree, MutableMapping):
        return type(tree)(items)  # type: ignore[call-arg]
    made = copy.copy(tree)  # a copy keeps what a subclass adds, and leaves the user's mapping as it is
    if not isinstance(tree, dict) and not hasattr(type(tree), "__copy__"):  # copy its storage too, or both would share it
        vars(made).update({name: copy.copy(value) for name, value in vars(tree).items()})
    made.update(items)
    return made

"""The entries of a user's batch, also those inside others, and the kind of each."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from typing import Any

from adaug._batches.checks.unmoved import holds_numbers
from adaug._batches.kinds import CARRIED, PLAIN, Key, Target
from adaug._batches.names import as_it_says, guess, kind_named, own_kind, refuse_unknown
from adaug._batches.tree import Path, ancestors, has_names, is_container, leaves, walk


def nested_entries(
    batch: Any, entries: Mapping[Key, Any], given: Mapping[Key, Target], rows: Collection[Path] = ()
) -> dict[Path, Any]:
    """The entries inside others that `targets` names by tuples. Raises ValueError on names that match nothing.

    Args:
        batch: The user's batch.
        entries: Its entries.
        given: The targets.
        rows: Paths of its lists of rows. Targets may name these too.
    """
    found: dict[Path, Any] = {}
    missing: list[Key] = []
    for key in given:
        if key in entries:
            continue
        try:
            if not isinstance(key, tuple) or not key:
                raise LookupError
            found[key] = walk(batch, key)
        except LookupError:
            missing.append(key)
    if missing:
        inside = [path for path, _ in leaves(dict(entries), opens=_is_mapping) if path[1:]]
        names = {str(name): name for name in [*entries, *inside, *(path for path in rows if path[1:])]}
        near = [names[text] for key in missing for text in difflib.get_close_matches(str(key), list(names), cutoff=0.4)]
        raise ValueError(
            f"`targets` should name entries of the batch. Found {', '.join(map(repr, missing))}, which match none; the nearest "
            f"are {', '.join(map(repr, dict.fromkeys(near or list(names.values())[:8])))}."
        )
    return found


def own_kinds(entries: Mapping[Key, Any]) -> dict[Key, Target]:
    """The kinds that entries inside others tell themselves (torchvision's tv_tensors)."""
    inside = [
        (path, leaf)
        for key, entry in entries.items()
        if has_names((key,), entry)
        for path, leaf in leaves(entry, (key,), has_names)
    ]
    return {path: kind for path, leaf in inside if (kind := own_kind(leaf)) is not None}


def kinds_of(
    entries: Mapping[Key, Any], nested: Mapping[Path, Any], given: Mapping[Key, Target], rest: str | None
) -> tuple[dict[Key, Target], set[Key]]:
    """The kind of every entry, from the user or from its name, and the entries of which nothing tells the kind.

    Raises ValueError that names all of these that hold numbers, unless `rest` says what they are. If the user named entries
    inside another one, the rest of that one stays as it is, unless it holds something unknown.
    """
    kinds: dict[Key, Target] = {}
    untold: set[Key] = set()
    unknown: list[Key] = []
    opened, through = {path[0] for path in nested}, ancestors(nested)

    def opens(path: Path, entry: Any) -> bool:
        return _is_mapping(path, entry) or (path in through and is_container(path, entry))

    for key, entry in (dict(entries) | dict(nested)).items():
        kind = given.get(key) or guess(key, entry, entries)
        if kind is not None and key in opened and key not in given and kind.kind not in CARRIED:
            kind = None  # its name describes an entry inside it
        kinds[key] = as_it_says(kind or PLAIN["other"], entry)
        if kind is None:
            untold.add(key)
        for path, leaf in leaves(entry, (key,), opens) if kind is None else ():
            known = any(path[: len(inner)] == inner for inner in nested)
            if not known and not _carried(path, entry) and holds_numbers(leaf):
                unknown.append(path if len(path) > 1 else key)
    refuse_unknown(unknown, rest)
    return kinds, untold


def _is_mapping(path: Path, entry: Any) -> bool:
    return isinstance(entry, Mapping)


def _carried(path: Path, entry: Any) -> bool:
    """Whether the name of something inside an entry says that it does not belong to the pixels."""
    if len(path) < 2:
        return False
    around = walk(entry, path[1:-1])
    return kind_named(path[-1], around if isinstance(around, Mapping) else ()) in CARRIED

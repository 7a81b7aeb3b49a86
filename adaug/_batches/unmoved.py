"""Finds entries that would become wrong if they stayed as they are while pixels move."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np
from torch import Tensor

from adaug._batches.kinds import CARRIED, KIND_OF, Key
from adaug._batches.tree import Path, children, has_names, is_container, key_of


def holds_numbers(entry: Any, *, within: bool = False, depth: int = 4) -> bool:
    """Whether an entry is or holds tensors, arrays, pictures or lists of numbers, also inside the user's objects."""
    if isinstance(entry, (Tensor, np.ndarray)) or hasattr(type(entry), "__array_interface__"):
        return True
    if isinstance(entry, (int, float, np.generic)):
        return within and not isinstance(entry, bool)  # a single number belongs to no row
    if entry is None or isinstance(entry, (str, bytes, type)) or callable(entry) or depth == 0:
        return False
    if is_container((), entry):
        inside = depth - isinstance(entry, Mapping)
        return any(holds_numbers(item, within=True, depth=inside) for _, item in children(entry))
    if isinstance(entry, (set, frozenset)):
        return any(holds_numbers(item, within=True, depth=depth) for item in entry)
    own = [*getattr(entry, "__dict__", {}).values(), *(getattr(entry, name, None) for name in _slots(entry))]
    return any(holds_numbers(item, depth=depth - 1) for item in own)


def _slots(entry: Any) -> tuple[str, ...]:
    slots = getattr(type(entry), "__slots__", ())
    return (slots,) if isinstance(slots, str) else tuple(slots)


def check_guess(key: Key, entry: Any, kind: str, image: Tensor, given: Collection[Path] = ()) -> None:
    """Raises ValueError if the name of an entry means "leave it as it is", but its content belongs to the pixels.

    Content belongs to the pixels if it has a value for each pixel, at the image's resolution or another one of the same aspect
    ratio, or if it has a usual name such as "boxes" inside. Paths in `given` are the user's decision and not checked.
    """
    if kind not in CARRIED:
        return
    for path, array, name, row in _arrays(entry, (key,), None, False):
        if any(path[: len(inner)] == inner for inner in given):
            continue
        named = kind if name is None else KIND_OF[name]
        belongs = named not in CARRIED
        if not belongs and not (array.ndim > 2 - row and _of_pixels(array.shape[-2:], image.shape[-2:])):
            continue
        where = key_of(path)
        what = f"{name!r} in it, a name of {named}" if belongs else f"shape {tuple(array.shape)}, a value for each pixel"
        remedy = f'pass targets={{{where!r}: "{named if belongs else "mask"}"}}' if not row else "stack its rows in one tensor"
        raise ValueError(
            f"{key!r} should hold nothing that moves with the pixels, because its name means that it stays as it is. Found "
            f"{what}; {remedy} (or pass targets={{{key!r}: {kind!r}}} if it should stay)."
        )


def _arrays(entry: Any, path: Path, name: str | None, row: bool) -> Iterator[tuple[Path, Any, str | None, bool]]:
    """Tensors and arrays in an entry: (path, array, last usual name on the path, whether it is the first row of a list)."""
    if isinstance(entry, (Tensor, np.ndarray)):
        yield path, entry, name, row
    elif is_container(path, entry):
        listed = not has_names(path, entry)
        for inner, item in children(entry)[:1] if listed else children(entry):
            called = entry._fields[inner] if hasattr(entry, "_fields") else inner
            yield from _arrays(item, (*path, inner), called if called in KIND_OF else name, row or listed)


def _of_pixels(size: Any, image: Any) -> bool:
    """Whether a map has the aspect ratio of an image, up to whole pixels: h / w = H / W."""
    (h, w), (height, width) = size, image
    return min(h, w) > 1 and abs(h * width - w * height) <= max(height, width)

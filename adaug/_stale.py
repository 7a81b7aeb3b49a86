"""What would go stale when pixels move, if it were carried along: numbers of unknown kind, and names that mislead."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from torch import Tensor

from adaug._kinds import KIND_OF, Key
from adaug._nested import Path


def holds_numbers(entry: Any, *, within: bool = False, depth: int = 4) -> bool:
    """Whether an entry is or holds tensors, arrays or pictures, or lists of numbers, also inside an object of the user's."""
    if isinstance(entry, (Tensor, np.ndarray)) or hasattr(type(entry), "__array_interface__"):
        return True
    if isinstance(entry, (int, float, np.generic)):
        return within and not isinstance(entry, bool)  # one number, of no row, cannot go stale
    if entry is None or isinstance(entry, (str, bytes, type)) or callable(entry) or depth == 0:
        return False
    if isinstance(entry, Mapping):
        return any(holds_numbers(item, within=True, depth=depth - 1) for item in entry.values())
    if isinstance(entry, (list, tuple, set, frozenset)):
        return any(holds_numbers(item, within=True, depth=depth) for item in entry)
    inside = [*getattr(entry, "__dict__", {}).values(), *(getattr(entry, name, None) for name in _slots(entry))]
    return any(holds_numbers(item, depth=depth - 1) for item in inside)


def _slots(entry: Any) -> tuple[str, ...]:
    slots = getattr(type(entry), "__slots__", ())
    return (slots,) if isinstance(slots, str) else tuple(slots)


def check_guess(key: Key, entry: Any, kind: str, image: Tensor) -> None:
    """Raises ValueError where a name says "carry it along" and what it holds belongs to the pixels.

    That is a value a pixel, at the image's resolution or another of the same shape, or an entry inside it of a usual name.
    """
    if kind not in ("label", "other"):
        return
    for path, array in _arrays(entry, (key,)):
        named = next((KIND_OF[name] for name in path[1:] if isinstance(name, str) and name in KIND_OF), kind)
        rows = 1 if any(isinstance(part, int) for part in path[1:]) else 0  # one row of a list
        if named not in ("label", "other"):
            raise ValueError(
                f"{key!r} would be carried along as it is, by its name. Found {path!r} in it, of the name of {named}, which "
                f"would go stale when pixels move; pass targets={{{path!r}: {named!r}}} (or {{{key!r}: {kind!r}}}, if all of "
                "it is to stay)."
            )
        if array.ndim > 2 - rows and _of_pixels(array.shape[-2:], image.shape[-2:]):
            where = path[0] if len(path) == 1 else path
            raise ValueError(
                f"{key!r} would be carried along as it is, by its name. Found shape {tuple(array.shape)}, a value a pixel, "
                f'which would go stale when they move; pass targets={{{where!r}: "mask"}} (or {kind!r}, if it is to stay).'
            )


def _arrays(entry: Any, path: Path) -> Iterator[tuple[Path, Any]]:
    """Tensors and arrays in an entry with their paths; of a list only the first, which tells what all are like."""
    if isinstance(entry, (Tensor, np.ndarray)):
        yield path, entry
    elif isinstance(entry, Mapping):
        for name, item in entry.items():
            yield from _arrays(item, (*path, name))
    elif isinstance(entry, (list, tuple)) and entry:
        if hasattr(entry, "_fields"):
            for name, item in zip(entry._fields, entry, strict=True):
                yield from _arrays(item, (*path, name))
        else:
            yield from _arrays(entry[0], (*path, 0))


def _of_pixels(size: Any, image: Any) -> bool:
    """Whether a map has the shape of an image, at some resolution: h / w = H / W, as near as whole pixels go."""
    (h, w), (height, width) = size, image
    return min(h, w) > 1 and abs(h * width - w * height) <= max(height, width)

"""Finds entries that would become wrong if they stayed as they are while pixels move."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from adaug._batches.kinds import CARRIED, Key
from adaug._batches.names import OF_THE_CROP, OF_THE_ORIGINAL, kind_named
from adaug._batches.tree import Path, children, has_names, is_container, is_named_tuple, key_of
from adaug._runtime.geometry import Size

SMALL = 10  # integers below may be classes of several tasks, or digits
BOX_AND_CLASS = 5  # numbers
MOST_COORDINATES = 8  # integers in a last dimension of at most so many may be boxes, quadrangles or points


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


def check_guess(
    key: Key, entry: Any, kind: str, image: Tensor, given: Collection[Path] = (), *, names_only: bool = False
) -> None:
    """Raises ValueError if the name of an entry means "leave it as it is", but its content belongs to the pixels.

    Content belongs to the pixels if it has a value for each pixel, at the image's resolution or another one of the same aspect
    ratio, or if it has a usual name such as "boxes" inside. Paths in `given` are the user's decision and not checked. With
    `names_only`, only names inside it tell.
    """
    if kind not in CARRIED:
        return
    for path, array, (name, named), row in _arrays(entry, (key,), (None, kind), False, len(image)):
        if any(path[: len(inner)] == inner for inner in given):
            continue
        belongs = named not in CARRIED
        if not belongs and (names_only or not _holds_map(array.shape if row else array.shape[1:], image.shape[-2:])):
            continue
        where = key_of(path)
        what = f"{name!r} in it, a name of {named}" if belongs else f"shape {tuple(array.shape)}, a value for each pixel"
        remedy = f'pass targets={{{where!r}: "{named if belongs else "mask"}"}}' if not row else "stack its rows in one tensor"
        raise _refusal(key, kind, what, remedy)


def check_numbers(
    key: Key, entry: Any, kind: str, n: int, size: Size, objects: Collection[int], given: Collection[Path] = ()
) -> None:
    """Raises ValueError if the name of an entry means "leave it as it is", but its numbers may be coordinates. Reads values.

    Args:
        key: The entry's key.
        entry: The entry, with a dimension of rows.
        kind: Its kind, by its name.
        n: The number of rows.
        size: The size of the images.
        objects: How many objects or keypoints an image has: one number for each of them is no coordinate.
        given: Paths that are the user's decision.
    """
    for path, array, _, row in _arrays(entry, (key,), (None, kind), False, n):
        known = any(path[: len(inner)] == inner for inner in given) or path[-1] in (*OF_THE_ORIGINAL, *OF_THE_CROP)
        values = torch.from_numpy(array) if isinstance(array, np.ndarray) and array.dtype.kind in "iuf" else array
        if known or not isinstance(values, Tensor) or values.device.type == "meta":
            continue
        if may_be_coordinates(values.detach()[None] if row else values.detach(), size, objects):
            remedy = f'pass targets={{{key_of(path)!r}: kind}} with "keypoints", "boxes" or what it is'
            raise _refusal(key, kind, f"shape {tuple(array.shape)}, numbers that may be coordinates", remedy)


def may_be_coordinates(values: Tensor, size: Size, objects: Collection[int]) -> bool:
    """Whether numbers [n, ...] may be places in images of a size, rather than classes or one number for each object."""
    if values.ndim < 2 or values.shape[-1] < 2 or not values.numel() or values.dtype == torch.bool or values.is_complex():
        return False
    if values.ndim == 2 and values.shape[1] in objects:
        return False
    low, high = (float(edge) for edge in values.aminmax())
    if bool(((values == 0) | (values == 1)).all()):
        return False  # classes, one-hot or several at once
    if values.is_floating_point():
        return low < 0 or not bool(((values.double().sum(-1) - 1).abs() < 1e-3).all())  # else probabilities
    if low >= 0 and high < min(SMALL, max(size) / 3):
        return False  # numbers of few classes; coordinates reach further
    last = values.shape[-1]
    pairs = last % 2 == 0 or (values.ndim > 2 and last <= MOST_COORDINATES)  # x and y
    fits = pairs or (last > 3 and last % 3 == 0) or last == BOX_AND_CLASS
    return fits and -max(size) / 2 <= low and high <= 1.5 * max(size)  # others are far outside the image


def _refusal(key: Key, kind: str, what: str, remedy: str) -> ValueError:
    return ValueError(
        f"{key!r} should hold nothing that moves with the pixels, because its name means that it stays as it is. Found "
        f"{what}; {remedy} (or pass targets={{{key!r}: {kind!r}}} if it should stay)."
    )


def _arrays(
    entry: Any, path: Path, usual: tuple[Any, str], row: bool, n: int
) -> Iterator[tuple[Path, Any, tuple[Any, str], bool]]:
    """Tensors, arrays and lists of numbers in an entry: (path, array, (last usual name, its kind), whether it has no rows)."""
    if isinstance(entry, (Tensor, np.ndarray)):
        yield path, entry, usual, row
    elif is_container(path, entry):
        listed = not has_names(path, entry)
        numbers = _as_array(entry) if listed else None
        if numbers is not None:
            yield path, numbers, usual, row or len(numbers) != n
            return
        beside = entry if isinstance(entry, Mapping) else ()
        for inner, item in children(entry)[:1] if listed else children(entry):
            called = entry._fields[inner] if is_named_tuple(entry) else inner
            kind = kind_named(called, beside)
            yield from _arrays(item, (*path, inner), usual if kind is None else (called, kind), row or listed, n)


def _as_array(entry: Any) -> Any:
    """A list of numbers as an array, if it may hold coordinates: fractions, or lists of integers. Else None."""
    first = entry
    while isinstance(first, (list, tuple)) and first:
        first = first[0]
    nested = bool(entry) and isinstance(entry[0], (list, tuple))
    if not isinstance(first, (float, np.floating)) and not (nested and isinstance(first, (int, np.integer))):
        return None
    try:
        array = np.asarray(entry)
    except ValueError:  # rows of different lengths
        array = np.asarray(entry[0]) if nested else np.zeros(0)
    return array if array.dtype.kind in "iuf" else None


def _holds_map(shape: Sequence[int], image: Sequence[int]) -> bool:
    """Whether a row of some shape has a value for each pixel: two neighbouring sizes, in either order, or all in one line."""
    either = itertools.chain(itertools.pairwise(shape), itertools.pairwise(shape[::-1]))
    return any(_of_pixels(pair, image) for pair in either) or shape[-1:] == (image[0] * image[1],)


def _of_pixels(size: Sequence[int], image: Sequence[int]) -> bool:
    """Whether a map has the aspect ratio of an image, up to whole pixels: h / w = H / W."""
    (h, w), (height, width) = size, image
    return min(h, w) > 1 and abs(h * width - w * height) <= max(height, width)

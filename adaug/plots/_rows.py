"""Single images with their labels, from whatever holds them: batches, loaders, data sets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import IterableDataset

from adaug._batches.batch import Batch
from adaug._batches.checks.shapes import channels_last
from adaug._batches.kinds import PLAIN, Key, Target
from adaug._batches.rows import is_rows
from adaug._batches.samples.forms import Channels, is_array, is_picture
from adaug._batches.samples.lifted import Lifted
from adaug._batches.samples.listed import cut, rows_in
from adaug._batches.samples.readings import image_of, is_single
from adaug._batches.tree import is_named_tuple
from adaug._views.view import View


@dataclass(frozen=True)
class Row:
    """One image with its labels.

    Attributes:
        batch: A batch of this image alone.
        view: Its view, if adaug drew it here.
    """

    batch: Batch
    view: View | None = None


def rows_of(item: Any, view: View | list[View] | None, targets: Mapping[Key, Target], rest: str | None) -> Iterator[Row]:
    """The rows of a batch or a sample.

    Raises ValueError if there is no image in it, or none that can be read.
    """
    source = (item,) if is_array(item) else item
    listed = is_rows(source, targets)
    key, image = (None, None) if listed else image_of(source, targets)
    n = len(source) if listed else rows_in(source, image, targets)
    if n is not None:
        views = view if isinstance(view, list) else [None if view is None else view.select(torch.tensor([i])) for i in range(n)]
        for sample, own in zip(source if listed else cut(source, n), views, strict=True):
            yield from rows_of(sample, own, targets, rest)
        return
    if not is_array(image):
        names = list(source) if isinstance(source, Mapping) else [type(entry).__name__ for entry in source]
        raise ValueError(
            f"A batch or a sample should hold an image. Found none among {names}; say which it is with "
            'targets={key: "image"}.'
        )
    if len(shape := tuple(getattr(image, "shape", ()))) == 5:
        raise ValueError(
            f"{key!r} should be an image or a batch of images. Found clips, {shape}; show their frames, such as clips[:, 0]."
        )
    channels = channels_of(image, targets.get(key, PLAIN["image"]))
    whole = Lifted(source, targets, is_single(source, key, image, targets, channels), channels, None, rest).batch
    assert not isinstance(view, list)
    for i in range(len(whole)):
        index = torch.tensor([i], device=whole.image.device)
        yield Row(whole.select(index), None if view is None else view.select(index))


def channels_of(image: Any, target: Target) -> Channels:
    """Where the channels of an image seem to stand. Those of PIL's pictures are known."""
    shape = tuple(getattr(image, "shape", ()))
    return "last" if len(shape) >= 3 and channels_last(shape[-3:], target) and not is_picture(image) else "first"


# ---- what holds rows


def items_of(data: Any, targets: Mapping[Key, Target], n: int) -> Iterator[Any]:
    """The batches or samples in `data`. Of a data set or a list, n that are spread over it.

    Raises TypeError if it is neither a batch nor holds any.
    """
    for item in _items_of(data, targets, n):
        if not is_array(item) and not isinstance(item, (Mapping, list, tuple)):
            raise TypeError(f"A batch or a sample should be a mapping, a tuple or an image. Found {type(item).__name__}.")
        yield item


def _items_of(data: Any, targets: Mapping[Key, Target], n: int) -> Iterator[Any]:
    if _is_one(data, targets):
        yield data
    elif hasattr(data, "__getitem__") and hasattr(data, "__len__") and not isinstance(data, (IterableDataset, str, bytes)):
        count = min(n, len(data))
        for i in range(count):
            yield data[i * len(data) // count]
    elif isinstance(data, Iterable) and not isinstance(data, (str, bytes)):
        yield from data
    else:
        raise TypeError(
            f"`data` should be a batch, a DataLoader, a data set, or a list of batches or samples. Found {type(data).__name__}."
        )


def _is_one(data: Any, targets: Mapping[Key, Target]) -> bool:
    """Whether it is a batch or a sample itself, not a list of them."""
    if is_array(data) or isinstance(data, Mapping):
        return True
    if not isinstance(data, (list, tuple)) or not data:
        return False
    if is_named_tuple(data) or is_rows(data, targets):
        return True
    key, image = image_of(data, targets)
    if is_array(image):
        return not (isinstance(data, list) and key == 0 and _are_images(data))
    return isinstance(image, (list, tuple)) and _are_images(image) and all(_as_long(entry, image) for entry in data)


def _are_images(entries: Iterable[Any]) -> bool:
    """Whether these are images [C, H, W] of one kind, or pictures."""
    shapes = [tuple(getattr(entry, "shape", ())) for entry in entries if not is_picture(entry)]
    return all(len(shape) == 3 and shape[0] == shapes[0][0] for shape in shapes)


def _as_long(entry: Any, other: Any) -> bool:
    return hasattr(entry, "__len__") and len(entry) == len(other)

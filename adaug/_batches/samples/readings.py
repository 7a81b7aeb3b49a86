"""What the sizes of an image in a Dataset mean: one sample, a batch or a clip. Where two readings fit, it asks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from adaug._batches.checks.shapes import BANDS, channels_last, check_layout
from adaug._batches.kinds import Key, Target
from adaug._batches.names import guess
from adaug._batches.samples.forms import Channels, is_array, is_number, is_picture
from adaug._batches.tree import children, has_rows, walk


def image_of(batch: Any, given: Mapping[Key, Target]) -> tuple[Key, Any]:
    """The key and the image of a batch or a sample. (None, None) if no entry is one. Raises TypeError if it is not dense."""
    key, image = _found(batch, given)
    if isinstance(image, Tensor):
        check_layout(key, image)
    return key, image


def _found(batch: Any, given: Mapping[Key, Target]) -> tuple[Key, Any]:
    for key, target in given.items():
        if target.kind == "image":
            for path in ((key,), key):
                try:
                    return key, walk(batch, path)
                except (LookupError, TypeError):
                    continue
            return None, None
    for key, entry in children(batch):
        kind = given.get(key) or guess(key, entry)
        if kind is not None and kind.kind == "image":
            return key, entry
    return None, None


def is_single(batch: Any, key: Key, image: Any, given: Mapping[Key, Target], channels: Channels) -> bool:
    """Whether it is one sample, not a batch. Raises ValueError where its image may be read in two ways."""
    if not is_array(image) or is_picture(image):
        return is_picture(image)
    if image.ndim == 5 or type(image).__name__ == "Video":
        raise ValueError(
            f"{key!r} should be an image or a batch of images. Found a clip, {tuple(image.shape)}; pass clips=True."
        )
    named = key in given and given[key].format is not None
    if named or image.ndim not in (3, 4):
        return bool(image.ndim < 4)
    shape = tuple(image.shape)
    if channels == "first" and channels_last(shape[-3:], Target("image")):
        raise ValueError(
            f'{key!r} should have its channels first. Found {shape}, whose channels seem to come last; pass channels="last" if '
            'they do, or adaug.Target("image", format="bands") if they come first.'
        )
    if image.ndim == 3:
        odd = shape[0] > 4 if channels == "first" else shape[-1] > BANDS
        if odd:
            raise ValueError(
                f"{key!r} should say what its sizes are: an image of many channels, or several grey images. Found {shape}; add "
                "a dimension for the channels of grey images, and pass clips=True if all are to get one view; or pass "
                'adaug.Target("image", format="bands") for one image.'
            )
        return True
    _check_rows(batch, key, shape, given, channels)
    return False


def _check_rows(batch: Any, key: Key, shape: tuple[int, ...], given: Mapping[Key, Target], channels: Channels) -> None:
    """Raises ValueError if four sizes may be those of a clip, not of a batch."""
    others = [(name, entry) for name, entry in children(batch) if name != key]
    for name, entry in others:
        target = given.get(name) or guess(name, entry)
        label = target.kind == "label" if target is not None else isinstance(name, int)
        if label and (is_number(entry) or (is_array(entry) and getattr(entry, "ndim", 1) == 0)):
            raise ValueError(
                f"{key!r} should be one image, or a batch with a label for each. Found {shape} and one label at {name!r}; pass "
                "clips=True if it is a clip."
            )
    colours_first = channels == "first" and shape[0] in (3, 4) and shape[1] > 4
    if colours_first and not any(has_rows(entry, shape[0]) for _, entry in others):
        raise ValueError(
            f"{key!r} should be a batch [B, C, H, W]. Found {shape}, which may be a clip [C, T, H, W] too; pass clips=True and "
            f'its frames first, .transpose(0, 1), or adaug.Target("image", format="bands") for {shape[0]} images of {shape[1]} '
            "channels."
        )

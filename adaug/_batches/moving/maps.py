"""Maps beside an image: how many of its pixels stand for one of theirs, and whether they fit it at all."""

from __future__ import annotations

import math
from collections.abc import Sequence

from adaug._batches.kinds import Key, Target
from adaug._runtime.geometry import Size, told_stride


def stride_of(size: Sequence[int], image: Size, declared: float | None) -> float | None:
    """Pixels of the image for each pixel of a map of a size (h, w). None if the map does not fit the image.

    Without a declared stride, it is a whole number, or one over a whole number, that both sides share.
    """
    if declared is not None:
        fits = all(side in _sides(whole, declared) for side, whole in zip(size, image, strict=True))
        return declared if fits else None
    return told_stride(size, image)


def size_in_view(key: Key, size: Size, image: Size, view: Size, target: Target) -> Size:
    """The size of a map in a view. Raises ValueError if its stride does not divide the view."""
    if image == view:
        return size
    if target.stride is not None:
        h, w = (
            _sides(whole, target.stride)[_sides(before, target.stride).index(side)]
            for side, before, whole in zip(size, image, view, strict=True)
        )
        return h, w
    (h, w), (height, width) = size, image
    if view[0] * h % height or view[1] * w % width:
        raise ValueError(
            f"A view should be a multiple of the stride of {key!r}, {height / h:g} pixels. Found {view}; choose another "
            f"output_size, or pass targets={{{key!r}: adaug.Target({target.kind!r}, stride={height / h:g})}}."
        )
    return view[0] * h // height, view[1] * w // width


def _sides(whole: int, stride: float) -> tuple[int, int]:
    """How many pixels of a map a side of an image may have: the last may stand for less than a stride, or be left out."""
    return math.ceil(whole / stride - 1e-6), max(1, math.floor(whole / stride + 1e-6))


def check_map(key: Key, shape: Sequence[int], image: Size, target: Target) -> None:
    """Raises ValueError if the last two sizes of a map [B, h, w] or [B, N, h, w] are not those of the image, or of a stride."""
    size, (height, width) = (shape[-2], shape[-1]), image
    declared = f", adaug.Target({target.kind!r}, stride=...)"
    if stride_of(size, image, target.stride) is None:
        found = (
            f"{key!r}, of kind {target.kind}, should have last sizes (h, w) that fit images of {height} x {width} (height x "
        )
        found += "width), " + (
            "the same or an n-th of it" if target.stride is None else f"an image at stride {target.stride:g}"
        )
        if size == (width, height):
            advice = "its width and height seem to be swapped; use .transpose(-1, -2)"
        elif len(shape) == 4 and stride_of(shape[1:3], image, target.stride) is not None:
            advice = "its channels seem to come last; use .movedim(-1, 1)"
        elif target.stride is None:
            advice = f"say how many pixels each stands for{declared}, or resize it"
        else:
            advice = "declare another stride"
        raise ValueError(f"{found}. Found {tuple(shape)}; {advice}.")
    last = len(shape) == 4 and tuple(shape[1:3]) == (height, width) != size and target.stride is None
    if last:
        raise ValueError(
            f"{key!r}, of kind {target.kind}, should say which of its sizes are those of the image. Found {tuple(shape)}, "
            f"where channels may come first or last; use .movedim(-1, 1), or pass{declared[1:]} if they come first."
        )

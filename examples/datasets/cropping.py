"""Cuts the crop of one person from a photograph, and maps points exactly between both.

It does not import torch, so that the processes that cut crops start quickly.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from multiprocessing import connection, parent_process
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

if TYPE_CHECKING:
    from examples.datasets.people import Joints

Array = NDArray[np.float64]

# Pillow reports some broken files as a SyntaxError or a ValueError.
UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)


@dataclass(frozen=True, eq=False)
class Originals:
    """N people in their photographs. Coordinates are pixels; (0, 0) is the centre of the photograph's first pixel.

    files       the photographs, N; several people may share one
    centre      [N, 2]     of the square window around the person
    side        [N]        of that window: the pixels that become `size`
    keypoints   [N, J, 2]
    visibility  [N, J]     1 labelled and usable, 0 not
    pck_length  [N]        the length PCK divides by
    """

    files: tuple[Path, ...]
    centre: Array
    side: Array
    keypoints: Array
    visibility: Array
    pck_length: Array
    joints: Joints

    def __len__(self) -> int:
        return len(self.files)

    def subset(self, indices: Iterable[int]) -> Originals:
        """The people at these indices, in this order."""
        index = np.fromiter(indices, np.int64)
        return Originals(
            files=tuple(self.files[i] for i in index),
            centre=self.centre[index],
            side=self.side[index],
            keypoints=self.keypoints[index],
            visibility=self.visibility[index],
            pck_length=self.pck_length[index],
            joints=self.joints,
        )

    def to_crop(self, points: Array, size: int, canvas: int | None = None) -> Array:
        """Maps points [N, K, 2] from the photographs to everybody's crop."""
        return to_crop(points, self.centre, self.side, size, canvas)

    def to_image(self, points: Array, size: int, canvas: int | None = None) -> Array:
        """Maps points [N, K, 2] from everybody's crop to the photographs."""
        return to_image(points, self.centre, self.side, size, canvas)


def concatenate(parts: Sequence[Originals]) -> Originals:
    """Joins several sets of people with the same joints."""
    if len({part.joints.name for part in parts}) != 1:
        raise ValueError(f"`parts` should be people of the same joints. Found {[part.joints.name for part in parts]}.")
    return Originals(
        files=tuple(path for part in parts for path in part.files),
        centre=np.concatenate([part.centre for part in parts]),
        side=np.concatenate([part.side for part in parts]),
        keypoints=np.concatenate([part.keypoints for part in parts]),
        visibility=np.concatenate([part.visibility for part in parts]),
        pck_length=np.concatenate([part.pck_length for part in parts]),
        joints=parts[0].joints,
    )


def to_crop(points: Array, centre: Array, side: Array, size: int, canvas: int | None = None) -> Array:
    """Maps points [..., K, 2] from a photograph to a crop. The window's centre [..., 2] becomes the middle of the canvas.

    The halves come from pixel centres: a crop of `size` pixels reaches from -0.5 to size - 0.5. The canvas is the crop with its
    surroundings.
    """
    middle = (canvas or size) / 2 - 0.5
    mapped: Array = (points - centre[..., None, :]) * (size / np.asarray(side))[..., None, None] + middle
    return mapped


def to_image(points: Array, centre: Array, side: Array, size: int, canvas: int | None = None) -> Array:
    """Maps points [..., K, 2] from a crop to its photograph: the inverse of `to_crop`."""
    middle = (canvas or size) / 2 - 0.5
    mapped: Array = (points - middle) * (np.asarray(side) / size)[..., None, None] + centre[..., None, :]
    return mapped


def cut(path: Path, centre: Array, side: float, size: int, canvas: int) -> NDArray[np.uint8]:
    """Cuts the canvas [3, canvas, canvas] around one person. It is zero outside the photograph."""
    scale = size / side
    corner = centre + 0.5 - side / 2 * canvas / size  # here the first pixel reaches from 0 to 1
    with Image.open(path) as image:
        width, height = image.size
        # A JPEG decodes faster at a half or a quarter of its size, if the crop needs no more.
        image.draft("RGB", (math.ceil(width * scale), math.ceil(height * scale)))
        drawn = 1 / round(width / image.width)  # an odd side is rounded up, so the ratio of the sides is not exactly the scale
        left, top = corner * drawn
        right, bottom = (corner + canvas / scale) * drawn
        # `crop` fills the outside with zeros but takes only whole pixels; `resize` then cuts off the fractions.
        x, y = math.floor(left), math.floor(top)
        region = image.convert("RGB").crop((x, y, math.ceil(right), math.ceil(bottom)))
        box = (left - x, top - y, min(right - x, region.width), min(bottom - y, region.height))
        resized = region.resize((canvas, canvas), Image.Resampling.BICUBIC, box=box)
    return np.ascontiguousarray(np.asarray(resized).transpose(2, 0, 1))


def cut_rows(
    target: Path, rows: Sequence[int], files: Sequence[Path], centre: Array, side: Array, size: int, canvas: int
) -> dict[int, str]:
    """Cuts some people into their rows of the array file `target`. Returns the row and the error of each failure."""
    images = np.lib.format.open_memmap(target, mode="r+")
    failed = {}
    for i, row in enumerate(rows):
        try:
            images[row] = cut(files[i], centre[i], side[i], size, canvas)
        except UNREADABLE as error:
            failed[row] = f"{type(error).__name__}: {error}"
    images.flush()
    return failed


def end_with_parent() -> None:
    """Ends a cutting process when its parent was killed. Otherwise it would wait for work for ever."""
    parent = parent_process()
    if parent is not None:
        sentinel = parent.sentinel
        threading.Thread(target=lambda: (connection.wait([sentinel]), os._exit(1)), daemon=True).start()

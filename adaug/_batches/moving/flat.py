"""Objects of all images in one tensor [N, ...], beside the image that each belongs to, [N]: picked and joined by image."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from adaug._batches.kinds import Key


def image_of(entries: dict[Key, Any], rows: Key) -> Tensor:
    """The image of each object, [N] long, from the entry `rows`. Raises TypeError if it holds none."""
    found = entries[rows]
    index = torch.from_numpy(found) if isinstance(found, np.ndarray) else found
    numbers = isinstance(index, Tensor) and index.ndim > 0 and index.numel() == len(index) and index.dtype != torch.bool
    if numbers and index.is_floating_point() and index.device.type == "cpu":
        numbers = bool((index == index.round()).all())
    if not numbers:
        shape = f"{tuple(found.shape)} {found.dtype}" if hasattr(found, "shape") else type(found).__name__
        raise TypeError(f"{rows!r} should hold the image of each object, [N] integers. Found {shape}.")
    return index.reshape(-1).long()


def check_images(rows: Key, image: Tensor, n: int) -> None:
    """Raises ValueError if an object belongs to no image."""
    if image.numel() and (int(image.min()) < 0 or int(image.max()) >= n):
        raise ValueError(
            f"{rows!r} should name images of the batch, from 0 to {n - 1}. Found {int(image.min())} to {int(image.max())}; "
            "count them from 0 in each batch, and leave out padding."
        )


def picked(image: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    """The objects of the images `index` [m], and the number that their image has among these. Both [M] long."""
    number, object_ = (image.to(index.device)[None] == index[:, None]).nonzero().unbind(1)
    return object_, number


def take(entry: Any, index: Tensor) -> Any:
    """Some rows of an entry, in its own type."""
    if isinstance(entry, Tensor):
        return entry[index.to(entry.device)]
    return entry[index.cpu().numpy()] if isinstance(entry, np.ndarray) else type(entry)([entry[i] for i in index.tolist()])


def join(first: Any, second: Any) -> Any:
    """The rows of two entries of one type."""
    if isinstance(first, Tensor):
        return torch.cat([first, second])
    return np.concatenate([first, second]) if isinstance(first, np.ndarray) else type(first)([*first, *second])


def like(image: Any, numbers: Tensor) -> Any:
    """New images of objects, [M], in the type and the shape [M] or [M, 1] of those before."""
    if isinstance(image, np.ndarray):
        return numbers.cpu().numpy().astype(image.dtype).reshape(-1, *image.shape[1:])
    return numbers.to(image).reshape(-1, *image.shape[1:])

"""Functions of images in `common`, such as kornia's colours: what they are tried on before the first batch."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from adaug._runtime.random import seeded
from adaug.keypoints import render_heatmaps

Function = Callable[[Tensor], Tensor]

MOVING = ("kornia.augmentation._2d.geometric.", "kornia.augmentation._2d.mix.")
COLOURS = "kornia.augmentation._2d.intensity."
POINTS = ((0.2, 0.25), (0.55, 0.3), (0.4, 0.75))  # (x, y) as fractions of the image's sides, one in each trial image
SEEDS, MOST = 8, 0.75  # trials, for functions that move pixels at times; pixels that JPEG and the like may move a point


def moves_by_class(function: Any) -> bool:
    """Whether it is or contains one of kornia's geometric or mixing augmentations, which need no trial."""
    parts = function.modules() if isinstance(function, nn.Module) else [function]
    return any(base.__module__.startswith(MOVING) for part in parts for base in type(part).__mro__)


def check_functions(functions: Sequence[Function], image: Tensor) -> list[str]:
    """Raises TypeError if one moves pixels of images like these or changes their shape. Names those that cut to [0, 1]."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 (such functions draw from the global state)
    try:
        return [_name(function) for function in functions if _clamps(function, image)]
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002


def _clamps(function: Function, image: Tensor) -> bool:
    """Checks one function. Returns whether values far outside [0, 1] come back inside it."""
    size, device = (image.shape[-2], image.shape[-1]), image.device
    at = torch.tensor([(round(x * (size[1] - 1)), round(y * (size[0] - 1))) for x, y in POINTS], device=device)  # [n, 2]
    plain = torch.linspace(0, 1, size[1], device=device).repeat(len(at), image.shape[1], size[0], 1)  # [n, C, H, W]
    bright = plain + 0.4 * render_heatmaps(at[:, None].float(), size, 2.0)
    grid = torch.ones(size, device=device).nonzero().flip(1).float()  # [HW, 2], x and y
    parts = list(function.children()) if isinstance(function, nn.Sequential) else [function]
    for seed in range(0 if all(type(part).__module__.startswith(COLOURS) for part in parts) else SEEDS):
        before, after = (_run(function, images.to(image.dtype), seed) for images in (plain, bright))
        change = (after - before).float().abs().sum(1).flatten(1).nan_to_num(0, 0, 0)  # [n, HW], noise cancels
        weight = change * (change > change.amax(1, keepdim=True) / 2)
        place = weight @ grid / weight.sum(1, keepdim=True).clamp(min=1e-9)
        moved = ((place - at).norm(dim=1) * (change.amax(1) > 0.02)).median()  # a point that is gone did not move
        if moved > MOST:
            raise TypeError(
                f"Functions in `common` should move no pixels. Found {_name(function)}, which moved a bright point by "
                f"{moved:.1f} pixels; use adaug's own operations, which move labels too, such as adaug.Flip and Rotate."
            )
    with suppress(Exception):  # it may refuse such values
        edges = [_run(function, ((plain - 0.35) * 30).to(image.dtype), seed).float().aminmax() for seed in range(SEEDS)]
        return any(low >= -1e-3 and high <= 1 + 1e-3 and high - low > 1e-3 for low, high in edges)
    return False


def _run(function: Function, images: Tensor, seed: int) -> Tensor:
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    with seeded(seed, images.device), torch.no_grad():
        output: Any = function(images.clone())
    if isinstance(output, Tensor) and output.shape == images.shape:
        return output
    raise TypeError(
        f"Functions in `common` should return images of the shape that they get. Found {_name(function)}, which returned "
        f"{[*output.shape] if isinstance(output, Tensor) else type(output).__name__}; use `output_size` to cut views."
    )


def _name(function: Any) -> str:
    return getattr(function, "__qualname__", type(function).__qualname__)

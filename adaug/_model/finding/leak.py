"""The leak of a mask: how much of a change in a hidden cell of the image still reaches the output."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from adaug._model.hooks import Hooks
from adaug._model.layers import Layer, tensors_in
from adaug.operations import OccludeFeatures

GRID = (4, 4)
CELL = (1, 2)  # (row, column) of the cell in which the two images differ

Run = Callable[[Tensor], Any]  # calls the model with images
Outputs = Sequence[Tensor]


def with_a_change(image: Tensor) -> Tensor:
    """One image, and the same image with a change in the middle of a cell: [1, C, H, W] -> [2, C, H, W]."""
    pair = image[:1].repeat(2, 1, 1, 1)
    low, high = (value[:, None, None] for value in pair[0].flatten(1).aminmax(dim=1))
    rows, columns = (
        slice(int(n * (at + 0.375) / cells), max(int(n * (at + 0.375) / cells) + 1, int(n * (at + 0.625) / cells)))
        for n, at, cells in zip(pair.shape[2:], CELL, GRID, strict=True)
    )
    part = pair[1, :, rows, columns]
    other = torch.where(part < (low + high) / 2, high, low)
    pair[1, :, rows, columns] = torch.where(high > low, other, part + 1)
    return pair


def outputs_of(run: Run, pair: Tensor) -> Outputs:
    """The outputs for both images: all tensors that have a row for each."""
    tensors = (tensor for tensor in tensors_in(run(pair.clone())) if tensor.is_floating_point())
    return [tensor.float() for tensor in tensors if tensor.ndim and len(tensor) == 2]


def leak(model: nn.Module, hide: Mapping[str, Layer], pair: Tensor, run: Run, plain: Outputs) -> float:
    """Hides the changed cell and returns the part of each output's change that is left, on average.

    0 means that nothing is left. Infinite means that the mask does nothing. NaN means that the outputs do not change without a
    mask either: a new network may return the same for all images.

    Args:
        model: The model.
        hide: The layers that the mask multiplies.
        pair: The images from `with_a_change`.
        run: A function that calls the model.
        plain: The outputs without a mask.
    """
    mask = torch.ones(2, 1, *GRID, device=pair.device)
    mask[:, :, CELL[0], CELL[1]] = 0
    hooks = Hooks(model, {}, hide)
    try:
        with hooks.masked([(OccludeFeatures(GRID, (1,)), mask)]):
            masked = outputs_of(run, pair)
    finally:
        hooks.remove()
    return _share(plain, masked)


def _share(plain: Outputs, masked: Outputs) -> float:
    before, after = ([float((rows[1] - rows[0]).norm()) for rows in outputs] for outputs in (plain, masked))
    shares = [b / a for a, b in zip(before, after, strict=False) if a > 0 and math.isfinite(a)]
    if not shares:
        return math.nan
    idle = all(torch.equal(a, b) for a, b in zip(plain, masked, strict=False))
    return math.inf if idle else sum(shares) / len(shares)

"""Small tensors that never change. They are made once, because making one takes as long as using it."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor


def constant(values: Any, like: Tensor | torch.device | None, dtype: torch.dtype | None = None) -> Tensor:
    """Nested tuples of numbers as a tensor. It is shared, so do not write to it.

    Args:
        values: The numbers, hashable.
        like: The device, or a tensor with the device and the dtype. None means the CPU.
        dtype: The dtype. By default that of `like`, or float32.
    """
    if isinstance(like, Tensor):
        return _made(values, like.device, dtype or like.dtype)
    return _made(values, like or torch.device("cpu"), dtype or torch.float32)


@lru_cache(maxsize=512)
def _made(values: Any, device: torch.device, dtype: torch.dtype) -> Tensor:
    with torch.inference_mode(False):  # a tensor made in inference mode could not be used outside
        return torch.tensor(values, dtype=dtype, device="cpu").to(device, non_blocking=True)


@lru_cache(maxsize=128)
def pixel_centres(side: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """The centres of the pixels along a side, [side], where -1 and 1 are the outer edges of the image."""
    with torch.inference_mode(False):
        return ((torch.arange(side, device="cpu") * 2 + 1) / side - 1).to(device, dtype, non_blocking=True)

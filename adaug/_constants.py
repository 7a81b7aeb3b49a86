"""Small tensors that never change: made once, because making one anew costs as much of the host's time as using it."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor


def constant(values: Any, like: Tensor | torch.device | None, dtype: torch.dtype | None = None) -> Tensor:
    """Nested tuples of numbers as a tensor that nobody may write to.

    Args:
        values: Numbers, hashable.
        like: The device, or a tensor whose device and dtype it takes. None is the CPU.
        dtype: By default that of `like`, or float32.
    """
    if isinstance(like, Tensor):
        return _made(values, like.device, dtype or like.dtype)
    return _made(values, like or torch.device("cpu"), dtype or torch.float32)


@lru_cache(maxsize=512)
def _made(values: Any, device: torch.device, dtype: torch.dtype) -> Tensor:
    with torch.inference_mode(False):  # made inside, it could not be used outside
        return torch.tensor(values, dtype=dtype, device="cpu").to(device, non_blocking=True)


@lru_cache(maxsize=128)
def pixel_centres(side: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Where the centres of a side's pixels lie in [-1, 1], with its ends at the edges. [side]."""
    with torch.inference_mode(False):
        return ((torch.arange(side, device="cpu") * 2 + 1) / side - 1).to(device, dtype, non_blocking=True)

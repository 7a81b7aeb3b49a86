"""What `draw` and `observe` refuse, and how they say it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.utils.data import get_worker_info

from adaug._batches.batch import Batch


def refuse_worker(act: str) -> None:
    """Raises RuntimeError in a worker of a DataLoader: all workers have copies of the augmenter, with the same counter."""
    if get_worker_info() is not None:
        raise RuntimeError(
            f"`{act}` should be called where the model trains. Found a worker of a DataLoader, whose copy would draw the views "
            "of all other workers; use adaug.Augment in a Dataset."
        )


def check_difficulty(difficulty: Any, n: int, *, function: bool) -> None:
    """Raises TypeError or ValueError unless a user gives one number for each of n rows. `function`: there is one for it."""
    if function:
        raise ValueError(
            "`observe` should get the output, because the augmenter has a `difficulty` function. Found numbers; pass the "
            "output, or make the augmenter without the function."
        )
    if not isinstance(difficulty, Tensor) or not difficulty.is_floating_point():
        found = str(difficulty.dtype) if isinstance(difficulty, Tensor) else type(difficulty).__name__
        raise TypeError(f"`difficulty` should be a tensor of floating point numbers, one for each row. Found {found}.")
    if difficulty.shape != (n,):
        raise ValueError(
            f"`difficulty` should have one number for each row of the latest draw, shape ({n},). Found shape "
            f"{tuple(difficulty.shape)}; compute losses with reduction='none' and average over the other dimensions."
        )


def unknown_output(output: Any, batch: Batch) -> str:
    """The error for an output that adaug has no measure for."""
    if isinstance(output, Tensor):
        found = f"a tensor of shape {tuple(output.shape)}"
    elif isinstance(output, Mapping):
        found = f"a mapping with {', '.join(map(str, output))}"
    else:
        found = type(output).__name__
    kinds = ", ".join(sorted({target.kind for target in batch.kinds.values()} - {"other"}))
    return (
        f"`observe` should get an output that tells how hard the {len(batch)} views were: heat maps [B, K, h, w] for keypoints "
        f"[B, K, 2], logits [B, C, h, w] for an integer mask, or logits [B, C] for labels. Found {found} for a batch with "
        f"{kinds}; pass that part of the output, or difficulty=losses with one number for each sample, or give the augmenter a "
        "`difficulty` function."
    )

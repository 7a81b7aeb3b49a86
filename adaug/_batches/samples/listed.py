"""Batches that hold their rows in lists, because these have different sizes: cut to samples, and put together again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from adaug._batches.batch import UserBatch
from adaug._batches.kinds import MOVING, Key, Target
from adaug._batches.names import guess
from adaug._batches.samples.forms import is_array
from adaug._batches.tree import Path, children, has_names, has_rows, is_named_tuple, map_leaves


def rows_in(batch: UserBatch, image: Any, targets: Mapping[Key, Target]) -> int | None:
    """How many rows there are in a batch that holds them in lists. None if it holds stacked tensors, or is a sample."""
    if isinstance(image, (list, tuple)):
        return len(image)
    if getattr(image, "ndim", 0) != 4:
        return None
    n = len(image)
    for key, entry in children(batch):
        if isinstance(entry, (list, tuple)) and not is_named_tuple(entry) and len(entry) == n:
            kind = targets.get(key) or guess(key, entry)
            arrays = kind is not None and kind.kind in MOVING and all(map(is_array, entry))
            if arrays or all(isinstance(item, Mapping) for item in entry):
                return n
    return None


def cut(batch: UserBatch, n: int) -> list[UserBatch]:
    """The n samples of a batch."""
    return [map_leaves(partial(_row, i=i, n=n), batch, opens=opens) for i in range(n)]


def gathered(batch: UserBatch, samples: Sequence[UserBatch]) -> UserBatch:
    """Puts samples together as they were in the batch: the reverse of `cut`."""
    return map_leaves(partial(_gathered, n=len(samples)), batch, *samples, opens=opens)


def opens(path: Path, entry: Any) -> bool:
    """Lists inside a batch hold rows."""
    return has_names(path, entry) or (not path and isinstance(entry, (list, tuple)))


def _row(path: Path, entry: Any, i: int, n: int) -> Any:
    """Row i of n, from lists or tensors of rows. An entry without rows stays as it is."""
    return entry[i] if has_rows(entry, n) else entry


def _gathered(path: Path, entry: Any, *rows: Any, n: int) -> Any:
    """Puts n rows together again: the reverse of `_row`."""
    if not has_rows(entry, n):
        return entry
    if isinstance(entry, Tensor):
        return torch.stack(rows)
    return np.stack(rows) if isinstance(entry, np.ndarray) else type(entry)(rows)

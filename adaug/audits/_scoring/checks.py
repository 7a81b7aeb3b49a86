"""The checks of an audit."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils.data import RandomSampler, SubsetRandomSampler, WeightedRandomSampler

from adaug._batches.batch import Batch
from adaug._batches.kinds import Target
from adaug.audits.plan import Plan

SHUFFLING = (RandomSampler, SubsetRandomSampler, WeightedRandomSampler)


def check_order(loader: Any, path: Path | None) -> None:
    """Tells at once if a DataLoader shuffles: other audits then hold other orders. With a file this is a ValueError."""
    samplers = [getattr(loader, "sampler", None), getattr(getattr(loader, "batch_sampler", None), "sampler", None)]
    shuffling = [s for s in samplers if isinstance(s, SHUFFLING) or getattr(s, "shuffle", False) is True]
    if not shuffling:
        return
    said = (
        f"`loader` should give its images in one order, to {'continue' if path else 'compare'} audits. Found "
        f"{type(shuffling[0]).__name__}; use DataLoader(..., shuffle=False)."
    )
    if path is not None:
        raise ValueError(said)
    warnings.warn(said, stacklevel=3)


def check_scores(scores: Any, n: int) -> None:
    """Raises TypeError or ValueError unless `score` returned numbers for n images, [n], [n, K] or [n, P, K]."""
    if not isinstance(scores, Tensor):
        raise TypeError(
            f"`score` should return a tensor, an array or a list of numbers, ({n},) or ({n}, parts). Found "
            f"{type(scores).__name__}."
        )
    if scores.ndim not in (1, 2, 3) or len(scores) != n or scores.is_complex():
        raise ValueError(
            f"`score` should return one number per image, ({n},), or one per part, ({n}, parts) or "
            f"({n}, people, joints). Found {tuple(scores.shape)}."
        )


def check_groups(groups: Mapping[str, Sequence[int]], parts: tuple[int, ...]) -> None:
    """Raises ValueError if groups name parts that scores do not have."""
    if groups and not parts:
        raise ValueError(
            f"`groups` should come with scores of parts, [B, K]. Found {', '.join(groups)}, and scores of images, [B]."
        )
    for name, members in groups.items():
        wrong = [part for part in members if not 0 <= part < parts[0]]
        if wrong or not len(members):
            raise ValueError(f"`groups[{name!r}]` should hold parts from 0 to {parts[0] - 1}. Found {wrong or 'none'}.")


def warn_of_fill(parsed: Batch, plan: Plan, targets: Mapping[Any, str | Target] | None) -> None:
    """Warns if a mask gets class 0 outside the canvas and the user did not ask for it."""
    silent = [
        key
        for key, target in parsed.kinds.items()
        if target.kind == "mask" and not isinstance((targets or {}).get(key), Target)
    ]
    if silent and any(operation.moves for operation in plan.operations.values()):
        warnings.warn(
            f"{silent[0]!r} should have a fill for pixels outside the canvas. Found none, so they get class 0; pass targets="
            f'{{{silent[0]!r}: adaug.Target("mask", fill=255)}} and leave 255 out of the score, or fill=0 if class 0 is meant.',
            stacklevel=5,
        )

"""What `draw` and `observe` refuse, and how they say it; and which measure `observe` and `step` take."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from adaug._batches.batch import Batch
from adaug._batches.moving.held import plain
from adaug._model.bound import Difficulty, LossFunction
from adaug._steps.groups import Group
from adaug._steps.state import State
from adaug.learners.measures import GIVEN, LOSS, USERS, measured, name_of, what_was_found


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


def observed(
    state: State, groups: Mapping[str, Group], output: Any, difficulty: Tensor | None, function: LossFunction | None
) -> tuple[str | None, Callable[[], Tensor]]:
    """What `observe` was told: the name of the measure, and what gives the difficulty of each row of the latest draw.

    Raises RuntimeError, TypeError or ValueError if it was told nothing that counts.

    Args:
        state: The state before.
        groups: The learners. With none of them, nothing asks for a measure.
        output: What the model returned, or None.
        difficulty: The numbers that the user gave instead, or None.
        function: The `difficulty` function of the augmenter.
    """
    if state.drawn is None:
        raise RuntimeError(
            "`observe` should follow a `draw`, once. Found none that waits for it; call `draw` first, and observe once."
        )
    if (output is None) == (difficulty is None):
        raise ValueError("`observe` should get an output or a difficulty. Found both or neither; pass one of them.")
    batch = state.drawn.augmented
    name, own = _numbers(difficulty, batch, function) if difficulty is not None else _measured(output, batch, function, groups)
    if groups and state.measure not in (None, name):
        raise ValueError(
            f"`observe` should tell difficulties of one measure. Found {name} after {state.measure}; they cannot be "
            "averaged, so tell it always the same way."
        )
    return name, own


def _numbers(difficulty: Tensor, batch: Batch, function: LossFunction | None) -> tuple[str, Callable[[], Tensor]]:
    check_difficulty(difficulty, len(batch), function=function is not None)
    numbers = plain(difficulty).detach().to(batch.image.device, torch.float32)
    return GIVEN, lambda: numbers


def _measured(
    output: Any, batch: Batch, function: LossFunction | None, groups: Mapping[str, Group]
) -> tuple[str | None, Callable[[], Tensor]]:
    name = measure_name(output, batch, function, groups)
    if name == LOSS:
        raise ValueError(
            f"`observe` should get an output that tells how hard the {len(batch)} views were. {what_was_found(output, batch)}; "
            "pass the part of the output that counts, or difficulty=losses with one number for each sample, or give the "
            "augmenter a `difficulty` function, (output, batch) -> [B]."
        )
    if function is not None:
        return name, partial(Difficulty(function, "difficulty"), output, batch)
    return name, partial(measured, output, batch)


def measure_name(output: Any, batch: Batch, function: LossFunction | None, groups: Mapping[str, Group]) -> str | None:
    """The name of what measures how hard views were. None if only learners that compare views themselves ask."""
    if all(group.learner.passes for group in groups.values()):
        return None
    return USERS if function is not None else name_of(output, batch)

"""Draws the views of rows by the distributions of their branches. It needs no model."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adaug._runtime.geometry import Size
from adaug._runtime.random import Stream
from adaug._views.view import View
from adaug.policies.policy import Branch, Magnitudes, Policy

Distributions = Callable[[Branch], Mapping[str, Tensor] | None]  # -> log-probabilities [n, k] by the name of an operation


def draw_rows(
    policy: Policy, distributions: Distributions, branch: NDArray[np.int64], random: Magnitudes, stream: Stream
) -> Magnitudes:
    """Draws the operations of each row's branch by its distributions, and all others at random.

    Args:
        policy: The policy.
        distributions: Gives the distributions of a branch for all rows. None: its rows stay as they are drawn at random.
        branch: The branch of each row, [n]; 0 means random views.
        random: What random views of these rows get.
        stream: The source of noise.
    """
    n, drawn = len(branch), dict(random)
    for number, owner in enumerate(policy.branches, start=1):
        mine = branch == number
        log_probs = distributions(owner) if mine.any() else None
        if log_probs is None:
            continue
        rows = None if mine.all() else torch.from_numpy(mine).to(stream.device, non_blocking=True)
        for operation in owner.operations:
            name = owner.full_name(operation)
            magnitude = operation.draw(operation.choose(log_probs[operation.name], stream), stream)
            if rows is not None:
                where = rows if magnitude.ndim == 1 else rows.reshape(n, *[1] * (magnitude.ndim - 1))
                magnitude = torch.where(where, magnitude, random.get(name, 1.0))
            drawn[name] = magnitude
    return drawn


def draw_view(policy: Policy, n: int, canvas: Size, view_size: Size, progress: float, stream: Stream) -> View:
    """Draws the view of n rows without learning: all bins and cells of a branch are equally likely."""

    def even(owner: Branch) -> dict[str, Tensor]:
        return {
            operation.name: torch.full(
                (n, operation.bins), -math.log(operation.bins), dtype=torch.float32, device=stream.device
            )
            for operation in owner.operations
        }

    branch = policy.split(n, progress, stream).numpy()
    drawn = draw_rows(policy, even, branch, policy.draw_random(n, stream), stream)
    return policy.view(drawn, n, canvas, view_size, device=stream.device)

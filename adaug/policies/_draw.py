"""Draws the views of rows that no generator proposes for."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adaug._runtime.geometry import Size
from adaug._runtime.random import Stream
from adaug._views.view import View
from adaug.policies.policy import Branch, Magnitudes, Policy


class Distributions(Protocol):
    """The distributions of branches without generators."""

    def log_probs(self, branch: Branch, n: int) -> Mapping[str, Tensor]:
        """Log-probabilities [n, k] of each operation of a branch, by its name."""


class Uniform:
    """Uniform distributions: all bins and cells are equally likely."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def log_probs(self, branch: Branch, n: int) -> dict[str, Tensor]:
        """Log-probabilities [n, k] of each operation of a branch, by its name."""
        return {
            operation.name: torch.full((n, operation.bins), -math.log(operation.bins), dtype=torch.float32, device=self.device)
            for operation in branch.operations
        }


def draw_unproposed(
    policy: Policy, distributions: Distributions, branch: NDArray[np.int64], random: Magnitudes, stream: Stream
) -> Magnitudes:
    """Draws rows that no generator proposes for: their branch's operations from its distributions, others at random."""
    n, drawn = len(branch), dict(random)
    for number, owner in enumerate(policy.branches, start=1):
        mine = branch == number
        if owner.has_generator or not mine.any():
            continue
        rows = None if mine.all() else torch.from_numpy(mine).to(stream.device, non_blocking=True)
        for operation, log_probs in zip(owner.operations, distributions.log_probs(owner, n).values(), strict=True):
            name = owner.full_name(operation)
            magnitude = operation.draw(operation.choose(log_probs, stream), stream)
            if rows is not None:
                where = rows if magnitude.ndim == 1 else rows.reshape(n, *[1] * (magnitude.ndim - 1))
                magnitude = torch.where(where, magnitude, random.get(name, 1.0))
            drawn[name] = magnitude
    return drawn


def draw_view(policy: Policy, n: int, canvas: Size, view_size: Size, progress: float, stream: Stream) -> View:
    """Draws the view of n rows by a policy without generators. All bins and cells are equally likely."""
    branch = policy.split(n, progress, stream).numpy()
    drawn = draw_unproposed(policy, Uniform(stream.device), branch, policy.draw_random(n, stream), stream)
    return policy.view(drawn, n, canvas, view_size, device=stream.device)

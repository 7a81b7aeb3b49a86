"""The distributions that were learned, over time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from adaug._runtime.geometry import Size
from adaug.operations import Operation
from adaug.policies import Policy

__all__ = ["draw_distributions"]

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_distributions(
    history: Sequence[Mapping[str, Any]],
    *,
    policy: Policy | None = None,
    epochs: Sequence[int] | None = None,
    title: str = "What is drawn",
) -> Figure:
    """Draws the distribution of every operation over time. Blue bins are drawn less often than uniform, red ones more often.

    If the history also has difficulties ("difficulty/..."), they stand on the left.

    Args:
        history: A mapping for each epoch: "branch.operation" -> [k], or the metrics of a step.
        policy: The policy. With it, bins are labelled by their magnitudes, and cells shown on their grid at up to four epochs.
        epochs: The numbers of the epochs, by default from 1.
        title: The title of the whole figure.
    """
    from matplotlib.figure import Figure

    epochs_drawn = [
        {_name(key): torch.as_tensor(value).detach().float().cpu() for key, value in epoch.items() if _is_shown(key, value)}
        for epoch in history
    ]
    numbers = list(range(1, len(history) + 1)) if epochs is None else list(epochs)
    if len(numbers) != len(history):
        raise ValueError(f"`epochs` should have a number for each of {len(history)} epochs. Found {len(numbers)}.")
    kept = [(number, epoch) for number, epoch in zip(numbers, epochs_drawn, strict=True) if epoch]
    if not kept:
        raise ValueError(
            "`history` should hold at least one distribution. Found none; pass the metrics of adversarial steps, or what "
            "`augmenter.distributions` gives."
        )
    measured = list(zip(numbers, history, strict=True))
    names = list(dict.fromkeys(name for _, epoch in kept for name in epoch))
    figure = Figure(figsize=(7.2, 0.7 + 2.4 * len(names)), dpi=150, layout="constrained")
    figure.suptitle(title, fontsize=11)
    parts = figure.subfigures(len(names), 1, squeeze=False)
    for part, name in zip(parts[:, 0], names, strict=True):
        values = [(number, epoch[name]) for number, epoch in kept if name in epoch]
        operation = None if policy is None else policy.operations.get(name)
        if operation is not None and isinstance(operation.layout, tuple):
            _draw_grids(part, name, values, operation.layout)
        else:
            difficulty = [epoch.get(f"difficulty/{name}") for _, epoch in measured if name in _named(epoch)]
            _draw_bins(part, name, values, operation, [value for value in difficulty if value is not None])
    return figure


def _named(epoch: Mapping[str, Any]) -> set[str]:
    return {_name(key) for key, value in epoch.items() if _is_shown(key, value)}


def _name(key: str) -> str:
    return key.removeprefix("distribution/")


def _is_shown(key: str, value: Any) -> bool:
    return key.startswith("distribution/") or ("/" not in key and torch.as_tensor(value).ndim == 1)


def _draw_bins(
    part: Any,
    name: str,
    values: Sequence[tuple[int, Tensor]],
    operation: Operation | None,
    difficulty: Sequence[Any],
) -> None:
    table = torch.stack([value for _, value in values], 1)  # [k, epochs]
    k, both = len(table), len(difficulty) == len(values)
    axes = part.subplots(1, 2 if both else 1, squeeze=False)[0]
    image = axes[-1].imshow((table * k).numpy(), aspect="auto", origin="lower", interpolation="nearest", **_colours(table * k))
    _draw_bar(part, image, axes[-1])
    axes[-1].set_title(f"{name}: drawn" if both else name, fontsize=9, loc="left")
    if both:
        found = torch.stack([torch.as_tensor(value).detach().float().cpu() for value in difficulty], 1)
        label = "difficulty"
        if float(found.min()) > 0:  # it falls while a network learns, so show how bins compare in each epoch
            found, label = found / found.mean(0), "difficulty / its mean"
        hard = axes[0].imshow(found.numpy(), aspect="auto", origin="lower", interpolation="nearest", cmap="viridis")
        _draw_bar(part, hard, axes[0], label)
        axes[0].set_title(f"{name}: found hard", fontsize=9, loc="left")
    every = max(1, math.ceil(len(values) * len(axes) / 12))
    for axis in axes:
        axis.set_xticks(range(0, len(values), every), [str(number) for number, _ in values][::every], fontsize=8)
        axis.set_yticks(range(k), [str(i) for i in range(k)] if operation is None else operation.labels())
        axis.tick_params(axis="y", labelsize=7 if k < 12 else 5)
        axis.set_xlabel("epoch", fontsize=8)
    axes[0].set_ylabel("bin" if operation is None else operation.quantity, fontsize=8)


def _draw_grids(part: Any, name: str, values: Sequence[tuple[int, Tensor]], grid: Size) -> None:
    picks = sorted({round(i * (len(values) - 1) / 3) for i in range(4)})
    table = torch.stack([values[i][1] for i in picks]) * math.prod(grid)
    axes = part.subplots(1, 4, squeeze=False)[0]
    for axis in axes[len(picks) :]:
        axis.set_axis_off()
    for axis, i, cells in zip(axes, picks, table, strict=False):
        image = axis.imshow(cells.reshape(grid).numpy(), interpolation="nearest", **_colours(table))
        axis.set_title(f"{name}\nepoch {values[i][0]}" if axis is axes[0] else f"epoch {values[i][0]}", fontsize=9, loc="left")
        axis.set_xticks([])
        axis.set_yticks([])
    _draw_bar(part, image, list(axes))


def _colours(ratio: Tensor) -> dict[str, Any]:
    """Blue below and red above 1, the uniform distribution."""
    from matplotlib.colors import TwoSlopeNorm

    return {"cmap": "RdBu_r", "norm": TwoSlopeNorm(vcenter=1, vmin=0, vmax=max(2.0, float(ratio.max())))}


def _draw_bar(part: Any, image: Any, axes: Any, label: str = "probability × bins") -> None:
    bar = part.colorbar(image, ax=axes, pad=0.02)
    bar.ax.set_yscale("linear")
    bar.set_label(label, fontsize=8)
    bar.ax.tick_params(labelsize=7)

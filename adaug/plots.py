"""Pictures: the views of a batch, and the distributions that were learned. Needs matplotlib (`pip install adaug[viz]`)."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from adaug._batches.batch import UserBatch
from adaug._batches.kinds import Key, Target
from adaug._batches.parse import parse
from adaug._runtime.geometry import Size, inside
from adaug._views.view import View
from adaug.keypoints import Pairs
from adaug.operations import Operation
from adaug.policies import Policy

__all__ = ["draw_distributions", "draw_views"]

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette, which colour-blind readers can tell apart.
LEFT, RIGHT, MIDDLE = "#56B4E9", "#E69F00", "#F0E442"
INK, FAINT = "#222222", "#888888"


# -- views -----------------------------------------------------------------------------------------------------------


def draw_views(
    batch: UserBatch,
    *,
    view: View | None = None,
    titles: Sequence[str] | None = None,
    limbs: Pairs = (),
    left: Collection[int] = (),
    right: Collection[int] = (),
    targets: Mapping[Key, str | Target] | None = None,
    columns: int = 6,
    most: int = 24,
    title: str | None = None,
) -> Figure:
    """Draws a grid of augmented images [B, 3 or 1, H, W] with their keypoints, such as `StepResult.batch`.

    Keypoints that are not visible become crosses. Images with values outside [0, 1] are rescaled to [0, 1].

    Args:
        batch: The augmented batch.
        view: Its view, such as `StepResult.view`. Cells that it hides from the network are hatched.
        titles: A text for each image, such as the name of its branch.
        limbs: Pairs of keypoints to join by a line.
        left: Keypoints of the left side. They and their limbs get a colour of their own.
        right: Keypoints of the right side, likewise.
        targets: Key or position in the batch -> kind, for entries whose name does not tell their kind.
        columns: The number of images in a line.
        most: The largest number of images to draw.
        title: The title of the whole figure.
    """
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    parsed = parse(batch, targets)
    count = min(len(parsed), most)
    if titles is not None and len(titles) < count:
        raise ValueError(f"`titles` should have a text for each of {count} images. Found {len(titles)}.")
    columns = max(1, min(columns, count))
    lines = math.ceil(count / columns)
    known = parsed.labelled_keypoints()
    points, visible = (None, None) if known is None else (known[0].detach().float().cpu(), known[1].cpu().flatten(1))
    head = 0.36 if title else 0.08
    foot = 0.4 if points is not None or view is not None else 0.05
    height = lines * (1.75 + (0.22 if titles else 0.05)) + head + foot
    figure = Figure(figsize=(1.75 * columns, height), dpi=150)
    axes = figure.subplots(lines, columns, squeeze=False)
    for i, axis in enumerate(axes.flat):
        axis.set_axis_off()
        if i >= count:
            continue
        picture = _picture(parsed.image[i])
        axis.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axis.set_xlim(-0.5, parsed.size[1] - 0.5)
        axis.set_ylim(parsed.size[0] - 0.5, -0.5)
        if view is not None:
            _draw_cells(axis, view, i, parsed.size)
        if points is not None and visible is not None:
            _draw_points(axis, points[i].reshape(-1, points.shape[-1]), visible[i], limbs, left, right)
        if titles is not None:
            axis.set_title(titles[i], fontsize=8, pad=2, color=INK)
    handles: list[Any] = []
    if points is not None:
        if left or right:
            handles += [Line2D([], [], color=LEFT, marker="o", markersize=4, label="left")]
            handles += [Line2D([], [], color=RIGHT, marker="o", markersize=4, label="right")]
        crossed = visible is not None and bool((~visible & inside(points[..., :2].flatten(1, -2), parsed.size))[:count].any())
        handles += [Line2D([], [], color=FAINT, marker="x", markersize=5, ls="", label="not visible")] if crossed else []
    if view is not None and view.masks:
        handles += [Patch(facecolor="#00000088", edgecolor="white", hatch="////", label="hidden from the network")]
    if handles:
        figure.legend(handles=handles, loc="lower center", ncols=len(handles), fontsize=8, frameon=False, borderaxespad=0.2)
    if title:
        figure.suptitle(title, fontsize=11, y=1 - 0.12 / height, va="top")
    bottom, top = (foot / height if handles else 0.02), 1 - (head + (0.22 if titles else 0)) / height
    figure.subplots_adjust(left=0.01, right=0.99, bottom=bottom, top=top, wspace=0.04, hspace=0.13 if titles else 0.04)
    return figure


def _picture(image: Tensor) -> Any:
    """[C, H, W] -> [H, W, 3] or [H, W] in [0, 1]."""
    image = image.detach().float().cpu()
    low, high = image.min(), image.max()
    if low < -0.01 or high > 1.01:
        image = (image - low) / (high - low).clamp(min=1e-6)
    image = image.clamp(0, 1)
    return (image[:3].permute(1, 2, 0) if len(image) >= 3 else image[0]).numpy()


def _draw_cells(axis: Axes, view: View, row: int, size: Size) -> None:
    from matplotlib.patches import Rectangle

    for mask in view.masks.values():
        cells = mask[row, 0].detach().cpu()
        height, width = size[0] / cells.shape[0], size[1] / cells.shape[1]
        for r, c in torch.nonzero(cells < 0.5).tolist():
            corner = (c * width - 0.5, r * height - 0.5)
            coarse = cells.shape[0] <= 8  # in finer cells, outlines would cover everything
            look = {"lw": 0.6, "hatch": "////"} if coarse else {"lw": 0}
            axis.add_patch(Rectangle(corner, width, height, facecolor="#00000088", edgecolor="white", zorder=1.5, **look))


def _draw_points(
    axis: Axes,
    points: Tensor,
    visible: Tensor,
    limbs: Pairs,
    left: Collection[int],
    right: Collection[int],
) -> None:
    def colour(*joints: int) -> str:
        return LEFT if any(j in left for j in joints) else RIGHT if any(j in right for j in joints) else MIDDLE

    for a, b in limbs:
        if visible[a] and visible[b]:
            # A limb between the two sides (the hips) belongs to neither.
            across = any(j in left for j in (a, b)) and any(j in right for j in (a, b))
            axis.plot(
                points[[a, b], 0].numpy(), points[[a, b], 1].numpy(), color=MIDDLE if across else colour(a, b), lw=1.3, zorder=2
            )
    for j, (point, is_visible) in enumerate(zip(points, visible, strict=True)):
        marker: dict[str, Any] = {"marker": "o", "s": 7, "edgecolors": "black", "linewidths": 0.3}
        if not is_visible:
            marker = {"marker": "x", "s": 14, "linewidths": 0.9}
        if torch.isfinite(point[:2]).all():
            axis.scatter(float(point[0]), float(point[1]), color=colour(j), zorder=3, **marker)


# -- distributions ---------------------------------------------------------------------------------------------------


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

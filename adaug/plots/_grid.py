"""A figure with a place for each of several images, and what all its images have in common."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, FAINT = "#222222", "#888888"
LINE = 0.118  # inches for a line of text above an image
RANGES = ((0.0, 1.0), (-1.0, 1.0), (-2.2, 2.7), (0.0, 255.0))  # of images, from the smallest; the third is ImageNet's


def grid(
    titles: Sequence[str],
    columns: int,
    *,
    side: float,
    shape: float = 1.0,
    title: str | None = None,
    legend: Sequence[Any] = (),
) -> tuple[Figure, list[Axes]]:
    """Makes a figure with a place for each image.

    Args:
        titles: The text above each image. It may have several lines.
        columns: The largest number of images in a line.
        side: The width of an image in inches.
        shape: Its height divided by its width.
        title: The title of the whole figure.
        legend: What to explain below the images.
    """
    from matplotlib.figure import Figure

    count = len(titles)
    columns = max(1, min(columns, count))
    lines = math.ceil(count / columns)
    texts = max(text.count("\n") + 1 if text else 0 for text in titles)
    above, head, foot = 0.06 + LINE * texts, 0.36 if title else 0.03, 0.32 if legend else 0.05
    height = lines * (side * shape + above) + head + foot
    figure = Figure(figsize=(side * columns, height), dpi=150)
    axes = list(figure.subplots(lines, columns, squeeze=False).flat)
    for i, axis in enumerate(axes):
        axis.set_axis_off()
        if i < count and titles[i]:
            axis.set_title(titles[i], fontsize=7.5, pad=2, color=INK, linespacing=1.1)
    if legend:
        figure.legend(handles=legend, loc="lower center", ncols=len(legend), fontsize=8, frameon=False, borderaxespad=0.2)
    if title:
        figure.suptitle(title, fontsize=11, y=1 - 0.12 / height, va="top")
    figure.subplots_adjust(
        left=0.01,
        right=0.99,
        bottom=foot / height,
        top=1 - (head + above) / height,
        wspace=0.04,
        hspace=above / (side * shape),
    )
    return figure, axes[:count]


def pictures(images: Sequence[Tensor], *, together: bool) -> list[Any]:
    """Images [C, H, W] as arrays [H, W, 3] or [H, W] in [0, 1], from the smallest of the usual ranges that holds them.

    With `together`, all have one range, so that darker images stay darker.
    """
    shown = [image.detach().float().cpu() for image in images]
    limits = [(float(image.nan_to_num().min()), float(image.nan_to_num().max())) for image in shown]
    if together:
        limits = [(min(low for low, _ in limits), max(high for _, high in limits))] * len(shown)
    found = []
    for image, (low, high) in zip(shown, limits, strict=True):
        slack = 0.01 * max(1.0, high - low)
        first, last = next((ends for ends in RANGES if ends[0] - slack <= low and high <= ends[1] + slack), (low, high))
        scaled = ((torch.nan_to_num(image) - first) / max(last - first, 1e-6)).clamp(0, 1)
        found.append((scaled[:3].permute(1, 2, 0) if len(scaled) >= 3 else scaled[0]).numpy())
    return found


def show(axis: Axes, picture: Any) -> None:
    """Shows a picture [H, W] or [H, W, 3]. (0, 0) is the middle of its first pixel."""
    height, width = picture.shape[:2]
    axis.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axis.set_xlim(-0.5, width - 0.5)
    axis.set_ylim(height - 0.5, -0.5)

"""How labels look upon an image: points, boxes, masks, heat maps and hidden cells."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from adaug._runtime.geometry import Size
from adaug._views.view import View
from adaug.keypoints import Pairs
from adaug.plots._grid import FAINT

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's palette, which colour-blind readers can tell apart.
LEFT, RIGHT, MIDDLE = "#56B4E9", "#E69F00", "#F0E442"
CLASSES = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#CC79A7", "#D55E00", "#0072B2")


@dataclass(frozen=True)
class Joints:
    """How keypoints are drawn.

    Attributes:
        limbs: Pairs of keypoints to join by a line.
        left: Keypoints of the left side. They and their limbs get a colour of their own.
        right: Keypoints of the right side, likewise.
        numbers: Whether each keypoint's number stands beside it.
    """

    limbs: Pairs = ()
    left: Collection[int] = ()
    right: Collection[int] = ()
    numbers: bool = False

    def check(self, count: int) -> None:
        """Raises ValueError if limbs join keypoints that are not among `count`."""
        wrong = [limb for limb in self.limbs if not all(0 <= joint < count for joint in limb)]
        if wrong:
            raise ValueError(f"`limbs` should join keypoints from 0 to {count - 1}. Found {wrong[0]}.")

    def colour(self, *joints: int, other: str = MIDDLE) -> str:
        """The colour of a keypoint, or of a limb between two. A limb between the two sides (the hips) belongs to neither."""
        of_left, of_right = (any(j in side for j in joints) for side in (self.left, self.right))
        return other if of_left == of_right else LEFT if of_left else RIGHT

    def handles(self, *, hidden: bool) -> list[Any]:
        """What a legend says about them. `hidden`: whether some are not visible."""
        from matplotlib.lines import Line2D

        found = []
        if self.left or self.right:
            found += [Line2D([], [], color=LEFT, marker="o", markersize=4, label="left")]
            found += [Line2D([], [], color=RIGHT, marker="o", markersize=4, label="right")]
        if hidden:
            found += [Line2D([], [], color=FAINT, marker="o", markersize=5, mfc="none", ls="", label="not visible")]
        return found


def colour_of(number: int) -> str:
    """The colour of a class or an object."""
    return CLASSES[number % len(CLASSES)]


def draw_points(axis: Axes, points: Tensor, visible: Tensor, joints: Joints, other: str = MIDDLE) -> None:
    """Draws the keypoints [K, 2 or 3] of one person. Those that are not visible, [K] bool, stay hollow."""
    xy = points[:, :2].numpy()
    for a, b in joints.limbs:
        if visible[a] and visible[b]:
            axis.plot(xy[[a, b], 0], xy[[a, b], 1], color=joints.colour(a, b, other=other), lw=1.3, zorder=2)
    for j, is_visible in enumerate(visible.tolist()):
        if not np.isfinite(xy[j]).all():
            continue
        colour = joints.colour(j, other=other)
        look: dict[str, Any] = {"s": 9, "facecolors": colour, "edgecolors": "black", "linewidths": 0.4}
        if not is_visible:
            look = {"s": 11, "facecolors": "none", "edgecolors": colour, "linewidths": 0.9, "path_effects": _outlined(1.7)}
        axis.scatter(*xy[j], zorder=3, **look)
        if joints.numbers:
            axis.annotate(
                str(j),
                xy[j],
                (2, 1.5),
                textcoords="offset points",
                fontsize=5,
                color="white",
                zorder=4,
                path_effects=_outlined(1.2),
                annotation_clip=True,
                clip_on=True,
            )


def draw_boxes(axis: Axes, boxes: Tensor, texts: Sequence[str], colours: Sequence[str]) -> None:
    """Draws boxes [N, 4] by their edges, x1, y1, x2, y2, with a text inside each. Boxes without area are left out."""
    from matplotlib.patches import Rectangle

    for (x1, y1, x2, y2), text, colour in zip(boxes.tolist(), texts, colours, strict=True):
        if not (x2 > x1 and y2 > y1):
            continue
        corner = (x1 - 0.5, y1 - 0.5)  # edges count from the outer corner of the first pixel, pictures from its middle
        box = Rectangle(corner, x2 - x1, y2 - y1, fill=False, edgecolor=colour, lw=1.1, zorder=2, path_effects=_outlined(1.9))
        axis.add_patch(box)
        if text:
            axis.annotate(
                text,
                corner,
                (2, -2),
                textcoords="offset points",
                va="top",
                fontsize=5.5,
                color="black",
                bbox={"facecolor": colour, "edgecolor": "none", "pad": 0.8, "alpha": 0.85},
                zorder=4,
                clip_on=True,
            )


def draw_mask(axis: Axes, mask: Tensor, size: Size, ignored: float) -> None:
    """Draws a mask over an image: class numbers [h, w], of which 0 stays clear and `ignored` is grey, or objects [N, h, w]."""
    from matplotlib.colors import to_rgba

    mask = mask[0] if mask.ndim == 3 and len(mask) == 1 else mask
    if mask.ndim == 3:
        over = mask.float() > 0.5
        numbers = torch.where(over.any(0), len(over) - over.flip(0).long().argmax(0), 0)  # the last object lies on top
    else:
        numbers = mask.float().round().long()
    coloured = np.zeros((*numbers.shape, 4), np.float32)
    for number in numbers.unique().tolist():
        if number != 0:
            grey = mask.ndim == 2 and (number < 0 or (ignored != 0 and number == round(ignored)))
            coloured[(numbers == number).numpy()] = (0.3, 0.3, 0.3, 0.75) if grey else to_rgba(colour_of(number - 1), 0.5)
    axis.imshow(coloured, extent=_extent(size), interpolation="nearest", zorder=1)


def draw_heat(axis: Axes, maps: Tensor, size: Size) -> None:
    """Draws the largest value of maps [..., h, w] at each place over an image. 0 stays clear."""
    from matplotlib import colormaps

    heat = maps.reshape(-1, *maps.shape[-2:]).amax(0).float().nan_to_num().clamp(min=0)
    heat = heat / heat.max().clamp(min=1e-6)
    coloured = colormaps["plasma"](0.3 + 0.7 * heat.numpy())
    coloured[..., 3] = 0.75 * heat.numpy()
    axis.imshow(coloured, extent=_extent(size), interpolation="nearest", zorder=1.2)


def draw_cells(axis: Axes, view: View, row: int, size: Size) -> None:
    """Hatches the cells that a view hides from the network."""
    from matplotlib.patches import Rectangle

    for mask in view.masks.values():
        cells = mask[row, 0].detach().cpu()
        height, width = size[0] / cells.shape[0], size[1] / cells.shape[1]
        for r, c in torch.nonzero(cells < 0.5).tolist():
            corner = (c * width - 0.5, r * height - 0.5)
            coarse = cells.shape[0] <= 8  # in finer cells, outlines would cover everything
            look = {"lw": 0.6, "hatch": "////"} if coarse else {"lw": 0}
            axis.add_patch(Rectangle(corner, width, height, facecolor="#00000088", edgecolor="white", zorder=1.5, **look))


def _extent(size: Size) -> tuple[float, float, float, float]:
    """Where the edges of a map lie, which are those of the image at any stride."""
    return (-0.5, size[1] - 0.5, size[0] - 0.5, -0.5)


def _outlined(width: float) -> list[Any]:
    """A dark line around a mark, so that it shows on every image."""
    from matplotlib.patheffects import withStroke

    return [withStroke(linewidth=width, foreground="#000000aa")]

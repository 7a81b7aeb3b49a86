"""The views of a batch."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from adaug._batches.batch import UserBatch
from adaug._batches.kinds import Key, Target
from adaug._batches.parse import parse
from adaug._runtime.geometry import inside
from adaug._views.view import View
from adaug.keypoints import Pairs
from adaug.plots._grid import grid, pictures, show
from adaug.plots._labels import Joints, draw_cells, draw_points

__all__ = ["draw_views"]

if TYPE_CHECKING:
    from matplotlib.figure import Figure


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

    Keypoints that are not visible are hollow. Images with values outside [0, 1] are rescaled to [0, 1].

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
    from matplotlib.patches import Patch

    parsed = parse(batch, targets)
    count = min(len(parsed), most)
    if titles is not None and len(titles) < count:
        raise ValueError(f"`titles` should have a text for each of {count} images. Found {len(titles)}.")
    known, joints = parsed.labelled_keypoints(), Joints(limbs, left, right)
    handles: list[Any] = []
    if known is not None:
        points, visible = known[0].detach().float().cpu().flatten(1, -2), known[1].cpu().flatten(1)
        joints.check(points.shape[1])
        handles = joints.handles(hidden=bool((~visible & inside(points[..., :2], parsed.size))[:count].any()))
    if view is not None and view.masks:
        handles += [Patch(facecolor="#00000088", edgecolor="white", hatch="////", label="hidden from the network")]
    texts = [""] * count if titles is None else list(titles[:count])
    figure, axes = grid(texts, columns, side=1.75, title=title, legend=handles)
    for i, (axis, picture) in enumerate(zip(axes, pictures(list(parsed.image[:count]), together=False), strict=True)):
        show(axis, picture)
        if view is not None:
            draw_cells(axis, view, i, parsed.size)
        if known is not None:
            draw_points(axis, points[i], visible[i], joints)
    return figure

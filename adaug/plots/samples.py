"""A preview: some images of a data set, a loader or a batch, with their labels drawn upon them."""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from adaug._batches.batch import Batch
from adaug._batches.kinds import REST, TARGETS, Target
from adaug._batches.names import guess
from adaug._batches.samples.forms import is_number
from adaug._batches.tree import has_names, has_rows, key_of, leaves
from adaug._runtime.checks import checked, instance, integer, several
from adaug._runtime.geometry import inside
from adaug._views.view import View
from adaug.augment import Augment
from adaug.augmenter import AdversarialAugmenter
from adaug.keypoints import Pairs, labelled
from adaug.plots._grid import grid, pictures, show
from adaug.plots._labels import MIDDLE, Joints, colour_of, draw_boxes, draw_heat, draw_mask, draw_points
from adaug.plots._moving import kept, mover
from adaug.plots._rows import Row, items_of, rows_of
from adaug.policies import Policy

__all__ = ["samples"]

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RULES = {
    "n": integer(at_least=1),
    "columns": integer(at_least=1),
    "seed": integer(),
    "classes": several(instance(str, ""), "a list of the names of classes"),
    "targets": TARGETS,
    "rest": REST,
}
WIDTH = 36  # letters above an image
SPACE = "\N{NO-BREAK SPACE}"  # where no line ends
Points = list[tuple[Tensor, Tensor]]  # (keypoints [K, 2 or 3] in pixels, which are visible [K]) of each person


def samples(
    data: Any,
    n: int = 16,
    *,
    augment: Policy | Augment | AdversarialAugmenter | None = None,
    targets: Mapping[Any, str | Target] | None = None,
    rest: str | None = None,
    classes: Sequence[str] = (),
    limbs: Pairs = (),
    left: Collection[int] = (),
    right: Collection[int] = (),
    numbers: bool = False,
    columns: int = 4,
    title: str | None = None,
    seed: int = 0,
) -> Figure:
    """Draws images with their labels upon them, to see whether labels fit and views are what you want.

        adaug.plots.samples(dataset).savefig("samples.png")
        adaug.plots.samples(loader, augment=adaug.policies.trivial(flip_pairs=PAIRS))

    Class labels stand above the images, and then what the view does. Keypoints are dots, hollow if they are not visible. Masks
    are coloured by class or object, and grey where they are filled or negative. Of heat maps and densities you see the largest
    at each place. Vectors and values without a place are not drawn.

    Images in [0, 1] and integers look as they are. If others are among them, all are rescaled alike, from the smallest of
    [-1, 1], [-2.2, 2.7] (ImageNet's normalization) and [0, 255] that holds them, or else from their own range.

    Nothing changes that training will draw: random states, loaders, Augments and the augmenter stay as they were. Only an
    iterator loses the batches that it gave.

    Args:
        data: A batch, a sample, a DataLoader, any iterable of batches or samples, or a data set, of which samples are spread
            over the whole. Images may also be arrays, channels first or last, or PIL pictures.
        n: The largest number of images.
        augment: What draws views: a policy, an Augment, or the augmenter of a training, as it draws now. If that needs the
            model to draw, all bins are equally likely. By default images are shown as they come.
        targets: Key or position -> kind, for entries whose name does not tell their kind. By default those of `augment`.
        rest: "other" leaves tensors as they are if neither `targets` nor their names tell their kind.
        classes: The names of class 0, 1, 2 and so on.
        limbs: Pairs of keypoints to join by a line.
        left: Keypoints of the left side. They and their limbs get a colour of their own.
        right: Keypoints of the right side, likewise.
        numbers: Whether each keypoint's number stands beside it.
        columns: The number of images in a line.
        title: The title of the whole figure.
        seed: The seed of what is drawn, also by a data set that draws from torch's random state.

    Raises:
        TypeError: `data` or `augment` is something else.
        ValueError: There is no image, or an entry does not fit.
    """
    if targets is None and rest is None and isinstance(augment, (Augment, AdversarialAugmenter)):
        targets, rest = augment.targets, augment.rest
    arguments = {"n": n, "columns": columns, "seed": seed, "targets": targets, "rest": rest, "classes": classes}
    given = checked(arguments, RULES)
    known = given["targets"] or {}
    move = mover(augment, targets, rest, seed)
    rows: list[Row] = []
    with kept(data, augment, seed):
        for item in items_of(data, known, n):
            for row in rows_of(*move(item), known, rest):
                rows.append(row)
                if len(rows) == n:
                    break
            if len(rows) == n:
                break
    if not rows:
        raise ValueError(f"`data` should hold at least one image. Found none in {type(data).__name__}; pass a batch or a list.")
    return _drawn(rows, given["classes"], Joints(limbs, left, right, numbers), columns, title)


def _drawn(rows: Sequence[Row], classes: Sequence[str], joints: Joints, columns: int, title: str | None) -> Figure:
    people = [_people(row.batch) for row in rows]
    for points, _ in (person for of_row in people for person in of_row):
        joints.check(len(points))
    hidden = any(
        bool((~visible & inside(points[:, :2], row.batch.size)).any())
        for row, of_row in zip(rows, people, strict=True)
        for points, visible in of_row
    )
    texts = [_text(row, classes) for row in rows]
    shapes = sorted(row.batch.size[0] / row.batch.size[1] for row in rows)
    shape = min(max(shapes[len(shapes) // 2], 0.5), 2.0)
    figure, axes = grid(texts, columns, side=2.2, shape=shape, title=title, legend=joints.handles(hidden=hidden))
    shown = pictures([row.batch.image[0] for row in rows], together=True)
    for axis, row, picture, of_row in zip(axes, rows, shown, people, strict=True):
        show(axis, picture)
        _draw_areas(axis, row.batch, classes)
        for i, (points, visible) in enumerate(of_row):
            draw_points(axis, points, visible, joints, MIDDLE if len(of_row) == 1 else colour_of(i))
    return figure


def _draw_areas(axis: Any, batch: Batch, classes: Sequence[str]) -> None:
    """Draws masks, heat maps and boxes of one image."""
    for key in batch.keys_of("mask"):
        draw_mask(axis, _of_one(batch, key), batch.size, batch.kinds[key].fill)
    for key in (*batch.keys_of("heatmaps"), *batch.keys_of("density")):
        draw_heat(axis, _of_one(batch, key), batch.size)
    for key in batch.keys_of("boxes"):
        boxes = _of_one(batch, key).float().reshape(-1, 4)
        found = next((numbers for numbers in map(_numbers, _labels(batch)) if len(numbers or ()) == len(boxes)), None)
        texts = [""] * len(boxes) if found is None else [_name(number, classes) for number in found]
        draw_boxes(axis, boxes, texts, [colour_of(number) for number in found or range(len(boxes))])


def _of_one(batch: Batch, key: Any) -> Tensor:
    """An entry of a batch of one image, without the dimension of the batch. Objects of all images are those of this one."""
    entry = batch.in_pixels(key).detach().cpu()
    return entry if batch.kinds[key].rows is not None else entry[0]


def _people(batch: Batch) -> Points:
    """The keypoints of each person in a batch of one image."""
    found: Points = []
    given = [_of_one(batch, key) for key in batch.keys_of("visibility")]
    for key in batch.keys_of("keypoints"):
        points = _of_one(batch, key).float()
        visible = labelled(points, given[0] if given else None)
        found += list(zip(points.reshape(-1, *points.shape[-2:]), visible.reshape(-1, visible.shape[-1]), strict=True))
    return found


# ---- texts


def _text(row: Row, classes: Sequence[str]) -> str:
    """What stands above an image: its labels, then what its view does."""
    boxes = sum(_of_one(row.batch, key).reshape(-1, 4).shape[0] for key in row.batch.keys_of("boxes"))
    labels = [text for value in _labels(row.batch) if (text := _label(value, classes, boxes))]
    parts = [", ".join(labels), _view(row.view)]
    return "\n".join(line for part in parts if part for line in textwrap.wrap(part, WIDTH)[:3])


def _labels(batch: Batch) -> list[Any]:
    """The labels of one image. Beside an image at position 0, numbers and texts are labels too."""
    found = []
    tops = {key: entry for key, entry in batch.entries.items() if not isinstance(key, tuple) or key in batch.source}
    for path, leaf in leaves(tops, opens=has_names):
        key = key_of(path)
        kind = batch.kinds.get(key) or guess(path, leaf)
        if kind is not None and kind.kind == "label":
            entry = batch.entries.get(key, leaf)
            found.append(entry[0] if kind.rows is None and has_rows(entry, 1) else entry)
        elif isinstance(key, int) and (is_number(leaf) or isinstance(leaf, str)):
            found.append(leaf)
    return found


def _numbers(value: Any) -> list[int] | None:
    """The class numbers of several objects. None if a label is something else."""
    integers = isinstance(value, Tensor) and value.ndim == 1 and not value.is_floating_point() and value.dtype != torch.bool
    return value.tolist() if integers else None


def _label(value: Any, classes: Sequence[str], boxes: int) -> str:
    """A label as a text. "" if it belongs to boxes, or is too long for one."""
    if isinstance(value, str):
        return value
    try:
        value = torch.as_tensor(value).detach().cpu()
    except (TypeError, ValueError, RuntimeError):
        return ""
    if value.ndim and boxes and len(value) == boxes:
        return ""
    value = value.squeeze()
    if value.ndim == 0:
        return f"{float(value):.3g}" if value.is_floating_point() else _name(int(value), classes)
    numbers = _numbers(value)
    if value.ndim > 1 or len(value) > 100:
        return ""
    if numbers is not None and not set(numbers) <= {0, 1}:
        return ", ".join(_name(number, classes) for number in numbers)
    some = [(i, float(share)) for i, share in enumerate(value.tolist()) if share]  # one-hot, several, or mixed
    return ", ".join(_name(i, classes) + (f"{SPACE}{share:.2f}" if share != 1 else "") for i, share in some)


def _name(number: int, classes: Sequence[str]) -> str:
    return classes[number] if 0 <= number < len(classes) else str(number)


def _view(view: View | None) -> str:
    """What a view of one row does, without what changes nothing."""
    if view is None:
        return ""
    parts = ["mirrored"] if view.flipped is not None and bool(view.flipped[0]) else []
    for name, operation in view.operations.items():
        magnitude = view.magnitudes[name]
        label = operation.label(magnitude[0].cpu())
        matrix = operation.matrix(magnitude.cpu(), (2, 2)) if operation.moves else None
        at_rest = magnitude.ndim == 1 and getattr(operation, "rest", None) == float(magnitude[0])
        still = at_rest if matrix is None else bool(torch.allclose(matrix[0], torch.eye(3), atol=1e-6))
        if label and not still:
            parts.append(f"{operation.name.replace('_', ' ')} {label}")
    return ", ".join(part.replace(" ", SPACE) for part in parts)

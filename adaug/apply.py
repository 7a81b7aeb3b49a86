"""Applies operations by given magnitudes, or repeats a view, on a batch and its labels. And leads predictions back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from adaug._batches.batch import Batch, UserBatch
from adaug._batches.fits import check_operations, check_values
from adaug._batches.kinds import REST, Target
from adaug._batches.parse import parse
from adaug._batches.samples.apart import read
from adaug._batches.tree import has_rows, replace
from adaug._runtime.checks import checked
from adaug._runtime.geometry import Size, as_size
from adaug._views.view import View, concatenate, make_view
from adaug.operations import Operation

__all__ = ["apply_view", "unapply_view"]


def apply_view(
    batch: UserBatch,
    view: View | Sequence[tuple[Operation, Any]],
    *,
    targets: Mapping[Any, str | Target] | None = None,
    rest: str | None = None,
    output_size: Size | int | None = None,
) -> UserBatch:
    """Applies a view to a batch and to the labels that belong to its pixels. It needs no model and draws nothing.

        turned = adaug.apply_view(batch, [(adaug.Rotate(-60, 60, 9), 45.0), (adaug.OccludeImage((4, 4)), [5, 6])])
        again = adaug.apply_view(batch, result.view)  # what a step did

    Args:
        batch: A mapping or a tuple of tensors. It stays as it is.
        view: A View, or pairs (operation, magnitude) in the order in which they apply. A magnitude is a number, or [B] for one
            in each row, and may lie outside the operation's range. For cells it is the number of a cell, several, or [B, s].
            Cells are counted from 0, line by line.
        targets: Key or position in the batch -> kind, for entries whose name does not tell their kind.
        rest: "other" leaves tensors as they are if neither `targets` nor their names tell their kind.
        output_size: (height, width) of the view, cut from the middle. By default that of a View, or else that of the images.

    Returns:
        The batch, structured like the one that you passed.

    Raises:
        TypeError: An operation hides cells of features, which needs a network.
        ValueError: A magnitude, a cell or an entry does not fit.
    """
    parsed = read(batch, targets, checked({"rest": rest}, {"rest": REST})["rest"])
    view_size = as_size(output_size)
    for part in parsed.parts:
        check_values(part)
    if isinstance(view, View):
        made = view.size if view.matrix is not None and not view.sizes_differ else None
        return parsed.apply(view, view_size or cast("Size | None", made)).to_user()
    views = [view_of(part, rows, view_size or part.size) for part, rows in zip(parsed.parts, _dealt(view, parsed), strict=True)]
    return parsed.apply(concatenate(views, [len(part) for part in parsed.parts]), view_size).to_user()


def unapply_view(
    entries: UserBatch,
    view: View | Sequence[View],
    *,
    targets: Mapping[Any, str | Target] | None = None,
    rest: str | None = None,
) -> UserBatch:
    """Leads labels and predictions from a view back to the image as it was, for metrics there and for test-time averaging.

        batch, view = augment(batch, view=True)
        points = adaug.unapply_view({"keypoints": model(batch["image"])}, view)["keypoints"]

    Left and right change places again in mirrored rows. What leaves the image keeps its confidence. A box becomes the box
    around its corners. Maps get their fill (0 by default) where the view did not show the image. Gradients flow through it.

    Args:
        entries: A mapping or a tuple like a batch, with or without images. It stays as it is. With a list of views, a list with
            a mapping for each row, as detectors return it.
        view: The view: `augmenter.view`, or what `Augment` returns beside the batch.
        targets: Key or position -> kind, for entries whose name does not tell their kind. Logits of classes that have no left
            and right are adaug.Target("heatmaps", pairs=()).
        rest: "other" leaves tensors as they are if neither `targets` nor their names tell their kind.

    Returns:
        The entries in the image's pixels, structured like those that you passed.

    Raises:
        TypeError: The view is none.
        ValueError: The view says no sizes, has other rows, or an entry does not fit it.
    """
    rest = checked({"rest": rest}, {"rest": REST})["rest"]
    if isinstance(view, View) and view.sizes_differ:
        if not isinstance(entries, (list, tuple)) or not all(isinstance(row, Mapping) for row in entries):
            raise ValueError(
                "A view of images of different sizes should come with a list that holds a mapping for each image. Found "
                f"{type(entries).__name__} of other entries; pass [{{'boxes': ...}}, ...]."
            )
        view = view.each(len(entries))
    if isinstance(view, (list, tuple)) and all(isinstance(one, View) for one in view):
        if not isinstance(entries, (list, tuple)) or len(entries) != len(view):
            found = f"{len(entries)}" if isinstance(entries, (list, tuple)) else type(entries).__name__
            raise ValueError(f"A list of views should come with a list of as many rows, {len(view)}. Found {found}.")
        each = zip(entries, view, strict=True)
        return type(entries)([unapply_view([row], one, targets=targets, rest=rest)[0] for row, one in each])
    if not isinstance(view, View):
        raise TypeError(
            f"`view` should be a View, such as augmenter.view. Found {type(view).__name__}; "
            "Augment(...)(batch, view=True) returns the view beside the batch."
        )
    if view.matrix is None:
        return replace(entries, {}, copies=True)
    if view.size is None or view.canvas is None:
        raise ValueError("A view that is undone should know its sizes. Found a View without; pass canvas= and size= to View.")
    parsed = parse(entries, targets, rest, stand_in=view.matrix.new_empty(len(view.matrix), 0, *view.size))
    check_values(parsed)
    return parsed.apply(view.inverse(), cast(Size, view.canvas), back=True).to_user()


def view_of(batch: Batch, pairs: Sequence[tuple[Operation, Any]], view_size: Size) -> View:
    """The view that applies these operations by these magnitudes, in this order."""
    n, device = len(batch), batch.image.device
    pairs = [_checked(pair) for pair in pairs]
    check_operations(batch, [operation for operation, _ in pairs])
    drawn = [(f"{i}.{op.name}", op, op.at(magnitude, n, device)) for i, (op, magnitude) in enumerate(pairs)]
    return make_view(drawn, n, batch.size, view_size, device=device)


def _dealt(pairs: Sequence[tuple[Operation, Any]], batch: Batch) -> list[Sequence[tuple[Operation, Any]]]:
    """The pairs for each part of a batch. A magnitude for each row goes to its row."""
    if len(batch.parts) == 1:
        return [pairs]

    def of_row(operation: Operation, magnitude: Any, i: int) -> Any:
        cells = operation.hides is not None and getattr(magnitude, "ndim", 1) == 1  # several cells of every row
        return magnitude[i : i + 1] if has_rows(magnitude, len(batch)) and not cells else magnitude

    pairs = [_checked(pair) for pair in pairs]
    return [[(operation, of_row(operation, magnitude, i)) for operation, magnitude in pairs] for i in range(len(batch))]


def _checked(pair: Any) -> tuple[Operation, Any]:
    if not isinstance(pair, (tuple, list)) or len(pair) != 2 or not isinstance(pair[0], Operation):
        raise TypeError(f"`view` should be a View, or pairs of an operation and its magnitude. Found {pair!r}.")
    if pair[0].hides == "features":
        raise TypeError(
            f"`view` should change only the batch. Found {type(pair[0]).__name__}, whose masks need a network; "
            "use OccludeImage of the same grid."
        )
    return pair[0], pair[1]

"""Applies operations by given magnitudes, or repeats a view, on a batch and its labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from adaug._batches.batch import Batch, UserBatch
from adaug._batches.fits import check_operations, check_values
from adaug._batches.kinds import REST, Target
from adaug._batches.parse import parse
from adaug._runtime.checks import checked
from adaug._runtime.geometry import Size, as_size
from adaug._views.view import View, make_view
from adaug.operations import Operation

__all__ = ["apply_view"]


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
    parsed = parse(batch, targets, checked({"rest": rest}, {"rest": REST})["rest"])
    made = view.size if isinstance(view, View) and view.matrix is not None else None
    view_size = as_size(output_size) or made or parsed.size
    check_values(parsed)
    if not isinstance(view, View):
        view = view_of(parsed, view, view_size)
    return parsed.apply(view, view_size).to_user()


def view_of(batch: Batch, pairs: Sequence[tuple[Operation, Any]], view_size: Size) -> View:
    """The view that applies these operations by these magnitudes, in this order."""
    n, device = len(batch), batch.image.device
    pairs = [_checked(pair) for pair in pairs]
    check_operations(batch, [operation for operation, _ in pairs])
    drawn = [(f"{i}.{op.name}", op, op.at(magnitude, n, device)) for i, (op, magnitude) in enumerate(pairs)]
    return make_view(drawn, n, batch.size, view_size, device=device)


def _checked(pair: Any) -> tuple[Operation, Any]:
    if not isinstance(pair, (tuple, list)) or len(pair) != 2 or not isinstance(pair[0], Operation):
        raise TypeError(f"`view` should be a View, or pairs of an operation and its magnitude. Found {pair!r}.")
    if pair[0].hides == "features":
        raise TypeError(
            f"`view` should change only the batch. Found {type(pair[0]).__name__}, whose masks need a network; "
            "use OccludeImage of the same grid."
        )
    return pair[0], pair[1]

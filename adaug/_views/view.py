"""A view: how the model sees each row. One matrix, so that pixels are interpolated once; colours; hidden cells."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TypeGuard, cast

import torch
from torch import Tensor

from adaug._runtime.constants import constant
from adaug._runtime.geometry import Size, centred, full_precision, mirror, product
from adaug._runtime.random import Stream
from adaug.keypoints import Pairs
from adaug.operations import Operation

Sizes = tuple[Size, ...]  # one for each row


@dataclass(frozen=True)
class View:
    """The view of n rows: everything that was drawn for them. `adaug.apply_view` applies it, as often as you like.

    A part that changes nothing is None or empty, and costs nothing.

    Attributes:
        matrix: [n, 3, 3], from pixels of the image to pixels of the view.
        flipped: [n] bool, the rows that are mirrored.
        pairs: Keypoints that change places in a mirrored row.
        operations: "branch.operation" -> the operation.
        magnitudes: "branch.operation" -> its magnitude in each row: numbers [n], or masks [n, ...] (1 keeps, 0 hides).
        canvas: The size (h, w) of the images that it is for. None means any size. Of images of different sizes, that of each.
        size: The size of the images that it makes. Also that of each.
        perspective: Whether the last row of a matrix is not 0 0 1. None: its values tell, which waits for a GPU.
    """

    matrix: Tensor | None = None
    flipped: Tensor | None = None
    pairs: Pairs | None = None
    operations: Mapping[str, Operation] = field(default_factory=dict)
    magnitudes: Mapping[str, Tensor] = field(default_factory=dict)
    canvas: Size | Sizes | None = None
    size: Size | Sizes | None = None
    perspective: bool | None = None

    def check(self, n: int, canvas: Size, view_size: Size) -> None:
        """Raises ValueError if the view was made for other rows, for images of another size, or for another view size."""
        self.check_rows(n)
        if self.matrix is None:
            return
        if self.canvas is not None and self.canvas != canvas:
            raise ValueError(
                f"A view should be applied to images of the size that it was made for, {self.canvas}. Found {canvas}; apply it "
                "to the batch that it was drawn for."
            )
        if self.size is not None and self.size != view_size:
            raise ValueError(
                f"A view should make images of the size that it was made for, {self.size}. Found {view_size}; pass "
                f"output_size={self.size}, or leave it out."
            )

    def check_rows(self, n: int) -> None:
        """Raises ValueError if the view was made for other rows."""
        rows = [len(part) for part in (self.matrix, self.flipped, *self.magnitudes.values()) if part is not None]
        if rows and rows[0] != n:
            raise ValueError(
                f"A view should be applied to as many rows as it was made for, {rows[0]}. Found {n}; apply it to the batch "
                "that it was drawn for, or pick its rows with view.select(index)."
            )

    def select(self, index: Tensor) -> View:
        """The view of some rows only, `index` [m] long."""
        return replace(
            self,
            matrix=None if self.matrix is None else self.matrix[index],
            flipped=None if self.flipped is None else self.flipped[index],
            magnitudes={name: magnitude[index] for name, magnitude in self.magnitudes.items()},
            canvas=_picked(self.canvas, index),
            size=_picked(self.size, index),
        )

    def each(self, n: int) -> list[View]:
        """A view for each of n rows, which knows the size of its own image. Raises ValueError if it has other rows."""
        self.check_rows(n)
        rows = [self.select(torch.tensor([i])) for i in range(n)]
        return [replace(row, canvas=_one(row.canvas), size=_one(row.size)) for row in rows]

    @property
    def sizes_differ(self) -> bool:
        """Whether it is for images of different sizes."""
        return _is_sizes(self.canvas) or _is_sizes(self.size)

    def inverse(self) -> View:
        """The view that leads back, from pixels of the view to pixels of the image. Colours and hidden cells stay lost."""
        matrix = None if self.matrix is None else torch.linalg.inv(self.matrix)
        return replace(self, matrix=matrix, operations={}, magnitudes={}, canvas=self.size, size=self.canvas)

    @property
    def masks(self) -> dict[str, Tensor]:
        """The masks that hide cells of the image or of features: "branch.operation" -> [n, ...]."""
        return {name: self.magnitudes[name] for name, operation in self.operations.items() if operation.hides}

    @property
    def feature_masks(self) -> list[tuple[Operation, Tensor]]:
        """The operations whose masks multiply features of the network, not the image."""
        hiding = [(name, operation) for name, operation in self.operations.items() if operation.hides == "features"]
        return [(operation, self.magnitudes[name]) for name, operation in hiding]

    @property
    def divides(self) -> bool:
        """Whether its matrices are those of a perspective."""
        if self.perspective is not None:
            return self.perspective
        return self.matrix is not None and bool((self.matrix[:, 2] != constant((0.0, 0.0, 1.0), self.matrix)).any())

    def paint(self, image: Tensor, colours: int | None = None) -> Tensor:
        """Changes colours, then hides cells, of images [n, C, H, W] that the matrix has moved already. Keeps the dtype.

        Operations on colours change the first `colours` channels, by default all.
        """
        for name, operation in sorted(self.operations.items(), key=lambda item: item[1].hides is not None):
            magnitude = self.magnitudes[name]
            if operation.of_colours and colours is not None and colours < image.shape[1]:
                changed = operation.apply(image[:, :colours], magnitude).to(image.dtype)
                image = torch.cat([changed, image[:, colours:]], 1)
            else:
                image = operation.apply(image, magnitude).to(image.dtype)
        return image


def _matrix(view: View, n: int, like: Tensor) -> Tensor:
    return torch.eye(3, device=like.device).expand(n, 3, 3) if view.matrix is None else view.matrix


def _is_sizes(size: Size | Sizes | None) -> TypeGuard[Sizes]:
    return size is not None and isinstance(size[0], tuple)


def _picked(size: Size | Sizes | None, index: Tensor) -> Size | Sizes | None:
    return tuple(size[i] for i in index.tolist()) if _is_sizes(size) else size


def _one(size: Size | Sizes | None) -> Size | None:
    return size[0] if _is_sizes(size) else cast("Size | None", size)


def _joined(sizes: Sequence[Size | Sizes | None]) -> Size | Sizes | None:
    """The size of all views of one row, or that of each."""
    return sizes[0] if len(set(sizes)) == 1 else cast(Sizes, tuple(sizes))


def make_view(
    drawn: Iterable[tuple[str, Operation, Tensor]],
    n: int,
    canvas: Size,
    view_size: Size,
    *,
    last: Collection[str] = (),
    flipped: Tensor | None = None,
    pairs: Pairs | None = None,
    device: torch.device | None = None,
) -> View:
    """Makes the view of n rows that applies operations by given magnitudes. Nothing is drawn here.

    Args:
        drawn: (name, operation, magnitude) in the order in which they are applied, after the flip.
        n: The number of rows.
        canvas: The size of the images.
        view_size: The size of the view, cut from the middle of the canvas.
        last: Names of operations that move pixels after all others.
        flipped: [n] bool, the rows that are mirrored.
        pairs: Keypoints that change places in a mirrored row.
        device: The device of a matrix that only cuts the view from the canvas.
    """
    drawn = list(drawn)
    with full_precision(device):
        matrix = None if flipped is None else mirror(flipped)
        for _, operation, magnitude in sorted(drawn, key=lambda item: item[0] in last):
            step = operation.matrix(magnitude, view_size)
            if step is not None:
                matrix = step if matrix is None else product(step, matrix)
        if matrix is None and canvas != view_size:
            matrix = torch.eye(3, device=device).expand(n, 3, 3)
        matrix = None if matrix is None else centred(matrix, canvas, view_size)
        perspective = any(divides(operation, view_size) for _, operation, _ in drawn if operation.moves)
    return View(
        matrix=matrix,
        flipped=flipped,
        pairs=pairs,
        operations={name: operation for name, operation, _ in drawn},
        magnitudes={name: magnitude for name, _, magnitude in drawn},
        canvas=canvas,
        size=view_size,
        perspective=perspective,
    )


def divides(operation: Operation, size: Size) -> bool:
    """Whether an operation's matrices are those of a perspective. Its bins tell, on the CPU."""
    try:
        return _known_to_divide(operation, size)
    except TypeError:  # it cannot be hashed
        return _known_to_divide.__wrapped__(operation, size)


@lru_cache(maxsize=256)
def _known_to_divide(operation: Operation, size: Size) -> bool:
    with torch.device("cpu"), torch.no_grad():
        each = torch.arange(operation.bins)[:, None]
        matrix = operation.matrix(operation.draw(each, Stream(0)), size)  # magnitudes may be [n] or [n, ...]
    return matrix is not None and bool((matrix[:, 2] != constant((0.0, 0.0, 1.0), matrix)).any())


def concatenate(views: Sequence[View], sizes: Sequence[int]) -> View:
    """Joins the rows of several views of one policy."""
    operations = {name: operation for view in views for name, operation in view.operations.items()}

    def magnitudes(name: str) -> Tensor:
        like = next(view.magnitudes[name] for view in views if name in view.magnitudes)
        parts = [  # only masks can be missing: in these rows nothing is hidden
            view.magnitudes[name] if name in view.magnitudes else torch.ones(n, *like.shape[1:], device=like.device)
            for view, n in zip(views, sizes, strict=True)
        ]
        return torch.cat(parts)

    like = next((view.matrix for view in views if view.matrix is not None), None)
    matrices = [] if like is None else [_matrix(view, n, like) for view, n in zip(views, sizes, strict=True)]
    flips = [view.flipped for view in views if view.flipped is not None]
    return View(
        matrix=torch.cat(matrices) if matrices else None,
        flipped=torch.cat(flips) if flips else None,
        pairs=views[0].pairs,
        operations=operations,
        magnitudes={name: magnitudes(name) for name in operations},
        canvas=_joined([view.canvas for view in views]),
        size=_joined([view.size for view in views]),
        perspective=None if any(view.perspective is None for view in views) else any(view.perspective for view in views),
    )

"""The views of an audit: the image as it is, each bin alone, pairs of geometric bins, and joint draws."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from adaug._runtime.checks import Rule, as_text
from adaug._runtime.geometry import Size
from adaug._runtime.random import Stream
from adaug._views.view import View, make_view
from adaug.keypoints import Pairs
from adaug.operations import Operation
from adaug.policies import Policy

__all__ = ["AS_IT_IS", "DRAWS", "Axis"]

AS_IT_IS = "as it is"
DRAWS = "draws"
MIRRORED = "mirrored"
MOST_BINS = 7  # of an operation in a pair


@dataclass(frozen=True)
class Axis:
    """An operation as the axis of a curve or of a grid.

    Attributes:
        operation: The name of the operation.
        quantity: What its magnitude measures.
        labels: The text for each bin.
        centres: The magnitude (or the number of the cell) of each bin.
        layout: The number of bins, or (rows, columns) of cells.
    """

    operation: str
    quantity: str
    labels: tuple[str, ...]
    centres: tuple[float, ...]
    layout: int | tuple[int, int]

    @staticmethod
    def of(name: str, operation: Operation, bins: Sequence[int]) -> Axis:
        """The axis of some bins of an operation."""
        labels, centres = operation.labels(), operation.centres()
        layout = operation.layout if len(bins) == operation.bins else len(bins)
        return Axis(name, operation.quantity, tuple(labels[i] for i in bins), tuple(centres[i] for i in bins), layout)


@dataclass(frozen=True)
class Family:
    """Views of one kind: a curve (one axis), a grid (two), or views without an order (none).

    Attributes:
        name: Such as "rotate", "scale × rotate" or "draws".
        views: The name of each view.
        axes: The operations that change from view to view.
        done: Pairs (operation, its magnitude in each view: [V] or [V, ...]), in the order in which they are applied.
        mirrored: Which views are mirrored, [V] bool. None if no view is.
        details: What each view does, if its name does not tell.
    """

    name: str
    views: tuple[str, ...]
    axes: tuple[Axis, ...] = ()
    done: tuple[tuple[Operation, Tensor], ...] = ()
    mirrored: Tensor | None = None
    details: tuple[str, ...] = ()

    def view(
        self, numbers: Sequence[int], n: int, canvas: Size, view_size: Size, pairs: Pairs | None, device: torch.device
    ) -> View:
        """Makes the view of n rows under some of its views: all rows under the first, then all under the second, and so on."""

        def spread(value: Tensor) -> Tensor:
            return value[list(numbers)].repeat_interleave(n, 0).to(device, non_blocking=True)

        return make_view(
            [(f"{i}.{operation.name}", operation, spread(magnitude)) for i, (operation, magnitude) in enumerate(self.done)],
            n * len(numbers),
            canvas,
            view_size,
            flipped=None if self.mirrored is None else spread(self.mirrored),
            pairs=pairs,
            device=device,
        )

    def effect(self, number: int) -> tuple[Any, ...]:
        """What a view does, without what leaves an image as it is (a rotation by 0°). Views with equal effects are the same."""
        done = [(operation, magnitude[number]) for operation, magnitude in self.done]
        changes = [(operation, magnitude) for operation, magnitude in done if not _is_identity(operation, magnitude)]
        mirrored = self.mirrored is not None and bool(self.mirrored[number])
        return (mirrored, *((id(operation), magnitude.numpy().tobytes()) for operation, magnitude in changes))


def _is_identity(operation: Operation, magnitude: Tensor) -> bool:
    """Whether a magnitude of a geometric operation moves nothing."""
    matrix = operation.matrix(magnitude[None], (2, 2)) if operation.moves else None
    return matrix is not None and not operation.unit_range and bool(torch.equal(matrix[0], torch.eye(3)))


@dataclass(frozen=True)
class Plan:
    """All views of an audit.

    Attributes:
        families: The families of views. The first is the image as it is.
        pairs: Keypoints that change places in mirrored views. None if there are no mirrored views.
        operations: The operations by name.
    """

    families: tuple[Family, ...]
    pairs: Pairs | None
    operations: dict[str, Operation]

    @cached_property
    def first_like(self) -> dict[int, int]:
        """The number of each view -> that of the first view that does the same. A grid repeats parts of its curves."""
        seen: dict[Any, int] = {}
        effects = [family.effect(number) for family in self.families for number in range(len(family.views))]
        return {column: seen.setdefault(effect, column) for column, effect in enumerate(effects)}


def plan_of(views: Policy | Sequence[Operation], draws: int, seed: int, *, pairs: bool = True) -> Plan:
    """Plans the views of a policy or of operations. Masks on features become masks on the image."""
    flip = views.flip if isinstance(views, Policy) else None
    operations = _named(list(views.operations.items()) if isinstance(views, Policy) else _listed(views))
    families = [Family(AS_IT_IS, (AS_IT_IS,))]
    families += [_curve(name, operation) for name, operation in operations.items()]
    if flip is not None:
        families.append(Family(MIRRORED, (MIRRORED,), mirrored=torch.tensor([True])))
    geometric = [(name, operation) for name, operation in operations.items() if operation.moves]
    families += [_grid(one, other) for one, other in itertools.combinations(geometric, 2) if pairs]
    if draws and operations:
        families.append(_draws(operations, draws, seed, mirrors=flip is not None))
    return Plan(tuple(families), None if flip is None else flip.pairs, operations)


def _read_views(value: Any) -> Policy | tuple[Operation, ...]:
    if isinstance(value, Policy):
        return value
    if isinstance(value, Operation):
        return (value,)
    if isinstance(value, (str, type)) or not isinstance(value, Iterable) or getattr(value, "ndim", 1) == 0:
        raise TypeError
    operations = tuple(value)
    wrong = [operation for operation in operations if not isinstance(operation, Operation)]
    if wrong:
        raise TypeError(f"{as_text(wrong[0])} among them")
    return operations


VIEWS = Rule("a Policy, or operations such as adaug.Rotate", _read_views)


def _listed(operations: Sequence[Operation]) -> list[tuple[str, Operation]]:
    return [(f"{i}.{operation.name}", operation) for i, operation in enumerate(operations)]


def _named(operations: Sequence[tuple[str, Operation]]) -> dict[str, Operation]:
    """Operations by their own names, or by full names if several share one. Equal operations appear once."""
    different: dict[str, Operation] = {}
    for full, operation in operations:
        on_image = operation.on_image()
        if on_image not in different.values():
            different[full] = on_image
    names = [operation.name for operation in different.values()]
    return {full if names.count(op.name) > 1 else op.name: op for full, op in different.items()}


def _curve(name: str, operation: Operation) -> Family:
    axis = Axis.of(name, operation, range(operation.bins))
    magnitudes = torch.cat([operation.at(centre, 1) for centre in operation.centres()])
    return Family(name, tuple(f"{name} {label}" for label in axis.labels), (axis,), ((operation, magnitudes),))


def _grid(one: tuple[str, Operation], other: tuple[str, Operation]) -> Family:
    axes = tuple(Axis.of(name, operation, _thinned(operation.bins)) for name, operation in (one, other))
    corners = list(itertools.product(*(range(len(axis.labels)) for axis in axes)))
    done = tuple(
        (operation, torch.cat([operation.at(axis.centres[corner[i]], 1) for corner in corners]))
        for i, ((_, operation), axis) in enumerate(zip((one, other), axes, strict=True))
    )
    names = tuple(
        ", ".join(f"{axis.operation} {axis.labels[j]}" for axis, j in zip(axes, corner, strict=True)) for corner in corners
    )
    return Family(f"{one[0]} × {other[0]}", names, axes, done)


def _thinned(bins: int) -> list[int]:
    """At most MOST_BINS of the bins, evenly spaced, with the first and the last."""
    if bins <= MOST_BINS:
        return list(range(bins))
    return sorted({round(i * (bins - 1) / (MOST_BINS - 1)) for i in range(MOST_BINS)})


def _draws(operations: dict[str, Operation], draws: int, seed: int, *, mirrors: bool) -> Family:
    """Views in which every operation draws a bin uniformly. They are the same for all images and all models."""
    stream = Stream(seed)
    done = []
    for operation in operations.values():
        chosen = operation.choose(torch.zeros(draws, operation.bins), stream)
        done.append((operation, operation.draw(chosen, stream)))
    mirrored = stream.uniform(draws) < 0.5 if mirrors else None
    details = []
    for i in range(draws):
        parts = [f"{name} {op.label(magnitude[i])}" for name, (op, magnitude) in zip(operations, done, strict=True)]
        details.append(", ".join(parts + (["mirrored"] if mirrored is not None and mirrored[i] else [])))
    return Family(DRAWS, tuple(f"draw {i + 1}" for i in range(draws)), (), tuple(done), mirrored, tuple(details))

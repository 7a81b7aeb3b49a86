"""The table of difficulties that users read, and whether difficulty only follows an object's size."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from adaug.learners.running import RunningState
from adaug.operations import Operation

__all__ = ["DifficultyTable", "difficulty_table"]


@dataclass(frozen=True)
class DifficultyTable:
    """How hard a network finds each bin now, from its training passes.

    Attributes:
        columns: "branch.operation" -> lists [k], an entry for each of its k bins or cells: "bin" (its name), "difficulty",
            "error" (one standard error), "probability" (of being drawn; NaN where another learner draws), and "rows" (how many
            rows the difficulty comes from; older rows count for less).
        measure: What the difficulty measures, in words.
        notes: Warnings.
    """

    columns: Mapping[str, Mapping[str, list[Any]]]
    measure: str
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [f"difficulty: {self.measure}", *(f"note: {note}" for note in self.notes)]
        for name, table in self.columns.items():
            width = max(len(name), *map(len, table["bin"]))
            lines.append(f"{name:{width}s}  difficulty           drawn    rows")
            for label, value, error, drawn, rows in zip(*table.values(), strict=True):
                share = "   – " if math.isnan(drawn) else f"{100 * drawn:4.1f} "
                lines.append(f"{label:>{width}s}  {value:10.4g} ± {error:<7.2g} {share}% {rows:6.0f}")
        return "\n".join(lines)


def difficulty_table(states: Sequence[RunningState], measure: str, *, may_grow: bool) -> DifficultyTable:
    """The table of difficulties now. Waits for the device.

    Args:
        states: The states of running difficulty.
        measure: What the difficulty measures, in words.
        may_grow: Whether the measure may grow with an object's size.
    """
    columns: dict[str, dict[str, list[Any]]] = {}
    notes: list[str] = []
    for state in states:
        sums = state.sums + state.pending
        mean, effects, variances = state.columns.estimate(sums)
        difficulty, errors = (state.baseline + mean + effects).tolist(), variances.sqrt().tolist()
        rows, probabilities = sums.diagonal().tolist(), state.answer.probabilities.tolist()
        start = state.columns.shares
        for name, operation, drawn in zip(
            state.columns.operations, state.columns.operations.values(), probabilities, strict=True
        ):
            end = start + operation.bins
            if name in columns and name not in state.columns.own:
                start = end
                continue
            columns[name] = {
                "bin": operation.labels(),
                "difficulty": difficulty[start:end],
                "error": errors[start:end],
                "probability": drawn[: operation.bins] if name in state.columns.own else [math.nan] * operation.bins,
                "rows": rows[start:end],
            }
            start = end
            if may_grow and grows(columns[name]["difficulty"], columns[name]["error"], sizes_of(operation)):
                notes.append(
                    f"it grows with the object's size in {name}, so that a bin may lead by its size alone; if so, give "
                    "`difficulty` a measure that does not, such as adaug.keypoints.normalized_error."
                )
    return DifficultyTable(columns, measure, tuple(notes))


def sizes_of(operation: Operation) -> list[float]:
    """How large each bin shows an object, as a factor of its length."""
    at = torch.cat([operation.at(centre, 1) for centre in operation.centres()]) if operation.moves else torch.empty(0)
    matrix = operation.matrix(at, (64, 64)) if operation.moves else None
    return [1.0] * operation.bins if matrix is None else torch.linalg.det(matrix[:, :2, :2]).abs().sqrt().tolist()


def changes_size(sizes: Sequence[float]) -> bool:
    """Whether bins show an object at different sizes."""
    return max(sizes) > 1.01 * min(sizes)


def grows(difficulty: Sequence[float], errors: Sequence[float], sizes: Sequence[float]) -> bool:
    """Whether difficulty rises all the way with size, by more than chance."""
    if not changes_size(sizes):
        return False
    order = sorted(range(len(sizes)), key=lambda i: sizes[i])
    rises = sum(difficulty[b] > difficulty[a] for a, b in itertools.pairwise(order))
    first, last = order[0], order[-1]
    error = math.hypot(errors[first], errors[last])
    return rises >= len(sizes) - 2 and difficulty[last] - difficulty[first] > 3 * error

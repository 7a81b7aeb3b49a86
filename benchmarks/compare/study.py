"""A study: one question, as data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from benchmarks.compare import training

X = "as it is"
COMPARED = (X, "grid mean", "worst per image", "worst 10 %", "in every view")


@dataclass(frozen=True)
class Study:
    """Arms on one task, paired by their seeds.

    Attributes:
        name: Its name, and that of its results files.
        question: What it asks, in one line.
        task: (folder of the data, **sizes) -> the task.
        arms: The arms, by frozen dataclasses with a name. They are described by their fields.
        sizes: Arguments of `task`.
        seeds: So many seeds, from 0 up.
        run: (task, arm, seed, folder) -> the results of a run: "scores", "cpu_seconds", "about".
        against: Arms with which all others are compared.
        pairs: More comparisons: heading -> (arm, base).
        family: The family whose line the others are compared with, at equal score as it is. None means no such comparison.
        figure: What is drawn: "dots" of every seed, the "frontier" of two scores, or scores over the "time" of a run.
        learned: Whether to draw what the first run of running difficulty found hard, too.
        needs_data: Whether `task` needs a folder.
    """

    name: str
    question: str
    task: Callable[..., Any]
    arms: Sequence[Any]
    sizes: Mapping[str, Any] = field(default_factory=dict)
    seeds: int = 3
    run: Callable[[Any, Any, int, Path], dict[str, Any]] = training.run
    against: Sequence[str] = ()
    pairs: Mapping[str, Sequence[tuple[str, str]]] = field(default_factory=dict)
    family: str | None = None
    figure: Literal["dots", "frontier", "time"] = "dots"
    learned: bool = False
    needs_data: bool = True

    def __post_init__(self) -> None:
        names = [arm.name for arm in self.arms]
        if len(set(names)) != len(names):
            raise ValueError(f"The arms of a study should have names that differ. Found {names}.")
        named = {*self.against, *(name for pairs in self.pairs.values() for pair in pairs for name in pair)}
        if missing := named - set(names):
            raise ValueError(f"A study should compare arms that it has. Found {', '.join(sorted(missing))}.")

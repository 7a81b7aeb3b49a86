"""The policy: branches of operations, their shares of the mini-batch, and what happens to every row."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from adaug._runtime.checks import (
    Rule,
    Rules,
    check_fields,
    either,
    flag,
    function,
    instance,
    integer,
    number,
    one_of,
    optional,
    several,
    text,
)
from adaug._runtime.geometry import Size
from adaug._runtime.random import Stream, seeded
from adaug._runtime.repr import as_code, as_plain
from adaug._views.view import View, make_view
from adaug.keypoints import Pairs
from adaug.operations import Operation
from adaug.policies._functions import Function, check_functions, moves_by_class

__all__ = ["Branch", "Flip", "Policy", "Share"]

Share = float | Callable[[float], float]
Magnitudes = dict[str, Tensor]  # "branch.operation" -> its magnitude in each row; FLIP -> flipped [n] bool
RANDOM = "random"  # the share that no branch claims
FLIP = "common.flip"

SHARE = number(low=0, high=1)
PAIRS = (
    "a list of pairs (left, right) of keypoints from 0 up (a permutation p is the pairs [(i, p[i]) for i in range(len(p)) if "
    "i < p[i]])"
)


NAMES = {True: "Paper", "running": "Running", False: None}
HOW = {True: "by a generator", "running": "by running difficulty", False: "evenly"}


def _is_branch_name(name: str) -> bool:
    return bool(name) and "." not in name and name not in (RANDOM, "common")


@dataclass(frozen=True)
class Flip:
    """Mirrors left and right.

    Attributes:
        pairs: Keypoints (and heat-map channels) that change places in a mirror image, such as ((0, 5), (1, 4)). () means
            that none do. With None, a batch with keypoints is an error, because left and right would be wrong.
        p: The probability that a row is mirrored.
    """

    pairs: Pairs | None = None
    p: float = 0.5

    _rules: ClassVar[Rules] = {
        "pairs": optional(several(several(integer(at_least=0), "", length=2), PAIRS), "if they are unknown"),
        "p": number(low=0, high=1),
    }

    def __post_init__(self) -> None:
        check_fields(self)
        indices = [index for pair in self.pairs or () for index in pair]
        if len(set(indices)) != len(indices):
            raise ValueError(f"`pairs` of Flip should name each keypoint once, from 0 up. Found {self.pairs!r}.")


def _learner(value: Any) -> Any:
    if isinstance(value, type) or not all(callable(getattr(value, name, None)) for name in ("start", "log_probs", "observe")):
        raise TypeError
    return value


@dataclass(frozen=True)
class Branch:
    """Operations that act together on one share of the mini-batch.

    Attributes:
        name: Its name in metrics and states, without dots.
        operations: The operations that each of its rows gets.
        share: The part of the mini-batch that it gets: a number in [0, 1], or a function of the training progress in [0, 1]
            (see `policies.Window`).
        learned: What learns which bins to draw, a learner such as `learners.Running(cap=2)` or `learners.Paper()`. "running" is
            short for `Running()`, which costs no extra pass; True for `Paper()`, generators with reward and penalty; False
            means that nothing does: draws are even.
    """

    name: str
    operations: Sequence[Operation]
    share: Share
    learned: bool | Literal["running"] | Any = True

    _rules: ClassVar[Rules] = {
        "name": text('a name without dots, not "random" or "common"', _is_branch_name),
        "operations": several(instance(Operation, ""), "a list of operations such as adaug.Scale, at least one", least=1),
        "share": either("a number in [0, 1], or a function of the progress", function(), SHARE),
        "learned": either(
            'an adaug.learners.Learner, "running" (running difficulty), True (the paper) or False (even draws)',
            flag(),
            one_of("running"),
            Rule("", _learner),
        ),
    }

    def __post_init__(self) -> None:
        check_fields(self, f"branch {self.name!r}")
        _check_names(self.name, [operation.name for operation in self.operations])

    @property
    def layouts(self) -> dict[str, int | tuple[int, int]]:
        """The bins, or (rows, columns) of cells, of each operation by its name: what a generator predicts distributions for."""
        return {operation.name: operation.layout for operation in self.operations}

    def full_name(self, operation: Operation) -> str:
        """The name of one of its operations in views, metrics and pictures: "branch.operation"."""
        return f"{self.name}.{operation.name}"


def _in_common(item: Any) -> Any:
    hides = isinstance(item, Operation) and item.hides is not None  # it is done in a branch of its own alone
    if hides or moves_by_class(item) or not (isinstance(item, Flip | Operation) or callable(item)):
        raise TypeError(repr(item))
    return item


@dataclass(frozen=True)
class Policy:
    """Which views are drawn: branches, each for its share of the rows, and what every row gets.

    Attributes:
        branches: The branches. Their shares sum to at most 1. Rows that no branch claims get random views.
        common: What every row gets: a Flip, operations with bins (drawn at random), and functions of images [B, C, H, W] that
            move no pixels, such as kornia's ColorJiggle. Functions run before all else and may draw from torch's random
            state. Before the first batch adaug tries them on images with a bright point, and refuses those that move it.
    """

    branches: Sequence[Branch]
    common: Sequence[Flip | Operation | Function] = ()

    _rules: ClassVar[Rules] = {
        "branches": several(instance(Branch, ""), "a list of adaug.Branch"),
        "common": several(
            Rule("", _in_common),
            "a list of adaug.Flip, operations with bins and functions of images that move no pixels; use adaug's own geometric "
            "operations, which move the targets too",
        ),
    }

    def __post_init__(self) -> None:
        check_fields(self, "a Policy")
        _check_names("branches", [branch.name for branch in self.branches])
        _check_names("common", [operation.name for operation in self._common_operations()])
        if sum(isinstance(item, Flip) for item in self.common) > 1:
            raise ValueError("`common` should hold at most one Flip. Found more.")
        fixed = [branch.share for branch in self.branches if not callable(branch.share)]
        if sum(fixed) > 1 + 1e-6:
            raise ValueError(f"The shares of the branches should sum to at most 1. Found {fixed}, which sum to {sum(fixed)}.")

    # ---- its parts

    @property
    def flip(self) -> Flip | None:
        """The flip that every row may get."""
        return next((item for item in self.common if isinstance(item, Flip)), None)

    @cached_property
    def operations(self) -> dict[str, Operation]:
        """Every operation by its full name, in the order in which they are applied."""
        return {f"common.{operation.name}": operation for operation in self._common_operations()} | {
            branch.full_name(operation): operation for branch in self.branches for operation in branch.operations
        }

    @property
    def hides_features(self) -> bool:
        """Whether some operation hides cells of the network's features."""
        return any(operation.hides == "features" for operation in self.operations.values())

    def on_image(self) -> Policy:
        """The same policy with every mask on the image, for models without layers to mask."""
        branches = [replace(branch, operations=[op.on_image() for op in branch.operations]) for branch in self.branches]
        return replace(self, branches=branches)

    def _common_operations(self) -> Iterator[Operation]:
        return (item for item in self.common if isinstance(item, Operation))

    def __str__(self) -> str:
        """One operation a line."""
        lines = [f"common: {as_code(item)}" for item in self.common]
        for branch in self.branches:
            how = HOW[branch.learned] if isinstance(branch.learned, (bool, str)) else f"by {as_code(branch.learned)}"
            share = f"{branch.share:.3g}" if not callable(branch.share) else as_code(branch.share)
            lines += [f"{branch.name}: share {share}, drawn {how}", *(f"  {as_code(op)}" for op in branch.operations)]
        return "\n".join(lines) or "nothing"

    def describe(self) -> Any:
        """The policy in plain lists, strings and numbers. A saved state is checked against this.

        Of learners it holds the name alone: settings may change between two runs, and learners check what they load.
        """
        described = as_plain(self)
        for branch, part in zip(self.branches, described["branches"], strict=True):
            part["learned"] = (
                NAMES[branch.learned] if isinstance(branch.learned, (bool, str)) else type(branch.learned).__name__
            )
        return described

    # ---- shares

    def shares(self, progress: float) -> list[float]:
        """The share of each branch at a training progress in [0, 1]."""
        given = {b.name: b.share(progress) if callable(b.share) else b.share for b in self.branches}
        try:
            shares = [
                float(SHARE.read(given[branch.name])) if callable(branch.share) else branch.share for branch in self.branches
            ]
        except (TypeError, ValueError):
            raise ValueError(f"Shares should be numbers in [0, 1], at every progress. Found {given} at {progress}.") from None
        if sum(shares) > 1 + 1e-6:
            raise ValueError(f"Shares should sum to at most 1. Found {dict(zip(given, shares, strict=True))}.")
        return shares

    def split(self, n: int, progress: float, stream: Stream) -> Tensor:
        """Deals n rows to the branches (Algorithm 1, line 1): [n] long, on the CPU. 0 means random views.

        A branch gets n x share rows, rounded up or down at random so that the average is right even for one or two rows.
        """
        ends = np.cumsum(self.shares(progress)) * n
        seats = np.arange(n) + stream.number()
        taken = np.searchsorted(ends + 1e-6, seats, side="right") + 1
        taken[taken > len(self.branches)] = 0
        order = np.empty(n, dtype=np.int64)
        order[stream.permutation(n).numpy()] = taken
        return torch.from_numpy(order)

    # ---- drawing, apart from applying

    @cached_property
    def functions(self) -> tuple[Function, ...]:
        """The functions of images in `common`."""
        return tuple(item for item in self.common if not isinstance(item, Flip | Operation))

    def check_functions(self, image: Tensor) -> list[str]:
        """Tries the functions in `common` on images like these, once for each number of channels.

        Raises TypeError if one moves pixels. Returns the names of those that cut values to [0, 1].
        """
        known: dict[int, list[str]] = self._clamping
        if image.shape[1] not in known:
            known[image.shape[1]] = check_functions(self.functions, image)
        return known[image.shape[1]]

    @cached_property
    def _clamping(self) -> dict[int, list[str]]:
        return {}

    def paint(self, image: Tensor, stream: Stream) -> Tensor:
        """Applies the functions in `common` to images [n, C, H, W]. The input and the global random state stay as they are."""
        if self.functions:
            with seeded(stream.seed, image.device):
                image, dtype = image.clone(), image.dtype  # some write to what they are given
                for item in self.functions:
                    image = item(image).to(dtype)
        return image

    @property
    def changes_random_views(self) -> bool:
        """Whether random views change something. Without branches they need not."""
        drawn = any(operation.in_random_views for operation in self.operations.values())
        return not self.branches or self.flip is not None or drawn or bool(self.functions)

    def draw_random(self, n: int, stream: Stream) -> Magnitudes:
        """Draws what n rows get in random views: a flip, and every operation except those that hide cells."""
        flip = {} if self.flip is None else {FLIP: stream.uniform(n) < self.flip.p}
        drawn = {name: operation.draw_random(n, stream) for name, operation in self.operations.items()}
        return flip | {name: magnitude for name, magnitude in drawn.items() if magnitude is not None}

    def view(
        self,
        magnitudes: Magnitudes,
        n: int,
        canvas: Size,
        view_size: Size,
        *,
        last: Branch | None = None,
        device: torch.device | None = None,
    ) -> View:
        """Makes the view of n rows that applies these magnitudes. Operations without a magnitude are left out.

        The flip comes first. The operations of the branch `last` come last: they act on the view that its generator saw.
        """
        return make_view(
            [(name, operation, magnitudes[name]) for name, operation in self.operations.items() if name in magnitudes],
            n,
            canvas,
            view_size,
            last=() if last is None else [last.full_name(operation) for operation in last.operations],
            flipped=magnitudes.get(FLIP),
            pairs=None if self.flip is None else self.flip.pairs,
            device=device,
        )


def _check_names(owner: str, names: list[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"The names in {owner!r} should differ. Found {', '.join(twice)} more than once.")

"""The policy: branches of operations, their shares of the mini-batch, and what is done to every row alike."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from adaug._painters import Painter, Trait, moves_by_name, traits_of
from adaug._random import Stream, seeded
from adaug._view import View, make_view
from adaug._warp import Size
from adaug.keypoints import Pairs
from adaug.operations import Operation

Share = float | Callable[[float], float]
Magnitudes = dict[str, Tensor]  # "branch.operation" -> its magnitude in each row; FLIP -> flipped [n] bool
RANDOM = "random"  # the share that no branch claims
FLIP = "common.flip"


@dataclass(frozen=True)
class Flip:
    """Mirrors left and right.

    Attributes:
        pairs: Keypoints (and heat-map channels) that change places, e.g. ((0, 5), (1, 4)). () if none do. With None a batch
            that has keypoints is refused, because its left and right would be wrong.
        p: The probability.
    """

    pairs: Pairs | None = None
    p: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.p <= 1:
            raise ValueError(f"`p` of Flip should be in [0, 1]. Found {self.p}.")
        if self.pairs is None:
            return
        if any(not isinstance(pair, Sequence) or len(pair) != 2 for pair in self.pairs):
            raise ValueError(
                f"`pairs` of Flip should be a list of pairs (left, right). Found {self.pairs!r}. A permutation p is the "
                "pairs [(i, p[i]) for i in range(len(p)) if i < p[i]]."
            )
        pairs = tuple((int(left), int(right)) for left, right in self.pairs)
        indices = [index for pair in pairs for index in pair]
        if len(set(indices)) != len(indices) or any(index < 0 for index in indices):
            raise ValueError(f"`pairs` of Flip should name each keypoint once, from 0 up. Found {self.pairs!r}.")
        object.__setattr__(self, "pairs", pairs)


@dataclass(frozen=True)
class Running:
    """Running difficulty: bins that training itself shows to be hard are drawn more often. No generator, look or score.

    Attributes:
        cap: No bin of k is drawn with a probability above cap / k.
        floor: None is drawn with one below floor / k.
    """

    cap: float = 2.0
    floor: float = 0.05

    def __post_init__(self) -> None:
        if not self.cap > 1:
            raise ValueError(f"`cap` should be above 1 (1 would force the uniform distribution). Found {self.cap}.")
        if not 0 < self.floor < 1:
            raise ValueError(f"`floor` should be between 0 and 1. Found {self.floor}.")


@dataclass(frozen=True)
class Branch:
    """Operations that act together on one share of the mini-batch.

    Attributes:
        name: What metrics and states call it. It has no dots.
        operations: What is done to its rows.
        share: A number in [0, 1], or a function of the training progress in [0, 1] (see `policies.Window`).
        learned: What moves its distributions. True: a generator with reward and penalty, as in the paper. "running" (or a
            `Running` with settings): running difficulty, which costs no look and no score. False: nothing, they are uniform.
    """

    name: str
    operations: Sequence[Operation]
    share: Share
    learned: bool | Literal["running"] | Running = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "operations", tuple(self.operations))
        if not self.name or "." in self.name or self.name in (RANDOM, "common"):
            raise ValueError(f'A branch needs a name without dots, not "random" or "common". Found {self.name!r}.')
        if not self.operations:
            raise ValueError(f"Branch {self.name!r} should have at least one operation. Found none.")
        for operation in self.operations:
            if not isinstance(operation, Operation):
                raise TypeError(f"Branch {self.name!r} should hold operations such as adaug.Scale. Found {operation!r}.")
        _check_names(self.name, [operation.name for operation in self.operations])
        if not isinstance(self.learned, bool | Running) and self.learned != "running":
            raise ValueError(
                f'`learned` of branch {self.name!r} should be True (a generator), "running" or an adaug.policies.Running '
                f"(running difficulty) or False (uniform draws). Found {self.learned!r}."
            )
        if not callable(self.share) and not 0 <= self.share <= 1:
            raise ValueError(f"The share of branch {self.name!r} should be in [0, 1]. Found {self.share}.")

    @property
    def has_generator(self) -> bool:
        """Whether a generator proposes its bins."""
        return self.learned is True

    @property
    def running(self) -> Running | None:
        """The settings of its running difficulty; None where it learns otherwise, or not at all."""
        if isinstance(self.learned, Running):
            return self.learned
        return Running() if self.learned == "running" else None

    @property
    def layouts(self) -> dict[str, int | tuple[int, int]]:
        """What its generator predicts: the name of each operation -> bins, or (rows, columns) of cells."""
        return {operation.name: operation.layout for operation in self.operations}

    def full_name(self, operation: Operation) -> str:
        """What views, metrics and pictures call one of its operations: "branch.operation"."""
        return f"{self.name}.{operation.name}"


@dataclass(frozen=True)
class Policy:
    """Branches, and what is done to every row alike. The random share is what the branches leave.

    Attributes:
        branches: Their shares sum to at most 1.
        common: A Flip, operations with bins (drawn at random), and functions of images [B, C, H, W] that move no pixels,
            such as kornia's ColorJiggle. A function sees the batch before anything else and may draw from torch's random
            state. It is tried on made images before the first batch, and refused if it moves them.
    """

    branches: Sequence[Branch]
    common: Sequence[Flip | Operation | Painter] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "branches", tuple(self.branches))
        object.__setattr__(self, "common", tuple(self.common))
        for branch in self.branches:
            if not isinstance(branch, Branch):
                raise TypeError(f"`branches` should hold adaug.Branch. Found {branch!r}.")
        for item in self.common:
            hides = isinstance(item, Operation) and item.hides is not None  # it is done in a branch of its own alone
            known = isinstance(item, Flip | Operation) or callable(item)
            if hides or not known or moves_by_name(item):
                raise TypeError(
                    "`common` should hold adaug.Flip, operations with bins and functions of images that move no pixels. "
                    f"Found {item!r}; use adaug's own geometric operations, which move the targets too."
                )
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
        """Every operation by its full name, in the order in which they are done."""
        return {f"common.{operation.name}": operation for operation in self._common_operations()} | {
            branch.full_name(operation): operation for branch in self.branches for operation in branch.operations
        }

    @property
    def hides_features(self) -> bool:
        """Whether some operation hides cells of the network's features."""
        return any(operation.hides == "features" for operation in self.operations.values())

    def on_image(self) -> Policy:
        """The same policy with every mask on the image, for when no layer takes them."""
        branches = [replace(branch, operations=[op.on_image() for op in branch.operations]) for branch in self.branches]
        return replace(self, branches=branches)

    def _common_operations(self) -> Iterator[Operation]:
        return (item for item in self.common if isinstance(item, Operation))

    def __str__(self) -> str:
        """One operation a line."""
        lines = [f"common: {_brief(item)}" for item in self.common]
        for branch in self.branches:
            how = "by running difficulty" if branch.running else "by a generator" if branch.has_generator else "evenly"
            share = f"{branch.share:.3g}" if not callable(branch.share) else _brief(branch.share)
            lines += [f"{branch.name}: share {share}, drawn {how}", *(f"  {_brief(op)}" for op in branch.operations)]
        return "\n".join(lines) or "nothing"

    def describe(self) -> Any:
        """The policy in plain lists, strings and numbers: what a saved state is checked against."""
        return _plain(self)

    # ---- shares

    def shares(self, progress: float) -> list[float]:
        """The share of each branch at a training progress in [0, 1]."""
        shares = [float(b.share(progress)) if callable(b.share) else float(b.share) for b in self.branches]
        if any(not 0 <= share <= 1 for share in shares) or sum(shares) > 1 + 1e-6:
            names = [branch.name for branch in self.branches]
            raise ValueError(f"Shares should be in [0, 1] and sum to at most 1. Found {dict(zip(names, shares, strict=True))}.")
        return shares

    def split(self, n: int, progress: float, stream: Stream) -> Tensor:
        """Algorithm 1, line 1: which branch each of n rows falls to, 0 the random share. [n] long, on the CPU.

        The counts are within one of n x share and right on average, so that one or two rows serve as well.
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
    def painters(self) -> tuple[Painter, ...]:
        """The functions of images in `common`."""
        return tuple(item for item in self.common if not isinstance(item, Flip | Operation))

    def traits(self, image: Tensor) -> list[Trait]:
        """What trying the functions in `common` shows, on images like these. They are tried once for each channel count."""
        known: dict[int, list[Trait]] = self._traits
        if image.shape[1] not in known:
            known[image.shape[1]] = traits_of(self.painters, image)
        return known[image.shape[1]]

    @cached_property
    def _traits(self) -> dict[int, list[Trait]]:
        return {}

    def paint(self, image: Tensor, stream: Stream) -> Tensor:
        """Images [n, C, H, W] after the functions in `common`; neither they nor the global random state change."""
        if self.painters:
            with seeded(stream.seed, image.device):
                image, dtype = image.clone(), image.dtype  # some write to what they are given
                for painter in self.painters:
                    image = painter(image).to(dtype)
        return image

    def draw_random(self, n: int, stream: Stream) -> Magnitudes:
        """What n rows get in random views: a flip, and every operation but those that hide cells."""
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
        """The view of n rows in which everything is done by these magnitudes; what they do not name is not done.

        The flip comes first and the operations of `last` come last, on the view that its generator saw.
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


def _brief(value: Any) -> str:
    """What a user would write to make it: fields of a dataclass that are not as by default."""
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return getattr(value, "__qualname__", None) or repr(value)
    fields = [(field, getattr(value, field.name)) for field in dataclasses.fields(value)]
    said = [f"{field.name}={_brief(own)}" for field, own in fields if field.init and own != field.default]
    return f"{type(value).__name__}({', '.join(said)})"


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return {"type": type(value).__name__, **fields}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if callable(value):  # a repr would hold an address, and never match after a restart
        return getattr(value, "__qualname__", type(value).__qualname__)
    if isinstance(value, np.generic):
        value = value.item()
    return value if value is None or isinstance(value, (str, bool, int, float)) else repr(value)

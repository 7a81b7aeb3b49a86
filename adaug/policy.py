"""The policy: branches of operations, their shares of the mini-batch, and what is done to every row alike.

`Policy.draw` and `Policy.view` keep drawing apart from applying: a `Settings` holds everything that was drawn, and a
view is a pure function of it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from kornia.augmentation._2d.geometric.base import GeometricAugmentationBase2D
from torch import Tensor

from adaug.operations import Binned, Geometric, Occlusion, Photometric
from adaug.sampling import Stream, seeded
from adaug.view import Size, View, centred, full_precision, mirror, product

Operation = Binned | Occlusion
Painter = Callable[[Tensor], Tensor]
Share = float | Callable[[float], float]
Settings = dict[str, Tensor]  # "branch.operation" -> magnitude [n], mask [n, ...], or flipped [n] bool
RANDOM = "random"  # the share that no branch claims


@dataclass(frozen=True)
class Flip:
    """Mirrors left and right with probability p.

    pairs: keypoints (and heat-map channels) that change places, e.g. ((0, 5), (1, 4)). () if none do; with None a
    batch that has keypoints is refused, because its left and right would be wrong.
    """

    pairs: Sequence[tuple[int, int]] | None = None
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
class Branch:
    """Operations that act together on one share of the mini-batch.

    share: a number in [0, 1], or a function of the training progress in [0, 1] (see `policies.Window`). learned: a
    generator proposes the bins; False draws them uniformly and costs no look and no score.
    """

    name: str
    operations: Sequence[Operation]
    share: Share
    learned: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "operations", tuple(self.operations))
        if not self.name or "." in self.name or self.name in (RANDOM, "common"):
            raise ValueError(f'A branch needs a name without dots, not "random" or "common". Found {self.name!r}.')
        if not self.operations:
            raise ValueError(f"Branch {self.name!r} should have at least one operation. Found none.")
        for operation in self.operations:
            if not isinstance(operation, (Binned, Occlusion)):
                raise TypeError(f"Branch {self.name!r} should hold operations such as adaug.Scale. Found {operation!r}.")
        _check_names(self.name, [operation.name for operation in self.operations])
        if not callable(self.share) and not 0 <= self.share <= 1:
            raise ValueError(f"The share of branch {self.name!r} should be in [0, 1]. Found {self.share}.")

    @property
    def heads(self) -> dict[str, int | tuple[int, int]]:
        """What its generator predicts: the name of each operation -> bins, or (rows, columns) of cells."""
        return {operation.name: operation.head for operation in self.operations}


@dataclass(frozen=True)
class Policy:
    """Branches, and what is done to every row alike. The random share is what the branches leave.

    common: a Flip, binned operations (their references), and functions of images [B, C, H, W] that move no pixels, such
    as kornia's ColorJiggle; a function sees the batch before anything else and may draw from torch's random state.
    """

    branches: Sequence[Branch]
    common: Sequence[Flip | Binned | Painter] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "branches", tuple(self.branches))
        object.__setattr__(self, "common", tuple(self.common))
        for branch in self.branches:
            if not isinstance(branch, Branch):
                raise TypeError(f"`branches` should hold adaug.Branch. Found {branch!r}.")
        for operation in self.common:
            known = isinstance(operation, Flip | Binned) or callable(operation)
            if not known or isinstance(operation, GeometricAugmentationBase2D):
                raise TypeError(
                    "`common` should hold adaug.Flip, binned operations and functions of images that move no pixels. "
                    f"Found {operation!r}; use adaug's own geometric operations, which move the targets too."
                )
        _check_names("branches", [branch.name for branch in self.branches])
        _check_names("common", [operation.name for operation in self.common if isinstance(operation, Binned)])
        if sum(isinstance(operation, Flip) for operation in self.common) > 1:
            raise ValueError("`common` should hold at most one Flip. Found more.")
        fixed = [branch.share for branch in self.branches if not callable(branch.share)]
        if sum(fixed) > 1 + 1e-6:
            raise ValueError(f"The shares of the branches should sum to at most 1. Found {fixed}, which sum to {sum(fixed)}.")

    @property
    def flip(self) -> Flip | None:
        """The flip that every row may get."""
        return next((operation for operation in self.common if isinstance(operation, Flip)), None)

    def paint(self, image: Tensor, stream: Stream) -> Tensor:
        """Images [n, C, H, W] after the functions in `common`; the global random state is put back."""
        painters = [operation for operation in self.common if not isinstance(operation, Flip | Binned)]
        if painters:
            with seeded(stream.seed, image.device):
                for painter in painters:
                    image = painter(image).to(image.dtype)
        return image

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
        ends = torch.tensor(self.shares(progress), dtype=torch.float64, device="cpu").cumsum(0) * n
        seats = torch.arange(n, dtype=torch.float64, device="cpu") + stream.number()
        taken = torch.searchsorted(ends + 1e-6, seats, right=True) + 1
        taken[taken > len(self.branches)] = 0
        order = torch.empty(n, dtype=torch.long, device="cpu")
        order[stream.permutation(n)] = taken
        return order

    def draw_reference(self, n: int, stream: Stream) -> Settings:
        """Random settings of n rows for everything but occlusion: of every row's view in the random share."""
        settings: Settings = {}
        if self.flip is not None:
            settings["common.flip"] = stream.uniform(n) < self.flip.p
        binned = [(key, operation) for key, operation in self._keyed() if isinstance(operation, Binned)]
        return settings | {key: operation.usual_magnitude(stream.uniform(n)) for key, operation in binned}

    def view(
        self,
        settings: Settings,
        n: int,
        canvas: Size,
        output: Size,
        *,
        own: Branch | None = None,
        device: torch.device | None = None,
    ) -> View:
        """The view that some settings of n rows make; what they do not name is not done.

        The flip comes first and the operations of `own` last, on the view that its generator saw.
        """
        flipped = settings.get("common.flip")
        with full_precision(device):
            matrix = self._matrix(settings, n, canvas, output, own, device)
        present = [(key, operation) for key, operation in self._keyed() if key in settings]
        return View(
            matrix=matrix,
            flipped=flipped,
            pairs=None if self.flip is None else self.flip.pairs,
            colours={key: (op, settings[key]) for key, op in present if isinstance(op, Photometric)},
            masks={key: (op, settings[key]) for key, op in present if isinstance(op, Occlusion)},
        )

    def _matrix(
        self, settings: Settings, n: int, canvas: Size, output: Size, own: Branch | None, device: torch.device | None
    ) -> Tensor | None:
        """From the canvas to the view, [n, 3, 3]; None where nothing moves."""
        matrix = mirror(settings["common.flip"]) if "common.flip" in settings else None
        for key, operation in self._keyed(own):
            if isinstance(operation, Geometric) and key in settings:
                step = operation.matrix(settings[key], output)
                matrix = step if matrix is None else product(step, matrix)
        if matrix is None and canvas != output:
            matrix = torch.eye(3, device=device).expand(n, 3, 3)
        return None if matrix is None else centred(matrix, canvas, output)

    def _keyed(self, own: Branch | None = None) -> list[tuple[str, Operation]]:
        """Every operation under its name in a Settings, those of `own` last."""
        keyed: list[tuple[str, Operation]] = [(f"common.{op.name}", op) for op in self.common if isinstance(op, Binned)]
        for branch in sorted(self.branches, key=lambda branch: branch is own):  # stable: the others keep their order
            keyed += [(f"{branch.name}.{op.name}", op) for op in branch.operations]
        return keyed

    def describe(self) -> Any:
        """The policy in plain lists, strings and numbers: what a saved state is checked against."""
        return _plain(self)


def _check_names(owner: str, names: list[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"The names in {owner!r} should differ. Found {', '.join(twice)} more than once.")


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

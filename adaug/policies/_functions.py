"""Tries functions of images, such as kornia's colours, and finds out whether they move pixels."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from kornia.augmentation._2d.geometric.base import GeometricAugmentationBase2D
from kornia.augmentation._2d.intensity.base import IntensityAugmentationBase2D
from torch import Tensor, nn

from adaug._runtime.geometry import Size
from adaug._runtime.random import seeded

Painter = Callable[[Tensor], Tensor]

SIDE = 128  # the side of trial images, if the real ones are larger
TRIES = 8  # so many seeds, and as many again with every probability at 1
WIDTH = 1.5  # standard deviation of a spot, in pixels
MOST = 0.995  # pixels that a spot may move; blur to one side stays below this
NEAR = 8  # pixels around a spot that JPEG and the like may change
REST = 3.5  # pixels from its place within which the rest of a partly erased spot may lie
SPOTS = [(0.2, 0.25), (0.8, 0.3), (0.3, 0.75), (0.75, 0.7), (0.5, 0.2), (0.25, 0.5)]  # (x, y) as fractions of the image's sides


@dataclass(frozen=True)
class Trait:
    """What a function did to trial images.

    Attributes:
        name: Its name in errors.
        moves: By how many pixels it moved something. A large number means other places or rows.
        clamps: Whether it cuts values to [0, 1].
        returns: What it returned, if that is not an image of the same shape; else "".
    """

    name: str
    moves: float
    clamps: bool
    returns: str = ""


def traits_of(painters: Sequence[Painter], image: Tensor) -> list[Trait]:
    """Tries functions on artificial images with the channels, dtype and device of the real ones. Random states stay."""
    with _kept(), torch.no_grad():
        return [_trait(painter, image) for painter in painters]


def moves_by_name(painter: Any) -> bool:
    """Whether it is or contains one of kornia's geometric augmentations, which need no trial."""
    parts = painter.modules() if isinstance(painter, nn.Module) else [painter]
    return any(isinstance(part, GeometricAugmentationBase2D) for part in parts)


def check_painters(traits: Sequence[Trait]) -> None:
    """Raises TypeError on functions that move pixels or do not return images."""
    for trait in traits:
        if trait.returns:
            raise TypeError(
                f"Functions in `common` should return images of the shape that they get. Found {trait.name}, which returned "
                f"{trait.returns}; give `output_size` to cut views from a canvas, and leave other shapes to the loader."
            )
        if trait.moves > MOST:
            how_far = f"by up to {trait.moves:.1f} pixels" if trait.moves < SIDE else "to other places or rows"
            raise TypeError(
                f"Functions in `common` should move no pixels, because labels would stay where they are. Found {trait.name}, "
                f"which moves them {how_far}; use adaug's own operations, which move the targets too: adaug.Flip, Rotate, "
                "Scale, Translate and Shear."
            )


def name_of(painter: Any) -> str:
    """The name of a function or a module in errors. A container also names its parts."""
    own, inner = _own_name(painter), dict.fromkeys(_own_name(leaf) for leaf in _leaves(painter) if leaf is not painter)
    return f"{own} of {', '.join(inner)}" if inner else own


def _own_name(painter: Any) -> str:
    return getattr(painter, "__qualname__", type(painter).__qualname__)


def _leaves(painter: Any) -> list[Any]:
    """The parts of a container of kornia, torch or torchvision, in the order in which they run."""
    parts = getattr(painter, "transforms", None)
    if not isinstance(parts, (list, tuple, nn.ModuleList)):
        holds = isinstance(painter, (nn.Sequential, nn.ModuleList))
        parts = list(painter.children()) if holds else []
    return [leaf for part in parts for leaf in _leaves(part)] or [painter]


# ---- trying


def _trait(painter: Painter, image: Tensor) -> Trait:
    size = (min(image.shape[-2], SIDE), min(image.shape[-1], SIDE))
    try:
        return _tried(painter, image, size)
    except Exception:  # it may need images of the real size; an error there is its own
        return _tried(painter, image, (image.shape[-2], image.shape[-1]))


def _tried(painter: Painter, image: Tensor, size: Size) -> Trait:
    """Tries a function on images [n, C, *size] with one spot each, and on the same images without it.

    Both get the same seed, so noise, erased parts and other random effects cancel.
    """
    name, moved = name_of(painter), 0.0
    plain, spots, at = _images(size, image)
    once, forced = _forced(painter)
    trials = [(function, seed) for function in (forced, once) if function is not None for seed in range(TRIES)]
    for function, seed in trials if not _only_colours(painter) else trials[:1]:
        outputs = [_run(function, given, seed) for given in (plain, spots)]
        for output in outputs:
            if not isinstance(output, Tensor):
                return Trait(name, 0.0, False, type(output).__name__)
            if output.shape != plain.shape:
                if size != tuple(image.shape[-2:]):
                    raise ValueError("It may be made for images of the real size.")
                return Trait(name, 0.0, False, f"shape {tuple(output.shape)} for {tuple(plain.shape)}")
        if not _only_colours(painter):
            moved = max(moved, _distance(outputs[1] - outputs[0], at))
        if moved > MOST:
            break
    return Trait(name, moved, _clamps(trials[0][0], plain))


def _run(function: Painter, given: Tensor, seed: int) -> Any:
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 (such functions draw from the global state)
    with seeded(seed, given.device):
        return function(given.clone())


def _only_colours(painter: Painter) -> bool:
    """Whether it is one of kornia's intensity augmentations, which move nothing (blur to one side may look like a move)."""
    leaves = _leaves(painter)
    return all(isinstance(leaf, IntensityAugmentationBase2D) and type(leaf).__module__.startswith("kornia.") for leaf in leaves)


def _images(size: Size, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Images without and with a spot, each [n, C, *size], and the places of the spots in pixels, [n, 2] (x, y)."""
    height, width = size
    at = torch.tensor([(round(x * (width - 1)), round(y * (height - 1))) for x, y in SPOTS], device=image.device)
    y, x = (torch.arange(side, device=image.device) for side in size)
    dx, dy = (x - at[:, :1]).float(), (y - at[:, 1:]).float()  # [n, w], [n, h]
    spot = torch.exp(-(dy.square()[:, :, None] + dx.square()[:, None]) / (2 * WIDTH**2))[:, None]
    ramp = 0.3 + 0.1 * x / width + 0.1 * y[:, None] / height  # some values, for functions of statistics
    plain = ramp.repeat(len(SPOTS), image.shape[1], 1, 1)
    plain[..., 0, 0], plain[..., -1, -1] = 0.0, 1.0  # a spot should not change the smallest and largest values
    return plain.to(image.dtype), (plain + 0.4 * spot).to(image.dtype), at


def _distance(difference: Tensor, at: Tensor) -> float:
    """How far spots moved, from the difference of both images [n, C, h, w]. A spot that is gone did not move."""
    change = difference.float().abs().sum(1).nan_to_num(0, 0, 0)
    peak = change.amax((1, 2))
    left, top = at.unbind(1)
    reach = torch.arange(-NEAR, NEAR + 1, device=at.device)
    near = F.pad(change, [NEAR] * 4)[
        torch.arange(len(at), device=at.device)[:, None, None],
        (top[:, None] + NEAR + reach)[:, :, None],
        (left[:, None] + NEAR + reach)[:, None],
    ]  # [n, 2 NEAR + 1, 2 NEAR + 1] around each spot
    stays = near.square().sum((1, 2)) / change.square().sum((1, 2)).clamp(min=1e-12)
    there = peak > 0.02
    erased = (near[:, NEAR - 2 : NEAR + 3, NEAR - 2 : NEAR + 3] < 1e-4 * peak[:, None, None]).flatten(1).any(1)
    beside = (_middle(near) - NEAR).norm(dim=1)
    beside = beside[there & (~erased | (beside > REST))].sort().values
    away = there & (stays < 0.2)
    far = (_middle(change[away]) - at[away]).norm(dim=1) if away.any() else peak[:0]
    second = beside[-2:-1] if len(beside) > 2 else beside[:0]  # JPEG may move one spot: it does not count
    return float(torch.cat([second, far[far > NEAR], peak.new_zeros(1)]).max())


def _middle(change: Tensor) -> Tensor:
    """The place where [n, h, w] looks most like a spot, more exactly than a pixel. [n, 2], x and y."""
    height, width = change.shape[1:]
    reach = torch.arange(-4, 5, device=change.device)
    line = torch.exp(-reach.square() / (2 * WIDTH**2))
    across = F.conv2d(change[:, None], line.reshape(1, 1, 1, -1), padding="same")
    response = F.conv2d(across, line.reshape(1, 1, -1, 1), padding="same")[:, 0]
    best = response.flatten(1).argmax(1)
    x, y = (best % width).clamp(1, width - 2), (best // width).clamp(1, height - 2)
    row = torch.arange(len(change), device=change.device)
    return torch.stack(
        [x + _top(*(response[row, y, x + i] for i in (-1, 0, 1))), y + _top(*(response[row, y + i, x] for i in (-1, 0, 1)))], -1
    )


def _top(before: Tensor, middle: Tensor, after: Tensor) -> Tensor:
    """The top of the parabola through three values, relative to the middle one."""
    return (0.5 * (after - before) / (2 * middle - before - after).clamp(min=1e-12)).clamp(-0.5, 0.5)


def _clamps(painter: Painter, plain: Tensor) -> bool:
    """Whether values far outside [0, 1] come back inside it."""
    try:
        output = _run(painter, (plain - 0.35) * 30, 0)
    except Exception:
        return False
    low, high = (float(edge) for edge in output.float().aminmax())
    return low >= -1e-3 and high <= 1 + 1e-3 and high - low > 1e-3


# ---- randomness


def _forced(painter: Painter) -> tuple[Painter, Painter | None]:
    """A copy of a function, and a copy with every probability at 1. None instead of the latter if it has no probability."""
    try:
        once, forced = copy.deepcopy(painter), copy.deepcopy(painter)
    except Exception:  # a part of it cannot be copied
        return painter, None
    found = False
    for part in _objects(forced):
        for name in ("p", "p_batch"):
            value = getattr(part, name, None)
            if isinstance(value, float) and 0 < value < 1:
                try:
                    setattr(part, name, 1.0)
                    found = True
                except Exception:  # it is read-only
                    continue
    return once, forced if found else None


def _objects(thing: Any, depth: int = 5) -> Iterator[Any]:
    """An object and the objects inside it."""
    if isinstance(thing, nn.Module):
        yield from thing.modules()
    if depth == 0 or isinstance(thing, (Tensor, np.ndarray, str, bytes, int, float)):
        return
    if isinstance(thing, Mapping):
        items: Sequence[Any] = list(thing.values())
    elif isinstance(thing, (list, tuple)):
        items = thing
    else:
        yield thing
        items = [item for name, item in getattr(thing, "__dict__", {}).items() if name[:1] != "_"]
    for item in items:
        yield from _objects(item, depth - 1)


@contextmanager
def _kept() -> Iterator[None]:
    """Restores the random states of Python and NumPy. `seeded` does it for torch."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002

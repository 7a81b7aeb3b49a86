"""The user's mini-batch: what each of its tensors is, and how a view moves it."""

from __future__ import annotations

import copy
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from adaug.view import (
    Grid,
    Size,
    View,
    apply_colours,
    as_size,
    full_precision,
    inside,
    sampling_grid,
    swap_pairs,
    warp,
    warp_boxes,
    warp_points,
)

KINDS = ("image", "keypoints", "visibility", "heatmaps", "mask", "boxes", "label", "other")
USUAL_NAMES = {
    "image": ("image", "images", "img", "imgs", "pixel_values"),
    "keypoints": ("keypoints", "joints", "landmarks", "points"),
    "visibility": ("visibility", "visible", "vis"),
    "heatmaps": ("heatmaps", "heatmap"),
    "mask": ("mask", "masks", "segmentation"),
    "boxes": ("boxes", "bboxes"),
    "label": ("label", "labels", "class", "classes"),
    "other": ("id", "ids", "index", "indices", "sample_id", "image_id", "weight", "weights", "name", "path", "meta"),
}
KIND_OF = {name: kind for kind, names in USUAL_NAMES.items() for name in names}
DIMENSIONS = {"image": (4,), "keypoints": (3, 4), "visibility": (2, 3), "heatmaps": (4,), "mask": (3, 4), "boxes": (3, 4)}

Key = str | int
Rows = Any  # a user's batch: a mapping, a tuple or a list


@dataclass(frozen=True)
class Target:
    """A kind of target with what lies outside the canvas, e.g. Target("mask", fill=255) for an ignore index.

    Masks go through float32, which holds integers up to 2^24.
    """

    kind: str
    fill: float = 0.0


@dataclass(frozen=True)
class Batch:
    """A user's batch with the kind of each of its entries."""

    entries: dict[Key, Any]
    targets: dict[Key, Target]
    source: Any  # the user's own object, for its structure

    @property
    def image(self) -> Tensor:
        """The images [B, C, H, W]."""
        image: Tensor = self.entries[self._keys("image")[0]]
        return image

    @property
    def size(self) -> Size:
        """Height and width of the images."""
        return self.image.shape[-2], self.image.shape[-1]

    def __len__(self) -> int:
        return len(self.image)

    def has(self, kind: str) -> bool:
        """Whether some entry is of a kind."""
        return bool(self._keys(kind))

    def of(self, kind: str) -> list[Tensor]:
        """The entries of a kind."""
        return [self.entries[key] for key in self._keys(kind)]

    def rows(self, index: Tensor) -> Batch:
        """Some rows only, `index` [n] long."""
        return replace(self, entries={key: _rows(value, index, len(self)) for key, value in self.entries.items()})

    def with_image(self, image: Tensor) -> Batch:
        """The same batch with other images."""
        return replace(self, entries={**self.entries, self._keys("image")[0]: image})

    def image_only(self) -> Batch:
        """Without its targets, for passes that only look."""
        key = self._keys("image")[0]
        return Batch({key: self.entries[key]}, {key: self.targets[key]}, {})

    def user(self) -> Rows:
        """The batch in the user's own structure."""
        if isinstance(self.source, Mapping):
            if not isinstance(self.source, MutableMapping):
                return type(self.source)(self.entries)  # type: ignore[call-arg]
            made = _shallow_copy(self.source)
            made.update(self.entries)
            return made
        values = [self.entries[key] for key in range(len(self.entries))]
        return type(self.source)(*values) if hasattr(self.source, "_fields") else type(self.source)(values)

    def seen(self, view: View, output: Size) -> Batch:
        """The batch as the view sees it, at an output size. What the view does not touch is carried along as it is."""
        with full_precision(self.image.device):
            return self._seen(view, output)

    def _seen(self, view: View, output: Size) -> Batch:
        entries = dict(self.entries)
        matrix, flipped, pairs = view.matrix, view.flipped, view.pairs or ()
        if matrix is not None:
            grid = sampling_grid(matrix, self.size, output)
            for key, target in self.targets.items():
                if target.kind in ("image", "heatmaps", "mask"):
                    entries[key] = self._warped(entries[key], target, grid, output)
                    if target.kind == "heatmaps" and flipped is not None:
                        entries[key] = swap_pairs(entries[key], flipped, pairs, 1)
                elif target.kind == "boxes":
                    entries[key] = warp_boxes(entries[key], matrix, output)
            gone: Tensor | None = None
            for key in self._keys("keypoints"):
                entries[key], gone = self._moved_points(entries[key], view, output)
            for key in self._keys("visibility"):
                seen = entries[key]
                if flipped is not None:
                    seen = swap_pairs(seen, flipped, pairs, self.joint_dim(seen))
                entries[key] = seen if gone is None else _unseen(seen, gone)
        key = self._keys("image")[0]
        entries[key] = apply_colours(entries[key], view)
        return replace(self, entries=entries)

    def _keys(self, kind: str) -> list[Key]:
        return [key for key, target in self.targets.items() if target.kind == kind]

    def joint_dim(self, visibility: Tensor) -> int:
        """The dimension of a visibility along which keypoints change."""
        points = self.of("keypoints")
        return points[0].ndim - 2 if points else visibility.ndim - 1

    @staticmethod
    def _moved_points(points: Tensor, view: View, output: Size) -> tuple[Tensor, Tensor]:
        """Keypoints as the view sees them, and which of them left the frame."""
        assert view.matrix is not None
        moved = torch.cat([warp_points(points[..., :2], view.matrix), points[..., 2:]], -1)
        if view.flipped is not None:
            moved = swap_pairs(moved, view.flipped, view.pairs or (), moved.ndim - 2)
        gone = ~inside(moved[..., :2], output)
        return torch.cat([moved[..., :2], _unseen(moved[..., 2:], gone)], -1) if moved.shape[-1] == 3 else moved, gone

    def _warped(self, value: Tensor, target: Target, grid: Grid, output: Size) -> Tensor:
        planes = value if value.ndim == 4 else value[:, None]
        height, width = self.size
        size = (round(planes.shape[-2] * output[0] / height), round(planes.shape[-1] * output[1] / width))
        mode = "nearest" if target.kind == "mask" else "bilinear"
        warped = warp(planes, grid, size, mode=mode, fill=target.fill)
        return warped if value.ndim == 4 else warped[:, 0]


def _shallow_copy(mapping: MutableMapping[Key, Any]) -> MutableMapping[Key, Any]:
    """A mapping of the same type, with what a subclass carries; writing to it leaves the user's as it is."""
    made = copy.copy(mapping)
    if not isinstance(mapping, dict) and not hasattr(type(mapping), "__copy__"):  # its storage would be shared
        vars(made).update({name: copy.copy(value) for name, value in vars(mapping).items()})
    return made


def _rows(value: Any, index: Tensor, n: int) -> Any:
    """Some rows of an entry with n of them; what has no rows is kept."""
    if isinstance(value, Mapping):
        return {key: _rows(item, index, n) for key, item in value.items()}
    if hasattr(value, "_fields"):
        return type(value)(*(_rows(item, index, n) for item in value))
    if isinstance(value, Tensor):
        return value[index.to(value.device)] if value.ndim and len(value) == n else value
    if isinstance(value, np.ndarray):
        return value[index.cpu().numpy()] if value.ndim and len(value) == n else value
    if isinstance(value, (list, tuple)) and len(value) == n:
        return type(value)([value[i] for i in index.tolist()])
    return value


def _unseen(visibility: Tensor, gone: Tensor) -> Tensor:
    """Marks what left the frame as not visible. Keeps shape and dtype."""
    return torch.where(gone.reshape(visibility.shape), torch.zeros_like(visibility), visibility)


def as_targets(targets: Mapping[Any, str | Target]) -> dict[Key, Target]:
    """Kinds by name as Targets. Raises ValueError on an unknown kind."""
    given = {key: kind if isinstance(kind, Target) else Target(kind) for key, kind in targets.items()}
    for key, target in given.items():
        if target.kind not in KINDS:
            raise ValueError(f"`targets[{key!r}]` should be one of {', '.join(KINDS)}. Found {target.kind!r}.")
    return given


def apply_view(
    batch: Rows, view: View, *, targets: Mapping[Any, str | Target] | None = None, output_size: Size | int | None = None
) -> Rows:
    """The batch as a view sees it, in its own structure: what `StepResult.view` did, done again, or a view of your own."""
    rows = parse(batch, targets)
    return rows.seen(view, as_size(output_size) or rows.size).user()


def parse(batch: Any, targets: Mapping[Any, str | Target] | None, device: torch.device | None = None) -> Batch:
    """Reads a user's batch: a mapping or a tuple of tensors, row first.

    Raises TypeError or ValueError, each with what to do, on an entry whose kind nobody said, on integer images, on
    row numbers or devices that differ, and on shapes that do not fit their kind.
    """
    if isinstance(batch, Mapping):
        entries: dict[Key, Any] = dict(batch)
    elif isinstance(batch, (tuple, list)):
        entries = dict(enumerate(batch))
    else:
        raise TypeError(f"A batch should be a mapping or a tuple. Found {type(batch).__name__}.")
    given = as_targets(targets or {})
    kinds = {key: given.get(key) or _guess(key, value) for key, value in entries.items()}
    parsed = Batch(entries, kinds, batch)
    _check_images(parsed, device)
    for key, target in kinds.items():
        _check_entry(key, entries[key], target.kind, parsed)
        if key not in given:
            _check_guess(key, entries[key], target.kind, parsed)
    _check_joints(parsed)
    return parsed


def _guess(key: Key, value: Any) -> Target:
    if key in KIND_OF:
        return Target(KIND_OF[str(key)])
    if key == 0:
        return Target("image")
    integers = isinstance(value, Tensor) and value.ndim == 1 and not value.is_floating_point()
    if isinstance(key, int) and integers:
        return Target("label")  # one integer a row cannot go stale when pixels move
    if _holds_numbers(value):
        raise ValueError(
            f"Each tensor of a batch should have a kind, so that it does not go stale when pixels move. Found {key!r} without "
            f"one; pass targets={{{key!r}: kind}} with one of {', '.join(KINDS)}."
        )
    return Target("other")


def _holds_numbers(value: Any) -> bool:
    if isinstance(value, (Tensor, np.ndarray)):
        return True
    if isinstance(value, Mapping):
        return any(_holds_numbers(item) for item in value.values())
    return isinstance(value, (list, tuple)) and any(_holds_numbers(item) for item in value)


def _check_images(batch: Batch, device: torch.device | None) -> None:
    images = [key for key, target in batch.targets.items() if target.kind == "image"]
    if len(images) != 1:
        raise ValueError(
            f"A batch should hold one entry of kind image. Found {len(images)} among {list(batch.entries)}; "
            'say which it is with targets={key: "image"}.'
        )
    image = batch.entries[images[0]]
    if not isinstance(image, Tensor):
        raise TypeError(f"Images should be a tensor [B, C, H, W]. Found {type(image).__name__} at {images[0]!r}.")
    if image.ndim != 4:
        raise ValueError(f"Images should have shape [B, C, H, W]. Found {tuple(image.shape)} at {images[0]!r}.")
    if not image.is_floating_point():
        raise TypeError(f"Images should be floating point. Found {image.dtype}; use image.float() / 255.")
    if len(image) == 0:
        raise ValueError("A batch should have at least one row. Found an empty one.")
    if device is not None and image.device != device:
        raise ValueError(f"The batch should be on the model's device, {device}. Found images on {image.device}.")


def _check_entry(key: Key, value: Any, kind: str, batch: Batch) -> None:
    if kind in ("label", "other"):
        if isinstance(value, Tensor) and kind == "label" and (value.ndim == 0 or len(value) != len(batch)):
            raise ValueError(f"{key!r} should have one row for each of {len(batch)} images. Found {tuple(value.shape)}.")
        return
    if not isinstance(value, Tensor):
        raise TypeError(f"{key!r}, of kind {kind}, should be a tensor. Found {type(value).__name__}.")
    if value.ndim not in DIMENSIONS[kind] or len(value) != len(batch):
        dimensions = " or ".join(map(str, DIMENSIONS[kind]))
        raise ValueError(
            f"{key!r}, of kind {kind}, should have {dimensions} dimensions and {len(batch)} rows. Found {tuple(value.shape)}."
        )
    if value.device != batch.image.device:
        raise ValueError(f"{key!r} should be on the device of the images, {batch.image.device}. Found {value.device}.")
    last = {"keypoints": (2, 3), "boxes": (4,)}.get(kind)
    if last and value.shape[-1] not in last:
        wanted = " or ".join(map(str, last))
        raise ValueError(f"{key!r}, of kind {kind}, should have a last dimension of {wanted}. Found {tuple(value.shape)}.")
    if kind in ("keypoints", "boxes", "heatmaps") and not value.is_floating_point():
        raise TypeError(f"{key!r}, of kind {kind}, should be floating point. Found {value.dtype}; use .float().")


def _check_guess(key: Key, value: Any, kind: str, batch: Batch) -> None:
    """Raises ValueError where a name says "carry it along" and the shape says that it belongs to the pixels."""
    if kind in ("label", "other") and isinstance(value, Tensor) and value.ndim > 2 and value.shape[-2:] == batch.size:
        raise ValueError(
            f"{key!r} would be carried along as it is, by its name. Found shape {tuple(value.shape)}, a value a pixel, "
            f'which would go stale when they move; pass targets={{{key!r}: "mask"}} (or {kind!r}, if it is to stay).'
        )


def _check_joints(batch: Batch) -> None:
    sets, visibilities = batch.of("keypoints"), batch.of("visibility")
    if sets and visibilities and len(sets) + len(visibilities) > 2:
        raise ValueError(
            f"A batch should hold one set of keypoints if it holds visibility. Found {len(sets)} and {len(visibilities)}; "
            "join them, or keep visibility as a third column."
        )
    for points, visible in zip(sets, visibilities, strict=False):
        if visible.shape[: points.ndim - 1] != points.shape[:-1] or visible.numel() != points[..., 0].numel():
            raise ValueError(
                f"Visibility should have one number for each keypoint, {tuple(points.shape[:-1])}. "
                f"Found {tuple(visible.shape)}."
            )


def check_flip(batch: Batch, pairs: Sequence[tuple[int, int]] | None) -> None:
    """Raises ValueError when the batch has keypoints that a flip would leave with the names of the other side."""
    counts = [value.shape[-2] for value in batch.of("keypoints")] + [value.shape[1] for value in batch.of("heatmaps")]
    counts += [value.shape[batch.joint_dim(value)] for value in batch.of("visibility")]
    if not counts:
        return
    if pairs is None:
        raise ValueError(
            "A Flip should know which keypoints change places. Found keypoints or heat maps in the batch and pairs=None; "
            "pass flip_pairs=[(left, right), ...], or () if none do."
        )
    highest = max((index for pair in pairs for index in pair), default=-1)
    if highest >= min(counts):
        raise ValueError(f"Flip pairs should name keypoints from 0 to {min(counts) - 1}. Found {highest} in {list(pairs)}.")

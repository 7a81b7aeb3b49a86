"""People to train on: crops, joints, and the length that PCK divides by."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

Batch = dict[str, Tensor]
Scores = dict[str, float]  # group of joints, or "Mean" over all joints that are in a group -> per cent
TARGETS: dict[str | int, str] = {"pck_length": "other"}  # the kinds of entries whose names adaug does not know


@dataclass(frozen=True)
class Joints:
    """The joints of a data set: names, left-right pairs, the groups of its result tables, limbs for drawing."""

    name: str
    names: tuple[str, ...]
    flip_pairs: tuple[tuple[int, int], ...]
    groups: Mapping[str, tuple[int, ...]]
    limbs: tuple[tuple[int, int], ...]

    def __len__(self) -> int:
        return len(self.names)

    def as_drawn(self) -> dict[str, Any]:
        """The arguments of `adaug.plots.draw_views` for these joints."""
        left, right = ([i for i, name in enumerate(self.names) if name.startswith(side)] for side in ("left", "right"))
        return {"limbs": self.limbs, "left": left, "right": right}


# The groups are the columns of published PCKh tables. Pelvis and thorax are in no group and not in the mean.
MPII = Joints(
    name="MPII",
    names=(
        *("right ankle", "right knee", "right hip", "left hip", "left knee", "left ankle"),
        *("pelvis", "thorax", "upper neck", "head top"),
        *("right wrist", "right elbow", "right shoulder", "left shoulder", "left elbow", "left wrist"),
    ),
    flip_pairs=((0, 5), (1, 4), (2, 3), (10, 15), (11, 14), (12, 13)),
    groups={
        "Head": (8, 9),
        "Sho.": (12, 13),
        "Elb.": (11, 14),
        "Wri.": (10, 15),
        "Hip": (2, 3),
        "Knee": (1, 4),
        "Ank.": (0, 5),
    },
    limbs=(
        *((0, 1), (1, 2), (2, 6), (6, 3), (3, 4), (4, 5), (6, 7), (7, 8), (8, 9)),
        *((10, 11), (11, 12), (12, 7), (7, 13), (13, 14), (14, 15)),
    ),
)

LSP = Joints(
    name="LSP",
    names=(
        *("right ankle", "right knee", "right hip", "left hip", "left knee", "left ankle"),
        *("right wrist", "right elbow", "right shoulder", "left shoulder", "left elbow", "left wrist"),
        *("neck", "head top"),
    ),
    flip_pairs=((0, 5), (1, 4), (2, 3), (6, 11), (7, 10), (8, 9)),
    groups={
        "Head": (12, 13),
        "Sho.": (8, 9),
        "Elb.": (7, 10),
        "Wri.": (6, 11),
        "Hip": (2, 3),
        "Knee": (1, 4),
        "Ank.": (0, 5),
    },
    limbs=(
        *((0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (2, 8), (3, 9), (12, 13)),
        *((6, 7), (7, 8), (8, 12), (12, 9), (9, 10), (10, 11)),
    ),
)


@dataclass(frozen=True, eq=False)
class People:
    """N people, one per image, each filling the central part of a square canvas of side C.

    images      uint8   [N, 3, C, C]
    keypoints   float32 [N, J, 2]  x, y in pixels, (0, 0) the centre of the first pixel
    visibility  float32 [N, J]     1 labelled and usable, 0 not
    pck_length  float32 [N]        the length PCK divides by, in the same pixels: head size (MPII) or torso (LSP)
    """

    images: Tensor
    keypoints: Tensor
    visibility: Tensor
    pck_length: Tensor
    joints: Joints

    def __post_init__(self) -> None:
        n, canvas, joints = len(self.images), self.images.shape[-1], len(self.joints)
        expected: dict[str, tuple[tuple[int, ...], torch.dtype]] = {
            "images": ((n, 3, canvas, canvas), torch.uint8),
            "keypoints": ((n, joints, 2), torch.float32),
            "visibility": ((n, joints), torch.float32),
            "pck_length": ((n,), torch.float32),
        }
        for name, (shape, dtype) in expected.items():
            value: Tensor = getattr(self, name)
            if tuple(value.shape) != shape or value.dtype != dtype:
                raise ValueError(
                    f"`{name}` should be {dtype} of shape {shape}. Found {value.dtype} of shape {tuple(value.shape)}."
                )

    def __len__(self) -> int:
        return len(self.images)

    def fingerprint(self) -> str:
        """A fingerprint of these people."""
        digest = hashlib.sha256(self.keypoints.numpy().tobytes())
        return f"{self.joints.name}-{len(self)}-{self.images.shape[-1]}-{digest.hexdigest()[:12]}"

    def subset(self, indices: Sequence[int] | Tensor) -> People:
        """The people at these indices, in this order."""
        index = torch.as_tensor(indices, dtype=torch.long)
        return replace(
            self,
            images=self.images[index],
            keypoints=self.keypoints[index],
            visibility=self.visibility[index],
            pck_length=self.pck_length[index],
        )

    def cropped(self, size: int) -> People:
        """The central size x size of every canvas: what a network sees without augmentation."""
        canvas = self.images.shape[-1]
        if size > canvas or (canvas - size) % 2:
            raise ValueError(f"`size` should be at most {canvas} and differ from it by an even number. Found {size}.")
        margin = (canvas - size) // 2
        images = self.images[:, :, margin : margin + size, margin : margin + size].contiguous()
        return replace(self, images=images, keypoints=self.keypoints - margin)

    def batches(
        self,
        batch_size: int,
        *,
        seed: int = 0,
        epoch: int = 0,
        shuffle: bool = True,
        drop_last: bool = False,
    ) -> Iterator[Batch]:
        """Mini-batches of one epoch: "image" float32 in [0, 1], "keypoints", "visibility", "pck_length", "index" long.

        The order depends only on (seed, epoch).
        """
        if batch_size < 1:
            raise ValueError(f"`batch_size` should be at least 1. Found {batch_size}.")
        order = self.order(seed, epoch) if shuffle else torch.arange(len(self))
        end = len(self) - len(self) % batch_size if drop_last else len(self)
        return (self.rows(order[first : min(first + batch_size, end)]) for first in range(0, end, batch_size))

    def order(self, seed: int, epoch: int) -> Tensor:
        """The order of everybody in an epoch, [N] long."""
        return torch.from_numpy(np.random.default_rng([seed, epoch]).permutation(len(self)))

    def loaded(self, indices: Iterable[Tensor], *, pin: bool = False, ahead: int = 2) -> Iterator[Batch]:
        """The `raw_rows` of each index. A thread reads `ahead` batches in advance, into pinned memory if `pin`."""

        def load(index: Tensor) -> Batch:
            rows = self.raw_rows(index)
            return {name: value.pin_memory() for name, value in rows.items()} if pin else rows

        with ThreadPoolExecutor(1) as reader:
            waiting: deque[Future[Batch]] = deque()
            for index in indices:
                waiting.append(reader.submit(load, index))
                if len(waiting) > ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()

    def rows(self, index: Tensor) -> Batch:
        """Those of these numbers, [n] long."""
        return as_floats(self.raw_rows(index))

    def raw_rows(self, index: Tensor) -> Batch:
        """Those of these numbers, [n] long, with images as uint8: a quarter of what floats take on the way to a device."""
        return {
            "image": self.images[index],
            "keypoints": self.keypoints[index],
            "visibility": self.visibility[index],
            "pck_length": self.pck_length[index],
            "index": index,
        }


def as_floats(batch: Batch) -> Batch:
    """The batch with its images as floats in [0, 1]."""
    return {**batch, "image": batch["image"].float() / 255}

"""Small tasks on real images. A run takes well under a minute on one CPU core."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import Tensor, nn

from adaug.keypoints import Pairs, decode_heatmaps, normalized_error, render_heatmaps
from examples import classification, face_alignment, segmentation
from examples.datasets.lsp import load_lsp
from examples.datasets.people import TARGETS, People
from examples.datasets.w300 import load_w300
from examples.hourglass.losses import heatmap_cross_entropy, predicted_heatmaps

Rows = Any  # a batch: a mapping or a tuple of tensors
Measure = Callable[[Any, Rows], Tensor]
STRIDE = 4
SIDE = 64  # of a view
AROUND = 3 / 2  # the images in memory are so much larger, so that zooming out shows real surroundings
NEAR = 0.2  # a joint counts as found within this part of the torso
REGIONS = ("background", "face", "brows", "eyes", "nose", "mouth")


@dataclass(frozen=True)
class Task:
    """A task: a network, its data, its loss and its score.

    Attributes:
        about: A description of the scores, for the page.
        network: Makes the network from torch's random state.
        layers: The layers that generators read and masks multiply.
        loss_fn: (output, batch) -> [B].
        error: A difficulty that does not grow with the object's size, (output, batch) -> [B]. None if the loss is one.
        score: The score of an audit, (output, batch) -> [B] or [B, K].
        batches: (batch size, seed, epoch) -> the training batches of an epoch.
        test: The batches to audit on.
        pairs: Keypoints that change places in a mirror image. None means no flip.
        hides: Whether training hides cells.
        targets: The kinds of entries whose names do not tell.
        size: The side of a view. None means that of the images.
        epochs: The default number of epochs.
        batch_size: The default batch size.
        lr: The highest learning rate of Adam's one cycle.
        rows: Gives the training rows with these numbers, which are also their "index". None if rows have no numbers.
        n: The number of training images.
    """

    about: str
    network: Callable[[], nn.Module]
    layers: tuple[str, ...]
    loss_fn: Measure
    error: Measure | None
    score: Measure
    batches: Callable[[int, int, int], Iterator[Rows]]
    test: list[Rows]
    pairs: Pairs | None
    epochs: int
    batch_size: int = 16
    lr: float = 3e-3
    hides: bool = True
    targets: dict[Any, Any] | None = None
    size: int | None = SIDE
    rows: Callable[[Tensor], Rows] | None = None
    n: int = 0


# -- people and faces ------------------------------------------------------------------------------------------------


class PointUNet(nn.Module):
    """Two levels down and up again: [B, 3, H, W] -> logits of heat maps [B, points, H / 4, W / 4]."""

    def __init__(self, points: int, width: int = 40) -> None:
        super().__init__()
        self.stem = nn.Sequential(_layer(3, width // 2, kernel=5, stride=2), _layer(width // 2, width, stride=2))
        self.down = nn.ModuleList([_layer(width, width), _layers(width, width)])
        self.neck = _layers(width, width)
        self.up = nn.ModuleList([_layer(2 * width, width), _layer(2 * width, width)])
        self.score = nn.Conv2d(width, points, 1)

    def forward(self, image: Tensor) -> Tensor:
        fine = self.down[0](self.stem(image))
        coarse = self.down[1](F.max_pool2d(fine, 2))
        x = self.neck(F.max_pool2d(coarse, 2))
        for block, skip in zip(self.up, (coarse, fine), strict=True):
            x = block(torch.cat([skip, F.interpolate(x, scale_factor=2.0, mode="nearest")], 1))
        logits: Tensor = self.score(x)
        return logits


def _layer(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())


def _layers(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(_layer(inputs, outputs), _layer(outputs, outputs))


def _channels_last(model: nn.Module) -> nn.Module:
    """Converts to the memory layout that is faster on a CPU."""
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def heatmap_loss(output: Tensor, batch: Rows) -> Tensor:
    """Cross-entropy over the pixels of each heat map. -> [B]."""
    target = render_heatmaps(batch["keypoints"], output.shape[-1], stride=STRIDE, visibility=batch["visibility"])
    return heatmap_cross_entropy([output], target, batch["visibility"])


def heatmap_error(output: Tensor, batch: Rows) -> Tensor:
    """The mean error over the size of the person or face, [B]."""
    return normalized_error(predicted_heatmaps("cross-entropy", [output]), batch)


def joints_found(output: Tensor, batch: Rows) -> Tensor:
    """PCK@0.2: which joints are found (1) or not (0), [B, K]. The torso's length is that in the view."""
    predicted, _ = decode_heatmaps(predicted_heatmaps("cross-entropy", [output]), stride=STRIDE)
    truth = batch["keypoints"]
    torso = (truth[:, 9] - truth[:, 2]).norm(dim=-1)  # left shoulder to right hip
    return ((predicted - truth).norm(dim=-1) <= NEAR * torso[:, None]).float()


def points_found(output: Tensor, batch: Rows) -> Tensor:
    """Which points of a face are found (1) or not (0), [B, 68]."""
    return face_alignment.found(output, batch)


def of_points(about: str, known: People, new: People, score: Measure, epochs: int, side: int = SIDE) -> Task:
    """The task to find the points of people or faces."""
    joints = known.joints
    return Task(
        about=f"{about} {len(known)} to train on, {len(new)} to test on, {side} pixels wide",
        network=lambda: _channels_last(PointUNet(len(joints))),
        layers=("down.*", "neck"),
        loss_fn=heatmap_loss,
        error=heatmap_error,
        score=score,
        batches=lambda size, seed, epoch: known.batches(size, seed=seed, epoch=epoch, drop_last=True),
        test=list(new.batches(64, shuffle=False)),
        pairs=joints.flip_pairs,
        epochs=epochs,
        targets=TARGETS,
        size=side,
        rows=known.rows,
        n=len(known),
    )


def people(data: Path, *, train: int = 300, test: int = 1000, side: int = SIDE) -> Task:
    """Leeds Sports Pose: 14 joints. `data` has lsp."""
    sizes = {"size": side, "canvas": round(side * AROUND)}
    known, new = (_first(load_lsp(data, part, **sizes), n) for part, n in _parts(train, test))
    about = "PCK@0.2 of the torso in per cent, without flip test; people of LSP:"
    return of_points(about, known, new, joints_found, 50, side)


def faces(data: Path, *, train: int = 150, test: int = 330, side: int = SIDE) -> Task:
    """Helen, a part of 300-W: 68 points."""
    known, new = _helen(data, train, test, side)
    about = f"Points within {face_alignment.NEAR} of the distance of the outer eye corners, in per cent; faces of Helen:"
    return of_points(about, known, new, points_found, 80, side)


def _first(people: People, n: int) -> People:
    return people.subset(range(min(n, len(people))))


def _parts(train: int, test: int) -> tuple[tuple[Any, int], tuple[Any, int]]:
    return ("train", train), ("test", test)


def _helen(data: Path, train: int, test: int, side: int) -> tuple[People, People]:
    """The first faces, sorted by name. `data` has trainset and testset, or face300w/helen with both."""
    below = data / "face300w" / "helen"
    data = below if below.is_dir() else data
    sizes = {"size": side, "canvas": round(side * AROUND)}
    known, new = (_first(load_w300(data / f"{part}set", progress=False, **sizes), n) for part, n in _parts(train, test))
    return known, new


# -- regions of faces ------------------------------------------------------------------------------------------------


def regions(faces: People) -> Rows:
    """Label maps of faces, drawn from their 68 points: "image" [N, 3, C, C] in [0, 1], "mask" [N, C, C] uint8."""
    masks = torch.stack([torch.from_numpy(_drawn(points.tolist(), faces.images.shape[-1])) for points in faces.keypoints])
    return {"image": faces.images.float() / 255, "mask": masks}


def _drawn(points: list[list[float]], side: int) -> np.ndarray[Any, Any]:
    xy = [(x, y) for x, y in points]
    mask = Image.new("L", (side, side))
    painter = ImageDraw.Draw(mask)
    painter.polygon([*xy[:17], *xy[26:16:-1]], fill=REGIONS.index("face"))
    for brow in (xy[17:22], xy[22:27]):
        painter.line(brow, fill=REGIONS.index("brows"), width=3)
    painter.polygon([xy[27], *xy[31:36]], fill=REGIONS.index("nose"))
    for eye in (xy[36:42], xy[42:48]):
        painter.polygon(eye, fill=REGIONS.index("eyes"))
    painter.polygon(xy[48:60], fill=REGIONS.index("mouth"))
    return np.array(mask)


def region_error(output: Tensor, batch: Rows) -> Tensor:
    """1 - the mean IoU of an image's regions, [B]. Small regions count as much as large ones."""
    return 1 - segmentation.iou_of_each(output.detach(), batch).nanmean(1)


def segmentation_of_faces(data: Path, *, train: int = 150, test: int = 330, side: int = SIDE) -> Task:
    """Helen again: a small U-Net finds the regions of a face."""
    known, new = map(regions, _helen(data, train, test, side))
    return Task(
        about=f"IoU of {len(REGIONS)} regions of faces of Helen, the mean of an image, in per cent; "
        f"{len(known['image'])} to train on, {len(new['image'])} to test on, {side} pixels wide",
        network=lambda: _channels_last(segmentation.UNet(len(REGIONS), width=10)),
        layers=("down.*",),
        loss_fn=segmentation.loss_fn,
        error=region_error,
        score=segmentation.iou_of_each,
        batches=lambda size, seed, epoch: segmentation.batches(known, size, seed * 1000 + epoch),
        test=[dict(zip(new, part, strict=True)) for part in zip(*(value.split(64) for value in new.values()), strict=True)],
        pairs=(),
        epochs=50,
        batch_size=8,
        lr=5e-3,
        targets=dict(segmentation.TARGETS),
        size=side,
    )


# -- digits ----------------------------------------------------------------------------------------------------------


class DigitNet(nn.Module):
    """Three convolutions: [B, 1, 32, 32] -> logits [B, 10]."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.layers = nn.ModuleList([_layer(1, width), _layer(width, 2 * width), _layer(2 * width, 4 * width)])
        self.score = nn.Linear(4 * width * 4 * 4, 10)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = F.max_pool2d(layer(x), 2)
        logits: Tensor = self.score(x.flatten(1))
        return logits


def digits(data: Path | None = None, *, train: int = 300, test: int = 1497) -> Task:
    """scikit-learn's handwritten digits, which come with it. `data` is not used."""
    first, last = classification.digits(1000)
    image, label = (torch.cat(part) for part in zip(first, last, strict=True))
    known, new = (image[:train], label[:train]), (image[train:][:test], label[train:][:test])
    return Task(
        about=f"Digits named right, in per cent; {train} to train on, {len(new[0])} to test on",
        network=DigitNet,
        layers=("layers.*",),
        loss_fn=classification.loss_fn,
        error=None,
        score=classification.right,
        batches=lambda size, seed, epoch: classification.batches(known, size, seed * 1000 + epoch),
        test=list(zip(new[0].split(128), new[1].split(128), strict=True)),
        pairs=None,
        epochs=60,
        hides=False,
        size=None,
    )

"""300-W (Sagonas et al., ICCV Workshops 2013): its 68 points and its files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm  # type: ignore[import-untyped, unused-ignore]

from examples.datasets.cropping import UNREADABLE
from examples.datasets.lsp import crop_person
from examples.datasets.people import Joints, People

OUTER_EYE_CORNERS = (36, 45)
IMAGES = (".jpg", ".jpeg", ".png")


def _strokes(*lines: range, closed: tuple[range, ...]) -> tuple[tuple[int, int], ...]:
    """Pairs of neighbours along lines, and around closed lines."""
    open_ends = [(a, a + 1) for line in (*lines, *closed) for a in line[:-1]]
    return (*open_ends, *((line[-1], line[0]) for line in closed))


# 0-based. "left" and "right" are the person's own, so point 0, on the left of an image, is on the right jaw.
W300 = Joints(
    name="300-W",
    names=(
        *(f"jaw {i}" for i in range(17)),
        *(f"right brow {i}" for i in range(5)),
        *(f"left brow {i}" for i in range(5)),
        *(f"nose {i}" for i in range(9)),
        *(f"right eye {i}" for i in range(6)),
        *(f"left eye {i}" for i in range(6)),
        *(f"outer lip {i}" for i in range(12)),
        *(f"inner lip {i}" for i in range(8)),
    ),
    flip_pairs=(
        *((i, 16 - i) for i in range(8)),
        *((17 + i, 26 - i) for i in range(5)),
        *((31, 35), (32, 34)),
        *((36, 45), (37, 44), (38, 43), (39, 42), (40, 47), (41, 46)),
        *((48, 54), (49, 53), (50, 52), (55, 59), (56, 58)),
        *((60, 64), (61, 63), (65, 67)),
    ),
    groups={
        "Jaw": tuple(range(17)),
        "Brows": tuple(range(17, 27)),
        "Nose": tuple(range(27, 36)),
        "Eyes": tuple(range(36, 48)),
        "Mouth": tuple(range(48, 68)),
    },
    limbs=_strokes(
        *(range(17), range(17, 22), range(22, 27), range(27, 31), range(31, 36)),
        closed=(range(36, 42), range(42, 48), range(48, 60), range(60, 68)),
    ),
)


def inter_ocular(keypoints: Tensor) -> Tensor:
    """The distance of the outer eye corners. [..., 68, 2] -> [...]."""
    right, left = OUTER_EYE_CORNERS
    return (keypoints[..., right, :] - keypoints[..., left, :]).norm(dim=-1)


def read_pts(path: Path) -> NDArray[np.float64]:
    """Reads the points [68, 2] of a .pts file. (0, 0) is the centre of the first pixel.

    The file counts from 1, like MATLAB. Raises ValueError unless it has 68 finite points.
    """
    try:
        inside = path.read_text(encoding="ascii").partition("{")[2].partition("}")
        points = np.array([line.split() for line in inside[0].strip().splitlines()], np.float64)
        if not inside[1] or points.shape != (68, 2) or not np.isfinite(points).all():
            raise ValueError(f"points of shape {points.shape}")
    except ValueError as error:
        raise ValueError(f"{path} should hold 68 points (x y) in braces. Found otherwise: {error}. Replace it.") from error
    return points - 1


def write_pts(path: Path, points: NDArray[np.float64]) -> None:
    """Writes points for `read_pts`."""
    rows = "".join(f"{x:.4f} {y:.4f}\n" for x, y in points + 1)
    path.write_text(f"version: 1\nn_points: {len(points)}\n{{\n{rows}}}\n", encoding="ascii")


def load_w300(folder: str | Path, *, size: int = 64, canvas: int = 96, progress: bool = True) -> People:
    """Loads the faces in a folder and its subfolders. Each image has its .pts beside it.

    The box of the landmarks x 1.25 fills the central size x size of a canvas that shows the real surroundings. `pck_length` is
    the inter-ocular distance. All images are kept in memory as uint8. If an image or a .pts is missing or cannot be read, the
    error names it.
    """
    folder = Path(folder)
    images = {path.with_suffix(""): path for path in sorted(folder.rglob("*")) if path.suffix.lower() in IMAGES}
    labels = {path.with_suffix(""): path for path in folder.rglob("*.pts")}
    for stem in sorted(images.keys() ^ labels.keys()):
        path, missing = (images[stem], "a .pts") if stem in images else (labels[stem], "an image")
        raise FileNotFoundError(f"Each image should have a .pts beside it. Found {path} without {missing}.")
    if not images:
        raise FileNotFoundError(f"{folder} should hold images with .pts files beside them. Found none.")
    crops, points = [], []
    for stem, path in tqdm(images.items(), folder.name, disable=not progress):
        truth = read_pts(labels[stem])
        try:
            image, mapped = crop_person(path, truth, np.ones(68), size, canvas)
        except UNREADABLE as error:
            raise OSError(f"{path} cannot be read: {error}. Replace it, or remove it with its .pts.") from error
        crops.append(image)
        points.append(mapped)
    keypoints = torch.from_numpy(np.stack(points).astype(np.float32))
    return People(torch.from_numpy(np.stack(crops)), keypoints, torch.ones(len(crops), 68), inter_ocular(keypoints), W300)

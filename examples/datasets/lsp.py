"""Leeds Sports Pose (LSP; Johnson and Everingham, BMVC 2010) and its extension (LSPET; CVPR 2011), cropped to their people.

It reads the published files: `root/lsp` and `root/lspet`, each with `images/` and `joints.mat`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.io import loadmat  # type: ignore[import-untyped, unused-ignore]

from examples.datasets.crop_cache import load_crops
from examples.datasets.cropping import Array, Originals, cut, to_crop
from examples.datasets.people import LSP, People

MARGIN = 1.25  # side of the crop / longer side of the box around the joints
SMALLEST = 24.0  # pixels: the smallest crop, for people with only one or two labelled joints
LEFT_SHOULDER, RIGHT_HIP = 9, 2


def load_lsp(
    root: str | Path, split: Literal["train", "test"] = "train", *, size: int = 64, canvas: int = 96, **cache: Any
) -> People:
    """Loads LSP's first 1000 people ("train") or last 1000 ("test"). Each fills the central size x size of its canvas.

    `pck_length` is the torso, from left shoulder to right hip. cache: further arguments of `crop_cache.load_crops`.
    """
    if split not in ("train", "test"):
        raise ValueError(f"`split` should be 'train' or 'test'. Found {split!r}.")
    return load_crops(split_of(read_lsp(folders(root)[0]), split), f"lsp-{split}", size=size, canvas=canvas, **cache)[0]


def folders(root: str | Path) -> tuple[Path, Path]:
    """The folders of LSP and its extension. root: their parent, or LSP's own folder with joints.mat."""
    own = Path(root) if (Path(root) / "joints.mat").is_file() else Path(root) / "lsp"
    return own, own.parent / "lspet"


def read_lsp(folder: Path) -> Originals:
    """Reads LSP's labels. The flag 1 means occluded; such joints count too, because all coordinates are valid."""
    joints = _read_mat(folder, (3, 14, None)).transpose(2, 1, 0)  # [N, 14, 3]
    files = tuple(folder / "images" / f"im{i:04d}.jpg" for i in range(1, len(joints) + 1))
    return _originals(files, joints[..., :2] - 1, np.ones(joints.shape[:2]))


def read_lspet(folder: Path) -> Originals:
    """Reads LSPET's labels. Unlike in LSP, the flag 1 means labelled, and 0 means that coordinates are useless."""
    joints = _read_mat(folder, (14, 3, None)).transpose(2, 0, 1)  # [N, 14, 3]
    files = tuple(folder / "images" / f"im{i:05d}.jpg" for i in range(1, len(joints) + 1))
    visibility = (joints[..., 2] > 0).astype(np.float64)
    return _originals(files, np.where(visibility[..., None] > 0, joints[..., :2] - 1, 0), visibility)


def split_of(people: Originals, split: Literal["train", "test"]) -> Originals:
    """LSP's first half, which is the training set, or its second half."""
    half = len(people) // 2
    return people.subset(range(half) if split == "train" else range(half, len(people)))


def _originals(files: tuple[Path, ...], keypoints: Array, visibility: Array) -> Originals:
    centre, side = (np.array(values) for values in zip(*map(window, keypoints, visibility), strict=True))
    return Originals(files, centre, side, keypoints, visibility, torso(keypoints, visibility, side), LSP)


def _read_mat(folder: Path, shape: tuple[int, int, None]) -> Array:
    path = folder / "joints.mat"
    if not path.is_file():
        raise FileNotFoundError(
            f"`root` should hold {folder.name}/joints.mat and {folder.name}/images. Found no {path}. "
            f"Unpack the published archive as {folder}."
        )
    joints = np.asarray(loadmat(str(path))["joints"], np.float64)
    if joints.ndim != 3 or joints.shape[:2] != shape[:2]:
        raise ValueError(
            f"{path} should hold `joints` of shape ({shape[0]}, {shape[1]}, N). Found {joints.shape}. "
            "LSP and its extension order the axes differently: are the two exchanged?"
        )
    return joints


def crop_person(path: Path, keypoints: Array, visibility: Array, size: int, canvas: int) -> tuple[NDArray[np.uint8], Array]:
    """Cuts the canvas [3, canvas, canvas] around one person (zero outside the image). Also returns its keypoints [J, 2]."""
    centre, side = window(keypoints, visibility)
    return cut(path, centre, side, size, canvas), to_crop(keypoints, centre, np.float64(side), size, canvas)


def window(keypoints: Array, visibility: Array) -> tuple[Array, float]:
    """The centre [2] and the side of the square around one person's labelled keypoints [J, 2]."""
    labelled = keypoints[visibility > 0] if (visibility > 0).any() else keypoints
    low, high = labelled.min(0), labelled.max(0)
    return (low + high) / 2, max(MARGIN * float((high - low).max()), SMALLEST)


def torso(keypoints: Array, visibility: Array, side: Array) -> Array:
    """The distance from left shoulder to right hip, [N]. If one is not labelled, a typical part of the window's side."""
    length = np.linalg.norm(keypoints[:, LEFT_SHOULDER] - keypoints[:, RIGHT_HIP], axis=1)
    labelled = (visibility[:, LEFT_SHOULDER] > 0) & (visibility[:, RIGHT_HIP] > 0)
    if not labelled.any():
        raise ValueError("At least one person should have a labelled left shoulder and right hip. Found none.")
    result: Array = np.where(labelled, length, (length / side)[labelled].mean() * side)
    return result

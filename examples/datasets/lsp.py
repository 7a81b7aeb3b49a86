"""Leeds Sports Pose (Johnson and Everingham, BMVC 2010) and its extension (CVPR 2011), cropped to their people.

Both are read from the files as published: `root/lsp` and `root/lspet`, each with `images/` and `joints.mat`.
"""

from __future__ import annotations

import os
import tempfile
import warnings
import zipfile
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.io import loadmat  # type: ignore[import-untyped, unused-ignore]
from tqdm import tqdm  # type: ignore[import-untyped, unused-ignore]

from examples.datasets.crop_cache import cache_folder, fingerprint, stamps, targets, unreadable
from examples.datasets.cropping import UNREADABLE, Array, Originals, cut, to_crop
from examples.datasets.people import LSP, People

FORMAT = 2  # raise it when the crops change: older caches are then not found
MARGIN = 1.25  # the crop's side over the longer side of the box around the joints
SMALLEST = 24.0  # pixels; the least side of a crop, for people of whom one or two joints are labelled
LEFT_SHOULDER, RIGHT_HIP = 9, 2


def load_lsp(
    root: str | Path,
    split: Literal["train", "test"] = "train",
    *,
    size: int = 64,
    canvas: int = 96,
    skip_corrupt: bool = False,
    cache_dir: str | Path | None = None,
    progress: bool = True,
) -> People:
    """LSP's first 1000 people ("train") or last 1000 ("test"); each fills the central size x size of its canvas.

    `reference` is the torso, left shoulder to right hip. Files that cannot be read raise an error that names them;
    `skip_corrupt=True` leaves it out and warns how many were. The crops are cached in `cache_dir`, by default
    `adaug` in `$XDG_CACHE_HOME` or `~/.cache`.
    """
    if split not in ("train", "test"):
        raise ValueError(f"`split` should be 'train' or 'test'. Found {split!r}.")
    people = split_of(read_lsp(Path(root) / "lsp"), split)
    return _load(people, size, canvas, skip_corrupt, cache_dir, progress)


def load_lspet(
    root: str | Path,
    *,
    size: int = 64,
    canvas: int = 96,
    skip_corrupt: bool = False,
    cache_dir: str | Path | None = None,
    progress: bool = True,
) -> People:
    """The extended training set, as many images as `joints.mat` describes; otherwise like `load_lsp`.

    Its labels come from crowd workers. A person without a labelled torso gets the mean torso as `reference`.
    """
    return _load(read_lspet(Path(root) / "lspet"), size, canvas, skip_corrupt, cache_dir, progress)


def read_lsp(folder: Path) -> Originals:
    """LSP's labels. Its flag 1 means occluded, which is no reason to leave a joint out: all coordinates are valid."""
    joints = _read_mat(folder, (3, 14, None)).transpose(2, 1, 0)  # [N, 14, 3]
    files = tuple(folder / "images" / f"im{i:04d}.jpg" for i in range(1, len(joints) + 1))
    return _originals(files, joints[..., :2] - 1, np.ones(joints.shape[:2]))


def read_lspet(folder: Path) -> Originals:
    """LSPET's labels. Its flag is the opposite of LSP's: 1 means labelled, 0 that the coordinates are rubbish."""
    joints = _read_mat(folder, (14, 3, None)).transpose(2, 0, 1)  # [N, 14, 3]
    files = tuple(folder / "images" / f"im{i:05d}.jpg" for i in range(1, len(joints) + 1))
    visibility = (joints[..., 2] > 0).astype(np.float64)
    return _originals(files, np.where(visibility[..., None] > 0, joints[..., :2] - 1, 0), visibility)


def split_of(people: Originals, split: Literal["train", "test"]) -> Originals:
    """LSP's first half, to train on, or its second."""
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


def _load(
    people: Originals, size: int, canvas: int, skip_corrupt: bool, cache_dir: str | Path | None, progress: bool
) -> People:
    if not 1 <= size <= canvas:
        raise ValueError(f"`size` should be at least 1 and at most `canvas` = {canvas}. Found {size}.")
    parameters = [FORMAT, MARGIN, SMALLEST, size, canvas, skip_corrupt, stamps(people.files).tolist()]
    cache = cache_folder(cache_dir) / f"lsp-{fingerprint(people, parameters)}.npz"
    arrays = _read_cache(cache)
    if arrays is None:
        arrays = _crop_all(people, size, canvas, skip_corrupt, progress)
        _write_cache(cache, arrays)
    skipped = len(people) - len(arrays["images"])
    if skipped:
        warnings.warn(f"{skipped} of {len(people)} images could not be read and were left out.", stacklevel=3)
    return People(**{name: torch.from_numpy(array) for name, array in arrays.items()}, joints=LSP)


# -- cropping --------------------------------------------------------------------------------------------------------


def _crop_all(people: Originals, size: int, canvas: int, skip_corrupt: bool, progress: bool) -> dict[str, NDArray[np.generic]]:
    images, kept, failed = [], [], {}
    for i, path in enumerate(tqdm(people.files, "crops", disable=not progress)):
        try:
            images.append(crop_person(path, people.keypoints[i], people.visibility[i], size, canvas)[0])
            kept.append(i)
        except UNREADABLE as error:
            failed[str(path)] = f"{type(error).__name__}: {error}"
    if failed and (not skip_corrupt or not kept):
        raise unreadable(failed, len(people))
    chosen = people.subset(kept)
    return {"images": np.stack(images), **targets(chosen, size, canvas)}


def crop_person(path: Path, keypoints: Array, visibility: Array, size: int, canvas: int) -> tuple[NDArray[np.uint8], Array]:
    """The canvas [3, canvas, canvas] around one person, zero outside the image, and the keypoints [J, 2] in it."""
    centre, side = window(keypoints, visibility)
    return cut(path, centre, side, size, canvas), to_crop(keypoints, centre, np.float64(side), size, canvas)


def window(keypoints: Array, visibility: Array) -> tuple[Array, float]:
    """Centre [2] and side of the square around one person's labelled keypoints [J, 2]."""
    labelled = keypoints[visibility > 0] if (visibility > 0).any() else keypoints
    low, high = labelled.min(0), labelled.max(0)
    return (low + high) / 2, max(MARGIN * float((high - low).max()), SMALLEST)


def torso(keypoints: Array, visibility: Array, side: Array) -> Array:
    """Left shoulder to right hip [N]; where one of them is not labelled, the others' mean part of the window's side."""
    length = np.linalg.norm(keypoints[:, LEFT_SHOULDER] - keypoints[:, RIGHT_HIP], axis=1)
    labelled = (visibility[:, LEFT_SHOULDER] > 0) & (visibility[:, RIGHT_HIP] > 0)
    if not labelled.any():
        raise ValueError("At least one person should have a labelled left shoulder and right hip. Found none.")
    result: Array = np.where(labelled, length, (length / side)[labelled].mean() * side)
    return result


# -- cache -----------------------------------------------------------------------------------------------------------


def _read_cache(path: Path) -> dict[str, NDArray[np.generic]] | None:
    """The arrays, or None when there is no cache or it is damaged: then it is simply built again."""
    try:
        # Opened here, because `np.load` leaves the file open when its contents are damaged.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            return {name: stored[name] for name in ("images", "keypoints", "visibility", "reference")}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def _write_cache(path: Path, arrays: dict[str, NDArray[np.generic]]) -> None:
    """Written under another name and renamed, so that no reader ever sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type, unused-ignore]
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise

"""Leeds Sports Pose (Johnson and Everingham, BMVC 2010) and its extension (CVPR 2011), cropped to their people.

Both are read from the files as published: `root/lsp` and `root/lspet`, each with `images/` and `joints.mat`.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import tempfile
import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.io import loadmat  # type: ignore[import-untyped, unused-ignore]
from tqdm import tqdm  # type: ignore[import-untyped, unused-ignore]

from examples.hourglass.people import LSP, People

Array = NDArray[np.float64]

FORMAT = 1  # raise it when the crops change: older caches are then not found
MARGIN = 1.25  # the crop's side over the longer side of the box around the joints
SMALLEST = 24.0  # pixels; the least side of a crop, for people of whom one or two joints are labelled
LEFT_SHOULDER, RIGHT_HIP = 9, 2


@dataclass(frozen=True)
class Annotations:
    """Image files, keypoints [N, 14, 2] with (0, 0) the centre of the first pixel, visibility [N, 14]."""

    files: list[Path]
    keypoints: Array
    visibility: Array


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

    `reference` is the torso, left shoulder to right hip. A file that cannot be read raises an error that names it;
    `skip_corrupt=True` leaves it out and warns how many were. The crops are cached in `cache_dir`, by default
    `adaug` in `$XDG_CACHE_HOME` or `~/.cache`.
    """
    if split not in ("train", "test"):
        raise ValueError(f"`split` should be 'train' or 'test'. Found {split!r}.")
    found = read_lsp(Path(root) / "lsp")
    half = len(found.files) // 2
    part = slice(half) if split == "train" else slice(half, None)
    chosen = Annotations(found.files[part], found.keypoints[part], found.visibility[part])
    return _load(chosen, size, canvas, skip_corrupt, cache_dir, progress)


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


def read_lsp(folder: Path) -> Annotations:
    """LSP's labels. Its flag 1 means occluded, which is no reason to leave a joint out: all coordinates are valid."""
    joints = _read_mat(folder, (3, 14, None)).transpose(2, 1, 0)  # [N, 14, 3]
    files = [folder / "images" / f"im{i:04d}.jpg" for i in range(1, len(joints) + 1)]
    return Annotations(files, joints[..., :2] - 1, np.ones(joints.shape[:2]))


def read_lspet(folder: Path) -> Annotations:
    """LSPET's labels. Its flag is the opposite of LSP's: 1 means labelled, 0 that the coordinates are rubbish."""
    joints = _read_mat(folder, (14, 3, None)).transpose(2, 0, 1)  # [N, 14, 3]
    files = [folder / "images" / f"im{i:05d}.jpg" for i in range(1, len(joints) + 1)]
    visibility = (joints[..., 2] > 0).astype(np.float64)
    return Annotations(files, np.where(visibility[..., None] > 0, joints[..., :2] - 1, 0), visibility)


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
    found: Annotations, size: int, canvas: int, skip_corrupt: bool, cache_dir: str | Path | None, progress: bool
) -> People:
    if not 1 <= size <= canvas:
        raise ValueError(f"`size` should be at least 1 and at most `canvas` = {canvas}. Found {size}.")
    cache = _cache_folder(cache_dir) / f"lsp-{_fingerprint(found, size, canvas, skip_corrupt)}.npz"
    arrays = _read_cache(cache)
    if arrays is None:
        arrays = _crop_all(found, size, canvas, skip_corrupt, progress)
        _write_cache(cache, arrays)
    skipped = len(found.files) - len(arrays["images"])
    if skipped:
        warnings.warn(f"{skipped} of {len(found.files)} images could not be read and were left out.", stacklevel=3)
    return People(**{name: torch.from_numpy(array) for name, array in arrays.items()}, joints=LSP)


# -- cropping --------------------------------------------------------------------------------------------------------


def _crop_all(found: Annotations, size: int, canvas: int, skip_corrupt: bool, progress: bool) -> dict[str, NDArray[np.generic]]:
    images, keypoints, kept = [], [], []
    rows = zip(found.files, found.keypoints, found.visibility, strict=True)
    for i, (path, points, visible) in enumerate(tqdm(rows, "crops", len(found.files), disable=not progress)):
        try:
            image, mapped = crop_person(path, points, visible, size, canvas)
        except (OSError, SyntaxError, Image.DecompressionBombError) as error:
            # Pillow reports some broken files as a SyntaxError; and its own messages do not name the file.
            if skip_corrupt:
                continue
            raise OSError(f"{path} cannot be read: {error}. Replace it, or leave it out by skip_corrupt=True.") from error
        images.append(image)
        keypoints.append(mapped)
        kept.append(i)
    if not kept:
        raise ValueError(f"There should be at least one readable image. Found none of {len(found.files)}.")
    stacked = np.stack(keypoints)
    visibility = found.visibility[kept]
    return {
        "images": np.stack(images),
        "keypoints": stacked.astype(np.float32),
        "visibility": visibility.astype(np.float32),
        "reference": torso(stacked, visibility).astype(np.float32),
    }


def crop_person(path: Path, keypoints: Array, visibility: Array, size: int, canvas: int) -> tuple[NDArray[np.uint8], Array]:
    """The canvas [3, canvas, canvas] around one person, zero outside the image, and the keypoints [14, 2] in it."""
    labelled = keypoints[visibility > 0] if (visibility > 0).any() else keypoints
    low, high = labelled.min(0), labelled.max(0)
    side = max(MARGIN * float((high - low).max()), SMALLEST)  # source pixels that become `size`
    scale = size / side
    corner = (low + high) / 2 + 0.5 - side / 2 * canvas / size  # in edge coordinates: the first pixel spans 0 to 1
    mapped = (keypoints + 0.5 - corner) * scale - 0.5
    with Image.open(path) as image:
        width, height = image.size
        # A JPEG decodes faster at a half or a quarter of its size, where the crop needs no more.
        image.draft("RGB", (math.ceil(width * scale), math.ceil(height * scale)))
        drawn = np.array(image.size) / (width, height)
        left, top = corner * drawn
        right, bottom = (corner + canvas / scale) * drawn
        # `crop` fills what is outside with zeros but knows whole pixels only; `resize` cuts the fractions off.
        x, y = math.floor(left), math.floor(top)
        region = image.convert("RGB").crop((x, y, math.ceil(right), math.ceil(bottom)))
        box = (left - x, top - y, min(right - x, region.width), min(bottom - y, region.height))
        resized = region.resize((canvas, canvas), Image.Resampling.BICUBIC, box=box)
    return np.ascontiguousarray(np.asarray(resized).transpose(2, 0, 1)), mapped


def torso(keypoints: Array, visibility: Array) -> Array:
    """Left shoulder to right hip [N]; where one of them is not labelled, the mean of the others."""
    length = np.linalg.norm(keypoints[:, LEFT_SHOULDER] - keypoints[:, RIGHT_HIP], axis=1)
    labelled = (visibility[:, LEFT_SHOULDER] > 0) & (visibility[:, RIGHT_HIP] > 0)
    if not labelled.any():
        raise ValueError("At least one person should have a labelled left shoulder and right hip. Found none.")
    result: Array = np.where(labelled, length, length[labelled].mean())
    return result


# -- cache -----------------------------------------------------------------------------------------------------------


def _cache_folder(cache_dir: str | Path | None) -> Path:
    if cache_dir is not None:
        return Path(cache_dir)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "adaug"


def _fingerprint(found: Annotations, size: int, canvas: int, skip_corrupt: bool) -> str:
    """Changes with any file's name, size or time, with the labels, and with the parameters of the crop."""
    digest = hashlib.sha256()
    for path in found.files:
        try:
            stat = path.stat()
            digest.update(f"{path.resolve()} {stat.st_size} {stat.st_mtime_ns}\n".encode())
        except OSError:
            digest.update(f"{path.resolve()} missing\n".encode())
    digest.update(found.keypoints.tobytes() + found.visibility.tobytes())
    digest.update(json.dumps([FORMAT, MARGIN, SMALLEST, size, canvas, skip_corrupt]).encode())
    return digest.hexdigest()[:24]


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

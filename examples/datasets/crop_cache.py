"""A cache of crops: several processes cut them once into a memory map, for data sets that do not fit into memory.

A finished cache is a folder `NAME-FINGERPRINT` with `images.npy`, uint8 [N, 3, C, C], and `targets.npz`, which has a checksum
of each image and one of itself. An unfinished cache ends in `.partial` and has `done.npy`, so that a killed run can continue.
Opening a cache finds damaged images, and cuts them again.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm  # type: ignore[import-untyped, unused-ignore]

from examples.datasets.cropping import Originals, cut_rows, end_with_parent
from examples.datasets.people import People
from examples.datasets.safe_files import DamagedError, locked, read_checked, write_checked

FORMAT = 2  # raise it if crops change, so that older caches are not used
CHUNK = 32  # people that a process cuts between two reports
SEVERAL = 256  # from so many people on, starting processes pays


def load_crops(
    originals: Originals,
    name: str,
    *,
    size: int,
    canvas: int,
    cache_dir: str | Path | None = None,
    workers: int | None = None,
    skip_corrupt: bool = False,
    progress: bool = True,
) -> tuple[People, Originals]:
    """Loads everybody's crop from the cache, or cuts it now. Also returns where the people stand in their photographs.

    Images are a view of the file: reading an image reads it from the disk. If files cannot be read, an error names all of them.
    With `skip_corrupt=True` these people are left out, a warning counts them, and the last people take their places. Several
    processes may call this function at once: one cuts, and the others wait.
    workers: how many processes cut, by default one for each core and at most 16. The script then needs
    `if __name__ == "__main__"`.
    """
    if not 1 <= size <= canvas or not len(originals):
        raise ValueError(f"There should be people, and `size` = {size} from 1 to `canvas` = {canvas}. Found {len(originals)}.")
    folder = cache_folder(cache_dir) / f"{name}-{fingerprint(originals, [FORMAT, size, canvas])}"
    now = stamps(originals.files)
    cached = _published(folder, now, canvas, progress)
    if cached is None:
        with locked(folder.with_suffix(".lock"), _waiting(folder, progress)):
            cached = _published(folder, now, canvas, progress)  # another process cut it while this one waited
            if cached is None:
                shutil.rmtree(folder, ignore_errors=True)
                _build(originals, folder, now, size, canvas, workers, skip_corrupt, progress)
                cached = _published(folder, now, canvas, progress)
    if cached is None:
        raise RuntimeError(
            f"{folder} should hold the crops that were just written there. Found it damaged: try another disk by `cache_dir`."
        )
    images, rows = cached
    left_out = len(originals) - len(rows["kept"])
    if left_out and not skip_corrupt:
        raise unreadable(dict(zip(rows["left_out"].tolist(), rows["errors"].tolist(), strict=True)), len(originals))
    if left_out:
        warnings.warn(f"{left_out} of {len(originals)} people's images could not be read and were left out.", stacklevel=2)
    tensors = {key: torch.from_numpy(rows[key]) for key in ("keypoints", "visibility", "pck_length")}
    people = People(torch.from_numpy(images[: len(rows["kept"])]), **tensors, joints=originals.joints)
    return people, originals.subset(rows["kept"])


def cache_folder(cache_dir: str | Path | None) -> Path:
    """`cache_dir`, or by default the folder `adaug` in `$XDG_CACHE_HOME` or `~/.cache`."""
    if cache_dir is not None:
        return Path(cache_dir)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "adaug"


def fingerprint(originals: Originals, parameters: object) -> str:
    """A fingerprint of the list of images, the labels and the parameters of the crop."""
    digest = hashlib.sha256(json.dumps([originals.joints.name, parameters]).encode())
    digest.update("\n".join(path.name for path in originals.files).encode())
    for array in (originals.centre, originals.side, originals.keypoints, originals.visibility, originals.pck_length):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:24]


def stamps(files: Iterable[Path]) -> NDArray[np.int64]:
    """Size and modification time of each file, [N, 2]. Zeros if it is missing."""
    known: dict[Path, tuple[int, int]] = {}
    for path in files:
        if path not in known:
            try:
                stat = path.stat()
                known[path] = (stat.st_size, stat.st_mtime_ns)
            except OSError:
                known[path] = (0, 0)
    return np.array([known[path] for path in files], np.int64).reshape(-1, 2)


def targets(originals: Originals, size: int, canvas: int) -> dict[str, NDArray[np.generic]]:
    """What `People` have besides images: float32, in pixels of the canvas."""
    return {
        "keypoints": originals.to_crop(originals.keypoints, size, canvas).astype(np.float32),
        "visibility": originals.visibility.astype(np.float32),
        "pck_length": (originals.pck_length * size / originals.side).astype(np.float32),
    }


def unreadable(failed: Mapping[str, str], total: int) -> OSError:
    """An error that names every file. failed: path -> what was wrong."""
    lines = "".join(f"\n  {path}: {error}" for path, error in failed.items())
    return OSError(
        f"All {total} people's images should be readable. Found {len(failed)} that are not:{lines}\n"
        "Replace them, or leave them out by skip_corrupt=True."
    )


def _published(
    folder: Path, now: NDArray[np.int64], canvas: int, progress: bool
) -> tuple[NDArray[np.uint8], dict[str, NDArray[Any]]] | None:
    """Images and targets of a finished cache. None if there is none, or if it must be cut again."""
    if not folder.is_dir():
        return None
    damaged = folder / "targets.npz"
    try:
        with np.load(io.BytesIO(read_checked(damaged)), allow_pickle=False) as stored:
            rows = dict(stored)
        damaged = folder / "images.npy"
        images = np.load(damaged, mmap_mode="c")  # torch warns about read-only memory, but nothing writes to it
        if images.shape != (len(now), 3, canvas, canvas) or images.dtype != np.uint8 or not images.flags.c_contiguous:
            raise ValueError(f"{images.dtype} of shape {images.shape}")
        wrong = np.flatnonzero(_sums(images, range(len(rows["sums"]))) != rows["sums"])
        if len(wrong):
            raise ValueError(f"images {wrong[:10].tolist()} have a wrong checksum")
    except Exception as error:  # a damaged file can fail in any way
        if (now == 0).all(1).any():
            raise DamagedError(
                f"{damaged} should be as it was written. Found it damaged ({error}), and photographs to cut from are gone; "
                f"bring them back, or delete {folder}."
            ) from error
        if progress:
            print(f"{damaged} is damaged ({error}); cutting again.", flush=True)
        return None
    stamp, kept = rows["stamps"], rows["kept"]
    gone = (now == 0).all(1) & np.isin(np.arange(len(now)), kept)  # users may delete the photographs and keep the crops
    return (images, rows) if ((stamp == now).all(1) | gone).all() else None


def _waiting(folder: Path, progress: bool) -> Callable[[str], None]:
    def say(other: str) -> None:
        if progress:
            print(f"Another process{other} cuts the crops of {folder.name}; waiting for it.", flush=True)

    return say


# -- cutting ---------------------------------------------------------------------------------------------------------


def _build(
    originals: Originals,
    folder: Path,
    now: NDArray[np.int64],
    size: int,
    canvas: int,
    workers: int | None,
    skip_corrupt: bool,
    progress: bool,
) -> None:
    partial, n = folder.with_suffix(".partial"), len(originals)
    images, done = _open_partial(partial, n, canvas)  # done [N, 4]: 1 when cut, the stamp of the file, the checksum
    known = np.flatnonzero((done[:, 0] == 1) & (done[:, 1:3] == now).all(1))
    pending = np.setdiff1d(np.arange(n), known[done[known, 3] == _sums(images, known)])
    needed, free = len(pending) * 3 * canvas**2, shutil.disk_usage(partial).free
    if needed > free:  # on a full disk a memory map does not raise an error but kills the process
        raise OSError(
            f"{folder.parent} should have {needed / 1e9:.1f} GB free for the crops. Found {free / 1e9:.1f} GB. "
            "Give another `cache_dir`, or a smaller `canvas`."
        )
    # Neighbours in the list often share a photograph, which is then still in memory.
    chunks = [pending[first : first + CHUNK].tolist() for first in range(0, len(pending), CHUNK)]
    calls = [
        (
            partial / "images.npy",
            rows,
            [originals.files[i] for i in rows],
            originals.centre[rows],
            originals.side[rows],
            size,
            canvas,
        )
        for rows in chunks
    ]
    if workers is None:
        workers = min(os.cpu_count() or 1, 16) if len(pending) >= SEVERAL else 1
    failed: dict[int, str] = {}
    with tqdm(total=n, initial=n - len(pending), desc="crops", unit="person", disable=not progress) as bar:
        for rows, wrong in _results(calls, workers):
            cut = [row for row in rows if row not in wrong]
            done[cut] = np.column_stack([np.ones(len(cut), np.int64), now[cut], _sums(images, cut)])
            done.flush()
            failed |= wrong
            bar.update(len(rows))
    wrong_files = {str(originals.files[row]): failed[row] for row in sorted(failed)}
    if failed and (not skip_corrupt or len(failed) == n):
        raise unreadable(wrong_files, n)
    # The last people move into the gaps, so that all kept people are one block and need no copy.
    kept = np.arange(n - len(failed))
    gaps = [row for row in sorted(failed) if row < len(kept)]
    kept[gaps] = [row for row in range(len(kept), n) if row not in failed]
    for gap in gaps:
        images[gap] = images[kept[gap]]
    file = io.BytesIO()
    np.savez(
        file,
        **targets(originals.subset(kept), size, canvas),  # type: ignore[arg-type, unused-ignore]
        kept=kept,
        sums=done[kept, 3],
        stamps=now,
        left_out=np.array(list(wrong_files), dtype=np.str_),
        errors=np.array(list(wrong_files.values()), dtype=np.str_),
    )
    write_checked(partial / "targets.npz", file.getvalue())
    os.replace(partial, folder)
    (folder / "done.npy").unlink(missing_ok=True)


def _open_partial(partial: Path, n: int, canvas: int) -> tuple[NDArray[np.uint8], np.memmap[Any, np.dtype[np.int64]]]:
    """Opens the files of an unfinished cache: those of a killed run, or new ones."""
    try:
        images = np.lib.format.open_memmap(partial / "images.npy", mode="r+")
        done = np.lib.format.open_memmap(partial / "done.npy", mode="r+")
        if (
            images.shape == (n, 3, canvas, canvas)
            and images.dtype == np.uint8
            and done.dtype == np.int64
            and done.shape == (n, 4)
        ):
            return images, done
    except Exception:  # there are none, they are incomplete, or they are damaged
        pass
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    images = np.lib.format.open_memmap(partial / "images.npy", mode="w+", dtype=np.uint8, shape=(n, 3, canvas, canvas))
    done = np.lib.format.open_memmap(partial / "done.npy", mode="w+", dtype=np.int64, shape=(n, 4))
    return images, done


def _sums(images: NDArray[np.uint8], rows: Iterable[int]) -> NDArray[np.int64]:
    """The checksums of some images."""
    return np.array([zlib.crc32(images[row]) for row in rows], np.int64)


def _results(calls: Sequence[tuple[Any, ...]], workers: int) -> Iterator[tuple[list[int], dict[int, str]]]:
    """The rows of each call of `cut_rows` and their failures, in the order in which calls finish."""
    if workers <= 1:
        for call in calls:
            yield call[1], cut_rows(*call)
        return
    # Spawn, do not fork: torch has threads, and a fork of a process with threads may hang.
    with ProcessPoolExecutor(workers, get_context("spawn"), initializer=end_with_parent) as pool:
        futures = {pool.submit(cut_rows, *call): call[1] for call in calls}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BrokenProcessPool as error:
            raise RuntimeError(
                "The processes that cut crops should run to their end. Found one that was killed, perhaps for its memory. "
                "Start again: what was cut is kept. A smaller `workers` needs less memory."
            ) from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

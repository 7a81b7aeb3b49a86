"""Writes whole files: never half of one, also if the disk is full or others write to the same path."""

from __future__ import annotations

import errno
import os
import secrets
from contextlib import suppress
from pathlib import Path

FULL = errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)


def replace_file(path: Path, content: bytes) -> Path:
    """Writes another file beside it and renames that, so that a reader sees the old file or the new one.

    Each writer has a name of its own beside it, so several may write at once; the last one wins.

    Raises:
        ValueError: The path cannot hold a file.
        OSError: The disk is full, or does not work.
    """
    beside = _beside(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())  # otherwise a power cut could leave an empty file
        os.replace(beside, path)
    except OSError as error:
        with suppress(OSError):
            beside.unlink()
        if error.errno in FULL:
            raise OSError(
                error.errno,
                f"There should be room for {path}. Found the disk full; make room. An older file there is unharmed",
            ) from error
        raise _unfit(path, error) from error
    return path


def check_writable(path: Path) -> None:
    """Raises ValueError unless a file can be written at a path, before there is anything to write."""
    beside = _beside(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if os.path.isdir(path):  # Path.is_dir raises an error of its own for long names
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        with suppress(FileNotFoundError):
            path.stat()  # the name itself may be too long
        beside.open("xb").close()
        beside.unlink()
    except OSError as error:
        raise _unfit(path, error) from error


def _beside(path: Path) -> Path:
    if not path.name:
        raise _unfit(path, IsADirectoryError())
    return path.with_name(f"{path.name[:100]}.{os.getpid()}-{secrets.token_hex(4)}.part")


def _unfit(path: Path, error: OSError) -> Exception:
    unfit = (IsADirectoryError, NotADirectoryError, PermissionError, FileExistsError)
    if not isinstance(error, unfit) and error.errno not in (errno.ENAMETOOLONG, errno.EROFS, errno.EINVAL, errno.ENOENT):
        return error
    found = "a folder" if isinstance(error, IsADirectoryError) or os.path.isdir(path) else error.strerror or str(error)
    return ValueError(f"`path` should be a file that can be written. Found {found} at {path}; name another one.")

"""Files that are never half written and show damage, and a lock that one process at a time holds.

A file with a checksum ends with a line "sha256 ...". Readers of zip files, such as `torch.load`, ignore it.
"""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

TEMPORARY = ".tmp"  # the end of a file's name until it is complete
MARK = b"\nsha256 "
TRAILER = len(MARK) + 64 + 1


class DamagedError(ValueError):
    """A file has changed since it was written."""


def write_whole(path: Path, content: bytes) -> None:
    """Writes to another name and renames. So there is always a whole file, the old or the new one, also on a full disk."""
    temporary = path.with_name(path.name + TEMPORARY)
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())  # otherwise a power cut could leave an empty file
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    os.replace(temporary, path)


def write_checked(path: Path, content: bytes) -> None:
    """Writes a whole file with a checksum for `read_checked`."""
    write_whole(path, content + _trailer(content))


def read_checked(path: Path) -> bytes:
    """Reads what `write_checked` wrote. Raises DamagedError, which says what is wrong, but not the file's name."""
    everything = path.read_bytes()
    content, trailer = everything[:-TRAILER], everything[-TRAILER:]
    if not everything:
        raise DamagedError("it is empty")
    if not (trailer.startswith(MARK) and trailer.endswith(b"\n")):
        raise DamagedError("no checksum at its end: cut short, or written by another program or an older version")
    if trailer != _trailer(content):
        raise DamagedError("its checksum is wrong: bits have changed")
    return content


def _trailer(content: bytes) -> bytes:
    return MARK + hashlib.sha256(content).hexdigest().encode() + b"\n"


@contextmanager
def locked(path: Path, waiting: Callable[[str], Any] | None = None) -> Iterator[str | None]:
    """A lock that one process at a time holds. If a process ends, in whatever way, the system frees its lock.

    Gives None to the holder, and to others the name of the holder. waiting: called with this name before waiting.
    """
    try:
        import fcntl
    except ImportError:  # Windows has no such locks
        yield None
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip()
            other = f" ({holder})" if holder else ""
            if waiting is None:
                yield other
                return
            waiting(other)
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError:  # a file system without locks
            pass
        with suppress(OSError):  # on a full disk, the holder cannot write its name
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}")
            file.flush()
        yield None

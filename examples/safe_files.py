"""Files that are never half written and show damage, folders for one run at a time, and a clean stop on a signal.

A file with a checksum ends with a line "sha256 ...". Readers of zip files, such as `torch.load`, ignore it.
"""

from __future__ import annotations

import errno
import hashlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType, TracebackType
from typing import IO, Any

TEMPORARY = ".tmp"  # the end of a file's name until it is complete
LOCK = ".lock"
MARK = b"\nsha256 "
TRAILER = len(MARK) + 64 + 1


class DamagedError(ValueError):
    """A file has changed since it was written."""


class BusyError(OSError):
    """Another run is in the folder."""


class FullDiskError(OSError):
    """The disk is full."""


def in_one_line(main: Callable[[], object]) -> None:
    """Runs a script. An error that its user can fix ends it with one line instead of a traceback."""
    try:
        main()
    except (DamagedError, BusyError, FullDiskError) as error:
        sys.exit(str(error))


class Stopped(SystemExit):
    """Ends the program with the exit code that shells use for a signal: 128 + its number."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.name = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name


# -- whole or not there ----------------------------------------------------------------------------------------------


def write_whole(path: Path, content: bytes) -> None:
    """Writes to another name and renames. So there is always a whole file, the old or the new one.

    Raises FullDiskError; then the old file stays.
    """
    temporary = path.with_name(path.name + TEMPORARY)
    try:
        with full_disk_said(path.parent), temporary.open("wb") as file:
            _put(file, content)
            file.flush()
            os.fsync(file.fileno())  # otherwise a power cut could leave an empty file
    except OSError:
        with suppress(OSError):
            temporary.unlink()
        raise
    os.replace(temporary, path)


def write_checked(path: Path, content: bytes) -> None:
    """Writes a whole file with a checksum for `read_checked`."""
    write_whole(path, b"".join([content, MARK, hashlib.sha256(content).hexdigest().encode(), b"\n"]))


def read_checked(path: Path) -> bytes:
    """Reads what `write_checked` wrote. Raises DamagedError, which says what is wrong, but not the file's name."""
    everything = path.read_bytes()
    content, trailer = everything[:-TRAILER], everything[-TRAILER:]
    if not everything:
        raise DamagedError("it is empty")
    if not (trailer.startswith(MARK) and trailer.endswith(b"\n")):
        raise DamagedError("no checksum at its end: cut short, or written by another program or an older version")
    if trailer != b"".join([MARK, hashlib.sha256(content).hexdigest().encode(), b"\n"]):
        raise DamagedError("its checksum is wrong: bits have changed")
    return content


def _put(file: IO[bytes], content: bytes) -> None:
    file.write(content)


@contextmanager
def full_disk_said(folder: Path) -> Iterator[None]:
    """Turns any error about a full disk into a FullDiskError of one line."""
    try:
        yield
    except FullDiskError:
        raise
    except (OSError, RuntimeError) as error:  # torch and TensorBoard word it differently
        cause: BaseException | None = error
        while cause is not None and getattr(cause, "errno", None) not in (errno.ENOSPC, errno.EDQUOT):
            cause = cause.__cause__ or cause.__context__
        if cause is None:
            raise
        raise FullDiskError(
            f"There should be room on the disk of {folder}. Found it full; what was saved last is whole: make room and start "
            "again."
        ) from error


# -- one run in a folder ---------------------------------------------------------------------------------------------


@contextmanager
def folder_of_a_run(folder: Path, leftovers: tuple[str, ...] = ()) -> Iterator[None]:
    """Makes a folder for this run alone: tests it, locks it, and removes half-written files of a killed run.

    leftovers: patterns of such files, besides those of `write_whole`.

    Raises:
        OSError: The folder cannot be written.
        BusyError: Another run uses the folder.
        FullDiskError: The disk is full.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / LOCK).open("ab").close()
    except OSError as error:
        with full_disk_said(folder):
            raise OSError(
                f"The output folder should be writable. Found {folder}, which is not ({error.strerror}); choose another one."
            ) from error
    with locked(folder / LOCK) as other:
        if other is not None:
            raise BusyError(
                f"{folder} should be used by one run at a time. Found another one in it{other}; wait for it, stop it, or "
                "choose another folder."
            )
        for pattern in (f"*{TEMPORARY}", *leftovers):
            for path in folder.glob(pattern):
                path.unlink(missing_ok=True)
        with full_disk_said(folder):
            yield


@contextmanager
def one_run(folder: Path, leftovers: tuple[str, ...] = (), *, rank: int = 0, ranks: int = 1) -> Iterator[Stopping]:
    """Gives this run a folder of its own, and lets signals stop the run. The first rank takes the folder for all ranks."""
    alone = folder_of_a_run(folder, leftovers) if rank == 0 else full_disk_said(folder)
    with Stopping(folder, active=ranks == 1) as stopping, alone:
        yield stopping


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


# -- an end when asked -----------------------------------------------------------------------------------------------


class Stopping:
    """Stops a run at a safe place on SIGTERM (from batch schedulers) or Ctrl-C, with a line that says how to continue.

    Outside of `patient` a signal ends the run at once. Inside, the next `check` does. A second signal always ends it at once.
    A run of several processes does not listen, because each would stop at another place: it ends, and continues later from the
    last epoch.

    Args:
        folder: The folder of the run, for the line.
        active: Whether to listen. Only the main thread can.
    """

    def __init__(self, folder: Path, *, active: bool = True) -> None:
        self.folder = folder
        self.active = active and threading.current_thread() is threading.main_thread()
        self.asked: int | None = None
        self._patient = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Stopping:
        if self.active:
            self._before = {number: signal.signal(number, self._hear) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if isinstance(error, Stopped) and not hasattr(error, "said"):
            error.said = True  # type: ignore[attr-defined]  # once, where runs are nested
            line = f"Stopped by {error.name}. What was done is saved in {self.folder}: the same command goes on from there."
            print(line, file=sys.stderr, flush=True)

    @contextmanager
    def patient(self, patient: bool = True) -> Iterator[None]:
        """A block in which a signal waits for `check`. With False, it does not wait."""
        before, self._patient = self._patient, patient
        try:
            if not patient:
                self.check()
            yield
        finally:
            self._patient = before

    def check(self) -> None:
        """Ends the run if a signal asked for it."""
        if self.asked is not None:
            raise Stopped(self.asked)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        again, self.asked = self.asked is not None, number
        if again or not self._patient:
            raise Stopped(number)

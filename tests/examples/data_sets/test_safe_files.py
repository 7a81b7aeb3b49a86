"""Files are whole or the old ones, and a lock ends with its process."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from examples.datasets import safe_files
from examples.datasets.safe_files import DamagedError, locked, read_checked, write_checked

ROOT = Path(__file__).parents[3]
HOLDS = """
import sys, time
from pathlib import Path
from examples.datasets.safe_files import locked
with locked(Path(sys.argv[1])) as other:
    print(other, flush=True)
    time.sleep(60)
"""


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    path = tmp_path / "folder" / ".lock"
    process = subprocess.Popen([sys.executable, "-c", HOLDS, str(path)], cwd=ROOT, stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process, process.stdout:
        assert process.stdout.readline() == b"None\n"
        with locked(path) as other:
            assert other is not None
            assert other.startswith(f" (process {process.pid} on ")
        process.kill()
    for _ in range(2):
        with locked(path) as other:
            assert other is None


def test_a_foreign_file_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"foreign")
    with pytest.raises(DamagedError, match="no checksum at its end: cut short, or written by another program"):
        read_checked(path)
    write_checked(path, b"content")
    assert read_checked(path) == b"content"


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / "file"
    write_checked(path, b"old")
    monkeypatch.setattr(safe_files.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_checked(path, b"new")
    assert read_checked(path) == b"old"
    assert list(tmp_path.iterdir()) == [path]

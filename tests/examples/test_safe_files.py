"""A lock ends with its process, and what a script cannot do is said in one line."""

# ruff: noqa: PT012

from __future__ import annotations

import errno
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from examples import safe_files
from examples.safe_files import FullDiskError, Stopped, Stopping, folder_of_a_run, full_disk_said, in_one_line

ROOT = Path(__file__).parents[2]
HOLDS = """
import sys, time
from pathlib import Path
from examples.safe_files import folder_of_a_run
with folder_of_a_run(Path(sys.argv[1])):
    (Path(sys.argv[1]) / "half.tmp").write_text("")
    print("in", flush=True)
    time.sleep(60)
"""


def test_the_lock_of_a_killed_run_is_free_and_its_leftovers_go(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", HOLDS, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process, process.stdout:
        assert process.stdout.readline() == b"in\n"
        with pytest.raises(OSError, match=rf"one run at a time.*process {process.pid} on"), folder_of_a_run(tmp_path):
            pass
        process.kill()
    (tmp_path / "other.part").write_text("")
    (tmp_path / "mine.txt").write_text("")
    with folder_of_a_run(tmp_path, ("other.*",)):
        assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "mine.txt"]
    with folder_of_a_run(tmp_path):
        pass  # and again


def test_a_full_disk_is_known_whoever_finds_it(tmp_path: Path) -> None:
    full = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(FullDiskError), full_disk_said(tmp_path), full_disk_said(tmp_path):
        try:
            raise full
        except OSError as error:
            raise RuntimeError("writing failed, as torch says it") from error
    with pytest.raises(RuntimeError, match="something else"), full_disk_said(tmp_path):
        raise RuntimeError("something else")


def test_a_script_ends_in_one_line(tmp_path: Path) -> None:
    def damaged() -> None:
        safe_files.read_checked(tmp_path / "file")

    (tmp_path / "file").write_bytes(b"foreign")
    with pytest.raises(SystemExit) as ended:
        in_one_line(damaged)
    assert ended.value.code == "no checksum at its end: cut short, or written by another program or an older version"
    safe_files.write_checked(tmp_path / "file", b"content")
    in_one_line(damaged)


def test_a_second_signal_does_not_wait(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reached = []
    with pytest.raises(Stopped), Stopping(tmp_path) as stopping, stopping.patient():
        stopping._hear(signal.SIGINT, None)
        reached.append("after the first")
        stopping._hear(signal.SIGINT, None)
        reached.append("after the second")
    assert reached == ["after the first"]
    assert capsys.readouterr().err.startswith("Stopped by Ctrl-C.")
    with Stopping(tmp_path) as stopping, stopping.patient():
        stopping.check()

"""The scripts that a person copies run in an empty folder, with nothing but the library to be found."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import adaug

EXAMPLES = Path(__file__).parents[2] / "examples"
TINY = {  # script -> options, and what it prints
    "plain_loop": ("--people 12", ["random", "robust", "PCK@0.05", "difference"]),
    "face_alignment": ("--size 32 --batch-size 6 --faces 12 6", ["12 training and 6 test faces", "NME", "points found"]),
    "segmentation": ("--size 32 --batch-size 6 --images 12 6", ["12 training and 6 test images", "IoU", "star"]),
    "classification": ("--digits 50", ["50 training and 797 test digits", "accuracy", "worst per image"]),
}


@pytest.mark.slow
@pytest.mark.parametrize("script", TINY)
def test_a_script_runs_alone(tmp_path: Path, script: str) -> None:
    if script == "classification":
        pytest.importorskip("sklearn", reason="of the [examples] extra")
    options, told = TINY[script]
    for name in ("library", "alone"):
        (tmp_path / name).mkdir()
    (tmp_path / "library" / "adaug").symlink_to(Path(adaug.__file__).parent)
    shutil.copy(EXAMPLES / f"{script}.py", tmp_path / "alone")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "library"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, f"{script}.py", *options.split(), "--epochs", "1"]
    done = subprocess.run(
        command, cwd=tmp_path / "alone", env=environment, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr
    assert all(words in done.stdout for words in told), done.stdout
    assert len(list((tmp_path / "alone").iterdir())) == 1, "it leaves nothing behind"

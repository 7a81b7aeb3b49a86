"""Keeps the results of each run in a small file, so that a stopped study can continue."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.result_files import origin

VERSION = 3  # of the files. 3: an arm is described by its fields, and a run names its commit and date


def folder_of(out: Path, task: str, description: Sequence[str]) -> Path:
    """The folder of the runs of one description."""
    return out / f"{task}-{hashlib.sha256(json.dumps(list(description)).encode()).hexdigest()[:12]}"


def read(path: Path, description: Sequence[str]) -> dict[str, Any] | None:
    """The results at `path` if they are of this description and this version. Otherwise None."""
    if not path.is_file():
        return None
    known = dict(json.loads(path.read_text()))
    if known.get("version") == VERSION and known.get("description") == list(description):
        return known
    print(f"{path} should hold a run of version {VERSION} and of this description. Found another; it is made anew.")
    return None


def run_once(path: Path, description: Sequence[str], make: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
    """Reads the results, or calls `make(folder)` and saves what it returns. Several processes may share a folder."""
    known = read(path, description)
    if known is not None:
        return known
    path.parent.mkdir(parents=True, exist_ok=True)
    run = {"version": VERSION, "description": list(description), "origin": origin(), **make(path.parent)}
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_text(json.dumps(run, indent=1) + "\n")
    temporary.replace(path)
    return run

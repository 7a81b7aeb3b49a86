"""Keeps the results of each run in a small file, so that a stopped series of runs can continue."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.result_files import machine


def run_once(
    path: Path, arguments: Sequence[str], make: Callable[[Path], dict[str, Any]], *, version: int, train: bool = True
) -> dict[str, Any] | None:
    """Returns the results at `path` if they are of these arguments and this version. Otherwise calls `make(folder)` and saves.

    Returns None if there are no results and `train` is False. Several processes may share a folder.
    """
    if path.is_file() and (known := json.loads(path.read_text()))["arguments"] == list(arguments):
        if known.get("version") == version:
            return dict(known)
        print(f"{path} should hold the scores of an audit. Found a run from before; without --finished it is measured anew.")
    if not train:
        return None
    path.parent.mkdir(parents=True, exist_ok=True)
    run = {"version": version, "arguments": list(arguments), "machine": machine(), **make(path.parent)}
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_text(json.dumps(run, indent=1) + "\n")
    temporary.replace(path)
    return run

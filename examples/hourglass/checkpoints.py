"""Checkpoints that a kill at any moment cannot spoil, and that no other run takes for its own."""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

NAME = "checkpoint.pt"


def check_folder(folder: Path) -> None:
    """Makes the folder. Raises OSError, before any training, when nothing can be written there."""
    probe = folder / f".{os.getpid()}.tmp"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise OSError(
            f"The output folder should be writable. Found {folder} that is not ({error.strerror}); choose another one."
        ) from error


def save_checkpoint(folder: Path, state: Mapping[str, Any]) -> None:
    """Written under another name and renamed: the folder always holds a whole checkpoint, the old or the new."""
    temporary = folder / f"{NAME}.tmp"
    with temporary.open("wb") as file:
        torch.save(dict(state), file)
        file.flush()
        os.fsync(file.fileno())  # or a power cut could leave the new name on an empty file
    os.replace(temporary, folder / NAME)


def load_checkpoint(folder: Path, identity: Mapping[str, Any]) -> dict[str, Any] | None:
    """The folder's checkpoint, None if there is none. Raises ValueError when it is another run's or damaged.

    identity: what the run is, "config" and "people" in plain values, as it was saved beside the state.
    """
    path = folder / NAME
    if not path.is_file():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        before, now = ({**run["config"], "people": run["people"]} for run in (state, identity))
    except (RuntimeError, EOFError, KeyError, pickle.UnpicklingError) as error:
        raise ValueError(
            f"{path} should be a checkpoint. Found that it cannot be read ({error}); remove it or use --no-resume."
        ) from error
    if before != now:
        names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
        changes = "; ".join(f"{name}: {before.get(name)!r} there, {now.get(name)!r} now" for name in names)
        raise ValueError(
            f"{folder} should hold a run of the same settings. Found another one ({changes}); choose another folder, or start "
            "again in this one by --no-resume."
        )
    return state

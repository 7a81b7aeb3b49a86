"""Checkpoints that survive a kill, show damage, and are resumed only by the run that wrote them."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from examples.safe_files import DamagedError, read_checked, write_checked

NAME = "checkpoint.pt"


def save_checkpoint(folder: Path, state: Mapping[str, Any]) -> None:
    """Saves a checkpoint. The folder always has a whole one, the old or the new."""
    file = io.BytesIO()  # in memory first, because torch fails on a full disk in many ways
    torch.save(dict(state), file)
    write_checked(folder / NAME, file.getvalue())


def load_checkpoint(folder: Path, identity: Mapping[str, Any]) -> dict[str, Any] | None:
    """Loads the folder's checkpoint. None if there is none. Raises ValueError if it is damaged or of another run.

    identity: the run's "config" and "people" as plain values, which must equal the saved ones.
    """
    path = folder / NAME
    if not path.is_file():
        return None
    try:
        state: dict[str, Any] = torch.load(io.BytesIO(read_checked(path)), map_location="cpu", weights_only=True)
        before, now = ({**run["config"], "people": run["people"]} for run in (state, identity))
    except Exception as error:  # a file of another kind can fail in any way
        raise DamagedError(
            f"{path} should be a checkpoint. Found that it cannot be read ({error}); delete it or use --no-resume, and the run "
            "starts again."
        ) from error
    if before != now:
        names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
        changes = "; ".join(f"{name}: {before.get(name)!r} there, {now.get(name)!r} now" for name in names)
        raise ValueError(
            f"{folder} should hold a run of the same settings. Found another one ({changes}); choose another folder, or start "
            "again in this one by --no-resume."
        )
    return state

"""The folder of a run and its checkpoints, which survive a kill, show damage, and belong to the run that wrote them."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from examples.datasets.safe_files import TEMPORARY, DamagedError, locked, read_checked, write_checked

NAME = "checkpoint.pt"


@contextmanager
def one_run(folder: Path, leftovers: tuple[str, ...] = ()) -> Iterator[None]:
    """Makes a folder for this run alone, and removes half-written files of a killed run.

    leftovers: patterns of such files, besides those of checkpoints.

    Raises:
        OSError: The folder cannot be written, or another run is in it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / ".lock") as other:
        if other is not None:
            raise OSError(
                f"{folder} should be used by one run at a time. Found another one in it{other}; wait for it, stop it, or "
                "choose another folder."
            )
        for pattern in (f"*{TEMPORARY}", *leftovers):
            for path in folder.glob(pattern):
                path.unlink(missing_ok=True)
        yield


def save_checkpoint(folder: Path, state: Mapping[str, Any]) -> None:
    """Saves a checkpoint. The folder always has a whole one, the old or the new."""
    file = io.BytesIO()
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


def plain(value: Any) -> Any:
    """A dataclass as JSON would return it, so that it equals what was saved."""
    return json.loads(json.dumps(dataclasses.asdict(value)))

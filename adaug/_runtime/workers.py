"""What a process that loads samples knows about itself."""

from __future__ import annotations

import sys
import weakref
from typing import Any

from torch.utils.data import get_worker_info

FETCHES = "torch.utils.data._utils.fetch"  # the module whose objects a worker makes anew for each pass over the data


def worker_seed() -> int:
    """The seed that torch gave to this worker of a loader. 0 outside of workers."""
    worker = get_worker_info()
    return 0 if worker is None else int(worker.seed) % 2**63


def this_pass() -> Any:
    """An object that stands for a worker's present pass over the data. None outside of workers, or if there is none."""
    if get_worker_info() is None:
        return None
    frame = sys._getframe()
    while frame is not None and frame.f_globals.get("__name__") != FETCHES:
        frame = frame.f_back  # type: ignore[assignment]
    return None if frame is None else weakref.ref(frame.f_locals["self"])

"""Ranks that train together: sums over all of them, and an error on every rank if they are not at the same place.

Before each sum, and at each step, the ranks tell each other where they are, in a message of one size. So ranks that are at
different places learn it, instead of mixing up two sums. The messages go through the CPU, in a process group of adaug's own.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")

PATIENCE = timedelta(minutes=5)  # the wait for other ranks, if init_process_group got no timeout (torch waits 30)
GRACE = 1.0  # seconds that waiting ranks take to tell each other that they wait
WIDTH = 96  # bytes of a message
SHOULD = "All ranks should take the same steps together."
REMEDY = (
    "give all ranks the same number of batches (DistributedSampler, drop_last=True), and skip a batch on all of them or on "
    "none. If ranks are only slow, give init_process_group a longer timeout."
)
_group: tuple[Any, Any] = (None, None)  # the default group, and ours beside it


def dist_size() -> int:
    """The number of ranks that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def dist_rank() -> int:
    """The rank of this process."""
    return dist.get_rank() if dist_size() > 1 else 0


def meet(act: str, step: int) -> None:
    """Waits until all ranks are at a step. Raises RuntimeError on all of them if one is missing or elsewhere."""
    if dist_size() > 1:
        _agree(f"in {act} {step}")


def add_up(tensor: Tensor, what: str) -> None:
    """Sums a tensor over ranks, in place. Raises RuntimeError as `meet` does; `what` is for its message."""
    _together(f"{what} ({tensor.numel()} numbers)", "all_reduce", tensor)


def same_as_first(tensor: Tensor) -> None:
    """Overwrites a tensor by that of rank 0. Raises RuntimeError as `meet` does."""
    _together(f"at binding ({tensor.numel()} numbers)", "broadcast", tensor, src=0)


def value_of_first(value: T) -> T:
    """Returns rank 0's value on all ranks. Raises RuntimeError as `meet` does."""
    values = [value]
    _together("at binding", "broadcast_object_list", values, src=0)
    return values[0]


def _together(place: str, collective: str, data: Tensor | list[Any], **more: Any) -> None:
    if dist_size() > 1:
        _agree(place)
        on_gpu = isinstance(data, Tensor) and data.device.type != "cpu"
        with _missing_named(place):
            getattr(dist, collective)(data, group=None if on_gpu else _own(), **more)


def _agree(place: str) -> None:
    """Tells all ranks the place of this one. Raises RuntimeError on all of them unless it is the same."""
    mine = torch.tensor(list(place.encode().ljust(WIDTH)[:WIDTH]), dtype=torch.uint8, device="cpu")
    found = [torch.empty_like(mine) for _ in range(dist_size())]
    with _missing_named(place):
        dist.all_gather(found, mine, group=_own())
    places: dict[str, list[int]] = {}
    for rank, message in enumerate(found):
        places.setdefault(bytes(message.tolist()).decode(errors="replace").strip(), []).append(rank)
    if len(places) > 1:
        where = ", ".join(f"{_names(ranks)} {place}" for place, ranks in places.items())
        raise RuntimeError(f"{SHOULD} Found {where}; load one state on all if they are at different steps, and {REMEDY}")


def _own() -> Any:
    """A group of our own on the CPU, so that the user's sums do not interfere."""
    global _group
    if _group[0] is not dist.group.WORLD:
        _group = dist.group.WORLD, dist.new_group(backend="gloo", timeout=_patience())
    return _group[1]


def _patience() -> timedelta:
    """How long ranks wait for each other: the timeout of init_process_group, which torch keeps private, else `PATIENCE`."""
    try:
        from torch.distributed.distributed_c10d import _get_default_group, default_pg_timeout

        given: timedelta = _get_default_group()._get_backend(torch.device("cpu")).options._timeout
    except (AttributeError, ImportError, RuntimeError):  # another version of torch, or no CPU backend
        return PATIENCE
    return PATIENCE if given == default_pg_timeout else given


@contextmanager
def _missing_named(place: str) -> Iterator[None]:
    """Turns the failure of a collective into an error that names the missing ranks. The next call makes another group."""
    global _group
    started = time.monotonic()
    try:
        yield
    except RuntimeError as error:
        waited, missing = time.monotonic() - started, _missing(place)
        _group = (None, None)
        raise RuntimeError(
            f"{SHOULD} Found rank {dist_rank()} {place} without {missing}, after {waited:.0f} seconds; {REMEDY}"
        ) from error


def _missing(place: str) -> str:
    """The ranks that do not wait here. Each waiting rank leaves a note in the store, which torch keeps private."""
    others = [rank for rank in range(dist_size()) if rank != dist_rank()]
    try:
        from torch.distributed.distributed_c10d import _get_default_store

        store: Any = _get_default_store()
        store.set(f"adaug/{place}/{dist_rank()}", "waits")
        time.sleep(GRACE)
        return _names([rank for rank in others if not store.check([f"adaug/{place}/{rank}"])] or others)
    except (ImportError, RuntimeError):  # the rank that holds the store has left
        return _names(others)


def _names(ranks: Sequence[int]) -> str:
    return f"rank{'s' * (len(ranks) > 1)} {', '.join(map(str, ranks))}"

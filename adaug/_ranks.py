"""Ranks that train together: sums over all of them, and an error that says who is missing instead of a wait without end."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.algorithms.join import Join, Joinable, JoinHook

T = TypeVar("T")

PATIENCE = timedelta(minutes=5)  # for the others, where init_process_group was not given a timeout: torch's is half an hour
GRACE = 1.0  # seconds in which the ranks that have waited in vain find each other
REMEDY = (
    "give all ranks the same number of batches (DistributedSampler, drop_last=True), skip none on some ranks alone, or step "
    "inside torch.distributed.algorithms.Join([augmenter, model]). Where ranks are only slow, give init_process_group a longer "
    "timeout."
)
_group: tuple[Any, Any] = (None, None)  # the default group, and ours beside it
_met = ""  # where all ranks were together last


def dist_size() -> int:
    """The number of ranks that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def dist_rank() -> int:
    """This process among them."""
    return dist.get_rank() if dist_size() > 1 else 0


def add_up(tensor: Tensor, what: str) -> None:
    """Sums a tensor over ranks, in place; `what` is for errors. Raises RuntimeError when one does not come."""
    if dist_size() > 1:
        with _missing_said(what):
            dist.all_reduce(tensor, group=_ours(tensor.device))


def same_as_first(tensor: Tensor) -> None:
    """Overwrites a tensor by that of rank 0. Raises RuntimeError when one does not come."""
    if dist_size() > 1:
        with _missing_said("at binding"):
            dist.broadcast(tensor, 0, group=_ours(tensor.device))


def value_of_first(value: T, device: torch.device) -> T:
    """What rank 0 gives, on all ranks. Raises RuntimeError when one does not come."""
    if dist_size() == 1:
        return value
    values = [value]
    with _missing_said("at binding"):
        dist.broadcast_object_list(values, 0, group=_ours(device))
    return values[0]


def meet(act: str, step: int, device: torch.device) -> None:
    """Waits until all ranks are at the same step, before anything has changed.

    On a GPU nobody waits here: that would cost a synchronisation, and NCCL ends by itself after its timeout.

    Raises:
        RuntimeError: A rank does not come, or is at another step.
    """
    if dist_size() == 1 or device.type != "cpu":
        return
    global _met
    steps = _slots(step)
    add_up(steps, f"in {act} {step}")
    found = {rank: int(slot) - 1 for rank, slot in enumerate(steps.tolist()) if slot}  # 0: it has joined
    if len(set(found.values())) > 1:
        where = ", ".join(f"rank {rank} in {act} {other}" for rank, other in found.items())
        raise RuntimeError(f"All ranks should take the same steps together. Found {where}; load one state on all, and {REMEDY}")
    _met = f"{act} {step}"


def _slots(step: int | None) -> Tensor:
    """A row with a place for each rank, in which this one writes its step, from 1 on. [ranks]."""
    steps = torch.zeros(dist_size(), dtype=torch.long, device="cpu")
    if step is not None:
        steps[dist_rank()] = step + 1
    return steps


def _ours(device: torch.device) -> Any:
    """The group for what is summed on a device: on the CPU one of our own, which nothing of the user's gets in between."""
    global _group, _met
    if device.type != "cpu":
        return None
    if _group[0] is not dist.group.WORLD:
        _group, _met = (dist.group.WORLD, dist.new_group(backend="gloo", timeout=patience())), ""
    return _group[1]


def patience() -> timedelta:
    """How long ranks wait for each other on the CPU: what init_process_group was told, else `PATIENCE`."""
    try:
        from torch.distributed.distributed_c10d import _get_default_group, default_pg_timeout

        given: timedelta = _get_default_group()._get_backend(torch.device("cpu")).options._timeout
    except (AttributeError, ImportError, RuntimeError):  # torch names these otherwise, or has nothing for the CPU
        return PATIENCE
    return PATIENCE if given == default_pg_timeout else given


@contextmanager
def _missing_said(what: str) -> Iterator[None]:
    """Says in our words that a collective failed, and which ranks were not there."""
    started = time.monotonic()
    try:
        yield
    except RuntimeError as error:
        waited = time.monotonic() - started
        raise RuntimeError(
            f"All ranks should take the same steps together. Found rank {dist_rank()} {what} without "
            f"{_who_is_missing(what)}, after {waited:.0f} seconds; {REMEDY}"
        ) from error


def _who_is_missing(what: str) -> str:
    """The ranks that do not wait here too. Each that does leaves a note; nothing is written while all is well."""
    others = [rank for rank in range(dist_size()) if rank != dist_rank()]
    try:
        from torch.distributed.distributed_c10d import _get_default_store

        store: Any = _get_default_store()
        store.set(f"adaug/{what}/{dist_rank()}", "waits")
        time.sleep(GRACE)
        others = [rank for rank in others if not store.check([f"adaug/{what}/{rank}"])] or others
    except (ImportError, RuntimeError):  # the rank that keeps the notes has left
        pass
    return f"rank{'s' * (len(others) > 1)} {', '.join(map(str, others))}" + (f" (last met in {_met})" if _met else "")


# ---- ranks that have fewer batches


class Joins(Joinable):
    """What `torch.distributed.algorithms.Join` asks of an augmenter, so that ranks may have fewer batches than others."""

    @abstractmethod
    def _stand_in(self) -> list[tuple[Tensor, Callable[[Tensor], None]]]:
        """Counts a step without a batch. What it adds, tensors in the order of the sums, and what to do with each sum."""

    @property
    @abstractmethod
    def _sums_over_ranks(self) -> bool:
        """Whether steps of all ranks belong together."""

    @property
    @abstractmethod
    def _bound_device(self) -> torch.device | None: ...

    def join_hook(self, **kwargs: Any) -> JoinHook:
        """For `torch.distributed.algorithms.Join([augmenter, model])`: it stands in for a rank that has no batches left.

        Raises RuntimeError before binding, and on a GPU.
        """
        if self._bound_device is None or self._bound_device.type != "cpu":
            found = "none" if self._bound_device is None else f"one on {self._bound_device}, where it would wait for DDP"
            raise RuntimeError(
                "An augmenter should be bound to a model on the CPU before ranks join. Found "
                f"{found}; call `augmenter.bind(model, batch)` first, or give all ranks the same number of batches."
            )
        return _Stand(self)

    @property
    def join_device(self) -> torch.device:
        """For `torch.distributed.algorithms.Join`."""
        return self._bound_device or torch.device("cpu")

    @property
    def join_process_group(self) -> Any:
        """For `torch.distributed.algorithms.Join`."""
        return dist.group.WORLD

    def _meet(self, step: int, device: torch.device) -> None:
        """Tells `Join` that there is a batch, and meets the other ranks."""
        if dist_size() > 1:
            Join.notify_join_context(self)
            if self._sums_over_ranks:
                meet("step", step, device)


class _Stand(JoinHook):
    """Takes part in the sums of the ranks that still have batches. It does not wait: DDP's own sums come in between."""

    def __init__(self, augmenter: Joins) -> None:
        self.augmenter = augmenter
        self.sums: list[tuple[Any, Tensor, Callable[[Tensor], None]]] = []

    def main_hook(self) -> None:
        """One step of the others."""
        self._follow()
        meeting = [(_slots(None), _nothing)] if self.augmenter._sums_over_ranks else []
        parts = [*meeting, *self.augmenter._stand_in()]
        self.sums = [(dist.all_reduce(t, group=_ours(t.device), async_op=True), t, follow) for t, follow in parts]

    def post_hook(self, is_last_joiner: bool) -> None:
        """The end."""
        self._follow()

    def _follow(self) -> None:
        for work, tensor, follow in self.sums:
            with _missing_said("that has joined"):
                work.wait()
            follow(tensor)
        self.sums = []


def _nothing(steps: Tensor) -> None:
    """What a rank without a batch does with the steps of the others."""

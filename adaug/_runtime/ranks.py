"""Ranks that train together: sums over all of them, and errors that name missing ranks instead of endless waiting."""

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

PATIENCE = timedelta(minutes=5)  # the wait for other ranks, if init_process_group got no timeout (torch waits 30)
GRACE = 1.0  # seconds that waiting ranks take to tell each other that they wait
REMEDY = (
    "give all ranks the same number of batches (DistributedSampler, drop_last=True), skip no batch on only some ranks, or step "
    "inside torch.distributed.algorithms.Join([augmenter, model]). If ranks are only slow, give init_process_group a longer "
    "timeout."
)
_group: tuple[Any, Any] = (None, None)  # the default group, and ours beside it
_met = ""  # the step at which all ranks last met


def dist_size() -> int:
    """The number of ranks that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def dist_rank() -> int:
    """The rank of this process."""
    return dist.get_rank() if dist_size() > 1 else 0


def add_up(tensor: Tensor, what: str) -> None:
    """Sums a tensor over ranks, in place. Raises RuntimeError if a rank is missing; `what` is for its message."""
    if dist_size() > 1:
        with _missing_said(what):
            dist.all_reduce(tensor, group=_ours(tensor.device))


def same_as_first(tensor: Tensor) -> None:
    """Overwrites a tensor by that of rank 0. Raises RuntimeError if a rank is missing."""
    if dist_size() > 1:
        with _missing_said("at binding"):
            dist.broadcast(tensor, 0, group=_ours(tensor.device))


def value_of_first(value: T, device: torch.device) -> T:
    """Returns rank 0's value on all ranks. Raises RuntimeError if a rank is missing."""
    if dist_size() == 1:
        return value
    values = [value]
    with _missing_said("at binding"):
        dist.broadcast_object_list(values, 0, group=_ours(device))
    return values[0]


def meet(act: str, step: int, device: torch.device) -> None:
    """Waits until all ranks are at the same step, before anything has changed.

    On a GPU this does nothing: it would have to wait for the device, and NCCL stops by itself after its timeout.

    Raises:
        RuntimeError: A rank is missing, or is at another step.
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
    """A number for each rank, [ranks]: this rank's step + 1 at its place, and 0 elsewhere."""
    steps = torch.zeros(dist_size(), dtype=torch.long, device="cpu")
    if step is not None:
        steps[dist_rank()] = step + 1
    return steps


def _ours(device: torch.device) -> Any:
    """The group for sums on a device. On the CPU it is a group of our own, so that the user's sums do not interfere."""
    global _group, _met
    if device.type != "cpu":
        return None
    if _group[0] is not dist.group.WORLD:
        _group, _met = (dist.group.WORLD, dist.new_group(backend="gloo", timeout=patience())), ""
    return _group[1]


def patience() -> timedelta:
    """How long ranks wait for each other on the CPU: the timeout of init_process_group, else `PATIENCE`."""
    try:
        from torch.distributed.distributed_c10d import _get_default_group, default_pg_timeout

        given: timedelta = _get_default_group()._get_backend(torch.device("cpu")).options._timeout
    except (AttributeError, ImportError, RuntimeError):  # another version of torch, or no CPU backend
        return PATIENCE
    return PATIENCE if given == default_pg_timeout else given


@contextmanager
def _missing_said(what: str) -> Iterator[None]:
    """Turns the failure of a collective into an error that names the missing ranks."""
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
    """The ranks that do not wait here. Each waiting rank leaves a note in the store, but only after a failure."""
    others = [rank for rank in range(dist_size()) if rank != dist_rank()]
    try:
        from torch.distributed.distributed_c10d import _get_default_store

        store: Any = _get_default_store()
        store.set(f"adaug/{what}/{dist_rank()}", "waits")
        time.sleep(GRACE)
        others = [rank for rank in others if not store.check([f"adaug/{what}/{rank}"])] or others
    except (ImportError, RuntimeError):  # the rank that holds the store has left
        pass
    return f"rank{'s' * (len(others) > 1)} {', '.join(map(str, others))}" + (f" (last met in {_met})" if _met else "")


# ---- ranks that have fewer batches


class Joins(Joinable):
    """The methods that `torch.distributed.algorithms.Join` needs, so that some ranks may have fewer batches."""

    @abstractmethod
    def _stand_in(self) -> list[tuple[Tensor, Callable[[Tensor], None]]]:
        """Counts a step without a batch. Returns pairs (tensor to add, what to do with the sum), in the order of the sums."""

    @property
    @abstractmethod
    def _sums_over_ranks(self) -> bool:
        """Whether a step needs sums over all ranks."""

    @property
    @abstractmethod
    def _bound_device(self) -> torch.device | None: ...

    def join_hook(self, **kwargs: Any) -> JoinHook:
        """For `torch.distributed.algorithms.Join([augmenter, model])`: takes part for a rank that has no batches left.

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
    """Takes part in the sums of ranks that still have batches. It must not wait, because DDP's sums come in between."""

    def __init__(self, augmenter: Joins) -> None:
        self.augmenter = augmenter
        self.sums: list[tuple[Any, Tensor, Callable[[Tensor], None]]] = []

    def main_hook(self) -> None:
        """Takes part in one step of the others."""
        self._follow()
        meeting = [(_slots(None), _nothing)] if self.augmenter._sums_over_ranks else []
        parts = [*meeting, *self.augmenter._stand_in()]
        self.sums = [(dist.all_reduce(t, group=_ours(t.device), async_op=True), t, follow) for t, follow in parts]

    def post_hook(self, is_last_joiner: bool) -> None:
        """Takes part in the last sums."""
        self._follow()

    def _follow(self) -> None:
        for work, tensor, follow in self.sums:
            with _missing_said("that has joined"):
                work.wait()
            follow(tensor)
        self.sums = []


def _nothing(steps: Tensor) -> None:
    """A rank without a batch ignores the steps of the others."""

"""The processes that torchrun starts."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
import torch.distributed as dist

from examples.hourglass.config import Machine


def rank() -> int:
    """The number of this process among those that torchrun started."""
    return dist.get_rank() if dist.is_initialized() else 0


def ranks() -> int:
    """The number of processes that torchrun started."""
    return dist.get_world_size() if dist.is_initialized() else 1


def started() -> dict[str, int]:
    """Rank and number of ranks, which torchrun tells before the processes have joined."""
    return {"rank": int(os.environ.get("RANK", "0")), "ranks": int(os.environ.get("WORLD_SIZE", "1"))}


@contextmanager
def distributed(machine: Machine) -> Iterator[Machine]:
    """Joins the processes that torchrun started, and leaves them at the end. A single process joins nothing."""
    if started()["ranks"] < 2 or dist.is_initialized():
        yield machine
        return
    cuda = machine.device.startswith("cuda")
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if cuda:
        torch.cuda.set_device(local)
    dist.init_process_group("nccl" if cuda else "gloo")
    try:
        yield replace(machine, device=f"cuda:{local}") if cuda else machine
    finally:
        dist.destroy_process_group()

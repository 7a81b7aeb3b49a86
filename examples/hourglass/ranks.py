"""The processes that torchrun starts."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from dataclasses import replace

import torch
import torch.distributed as dist

from examples.hourglass.config import Machine


def rank() -> int:
    """This process among those that torchrun started."""
    return dist.get_rank() if dist.is_initialized() else 0


def ranks() -> int:
    """How many there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


def distributed(machine: Machine) -> AbstractContextManager[Machine]:
    """Joins the processes that torchrun started, and leaves them at the end; alone it does nothing."""
    return _Distributed(machine)


class _Distributed(AbstractContextManager[Machine]):
    def __init__(self, machine: Machine) -> None:
        self.machine, self.started = machine, int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized()

    def __enter__(self) -> Machine:
        if not self.started:
            return self.machine
        cuda = self.machine.device.startswith("cuda")
        local = int(os.environ.get("LOCAL_RANK", "0"))
        if cuda:
            torch.cuda.set_device(local)
        dist.init_process_group("nccl" if cuda else "gloo")
        return replace(self.machine, device=f"cuda:{local}") if cuda else self.machine

    def __exit__(self, *error: object) -> None:
        if self.started:
            dist.destroy_process_group()

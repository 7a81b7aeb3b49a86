"""Unwraps the user's model from (Distributed)DataParallel, torch.compile and Fabric, and refuses other wrappers."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

D = TypeVar("D", torch.device, None)
SHARDED: tuple[Any, ...] = ()
WRAPPED: tuple[Any, ...] = ()
if dist.is_available():
    from torch.distributed.fsdp import FSDPModule, FullyShardedDataParallel

    SHARDED, WRAPPED = (FSDPModule,), (FullyShardedDataParallel,)


def unwrap(model: nn.Module) -> nn.Module:
    """The user's module without its wrappers. Raises TypeError on wrappers that adaug cannot open."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"`model` should be a torch.nn.Module. Found {type(model).__name__}.")
    while True:
        refuse_fsdp1([model])
        single = isinstance(model, nn.DataParallel) and len(model.device_ids) <= 1  # it makes no replicas
        if isinstance(model, nn.DataParallel) and not single:
            raise TypeError(
                "The model should be on one device, or in DistributedDataParallel. Found DataParallel on devices "
                f"{list(model.device_ids)}, whose replicas would meet other rows' masks; give `step` the model inside, "
                "`model.module`, or start one process for each device with torchrun."
            )
        inner = getattr(model, "_orig_mod", None)
        if inner is None and (single or isinstance(model, DistributedDataParallel)):
            inner = model.module
        if inner is None and isinstance(getattr(model, "_forward_module", None), DistributedDataParallel):
            inner = getattr(model, "_original_module", None)  # Lightning Fabric's wrapper
        if not isinstance(inner, nn.Module):
            return model
        model = inner


def refuse_inner_ddp(model: nn.Module) -> None:
    """Raises TypeError if a part of an unwrapped model is in DDP: its passes would wait for ranks that do not run them."""
    wrapped = [name for name, module in model.named_modules() if isinstance(module, DistributedDataParallel)]
    if wrapped:
        raise TypeError(
            "DistributedDataParallel should be around the whole model, because looks and scores run the module inside. "
            f"Found it around {', '.join(wrapped)}; wrap the model itself."
        )


def refuse_fsdp1(modules: Iterable[nn.Module]) -> None:
    """Raises TypeError if a module is in FullyShardedDataParallel, whose flat parameters cannot be read."""
    if any(isinstance(module, WRAPPED) for module in modules):
        raise TypeError(
            "The model should be whole on every rank, or sharded by `fully_shard`. Found FullyShardedDataParallel; use "
            "torch.distributed.fsdp.fully_shard, its successor."
        )


def shards(modules: Iterable[nn.Module]) -> list[Any]:
    """The modules that `fully_shard` spread over ranks. Every pass gathers their parameters, so all ranks must run it."""
    return [module for module in modules if isinstance(module, SHARDED)]


def is_compiled(modules: Iterable[nn.Module]) -> bool:
    """Whether any of a model's modules is compiled. Its compiled code may be older than a hook."""
    return any(
        "_orig_mod" in module._modules
        or module.__dict__.get("_compiled_call_impl") is not None
        or hasattr(module.__dict__.get("forward"), "_torchdynamo_orig_callable")
        for module in modules
    )


def device_of(model: nn.Module, default: D) -> torch.device | D:
    """The device of the model, or `default` if it has no parameters and buffers."""
    tensor = next(itertools.chain(model.parameters(), model.buffers()), None)
    return default if tensor is None else tensor.device

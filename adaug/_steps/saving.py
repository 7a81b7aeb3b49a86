"""An augmenter's state inside that of the optimizer, so that a loop saves and resumes it with what it saves already."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping
from typing import Any, Protocol
from weakref import WeakKeyDictionary

from torch.optim import Optimizer

from adaug._runtime.ranks import dist_rank

LOG = logging.getLogger("adaug")
NAME = "adaug"


class Saved(Protocol):
    """What has a state."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


_saved: WeakKeyDictionary[Optimizer, dict[str, Saved]] = WeakKeyDictionary()  # what each optimizer saves, by name


def save_with(augmenter: Saved, optimizer: Any, name: str = NAME) -> None:
    """Lets an optimizer save and load an augmenter's state under a name. Wrappers of trainers are looked through.

    Raises TypeError or ValueError if it cannot do so, or if it saves another augmenter under this name.
    """
    while isinstance(inner := getattr(optimizer, "optimizer", None), Optimizer):
        optimizer = inner
    if not isinstance(optimizer, Optimizer):
        raise TypeError(
            f"`save_with` should get a torch.optim.Optimizer. Found {type(optimizer).__name__}; save "
            "`augmenter.state_dict()` beside its state."
        )
    if not _runs_hooks(optimizer):
        raise TypeError(
            f"`save_with` should get an optimizer whose `load_state_dict` is torch's. Found {type(optimizer).__name__} with "
            "one of its own, which calls no hooks; save `augmenter.state_dict()` beside its state."
        )
    present = _saved.setdefault(optimizer, {})
    if present.get(name) is augmenter:
        return
    if name in {"state", "param_groups", *present}:
        raise ValueError(
            f"`name` should not be in use in the optimizer's state. Found {name!r}, which is that of "
            f"{'another augmenter' if name in present else 'the optimizer'}; pass another name."
        )

    def save(_: Optimizer, state: dict[str, Any]) -> None:
        state[name] = augmenter.state_dict()

    def load(mine: Optimizer, state: dict[str, Any]) -> None:
        sizes = [[len(group["params"]) for group in groups] for groups in (mine.param_groups, state["param_groups"])]
        if sizes[0] != sizes[1]:
            state.pop(name, None)  # torch refuses it, so the augmenter stays as it is too
        elif name in state:
            augmenter.load_state_dict(state.pop(name))  # torch gives a copy; it fails before the optimizer changes
        else:
            warn_unsaved(f"the optimizer's state has no {name!r}")

    optimizer.register_state_dict_post_hook(save)
    optimizer.register_load_state_dict_pre_hook(load)
    present[name] = augmenter


def warn_unsaved(found: str) -> None:
    """Says that a training goes on without the state of its augmenter."""
    if dist_rank() == 0:
        LOG.warning(
            f"adaug: a checkpoint should hold the augmenter's state. Found that {found}; if this training used the augmenter "
            "before, its distributions now start from uniform, and its first views repeat."
        )


def _runs_hooks(optimizer: Optimizer) -> bool:
    """Whether loading calls torch's hooks: the method is torch's, or names another `load_state_dict` that it calls."""
    method = inspect.unwrap(type(optimizer).load_state_dict)
    code = getattr(method, "__code__", None)
    return method is inspect.unwrap(Optimizer.load_state_dict) or code is None or "load_state_dict" in code.co_names

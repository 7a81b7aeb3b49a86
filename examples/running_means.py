"""Running means of training metrics over an epoch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


class Means:
    """Running means of metrics "kind/name". They stay on the device, because reading a number would wait for it."""

    def __init__(self, device: torch.device, state: Mapping[str, Any] | None = None) -> None:
        """state: a result of `state_dict` to continue from."""
        known: Mapping[str, Any] = state or {"sums": {}, "counts": {}}
        self.device = device
        self.sums: dict[str, Tensor] = {name: value.to(device) for name, value in known["sums"].items()}
        self.counts: dict[str, int] = dict(known["counts"])

    def state_dict(self) -> dict[str, Any]:
        return {"sums": dict(self.sums), "counts": dict(self.counts)}

    def add(self, metrics: dict[str, Tensor]) -> None:
        for name, value in metrics.items():
            self.sums[name] = self.sums[name] + value if name in self.sums else value.clone()
            self.counts[name] = self.counts.get(name, 0) + 1

    def of_kind(self, kind: str) -> dict[str, Tensor]:
        """Name -> mean, for one kind."""
        names = {key.partition("/")[2]: key for key in self.sums if key.partition("/")[0] == kind}
        return {name: self.sums[key] / self.counts[key] for name, key in names.items()}

    def total(self, kind: str) -> Tensor:
        """The mean over all metrics of a kind."""
        means = [value.float() for value in self.of_kind(kind).values()]
        return torch.stack(means).mean() if means else torch.zeros((), device=self.device)

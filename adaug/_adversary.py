"""One branch's player: its generator and the optimizer that moves it."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from adaug._generator import Generator, Layout, Shape
from adaug._random import Habit, Stream, seeded
from adaug._ranks import add_up, same_as_first
from adaug._reward import capped, kl_divergence
from adaug.policy import Branch

GeneratorFactory = Callable[[Sequence[Shape], Mapping[str, Layout]], nn.Module]
OptimizerFactory = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
LogProbs = dict[str, Tensor]  # name of an operation -> log-probabilities [n, k]
HUGE = 1e9  # its square, summed over a map, is still a number in float32


@dataclass(frozen=True)
class Lesson:
    """What the rows of a branch teach its generator.

    Attributes:
        targets: Name of an operation -> update target [n, k].
        log_probs: Name of an operation -> the generator's log-probabilities [n, k], with graph.
        valid: [n] bool, the rows that count.
    """

    targets: Mapping[str, Tensor]
    log_probs: Mapping[str, Tensor]
    valid: Tensor


def default_optimizer(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """Adam at 1e-3: generators that follow the network without a stage of their own. The paper's is RMSProp at 5e-5."""
    given = list(parameters)
    fused = all(parameter.device.type in ("cpu", "cuda") for parameter in given)  # many small tensors: one call for all
    return torch.optim.Adam(given, lr=1e-3, fused=fused)


class Adversary:
    """The generator of one branch and its optimizer, apart from the user's.

    Args:
        branch: Its branch.
        shapes: Of the features.
        make_generator: A factory.
        make_optimizer: A factory.
        stream: Where its first weights come from.
        device: Where it is.
        cap: No probability of a prediction is above cap / k.
    """

    def __init__(
        self,
        branch: Branch,
        shapes: Sequence[Shape],
        make_generator: GeneratorFactory | None,
        make_optimizer: OptimizerFactory | None,
        stream: Stream,
        device: torch.device,
        cap: float = math.inf,
    ) -> None:
        self.branch, self.device, self.cap = branch, device, cap
        self._habit = Habit()  # whether predictions draw: a user's generator may have dropout
        with seeded(stream.seed), torch.device("cpu"):  # made alike wherever it will be
            self.generator = (make_generator or Generator)(shapes, branch.layouts).to(device, torch.float32)
        for tensor in [*self.generator.parameters(), *self.generator.buffers()]:
            same_as_first(tensor.detach())
        self.optimizer = (make_optimizer or default_optimizer)(self.generator.parameters())

    def predict(self, features: Sequence[Tensor], seed: int = 0) -> LogProbs:
        """Log-probabilities [n, k] of each operation from feature maps, in float32 also inside autocast.

        What the generator draws, such as dropout, comes from the seed.

        Features that are not finite count as 0, huge ones are cut: a broken image must not break the generator for all.

        None is above the cap, because a generator overshoots the targets that it follows. The gradient is that of what the
        generator itself says, so that learning pulls back one that overshot.
        """
        maps = [torch.nan_to_num(feature.detach().float(), 0.0, 0.0, 0.0).clamp(-HUGE, HUGE) for feature in features]
        with torch.autocast(maps[0].device.type, enabled=False), seeded(seed, self.device, self._habit):
            logits: dict[str, Tensor] = self.generator(maps)
        for name, layout in self.branch.layouts.items():
            expected = (len(maps[0]), layout if isinstance(layout, int) else math.prod(layout))
            returned = tuple(logits[name].shape) if name in logits else "nothing"
            if returned != expected:
                raise ValueError(f"The generator should return logits {expected} for {name!r}. Found {returned}.")
        return {name: _capped(torch.log_softmax(logits[name].float(), 1), self.cap) for name in self.branch.layouts}

    def learn(self, lesson: Lesson | None) -> None:
        """One step on the KL divergence of Eq. (3) and (4) between update targets and proposals, averaged over rows.

        All ranks give the same generators the mean over all their rows; one without a lesson (None) waits for the others.
        """
        flat = self.gradients(lesson)
        add_up(flat, "with gradients of generators")
        self.follow(flat)

    def gradients(self, lesson: Lesson | None) -> Tensor:
        """The gradients of a lesson, summed over its rows, and how many rows these are. [parameters + 1]."""
        parameters = self._parameters()
        total = torch.zeros((), device=self.device)
        count = torch.zeros((), device=self.device)
        if lesson is not None:
            valid = lesson.valid
            for name, target in lesson.targets.items():
                valid = valid & torch.isfinite(target).all(1) & torch.isfinite(lesson.log_probs[name].detach()).all(1)
            for name, target in lesson.targets.items():
                safe = torch.where(valid[:, None], target, 0), torch.where(valid[:, None], lesson.log_probs[name], 0)
                total = total + kl_divergence(*safe).sum()
            count = valid.sum().float()
        grads: Sequence[Tensor | None] = [None] * len(parameters)
        if total.requires_grad:
            grads = torch.autograd.grad(total, parameters, allow_unused=True)
        return torch.cat([
            *(torch.zeros_like(p).flatten() if g is None else g.flatten() for p, g in zip(parameters, grads, strict=True)),
            count[None],
        ])  # fmt: skip

    def follow(self, flat: Tensor) -> None:
        """One step along the mean of gradients that were summed over all rows."""
        parameters = self._parameters()
        if flat.device.type == "cpu" and not flat[-1]:
            return  # nothing to learn from; on a GPU asking would wait for it, and the gradients are zero
        mean = flat[:-1] / flat[-1].clamp(min=1)
        mean = torch.where(torch.isfinite(mean).all(), mean, 0)  # one row beyond float32 must not end the generator
        for parameter, grad in zip(parameters, mean.split([p.numel() for p in parameters]), strict=True):
            parameter.grad = grad.view_as(parameter)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def _parameters(self) -> list[nn.Parameter]:
        return [p for p in self.generator.parameters() if p.requires_grad]

    def state_dict(self) -> dict[str, Any]:
        """Weights and the optimizer's state."""
        return {"generator": self.generator.state_dict(), "optimizer": self.optimizer.state_dict()}

    def check_state(self, state: Mapping[str, Any]) -> None:
        """Raises ValueError when a state does not fit, before anything is loaded."""
        owner = f"A state of branch {self.branch.name!r}"
        if not isinstance(state, Mapping) or not {"generator", "optimizer"} <= set(state):
            raise ValueError(f"{owner} should hold `generator` and `optimizer`. Found {state!r:.60}.")
        present = {name: tuple(tensor.shape) for name, tensor in self.generator.state_dict().items()}
        saved = {name: tuple(tensor.shape) for name, tensor in state["generator"].items()}
        if present != saved:
            name = next(name for name in [*present, *saved] if present.get(name) != saved.get(name))
            raise ValueError(
                f"{owner} should fit its generator. Found {name} of shape {saved.get(name)} for {present.get(name)}; "
                "use the layers in `features` (and the generator) that it was saved with."
            )
        sizes = [len(group["params"]) for group in self.optimizer.param_groups]
        saved_sizes = [len(group["params"]) for group in state["optimizer"].get("param_groups", ())]
        if sizes != saved_sizes:
            raise ValueError(f"{owner} should fit its optimizer, parameter groups of {sizes}. Found groups of {saved_sizes}.")

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes back what `state_dict` gave."""
        self.generator.load_state_dict(state["generator"])
        self.optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))  # which would go on using these very tensors


class _Shown(torch.autograd.Function):
    """Log-probabilities with the values of others: (theirs, shown) -> shown, with the gradient of theirs."""

    @staticmethod
    def forward(ctx: Any, theirs: Tensor, shown: Tensor) -> Tensor:
        return shown.view_as(shown)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Any, None]:
        return gradients[0], None


def _capped(log_probs: Tensor, cap: float) -> Tensor:
    """Log-probabilities [n, k] none of which is above log(cap / k), with the gradient of those that were given."""
    if cap >= log_probs.shape[1]:
        return log_probs
    with torch.no_grad():
        shown = capped(log_probs.exp(), cap).clamp(min=torch.finfo(log_probs.dtype).tiny).log()
    result: Tensor = _Shown.apply(log_probs, shown)  # type: ignore[no-untyped-call]
    return result


def uniform(branch: Branch, n: int, device: torch.device) -> LogProbs:
    """Log-probabilities [n, k] of each operation that prefer nothing."""
    return {op.name: torch.full((n, op.bins), 1 / op.bins, device=device).log() for op in branch.operations}

"""The generator of one branch, and the optimizer that moves it."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from adaug._model.layers import Shape
from adaug._runtime.checks import as_text, mapping
from adaug._runtime.random import Stream, no_inference, seeded
from adaug._runtime.ranks import add_up, same_as_first
from adaug._runtime.states import Description, anything, check_optimizer, check_state, tensor, weights
from adaug.learners.generator import Generator, Layout
from adaug.learners.reward import capped, kl_divergence
from adaug.learners.trials import LogProbs
from adaug.policies import Branch

__all__ = ["Adversary"]

GeneratorFactory = Callable[[Sequence[Shape], Mapping[str, Layout]], nn.Module]
OptimizerFactory = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
HUGE = 1e9  # its square, summed over a map, still fits into float32


@dataclass(frozen=True)
class UpdateTargets:
    """The update targets that a generator learns from the rows of its branch.

    Attributes:
        targets: Name of an operation -> update target [n, k].
        log_probs: Name of an operation -> the generator's log-probabilities [n, k], with graph.
        valid: [n] bool, the rows that count.
    """

    targets: Mapping[str, Tensor]
    log_probs: Mapping[str, Tensor]
    valid: Tensor


def default_optimizer(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """Adam at 1e-3, so that generators follow the network without a stage of their own. The paper has RMSProp at 5e-5."""
    given = list(parameters)
    fused = all(parameter.device.type in ("cpu", "cuda") for parameter in given)  # one call for many small tensors
    return torch.optim.Adam(given, lr=1e-3, fused=fused)


class Adversary:
    """The generator of one branch and its optimizer, outside the user's model and optimizer.

    Args:
        branch: The branch.
        shapes: The shapes of the features.
        make_generator: A function that makes the generator. None means `Generator`.
        make_optimizer: A function that makes the optimizer. None means `default_optimizer`.
        stream: The source of the first weights.
        device: The device of the generator.
        cap: No probability of a proposal exceeds cap / k.
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
        self.votes: dict[str, Tensor] = {}  # name of an operation -> joints of all pre-training images in each cell, [k]
        with no_inference(), seeded(stream.seed), torch.device("cpu"):  # the same weights for every device
            made = (make_generator or Generator)(shapes, branch.layouts)
            _check_generator(made)
            self.generator = made.to(device, torch.float32)
        for weight in [*self.generator.parameters(), *self.generator.buffers()]:
            same_as_first(weight.detach())
        with no_inference():
            self.optimizer = (make_optimizer or default_optimizer)(self.generator.parameters())
        _check_optimizer(self.optimizer, self.generator)

    def predict(self, features: Sequence[Tensor], seed: int = 0) -> LogProbs:
        """Predicts log-probabilities [n, k] of each operation from feature maps, in float32 even inside autocast.

        Random numbers of the generator, such as dropout, come from `seed`. Features that are not finite become 0 and huge ones
        are cut, so that one broken image does not break the generator.

        Probabilities are capped, because a generator may overshoot its targets. Gradients skip the cap, so that learning still
        pulls back a generator that overshot.
        """
        maps = [torch.nan_to_num(feature.detach().float(), 0.0, 0.0, 0.0).clamp(-HUGE, HUGE) for feature in features]
        with torch.autocast(maps[0].device.type, enabled=False), seeded(seed, self.device):
            logits: dict[str, Tensor] = self.generator(maps)
        if not isinstance(logits, Mapping):
            raise TypeError(f"The generator should return a dict, operation -> logits [n, k]. Found {type(logits).__name__}.")
        for name, layout in self.branch.layouts.items():
            expected = (len(maps[0]), layout if isinstance(layout, int) else math.prod(layout))
            returned = tuple(logits[name].shape) if name in logits else "nothing"
            if returned != expected:
                raise ValueError(f"The generator should return logits {expected} for {name!r}. Found {returned}.")
        return {name: _capped(torch.log_softmax(logits[name].float(), 1), self.cap) for name in self.branch.layouts}

    def gradients(self, update: UpdateTargets | None) -> list[Tensor] | None:
        """The gradients of the KL divergence between update targets and proposals, Eq. (3) and (4), averaged over rows.

        Nothing moves yet. All ranks get the mean over the rows of all. A rank without any (None) takes part too. Returns
        None if there is nothing to learn from.
        """
        flat = self.sums(update)
        add_up(flat, "with gradients of generators")
        return self.means(flat)

    def sums(self, update: UpdateTargets | None) -> Tensor:
        """The gradients of update targets, summed over its rows, and the number of rows at the end. [parameters + 1]."""
        parameters = self._parameters()
        total = torch.zeros((), device=self.device)
        count = torch.zeros((), device=self.device)
        if update is not None:
            valid = update.valid
            for name, target in update.targets.items():
                valid = valid & torch.isfinite(target).all(1) & torch.isfinite(update.log_probs[name].detach()).all(1)
            with torch.enable_grad():  # the user's own loop may be without gradients
                for name, target in update.targets.items():
                    safe = torch.where(valid[:, None], target, 0), torch.where(valid[:, None], update.log_probs[name], 0)
                    total = total + kl_divergence(*safe).sum()
            count = valid.sum().float()
        grads: Sequence[Tensor | None] = [None] * len(parameters)
        if total.requires_grad:
            grads = torch.autograd.grad(total, parameters, allow_unused=True)
        return torch.cat([
            *(torch.zeros_like(p).flatten() if g is None else g.flatten() for p, g in zip(parameters, grads, strict=True)),
            count[None],
        ])  # fmt: skip

    def means(self, flat: Tensor) -> list[Tensor] | None:
        """What `gradients` returns, from the sums over all rows."""
        parameters = self._parameters()
        if flat.device.type == "cpu" and not flat[-1]:
            return None  # nothing to learn from; on a GPU this check would wait, and gradients of zero do no harm
        mean = flat[:-1] / flat[-1].clamp(min=1)
        mean = torch.where(torch.isfinite(mean).all(), mean, 0)  # one row beyond float32 should not ruin the generator
        return [grad.view_as(p) for p, grad in zip(parameters, mean.split([p.numel() for p in parameters]), strict=True)]

    def move(self, gradients: Sequence[Tensor] | None) -> None:
        """Takes one step of the optimizer with what `gradients` returned."""
        if gradients is None:
            return
        parameters = self._parameters()
        try:
            with no_inference():
                for parameter, grad in zip(parameters, gradients, strict=True):
                    parameter.grad = grad
                self.optimizer.step()
        finally:
            for parameter in parameters:
                parameter.grad = None

    def _parameters(self) -> list[nn.Parameter]:
        return [p for p in self.generator.parameters() if p.requires_grad]

    def state_dict(self) -> dict[str, Any]:
        """Returns the weights, the optimizer's state and the votes of pre-training."""
        return {
            "generator": self.generator.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "votes": dict(self.votes),
        }

    def check_state(self, state: Any) -> None:
        """Raises TypeError or ValueError if a state does not fit. Loads nothing."""
        owner = f"A state of branch {self.branch.name!r}"
        check_state(_with_votes(state), STATE, owner)
        check_state(_with_votes(state)["votes"], self._votes_of(_with_votes(state)["votes"]), f"{owner} with votes")
        saved, present = list(state["generator"]), list(self.generator.state_dict())
        if saved != present and set(saved) == set(present):
            raise ValueError(
                f"{owner} should list its weights in the generator's order, because its optimizer counts them. Found "
                f"{as_text(saved)}; use the generator that it was saved with."
            )
        try:
            check_state(state["generator"], weights(self.generator), owner)
        except ValueError as error:
            raise ValueError(f"{error}\nUse the layers in `features` (and the generator) that it was saved with.") from None
        with no_inference():
            check_optimizer(self.optimizer, state["optimizer"], f"{owner} of its optimizer")

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Loads what `state_dict` returned."""
        with no_inference():
            self.generator.load_state_dict(state["generator"])
            self.optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))  # it keeps what it loads
            self.votes = {name: votes.to(self.device, copy=True) for name, votes in _with_votes(state)["votes"].items()}

    def _votes_of(self, names: Iterable[str]) -> Description:
        """What the votes of some operations should be. Only those with cells have any."""
        cells = {name: math.prod(layout) for name, layout in self.branch.layouts.items() if not isinstance(layout, int)}
        return {
            name: tensor(torch.zeros(k), fits=lambda votes: bool((votes >= 0).all()))
            for name, k in cells.items()
            if name in names
        }


STATE: Description = {
    "generator": mapping(anything(), "the state_dict of a generator"),
    "optimizer": mapping(anything(), "the state_dict of its optimizer"),
    "votes": mapping(anything(), "votes of joints"),
}


def _with_votes(state: Any) -> Any:
    """A state as it is saved now. Older ones have no votes."""
    return {"votes": {}, **state} if isinstance(state, Mapping) else state


def _check_generator(made: Any) -> None:
    if not isinstance(made, nn.Module):
        raise TypeError(f"`generator` should return an nn.Module. Found {type(made).__name__}.")
    if not any(parameter.requires_grad for parameter in made.parameters()):
        raise ValueError(
            f"`generator` should return a module with parameters to train. Found {type(made).__name__} without any; "
            "use Branch(learned=False) for draws that do not learn."
        )


def _check_optimizer(made: Any, generator: nn.Module) -> None:
    if not isinstance(made, torch.optim.Optimizer):
        raise TypeError(f"`optimizer` should return a torch.optim.Optimizer. Found {type(made).__name__}.")
    moved = {id(parameter) for group in made.param_groups for parameter in group["params"]}
    own = {id(parameter): name for name, parameter in generator.named_parameters()}
    strange = len(moved - own.keys())
    left = [name for name, parameter in generator.named_parameters() if parameter.requires_grad and id(parameter) not in moved]
    if strange or left:
        found = [f"{strange} others" if strange else "", f"that it leaves out {', '.join(left[:5])}" if left else ""]
        raise ValueError(
            "`optimizer` should move all parameters of the generator, which it is given, and no others. Found "
            f"{' and '.join(filter(None, found))}; write optimizer=lambda parameters: torch.optim.Adam(parameters)."
        )


class _Replaced(torch.autograd.Function):
    """Returns the values of `values`, with the gradient of `source`."""

    @staticmethod
    def forward(ctx: Any, source: Tensor, values: Tensor) -> Tensor:
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Any, None]:
        return gradients[0], None


def _capped(log_probs: Tensor, cap: float) -> Tensor:
    """Caps log-probabilities [n, k] at log(cap / k). The gradient is that of the uncapped ones."""
    if cap >= log_probs.shape[1]:
        return log_probs
    with torch.no_grad():
        values = capped(log_probs.exp(), cap).clamp(min=torch.finfo(log_probs.dtype).tiny).log()
    result: Tensor = _Replaced.apply(log_probs, values)  # type: ignore[no-untyped-call]
    return result

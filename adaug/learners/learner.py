"""The protocol of a learner: what moves the distributions that the views of a branch are drawn from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from adaug._model.layers import Shape
from adaug._runtime.checks import Rule, as_text, number
from adaug._runtime.random import Stream
from adaug._runtime.states import check_state, tensor
from adaug._views.view import View
from adaug.learners.trials import LogProbs, Proposal, Trials
from adaug.policies import Branch, Policy

__all__ = ["Learner", "Rows", "Seen", "Start"]


@dataclass(frozen=True)
class Start:
    """What a learner starts from.

    Attributes:
        policy: The augmenter's policy.
        branches: The branches that this learner moves.
        drawn: All branches whose rows are drawn without passes: by this learner, by another one or evenly.
        device: Where the state should live.
        shapes: The shapes (C, h, w) of the feature maps that a look returns, if the learner looks.
        stream: The number of a branch in the policy -> noise, the same on all ranks.
        model: The user's module, without wrappers. None for learners that need no passes.
    """

    policy: Policy
    branches: Sequence[Branch]
    drawn: Sequence[Branch]
    device: torch.device
    shapes: Sequence[Shape]
    stream: Callable[[int], Stream]
    model: nn.Module | None = None


@dataclass(frozen=True)
class Rows:
    """The rows that log-probabilities are asked for.

    Attributes:
        n: How many rows.
        device: Where the log-probabilities should be.
        features: Their feature maps [n, C, h, w], if the learner looks.
        seed: A seed for random numbers of the learner's own.
    """

    n: int
    device: torch.device
    features: Sequence[Tensor] = ()
    seed: int = 0


@dataclass(frozen=True)
class Seen:
    """What a training pass showed.

    Attributes:
        view: The view of every row. `view.magnitudes` has what was drawn, by "branch.operation".
        branch: The branch of each row, [B] long; 0 means random views.
        measure: Gives the difficulty of each view, [B] float32: by the user's measure, else by one that ignores size, else by
            the loss. It is computed when a learner asks.
        comparison: The same by the measure that compares views: the user's, else the loss.
        evidence: What the learner's own `compare` returned.
    """

    view: View
    branch: Tensor
    measure: Callable[[], Tensor]
    comparison: Callable[[], Tensor]
    evidence: Any = None

    @cached_property
    def difficulty(self) -> Tensor:
        """How hard each view was, [B] float32. Rows that are not finite do not count."""
        return self.measure()

    @cached_property
    def compared(self) -> Tensor:
        """How hard each view was by the measure that compares views, [B] float32."""
        return self.comparison()


class Learner:
    """What moves the distributions of the branches that name it: `Branch(..., learned=MyLearner())`.

    A learner is a frozen set of settings, best a frozen dataclass. What it learns is its state, which the augmenter keeps.
    `observe` returns a new state and leaves the old one as it was; the augmenter takes it when the whole step has succeeded.
    Branches with equal learners share one state.

    Most learners write `start`, `log_probs` and `observe`. One that runs the model in passes of its own says so by `looks` or
    `scores`; it needs `AdversarialAugmenter.step`, which has the model.

    Attributes:
        looks: Whether `log_probs` reads features of the model.
        scores: Whether `propose` or `compare` runs the model.
        features: The layers that a look reads: names or fnmatch patterns, None to find them, () for the image.
    """

    looks: ClassVar[bool] = False
    scores: ClassVar[bool] = False
    features: Sequence[str] | None = ()

    @property
    def passes(self) -> bool:
        """Whether it runs the model in passes of its own."""
        return self.looks or self.scores

    @property
    def scores_in_training(self) -> bool:
        """Whether it scores views in training mode."""
        return False

    def start(self, start: Start) -> Any:
        """Returns the first state. By default there is none."""

    def log_probs(self, state: Any, branch: Branch, rows: Rows) -> LogProbs:
        """Returns log-probabilities [n, k] of the bins or cells of each operation of a branch, by its name."""
        raise NotImplementedError(f"{type(self).__name__} should define log_probs(state, branch, rows) -> name -> [n, k].")

    def propose(self, state: Any, trials: Trials) -> dict[str, Proposal]:
        """Returns what is drawn for the rows of each branch, by its name. Only learners with passes are asked."""
        features = trials.look() if self.looks else {}
        proposals = {}
        for name, trial in trials.each.items():
            rows = Rows(len(trial), trials.device, features.get(name, ()), trials.stream.seed)
            log_probs = check_log_probs(self.log_probs(state, trial.branch, rows), trial.branch, len(trial), self)
            proposals[name] = trials.draw(name, log_probs)
        return proposals

    def compare(self, state: Any, trials: Trials) -> Any:
        """Returns evidence for `observe`, from passes before the training pass. Only learners with passes are asked."""

    def observe(self, state: Any, seen: Seen) -> Any:
        """Returns the state after a training pass. By default nothing is learned."""
        return state

    def metrics(self, state: Any) -> dict[str, Tensor]:
        """Returns what to log after a step: detached tensors by name."""
        return {}

    def state_dict(self, state: Any) -> Any:
        """Returns a state in plain values. By default the state itself: a flat mapping of tensors and numbers, or None.

        Raises TypeError for any other state: then write this method and `load_state_dict`.
        """
        if state is None:
            return None
        plain = isinstance(state, Mapping) and all(isinstance(value, (Tensor, int, float)) for value in state.values())
        if not plain:
            found = {name: type(value).__name__ for name, value in state.items()} if isinstance(state, Mapping) else state
            raise TypeError(
                f"A state of {type(self).__name__} should be a mapping of tensors and numbers, or None. Found "
                f"{as_text(found)}; write `state_dict` and `load_state_dict` for others."
            )
        return {name: _copied(value) for name, value in state.items()}

    def load_state_dict(self, state: Any, saved: Any) -> Any:
        """Returns the state that `saved` was made of. Raises ValueError unless its names, shapes and types are right."""
        if state is None:
            if saved is not None:
                raise ValueError(
                    f"A state of {type(self).__name__} should be None, as `start` returns it. Found {as_text(saved)}; let "
                    "`start` return the first state."
                )
            return None
        check_state(saved, {name: _like(value) for name, value in state.items()}, f"A state of {type(self).__name__}")
        return {name: _copied(saved[name], own) for name, own in state.items()}


def _like(own: Any) -> Rule:
    return tensor(own, finite=False) if isinstance(own, Tensor) else number(finite=False)


def _copied(value: Any, own: Any = None) -> Any:
    if not isinstance(value, Tensor):
        return value
    return value.detach().to(value if own is None else own, copy=True)


def check_log_probs(log_probs: Any, branch: Branch, n: int, learner: Learner) -> LogProbs:
    """Raises TypeError or ValueError unless a learner gave log-probabilities [n, k] for each operation of a branch."""
    owner = f"`log_probs` of {type(learner).__name__}"
    if not isinstance(log_probs, Mapping) or any(operation.name not in log_probs for operation in branch.operations):
        names = [operation.name for operation in branch.operations]
        found: Any = sorted(map(str, log_probs)) if isinstance(log_probs, Mapping) else type(log_probs).__name__
        raise TypeError(f"{owner} should return a mapping with {names}. Found {found}; give each operation's by its name.")
    for operation in branch.operations:
        value = log_probs[operation.name]
        if not isinstance(value, Tensor) or value.shape != (n, operation.bins):
            found = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(f"{owner} should return [n, k] = {(n, operation.bins)} for {operation.name!r}. Found {found}.")
        if value.device.type == "cpu" and value.numel() and not bool(value.amax(1).isfinite().all()):
            raise ValueError(
                f"{owner} should return log-probabilities, in each row at least one above -inf. Found NaN or inf for "
                f"{operation.name!r}."
            )
    return dict(log_probs)

"""Arms: ways to train, as data. What each does to its rows, and how it takes a step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

import adaug
from adaug.learners import Paper, Running
from adaug.operations import Binned, Operation
from adaug.policies import AXES, Window
from benchmarks.compare.tasks import Rows, Task

Policies = Callable[[Task], adaug.Policy]  # what is done to the rows of a task
EVEN, GENERATORS, RUNNING = False, True, Running()  # how a branch learns; a learner of one's own may take their place


# -- what is done to the rows ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Views:
    """`policies.wide` with other shares and operations, and another learner.

    Attributes:
        learned: How the branch that scales and turns learns, and by default the one that hides: `Branch.learned`.
        share: The share of the rows that are scaled and turned.
        hidden: The share of the rows with hidden cells. None means a third, or none if the task hides nothing.
        cells: How the branch that hides cells learns, if it does so in another way.
        end: When both branches stop, as a part of the training.
        rest: Whether the rows of other branches are neither scaled nor turned.
        operations: A function of the operations that scale and turn, which gives those to take.
    """

    learned: Any = EVEN
    share: float = 1 / 3
    hidden: float | None = None
    cells: Any = None
    end: float | None = None
    rest: bool = False
    operations: Callable[[Sequence[Operation]], Sequence[Operation]] = tuple

    def __call__(self, task: Task) -> adaug.Policy:
        """The policy for a task."""
        policy = adaug.policies.wide(task.pairs, rest=self.rest)
        asr, aho = policy.branches
        hidden = (1 / 3 if task.hides else 0.0) if self.hidden is None else self.hidden
        asr = replace(asr, share=self._on(self.share), operations=self.operations(asr.operations), learned=self.learned)
        aho = replace(aho, share=self._on(hidden), learned=self.learned if self.cells is None else self.cells)
        return replace(policy, branches=[asr, aho] if hidden else [asr])

    def _on(self, share: float) -> float | Window:
        return share if self.end is None else Window(share, end=self.end)


def shifted_and_sheared(operations: Sequence[Operation]) -> Sequence[Operation]:
    """Shifts by up to a tenth of the image and shears by up to 15 degrees as well."""
    kinds = ((adaug.Translate, 0.1), (adaug.Shear, 15))
    more = [kind(-limit, limit, 5, axis=axis, rest=0.0) for kind, limit in kinds for axis in AXES]
    return [*operations, *more]


def plain(task: Task) -> adaug.Policy:
    """Only the flip."""
    return replace(Views()(task), branches=())


def even(task: Task) -> adaug.Policy:
    """Every row is scaled and turned, evenly over the ranges."""
    policy = Views()(task)
    asr, *hides = policy.branches
    moves = [replace(operation, random=None) for operation in asr.operations if isinstance(operation, Binned)]
    return replace(policy, branches=hides, common=[*policy.common, *moves])


def trivial(task: Task) -> adaug.Policy:
    """TrivialAugment's operations, drawn evenly."""
    return adaug.policies.uniform(adaug.policies.trivial(task.pairs))


def running_trivial(task: Task) -> adaug.Policy:
    """The same by running difficulty."""
    return adaug.policies.running(trivial(task), RUNNING)


# -- how a step is taken -----------------------------------------------------------------------------------------------


class Trainer:
    """Trains on what the augmenter draws, and tells it how hard that was."""

    draws = 1  # of the augmenter in a step

    def __init__(self, arm: Arm, task: Task, seed: int, steps: int) -> None:
        self.arm, self.task, self.seed = arm, task, seed
        self.augmenter = self.make_augmenter(arm.policy(task), self.draws * steps)

    def make_augmenter(self, policy: adaug.Policy, steps: int) -> adaug.AdversarialAugmenter:
        """Generators read the layers of the task; only what learns needs a difficulty."""
        arm, task, more = self.arm, self.task, dict[str, Any]()
        if any(operation.hides for operation in policy.operations.values()):
            more["occlude"] = task.layers if arm.hides == "features" else ()
        how = Paper(task.layers, arm.update)
        branches = [replace(branch, learned=how) if branch.learned is True else branch for branch in policy.branches]
        policy = replace(policy, branches=branches)
        if any(branch.learned for branch in policy.branches):
            more["difficulty"] = task.error if arm.difficulty == "error" else task.loss_fn
        return adaug.AdversarialAugmenter(
            policy, targets=task.targets, output_size=task.size, total_steps=steps, seed=self.seed, **more
        )

    @property
    def measure(self) -> Callable[[Any, Rows], Tensor]:
        """How hard a view was: (output, batch) -> [B]."""
        return self.task.error if self.arm.difficulty == "error" and self.task.error else self.task.loss_fn

    def batches(self, epoch: int) -> Iterator[Rows]:
        """The batches of an epoch. They depend only on the seed."""
        return self.task.batches(self.arm.batch_size or self.task.batch_size, self.seed, epoch)

    def step(self, model: nn.Module, batch: Rows) -> Tensor:
        """The loss to train on."""
        return self.augmenter.step(model, joined([batch] * self.arm.views, torch.cat), self.task.loss_fn).loss

    def plain_loss(self, model: nn.Module, batch: Rows) -> Tensor:
        """The mean loss on rows as they are."""
        return self.task.loss_fn(model(image_of(batch)), batch).mean()


class RandomViews(Trainer):
    """Trains on random views of the policy."""

    def step(self, model: nn.Module, batch: Rows) -> Tensor:
        return self.plain_loss(model, self.augmenter.random(batch))


@dataclass(frozen=True)
class Arm:
    """One way to train. Arms with the same name before a comma are a family: one line of a figure.

    Attributes:
        name: Its name in the tables.
        policy: (task) -> policy. By default uniform draws on the shares of `policies.wide`.
        trainer: How it takes a step.
        hides: Whether masks multiply the image or the features.
        difficulty: What is hard: the task's error, which is free of size, or its loss.
        update: The reward and penalty of generators.
        views: The views of each image in a step.
        epochs, batch_size, lr: Those of the task if None.
    """

    name: str
    policy: Policies = field(default_factory=Views)
    trainer: Callable[[Arm, Task, int, int], Trainer] = Trainer
    hides: Literal["image", "features"] = "image"
    difficulty: Literal["error", "loss"] = "error"
    update: adaug.RewardPenalty = adaug.RewardPenalty(0.3, 0.3)  # noqa: RUF009 (frozen)
    views: int = 1
    epochs: int | None = None
    batch_size: int | None = None
    lr: float | None = None


def described(arm: Any) -> list[str]:
    """All that makes an arm what it is, in words that stay the same: its fields but the name."""
    return [f"{one.name}: {_plain(getattr(arm, one.name))}" for one in fields(arm) if one.name != "name"]


def _plain(value: Any) -> str:
    """The repr of a value, with functions by their names instead of their addresses."""
    if isinstance(value, partial):
        return f"{_plain(value.func)}({', '.join(f'{name}={_plain(one)}' for name, one in value.keywords.items())})"
    if is_dataclass(value) and not isinstance(value, type):
        parts = [f"{one.name}={_plain(getattr(value, one.name))}" for one in fields(value)]
        return f"{type(value).__qualname__}({', '.join(parts)})"
    return getattr(value, "__qualname__", None) or repr(value)


def image_of(batch: Rows) -> Tensor:
    """The images of a batch."""
    image: Tensor = batch[0] if isinstance(batch, tuple) else batch["image"]
    return image


def joined(batches: Sequence[Rows], join: Callable[[list[Tensor]], Tensor]) -> Rows:
    """Batches of one structure as one."""
    if len(batches) == 1:
        return batches[0]
    if isinstance(batches[0], tuple):
        return tuple(map(join, map(list, zip(*batches, strict=True))))
    return {name: join([batch[name] for batch in batches]) for name in batches[0]}

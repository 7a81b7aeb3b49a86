"""AdversarialAugmenter: looks, scores, updates the generators, and gives the user the pass to train on (Alg. 1, 2)."""

from __future__ import annotations

import copy
import itertools
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn

from adaug import policies
from adaug.adversary import Adversary, GeneratorFactory, OptimizerFactory, dist_rank, dist_size, uniform
from adaug.batch import Batch, Rows, Target, as_targets, parse
from adaug.layers import unwrap
from adaug.passes import Bound, LossFunction, bind, check_losses, check_policy, device_of, difficulty_of
from adaug.policy import RANDOM, Policy
from adaug.pretrain import Lesson
from adaug.reward import RewardPenalty
from adaug.sampling import Stream, seeded
from adaug.trial import Comparison, Update, compare, head_metrics, joint_view, learn, propose
from adaug.view import Size, View, as_size

STEP, RANDOM_VIEW, PRETRAIN, GENERATOR = range(4)  # what a random stream is for


@dataclass(frozen=True)
class StepResult:
    """What a step gives back.

    loss: mean of the losses, with graph. losses [B], with graph. batch: the augmented batch, in the user's structure.
    branch [B] long: 0 for the random share, i + 1 for the i-th branch. metrics: detached tensors. view: everything
    that was drawn; `batch` is what it makes of the batch that was given, after the functions in the policy's `common`.
    """

    loss: Tensor
    losses: Tensor
    batch: Rows
    branch: Tensor
    metrics: dict[str, Tensor]
    view: View


class AdversarialAugmenter:
    """Makes augmentation part of training: `loss = augmenter.step(model, batch, loss_fn).loss`.

    policy: by default the paper's, without flip. features: layers (names or fnmatch patterns) that the generators
    read; None finds them, () reads the image. occlude: layers that masks multiply, by default the same; with none they
    multiply the image. targets: key or position in the batch -> kind. output_size: (h, w) of a view, by default the
    images'; a loader may hand larger canvases. update: (probabilities, chosen, harder) -> target. generator,
    optimizer: factories, (shapes, heads) -> module and (parameters) -> optimizer. difficulty: (output, batch) -> [B],
    what "harder" compares, by default the loss. warmup_steps: random views alone at first (stage 1). update_every:
    steps between two comparisons. scoring: "eval" compares views in eval behaviour, where rows do not influence each other;
    "train" takes the adversarial losses from the training pass and scores the references alone, with batch statistics and
    dropout as there: one pass less. total_steps: drives `progress`, which share schedules read. seed: by default
    torch's initial seed.
    """

    def __init__(
        self,
        policy: Policy | None = None,
        *,
        features: Sequence[str] | None = None,
        occlude: Sequence[str] | None = None,
        targets: Mapping[Any, str | Target] | None = None,
        output_size: Size | int | None = None,
        update: Update = RewardPenalty(),  # noqa: B008 (frozen)
        generator: GeneratorFactory | None = None,
        optimizer: OptimizerFactory | None = None,
        difficulty: LossFunction | None = None,
        warmup_steps: int = 0,
        update_every: int = 1,
        scoring: Literal["eval", "train"] = "eval",
        total_steps: int | None = None,
        seed: int | None = None,
    ) -> None:
        if policy is not None and not isinstance(policy, Policy):
            raise TypeError(f"`policy` should be an adaug.Policy. Found {type(policy).__name__}.")
        if warmup_steps < 0 or update_every < 1 or (total_steps is not None and total_steps < 1):
            raise ValueError(
                "`warmup_steps` should be at least 0, `update_every` and `total_steps` at least 1. "
                f"Found {warmup_steps}, {update_every} and {total_steps}."
            )
        for name, function in {
            "update": update,
            "difficulty": difficulty,
            "generator": generator,
            "optimizer": optimizer,
        }.items():
            if function is not None and not callable(function):
                raise TypeError(f"`{name}` should be callable. Found {function!r}.")
        if scoring not in ("eval", "train"):
            raise ValueError(f"`scoring` should be 'eval' or 'train'. Found {scoring!r}.")
        if seed is not None and not isinstance(seed, int):
            raise TypeError(f"`seed` should be an integer. Found {seed!r}.")
        self.policy = policies.paper() if policy is None else policy
        self.features = features
        self.occlude = occlude
        self.targets = as_targets(targets or {})
        self.output_size = as_size(output_size)
        self.update = update
        self.difficulty = difficulty
        self.warmup_steps = warmup_steps
        self.update_every = update_every
        self.scoring = scoring
        self.total_steps = total_steps
        self.seed = torch.initial_seed() if seed is None else seed
        self.steps = 0
        self.metrics: dict[str, Tensor] = {}  # of the latest step, for loggers that do not see its result
        self._generator = generator
        self._optimizer = optimizer
        self._progress = 0.0
        self._counts = {"random": 0, "pretrain": 0}
        self._bound: Bound | None = None
        self._adversaries: dict[str, Adversary] = {}
        self._pending: Mapping[str, Any] | None = None  # a state that waits for a model

    # ---- training

    def step(self, model: nn.Module, batch: Rows, loss_fn: LossFunction) -> StepResult:
        """One mini-batch: Algorithms 1 and 2. loss_fn(output, batch) -> one loss per sample, [B].

        `loss_fn` is asked about the views that are compared too, some rows at a time, without gradients. Touches neither the
        model's gradients, buffers and training flags nor the global random state nor `batch`, but for what the user's own
        training pass on the augmented batch does.
        """
        fresh, waiting = self._bound is None, self._pending
        bound, rows = self._prepare(model, batch)
        output, n = self._output(rows), len(rows)
        if fresh and self.policy.branches:  # a wrong loss shape should be known before anything changes
            try:
                training = self.scoring == "train" and n > 1  # one row has no batch statistics
                bound.score(self._centred(bound, rows), [], (loss_fn, "loss_fn"), training=training)
            except BaseException:
                self._release(waiting)
                raise
        stream = self._stream(STEP, self.steps, device=bound.device)
        rows = rows.with_image(bound.policy.paint(rows.image, stream))
        warm = self.steps >= self.warmup_steps
        compares = warm and (self.steps - self.warmup_steps) % self.update_every == 0
        branch = bound.policy.split(n, self.progress, stream) if warm else torch.zeros(n, dtype=torch.long, device="cpu")

        trials = propose(bound, self._adversaries, rows, output, branch, stream, compares)
        view = joint_view(trials)
        augmented = rows.seen(view, output)
        metrics = head_metrics(trials)
        measure = (loss_fn, "loss_fn") if self.difficulty is None else (self.difficulty, "difficulty")
        in_training = self.scoring == "train"
        found: Comparison | None = None
        if compares:
            found = compare(bound, trials, rows, augmented, view, measure, in_training)
        if found is not None and not in_training:
            metrics |= learn(self._adversaries, trials, found.hard, found.usual, self.update)

        result = augmented.user()
        with bound.taps.masked(view.feature_masks):
            outputs = model(augmented.image)
            losses = loss_fn(outputs, result)
        check_losses(losses, n, "loss_fn")
        bound.taps.keep_for_backward(losses, view.feature_masks, bound)
        if found is not None and in_training:  # here on all ranks alike: the sum over them and DDP's own keep their order
            trained = losses.detach().float() if self.difficulty is None else difficulty_of(outputs, augmented, measure)
            hard = found.hard if found.scored else trained[found.rows]
            metrics |= learn(self._adversaries, trials, hard, found.usual, self.update)
        for trial in trials:
            metrics[f"loss/{trial.name}"] = losses.detach()[trial.rows].mean()
        self.steps += 1
        self.metrics = metrics
        return StepResult(losses.mean(), losses, result, _move(branch, bound.device), metrics, view)

    def pretrain(
        self,
        model: nn.Module,
        loader: Iterable[Rows],
        loss_fn: LossFunction,
        *,
        steps: int,
        lr: float | None = None,
        most_views: int = 64,
    ) -> dict[str, Tensor]:
        """Stage 2: trains the generators on a frozen model with `steps` batches of the loader, repeated if it is shorter.

        lr: of the generators' optimizers while it lasts (the paper's is 2.5e-4). most_views: augmentations per image;
        an m x n product above it is sampled. Returns the KL divergence of every head at each step, [steps].
        """
        history: dict[str, list[Tensor]] = {}
        lesson: Lesson | None = None
        measure = self.difficulty or loss_fn
        for batch in itertools.islice(_repeat(loader), steps):
            bound, rows = self._prepare(model, batch)
            lesson = lesson or Lesson(bound, self._output(rows), most_views)
            stream = self._stream(PRETRAIN, self._counts["pretrain"], device=bound.device)
            self._counts["pretrain"] += 1
            for adversary in self._adversaries.values():
                with _learning_rate(adversary.optimizer, lr):
                    for head, divergence in lesson.teach(adversary, rows, measure, stream).items():
                        history.setdefault(head, []).append(divergence)
        return {head: torch.stack(values) for head, values in history.items()}

    def random(self, batch: Rows) -> Rows:
        """The batch under random views alone: the baseline, and stage 1 of the paper."""
        rows = self._parse(batch)
        device, output = rows.image.device, self._output(rows)
        check_policy(self.policy, rows, wait=self._counts["random"] == 0)
        stream = self._stream(RANDOM_VIEW, self._counts["random"], device=device)
        self._counts["random"] += 1
        rows = rows.with_image(self.policy.paint(rows.image, stream))
        settings = self.policy.draw_reference(len(rows), stream)
        return rows.seen(self.policy.view(settings, len(rows), rows.size, output, device=device), output).user()

    def distributions(self, model: nn.Module, batch: Rows) -> dict[str, Tensor]:
        """What the generators would do now with the plain images: "branch.operation" -> probabilities [B, k]."""
        bound, rows = self._prepare(model, batch)
        features = bound.look(self._centred(bound, rows.image_only()))
        found: dict[str, Tensor] = {}
        for branch in bound.policy.branches:
            log_probs = uniform(branch, len(rows), bound.device)
            if branch.learned:
                with torch.no_grad(), seeded(self.seed, bound.device):
                    log_probs = self._adversaries[branch.name].predict(features)
            found |= {f"{branch.name}.{name}": value.exp() for name, value in log_probs.items()}
        return found

    # ---- life cycle

    def bind(self, model: nn.Module, batch: Rows) -> None:
        """Attaches to a model: hooks, and generators for the features that a first look sees. `step` does it by itself.

        Call it before the model's first compiled call. Raises ValueError when bound to another model already.
        """
        self._prepare(model, batch)

    def detach(self) -> None:
        """Takes the hooks off the model, for scripting or to leave it as it was. The next `step` binds again, to any model."""
        if self._bound is not None:
            self._release(self.state_dict())

    @property
    def progress(self) -> float:
        """Training progress in [0, 1], which share schedules read: what was set last, or steps / total_steps."""
        return self._progress if self.total_steps is None else min(1.0, self.steps / self.total_steps)

    @progress.setter
    def progress(self, value: float) -> None:
        if not 0 <= value <= 1:
            raise ValueError(f"`progress` should be in [0, 1]. Found {value}.")
        self.total_steps, self._progress = None, float(value)

    @property
    def branch_names(self) -> tuple[str, ...]:
        """What the numbers in `StepResult.branch` mean."""
        return (RANDOM, *(branch.name for branch in self.policy.branches))

    def state_dict(self) -> dict[str, Any]:
        """Generators, their optimizers, counters and seed of the random streams, and the policy they belong to.

        The same on every rank. Holds tensors and plain values alone: `torch.load(weights_only=True)` reads it.
        """
        waiting = {} if self._pending is None else self._pending["adversaries"]
        return {
            "policy": self.policy.describe(),
            "seed": self.seed,
            "steps": self.steps,
            "progress": self._progress,
            "counts": dict(self._counts),
            "adversaries": waiting or {name: adversary.state_dict() for name, adversary in self._adversaries.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes back what `state_dict` gave; before binding it is kept until then.

        Raises ValueError or TypeError, and changes nothing, on the state of another policy or other layers.
        """
        self._check_state(state)
        self.seed, self.steps, self._progress = state["seed"], state["steps"], state["progress"]
        self._counts = dict(state["counts"])
        if self._bound is None:
            self._pending = copy.deepcopy(dict(state))
        elif not state["adversaries"]:  # it was saved before binding
            self._adversaries = self._make_adversaries(self._bound)
        for name, adversary in self._adversaries.items() if state["adversaries"] else ():
            adversary.load_state_dict(state["adversaries"][name])

    def _check_state(self, state: Mapping[str, Any]) -> None:
        types = {"policy": dict, "seed": int, "steps": int, "progress": float, "counts": dict, "adversaries": dict}
        if not isinstance(state, Mapping):
            raise TypeError(f"A state should be what `state_dict` gave, a mapping. Found {type(state).__name__}.")
        wrong = [f"{name}={state.get(name)!r:.40}" for name, kind in types.items() if not isinstance(state.get(name), kind)]
        if wrong:
            raise ValueError(f"A state should be what `state_dict` gave. Found {', '.join(wrong)}.")
        mine = self.policy.describe()
        if state["policy"] != mine:
            raise ValueError(
                "A state should belong to the augmenter's own policy. Found that they differ; build the augmenter with the "
                f"policy that was saved.\n  saved:   {state['policy']}\n  present: {mine}"
            )
        learned = {branch.name for branch in self.policy.branches if branch.learned}
        if state["adversaries"] and set(state["adversaries"]) != learned:
            raise ValueError(f"A state should hold the branches {sorted(learned)}. Found {sorted(state['adversaries'])}.")
        for name, adversary in self._adversaries.items() if state["adversaries"] else ():
            adversary.check_state(state["adversaries"][name])

    def __getstate__(self) -> dict[str, Any]:
        """A copy or a pickle is not bound: it takes the state along and binds to the model that it meets first."""
        state = self.state_dict()
        return {**self.__dict__, "_bound": None, "_adversaries": {}, "_pending": state, "_counts": state["counts"]}

    def __repr__(self) -> str:
        lines = [f"policy={self.policy}"]
        if self._bound is None:
            lines.append("not bound yet")
        else:
            taps = self._bound.taps
            lines.append(f"features={list(taps.features) or 'the image'}")
            lines.append(f"occlude={list(taps.occlude) or 'the image'}")
        return f"{type(self).__name__}(\n  " + ",\n  ".join(lines) + f",\n  steps={self.steps},\n)"

    # ---- inside

    def _prepare(self, model: nn.Module, batch: Rows) -> tuple[Bound, Batch]:
        """Checks everything that can be checked, and binds at the first call."""
        inner = unwrap(model)
        if self._bound is not None and self._bound.model is not inner:
            raise ValueError(
                f"An augmenter should stay with one model. Found a second one ({type(inner).__name__}); "
                "make an augmenter for it, because generators follow the weaknesses of one network."
            )
        rows = self._parse(batch, device_of(inner, None))
        check_policy(self.policy, rows, wait=self._bound is None)
        if self._bound is None:
            self._bound = self._attach(model, rows)
        return self._bound, rows

    def _attach(self, model: nn.Module, rows: Batch) -> Bound:
        if dist_size() > 1:  # ranks share generators, so they share the seed that they are made from
            seed = [self.seed]
            dist.broadcast_object_list(seed, 0)
            self.seed = seed[0]
        if self.scoring == "train" and any(isinstance(module, nn.SyncBatchNorm) for module in model.modules()):
            raise ValueError(
                "With scoring='train' normalisation should be each rank's own. Found SyncBatchNorm, which would wait for ranks "
                "that have nothing to score; use scoring='eval'."
            )
        bound = bind(model, rows, self.policy, self.features, self.occlude, self._output(rows))
        weakref.finalize(bound, bound.taps.remove).atexit = False  # nobody's hooks should stay on the model
        try:
            adversaries = self._make_adversaries(bound)
            for name, state in (self._pending or {}).get("adversaries", {}).items():
                adversaries[name].check_state(state)
                adversaries[name].load_state_dict(state)
        except BaseException:
            bound.taps.remove()
            raise
        self._adversaries, self._pending = adversaries, None
        return bound

    def _release(self, waiting: Mapping[str, Any] | None) -> None:
        """Back to not being bound, with a state that waits for a model."""
        if self._bound is not None:
            self._bound.taps.remove()
        self._bound, self._adversaries, self._pending = None, {}, waiting

    def _make_adversaries(self, bound: Bound) -> dict[str, Adversary]:
        return {
            branch.name: Adversary(
                branch, bound.shapes, self._generator, self._optimizer, self._stream(GENERATOR, i), bound.device
            )
            for i, branch in enumerate(bound.policy.branches)
            if branch.learned
        }

    def _parse(self, batch: Rows, device: torch.device | None = None) -> Batch:
        return parse(batch, self.targets, device)

    def _output(self, rows: Batch) -> Size:
        return rows.size if self.output_size is None else self.output_size

    def _centred(self, bound: Bound, rows: Batch) -> Batch:
        """The rows as they are, but for the cut from the canvas."""
        output = self._output(rows)
        return rows.seen(bound.policy.view({}, len(rows), rows.size, output, device=bound.device), output)

    def _stream(self, purpose: int, count: int, device: torch.device | str = "cpu") -> Stream:
        """Noise of its own for each purpose, step and rank; generators are made alike on all ranks."""
        return Stream(self.seed, purpose, count, 0 if purpose == GENERATOR else dist_rank(), device=device)


def _move(tensor: Tensor, device: torch.device) -> Tensor:
    return tensor.to(device, non_blocking=True)


def _repeat(loader: Iterable[Rows]) -> Iterator[Rows]:
    while True:
        empty = True
        for batch in loader:
            empty = False
            yield batch
        if empty:
            raise ValueError("`loader` should give batches for all `steps`. Found it exhausted; pass a list or a DataLoader.")


@contextmanager
def _learning_rate(optimizer: torch.optim.Optimizer, lr: float | None) -> Iterator[None]:
    usual = [group["lr"] for group in optimizer.param_groups]
    try:
        for group in optimizer.param_groups if lr is not None else ():
            group["lr"] = lr
        yield
    finally:
        for group, value in zip(optimizer.param_groups, usual, strict=True):
            group["lr"] = value

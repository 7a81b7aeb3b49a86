"""AdversarialAugmenter: looks, proposes, scores, learns, and runs the training pass (Alg. 1 and 2)."""

from __future__ import annotations

import copy
import inspect
import itertools
import logging
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from adaug import policies
from adaug._arguments import RULES, refuse_unused
from adaug._batches.batch import Batch, UserBatch
from adaug._batches.fits import check_policy
from adaug._batches.kinds import Target
from adaug._batches.parse import parse
from adaug._model.bound import BoundModel, Difficulty, LossFunction, bind
from adaug._model.call import Call, Forward
from adaug._model.locks import locked
from adaug._model.wrappers import device_of, shards, unwrap
from adaug._runtime.checks import checked, number
from adaug._runtime.geometry import Size
from adaug._runtime.random import Stream, no_inference
from adaug._runtime.ranks import dist_rank, meet, value_of_first
from adaug._saved import check_saved
from adaug._views.view import View
from adaug.learners.adversary import Adversary, GeneratorFactory, Lesson, OptimizerFactory
from adaug.learners.measures import LOSS, MAY_GROW, Fair, fair_difficulty, measured
from adaug.learners.pretrain import RULES as PRETRAIN_RULES
from adaug.learners.pretrain import Pretraining, learning_rate, repeated
from adaug.learners.reward import RewardPenalty, Update, cap_of
from adaug.learners.running import RunningDifficulty
from adaug.learners.scoring import NO_SCORES, SCORING
from adaug.learners.table import DifficultyTable
from adaug.learners.trial import losses_by_branch, propose
from adaug.learners.update_targets import learn, lessons_of
from adaug.policies import Policy
from adaug.policies.policy import RANDOM

STEP, RANDOM_VIEW, PRETRAIN, GENERATOR = range(4)  # what a random stream is for
MOVES = ("steps", "metrics", "_seed", "_bound", "_adversaries", "_running", "_measure", "_pending")  # what a step may change
LOG = logging.getLogger("adaug")


@dataclass(frozen=True)
class StepResult:
    """What a step returns.

    Attributes:
        loss: The mean of `losses`, with graph.
        losses: The loss of each row, [B], with graph.
        batch: The augmented batch, structured like the batch that you passed.
        branch: The branch of each row, [B] long: 0 for random views, 1 for the policy's first branch, and so on.
        metrics: Tensors by name, detached from the graph.
        view: Everything that was drawn. `adaug.apply_view` repeats it; functions in the policy's `common` come before it.
        output: What the model returned in the training pass, with graph.
    """

    loss: Tensor
    losses: Tensor
    batch: UserBatch
    branch: Tensor
    metrics: dict[str, Tensor]
    view: View
    output: Any = None


class AdversarialAugmenter:
    """Makes augmentation part of training: `loss = augmenter.step(model, batch, loss_fn).loss`.

    It checks its arguments at construction. They cannot be assigned later.

    Args:
        policy: Which views are drawn, and for which part of a batch. By default `policies.paper()`, which does not flip.
        features: Layers (names or fnmatch patterns) that the generators read. With None adaug finds them and says which. With
            () the generators read the image.
        occlude: Layers that masks multiply, if the policy hides cells of features. By default those of `features`; if adaug
            found these, it adds any other layer that must be masked to hide a cell. With () the masks multiply the image.
        targets: Key or position in the batch -> kind, for entries whose name does not tell their kind.
        output_size: (height, width) of a view, by default that of the images. Images may be larger than this.
        update: (probabilities [B, k], chosen [B, s], harder [B]) -> update target [B, k], for generators.
        generator: A function (shapes of the features, layouts of the operations) -> module.
        optimizer: A function (parameters of a generator) -> optimizer.
        difficulty: (output, batch) -> [B], how hard each view was. By default generators compare the loss, as in the paper.
            Running difficulty uses a measure that does not grow with the object's size if it knows one, else the loss.
        warmup_steps: How many steps use only random views, at the start (stage 1).
        update_every: Generators compare and learn at every so many steps.
        scoring: "eval" scores both views in evaluation mode, where rows do not influence each other. "train" saves a pass:
            adversarial difficulties come from the training pass, and only reference views are scored, in training mode.
        total_steps: How many steps the training takes. `progress` then follows the steps; shares may depend on it.
        seed: The seed of all draws. By default torch's initial seed at the first draw.
        forward: (model, batch) -> output, how to call the model, by default `model(images)`. Pass it for a model that takes
            labels, or more than images.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument is out of its range.
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
        forward: Forward | None = None,
    ) -> None:
        given = checked(locals(), RULES)
        cap_of(update)
        self.policy = policies.paper() if policy is None else policy
        for_generators = {"update": update != RewardPenalty(), "generator": generator, "optimizer": optimizer}
        for_generators |= {"scoring": scoring != "eval", "update_every": update_every != 1}
        masked_too = occlude is None and self.policy.hides_features  # by default masks multiply the layers of `features`
        for_generators["features"] = features is not None and not masked_too
        refuse_unused(self.policy, [name for name, was_given in for_generators.items() if was_given])
        self.features: tuple[str, ...] | None = given["features"]
        self.occlude: tuple[str, ...] | None = given["occlude"]
        if self.occlude and not self.policy.hides_features and dist_rank() == 0:
            LOG.warning("adaug: `occlude` names layers to mask, but the policy hides no cells of features. It is not used.")
        self.targets: dict[Any, Target] = given["targets"] or {}
        self.output_size: Size | None = given["output_size"]
        self.update = update
        self.generator = generator
        self.optimizer = optimizer
        self.difficulty = difficulty
        self.forward = forward
        self._call = Call(forward)
        self.warmup_steps: int = given["warmup_steps"]
        self.update_every: int = given["update_every"]
        self.scoring = scoring
        self._total_steps: int | None = given["total_steps"]
        self._seed: int | None = given["seed"]
        self.steps = 0
        self.metrics: dict[str, Tensor] = {}  # of the latest step, for loggers that do not see a StepResult
        self._progress = 0.0
        self._counts = {"random": 0, "pretrain": 0}
        self._bound: BoundModel | None = None
        self._adversaries: dict[str, Adversary] = {}
        self._running = RunningDifficulty(self.policy, torch.device("cpu"))
        self._measure: Fair | None = None  # the measure that running difficulty sums up
        self._pending: Mapping[str, Any] | None = None  # a state that waits for a model
        self._said = ""  # the latest message about found layers, so that it is not repeated

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ARGUMENTS and name in self.__dict__:
            raise AttributeError(
                f"`{name}` should be given at construction, where it is checked. Found an assignment; make another "
                "augmenter, and give it the state_dict() of this one."
            )
        super().__setattr__(name, value)

    # ---- training

    @locked
    def step(self, model: nn.Module, batch: UserBatch, loss_fn: LossFunction) -> StepResult:
        """Augments one mini-batch, runs the model on it and learns from it (Algorithms 1 and 2).

        If there are generators, `loss_fn` also scores the views that they compare, without gradients. Apart from the training
        pass, a step changes none of your gradients, buffers, training flags or global random states, and not `batch`.

        A step that fails leaves the augmenter as it was before. If the first step fails, the augmenter is not bound. There is
        one exception: if a generator's own optimizer fails or is interrupted, some generators may already have moved.

        Args:
            model: The model as you call it in training, compiled or wrapped in DDP if you do so.
            batch: A mapping or a tuple of tensors whose first dimension counts the rows, with images [B, C, H, W].
            loss_fn: (output, batch) -> one loss per sample, [B].

        Returns:
            The losses to back-propagate, and what was drawn.
        """
        loss = Difficulty(loss_fn, "loss_fn")
        difficulty = self._difficulty(loss)
        with self._undone_on_error():
            bound, parsed = self._prepare(model, batch, dict.fromkeys([loss, difficulty]))
            view_size, scoring = self._view_size(parsed), SCORING[self.scoring]
            stream = self._stream(STEP, self.steps, device=bound.device)
            parsed = parsed.with_image(bound.policy.paint(parsed.image, stream))
            warm, compares = self.steps >= self.warmup_steps, self._compares
            branch = self._split(len(parsed), stream, warm)

            # look and propose
            trials = propose(bound, self._adversaries, self._running, parsed, view_size, branch, stream, learns=compares)
            augmented = parsed.apply(trials.view, view_size)
            result = augmented.to_user()
            # score
            scores = scoring.score(bound, trials, parsed, augmented, difficulty) if compares else NO_SCORES
            lessons = lessons_of(trials, scores, self.update)  # a bad update should fail before the training pass
            # train
            if self._adversaries or self._running.operations:  # DDP would wait for a rank whose scores failed
                meet("step", self.steps)
            output, losses = bound.train(model, augmented, result, trials.view.feature_masks, loss_fn)
            owner = branch.to(bound.device, non_blocking=True)
            trained = losses.detach().float()
            if self.difficulty is not None and (self._running.operations or not scores.complete):
                trained = difficulty(output, augmented)
            if not scores.complete:
                adversarial = bound.hooks.nan_if_skipped(trained)[trials.index]
                lessons = lessons_of(trials, replace(scores, adversarial=adversarial), self.update)
            shown = bound.hooks.nan_if_skipped(self._fair(output, augmented, trained)) if self._running.operations else None
            metrics = trials.metrics() | lessons.metrics | losses_by_branch(losses.detach(), branch, owner, self.branch_names)
            step = StepResult(losses.mean(), losses, result, owner, metrics, trials.view, output)
            # learn: only torch itself or the generators' optimizers can fail from here on
            if shown is not None:
                self._running.observe(trials.view, owner, shown)
                metrics.update(self._running.metrics())
            if compares:
                learn(self._adversaries, lessons.by_branch)
            self.steps += 1
            self.metrics = metrics
        return step

    @locked
    def pretrain(
        self,
        model: nn.Module,
        loader: Iterable[UserBatch],
        loss_fn: LossFunction,
        *,
        steps: int,
        lr: float | None = None,
        max_views: int = 64,
    ) -> dict[str, Tensor]:
        """Trains the generators alone; the model stays as it is (stage 2).

        Args:
            model: The model.
            loader: The batches. It is read again if it gives fewer than `steps`.
            loss_fn: (output, batch) -> one loss per sample, [B].
            steps: How many batches to take.
            lr: Learning rate of the generators' optimizers during this call (2.5e-4 in the paper). None keeps theirs.
            max_views: At most so many views of an image are scored. If m x n combinations of bins are more, some are drawn.

        Returns:
            "branch.operation" -> the KL divergence between targets and proposals at each step, [steps].
        """
        refuse_unused(self.policy, ["pretrain"])
        given = checked({"loader": loader, "steps": steps, "lr": lr, "max_views": max_views}, PRETRAIN_RULES)
        history: dict[str, list[Tensor]] = {}
        pretraining: Pretraining | None = None
        difficulty = self._difficulty(Difficulty(loss_fn, "loss_fn"))
        for batch in itertools.islice(repeated(loader), given["steps"]):
            with no_inference(), self._undone_on_error():
                bound, parsed = self._prepare(model, batch)
                meet("pretraining step", self._counts["pretrain"])
                pretraining = pretraining or Pretraining(bound, self._view_size(parsed), given["max_views"])
                stream = self._stream(PRETRAIN, self._counts["pretrain"], device=bound.device)
                lessons: dict[str, Lesson] = {}
                told: dict[str, Tensor] = {}
                for name, adversary in self._adversaries.items():
                    lessons[name], divergence = pretraining.lesson(adversary, parsed, difficulty, stream)
                    told |= divergence
                with learning_rate([adversary.optimizer for adversary in self._adversaries.values()], given["lr"]):
                    learn(self._adversaries, lessons)
                self._counts["pretrain"] += 1
            for name, value in told.items():
                history.setdefault(name, []).append(value)
        return {name: torch.stack(values) for name, values in history.items()}

    @locked
    def random(self, batch: UserBatch) -> UserBatch:
        """Returns the batch under random views: the paper's baseline, and its stage 1.

        Random views hide nothing, and operations with a `rest` stay at it. To draw every branch, use `adaug.Augment`.

        Raises:
            ValueError: Random views of this policy would change nothing.
        """
        _refuse_still(self.policy)
        parsed = self._parse(batch)
        n, device, view_size = len(parsed), parsed.image.device, self._view_size(parsed)
        check_policy(self.policy, parsed, wait=self._counts["random"] == 0)
        stream = self._stream(RANDOM_VIEW, self._counts["random"], device=device)
        parsed = parsed.with_image(self.policy.paint(parsed.image, stream))
        view = self.policy.view(self.policy.draw_random(n, stream), n, parsed.size, view_size, device=device)
        result = parsed.apply(view, view_size).to_user()
        self._counts["random"] += 1
        return result

    @locked
    def distributions(self, model: nn.Module, batch: UserBatch) -> dict[str, Tensor]:
        """Returns the probabilities of all bins and cells for these images: "branch.operation" -> [B, k]. Draws nothing."""
        with self._undone_on_error():
            bound, parsed = self._prepare(model, batch)
            features = bound.look(self._centred(bound, bound.call.needs(parsed))) if self._adversaries else []
            probabilities: dict[str, Tensor] = {}
            for branch in bound.policy.branches:
                if branch.has_generator:
                    with torch.no_grad():
                        log_probs = self._adversaries[branch.name].predict(features, self.seed)
                else:
                    log_probs = self._running.log_probs(branch, len(parsed))
                probabilities |= {f"{branch.name}.{name}": value.exp() for name, value in log_probs.items()}
        return probabilities

    @locked
    def difficulty_table(self) -> DifficultyTable:
        """Says how hard the network finds each bin now, for branches without generators.

        It comes from the training passes and costs none. `print` shows the table; its `columns` are plain lists.

        Raises:
            RuntimeError: There was no step yet.
        """
        if self._bound is None or not self._running.steps:
            raise RuntimeError(
                "A difficulty table should follow some steps, which fill it. Found no step yet; call `step` first."
            )
        known = "what it was when the state was saved" if self._measure is None else self._measure.about
        measure = known if self.difficulty is None else "the user's"
        return self._running.table(measure, may_grow=self.difficulty is None and self._measure is LOSS)

    # ---- life cycle

    @locked
    def bind(self, model: nn.Module, batch: UserBatch) -> None:
        """Attaches hooks to a model and makes generators for its features.

        The first `step` does this too. Call `bind` yourself if the model is compiled, before its first compiled call.

        Raises:
            ValueError: The augmenter is bound to another model.
        """
        with self._undone_on_error():
            self._prepare(model, batch)

    @locked
    def detach(self) -> None:
        """Removes the hooks from the model, for example before scripting it. The next `step` binds again, to any model."""
        if self._bound is not None:
            state = self.state_dict()
            self._bound.hooks.remove()
            self._bound, self._adversaries, self._pending = None, {}, state

    @property
    def progress(self) -> float:
        """Training progress in [0, 1]: what you set last, or steps / total_steps. Shares may depend on it."""
        return self._progress if self.total_steps is None else min(1.0, self.steps / self.total_steps)

    @progress.setter
    def progress(self, value: float) -> None:
        progress = checked({"progress": value}, {"progress": number(low=0, high=1)})["progress"]
        self._total_steps, self._progress = None, float(progress)

    @property
    def total_steps(self) -> int | None:
        """How many steps the training takes. None if you set `progress` yourself."""
        return self._total_steps

    @property
    def seed(self) -> int:
        """The seed of all draws. All ranks use that of the first. By default it is torch's initial seed at the first use."""
        if self._seed is None:
            self._seed = torch.initial_seed()
        return self._seed

    @property
    def branch_names(self) -> tuple[str, ...]:
        """The names behind the numbers in `StepResult.branch`: "random", then the policy's branches."""
        return (RANDOM, *(branch.name for branch in self.policy.branches))

    @locked
    def state_dict(self) -> dict[str, Any]:
        """Returns everything that a resumed run needs: generators, optimizers, counters, seed, and the policy's description.

        It is the same on every rank. It holds only tensors and plain values, so `torch.load(weights_only=True)` can load it.
        """
        waiting = {} if self._pending is None else self._pending["adversaries"]
        return {
            "policy": self.policy.describe(),
            "seed": self.seed,
            "steps": self.steps,
            "progress": self._progress,
            "counts": dict(self._counts),
            "adversaries": waiting or {name: adversary.state_dict() for name, adversary in self._adversaries.items()},
            "running": self._running.state_dict(),
        }

    @locked
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Loads what `state_dict` returned. Before binding, the state waits until then.

        Raises:
            ValueError: The state belongs to another policy, other layers or another optimizer, or has impossible numbers.
                Nothing has changed then.
            TypeError: A part of the state has the wrong type. Nothing has changed either.
        """
        with no_inference():
            check_saved(state, self.policy, self._counts, self._adversaries, self._running)
            fresh = None if self._bound is None or state["adversaries"] else self._make_adversaries(self._bound)
            self._seed, self.steps, self._progress = int(state["seed"]), int(state["steps"]), float(state["progress"])
            self._counts = {name: int(count) for name, count in state["counts"].items()}
            if self._bound is None:
                self._pending = copy.deepcopy(dict(state))
            elif fresh is not None:  # the state was saved before binding
                self._adversaries = fresh
            for name, adversary in self._adversaries.items() if state["adversaries"] else ():
                adversary.load_state_dict(state["adversaries"][name])
            self._running.load_state_dict(state["running"])

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles keep the state but are not bound. They bind to the first model that they get."""
        state = self.state_dict()
        own = {"_counts": state["counts"], "_running": copy.deepcopy(self._running)}
        return {**self.__dict__, "_bound": None, "_adversaries": {}, "_pending": state, **own}

    def __repr__(self) -> str:
        lines = ["not bound yet"]
        if self._bound is not None:
            hooks = self._bound.hooks
            lines = [f"features={list(hooks.features) or 'the image'}", f"occlude={list(hooks.occlude) or 'the image'}"]
        lines += [f"steps={self.steps}", *str(self.policy).splitlines()]
        return f"{type(self).__name__}(\n  " + "\n  ".join(lines) + "\n)"

    # ---- inside a step

    @property
    def _compares(self) -> bool:
        """Whether generators learn in the next step."""
        past = self.steps - self.warmup_steps
        return bool(self._adversaries) and past >= 0 and past % self.update_every == 0

    def _fair(self, output: Any, augmented: Batch, trained: Tensor) -> Tensor:
        """The difficulty that running difficulty sums up, [B]: the user's, else one that ignores size, else the loss."""
        if self.difficulty is not None:
            return trained
        if self._measure is None:
            self._measure = fair_difficulty(output, augmented) or LOSS
            if self._measure is LOSS and self._running.changes_size:
                LOG.warning(MAY_GROW)
        return measured(self._measure, output, augmented, trained)

    def _difficulty(self, loss: Difficulty) -> Difficulty:
        return loss if self.difficulty is None else Difficulty(self.difficulty, "difficulty")

    def _split(self, n: int, stream: Stream, warm: bool) -> Tensor:
        """The branch of each row, [n] long on the CPU."""
        return self.policy.split(n, self.progress, stream) if warm else torch.zeros(n, dtype=torch.long, device="cpu")

    def _parse(self, batch: UserBatch, device: torch.device | None = None) -> Batch:
        return parse(batch, self.targets, device)

    def _view_size(self, batch: Batch) -> Size:
        return batch.size if self.output_size is None else self.output_size

    def _centred(self, bound: BoundModel, batch: Batch) -> Batch:
        """The plain batch, cut from the canvas to the view size."""
        view_size = self._view_size(batch)
        return batch.apply(bound.policy.view({}, len(batch), batch.size, view_size, device=bound.device), view_size)

    def _stream(self, purpose: int, count: int, device: torch.device | str = "cpu") -> Stream:
        """Separate noise for each purpose, step and rank. All ranks make the same generators, so these share theirs."""
        return Stream(self.seed, purpose, count, 0 if purpose == GENERATOR else dist_rank(), device=device)

    # ---- binding

    def _prepare(self, model: nn.Module, batch: UserBatch, tried: Iterable[Difficulty] = ()) -> tuple[BoundModel, Batch]:
        """Checks all that can be checked before a step. The first call also binds, and tries the functions in `tried`."""
        inner = unwrap(model)
        if self._bound is not None and self._bound.model is not inner:
            raise ValueError(
                f"An augmenter should stay with one model. Found a second one ({type(inner).__name__}); "
                "make another augmenter for it, because an augmenter learns the weaknesses of one network."
            )
        if self._bound is not None and not self._bound.sharded and shards([inner]):
            raise RuntimeError(
                "A model should be sharded before it is bound. Found `fully_shard` after the first step; call "
                "`augmenter.detach()`, and the next step binds again."
            )
        parsed = self._parse(batch, device_of(inner, None))
        check_policy(self.policy, parsed, wait=self._bound is None)
        if self._bound is None:
            self._bound = self._attach(model, parsed)
            tried = list(tried)
            if tried and self._adversaries:  # a wrong shape should be known before the training pass
                training = SCORING[self.scoring].training and len(parsed) > 1  # one row has no batch statistics
                self._bound.score(self._centred(self._bound, parsed), [], tried, training=training)
        return self._bound, parsed

    def _attach(self, model: nn.Module, batch: Batch) -> BoundModel:
        if SCORING[self.scoring].training and any(isinstance(module, nn.SyncBatchNorm) for module in model.modules()):
            raise ValueError(
                "With scoring='train' each rank should normalise by itself. Found SyncBatchNorm, which would wait for ranks "
                "that have nothing to score; use scoring='eval'."
            )
        bound = bind(model, batch, self.policy, self.features, self.occlude, self._view_size(batch), self._call)
        weakref.finalize(bound, bound.hooks.remove).atexit = False  # hooks should go when the augmenter goes
        try:
            self._seed = value_of_first(self.seed)  # ranks share the generators that are made from it
            adversaries = self._make_adversaries(bound)
            for name, state in (self._pending or {}).get("adversaries", {}).items():
                adversaries[name].check_state(state)
                adversaries[name].load_state_dict(state)
        except BaseException:
            bound.hooks.remove()
            raise
        if bound.said and bound.said != self._said and dist_rank() == 0:
            LOG.warning(bound.said)  # by default, Python shows no log message below a warning
            self._said = bound.said
        self._adversaries, self._pending = adversaries, None
        with no_inference():
            self._running, told = RunningDifficulty(bound.policy, bound.device), self._running.state_dict()
            self._running.load_state_dict(told)
        return bound

    @contextmanager
    def _undone_on_error(self) -> Iterator[None]:
        """Puts the augmenter back if something fails inside. If it was bound inside, it is not bound any more.

        Exception: if a generator's own optimizer fails or is interrupted, generators may have moved.
        """
        before = {name: vars(self)[name] for name in MOVES} | {"_counts": dict(self._counts)}
        running, shown = self._running, self._running.snapshot()
        try:
            yield
        except BaseException:
            if self._bound is not None and before["_bound"] is None:
                self._bound.hooks.remove()
            vars(self).update(before)
            running.restore(shown)
            raise

    def _make_adversaries(self, bound: BoundModel) -> dict[str, Adversary]:
        made: dict[str, Adversary] = {}
        for i, branch in enumerate(bound.policy.branches):
            if branch.has_generator:
                factories, stream = (self.generator, self.optimizer), self._stream(GENERATOR, i)
                made[branch.name] = Adversary(branch, bound.shapes, *factories, stream, bound.device, cap_of(self.update))
        return made


ARGUMENTS = frozenset(inspect.signature(AdversarialAugmenter.__init__).parameters) - {"self"}


def _refuse_still(policy: Policy) -> None:
    """Raises ValueError if the policy has branches but its random views change nothing."""
    drawn = any(operation.in_random_views for operation in policy.operations.values())
    if policy.branches and policy.flip is None and not drawn and not policy.painters:
        raise ValueError(
            "Random views should change something. Found that no operation of the policy is drawn in them, in "
            f"branches {[branch.name for branch in policy.branches]}; use adaug.Augment(policy), which draws every branch."
        )

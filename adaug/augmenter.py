"""AdversarialAugmenter: draws views, trains on them, and lets learners see how hard they were (Alg. 1 and 2)."""

from __future__ import annotations

import itertools
import logging
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from adaug import policies
from adaug._batches.batch import Batch, UserBatch
from adaug._batches.fits import check_policy
from adaug._batches.kinds import REST, TARGETS, Target
from adaug._batches.moving.held import plain
from adaug._batches.parse import parse
from adaug._batches.samples.apart import read
from adaug._model.bound import BoundModel, Difficulty, LossFunction, bind
from adaug._model.call import Call, Forward
from adaug._model.locks import locked
from adaug._model.wrappers import device_of, unwrap
from adaug._runtime.checks import checked, function, instance, integer, number, optional, text
from adaug._runtime.geometry import SIZE, Size
from adaug._runtime.random import Stream, no_inference
from adaug._runtime.ranks import dist_rank, meet, value_of_first
from adaug._steps.groups import groups_of
from adaug._steps.halves import Passes, draw, learn, losses_by_branch, metrics_of
from adaug._steps.observing import measure_name, observed, refuse_worker
from adaug._steps.saving import NAME, save_with
from adaug._steps.state import CPU, PRETRAIN, RANDOM_VIEW, STEP, State, check_saved, loaded, saved_learners, started
from adaug._views.view import View
from adaug.learners.learner import Rows, check_log_probs
from adaug.learners.measures import LOSS
from adaug.learners.paper import LAYERS, Paper
from adaug.learners.pretrain import RULES as PRETRAIN_RULES
from adaug.learners.pretrain import Pretraining, repeated
from adaug.learners.running import RunningState
from adaug.learners.table import DifficultyTable, difficulty_table
from adaug.policies import Policy
from adaug.policies.policy import RANDOM

__all__ = ["AdversarialAugmenter", "StepResult"]

LOG = logging.getLogger("adaug")
RULES = {
    "policy": optional(instance(Policy, "an adaug.Policy"), "for the paper's"),
    "occlude": LAYERS,
    "targets": TARGETS,
    "rest": REST,
    "output_size": SIZE,
    "difficulty": optional(function()),
    "forward": optional(function()),
    "warmup_steps": integer(at_least=0),
    "total_steps": optional(integer(at_least=1)),
    "seed": optional(integer(), "for torch's"),
}


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

    It checks its arguments at construction, and only reads them later.

    Args:
        policy: Which views are drawn, for which part of a batch, and what learns from them. By default `policies.paper()`,
            which does not flip.
        occlude: Layers that masks multiply, if the policy hides cells of features. By default those that generators read; if
            adaug found these, it adds any other layer that must be masked to hide a cell. With () the masks multiply the image.
        targets: Key or position in the batch -> kind, for entries whose name does not tell their kind. For an entry inside
            another one, or an attribute, the key is a tuple.
        rest: "other" leaves tensors as they are if neither `targets` nor their names tell their kind. By default they are an
            error.
        output_size: (height, width) of a view, by default that of the images. Images may be larger than this.
        difficulty: (output, batch) -> [B], how hard each view was. By default generators compare the loss, as in the paper.
            Running difficulty uses a measure that does not grow with the object's size if it knows one, else the loss.
        forward: (model, batch) -> output, how to call the model, by default `model(images)`. Pass it for a model that takes
            labels, or more than images.
        warmup_steps: How many steps use only random views, at the start (stage 1).
        total_steps: How many steps the training takes. `progress` then follows the steps; shares may depend on it.
        seed: The seed of all draws. By default torch's initial seed at the first draw.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument is out of its range, or two learners of the policy exclude each other.
    """

    def __init__(
        self,
        policy: Policy | None = None,
        *,
        occlude: Sequence[str] | None = None,
        targets: Mapping[Any, str | Target] | None = None,
        rest: str | None = None,
        output_size: Size | int | None = None,
        difficulty: LossFunction | None = None,
        forward: Forward | None = None,
        warmup_steps: int = 0,
        total_steps: int | None = None,
        seed: int | None = None,
    ) -> None:
        given = checked(locals(), RULES)
        self._policy = policies.paper() if policy is None else policy
        self._occlude: tuple[str, ...] | None = given["occlude"]
        if self._occlude and not self.policy.hides_features and dist_rank() == 0:
            LOG.warning("adaug: `occlude` names layers to mask, but the policy hides no cells of features. It is not used.")
        self.targets: dict[Any, Target] = given["targets"] or {}
        self.rest: str | None = given["rest"]
        self.output_size: Size | None = given["output_size"]
        self._difficulty = difficulty
        self.warmup_steps: int = given["warmup_steps"]
        self._call = Call(forward)
        self._total_steps: int | None = given["total_steps"]
        self._groups = groups_of(self.policy)
        self._state = started(State(seed=given["seed"]), self._groups, self.policy, {})
        self._noticed = ""  # the latest message about found layers, so that it is not repeated

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
        comparison = self._comparison(loss)
        with self._prepared(model, batch, dict.fromkeys([loss, comparison])) as (state, bound, parsed):
            # draw, propose, compare
            stream, past = self._stream(STEP, state.steps, device=bound.device), state.steps - self.warmup_steps
            passes, view_size = Passes(bound, comparison, past), self._view_size(parsed)
            progress = self.progress if past >= 0 else None
            drawn = draw(bound.policy, self._groups, state.learners, parsed, view_size, progress, stream, passes)
            result = drawn.augmented.to_user()
            # train
            if self._groups:  # DDP would wait for a rank whose scores failed
                meet("step", state.steps)
            output, losses = bound.train(model, drawn.augmented, result, drawn.view.feature_masks, loss_fn)
            # commit: only torch itself or the optimizers of generators can fail from here on
            augmented, trained = drawn.augmented, plain(losses).detach()
            own = trained.float if comparison is loss else (lambda: comparison(output, augmented))
            name = measure_name(output, augmented, self.difficulty, self._groups)
            state = learn(state, self._groups, drawn, output, name, own)
            branch = drawn.branch.to(bound.device, non_blocking=True)
            metrics = metrics_of(state, self._groups)
            metrics |= losses_by_branch(trained, drawn.branch, branch, self.branch_names)
            unobserved = state.unobserved + (state.drawn is not None)
            self._state = replace(
                state, steps=state.steps + 1, metrics=metrics, view=drawn.view, drawn=None, unobserved=unobserved
            )
        return StepResult(losses.mean(), losses, result, branch, metrics, drawn.view, output)

    @locked
    def draw(self, batch: UserBatch) -> UserBatch:
        """Returns the batch under new views, for a loop that keeps its own forward pass and loss. It needs no model.

            batch = augmenter.draw(batch)
            output = model(batch["image"])
            loss = criterion(output, batch["heatmaps"])
            augmenter.observe(output)

        `view` then holds the views. A draw that nobody observes teaches nothing; `metrics["unobserved"]` counts those.

        Args:
            batch: As in `step`. It stays as it is. A list of images may also have different sizes, as detectors take them.

        Raises:
            ValueError: A learner runs the model itself, or masks belong to layers of the model; both need `step`.
            RuntimeError: It is called in a worker of a DataLoader, whose draws nobody could observe.
        """
        refuse_worker("draw")
        policy = self.policy.on_image() if self.occlude == () else self.policy
        needs = [type(group.learner).__name__ for group in self._groups.values() if group.learner.passes]
        needs += ["OccludeFeatures"] if policy.hides_features else []
        if needs:
            raise ValueError(
                f"`draw` should have a policy that needs no model, such as policies.robust(). Found {' and '.join(needs)}, "
                "which runs or masks the model; call `step(model, batch, loss_fn)`, or hide cells by OccludeImage."
            )
        parsed = read(batch, self.targets, self.rest)
        device, state = parsed.image.device, self._state
        for part in parsed.parts:
            check_policy(policy, part, wait=state.view is None)
        if not state.agreed:
            state = replace(state, seed=value_of_first(self.seed), agreed=True)
        if state.device != device:  # learners move to where the batches are
            state = replace(state, device=device)
            state = started(state, self._groups, policy, saved_learners(state, self._groups))
        self._state = state
        stream, past = self._stream(STEP, state.steps, device=device), state.steps - self.warmup_steps
        progress = self.progress if past >= 0 else None
        drawn = draw(policy, self._groups, state.learners, parsed, self.output_size, progress, stream)
        result = drawn.augmented.to_user()
        unobserved = state.unobserved + (state.drawn is not None)
        self._state = replace(state, steps=state.steps + 1, drawn=drawn, view=drawn.view, unobserved=unobserved)
        return result

    @locked
    def observe(self, output: Any = None, *, difficulty: Tensor | None = None) -> None:
        """Tells how hard the views of the latest `draw` were. Nothing is back-propagated from it.

        Args:
            output: What the model returned for the batch. The measure follows from it: the augmenter's `difficulty`, or one
                that adaug knows for such an output: heat maps, keypoints, boxes, or logits of masks or labels, in a
                mapping, a tuple or the last of several stacks.
            difficulty: Instead of an output, a number for each sample, [B], larger where the view was harder, such as
                `losses.detach()`. NaN does not count.

        Raises:
            RuntimeError: No draw waits for it: none was made, or it was observed already.
            TypeError: The difficulty is no tensor of floating point numbers.
            ValueError: There is not one number for each row, no measure is known for such an output, or it is another measure
                than before.
        """
        state = self._state
        with no_inference():
            name, own = observed(state, self._groups, output, difficulty, self.difficulty)
            assert state.drawn is not None
            if self._groups:
                meet("observation", state.steps)
            learned = learn(state, self._groups, state.drawn, output, name, own)
        self._state = replace(learned, drawn=None, metrics=metrics_of(learned, self._groups))

    @property
    def view(self) -> View | None:
        """The views of the latest `draw` or `step`, for `apply_view`. None before."""
        return self._state.view

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
        name = next((name for name, group in self._groups.items() if isinstance(group.learner, Paper)), None)
        if name is None:
            raise ValueError(
                "`pretrain` should have generators to train. Found that no branch learns by the paper, in "
                f"{[branch.name for branch in self.policy.branches]}; leave it out, or use Branch(learned=True)."
            )
        given = checked({"loader": loader, "steps": steps, "lr": lr, "max_views": max_views}, PRETRAIN_RULES)
        history: list[dict[str, Tensor]] = []
        difficulty = self._comparison(Difficulty(loss_fn, "loss_fn"))
        for batch in itertools.islice(repeated(loader), given["steps"]):
            with no_inference(), self._prepared(model, batch) as (state, bound, parsed):
                count = state.counts["pretrain"]
                meet("pretraining step", count)
                stream = self._stream(PRETRAIN, count, device=bound.device)
                pretraining = Pretraining(bound, self._view_size(parsed), given["max_views"], difficulty)
                history.append(pretraining.step(state.learners[name].adversaries, parsed, stream, given["lr"]))
                self._state = replace(state, counts={**state.counts, "pretrain": count + 1})
        return {name: torch.stack([one[name] for one in history]) for name in history[0]}

    @locked
    def random(self, batch: UserBatch) -> UserBatch:
        """Returns the batch under random views: the paper's baseline, and its stage 1.

        Random views hide nothing, and operations with a `rest` stay at it. To draw every branch, use `adaug.Augment`.

        Raises:
            ValueError: Random views of this policy would change nothing.
        """
        refuse_worker("random")
        policy, state = self.policy, self._state
        if not policy.changes_random_views:
            raise ValueError(
                "Random views should change something. Found that no operation of the policy is drawn in them, in "
                f"branches {[branch.name for branch in policy.branches]}; use adaug.Augment(policy), which draws every branch."
            )
        parsed, count = parse(batch, self.targets, self.rest), state.counts["random"]
        check_policy(policy, parsed, wait=count == 0)
        stream = self._stream(RANDOM_VIEW, count, device=parsed.image.device)
        drawn = draw(policy, self._groups, {}, parsed, self._view_size(parsed), None, stream)
        result = drawn.augmented.to_user()
        self._state = replace(self._state, counts={**state.counts, "random": count + 1})
        return result

    @locked
    def distributions(self, model: nn.Module, batch: UserBatch) -> dict[str, Tensor]:
        """Returns the probabilities of all bins and cells for these images: "branch.operation" -> [B, k]. Draws nothing."""
        with self._prepared(model, batch) as (state, bound, parsed):
            looks = any(group.learner.looks for group in self._groups.values())
            features = bound.look(self._centred(bound, bound.call.needs(parsed))) if looks else ()
            rows = Rows(len(parsed), bound.device, features, self.seed)
            probabilities: dict[str, Tensor] = {}
            for name, group in self._groups.items():
                for branch in group.of(bound.policy):
                    given = group.learner.log_probs(state.learners[name], branch, rows)
                    log_probs = check_log_probs(given, branch, len(parsed), group.learner)
                    probabilities |= {f"{branch.name}.{operation}": value.exp() for operation, value in log_probs.items()}
            self._state = state
        return probabilities

    @locked
    def difficulty_table(self) -> DifficultyTable:
        """Says how hard the network finds each bin now, for branches without generators.

        It comes from the training passes and costs none. `print` shows the table; its `columns` are plain lists.

        Raises:
            RuntimeError: There was no step yet.
        """
        state = self._state
        states = [one for one in state.learners.values() if isinstance(one, RunningState) and one.steps]
        if not states or state.measure is None:
            raise RuntimeError(
                "A difficulty table should follow training passes. Found none that was seen; call `step`, or draw and observe."
            )
        return difficulty_table(states, state.measure, may_grow=state.measure == LOSS)

    # ---- life cycle

    @locked
    def bind(self, model: nn.Module, batch: UserBatch) -> None:
        """Attaches hooks to a model and makes generators for its features.

        The first `step` does this too. Call `bind` yourself if the model is compiled, before its first compiled call.

        Raises:
            ValueError: The augmenter is bound to another model.
        """
        with self._prepared(model, batch) as (state, _, _):
            self._state = state

    @locked
    def detach(self) -> None:
        """Removes the hooks from the model, for example before scripting it. The next `step` binds again, to any model."""
        if self._state.bound is not None:
            self._state.bound.hooks.remove()
            self._state = self._unbound()

    @property
    def policy(self) -> Policy:
        """Which views are drawn, and what learns from them."""
        return self._policy

    @property
    def occlude(self) -> tuple[str, ...] | None:
        """The layers to mask, as they were given."""
        return self._occlude

    @property
    def difficulty(self) -> LossFunction | None:
        """What measures how hard views are, as it was given."""
        return self._difficulty

    @property
    def forward(self) -> Forward | None:
        """How the model is called, as it was given."""
        return self._call.forward

    @property
    def layers(self) -> dict[str, tuple[str, ...]]:
        """The layers that generators read ("features") and masks multiply ("occlude"), named or found. Empty before binding."""
        bound = self._state.bound
        return {} if bound is None else {"features": tuple(bound.hooks.features), "occlude": tuple(bound.hooks.occlude)}

    @property
    def steps(self) -> int:
        """How many steps were made."""
        return self._state.steps

    @property
    def metrics(self) -> dict[str, Tensor]:
        """Those of the latest `step` or `observe`, for loggers that do not see a StepResult."""
        unobserved = self._state.unobserved
        return dict(self._state.metrics) | ({"unobserved": torch.tensor(unobserved)} if unobserved else {})

    @property
    def measure(self) -> str | None:
        """What running difficulty sums up, in words. None before the first step."""
        return self._state.measure

    @property
    def progress(self) -> float:
        """Training progress in [0, 1]: what you set last, or steps / total_steps. Shares may depend on it."""
        return self._state.progress if self.total_steps is None else min(1.0, self.steps / self.total_steps)

    @progress.setter
    def progress(self, value: float) -> None:
        progress = checked({"progress": value}, {"progress": number(low=0, high=1)})["progress"]
        self._total_steps, self._state = None, replace(self._state, progress=float(progress))

    @property
    def total_steps(self) -> int | None:
        """How many steps the training takes. None if you set `progress` yourself."""
        return self._total_steps

    @property
    def seed(self) -> int:
        """The seed of all draws. All ranks use that of the first. By default it is torch's initial seed at the first use."""
        if self._state.seed is None:
            self._state = replace(self._state, seed=torch.initial_seed())
        assert self._state.seed is not None
        return self._state.seed

    @property
    def branch_names(self) -> tuple[str, ...]:
        """The names behind the numbers in `StepResult.branch`: "random", then the policy's branches."""
        return (RANDOM, *(branch.name for branch in self.policy.branches))

    @locked
    def state_dict(self) -> dict[str, Any]:
        """Returns everything that a resumed run needs: learners, optimizers, counters, seed, and the policy's description.

        It is the same on every rank. It holds only tensors and plain values, so `torch.load(weights_only=True)` can load it.
        """
        seed, state = self.seed, self._state
        return {
            "policy": self.policy.describe(),
            "seed": seed,
            "steps": state.steps,
            "progress": state.progress,
            "counts": dict(state.counts),
            "measure": state.measure,
            "learners": saved_learners(state, self._groups),
        }

    @locked
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Loads what `state_dict` returned. Before binding, the states of generators wait until then.

        Raises:
            ValueError: The state belongs to another policy, other layers or another optimizer, or has impossible numbers.
                Nothing has changed then.
            TypeError: A part of the state has the wrong type. Nothing has changed either.
        """
        with no_inference():
            check_saved(state, self.policy, self._groups, users=self.difficulty is not None)
            now = replace(
                self._state,
                seed=int(state["seed"]),
                steps=int(state["steps"]),
                progress=float(state["progress"]),
                counts={name: int(count) for name, count in state["counts"].items()},
                metrics={},
                measure=state["measure"],
                agreed=False,
                drawn=None,
                view=None,
                unobserved=0,
                unmeasured=0,
            )
            self._state = loaded(now, self._groups, self.policy, state["learners"])

    def save_with(self, optimizer: Any, *, name: str = NAME) -> None:
        """Puts the state into `optimizer.state_dict()`, so that a loop saves and resumes it with its own checkpoints.

            augmenter.save_with(optimizer)  # once, before `optimizer.load_state_dict`

        Loading a state without it logs a warning. Wrappers of Accelerate and Lightning are looked through.

        Args:
            optimizer: The model's optimizer.
            name: The state's key there. Each augmenter needs its own.

        Raises:
            TypeError: It is no optimizer of torch, or has a `load_state_dict` of its own that calls no hooks.
            ValueError: The name is in use.
        """
        save_with(self, optimizer, checked({"name": name}, {"name": text("the key of a state")})["name"])

    @locked
    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles keep the state but are not bound. They bind to the first model that they get."""
        _ = self.seed  # a copy goes on as the original would
        return {**self.__dict__, "_state": self._unbound()}

    def __repr__(self) -> str:
        lines = [f"{name}={list(names) or 'the image'}" for name, names in self.layers.items()] or ["not bound yet"]
        lines += [
            f"steps={self.steps}",
            *([f"difficulty={self.measure}"] if self.measure else []),
            *str(self.policy).splitlines(),
        ]
        return f"{type(self).__name__}(\n  " + "\n  ".join(lines) + "\n)"

    # ---- inside a step

    def _comparison(self, loss: Difficulty) -> Difficulty:
        return loss if self.difficulty is None else Difficulty(self.difficulty, "difficulty")

    def _view_size(self, batch: Batch) -> Size:
        return batch.size if self.output_size is None else self.output_size

    def _centred(self, bound: BoundModel, batch: Batch) -> Batch:
        """The plain batch, cut from the canvas to the view size."""
        view_size = self._view_size(batch)
        return batch.apply(bound.policy.view({}, len(batch), batch.size, view_size, device=bound.device), view_size)

    def _stream(self, purpose: int, count: int, device: torch.device | str = "cpu") -> Stream:
        """Separate noise for each purpose, step and rank."""
        return Stream(self.seed, purpose, count, dist_rank(), device=device)

    # ---- binding

    @contextmanager
    def _prepared(
        self, model: nn.Module, batch: UserBatch, tried: Iterable[Difficulty] = ()
    ) -> Iterator[tuple[State, BoundModel, Batch]]:
        """Checks all that can be checked, and gives the state to work on. It is bound here if it was not.

        If something fails inside, hooks that were attached here go again. The first call also tries the functions in `tried`.
        """
        state = self._state
        device = device_of(unwrap(model), None) if state.bound is None else state.bound.check_same(model)
        parsed = parse(batch, self.targets, self.rest, device)
        check_policy(self.policy, parsed, wait=state.bound is None)
        if state.bound is not None:
            yield state, state.bound, parsed
            return
        passing = [group.learner for group in self._groups.values() if group.learner.passes]
        features = next((learner.features for learner in passing if learner.looks), None)
        looks, view_size = any(learner.looks for learner in passing), self._view_size(parsed)
        bound = bind(model, parsed, self.policy, features, self.occlude, view_size, self._call, looks=looks)
        weakref.finalize(bound, bound.hooks.remove).atexit = False  # hooks should go when the augmenter goes
        try:
            # ranks share the generators that are made from the seed
            state = replace(state, seed=value_of_first(self.seed), agreed=True, bound=bound, device=bound.device)
            with no_inference():
                state = started(state, self._groups, self.policy, saved_learners(state, self._groups))
            tried = list(tried)
            if tried and passing:  # a wrong shape should be known before the training pass
                training = passing[0].scores_in_training and len(parsed) > 1  # one row has no statistics
                bound.score(self._centred(bound, parsed), [], tried, training=training)
            if bound.notice and bound.notice != self._noticed and dist_rank() == 0:
                LOG.warning(bound.notice)  # by default, Python shows no log message below a warning
                self._noticed = bound.notice
            yield state, bound, parsed
        except BaseException:
            bound.hooks.remove()
            raise

    def _unbound(self) -> State:
        """The same state without a model."""
        return started(
            replace(self._state, bound=None, device=CPU, drawn=None),
            self._groups,
            self.policy,
            saved_learners(self._state, self._groups),
        )

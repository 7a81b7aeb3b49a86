"""The rows of a mini-batch on trial: what is proposed for each, what it is compared with, what it teaches (Alg. 2)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce

import numpy as np
import torch
from torch import Tensor

from adaug._adversary import Adversary, Lesson, LogProbs
from adaug._batch import Batch
from adaug._constants import constant
from adaug._draw import draw_unproposed
from adaug._network import BoundModel
from adaug._random import Stream, no_inference
from adaug._ranks import dist_size
from adaug._reward import check_update
from adaug._running import RunningDifficulty
from adaug._view import View, concatenate
from adaug._warp import Size
from adaug.policy import Branch, Magnitudes

Update = Callable[[Tensor, Tensor, Tensor], Tensor]  # (probabilities [B, k], chosen [B, s], harder [B]) -> target [B, k]


@dataclass(frozen=True)
class Proposal:
    """What is proposed for the rows of a branch, and drawn.

    Attributes:
        log_probs: Name of an operation -> log-probabilities [n, k], with the generator's graph.
        chosen: Name of an operation -> the bins or cells drawn [n, s].
        adversarial: The magnitudes drawn within them.
        reference: Magnitudes of the reference view, where random ones would not be a fair comparison.
    """

    log_probs: LogProbs
    chosen: Mapping[str, Tensor]
    adversarial: Magnitudes
    reference: Magnitudes


@dataclass(frozen=True)
class Trial:
    """Rows whose views are drawn in the same way: those of one generator's branch, or all that no generator is asked about.

    Adversarial and reference view of a row differ in nothing but the branch's own operations.

    Attributes:
        branch: The generator's branch, or None.
        index: [n] long, on the device: its rows in the batch.
        adversarial: The view that is trained on.
        reference: The random view that it is compared with. The same, where there is nothing to compare.
        proposal: What the generator proposed, if there is one.
    """

    branch: Branch | None
    index: Tensor
    adversarial: View
    reference: View
    proposal: Proposal | None


@dataclass(frozen=True)
class Trials:
    """All rows of a mini-batch.

    What is compared is written row after row, branch after branch, for those with generators: `index` says which rows of the
    batch they are, `parts` where a branch has its own.
    """

    each: Sequence[Trial]

    @cached_property
    def view(self) -> View:
        """What the network trains on: the view of every row, in the order of the batch."""
        if len(self.each) == 1:
            return self.each[0].adversarial
        view = concatenate([trial.adversarial for trial in self.each], [len(trial.index) for trial in self.each])
        return view.select(torch.cat([trial.index for trial in self.each]).argsort())

    @cached_property
    def compared(self) -> dict[str, tuple[Trial, Proposal]]:
        """The trials that a generator proposed, by the name of their branch."""
        return {
            trial.branch.name: (trial, trial.proposal)
            for trial in self.each
            if trial.branch is not None and trial.proposal is not None
        }

    @cached_property
    def index(self) -> Tensor:
        """The rows that are compared, [m] long."""
        parts = [trial.index for trial, _ in self.compared.values()]
        return torch.cat(parts) if parts else self.each[0].index[:0]

    @cached_property
    def parts(self) -> dict[str, slice]:
        """Where the rows of each branch stand in `index`."""
        ends, parts = 0, {}
        for name, (trial, _) in self.compared.items():
            parts[name] = slice(ends, ends := ends + len(trial.index))
        return parts

    @cached_property
    def reference(self) -> View:
        """The reference views of the rows that are compared, in the order of `index`."""
        views = [trial.reference for trial, _ in self.compared.values()]
        return concatenate(views, [len(trial.index) for trial, _ in self.compared.values()])

    @cached_property
    def both(self) -> View:
        """The adversarial views of the rows that are compared, then their reference views, each in the order of `index`."""
        trials = [trial for trial, _ in self.compared.values()]
        views = [trial.adversarial for trial in trials] + [trial.reference for trial in trials]
        return concatenate(views, 2 * [len(trial.index) for trial in trials])

    def metrics(self) -> dict[str, Tensor]:
        """Entropy (nats) and mean distribution of what the generators proposed."""
        metrics = {}
        for branch, (_, proposal) in self.compared.items():
            for name, log_probs in proposal.log_probs.items():
                probabilities = log_probs.detach().exp()
                metrics[f"entropy/{branch}.{name}"] = -(probabilities * log_probs.detach()).sum(1).mean()
                metrics[f"distribution/{branch}.{name}"] = probabilities.mean(0)
        return metrics


# ---- look and propose


def propose(
    bound: BoundModel,
    adversaries: Mapping[str, Adversary],
    running: RunningDifficulty,
    batch: Batch,
    view_size: Size,
    branch: Tensor,
    stream: Stream,
    *,
    learns: bool,
) -> Trials:
    """Looks at the rows that generators are asked about, and draws the views of all.

    The look sees a row with all that is not on trial already done (flip, colour, the other branches' operations at random),
    so that what the generator proposes is right for what it saw.

    Args:
        bound: The model, and the policy with masks where it takes them.
        adversaries: The generators, by branch.
        running: What the other branches draw from.
        batch: All rows.
        view_size: Size of the views.
        branch: [B] long, on the CPU: which branch each row falls to, 0 the random share.
        stream: Where noise comes from.
        learns: Whether proposals keep their graph.
    """
    random = bound.policy.draw_random(len(batch), stream)
    owners = [None, *(owner if owner.has_generator else None for owner in bound.policy.branches)]
    numbers = branch.numpy()
    shares: list[tuple[Branch | None, Tensor, Magnitudes]] = []
    for owner in [None, *(owner for owner in owners if owner is not None)]:
        on_cpu = np.flatnonzero(np.isin(numbers, [i for i, other in enumerate(owners) if other is owner]))
        if len(on_cpu):
            index = torch.from_numpy(on_cpu).to(bound.device, non_blocking=True)
            whole = len(on_cpu) == len(batch)
            drawn = random if whole else {name: value[index] for name, value in random.items()}
            if owner is None:
                drawn = draw_unproposed(bound.policy, running, numbers[on_cpu], drawn, stream)
            shares.append((owner, index, drawn))
    features = _look(bound, batch, view_size, shares)
    trials: list[Trial] = []
    for owner, index, drawn in shares:
        if owner is None:
            view = bound.policy.view(drawn, len(index), batch.size, view_size, device=bound.device)
            trials.append(Trial(None, index, view, view, None))
            continue
        with no_inference(), torch.set_grad_enabled(learns):
            log_probs = adversaries[owner.name].predict(features[owner.name], stream.seed)
        proposal = draw_proposal(owner, log_probs, stream)
        adversarial, reference = (
            bound.policy.view(magnitudes, len(index), batch.size, view_size, last=owner, device=bound.device)
            for magnitudes in (_not_on_trial(drawn, owner) | proposal.adversarial, drawn | proposal.reference)
        )
        trials.append(Trial(owner, index, adversarial, reference, proposal))
    return Trials(trials)


def draw_proposal(branch: Branch, log_probs: LogProbs, stream: Stream) -> Proposal:
    """Draws bins and cells of a generator's operations by their log-probabilities, and magnitudes within them."""
    chosen: dict[str, Tensor] = {}
    adversarial: Magnitudes = {}
    reference: Magnitudes = {}
    for operation in branch.operations:
        bins = operation.choose(log_probs[operation.name].detach(), stream)
        chosen[operation.name] = bins
        adversarial[branch.full_name(operation)] = operation.draw(bins, stream)
        fair = operation.draw_reference(bins, stream)
        if fair is not None:
            reference[branch.full_name(operation)] = fair
    return Proposal(log_probs, chosen, adversarial, reference)


def _look(
    bound: BoundModel, batch: Batch, view_size: Size, shares: Sequence[tuple[Branch | None, Tensor, Magnitudes]]
) -> dict[str, list[Tensor]]:
    """The features of the rows of each generator's branch, by its name, from one pass for all."""
    looked: dict[str, Batch] = {}
    needed = bound.call.needs(batch)
    for owner, index, drawn in shares:
        if owner is not None:
            magnitudes = _not_on_trial(drawn, owner)
            view = bound.policy.view(magnitudes, len(index), batch.size, view_size, last=owner, device=bound.device)
            looked[owner.name] = needed.select(index).apply(view, view_size)
    if not looked:
        if bound.sharded and any(branch.has_generator for branch in bound.policy.branches):
            bound.attend(needed, view_size)
        return {}
    parts = list(looked.values())
    levels = [feature.split([len(part) for part in parts]) for feature in bound.look(reduce(needed.joined, parts))]
    return {name: [level[i] for level in levels] for i, name in enumerate(looked)}


def _not_on_trial(magnitudes: Magnitudes, branch: Branch) -> Magnitudes:
    on_trial = [branch.full_name(operation) for operation in branch.operations]
    return {name: magnitude for name, magnitude in magnitudes.items() if name not in on_trial}


# ---- learn


@dataclass(frozen=True)
class Scores:
    """The difficulty of the views of the rows that are compared, [m] float32 in the order of `Trials.index`.

    Attributes:
        reference: Of the reference views; None where nothing was compared.
        adversarial: Of the adversarial views; None where nothing was compared, or while only the training pass can tell.
    """

    reference: Tensor | None
    adversarial: Tensor | None

    @property
    def complete(self) -> bool:
        """Whether nothing is left to score."""
        return self.reference is None or self.adversarial is not None


NO_SCORES = Scores(None, None)  # of a step that compares nothing


@dataclass(frozen=True)
class Lessons:
    """What a comparison teaches: the lesson of each branch by its name, and metrics."""

    by_branch: Mapping[str, Lesson]
    metrics: dict[str, Tensor]


def lessons_of(trials: Trials, scores: Scores, update: Update) -> Lessons:
    """Eq. (5) and (6): what the scores teach each branch's generator; nothing while they are not complete.

    Changes nothing. A row whose difficulty is not finite teaches nothing.
    """
    adversarial, reference = scores.adversarial, scores.reference
    if adversarial is None or reference is None:
        return Lessons({}, {})
    finite = torch.isfinite(adversarial) & torch.isfinite(reference)
    metrics = {"nonfinite": (~finite).sum()} if len(finite) else {}
    lessons = {}
    for name, (_, proposal) in trials.compared.items():
        part = trials.parts[name]
        harder, valid = adversarial[part] > reference[part], finite[part]
        metrics[f"reward_rate/{name}"] = (harder & valid).sum() / valid.sum().clamp(min=1)
        targets = {
            operation: check_update(update(log_probs.detach().exp(), proposal.chosen[operation], harder), log_probs)
            for operation, log_probs in proposal.log_probs.items()
        }
        lessons[name] = Lesson(targets, proposal.log_probs, valid)
    return Lessons(lessons, metrics)


def learn(adversaries: Mapping[str, Adversary], lessons: Mapping[str, Lesson]) -> None:
    """Moves every generator, once the gradients of all are known, so that what fails until then moves none.

    One without a lesson takes part too: other ranks may have rows of its branch.
    """
    with no_inference():
        gradients = {
            name: adversary.gradients(lessons.get(name))
            for name, adversary in adversaries.items()
            if name in lessons or dist_size() > 1
        }
    for name, gradient in gradients.items():
        adversaries[name].move(gradient)


def losses_by_branch(losses: Tensor, branch: Tensor, owner: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
    """The mean loss of the rows of each branch that has some: "loss/branch" -> [].

    Args:
        losses: [B], without graph.
        branch: [B] long, on the CPU: which branch each row fell to.
        owner: The same, where the losses are.
        names: Of the random share and the branches.
    """
    present = sorted(set(branch.tolist()))
    if len(present) == 1:
        return {f"loss/{names[present[0]]}": losses.mean()}
    mine = (owner == constant(tuple((i,) for i in present), owner)).to(losses.dtype)  # [branches, B]
    means = (mine @ losses / mine.sum(1)).unbind()
    return {f"loss/{names[i]}": mean for i, mean in zip(present, means, strict=True)}

"""The rows of a mini-batch on trial: looks, proposals and both views of each row (Alg. 2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adaug._batches.batch import Batch
from adaug._model.bound import BoundModel
from adaug._runtime.constants import constant
from adaug._runtime.geometry import Size
from adaug._runtime.random import Stream, no_inference
from adaug._views.view import View, concatenate
from adaug.learners.adversary import Adversary, LogProbs
from adaug.learners.running import RunningDifficulty
from adaug.policies import Branch, Policy
from adaug.policies._draw import draw_unproposed
from adaug.policies.policy import Magnitudes

Dealt = tuple[Branch | None, Tensor, Magnitudes]  # the branch of a generator, the index of its rows, and what is drawn for them


@dataclass(frozen=True)
class Proposal:
    """What a generator proposes for the rows of its branch, and what was drawn from it.

    Attributes:
        log_probs: Name of an operation -> log-probabilities [n, k], with the generator's graph.
        chosen: Name of an operation -> the bins or cells that were drawn, [n, s].
        adversarial: The magnitudes that were drawn within them.
        reference: Magnitudes for the reference view, if those of random views would not be a fair comparison.
    """

    log_probs: LogProbs
    chosen: Mapping[str, Tensor]
    adversarial: Magnitudes
    reference: Magnitudes


@dataclass(frozen=True)
class Trial:
    """The rows of one generator's branch, or all rows that no generator proposes for, with their views.

    The adversarial and the reference view of a row differ only in the branch's own operations.

    Attributes:
        branch: The generator's branch, or None.
        index: The numbers of its rows in the batch, [n] long, on the device.
        adversarial: The view that the model trains on.
        reference: The random view that it is compared with. Without a generator, it is the same view.
        proposal: The generator's proposal, if there is one.
    """

    branch: Branch | None
    index: Tensor
    adversarial: View
    reference: View
    proposal: Proposal | None


@dataclass(frozen=True)
class Trials:
    """All rows of a mini-batch.

    The rows that are compared (those of branches with generators) stand one after the other, branch by branch. `index` has
    their numbers in the batch, and `parts` the slice of each branch.
    """

    each: Sequence[Trial]

    @cached_property
    def view(self) -> View:
        """The view of every row in the training pass, in the order of the batch."""
        if len(self.each) == 1:
            return self.each[0].adversarial
        view = concatenate([trial.adversarial for trial in self.each], [len(trial.index) for trial in self.each])
        return view.select(torch.cat([trial.index for trial in self.each]).argsort())

    @cached_property
    def compared(self) -> dict[str, tuple[Trial, Proposal]]:
        """The trials with a proposal, by the name of their branch."""
        return {
            trial.branch.name: (trial, trial.proposal)
            for trial in self.each
            if trial.branch is not None and trial.proposal is not None
        }

    @cached_property
    def index(self) -> Tensor:
        """The numbers of the rows that are compared, [m] long."""
        parts = [trial.index for trial, _ in self.compared.values()]
        return torch.cat(parts) if parts else self.each[0].index[:0]

    @cached_property
    def parts(self) -> dict[str, slice]:
        """The slice of each branch in `index`."""
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
        """The entropy (in nats) and the mean distribution of the proposals."""
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
    """Looks at the rows of branches with generators, and draws the views of all rows.

    The look sees a row after everything that is not on trial (flip, colour, random draws of other branches), so that the
    proposal fits what the generator saw.

    Args:
        bound: The model and its policy.
        adversaries: The generators, by branch.
        running: The distributions of the other branches.
        batch: All rows.
        view_size: The size of the views.
        branch: The branch of each row, [B] long, on the CPU; 0 means random views.
        stream: The source of noise.
        learns: Whether proposals keep their graph.
    """
    dealt = _dealt(bound.policy, running, branch, stream)
    features = _look(bound, batch, view_size, dealt)
    trials: list[Trial] = []
    for owner, index, drawn in dealt:
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


def _dealt(policy: Policy, running: RunningDifficulty, branch: Tensor, stream: Stream) -> list[Dealt]:
    """The rows that no generator proposes for, then those of each branch with a generator. What has no rows is left out."""
    random, numbers = policy.draw_random(len(branch), stream), branch.numpy()
    owners = {i: owner for i, owner in enumerate(policy.branches, start=1) if owner.has_generator}
    rows: list[tuple[Branch | None, NDArray[np.int64]]] = [(None, np.flatnonzero(~np.isin(numbers, list(owners))))]
    rows += [(owner, np.flatnonzero(numbers == i)) for i, owner in owners.items()]
    dealt: list[Dealt] = []
    for owner, on_cpu in rows:
        if len(on_cpu):
            index = torch.from_numpy(on_cpu).to(stream.device, non_blocking=True)
            whole = len(on_cpu) == len(numbers)
            drawn = random if whole else {name: value[index] for name, value in random.items()}
            if owner is None:
                drawn = draw_unproposed(policy, running, numbers[on_cpu], drawn, stream)
            dealt.append((owner, index, drawn))
    return dealt


def draw_proposal(branch: Branch, log_probs: LogProbs, stream: Stream) -> Proposal:
    """Draws bins and cells by a generator's log-probabilities, and magnitudes within them."""
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


def _look(bound: BoundModel, batch: Batch, view_size: Size, dealt: Sequence[Dealt]) -> dict[str, list[Tensor]]:
    """The features of the rows of each generator's branch, by the branch's name, from one pass for all."""
    looked: dict[str, Batch] = {}
    needed = bound.call.needs(batch)
    for owner, index, drawn in dealt:
        if owner is not None:
            magnitudes = _not_on_trial(drawn, owner)
            view = bound.policy.view(magnitudes, len(index), batch.size, view_size, last=owner, device=bound.device)
            looked[owner.name] = needed.select(index).apply(view, view_size)
    if not looked:
        if bound.sharded and any(branch.has_generator for branch in bound.policy.branches):
            bound.run_one_row(needed, view_size)
        return {}
    parts = list(looked.values())
    levels = [feature.split([len(part) for part in parts]) for feature in bound.look(reduce(needed.joined, parts))]
    return {name: [level[i] for level in levels] for i, name in enumerate(looked)}


def _not_on_trial(magnitudes: Magnitudes, branch: Branch) -> Magnitudes:
    on_trial = [branch.full_name(operation) for operation in branch.operations]
    return {name: magnitude for name, magnitude in magnitudes.items() if name not in on_trial}


# ---- what is told


def losses_by_branch(losses: Tensor, branch: Tensor, owner: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
    """The mean loss of each branch that has rows: "loss/branch" -> [].

    Args:
        losses: [B], without graph.
        branch: The branch of each row, [B] long, on the CPU.
        owner: The same, on the device of the losses.
        names: The names of the random share and of the branches.
    """
    present = sorted(set(branch.tolist()))
    if len(present) == 1:
        return {f"loss/{names[present[0]]}": losses.mean()}
    mine = (owner == constant(tuple((i,) for i in present), owner)).to(losses.dtype)  # [branches, B]
    means = (mine @ losses / mine.sum(1)).unbind()
    return {f"loss/{names[i]}": mean for i, mean in zip(present, means, strict=True)}

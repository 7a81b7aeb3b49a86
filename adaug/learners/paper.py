"""The paper's learner: generators propose, both views are compared, and proposals are rewarded or penalised (Alg. 1, 2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from typing_extensions import override

from adaug._runtime.checks import Rules, check_fields, function, integer, one_of, optional, several, text
from adaug._runtime.random import no_inference
from adaug._runtime.ranks import dist_size
from adaug.learners.adversary import Adversary, GeneratorFactory, OptimizerFactory, UpdateTargets
from adaug.learners.learner import Learner, Rows, Seen, Start
from adaug.learners.reward import RewardPenalty, Update, cap_of, check_update
from adaug.learners.trials import LogProbs, Proposal, Trials
from adaug.policies import Branch

__all__ = ["Evidence", "Paper", "PaperState"]

LAYERS = optional(several(text("a layer"), 'a list of names (or patterns) of layers, such as ["layer1"]'), "to find them")


@dataclass(frozen=True)
class PaperState:
    """What the paper's learner keeps.

    Attributes:
        adversaries: Name of a branch -> its generator and optimizer.
        metrics: Those of the latest step.
    """

    adversaries: dict[str, Adversary]
    metrics: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Evidence:
    """What comparing two views of each row gave.

    Attributes:
        trials: The rows and their proposals.
        reference: The difficulty of the reference views, [m] in the order of `trials.index`. None if nothing was compared.
        adversarial: That of the adversarial views. None if the training pass will tell it.
        updates: Name of a branch -> what its generator learns. Empty as long as a difficulty is missing.
        metrics: What to log.
    """

    trials: Trials
    reference: Tensor | None = None
    adversarial: Tensor | None = None
    updates: Mapping[str, UpdateTargets] = field(default_factory=dict)
    metrics: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Paper(Learner):
    """A small generator network for each branch, trained by reward and penalty (Peng, Tang et al., CVPR 2018).

    Branches that learn by the paper share one `Paper`.

    Attributes:
        features: Layers (names or fnmatch patterns) that the generators read. With None adaug finds them and says which. With
            () the generators read the image.
        update: (probabilities [B, k], chosen [B, s], harder [B]) -> update target [B, k].
        generator: A function (shapes of the features, layouts of the operations) -> module. By default `Generator`.
        optimizer: A function (parameters of a generator) -> optimizer. By default Adam at 1e-3.
        scoring: "eval" scores both views in evaluation mode, where rows do not influence each other. "train" saves a pass:
            adversarial difficulties come from the training pass, and only reference views are scored, in training mode.
        update_every: Generators compare and learn at every so many steps.
    """

    features: Sequence[str] | None = None
    update: Update = RewardPenalty()  # noqa: RUF009 (frozen)
    generator: GeneratorFactory | None = None
    optimizer: OptimizerFactory | None = None
    scoring: Literal["eval", "train"] = "eval"
    update_every: int = 1

    looks: ClassVar[bool] = True
    scores: ClassVar[bool] = True
    _rules: ClassVar[Rules] = {
        "features": LAYERS,
        "update": function(),
        "generator": optional(function()),
        "optimizer": optional(function()),
        "scoring": one_of("eval", "train"),
        "update_every": integer(at_least=1),
    }

    def __post_init__(self) -> None:
        check_fields(self)
        cap_of(self.update)

    @property
    @override
    def scores_in_training(self) -> bool:
        return self.scoring == "train"

    @override
    def start(self, start: Start) -> PaperState:
        modules = () if start.model is None else start.model.modules()
        if self.scoring == "train" and any(isinstance(module, nn.SyncBatchNorm) for module in modules):
            raise ValueError(
                "With scoring='train' each rank should normalise by itself. Found SyncBatchNorm, which would wait for ranks "
                "that have nothing to score; use scoring='eval'."
            )
        made, cap, order = {}, cap_of(self.update), list(start.policy.branches)
        for branch in start.branches:
            stream = start.stream(order.index(branch))
            made[branch.name] = Adversary(branch, start.shapes, self.generator, self.optimizer, stream, start.device, cap)
        return PaperState(made)

    # ---- look and propose

    @override
    def log_probs(self, state: PaperState, branch: Branch, rows: Rows) -> LogProbs:
        with torch.no_grad():
            return state.adversaries[branch.name].predict(rows.features, rows.seed)

    @override
    def propose(self, state: PaperState, trials: Trials) -> dict[str, Proposal]:
        features, proposals = trials.look(), {}
        for name in trials.each:
            with no_inference(), torch.set_grad_enabled(self._compares(trials.step)):
                log_probs = state.adversaries[name].predict(features[name], trials.stream.seed)
            proposals[name] = trials.draw(name, log_probs)
        return proposals

    def _compares(self, step: int) -> bool:
        """Whether generators learn in a step, counted from the end of the warm-up."""
        return step >= 0 and step % self.update_every == 0

    # ---- compare

    @override
    def compare(self, state: PaperState, trials: Trials) -> Evidence:
        """Scores both views of every row. They differ only in the branch's own operations, so like is compared with like."""
        evidence = Evidence(trials, metrics=_proposed(trials.proposals))
        if not self._compares(trials.step):
            return evidence
        index = trials.index
        if self.scoring == "train" and len(index) >= 2:  # a single row has no batch statistics
            return replace(evidence, reference=trials.score(trials.joined(trials.reference), training=True))
        if not len(index):
            trials.take_part()
            return self._judged(replace(evidence, reference=index.float(), adversarial=index.float()))
        assert trials.augmented is not None
        reference = trials.batch.select(index).apply(trials.joined(trials.reference), trials.view_size)
        both = trials.batch.joined(trials.augmented.select(index), reference)
        scores = trials.score_batch(both, trials.joined(trials.adversarial, trials.reference))
        return self._judged(replace(evidence, reference=scores[len(index) :], adversarial=scores[: len(index)]))

    def _judged(self, evidence: Evidence) -> Evidence:
        """Turns difficulties into update targets for each branch's generator, Eq. (5) and (6). It changes nothing yet.

        Rows whose difficulty is not finite are left out.
        """
        adversarial, reference, trials = evidence.adversarial, evidence.reference, evidence.trials
        assert adversarial is not None
        assert reference is not None
        finite = torch.isfinite(adversarial) & torch.isfinite(reference)
        metrics = {"nonfinite": (~finite).sum()} if len(finite) else {}
        updates = {}
        for name, part in trials.parts.items():
            proposal, harder, valid = trials.proposals[name], adversarial[part] > reference[part], finite[part]  # [n] bool
            metrics[f"reward_rate/{name}"] = (harder & valid).sum() / valid.sum().clamp(min=1)
            targets = {
                operation: check_update(self.update(log_probs.detach().exp(), proposal.chosen[operation], harder), log_probs)
                for operation, log_probs in proposal.log_probs.items()
            }
            updates[name] = UpdateTargets(targets, proposal.log_probs, valid)
        return replace(evidence, updates=updates, metrics={**evidence.metrics, **metrics})

    # ---- learn

    @override
    def observe(self, state: PaperState, seen: Seen) -> PaperState:
        """Moves every generator. All gradients come first, so that a failure there moves none.

        If an optimizer itself fails, the generators before it have moved already.
        """
        evidence: Evidence = seen.evidence
        if evidence.reference is not None and evidence.adversarial is None:
            evidence = self._judged(replace(evidence, adversarial=seen.compared[evidence.trials.index]))
        if evidence.reference is not None:
            move_all(state.adversaries, evidence.updates)
        return replace(state, metrics=dict(evidence.metrics))

    @override
    def metrics(self, state: PaperState) -> dict[str, Tensor]:
        return state.metrics

    # ---- saving

    @override
    def state_dict(self, state: PaperState) -> dict[str, Any]:
        return {name: adversary.state_dict() for name, adversary in state.adversaries.items()}

    @override
    def load_state_dict(self, state: PaperState, saved: Any) -> PaperState:
        if not isinstance(saved, Mapping) or set(saved) != set(state.adversaries):
            found = sorted(map(str, saved)) if isinstance(saved, Mapping) else type(saved).__name__
            raise ValueError(f"A state of generators should hold the branches {sorted(state.adversaries)}. Found {found}.")
        for name, adversary in state.adversaries.items():
            adversary.check_state(saved[name])
        for name, adversary in state.adversaries.items():
            adversary.load_state_dict(saved[name])
        return PaperState(state.adversaries)


def move_all(adversaries: Mapping[str, Adversary], updates: Mapping[str, UpdateTargets]) -> None:
    """Moves every generator that has update targets. With ranks all take part: others may have rows of their branch."""
    with no_inference():
        gradients = {
            name: adversary.gradients(updates.get(name))
            for name, adversary in adversaries.items()
            if name in updates or dist_size() > 1
        }
    for name, gradient in gradients.items():
        adversaries[name].move(gradient)


def _proposed(proposals: Mapping[str, Proposal]) -> dict[str, Tensor]:
    """The entropy (in nats) and the mean distribution of the proposals."""
    metrics = {}
    for branch, proposal in proposals.items():
        for name, log_probs in proposal.log_probs.items():
            probabilities = log_probs.detach().exp()
            metrics[f"entropy/{branch}.{name}"] = -(probabilities * log_probs.detach()).sum(1).mean()
            metrics[f"distribution/{branch}.{name}"] = probabilities.mean(0)
    return metrics

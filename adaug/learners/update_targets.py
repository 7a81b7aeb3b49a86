"""What comparing two views teaches the generators: update targets from scores, and a step with them (Alg. 2)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from adaug._runtime.random import no_inference
from adaug._runtime.ranks import dist_size
from adaug.learners.adversary import Adversary, Lesson
from adaug.learners.reward import Update, check_update
from adaug.learners.scoring import Scores
from adaug.learners.trial import Trials


@dataclass(frozen=True)
class Lessons:
    """The lesson of each branch by its name, and metrics."""

    by_branch: Mapping[str, Lesson]
    metrics: dict[str, Tensor]


def lessons_of(trials: Trials, scores: Scores, update: Update) -> Lessons:
    """Turns scores into update targets for each branch's generator, Eq. (5) and (6). Without complete scores there are none.

    It changes nothing yet. Rows whose difficulty is not finite are left out.
    """
    adversarial, reference = scores.adversarial, scores.reference
    if adversarial is None or reference is None:
        return Lessons({}, {})
    finite = torch.isfinite(adversarial) & torch.isfinite(reference)
    metrics = {"nonfinite": (~finite).sum()} if len(finite) else {}
    lessons = {}
    for name, (_, proposal) in trials.compared.items():
        part = trials.parts[name]
        harder, valid = adversarial[part] > reference[part], finite[part]  # [n] bool
        metrics[f"reward_rate/{name}"] = (harder & valid).sum() / valid.sum().clamp(min=1)
        targets = {
            operation: check_update(update(log_probs.detach().exp(), proposal.chosen[operation], harder), log_probs)
            for operation, log_probs in proposal.log_probs.items()
        }
        lessons[name] = Lesson(targets, proposal.log_probs, valid)
    return Lessons(lessons, metrics)


def learn(adversaries: Mapping[str, Adversary], lessons: Mapping[str, Lesson]) -> None:
    """Moves every generator. First it computes all gradients, so that a failure there moves none.

    A generator without a lesson takes part too, because other ranks may have rows of its branch.
    """
    with no_inference():
        gradients = {
            name: adversary.gradients(lessons.get(name))
            for name, adversary in adversaries.items()
            if name in lessons or dist_size() > 1
        }
    for name, gradient in gradients.items():
        adversaries[name].move(gradient)

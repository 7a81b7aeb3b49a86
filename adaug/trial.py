"""One mini-batch on trial: propose views, score them against random ones, learn from who was harder (Alg. 2)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from adaug.adversary import Adversary, LogProbs, dist_size, draw, uniform
from adaug.batch import Batch
from adaug.passes import Bound, Measure
from adaug.policy import RANDOM, Branch, Settings
from adaug.sampling import Stream, seeded
from adaug.view import Size, View, concatenate

Update = Callable[[Tensor, Tensor, Tensor], Tensor]  # (probabilities [B, k], chosen [B, s], harder [B]) -> target [B, k]
Adversaries = Mapping[str, Adversary]


@dataclass(frozen=True)
class Trial:
    """The rows of one branch (None: the random share) and the views that they get; `rows` [n] long, on the device.

    Adversarial and reference view of a row differ in nothing but the branch's own operations.
    """

    branch: Branch | None
    rows: Tensor
    adversarial: View
    reference: View
    chosen: Mapping[str, Tensor]  # head -> sampled bins or cells [n, s]
    log_probs: LogProbs  # head -> [n, k]

    @property
    def name(self) -> str:
        """The branch's name."""
        return RANDOM if self.branch is None else self.branch.name

    @property
    def learned(self) -> bool:
        """Whether a generator proposed its views."""
        return self.branch is not None and self.branch.learned


def propose(
    bound: Bound, adversaries: Adversaries, rows: Batch, output: Size, branch: Tensor, stream: Stream, learns: bool
) -> list[Trial]:
    """Looks at the rows of each branch and draws their views; `branch` [B] long on the CPU says who is whose.

    The look sees a row with all that is not on trial already done (flip, colour, the other branches' references), so
    that what the generator proposes is right for what it saw. learns: whether its predictions keep their graph.
    """
    policy, device = bound.policy, bound.device
    settings = policy.draw_reference(len(rows), stream)
    shares: list[tuple[Branch | None, Tensor, Settings]] = []
    for number, of in enumerate([None, *policy.branches]):
        on_cpu = torch.nonzero(branch == number).flatten()
        if len(on_cpu):
            index = on_cpu.to(device, non_blocking=True)
            whole = len(on_cpu) == len(rows)
            shares.append((of, index, settings if whole else {key: value[index] for key, value in settings.items()}))
    features = _look(bound, rows, output, shares)
    trials: list[Trial] = []
    for of, index, mine in shares:
        view = partial(policy.view, n=len(index), canvas=rows.size, output=output, own=of, device=device)
        if of is None:
            usual = view(mine)
            trials.append(Trial(None, index, usual, usual, {}, {}))
            continue
        log_probs = uniform(of, len(index), device)
        if of.learned:
            with torch.set_grad_enabled(learns), seeded(stream.seed, device):  # a user's generator may have dropout
                log_probs = adversaries[of.name].predict(features[of.name])
        drawn = draw(of, log_probs, stream)
        views = view(_not_on_trial(mine, of) | drawn.adversarial), view(mine | drawn.reference)
        trials.append(Trial(of, index, *views, drawn.chosen, log_probs))
    return trials


def _look(
    bound: Bound, rows: Batch, output: Size, shares: Sequence[tuple[Branch | None, Tensor, Settings]]
) -> dict[str, list[Tensor]]:
    """The features of the rows of each learned branch, by its name, from one pass for all."""
    learned = [(of, index, mine) for of, index, mine in shares if of is not None and of.learned]
    seen = []
    for of, index, mine in learned:
        settings = _not_on_trial(mine, of)
        view = bound.policy.view(settings, len(index), rows.size, output, own=of, device=bound.device)
        seen.append(rows.image_only().rows(index).seen(view, output))
    if not seen:
        return {}
    parts = [
        feature.split([len(share) for share in seen])
        for feature in bound.look(seen[0].with_image(torch.cat([share.image for share in seen])))
    ]
    return {of.name: [part[i] for part in parts] for i, (of, _, _) in enumerate(learned)}


def _not_on_trial(settings: Settings, branch: Branch) -> Settings:
    return {key: value for key, value in settings.items() if not key.startswith(f"{branch.name}.")}


def joint_view(trials: Sequence[Trial]) -> View:
    """What the network trains on: the view of every row, in the order of the batch."""
    view = concatenate([trial.adversarial for trial in trials], [len(trial.rows) for trial in trials])
    return view.rows(torch.cat([trial.rows for trial in trials]).argsort()) if len(trials) > 1 else view


@dataclass(frozen=True)
class Comparison:
    """The difficulty of the views of all rows on trial, [n] float32 in the order of the trials.

    `rows` [n] long. scored: whether `hard` is known; otherwise it is empty, and the training pass will tell.
    """

    rows: Tensor
    usual: Tensor  # of the references
    hard: Tensor  # of the adversarial views
    scored: bool = True


def compare(
    bound: Bound, trials: Sequence[Trial], rows: Batch, augmented: Batch, view: View, measure: Measure, training: bool
) -> Comparison:
    """Scores both views, or with `training` the references alone, as the training pass will score the adversarial ones.

    `augmented` is what `view` makes of `rows`.
    """
    learned = [trial for trial in trials if trial.learned]
    if not learned:
        nothing = torch.zeros(0, device=bound.device)
        return Comparison(nothing.long(), nothing, nothing)
    index = torch.cat([trial.rows for trial in learned])
    reference = concatenate([trial.reference for trial in learned], [len(trial.rows) for trial in learned])
    seen = rows.rows(index).seen(reference, augmented.size)
    if training and len(index) > 1:  # one row has no batch statistics
        usual = bound.score(seen, reference.feature_masks, measure, training=True)
        return Comparison(index, usual, usual[:0], scored=False)
    hard = bound.score(augmented.rows(index), view.rows(index).feature_masks, measure)
    return Comparison(index, bound.score(seen, reference.feature_masks, measure), hard)


def learn(adversaries: Adversaries, trials: Sequence[Trial], hard: Tensor, usual: Tensor, update: Update) -> dict[str, Tensor]:
    """Rewards and penalises every generator; a row whose difficulty is not finite teaches nothing. Returns metrics.

    hard, usual: the difficulties of a Comparison.
    """
    valid = torch.isfinite(hard) & torch.isfinite(usual)
    metrics = {"nonfinite": (~valid).sum()} if len(valid) else {}
    own = {trial.name: trial for trial in trials if trial.learned}
    start = 0
    for name, adversary in adversaries.items():
        if name not in own:
            if dist_size() > 1:  # other ranks may have rows of this branch, and wait for everybody's share
                adversary.learn({}, valid[:0])
            continue
        trial = own[name]
        mine = slice(start, start := start + len(trial.rows))
        harder, counts = hard[mine] > usual[mine], valid[mine]
        metrics[f"reward_rate/{name}"] = (harder & counts).sum() / counts.sum().clamp(min=1)
        pairs = {
            head: (update(log_probs.detach().exp(), trial.chosen[head], harder), log_probs)
            for head, log_probs in trial.log_probs.items()
        }
        adversary.learn(pairs, counts)
    return metrics


def head_metrics(trials: Sequence[Trial]) -> dict[str, Tensor]:
    """Entropy (nats) and mean distribution of each head."""
    metrics = {}
    for trial in trials:
        for head, value in trial.log_probs.items():
            log_probs = value.detach()
            metrics[f"entropy/{trial.name}.{head}"] = -(log_probs.exp() * log_probs).sum(1).mean()
            metrics[f"distribution/{trial.name}.{head}"] = log_probs.exp().mean(0)
    return metrics

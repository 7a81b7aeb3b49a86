"""What a run is made of, from its config: policy, augmenter, optimizer, network, loss, and when the rate falls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import adaug
from adaug import keypoints
from adaug.sampling import ClippedNormal
from examples.hourglass.config import TRIVIAL, UNLEARNED, Config
from examples.hourglass.evaluation import TARGETS
from examples.hourglass.losses import heatmap_loss, predicted_heatmaps
from examples.hourglass.model import StackedHourglass
from examples.datasets.people import Joints

Rows = dict[str, Tensor]
MISSED = 0.07  # of a person's longer side; on the median person of LSP a fifth of the torso, as in PCK@0.2
RICH = (
    adaug.Translate(-0.1, 0.1, 7, axis="x"),
    adaug.Translate(-0.1, 0.1, 7, axis="y"),
    adaug.Shear(-15, 15, 7, axis="x"),
    adaug.Shear(-15, 15, 7, axis="y"),
    adaug.Brightness(0.7, 1.3, 7),
    adaug.Contrast(0.7, 1.3, 7),
    adaug.Saturation(0.7, 1.3, 7),
)


def policy_of(config: Config, joints: Joints) -> adaug.Policy:
    """The policy of an arm. All but "none" and the trivial ones share ranges, and so their random views."""
    scale, rotate = turns_of(config)
    flip = adaug.Flip(joints.flip_pairs)
    share, half = (adaug.policies.Window(part, 0.0, config.until) for part in (config.share, config.share / 2))
    asr: tuple[adaug.Branch, ...] = (adaug.Branch("asr", (scale, rotate), share),)
    if config.apart:
        asr = adaug.Branch("scale", (scale,), half), adaug.Branch("rotate", (rotate,), half)
    aho = adaug.Branch("aho", (adaug.OccludeFeatures(grid=(4, 4), cells=(1, 2)),), share)
    if config.arm == "none":
        return adaug.Policy(())
    if config.arm in TRIVIAL:
        return adaug.policies.trivial(joints.flip_pairs, learned=config.arm not in UNLEARNED)
    common = (flip, *(RICH if config.rich else ()))
    if config.arm == "aho":
        return adaug.Policy((aho,), (*common, scale, rotate))
    policy = adaug.Policy(asr if config.arm == "asr" else (*asr, aho), common)
    return adaug.policies.uniform(policy) if config.arm in ("random", "uniform") else policy


def turns_of(config: Config) -> tuple[adaug.Scale, adaug.Rotate]:
    """The scales and rotations of a run, of random and adversarial views alike."""
    (low, high), angle = config.scale, config.rotation
    scale, rotate = adaug.Scale(low, high, 7), adaug.Rotate(-angle, angle, 9)
    if config.reference == "normal":
        scale = replace(scale, reference=ClippedNormal(1.0, (high - low) / 4, low, high))
        rotate = replace(rotate, reference=ClippedNormal(0.0, angle / 2, -angle, angle, still=0.6))
    if config.rest:
        scale, rotate = replace(scale, rest=1.0), replace(rotate, rest=0.0)
    return scale, rotate


def augmenter_of(config: Config, joints: Joints, steps: int, teacher: nn.Module | None = None) -> adaug.AdversarialAugmenter:
    """The augmenter of an arm; `steps` is how often it will be called in stage 3."""

    def optimizer(parameters: Any) -> torch.optim.Optimizer:
        return averaged(optimizer_of(config, parameters, config.generator_lr), config.average)

    return adaug.AdversarialAugmenter(
        policy_of(config, joints),
        features=() if config.arm == "global" else config.reads,
        occlude=config.hides,
        targets=TARGETS,
        output_size=config.size,
        generator=adaug.OneForAll if config.arm == "global" else None,
        update=adaug.RewardPenalty(config.alpha, config.beta, config.cap),
        optimizer=optimizer,
        difficulty=None if config.measure == "loss" and teacher is None else partial(difficulty_of, config, teacher),
        scoring=config.scoring,
        update_every=config.update_every,
        total_steps=max(1, steps),
        seed=config.seed,
    )


def optimizer_of(config: Config, parameters: Any, lr: float) -> torch.optim.Optimizer:
    """RMSProp as in the paper, or Adam."""
    return torch.optim.RMSprop(parameters, lr=lr) if config.optimizer == "rmsprop" else torch.optim.Adam(parameters, lr=lr)


def averaged(optimizer: torch.optim.Optimizer, steps: int) -> torch.optim.Optimizer:
    """An optimizer that moves once for the mean of the gradients of several steps. Its state_dict keeps what is begun."""

    def gather(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        for group in optimizer.param_groups:
            sums = group.setdefault("sums", [torch.zeros_like(p) for p in group["params"]])
            group["seen"] = (group.get("seen", 0) + 1) % steps
            for p, total in zip(group["params"], sums, strict=True):
                if p.grad is not None:
                    total += p.grad
                    p.grad = None if group["seen"] else total / steps  # without a gradient it stays where it is
                if not group["seen"]:
                    total.zero_()

    if steps > 1:
        optimizer.register_step_pre_hook(gather)
    return optimizer


def model_of(config: Config, joints: Joints) -> StackedHourglass:
    """The hourglass of a seed: the same weights in every arm. Leaves the global random state as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return StackedHourglass(
            len(joints),
            stacks=config.stacks,
            modules=config.modules,
            width=config.width,
            depth=config.depth,
            block=config.block,
            stride=config.stride,
        )


def loss_of(config: Config, outputs: Sequence[Tensor], batch: Rows) -> Tensor:
    """The heat-map loss of each person, [B]."""
    h, w = outputs[-1].shape[-2:]
    target = keypoints.render_heatmaps(
        batch["keypoints"],
        (h, w),
        config.sigma,
        stride=batch["image"].shape[-1] / w,
        visibility=batch["visibility"],
    )
    return heatmap_loss(config.loss, outputs, target, batch["visibility"])


def error_of(config: Config, outputs: Sequence[Tensor], batch: Rows) -> Tensor:
    """The mean error of each person's joints over the person's size, [B]: a larger person is not a harder one.

    Or the share of joints that PCK@0.2 would miss.
    """
    threshold = MISSED if config.measure == "missed" else None
    return keypoints.normalized_error(predicted_heatmaps(config.loss, outputs), batch, threshold=threshold)


def difficulty_of(config: Config, teacher: nn.Module | None, outputs: Sequence[Tensor], batch: Rows) -> Tensor:
    """What "harder" compares, [B]. The teacher sees the same view, but no hidden cells of features."""
    measure = loss_of if config.measure == "loss" else error_of
    own = measure(config, outputs, batch)
    if teacher is None:
        return own
    with torch.no_grad():
        return own - measure(config, teacher(batch["image"]), batch)


def teacher_of(config: Config, model: nn.Module) -> AveragedModel | None:
    """The moving average of a network's weights and statistics, in eval mode; `update_parameters(model)` moves it."""
    if not config.teacher:
        return None
    average = get_ema_multi_avg_fn(config.teacher)
    return AveragedModel(model, multi_avg_fn=average, use_buffers=True).eval().requires_grad_(False)


def learning_rate(config: Config, done: float, scores: Sequence[float]) -> float:
    """The network's rate after a fraction of its epochs, with the mean PCKs that were measured so far."""
    if config.patience is None:
        return config.lr * config.decay ** sum(done >= at - 1e-9 for at in config.decay_at)
    ends = range(config.patience + 1, len(scores) + 1)
    stalled = any(max(scores[: n - config.patience]) >= max(scores[n - config.patience : n]) for n in ends)
    return config.lr * config.decay if stalled else config.lr


def plan_of(config: Config) -> list[int]:
    """The stage of each epoch of a run. Nothing is pre-trained where nothing is learned."""
    first, second, third = config.epochs
    return [1] * first + [2] * (0 if config.arm in UNLEARNED else second) + [3] * third

"""How each arm augments: its policy, its augmenter and its difficulty."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

import adaug
from adaug import keypoints
from adaug.learners import Generator, Paper
from adaug.operations import ClippedNormal, TruncatedNormal
from examples.datasets.people import TARGETS, Batch, Joints
from examples.hourglass.config import LEARNED_BY_RUNNING, UNLEARNED, Config
from examples.hourglass.losses import heatmap_loss, predicted_heatmaps

MakeAugmenter = Callable[[Config, Joints, int], adaug.AdversarialAugmenter]

READS = ("hg.0.skip*", "hg.0.neck")  # layers that the generators read: the first hourglass's bridges, as in the paper
HIDES = ("hg.*.skip*", "hg.*.neck")  # layers that AHO's masks multiply: the bridges of every stack
SHARE = 1 / 3  # the share of the mini-batch for each branch


def policy_of(config: Config, joints: Joints, generators: Paper | None = None) -> adaug.Policy:
    """The policy of an arm. All arms but "none" and "trivial" have the same ranges, and so the same random views."""
    scale, rotate = scale_and_rotation(config)
    flip = adaug.Flip(joints.flip_pairs)
    how = generators or generators_of(config)
    asr = adaug.Branch("asr", (scale, rotate), SHARE, how)
    hides = adaug.OccludeImage if config.arm == "robust" else adaug.OccludeFeatures
    aho = adaug.Branch("aho", (hides(grid=(4, 4), cells=(1, 2)),), SHARE, how)
    if config.arm == "none":
        return adaug.Policy(())
    if config.arm == "trivial":
        return adaug.policies.trivial(joints.flip_pairs, learned=False)
    if config.arm == "aho":
        return adaug.Policy((aho,), (flip, scale, rotate))
    policy = adaug.Policy((asr,) if config.arm == "asr" else (asr, aho), (flip,))
    if config.arm in LEARNED_BY_RUNNING:
        return adaug.policies.running(policy)
    return adaug.policies.uniform(policy) if config.arm in UNLEARNED else policy


def scale_and_rotation(config: Config) -> tuple[adaug.Scale, adaug.Rotate]:
    """The scales and rotations of a run, for random and adversarial views alike."""
    (low, high), angle, spread = config.scale, config.rotation, config.spread
    scaled: Any = None  # evenly over the range
    turned: Any = None
    if config.random == "gaussian":
        scaled = TruncatedNormal(1.0, (high - low) / 4, low, high)
        turned = TruncatedNormal(0.0, angle / 2, -angle, angle)
    elif config.random == "upright":
        scaled = ClippedNormal(1.0, (high - low) / 4, low, high)
        turned = ClippedNormal(0.0, angle / 2, -angle, angle, still=0.6)
    return adaug.Scale(low, high, 7, spread=spread, random=scaled), adaug.Rotate(-angle, angle, 9, spread=spread, random=turned)


def make_augmenter(config: Config, joints: Joints, steps: int, **changes: Any) -> adaug.AdversarialAugmenter:
    """The augmenter of an arm, for so many steps of stage 3. `changes` replace its arguments."""
    policy = changes.pop("policy", None) or policy_of(config, joints)
    arguments: dict[str, Any] = {
        "targets": TARGETS,
        "output_size": config.size,
        "total_steps": max(1, steps),
        "seed": config.seed,
        "difficulty": None if config.measure == "loss" else partial(difficulty_of, config),
        "occlude": HIDES if policy.hides_features else None,
    }
    return adaug.AdversarialAugmenter(policy, **{**arguments, **changes})


def generators_of(config: Config) -> Paper:
    """How generators learn: they read the first hourglass, as in the paper, and are by default as wide and as fine as it."""
    update = adaug.RewardPenalty(config.alpha, config.beta, config.cap)
    width, size = config.generator_width or config.channels, config.generator_size or config.size
    generator, optimizer = partial(Generator, width=width, size=size), partial(make_optimizer, config, lr=config.generator_lr)
    return Paper(READS, update, generator, optimizer)


def make_optimizer(config: Config, parameters: Any, lr: float) -> torch.optim.Optimizer:
    """RMSProp as in the paper, or Adam."""
    return torch.optim.RMSprop(parameters, lr=lr) if config.optimizer == "rmsprop" else torch.optim.Adam(parameters, lr=lr)


def loss_of(config: Config, outputs: Sequence[Tensor], batch: Batch) -> Tensor:
    """The heat-map loss of each person, [B]."""
    h, w = outputs[-1].shape[-2:]
    stride = batch["image"].shape[-1] / w
    target = keypoints.render_heatmaps(batch["keypoints"], (h, w), config.sigma, stride=stride, visibility=batch["visibility"])
    return heatmap_loss(config.loss, outputs, target, batch["visibility"])


def error_of(config: Config, outputs: Sequence[Tensor], batch: Batch) -> Tensor:
    """The mean error of each person's joints over the person's size, [B]. So larger people are not harder."""
    return keypoints.normalized_error(predicted_heatmaps(config.loss, outputs), batch)


def difficulty_of(config: Config, outputs: Sequence[Tensor], batch: Batch) -> Tensor:
    """The difficulty of each person, [B]: the loss, or the error over size."""
    return (loss_of if config.measure == "loss" else error_of)(config, outputs, batch)

"""Measures predictions: PCK of each group of joints on plain crops, and audits of turned, scaled and hidden people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

import adaug
from adaug import keypoints
from examples.datasets.people import TARGETS, Batch, People, Scores
from examples.hourglass.config import Precision, autocast
from examples.hourglass.losses import Loss, predicted_heatmaps
from examples.hourglass.tables import VIEWS


def predict(
    model: nn.Module,
    people: People,
    size: int,
    loss: Loss,
    *,
    flip: bool = True,
    batch_size: int = 64,
    precision: Precision = "fp32",
) -> Tensor:
    """Predicts keypoints [N, J, 2] in the central crop of each person, size x size, on the CPU.

    It reads batch by batch, so a data set may be larger than the memory. flip: average with the maps of the mirror image.
    """
    margin = (people.images.shape[-1] - size) // 2
    device = next(model.parameters()).device
    predicted = [torch.empty(0, len(people.joints), 2)]
    with evaluating(model), autocast(device, precision):
        for batch in people.loaded(torch.arange(len(people)).split(batch_size), pin=device.type == "cuda"):
            image = batch["image"][..., margin : margin + size, margin : margin + size].to(device, non_blocking=True) / 255
            maps = predicted_heatmaps(loss, model(image))
            if flip:
                mirrored = predicted_heatmaps(loss, model(image.flip(-1)))
                maps = (maps + keypoints.flip_heatmaps(mirrored, people.joints.flip_pairs)) / 2
            predicted.append(keypoints.decode_heatmaps(maps, stride=size / maps.shape[-1])[0].cpu())
    return torch.cat(predicted)


def pck(predicted: Tensor, people: People, threshold: float, *, device: torch.device | None = None) -> Scores:
    """The PCK in per cent of predictions [N, J, 2], for each group of joints and for all, with `people.pck_length` as size.

    Each rank passes its own people. Their counts are summed on `device` (that of the process group).
    """
    members = {**people.joints.groups, "Mean": sum(people.joints.groups.values(), ())}
    scores: Scores = {}
    for group, joints in members.items():
        counts, index = keypoints.PCK(threshold), list(joints)
        rows = (predicted[:, index], people.keypoints[:, index], people.visibility[:, index], people.pck_length)
        counts.update(*(tensor.to(device or tensor.device) for tensor in rows))
        scores[group] = 100 * float(counts.compute())
    return scores


def evaluate(
    model: nn.Module,
    people: People,
    loss: Loss,
    *,
    size: int,
    thresholds: Sequence[float],
    rank: int = 0,
    ranks: int = 1,
    precision: Precision = "fp32",
) -> dict[float, Scores]:
    """The PCK at each threshold, on everybody's central crop. A rank predicts every `ranks`-th person."""
    shown = people.subset(range(rank, len(people), ranks)).cropped(size)
    predicted, device = predict(model, shown, size, loss, precision=precision), next(model.parameters()).device
    return {threshold: pck(predicted, shown, threshold, device=device) for threshold in thresholds}


def audit(
    model: nn.Module, people: People, loss: Loss, *, size: int, threshold: float, precision: Precision = "fp32"
) -> adaug.Audit:
    """Audits a model: which joints are found (1) or not (0), like PCK but without a flip test. Joints in no group do not count.

    A view scales the length that PCK divides by as it scales the spread of the joints.
    """
    others = [joint for joint in range(len(people.joints)) if joint not in sum(people.joints.groups.values(), ())]

    def found(output: Sequence[Tensor], batch: Batch) -> Tensor:
        maps, joints = predicted_heatmaps(loss, output), batch["keypoints"]
        distance = (keypoints.decode_heatmaps(maps, stride=size / maps.shape[-1])[0] - joints).norm(dim=-1)
        hits = (distance <= threshold * (batch["length_to_spread"] * _spread(joints))[:, None]).float()
        hits[:, others] = torch.nan
        return hits

    batches = people.batches(64, shuffle=False)
    shown = ({**batch, "length_to_spread": batch["pck_length"] / _spread(batch["keypoints"])} for batch in batches)
    targets, bar = {**TARGETS, "length_to_spread": "other"}, None if len(people) > 1000 else False
    more: dict[str, Any] = {"targets": targets, "output_size": size, "groups": people.joints.groups, "progress": bar}
    with autocast(next(model.parameters()).device, precision):
        return adaug.audit(model, shown, found, VIEWS, num_draws=0, **more)


def _spread(joints: Tensor) -> Tensor:
    """The mean distance of joints [B, J, 2] from their centre, [B]."""
    return (joints - joints.mean(1, keepdim=True)).norm(dim=(1, 2))


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """A block in evaluation mode, without gradients."""
    flags = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, flag in flags.items():
            module.training = flag

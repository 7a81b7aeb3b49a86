"""Scores as the benchmarks define them, in pixels of the original photographs: PCKh of MPII, PCK@0.2 of LSP.

The counting is that of MPII's evaluation toolkit: a group's score is the mean of its joints' percentages, "Mean" is over
all labelled joints of all groups, and pelvis and thorax are in neither.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from adaug import keypoints
from examples.datasets.cropping import Array, Originals
from examples.hourglass.evaluation import Scores, evaluating
from examples.hourglass.losses import Loss, predicted_heatmaps
from examples.datasets.people import People

Decode = Callable[..., tuple[Tensor, Tensor]]

THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5)  # of Figure 6; Table 1 is at 0.5


def predict(
    model: nn.Module,
    people: People,
    originals: Originals,
    loss: Loss,
    *,
    size: int,
    flip: bool = True,
    decode: Decode = keypoints.decode_heatmaps,
    batch_size: int = 64,
) -> Array:
    """Joints [N, J, 2] in pixels of the photographs, of what `load_crops` returned. flip: average with the mirrored image.

    Crops are read batch by batch, so that a set on disk may be larger than the memory. decode: `decode_quarter` for the
    decoding of Newell et al.
    """
    margin = (people.images.shape[-1] - size) // 2
    device = next(model.parameters()).device
    found = [np.empty((0, len(people.joints), 2))]
    with evaluating(model):
        for batch in people.batches(batch_size, shuffle=False):
            image = batch["image"][..., margin : margin + size, margin : margin + size].to(device)
            maps = predicted_heatmaps(loss, model(image))
            if flip:
                mirrored = predicted_heatmaps(loss, model(image.flip(-1)))
                maps = (maps + keypoints.flip_heatmaps(mirrored, people.joints.flip_pairs)) / 2
            found.append(decode(maps, stride=size / maps.shape[-1])[0].double().cpu().numpy())
    return originals.to_image(np.concatenate(found), size)


def decode_quarter(heatmaps: Tensor, *, stride: float = 1) -> tuple[Tensor, Tensor]:
    """Keypoints [B, K, 2] and scores [B, K] like `decode_heatmaps`, with the refinement of Newell et al. (ECCV 2016).

    The peak moves a quarter of a pixel towards its higher neighbour, in x and in y; at the border not at all.
    """
    h, w = heatmaps.shape[-2:]
    maps = heatmaps.detach().float()
    scores, index = maps.flatten(2).max(2)
    row, column = index // w, index % w

    def step(at: Tensor, last: int, stride: int) -> Tensor:
        before, after = ((index + side * stride).clamp(0, h * w - 1)[..., None] for side in (-1, 1))
        higher = (maps.flatten(2).gather(2, after) - maps.flatten(2).gather(2, before))[..., 0].sign()
        return torch.where((at > 0) & (at < last), higher / 4, 0)

    points = torch.stack([column + step(column, w - 1, 1), row + step(row, h - 1, w)], -1)
    return ((points + 0.5) * stride - 0.5).to(heatmaps.dtype), scores.to(heatmaps.dtype)


def normalized_distances(predicted: Array, people: Originals) -> Array:
    """Distance to the truth over the reference length [N, J]; NaN where a joint is not labelled. In the photographs' pixels.

    A joint that was not predicted, NaN or infinite, is infinitely far away.
    """
    if predicted.shape != people.keypoints.shape:
        raise ValueError(f"`predicted` should have the shape {people.keypoints.shape} of the truth. Found {predicted.shape}.")
    distance = np.linalg.norm(predicted - people.keypoints, axis=-1) / people.reference[:, None]
    found = np.where(np.isfinite(distance), distance, np.inf)
    return np.where(people.visibility > 0, found, np.nan)


def score(predicted: Array, people: Originals, threshold: float) -> Scores:
    """One row of Table 1 (PCKh, MPII) or Table 3 (PCK, LSP), per cent: each joint group, then "Mean". NaN: none labelled."""
    distance = normalized_distances(predicted, people)
    labelled, correct = np.isfinite(people.reference)[:, None] & ~np.isnan(distance), distance <= threshold
    counts, hits = labelled.sum(0), (correct & labelled).sum(0)  # [J]
    with np.errstate(invalid="ignore"):
        per_joint = 100 * hits / counts
        rows = {group: float(per_joint[list(joints)].mean()) for group, joints in people.joints.groups.items()}
        grouped = [joint for joints in people.joints.groups.values() for joint in joints]
        return {**rows, "Mean": float(100 * hits[grouped].sum() / counts[grouped].sum())}


def curve(predicted: Array, people: Originals, thresholds: Sequence[float] = THRESHOLDS) -> dict[float, Scores]:
    """The scores at several thresholds, for Figure 6."""
    return {threshold: score(predicted, people, threshold) for threshold in thresholds}

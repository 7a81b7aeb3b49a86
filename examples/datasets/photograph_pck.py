"""Scores as the benchmarks define them, in pixels of the original photographs: MPII's PCKh, and LSP's PCK@0.2.

They follow MPII's evaluation toolkit: a group's score is the mean of its joints' percentages. "Mean" is over all labelled
joints of all groups. Pelvis and thorax are in no group.
"""

from __future__ import annotations

import numpy as np

from examples.datasets.cropping import Array, Originals
from examples.datasets.people import Scores


def normalized_distances(predicted: Array, people: Originals) -> Array:
    """Distances to the truth in photographs, divided by PCK's length, [N, J]. NaN for joints that are not labelled.

    A joint that was not predicted, NaN or infinite, is infinitely far away.
    """
    if predicted.shape != people.keypoints.shape:
        raise ValueError(f"`predicted` should have the shape {people.keypoints.shape} of the truth. Found {predicted.shape}.")
    distance = np.linalg.norm(predicted - people.keypoints, axis=-1) / people.pck_length[:, None]
    return np.where(people.visibility > 0, np.where(np.isfinite(distance), distance, np.inf), np.nan)


def pck_in_photographs(predicted: Array, people: Originals, threshold: float) -> Scores:
    """A row of Table 1 (PCKh, MPII) or Table 3 (PCK, LSP) in per cent: each group, then "Mean". NaN if none is labelled."""
    distance = normalized_distances(predicted, people)
    labelled, correct = np.isfinite(people.pck_length)[:, None] & ~np.isnan(distance), distance <= threshold
    counts, hits = labelled.sum(0), (correct & labelled).sum(0)  # [J]
    with np.errstate(invalid="ignore"):
        per_joint = 100 * hits / counts
        scores = {group: float(per_joint[list(joints)].mean()) for group, joints in people.joints.groups.items()}
        grouped = [joint for joints in people.joints.groups.values() for joint in joints]
        return {**scores, "Mean": float(100 * hits[grouped].sum() / counts[grouped].sum())}

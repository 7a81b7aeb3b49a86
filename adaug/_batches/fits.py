"""Checks that a mini-batch suits the operations that are to change it."""

from __future__ import annotations

from collections.abc import Sequence

from adaug._batches.batch import Batch
from adaug._batches.units import check_boxes, check_points
from adaug.keypoints import Pairs
from adaug.operations import Operation
from adaug.policies import Policy


def check_policy(policy: Policy, batch: Batch, *, wait: bool = True) -> None:
    """Checks that a batch fits a policy: flips have pairs, colours lie in [0, 1], functions move no pixels.

    Args:
        policy: The policy.
        batch: The batch.
        wait: Whether to check pixel values on a GPU too, which waits for it.
    """
    if policy.flip is not None:
        check_flip(batch, policy.flip.pairs)
    clamping = policy.check_functions(batch.image) if policy.functions else []
    check_operations(batch, list(policy.operations.values()), clamping, wait=wait)


def check_values(batch: Batch, *, wait: bool = True) -> None:
    """Raises ValueError if coordinates cannot be in their unit, or if boxes have a negative size.

    Args:
        batch: The batch.
        wait: Whether to check values on a GPU too, which waits for it.
    """
    if batch.image.device.type != "cpu" and not wait:
        return
    for key, target in batch.kinds.items():
        if target.kind == "keypoints":
            check_points(repr(key), batch.entries[key].detach()[..., :2], target.unit, batch.size)
        elif target.kind == "boxes":
            check_boxes(repr(key), batch.entries[key].detach(), target.unit, target.format, batch.size)


def check_flip(batch: Batch, pairs: Pairs | None) -> None:
    """Raises ValueError if the batch has keypoints and `pairs` does not say which change places in a flip."""
    counts = [points.shape[-2] for points in batch.entries_of("keypoints")]
    counts += [maps.shape[1] for maps in batch.entries_of("heatmaps")]
    counts += [visible.shape[batch.joint_dim(visible)] for visible in batch.entries_of("visibility")]
    if not counts:
        return
    if pairs is None:
        raise ValueError(
            "A Flip should know which keypoints change places. Found keypoints or heat maps in the batch and pairs=None; "
            "pass flip_pairs=[(left, right), ...], or () if none do."
        )
    highest = max((index for pair in pairs for index in pair), default=-1)
    if highest >= min(counts):
        raise ValueError(f"Flip pairs should name keypoints from 0 to {min(counts) - 1}. Found {highest} in {list(pairs)}.")


def check_operations(
    batch: Batch, operations: Sequence[Operation], functions: Sequence[str] = (), *, wait: bool = True
) -> None:
    """Raises ValueError if colour operations get images outside [0, 1], or if coordinates cannot be in their unit.

    Args:
        batch: The batch.
        operations: The operations that may be drawn.
        functions: Names of functions that cut values to [0, 1].
        wait: Whether to check values on a GPU too, which waits for it.
    """
    check_values(batch, wait=wait)
    coloured = [*(type(operation).__name__ for operation in operations if operation.unit_range), *functions]
    if not coloured or (batch.image.device.type != "cpu" and not wait):
        return
    low, high = (float(edge) for edge in batch.image.detach().aminmax())
    if low < -0.01 or high > 1.01:
        raise ValueError(
            f"{', '.join(coloured)} should get images in [0, 1]. Found values from {low:.3g} to {high:.3g}; normalise inside "
            "the model, or leave the colour operations out."
        )

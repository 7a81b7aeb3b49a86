"""Heat-map losses, one value per sample [B]: a comparison of two views needs every sample's own loss.

Both divide by the labelled joints in frame. A loss that skipped a joint without dividing would call a view easy
because it pushed joints out of the frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

Loss = Literal["mse", "cross-entropy"]


def heatmap_mse(outputs: Sequence[Tensor], target_heatmaps: Tensor, visibility: Tensor) -> Tensor:
    """Squared error of every stack's heat maps [B, J, h, w], the paper's loss; -> [B], averaged over stacks.

    Summed, not averaged, over pixels: an all-zero map then costs the same at every resolution (pi for a Gaussian of
    sigma 1 and peak 1), and gradients stay far above RMSProp's epsilon.
    """
    labelled = _labelled(outputs, target_heatmaps, visibility)
    target = torch.where(labelled, _precise(target_heatmaps), 0)
    errors = [(torch.where(labelled, _precise(output), 0) - target).square().sum((2, 3)) for output in outputs]
    return _average(errors, labelled)


def heatmap_cross_entropy(outputs: Sequence[Tensor], target_heatmaps: Tensor, visibility: Tensor) -> Tensor:
    """Cross-entropy of softmax-over-pixels logits [B, J, h, w] against the target maps scaled to sum to 1; -> [B].

    Averaged over stacks. Unlike the squared error it has no plateau at the all-zero map, which matters for small and
    short runs.
    """
    labelled = _labelled(outputs, target_heatmaps, visibility)
    target = torch.where(labelled, _precise(target_heatmaps), 0).flatten(2)  # [B, J, h*w]
    target = target / target.sum(2, keepdim=True).clamp_min(torch.finfo(target.dtype).tiny)
    errors = [-(target * torch.where(labelled, _precise(output), 0).flatten(2).log_softmax(2)).sum(2) for output in outputs]
    return _average(errors, labelled)


def _average(errors: list[Tensor], labelled: Tensor) -> Tensor:
    """Mean over stacks of [B, J] errors that are 0 where not labelled, divided by the labelled joints -> [B]."""
    count = labelled.sum((1, 2, 3)).clamp_min(1)  # [B]
    return torch.stack(errors).mean(0).sum(1) / count


def _precise(x: Tensor) -> Tensor:
    """At least float32: half precision under autocast loses the sums over a few thousand pixels."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _labelled(outputs: Sequence[Tensor], target: Tensor, visibility: Tensor) -> Tensor:
    """The mask [B, J, 1, 1] of joints that count. Applied by `where`, so that rubbish, even NaN, cannot get through."""
    if isinstance(outputs, Tensor) or not outputs:
        raise ValueError("`outputs` should be a sequence of heat maps, one per stack. Wrap a single one in a list.")
    for output in outputs:
        if output.shape != target.shape:
            raise ValueError(
                f"`target_heatmaps` should have the shape of the outputs, {tuple(output.shape)}. "
                f"Found {tuple(target.shape)}. Render it at the output's resolution."
            )
    if visibility.shape != target.shape[:2]:
        raise ValueError(
            f"`visibility` should have the shape [B, J] = {tuple(target.shape[:2])}. Found {tuple(visibility.shape)}."
        )
    return (visibility > 0)[:, :, None, None]


def heatmap_loss(loss: Loss, outputs: Sequence[Tensor], target_heatmaps: Tensor, visibility: Tensor) -> Tensor:
    """The named one of the two; -> [B]."""
    function = heatmap_mse if loss == "mse" else heatmap_cross_entropy
    return function(outputs, target_heatmaps, visibility)


def predicted_heatmaps(loss: Loss, outputs: Sequence[Tensor]) -> Tensor:
    """What the last stack says in the terms of its loss, float32 [B, J, h, w]: heat maps, or probabilities of pixels."""
    last = _precise(outputs[-1])
    return last if loss == "mse" else last.flatten(2).softmax(2).view_as(last)

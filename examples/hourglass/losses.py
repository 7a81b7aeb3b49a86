"""Heat-map losses with one value per sample, [B], because two views of a sample are compared.

Both divide by the number of labelled joints in the frame. Otherwise a view would look easy because joints have left the frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

Loss = Literal["mse", "cross-entropy"]


def heatmap_mse(outputs: Sequence[Tensor], target_heatmaps: Tensor, visibility: Tensor) -> Tensor:
    """The paper's loss: squared error of heat maps [B, J, h, w], averaged over stacks. -> [B].

    It is summed, not averaged, over pixels. So an all-zero map costs the same at every resolution (pi for a Gaussian of sigma 1
    and peak 1), and gradients stay far above RMSProp's epsilon.
    """
    labelled = _labelled(outputs, target_heatmaps, visibility)
    target = torch.where(labelled, _precise(target_heatmaps), 0)
    errors = [(torch.where(labelled, _precise(output), 0) - target).square().sum((2, 3)) for output in outputs]
    return _average(errors, labelled)


def heatmap_cross_entropy(outputs: Sequence[Tensor], target_heatmaps: Tensor, visibility: Tensor) -> Tensor:
    """Cross-entropy between the softmax of logits [B, J, h, w] over pixels and target maps that sum to 1. -> [B].

    It is averaged over stacks. Unlike the squared error it has no plateau at the all-zero map, which matters in short runs.
    """
    labelled = _labelled(outputs, target_heatmaps, visibility)
    target = torch.where(labelled, _precise(target_heatmaps), 0).flatten(2)  # [B, J, h*w]
    target = target / target.sum(2, keepdim=True).clamp_min(torch.finfo(target.dtype).tiny)
    errors = [-(target * torch.where(labelled, _precise(output), 0).flatten(2).log_softmax(2)).sum(2) for output in outputs]
    return _average(errors, labelled)


def _average(errors: list[Tensor], labelled: Tensor) -> Tensor:
    """Averages errors [B, J] of each stack over labelled joints and stacks. -> [B]. Unlabelled joints have error 0."""
    count = labelled.sum((1, 2, 3)).clamp_min(1)  # [B]
    return torch.stack(errors).mean(0).sum(1) / count


def _precise(x: Tensor) -> Tensor:
    """Converts to float32 at least, because half precision is too coarse for sums over thousands of pixels."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _labelled(outputs: Sequence[Tensor], target: Tensor, visibility: Tensor) -> Tensor:
    """The mask [B, J, 1, 1] of joints that count. Apply it by `where`, so that even NaN does not get through."""
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
    """The loss of this name, [B]."""
    function = heatmap_mse if loss == "mse" else heatmap_cross_entropy
    return function(outputs, target_heatmaps, visibility)


def predicted_heatmaps(loss: Loss, outputs: Sequence[Tensor]) -> Tensor:
    """The last stack's heat maps, or probabilities of pixels, float32 [B, J, h, w]. The loss decides which."""
    last = _precise(outputs[-1])
    return last if loss == "mse" else last.flatten(2).softmax(2).view_as(last)

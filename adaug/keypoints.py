"""For networks that find keypoints: heat maps and back, flips, an error that ignores size, PCK.

Coordinates are pixels, x then y. (0, 0) is the centre of the first pixel. A stride is the number of image pixels for each
pixel of a heat map: heat-map x = (x + 0.5) / stride - 0.5.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from adaug._runtime.checks import checked, either, function, instance, integer, number, several
from adaug._runtime.geometry import told_stride

__all__ = [
    "PCK",
    "Pairs",
    "decode_heatmaps",
    "error_over_size",
    "flip_heatmaps",
    "flip_keypoints",
    "labelled",
    "normalized_error",
    "render_heatmaps",
    "swapped_order",
]

Pairs = Sequence[tuple[int, int]]  # (left, right): keypoints that belong together


def labelled(keypoints: Tensor, visibility: Tensor | None = None) -> Tensor:
    """Which keypoints [..., K, 2 or 3] count: those whose visibility [..., K] is above 0.

    Without a visibility, those whose third column is above 0. Without this column, all that are finite.
    """
    if visibility is not None:
        return (visibility > 0).reshape(keypoints.shape[:-1])
    return keypoints[..., 2] > 0 if keypoints.shape[-1] == 3 else keypoints.isfinite().all(-1)


def render_heatmaps(
    keypoints: Tensor, size: tuple[int, int] | int, sigma: float = 1.0, *, stride: float = 1, visibility: Tensor | None = None
) -> Tensor:
    """Renders a Gaussian with peak 1 around each keypoint, at its exact place and not at the nearest pixel.

    Args:
        keypoints: [B, K, 2], in image pixels.
        size: (h, w) of the heat maps, or one number for both.
        sigma: Standard deviation, in heat-map pixels.
        stride: Image pixels per heat-map pixel.
        visibility: [B, K]. Joints at 0 get an empty map.

    Returns:
        [B, K, h, w].
    """
    h, w = (size, size) if isinstance(size, int) else size
    centre = (keypoints[..., :2].float() + 0.5) / stride - 0.5  # [B, K, 2]
    x = torch.arange(w, device=keypoints.device) - centre[..., 0, None]  # [B, K, w]
    y = torch.arange(h, device=keypoints.device) - centre[..., 1, None]  # [B, K, h]
    maps = torch.exp(-y.square() / (2 * sigma**2))[..., None] * torch.exp(-x.square() / (2 * sigma**2))[..., None, :]
    maps = torch.where(labelled(keypoints, visibility)[..., None, None], maps, 0)
    return maps.to(keypoints.dtype) if keypoints.is_floating_point() else maps


def decode_heatmaps(heatmaps: Tensor, *, stride: float = 1) -> tuple[Tensor, Tensor]:
    """Finds the peak of each heat map, more exactly than a pixel.

    A parabola through the logarithms of the peak and its neighbours gives the exact peak of a Gaussian (the idea of DARK, Zhang
    et al., CVPR 2020). It moves the peak by at most half a pixel, or by one pixel at the border.

    Args:
        heatmaps: [B, K, h, w].
        stride: Image pixels per heat-map pixel.

    Returns:
        Keypoints [B, K, 2] in image pixels, and their scores [B, K]: the peaks.
    """
    h, w = heatmaps.shape[-2:]
    maps = heatmaps.detach().float()
    scores, index = maps.flatten(2).max(2)
    row, column = index // w, index % w
    floor = scores.abs()[..., None] * 1e-6 + torch.finfo(torch.float32).tiny
    lines_x = maps.gather(2, row[..., None, None].expand(-1, -1, 1, w))[:, :, 0]  # [B, K, w] the row of each peak
    lines_y = maps.gather(3, column[..., None, None].expand(-1, -1, h, 1))[..., 0]  # [B, K, h]
    x = column + _vertex(lines_x.maximum(floor).log(), column)
    y = row + _vertex(lines_y.maximum(floor).log(), row)
    points = (torch.stack([x, y], -1) + 0.5) * stride - 0.5
    return points.to(heatmaps.dtype), scores.to(heatmaps.dtype)


def _vertex(logs: Tensor, peak: Tensor) -> Tensor:
    """The top of the parabola through three points around the peak, relative to the peak. [B, K, n], [B, K] -> [B, K]."""
    n = logs.shape[-1]
    if n < 3:
        return torch.zeros_like(logs[..., 0])
    middle = peak.clamp(1, n - 2)
    left, centre, right = (logs.gather(2, (middle + i)[..., None])[..., 0] for i in (-1, 0, 1))
    curvature = left - 2 * centre + right
    shift = torch.where(curvature < 0, (left - right) / (2 * curvature).clamp(max=-1e-12), 0.0)
    border = (middle != peak).float()
    return ((middle - peak) + shift).clamp(-0.5 - border / 2, 0.5 + border / 2)


def flip_keypoints(keypoints: Tensor, width: int, pairs: Pairs) -> Tensor:
    """Mirrors keypoints [..., K, 2 or 3] in an image of this width; left and right change places."""
    flipped = keypoints[..., swapped_order(keypoints.shape[-2], pairs), :].clone()
    flipped[..., 0] = width - 1 - flipped[..., 0]
    return flipped


def flip_heatmaps(heatmaps: Tensor, pairs: Pairs) -> Tensor:
    """Mirrors heat maps [B, K, h, w]; left and right change places. A flip test averages them with those of the plain image."""
    return heatmaps[:, swapped_order(heatmaps.shape[1], pairs)].flip(-1)


def swapped_order(count: int, pairs: Pairs) -> list[int]:
    """The index that each of `count` keypoints comes from in a mirror image."""
    order = list(range(count))
    for left, right in pairs:
        order[left], order[right] = right, left
    return order


def normalized_error(
    output: Any,
    batch: Mapping[str, Tensor],
    *,
    clip: float = 0.5,
    threshold: float | None = None,
    image: str = "image",
    keypoints: str = "keypoints",
    visibility: str = "visibility",
    stride: float | None = None,
) -> Tensor:
    """A difficulty that does not grow with the person's size in pixels: the mean error of the labelled joints over that size.

    The size is the longer side of the box around the labelled joints. Joints that a view moved out of the frame do not count.

    Args:
        output: Heat maps [B, K, h, w] (probabilities, so apply a softmax to logits first), keypoints [B, K, 2], or a list of
            these from several stacks, of which only the last counts.
        batch: A mapping with the images, the true keypoints, and the visibility if there is one.
        clip: The largest error that a joint counts with, so that one lost joint does not decide.
        threshold: If given, the result is the fraction of joints whose error is larger than this (1 - PCK), not the mean error.
        image: Key of the images.
        keypoints: Key of the keypoints.
        visibility: Key of the visibility.
        stride: Image pixels per heat-map pixel. By default their sizes tell it; both sides should be the same multiple.

    Returns:
        [B]. A person without labelled joints gets NaN; nothing learns from that row.

    Raises:
        ValueError: The output does not fit the keypoints, an image has several people, or the sizes do not tell the stride.
    """
    if isinstance(output, (list, tuple)):
        output = output[-1]
    for key in (image, keypoints):
        if key not in batch:
            raise ValueError(f"The batch should hold {key!r}. Found {', '.join(map(repr, batch))}; pass the names as keywords.")
    truth = batch[keypoints][..., :2].float()
    predicted = output.detach().float()
    _check_predicted(predicted, truth)
    if predicted.ndim == 4:
        known = stride or told_stride(predicted.shape[-2:], batch[image].shape[-2:])
        if known is None:
            raise ValueError(
                "The stride of heat maps should divide the image, or be given. Found heat maps of "
                f"{tuple(predicted.shape[-2:])} for images of {tuple(batch[image].shape[-2:])}; pass stride=..., such as "
                "functools.partial(normalized_error, stride=4)."
            )
        predicted, _ = decode_heatmaps(predicted, stride=known)
    return error_over_size(predicted, truth, labelled(batch[keypoints], batch.get(visibility)), clip=clip, threshold=threshold)


def error_over_size(
    predicted: Tensor, truth: Tensor, counts: Tensor, *, clip: float = 0.5, threshold: float | None = None
) -> Tensor:
    """The error of `normalized_error`, [B], of points [B, K, 2] in pixels. `counts`: which of them are labelled, [B, K]."""
    low, high = (torch.where(counts[..., None], truth, fill) for fill in (torch.inf, -torch.inf))
    side = (high.amax(1) - low.amin(1)).amax(1).clamp(min=1.0)  # [B]
    error = (predicted - truth).norm(dim=-1) / side[:, None]
    error = error.clamp(max=clip) if threshold is None else (error > threshold).float()
    return torch.where(counts, error, 0).sum(1) / counts.sum(1)


def _check_predicted(predicted: Tensor, truth: Tensor) -> None:
    """Raises ValueError unless heat maps [B, K, h, w] or keypoints [B, K, 2] are predicted for true keypoints [B, K, 2]."""
    if truth.ndim != 3:
        raise ValueError(
            f"Each image should have the keypoints of one person, [B, K, 2 or 3]. Found {tuple(truth.shape)}; crop an "
            "image for each person, or write a difficulty of your own."
        )
    n, joints = truth.shape[:2]
    maps = predicted.ndim == 4 and predicted.shape[:2] == truth.shape[:2]
    if not maps and predicted.shape != truth.shape:
        raise ValueError(
            f"The output should be heat maps [{n}, {joints}, h, w] or keypoints [{n}, {joints}, 2], as many as the true ones. "
            f"Found {tuple(predicted.shape)}."
        )


NORMALIZER = either(
    "two different joints (from 0 up), a function, a number of pixels above 0, or None",
    instance(type(None), "None"),
    function(),
    number(above=0),
    several(integer(at_least=0), "two joints", length=2),
)
PCK_RULES = {"threshold": number(above=0), "normalizer": NORMALIZER}


class PCK:
    """PCK, the percentage of correct keypoints: those nearer to the truth than threshold x size. Sums over all ranks.

    Args:
        threshold: The largest distance of a correct keypoint, as a fraction of the person's size.
        normalizer: The size of a person: the distance between two joints (a torso, as in LSP's PCK@0.2), a function of the true
            keypoints [B, K, 2] -> [B], a number of pixels, or None if `update` gets sizes (heads, as in MPII's PCKh@0.5).
    """

    def __init__(
        self, threshold: float, normalizer: tuple[int, int] | Callable[[Tensor], Tensor] | float | None = None
    ) -> None:
        given = checked({"threshold": threshold, "normalizer": normalizer}, PCK_RULES, "PCK")
        self.threshold: float = given["threshold"]
        self.normalizer: tuple[int, int] | Callable[[Tensor], Tensor] | float | None = given["normalizer"]
        self.reset()

    def reset(self) -> None:
        """Forgets all counts."""
        self._counts: Tensor | None = None

    def update(self, predicted: Tensor, target: Tensor, visibility: Tensor | None = None, size: Tensor | None = None) -> None:
        """Compares predicted keypoints [B, K, 2] with the true ones. Those with visibility [B, K] 0 do not count."""
        if predicted.shape[:2] != target.shape[:2]:
            raise ValueError(
                f"Predictions should have the shape of the targets, {tuple(target.shape)}. Found {tuple(predicted.shape)}."
            )
        truth = target[..., :2].float()
        distance = (predicted[..., :2].float() - truth).norm(dim=-1)  # [B, K]
        known = labelled(target, visibility)
        correct = (distance <= self.threshold * self._sizes(truth, size)[:, None]) & known
        counts = torch.stack([correct.sum(0), known.sum(0)])  # [2, K] long
        self._counts = counts if self._counts is None else self._counts + counts

    def compute(self) -> Tensor:
        """The fraction of labelled keypoints that are correct, in [0, 1]. NaN before any update."""
        correct, known = self._summed().sum(1)
        return correct / known

    def per_joint(self) -> Tensor:
        """The fraction for each joint, [K]."""
        correct, known = self._summed()
        return correct / known

    def _summed(self) -> Tensor:
        counts = torch.zeros(2, 1, dtype=torch.long) if self._counts is None else self._counts.clone()
        if not (dist.is_available() and dist.is_initialized()):
            return counts
        if dist.get_backend() == "nccl":
            counts = counts.cuda()  # NCCL sums only tensors on a GPU
        joints = torch.tensor(counts.shape[1], device=counts.device)  # a rank without people does not know the number of joints
        dist.all_reduce(joints, dist.ReduceOp.MAX)
        counts = counts if self._counts is not None else counts.expand(-1, int(joints)).contiguous()
        dist.all_reduce(counts)
        return counts

    def _sizes(self, truth: Tensor, size: Tensor | None) -> Tensor:
        if size is not None:
            return size.float().reshape(len(truth))
        if self.normalizer is None:
            raise ValueError("A PCK without `normalizer` should get sizes [B] in `update`. Found none; pass size=head_sizes.")
        if callable(self.normalizer):
            return self.normalizer(truth)
        if isinstance(self.normalizer, tuple):
            a, b = self.normalizer
            return (truth[:, a] - truth[:, b]).norm(dim=-1)
        return truth.new_full((len(truth),), float(self.normalizer))

"""The gallery of an audit: the images that a view hurts most, as the network saw them, up to a fixed number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from adaug._batches.batch import Batch
from adaug._runtime.geometry import told_stride
from adaug.audits.records import Picture
from adaug.audits.statistics import worst_view
from adaug.audits.table import Table
from adaug.keypoints import decode_heatmaps

Weakness = tuple[float, float]  # the worst view minus the image as it is, then the mean over views


class Gallery:
    """The weakest cases so far, one for each image."""

    def __init__(self, higher_is_better: bool, most: int) -> None:
        self.most = most
        self.sign = 1.0 if higher_is_better else -1.0
        self.kept: list[tuple[Weakness, Picture]] = []

    def pictures(self) -> tuple[Picture, ...]:
        """The pictures, the weakest case first."""
        return tuple(picture for _, picture in self.kept)

    def candidates(self, scores: np.ndarray[Any, Any]) -> list[tuple[int, int]]:
        """(row, column) of the images in scores [n, V] whose worst view is among the weakest so far."""
        if not self.most:
            return []
        cases = []
        for row, values in enumerate(scores):
            if np.isfinite(values).any():
                column = worst_view(self.sign * scores, row)
                cases.append((self._case(values, column), row, column))
        weakest = sorted(cases)[: self.most]
        limit = self.kept[-1][0] if len(self.kept) == self.most else (np.inf, np.inf)
        return [(row, column) for case, row, column in weakest if case < limit]

    def add(self, values: np.ndarray[Any, Any], image: int, column: int, seen: Batch, output: Any) -> None:
        """Keeps a case: the scores [V] of an image, its worst view, what the network saw and what it returned."""
        picture = Picture(image, column, _pixels(seen.image[0]), _labels(seen), _predictions(output, seen))
        self._insert(self._case(values, column), picture)

    def keep(self, pictures: Sequence[Picture], known: Table) -> None:
        """Takes over pictures of the audit that is continued."""
        table = known.table()
        for picture in pictures:
            self._insert(self._case(table[picture.image], picture.view), picture)

    def _case(self, values: np.ndarray[Any, Any], column: int) -> Weakness:
        plain = float(values[0]) if np.isfinite(values[0]) else 0.0
        return self.sign * (float(values[column]) - plain), self.sign * float(np.nanmean(values))

    def _insert(self, case: Weakness, picture: Picture) -> None:
        self.kept = sorted([*self.kept, (case, picture)], key=lambda item: (item[0], item[1].image))[: self.most]


def _pixels(image: Tensor) -> np.ndarray[Any, Any]:
    """[C, H, W] -> [H, W, 3] uint8. Images with values outside [0, 1] are rescaled to it."""
    image = image.detach().float().cpu()
    low, high = image.min(), image.max()
    if low < -0.01 or high > 1.01:
        image = (image - low) / (high - low).clamp(min=1e-6)
    image = image[:3] if len(image) >= 3 else image[:1].expand(3, -1, -1)
    return image.clamp(0, 1).mul(255).round().byte().permute(1, 2, 0).numpy()


def _labels(seen: Batch) -> Mapping[str, np.ndarray[Any, Any]]:
    """The labels of the batch's first row."""
    labels: dict[str, Tensor] = {}
    known = seen.labelled_keypoints()
    if known is not None:
        points, visible = known
        labels |= {"keypoints": points[0, ..., :2].reshape(-1, 2).float(), "visible": visible[0].flatten()}
    for kind in ("mask", "label"):
        for entry in seen.entries_of(kind)[:1]:
            labels[kind] = torch.as_tensor(entry[0])
    return {name: value.detach().cpu().numpy() for name, value in labels.items()}


def _predictions(output: Any, seen: Batch) -> Mapping[str, np.ndarray[Any, Any]]:
    """The predictions for the first row, as far as the output's shape and the batch's entries tell."""
    if isinstance(output, Mapping):
        output = next((output[name] for name in ("heatmaps", "keypoints", "logits", "out") if name in output), None)
    if isinstance(output, (list, tuple)) and output:
        output = output[-1]
    if not isinstance(output, Tensor) or not output.ndim or len(output) < 1:
        return {}
    predictions: dict[str, Tensor] = {}
    output = output.detach()
    if seen.entries_of("keypoints") and output.ndim in (3, 4):
        points = seen.entries_of("keypoints")[0]
        stride = told_stride(output.shape[-2:], seen.size) if output.ndim == 4 else None
        if stride is not None and output.shape[1] == points.shape[-2]:
            predictions["keypoints"] = decode_heatmaps(output, stride=stride)[0][0]
        elif output.shape[-1] == 2 and output.shape[1] == points.shape[-2]:
            predictions["keypoints"] = output[0]
    elif seen.has("mask") and output.ndim == 4:
        predictions["mask"] = output[0].argmax(0) if output.shape[1] > 1 else (output[0, 0] > 0).long()
    elif seen.has("label") and output.ndim == 2:
        predictions["label"] = output[0].argmax(0)
    return {name: value.float().cpu().numpy() for name, value in predictions.items()}

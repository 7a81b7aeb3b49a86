"""The generator: reads features of the user's model and predicts the logits of one distribution per operation."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adaug._model.layers import Shape

__all__ = ["Generator", "OneForAll"]

Layout = int | tuple[int, int]  # bins, or (rows, columns) of cells

EPS = 1e-8  # added to variances of maps within [-1, 1]: a map that varies only by rounding counts as constant


def standardised(x: Tensor) -> Tensor:
    """Brings each row [C, h, w] to mean 0 and standard deviation 1, and a constant row to 0."""
    return F.group_norm(_within_one(x), 1, eps=EPS)


class Level(nn.Module):
    """Divides each row [C, h, w] by its root mean square. A row of zeros stays."""

    def forward(self, x: Tensor) -> Tensor:
        x = _within_one(x)
        return x * (x.square().mean((1, 2, 3), keepdim=True) + EPS).rsqrt()


def _within_one(x: Tensor) -> Tensor:
    """Divides each row by its largest absolute value, because squares of huge or tiny numbers do not fit into float32."""
    return x / x.abs().amax((1, 2, 3), keepdim=True).clamp(min=torch.finfo(x.dtype).tiny)


def _pooled(pool: Callable[[Tensor, tuple[int, int]], Tensor], x: Tensor, side: tuple[int, int]) -> Tensor:
    """Pools maps [n, C, h, w] to a size. Maps of this size are not copied, because a copy takes as long as pooling."""
    return x if x.shape[2:] == side else pool(x, side)


class Bottleneck(nn.Module):
    """A pre-activation residual bottleneck, with GroupNorm because rows must not influence each other."""

    def __init__(self, width: int) -> None:
        super().__init__()
        half = width // 2
        groups, half_groups = (math.gcd(channels, max(1, channels // 16)) for channels in (width, half))
        self.layers = nn.Sequential(
            nn.GroupNorm(groups, width), nn.ReLU(), nn.Conv2d(width, half, 1),
            nn.GroupNorm(half_groups, half), nn.ReLU(), nn.Conv2d(half, half, 3, padding=1),
            nn.GroupNorm(half_groups, half), nn.ReLU(), nn.Conv2d(half, width, 1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.layers(x)
        return out


class Generator(nn.Module):
    """Predicts a distribution per operation from features: the top-down half of an hourglass, one module per resolution.

    It follows section 5.1 of the paper, but pools and narrows the features first. It starts at the uniform distribution.

    Networks differ in the scale of their features, and large features would make it learn faster. So each feature map of a row
    is first brought to mean 0 and standard deviation 1. An image (a map of at most four channels) is only divided by its root
    mean square, which keeps its tint and contrast. Multiplying an image by a factor therefore changes no proposal.

    Args:
        features: Shapes (C, h, w) of the features that it reads, in any order.
        layouts: Name of an operation -> bins, or (rows, columns) of cells.
        width: The number of channels inside. By default that of the features, but at least 32 and at most 64.
        size: Features with longer sides are first pooled to this side, so that large images do not make it slow.
    """

    def __init__(
        self, features: Sequence[Shape], layouts: Mapping[str, Layout], *, width: int | None = None, size: int = 16
    ) -> None:
        super().__init__()
        if width is None:
            width = max(32, min(64, max(channels for channels, _, _ in features)))
        self.order = sorted(range(len(features)), key=lambda i: -features[i][1] * features[i][2])  # finest first
        self.sides = [(min(h, size), min(w, size)) for h, w in (features[i][1:] for i in self.order)]
        self.entries = nn.ModuleList(self._entry(features[i], width) for i in self.order)
        self.blocks = nn.ModuleList(Bottleneck(width) for _ in features)
        self.neck = Bottleneck(width)
        self.heads = nn.ModuleDict()
        for name, layout in layouts.items():
            if isinstance(layout, int):  # places matter, so pool to a grid and not to one mean
                self.heads[name] = nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(16 * width, layout))
            else:
                self.heads[name] = nn.Sequential(nn.AdaptiveAvgPool2d(layout), nn.Conv2d(width, 1, 1), nn.Flatten())
            for parameter in self.heads[name].parameters():
                nn.init.zeros_(parameter)

    @staticmethod
    def _entry(shape: Shape, width: int) -> nn.Module:
        if shape[0] > 4:
            return nn.Conv2d(shape[0], width, 1)
        return nn.Sequential(  # an image: find edges before pooling, which would leave only colours
            nn.AdaptiveAvgPool2d((min(shape[1], 64), min(shape[2], 64))), Level(),
            nn.Conv2d(shape[0], width, 5, stride=2, padding=2), nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1), nn.ReLU(),
        )  # fmt: skip

    def forward(self, features: Sequence[Tensor]) -> dict[str, Tensor]:
        """Predicts logits [B, k] for each operation from feature maps [B, C, h, w]."""
        x: Tensor | None = None
        for i, side, entry, block in zip(self.order, self.sides, self.entries, self.blocks, strict=True):
            level = features[i]
            if isinstance(entry, nn.Conv2d):
                level = entry(standardised(_pooled(F.adaptive_avg_pool2d, level, side)))
            else:
                level = _pooled(F.adaptive_avg_pool2d, entry(level), side)
            x = block(level if x is None else level + _pooled(F.adaptive_max_pool2d, x, side))
        if x is None:
            raise ValueError("A generator should read at least one feature map. Found none.")
        x = torch.relu(self.neck(x))
        return {name: head(x) for name, head in self.heads.items()}


class OneForAll(nn.Module):
    """A generator that ignores its features: one distribution for all images, which starts uniform.

    Compare it with `Generator` to see what knowing the image is worth. With `features=()` a step needs no look.

    Args:
        features: Shapes of features. They are ignored.
        layouts: Name of an operation -> bins, or (rows, columns) of cells.
    """

    GAIN = 32.0  # multiplies its parameters: at a usual learning rate, single logits would hardly move

    def __init__(self, features: Sequence[Shape], layouts: Mapping[str, Layout]) -> None:
        super().__init__()
        sizes = {name: layout if isinstance(layout, int) else math.prod(layout) for name, layout in layouts.items()}
        self.logits = nn.ParameterDict({name: nn.Parameter(torch.zeros(k)) for name, k in sizes.items()})

    def forward(self, features: Sequence[Tensor]) -> dict[str, Tensor]:
        """Returns logits [n, k] for each operation, the same in every one of n rows."""
        return {name: (self.GAIN * logits).expand(len(features[0]), -1) for name, logits in self.logits.items()}

"""The generator: features of the user's model in, the logits of one distribution per operation out."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Shape = tuple[int, int, int]  # channels, height, width
Layout = int | tuple[int, int]  # bins, or (rows, columns) of cells


EPS = 1e-8  # of a variance, beside a largest number of 1: a map that is constant but for rounding counts as constant


def standardised(x: Tensor) -> Tensor:
    """Each row [C, h, w] at mean 0 and deviation 1, whatever its scale; a constant one at 0."""
    return F.group_norm(_within_one(x), 1, eps=EPS)


class Level(nn.Module):
    """Divides each row [C, h, w] by its root mean square; a row of zeros stays."""

    def forward(self, x: Tensor) -> Tensor:
        x = _within_one(x)
        return x * (x.square().mean((1, 2, 3), keepdim=True) + EPS).rsqrt()


def _within_one(x: Tensor) -> Tensor:
    """Each row divided by its largest number: squares of what is huge or tiny would leave float32."""
    return x / x.abs().amax((1, 2, 3), keepdim=True).clamp(min=torch.finfo(x.dtype).tiny)


def _pooled(pool: Callable[[Tensor, tuple[int, int]], Tensor], x: Tensor, side: tuple[int, int]) -> Tensor:
    """A map [n, C, h, w] pooled to a size; one that has it already is not copied, which took as long as pooling."""
    return x if x.shape[2:] == side else pool(x, side)


class Bottleneck(nn.Module):
    """Pre-activation residual bottleneck. GroupNorm, because rows must not influence each other."""

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
    """The top-down half of an hourglass, one module a resolution (section 5.1), over pooled and narrowed features.

    It starts at the uniform distribution.

    Each row's map is first brought to mean 0 and deviation 1 over its channels and places, because networks differ in the
    scale of their features, and a generator that reads large ones moves by itself. An image, a map of at most four channels,
    is divided by its root mean square alone: its tint and its contrast beside its brightness stay. The generator
    does not see a factor: it proposes the same for an image and for a brighter copy of it.

    Args:
        features: Shapes (C, h, w) of what it reads, in any order.
        layouts: Name of an operation -> bins, or (rows, columns) of cells.
        width: Channels inside, by default as many as the features have, within 32 to 64.
        size: Finer features are first pooled to at most this side, so that the larger the images, the smaller is its part
            of a step.
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
            if isinstance(layout, int):  # where things are matters: a grid of cells, not their mean
                self.heads[name] = nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(16 * width, layout))
            else:
                self.heads[name] = nn.Sequential(nn.AdaptiveAvgPool2d(layout), nn.Conv2d(width, 1, 1), nn.Flatten())
            for parameter in self.heads[name].parameters():
                nn.init.zeros_(parameter)

    @staticmethod
    def _entry(shape: Shape, width: int) -> nn.Module:
        if shape[0] > 4:
            return nn.Conv2d(shape[0], width, 1)
        return nn.Sequential(  # an image: edges first, or pooling would leave only its colours
            nn.AdaptiveAvgPool2d((min(shape[1], 64), min(shape[2], 64))), Level(),
            nn.Conv2d(shape[0], width, 5, stride=2, padding=2), nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1), nn.ReLU(),
        )  # fmt: skip

    def forward(self, features: Sequence[Tensor]) -> dict[str, Tensor]:
        """Feature maps [B, C, h, w] -> logits [B, k] of each operation."""
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
    """A generator that reads nothing: one distribution for all images, which starts uniform.

    With `features=()` nothing is looked at, and a step costs little more than its scores. Compare, to see what knowing the
    image is worth.

    Args:
        features: Shapes of what it would read.
        layouts: Name of an operation -> bins, or (rows, columns) of cells.
    """

    GAIN = 32.0  # of its parameters: a rate at which the weights of a network learn would hardly move a lone logit

    def __init__(self, features: Sequence[Shape], layouts: Mapping[str, Layout]) -> None:
        super().__init__()
        sizes = {name: layout if isinstance(layout, int) else math.prod(layout) for name, layout in layouts.items()}
        self.logits = nn.ParameterDict({name: nn.Parameter(torch.zeros(k)) for name, k in sizes.items()})

    def forward(self, features: Sequence[Tensor]) -> dict[str, Tensor]:
        """Features of n rows -> logits [n, k] of each operation, the same in every row."""
        return {name: (self.GAIN * logits).expand(len(features[0]), -1) for name, logits in self.logits.items()}

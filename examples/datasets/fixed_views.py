"""People as a test shows them: all turned, scaled, or hidden in part, everybody alike."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

import adaug
from examples.datasets.people import TARGETS, Batch, People


@dataclass(frozen=True)
class TestView:
    """How all test people are shown.

    Attributes:
        rotation: Degrees, counter-clockwise.
        scale: Of the person; above 1 enlarges.
        hidden_cells: How many of the 4 x 4 cells of the crop are black; others in each crop, the same in every run.
    """

    rotation: float = 0.0
    scale: float = 1.0
    hidden_cells: int = 0

    def __str__(self) -> str:
        parts = [f"{self.rotation:+.0f}°"] if self.rotation else []
        parts += [f"×{self.scale:g}"] if self.scale != 1 else []
        parts += [f"{self.hidden_cells} hidden"] if self.hidden_cells else []
        return " ".join(parts) or "upright"


UPRIGHT = TestView()
TURNED_OR_SCALED = (TestView(-30), TestView(30), TestView(-60), TestView(60), TestView(scale=0.7), TestView(scale=1.4))
HIDDEN = tuple(TestView(hidden_cells=cells) for cells in (1, 2, 3))
TEST_VIEWS = (UPRIGHT, *TURNED_OR_SCALED, *HIDDEN)


def show(people: People, size: int, view: TestView, *, batch_size: int = 256, numbers: range | None = None) -> People:
    """Everybody's central crop under a test view, cut from the canvas, so that real surroundings come into view.

    Args:
        numbers: Which people of the whole set these are, because everybody has cells of their own to hide.

    Returns:
        The people; a joint that has left the crop is not visible, and so not counted.
    """
    if view.rotation == 0 and view.scale == 1:
        shown = people.cropped(size)
    else:
        batches = [turn_and_scale(batch, view, size) for batch in people.batches(batch_size, shuffle=False)]
        shown = replace(
            people,
            images=torch.cat([batch["image"].mul(255).round().clamp(0, 255).byte() for batch in batches]),
            keypoints=torch.cat([batch["keypoints"] for batch in batches]),
            visibility=torch.cat([batch["visibility"] for batch in batches]),
            pck_length=people.pck_length * view.scale,
        )
    return replace(shown, images=hide_cells(shown.images, view.hidden_cells, numbers or range(len(people))))


def turn_and_scale(batch: Batch, view: TestView, size: int) -> Batch:
    """A batch whose rows are all turned and scaled alike."""
    done = [(adaug.Rotate(-180, 180, 2), view.rotation), (adaug.Scale(0.1, 10, 2), view.scale)]
    shown: Batch = adaug.apply_view(batch, done, targets=TARGETS, output_size=size)
    return shown


def hide_cells(images: Tensor, cells: int, numbers: range, *, grid: int = 4, seed: int = 0) -> Tensor:
    """Images [N, C, h, w] with so many cells of a grid black in each, the same in the i-th image of a set every time."""
    count = max(numbers, default=-1) + 1
    noise = torch.rand(count, grid * grid, generator=torch.Generator().manual_seed(seed))[list(numbers)]
    free = (noise.argsort(1).argsort(1) >= cells).view(-1, 1, grid, grid)
    mask: Tensor = nn.functional.interpolate(free.to(images.dtype), images.shape[-2:])
    return images * mask

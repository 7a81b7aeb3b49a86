"""How good predictions are: PCK per joint group, upright, turned and scaled; and tables of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

import adaug
from adaug import keypoints
from examples.hourglass.losses import Loss, predicted_heatmaps
from examples.datasets.people import People

TARGETS: dict[str | int, str | adaug.Target] = {"reference": "other"}  # of `People`; the library knows the other names
Scores = dict[str, float]  # joint group, or "Mean" over all joints that are in a group -> per cent


@dataclass(frozen=True)
class Turn:
    """What is done to all test people: turned (degrees, counter-clockwise), scaled (above 1 enlarges), and so many of the
    4 x 4 cells of the crop hidden, others in each but the same in every run."""

    rotation: float = 0.0
    scale: float = 1.0
    hidden: int = 0

    def __str__(self) -> str:
        parts = [f"{self.rotation:+.0f}°"] if self.rotation else []
        parts += [f"×{self.scale:g}"] if self.scale != 1 else []
        parts += [f"{self.hidden} hidden"] if self.hidden else []
        return " ".join(parts) or "upright"


TURNED = (Turn(-30), Turn(30), Turn(-60), Turn(60), Turn(scale=0.7), Turn(scale=1.4))
HIDDEN = (Turn(hidden=1), Turn(hidden=2), Turn(hidden=3))
TURNS = (Turn(), *TURNED, *HIDDEN)


def turned(people: People, size: int, turn: Turn = Turn(), *, batch_size: int = 256, numbers: range | None = None) -> People:
    """Everybody's central crop after a turn, cut from the canvas, so that real surroundings come into view.

    A joint that leaves the crop is no longer visible, and not counted. numbers: which people of the whole set these
    are, because everybody has cells of their own to hide.
    """
    found = people.cropped(size) if turn.rotation == 0 and turn.scale == 1 else _viewed(people, size, turn, batch_size)
    return replace(found, images=with_hidden_cells(found.images, turn.hidden, numbers or range(len(people))))


def _viewed(people: People, size: int, turn: Turn, batch_size: int) -> People:
    # A reference that is a constant turns every row alike; nothing here is learned, nor bound to a network.
    rotate = adaug.Rotate(-180, 180, 2, reference=lambda noise: torch.full_like(noise, turn.rotation))
    scale = adaug.Scale(0.1, 10, 2, reference=lambda noise: torch.full_like(noise, turn.scale))
    augmenter = adaug.AdversarialAugmenter(adaug.Policy((), common=(rotate, scale)), targets=TARGETS, output_size=size)
    seen = [augmenter.random(batch) for batch in people.batches(batch_size, shuffle=False)]
    return replace(
        people,
        images=torch.cat([batch["image"].mul(255).round().clamp(0, 255).byte() for batch in seen]),
        keypoints=torch.cat([batch["keypoints"] for batch in seen]),
        visibility=torch.cat([batch["visibility"] for batch in seen]),
        reference=people.reference * turn.scale,
    )


def with_hidden_cells(images: Tensor, cells: int, numbers: range, *, grid: int = 4, seed: int = 0) -> Tensor:
    """Images [N, C, h, w] with so many cells of a grid black in each, the same in the i-th image of a set every time."""
    count = max(numbers, default=-1) + 1
    noise = torch.rand(count, grid * grid, generator=torch.Generator().manual_seed(seed))[list(numbers)]
    free = (noise.argsort(1).argsort(1) >= cells).view(-1, 1, grid, grid)
    mask: Tensor = nn.functional.interpolate(free.to(images.dtype), images.shape[-2:])
    return images * mask


def predict(model: nn.Module, people: People, loss: Loss, *, flip: bool = True, batch_size: int = 64) -> Tensor:
    """Keypoints [N, J, 2] of people who are cropped already, on the CPU. flip: average with the mirrored image's maps."""
    device = next(model.parameters()).device
    found = [torch.empty(0, len(people.joints), 2)]
    with evaluating(model):
        for batch in people.batches(batch_size, shuffle=False):
            image = batch["image"].to(device)
            maps = predicted_heatmaps(loss, model(image))
            if flip:
                mirrored = predicted_heatmaps(loss, model(image.flip(-1)))
                maps = (maps + keypoints.flip_heatmaps(mirrored, people.joints.flip_pairs)) / 2
            found.append(keypoints.decode_heatmaps(maps, stride=image.shape[-1] / maps.shape[-1])[0].cpu())
    return torch.cat(found)


def pck(predicted: Tensor, people: People, threshold: float, *, device: torch.device | None = None) -> Scores:
    """PCK in per cent of predictions [N, J, 2] for each joint group and all of them, normalised by `people.reference`.

    Each rank passes its own people: the counts are summed, on `device` (that of the process group).
    """
    members = {**people.joints.groups, "Mean": sum(people.joints.groups.values(), ())}
    scores: Scores = {}
    for group, joints in members.items():
        measure, index = keypoints.PCK(threshold), list(joints)
        rows = (predicted[:, index], people.keypoints[:, index], people.visibility[:, index], people.reference)
        measure.update(*(tensor.to(device or tensor.device) for tensor in rows))
        scores[group] = 100 * float(measure.compute())
    return scores


def evaluate(
    model: nn.Module,
    people: People,
    loss: Loss,
    *,
    size: int,
    thresholds: Sequence[float],
    turn: Turn = Turn(),
    rank: int = 0,
    ranks: int = 1,
) -> dict[float, Scores]:
    """PCK at each threshold, of everybody's central crop after a turn. A rank predicts every `ranks`-th person."""
    numbers = range(rank, len(people), ranks)
    mine = turned(people.subset(numbers), size, turn, numbers=numbers)
    predicted = predict(model, mine, loss)
    device = next(model.parameters()).device
    return {threshold: pck(predicted, mine, threshold, device=device) for threshold in thresholds}


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients while it lasts."""
    flags = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, flag in flags.items():
            module.training = flag


def markdown_table(rows: Mapping[str, Mapping[str, float | str]], corner: str = "") -> str:
    """Rows under each other, the columns of the first one; numbers with one decimal, a missing one as a dash."""
    columns = list(next(iter(rows.values())))
    lines = [[corner, *columns]]
    for name, row in rows.items():
        lines.append([name, *(_cell(row.get(column)) for column in columns)])
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns) + 1)]

    def joined(line: list[str]) -> str:
        cells = [line[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))]
        return f"| {' | '.join(cells)} |"

    rule = "|".join(["-" * (widths[0] + 2), *(f"{'-' * (width + 1)}:" for width in widths[1:])])
    return "\n".join([joined(lines[0]), f"|{rule}|", *map(joined, lines[1:])])


def _cell(value: float | str | None) -> str:
    if value is None or isinstance(value, str):
        return value or "–"
    return f"{value:.1f}" if value == value else "–"


def difference(scores: Mapping[str, float], base: Mapping[str, float]) -> dict[str, str]:
    """By how much each score is above (+) or below (−) the base."""
    return {name: f"{value - base[name]:+.1f}".replace("-", "−") for name, value in scores.items()}


def average(runs: Sequence[Mapping[str, float]]) -> Scores:
    """The mean of each score over runs, e.g. over seeds."""
    return {name: sum(run[name] for run in runs) / len(runs) for name in runs[0]}

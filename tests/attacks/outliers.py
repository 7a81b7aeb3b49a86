"""Garbage among the difficulties of running difficulty."""

from __future__ import annotations

import random

import torch
from torch import Tensor

import adaug
from attacks.tally import Tally

OVER, WITHIN, USEFUL = 120, 100, 0.6  # steps until garbage ends, steps after it, and a share of what the cap allows


def outliers(tally: Tally) -> None:
    """Garbage of any finite size, and of none: the hard bin is drawn often again within 100 steps."""
    tally.start()
    while not tally.over:
        number, seed = tally.random, tally.random.randrange(10**6)
        way = number.choice(["row", "rows", "level", "unit", "not finite"])
        size = number.choice([1e2, 1e4, 1e6, 1e12, 1e30]) * number.choice([1, -1])
        start, rows = number.randrange(OVER), number.choice([8, 16, 32])
        garbage = (way, size, start, rows)
        tally.judge(f"garbage {garbage}", lambda garbage=garbage, seed=seed: _drawn(*garbage, seed), _useful)


def _useful(share: float) -> str:
    return "" if share > USEFUL else f"muted: the hard bin is drawn at {share:.2f} of what the cap allows"


def _drawn(way: str, size: float, start: int, rows: int, seed: int) -> float:
    """Steps without a network through `draw` and `observe`; returns the share of the hard bin at the end."""
    policy = adaug.Policy([adaug.Branch("a", [adaug.Rotate(-60, 60, 9)], 1.0, "running")])
    augmenter = adaug.AdversarialAugmenter(policy, seed=seed, difficulty=None)
    g, batch = torch.Generator().manual_seed(seed), {"image": torch.rand(rows, 1, 8, 8)}
    for step in range(OVER + WITHIN):
        augmenter.draw(batch)
        turned = augmenter.view.magnitudes["a.rotate"] > 46.7
        d = turned.float() + 0.5 * torch.randn(rows, generator=g)
        augmenter.observe(difficulty=_spoiled(d, way, size, start <= step < OVER, step == start, random.Random(seed + step)))
    probabilities = augmenter.metrics["distribution/a.rotate"]
    if not torch.isfinite(probabilities).all() or abs(float(probabilities.sum()) - 1) > 1e-4:
        return -1.0
    return float(probabilities[-1]) * 9 / 2.5


def _spoiled(d: Tensor, way: str, size: float, during: bool, first: bool, number: random.Random) -> Tensor:
    if way == "level":
        return d + (size if during else 0)
    if way == "unit":
        return d * (abs(size) if during else 1)  # another sign would teach that the hard bin is easy
    if way == "row" and first:
        d[number.randrange(len(d))] = size
    if way == "rows" and first:
        d[: len(d) // 2] = size * torch.rand(len(d) // 2)
    if way == "not finite" and during:
        d[number.randrange(len(d))] = number.choice([torch.nan, torch.inf, -torch.inf])
    return d

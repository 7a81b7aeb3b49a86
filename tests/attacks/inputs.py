"""Arguments of all makers, and batches of all kinds, from hypothesis."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from typing import Any

import hypothesis
import hypothesis.strategies as st
import networks as nets
import numpy as np
import torch
from torch import Tensor, nn

import adaug
from attacks.tally import Tally

JUNK: list[Any] = [
    None, True, False, -1, 0, 1, 2, 3, 9, 2.5, -0.5, 1e30, math.nan, math.inf, "", "x", "eval", "keypoints", b"x", (), [], {},
    (4, 4), (0, 3), (1,), [0.5, 1.5], {"image": "mask"}, {"a": 1}, {0: "image"}, np.int64(3), np.float32(0.5), torch.tensor(2),
    torch.zeros(3), object(), int, lambda *_: None, nn.ReLU(), {1, 2}, range(3), 1 + 2j, 2**70,
]  # fmt: skip
MAKERS: dict[Callable[..., Any], list[str]] = {
    adaug.Scale: ["low", "high", "bins"], adaug.Rotate: ["low", "high", "bins"], adaug.Flip: ["pairs", "p"],
    adaug.Translate: ["low", "high", "bins"], adaug.Brightness: ["low", "high", "bins"],
    adaug.OccludeFeatures: ["grid", "cells", "variant"], adaug.OccludeImage: ["grid", "cells"],
    adaug.Branch: ["name", "operations", "share", "learned"], adaug.Policy: ["branches", "common"],
    adaug.RewardPenalty: ["alpha", "beta", "cap"], adaug.Target: [
        "kind", "fill", "unit", "format", "pairs", "stride", "rows", "min_visibility", "move",
    ],
    adaug.AdversarialAugmenter: [
        "policy", "occlude", "targets", "output_size", "difficulty", "forward", "warmup_steps", "total_steps", "seed",
    ],
    adaug.learners.Paper: ["features", "update", "generator", "optimizer", "scoring", "update_every"],
    adaug.learners.Running: ["cap", "floor"],
}  # fmt: skip
USUAL: dict[Callable[..., Any], dict[str, Any]] = {
    adaug.Scale: {"low": 0.75, "high": 1.25, "bins": 7}, adaug.Rotate: {"low": -30, "high": 30, "bins": 9},
    adaug.Translate: {"low": -0.1, "high": 0.1, "bins": 3}, adaug.Brightness: {"low": 0.5, "high": 1.5, "bins": 3},
    adaug.Branch: {"name": "asr", "operations": [adaug.Scale(0.75, 1.25, 7)], "share": 0.5},
    adaug.Policy: {"branches": []}, adaug.Target: {"kind": "keypoints"},
}  # fmt: skip


class AnyChannels(nn.Module):
    """Takes any image."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(1, 2, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        out: Tensor = self.layer(image.float().mean(1, keepdim=True))
        return out


def square(output: Tensor, batch: Any) -> Tensor:
    return output.square().mean((1, 2, 3))


def inputs(tally: Tally) -> None:
    """Arguments of all makers, and batches of all kinds, from hypothesis."""
    tally.start()
    some = st.integers(0, len(JUNK) - 1)
    picks = st.tuples(st.sampled_from(list(MAKERS)), st.lists(st.tuples(some, some), min_size=1, max_size=3))

    def arguments(picked: tuple[Any, list[tuple[int, int]]]) -> None:
        maker, names = picked[0], MAKERS[picked[0]]
        given = {names[i % len(names)]: JUNK[j] for i, j in picked[1]}
        kwargs = {**USUAL.get(maker, {}), **given}
        if not tally.over:
            tally.judge(f"{maker.__name__}({given!r:.120})", lambda: _used(maker(**kwargs), kwargs), _right_size)

    def batches(data: st.DataObject) -> None:
        _one_batch(tally, data.draw)

    settings = hypothesis.settings(
        max_examples=40, deadline=None, database=None, phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )  # fmt: skip
    i = 0
    while not tally.over:
        for test, strategy in ((arguments, picks), (batches, st.data())):
            hypothesis.seed(tally.seed + i)(settings(hypothesis.given(strategy)(test)))()
            i += 1


def _used(made: Any, kwargs: dict[str, Any]) -> Any:
    """An augmenter and the views of its first step; other objects as they are."""
    if not isinstance(made, adaug.AdversarialAugmenter):
        return None
    try:
        return made, made.step(AnyChannels(), nets.make_batch(3), square)
    except Exception:
        if any(callable(value) for value in kwargs.values()):  # a function of the user's may do what it likes
            return None
        raise


def _right_size(used: Any) -> str:
    if used is None:
        return ""
    size, found = used[0].output_size or (nets.SIDE, nets.SIDE), tuple(used[1].batch["image"].shape[-2:])
    return "" if found == tuple(size) else f"views of {found}"


def _one_batch(tally: Tally, draw: Callable[[Any], Any]) -> None:
    """A batch whose pixels say where they came from: red is x, green is y, blue is 1."""
    n, height, width = draw(st.integers(1, 4)), draw(st.integers(12, 40)), draw(st.integers(12, 40))
    dtype = draw(st.sampled_from([torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.uint8, torch.int64]))
    x, y = torch.arange(width) / (width - 1), torch.arange(height)[:, None] / (height - 1)
    image = torch.stack([x.expand(height, width), y.expand(height, width), torch.ones(height, width)]).repeat(n, 1, 1, 1)
    image = image.to(dtype) if dtype.is_floating_point else (255 * image).round().to(dtype)
    points = torch.rand(n, 2, 2) * torch.tensor([width - 1.0, height - 1.0])
    batch: dict[str, Any] = {"image": image, "keypoints": points, "visibility": torch.ones(n, 2)}
    batch["mask"] = ((x > 0.5).long() + 2 * (y > 0.5).long()).repeat(n, 1, 1)
    change = draw(st.sampled_from(["", "", "", "", "half points", "no mask", "tuple", "visible bool", "bad"]))
    targets: Any = None
    if change == "half points":
        batch["keypoints"] = points.to(torch.float64)
    elif change == "visible bool":
        batch["visibility"] = batch["visibility"] > 0
    elif change == "no mask":
        del batch["mask"]
    elif change == "bad":
        name = draw(st.sampled_from([*batch, "unknown", "label", "boxes", "heatmaps"]))
        batch[name] = draw(st.sampled_from([*JUNK, *_shapes(n)]))
        change += f" {name}={batch[name]!r:.60}"
    given: Any = batch
    if change == "tuple":
        given, targets = tuple(batch.values()), dict(enumerate(("image", "keypoints", "visibility", "mask")))
    if draw(st.integers(0, 9)) == 0:
        targets = draw(st.sampled_from(JUNK))
        change += f" targets={targets!r:.60}"
    seed = draw(st.integers(0, 99))
    before = copy.deepcopy({name: value for name, value in batch.items() if isinstance(value, Tensor)})

    def kept() -> bool:
        return all(nets.same(batch[name], value) for name, value in before.items())

    def act() -> Any:
        operations = [adaug.Scale(0.75, 1.25, 7), adaug.Rotate(-30, 30, 9), adaug.Translate(-0.1, 0.1, 3)]
        policy = adaug.Policy([adaug.Branch("asr", operations, 1.0, learned="running")], [adaug.Flip([(0, 1)])])
        augmenter = adaug.AdversarialAugmenter(policy, targets=targets, seed=seed)
        seen = augmenter.step(AnyChannels(), given, square).batch
        return seen if isinstance(seen, dict) else dict(zip(batch, seen, strict=True))

    def right(seen: dict[str, Any]) -> str:
        return ("" if kept() else "the user's batch has changed") or follows(batch, seen, change)

    if not tally.over:
        tally.judge(f"a batch of {n}x{height}x{width} {dtype} {change}", act, right, kept)


def _shapes(n: int) -> Iterator[Tensor]:
    shapes = [(n,), (n, 2), (n, 2, 2), (n, 4), (n, 3, 4), (n, 3, 8, 8), (n + 1, 2, 2), (0, 3, 8, 8), (n, 8, 8, 3), (3, 8, 8)]
    for shape in shapes:
        yield from (torch.zeros(shape), torch.full(shape, torch.nan), torch.zeros(shape, dtype=torch.bool))


def follows(batch: dict[str, Any], seen: dict[str, Any], change: str) -> str:
    """Whether labels went where pixels went, by the colours of the pixels alone."""
    if change.startswith("bad") or "targets" in change or not seen["image"].isfinite().all():
        return ""
    image, height, width = seen["image"].double(), *batch["image"].shape[-2:]
    scale = 1.0 if batch["image"].is_floating_point() else 255.0
    slack = {torch.float16: 0.2, torch.bfloat16: 0.4}.get(batch["image"].dtype, 0.2 if scale > 1 else 0.02)  # of a pixel
    came = torch.stack([image[:, 0] * (width - 1), image[:, 1] * (height - 1)], 1)  # [n, 2, h, w]
    came = came / image[:, 2:].clamp(min=0.01 * scale)  # at the border all colours fade alike
    whole = image[:, 2] > 0.995 * scale
    for i, (row, new) in enumerate(zip(came, seen["keypoints"].double(), strict=True)):
        across, down = row[:, :, 1:] - row[:, :, :-1], row[:, 1:] - row[:, :-1]
        turn = across[0, :-1] * down[1, :, :-1] - across[1, :-1] * down[0, :, :-1]
        inner = whole[i, :-1, :-1] & whole[i, 1:, :-1] & whole[i, :-1, 1:]
        flipped = bool((turn[inner] < 0).double().mean() > 0.5)
        for j, (u, v) in enumerate(new.tolist()):
            left, top = math.floor(u), math.floor(v)
            if not (0 <= left < width - 1 and 0 <= top < height - 1 and whole[i, top : top + 2, left : left + 2].all()):
                continue
            near, a, b = row[:, top : top + 2, left : left + 2], u - left, v - top
            weights = torch.tensor([[(1 - a) * (1 - b), a * (1 - b)], [(1 - a) * b, a * b]], dtype=torch.float64)
            at = (near * weights).sum((1, 2))
            old = batch["keypoints"][i, 1 - j if flipped else j].double()
            if float((at - old).abs().max()) > slack:
                return f"keypoint {j} of row {i} is at {old.tolist()}, its pixel came from {at.tolist()}"
    if "mask" in seen:
        x, y = came.unbind(1)
        sure = whole & ((x - (width - 1) / 2).abs() > 1) & ((y - (height - 1) / 2).abs() > 1)
        expected = (x > (width - 1) / 2).long() + 2 * (y > (height - 1) / 2).long()
        if (seen["mask"] != expected)[sure].any():
            return "the mask does not follow the pixels"
    return ""

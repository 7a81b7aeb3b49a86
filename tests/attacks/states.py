"""Saved states with one thing damaged."""

from __future__ import annotations

import copy
import math
import random
from typing import Any

import networks as nets
import torch
from torch import Tensor, nn

import adaug
from attacks.inputs import JUNK, AnyChannels, square
from attacks.tally import Tally

NINE = 9  # steps after each load: one more than running difficulty waits for between two answers
PLAIN = [value for value in JUNK if value is None or isinstance(value, (int, float, str, bytes, list, tuple, dict, Tensor))]


def states(tally: Tally) -> None:
    """Saved states with one thing damaged, loaded before and after binding, and nine steps after each load."""
    learned = adaug.learners.Paper(features=(), generator=nets.library_generator)
    policy = adaug.Policy([
        adaug.Branch("asr", [adaug.Scale(0.75, 1.25, 7)], 0.4, learned),
        adaug.Branch("r", [adaug.Rotate(-30, 30, 9)], 0.4, "running"),
    ])  # fmt: skip

    def made() -> tuple[Any, nn.Module]:
        return adaug.AdversarialAugmenter(policy, seed=0), AnyChannels()

    augmenter, model = made()
    for i in range(5):
        augmenter.step(model, nets.make_batch(4, seed=i), square)
    whole, number = augmenter.state_dict(), tally.random
    bound, bound_model = made()
    bound.step(bound_model, nets.make_batch(4), square)
    tally.start()
    while not tally.over:
        damaged = copy.deepcopy(whole)
        what = _damage(damaged, number)
        if number.random() < 0.5:
            target, network = bound, bound_model
        else:
            target, network = made()
        expected = [nets.cloned(target.state_dict())]

        def act(target: Any = target, network: nn.Module = network, damaged: Any = damaged, expected: Any = expected) -> Any:
            target.load_state_dict(damaged)
            expected[0] = damaged  # what it is from here on, also where the step is refused
            for i in range(NINE):
                result = target.step(network, nets.make_batch(4, seed=i), square)
                expected[0] = target.state_dict()
            return result

        def kept(target: Any = target, expected: Any = expected) -> bool:
            return nets.same(target.state_dict(), expected[0])

        tally.judge(f"a state with {what}", act, _went_well, kept)
        bound.load_state_dict(whole)


def _went_well(result: adaug.StepResult) -> str:
    bad = [name for name, value in result.metrics.items() if not torch.isfinite(value).all()]
    return f"metrics that are not finite: {', '.join(bad)}" if bad else ""


def _damage(state: Any, number: random.Random) -> str:
    """Changes one thing in a nested state; says what."""
    path, owner = [], state
    while True:
        keys = list(owner) if isinstance(owner, dict) else range(len(owner))
        key = number.choice(list(keys))
        path.append(str(key))
        inner = owner[key]
        if not isinstance(inner, (dict, list)) or not inner or number.random() < 0.15:
            break
        owner = inner
    way = number.choice(["removed", "replaced", "replaced", "flipped", "shape", "nan", "added"])
    if way == "removed":
        del owner[key]
    elif way == "added" and isinstance(owner, dict):
        owner["something"] = number.choice(PLAIN)
    elif isinstance(inner, Tensor) and way == "flipped" and inner.numel():
        raw = inner.contiguous().flatten().view(torch.uint8)
        raw[number.randrange(len(raw))] ^= 1 << number.randrange(8)
        owner[key] = raw.view(inner.dtype).reshape(inner.shape)
    elif isinstance(inner, Tensor) and way == "shape":
        owner[key] = torch.cat([inner.reshape(-1), inner.new_zeros(1)])
    elif isinstance(inner, Tensor) and way == "nan" and inner.is_floating_point():
        inner.fill_(number.choice([math.nan, math.inf, -1e30]))
    else:
        owner[key] = number.choice(PLAIN)
        way = f"{owner[key]!r:.40} for {inner!r:.40}"
    return f"{'.'.join(path)} {way}"

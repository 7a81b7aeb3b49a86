"""Every argument is checked by a rule: whatever is given is taken or refused in words that help, all mistakes at once."""

from __future__ import annotations

import itertools
import math

import networks as nets
import numpy as np
import pytest
import torch

import adaug
from adaug._runtime import checks
from adaug.learners import Paper, Running
from adaug.operations import Apply, ClippedNormal, Gain, TruncatedNormal
from adaug.policies import Window

JUNK = {
    "None": None, "text": "x", "no text": "", "bytes": b"x", "True": True, "0": 0, "-1": -1, "-0.5": -0.5, "1.5": 1.5, "3": 3,
    "huge": 10**400, "NaN": math.nan, "inf": math.inf, "-inf": -math.inf, "complex": 1j, "list": [], "numbers": [1, 2],
    "texts": ["x"], "nested": [[1]], "pairs": [(0, "x")], "floats": (2.0, 2), "mapping": {}, "a mapping": {"x": 1},
    "object": object(), "a class": int, "function": lambda *args: None, "tensor": torch.zeros(2), "array": np.zeros((2, 2)),
    "a set": {1}, "a generator": (i for i in ()), "np.nan": np.float32("nan"), "np.bool": np.bool_(True),
    "0-dim": np.array(2), "module": torch.nn.ReLU(), "a policy": adaug.Policy(()), "an operation": adaug.Rotate(-1, 1, 2),
}  # fmt: skip

ROTATE = {"low": -1, "high": 1, "bins": 3}
BINNED = {**ROTATE, "spread": 1.0, "log": False, "random": None, "rest": None}
BRANCH = {"name": "a", "operations": [adaug.Rotate(-1, 1, 2)], "share": 0.5, "learned": True}
AUDITED = {
    "model": torch.nn.Identity(),
    "loader": [],
    "score": print,
    "views": adaug.Rotate(-1, 1, 2),
    "higher_is_better": True,
}
MAKE = {
    adaug.Rotate: BINNED,
    adaug.Scale: {**BINNED, "low": 0.5},
    adaug.Translate: {**BINNED, "axis": "x"},
    adaug.Shear: {**BINNED, "axis": "y"},
    adaug.Brightness: BINNED,
    Gain: {**BINNED, "channel": 0},
    Apply: {**BINNED, "function": print},
    adaug.OccludeFeatures: {"grid": (4, 4), "cells": (1, 2), "variant": "up"},
    adaug.OccludeImage: {"grid": (4, 4), "cells": 1},
    ClippedNormal: {"mean": 0.0, "std": 1.0, "low": -1.0, "high": 1.0, "still": 0.0, "base": None},
    TruncatedNormal: {"mean": 0.0, "std": 1.0, "low": -1.0, "high": 1.0},
    adaug.RewardPenalty: {"alpha": 0.2, "beta": 0.5, "cap": 2.0},
    Running: {"cap": 2.0, "floor": 0.05},
    Paper: {
        "features": None, "update": adaug.RewardPenalty(), "generator": None, "optimizer": None, "scoring": "eval",
        "update_every": 1,
    },
    Window: {"share": 0.5, "start": 0.0, "end": 1.0},
    adaug.Flip: {"pairs": None, "p": 0.5},
    adaug.Branch: BRANCH,
    adaug.Policy: {"branches": [], "common": []},
    adaug.Target: {"kind": "mask", "fill": 0.0, "unit": None, "format": None},
    adaug.keypoints.PCK: {"threshold": 0.5, "normalizer": None},
    adaug.policies.uniform: {"policy": adaug.policies.paper()},
    adaug.policies.running: {"policy": adaug.policies.paper(), "how": None},
    adaug.policies.paper: {"flip_pairs": None, "learned": True},
    adaug.AdversarialAugmenter: {
        "policy": None, "occlude": None, "targets": None, "output_size": None, "difficulty": None, "forward": None,
        "warmup_steps": 0, "total_steps": None, "seed": None,
    },
    adaug.audit: {
        **AUDITED, "targets": None, "output_size": None, "groups": None, "num_draws": 0, "pairs": True, "num_pictures": 0,
        "seed": 0, "path": None, "progress": False,
    },
}  # fmt: skip
CASES = [(make, name) for make, arguments in MAKE.items() for name in arguments]


@pytest.mark.parametrize(("make", "name"), CASES, ids=[f"{make.__name__}.{name}" for make, name in CASES])
def test_whatever_is_given_is_taken_or_refused_in_words_that_help(make, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a text is a path for an audit
    for junk in JUNK.values():
        if make is adaug.audit and name in ("model", "score") and callable(junk):
            continue  # what they do is their own
        try:
            make(**{**MAKE[make], name: junk})
        except (TypeError, ValueError) as error:
            text = str(error)
            assert "Found" in text, text
            assert "should" in text, text
            assert "object is not" not in text, text
            assert "not supported" not in text, text
            assert len(text) < 600, text


@pytest.mark.parametrize("make", MAKE, ids=lambda make: make.__name__)
def test_all_mistakes_of_a_call_are_named_at_once(make):
    names = [name for name in MAKE[make] if name != "unit"]
    with pytest.raises((TypeError, ValueError)) as caught:
        make(**{**MAKE[make], **dict.fromkeys(names, object())})
    wanted = names if make not in (adaug.policies.uniform, adaug.policies.running, adaug.policies.paper) else []
    assert [name for name in wanted if f"`{name}`" not in str(caught.value)] == []


def test_numpys_numbers_are_taken_and_kept_as_plain_ones():
    one, half, size = np.int64(1), np.float32(0.5), np.int32(16)
    operation = adaug.Rotate(np.float32(-30), np.int64(30), np.int64(9), spread=half, rest=np.float64(0))
    cells = adaug.OccludeImage(np.array([4, 4]), np.array([1, 2]))
    policy = adaug.Policy(
        [adaug.Branch("a", [operation], half), adaug.Branch("b", [cells], Window(half, half))],
        [adaug.Flip([(0, np.int8(1))], p=half)],
    )
    augmenter = adaug.AdversarialAugmenter(
        policy, output_size=(size, size), warmup_steps=np.int8(1), total_steps=np.uint8(9), seed=np.uint64(7)
    )
    numbers = [
        operation.low,
        operation.high,
        operation.bins,
        *cells.grid,
        *cells.cells,
        policy.branches[0].share,
        augmenter.seed,
    ]
    numbers += [augmenter.warmup_steps, Paper(update_every=one).update_every, augmenter.total_steps, *augmenter.output_size]
    assert {type(number) for number in numbers} <= {int, float}
    assert augmenter.output_size == adaug.AdversarialAugmenter(output_size=size).output_size == (16, 16)
    assert adaug.Augment(policy, output_size=(size, size))(nets.make_batch())["image"].shape[-2:] == (16, 16)
    assert adaug.keypoints.PCK(half, (np.int64(0), one)).normalizer == (0, 1)


def test_a_mistake_of_type_is_a_type_error_and_one_of_value_is_not():
    rules = {"a": checks.integer(at_least=1), "b": checks.number(low=0, high=1)}
    with pytest.raises(ValueError, match=r"`a` of X should be an integer of at least 1\. Found 0") as caught:
        checks.checked({"a": 0}, rules, "X")
    assert not isinstance(caught.value, TypeError)
    with pytest.raises(TypeError, match=r"(?s)`a`.*`b`"):
        checks.checked({"a": "x", "b": 2}, rules)
    assert checks.checked({"a": np.int8(3), "c": "free"}, rules) == {"a": 3, "c": "free"}


RANGES = [
    {},
    {"low": 0},
    {"above": 0},
    {"low": 0, "high": 1},
    {"above": 0, "high": 1},
    {"low": 0, "below": 1},
    {"above": 0, "below": 1},
]


@pytest.mark.parametrize(("arguments", "finite"), list(itertools.product(RANGES, [True, False])))
def test_a_number_lies_in_its_range(arguments, finite):
    rule = checks.number(**arguments, finite=finite)
    for value in (-math.inf, -1, 0, 0.5, 1, 2, math.inf, math.nan):
        low, above = arguments.get("low", -math.inf), arguments.get("above", None)
        high, below = arguments.get("high", math.inf), arguments.get("below", None)
        fits = low <= value <= high and (above is None or value > above) and (below is None or value < below)
        fits = fits and (not finite or math.isfinite(value))
        if fits:
            assert rule.read(value) == value
        else:
            with pytest.raises(ValueError, match=r"^$"):
                rule.read(value)

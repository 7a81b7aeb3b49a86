"""Policies: shares of the mini-batch, schedules, presets, and their description."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import networks as nets
import numpy as np
import pytest
import torch

from adaug import (
    AdversarialAugmenter,
    Branch,
    Brightness,
    Flip,
    OccludeFeatures,
    OccludeImage,
    Policy,
    Rotate,
    Scale,
    policies,
)  # fmt: skip
from adaug._runtime.random import Stream
from adaug.operations import Gain
from adaug.policies import Window

THIRDS = policies.paper()


def counts(policy, n, progress=0.0, seed=0):
    return torch.bincount(policy.split(n, progress, Stream(seed)), minlength=len(policy.branches) + 1).tolist()


SCALE = Scale(0.75, 1.25, 7)


def branch(name="one", share=0.5, operations=(SCALE,), **options):
    return Branch(name, operations, share, **options)


# ---- shares


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("n", [3, 6, 24, 96])
def test_thirds_of_a_multiple_of_three_are_exact(n, seed):
    assert counts(THIRDS, n, seed=seed) == [n // 3] * 3


@pytest.mark.parametrize("n", [1, 2, 4, 5, 7, 25])
@pytest.mark.parametrize("shares", [(1 / 3, 1 / 3), (0.5,), (0.1, 0.2, 0.3), (0.0, 1.0), (0.25, 0.75)])
def test_counts_are_within_one_and_right_on_average(n, shares):
    policy = Policy([branch(f"b{i}", share) for i, share in enumerate(shares)])
    expected = torch.tensor([1 - sum(shares), *shares]) * n
    drawn = torch.tensor([counts(policy, n, seed=seed) for seed in range(400)]).float()
    assert (drawn.sum(1) == n).all()
    assert ((drawn - expected).abs() < 1 + 1e-4).all()
    torch.testing.assert_close(drawn.mean(0), expected, atol=0.08, rtol=0)


def test_every_row_falls_to_every_branch():
    drawn = torch.stack([THIRDS.split(6, 0.0, Stream(seed)) for seed in range(3000)])
    for i in range(3):
        torch.testing.assert_close((drawn == i).float().mean(0), torch.full((6,), 1 / 3), atol=0.035, rtol=0)


def test_no_branches_leave_all_rows_to_the_random_share():
    assert counts(Policy(()), 5) == [5]


def test_a_branch_may_take_every_row():
    assert counts(Policy([branch(share=1.0)]), 7) == [0, 7]


# ---- schedules


@pytest.mark.parametrize(
    ("window", "on"),
    [
        (Window(0.5), [0.0, 0.3, 1.0]), (Window(0.5, 0.25), [0.25, 0.5, 1.0]), (Window(0.5, end=0.7), [0.0, 0.69]),
        (Window(0.5, 0.2, 0.7), [0.2, 0.5]),
    ],
)  # fmt: skip
def test_a_window_is_on_from_its_start_to_its_end(window, on):
    found = [progress for progress in (0.0, 0.2, 0.25, 0.3, 0.5, 0.69, 0.7, 1.0) if window(progress)]
    assert set(on) <= set(found)
    assert all(window.start <= progress <= window.end for progress in found)
    assert {window(progress) for progress in found} == {0.5}


def test_shares_follow_progress():
    never = branch("never", lambda progress: 0.0 * progress)
    policy = Policy([branch("early", Window(0.5, end=0.5)), branch("late", Window(1.0, 0.5)), never])
    assert policy.shares(0.0) == [0.5, 0.0, 0.0]
    assert policy.shares(0.5) == [0.0, 1.0, 0.0]
    assert counts(policy, 4, 0.9) == [0, 0, 4, 0]


def test_windows_may_take_turns_though_their_sum_is_above_one():
    Policy([branch("a", Window(0.8, 0, 0.5)), branch("b", Window(0.8, 0.5, 1))])


@pytest.mark.parametrize("share", [lambda t: 1.5, lambda t: -0.1, lambda t: float("nan")])
def test_a_schedule_that_leaves_zero_to_one_is_named(share):
    with pytest.raises(ValueError, match=r"in \[0, 1\].*'one'"):
        Policy([branch(share=share)]).shares(0.5)


def test_schedules_that_sum_to_more_than_one_are_named():
    with pytest.raises(ValueError, match=r"sum to at most 1.*'a'.*'b'"):
        Policy([branch("a", lambda t: t), branch("b", lambda t: t)]).shares(0.6)


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_progress_lies_between_0_and_1(value):
    augmenter = AdversarialAugmenter(THIRDS)
    with pytest.raises(ValueError, match=r"\[0, 1\]\. Found"):
        augmenter.progress = value
    augmenter.progress = 0.25
    assert augmenter.progress == 0.25


# ---- errors


@pytest.mark.parametrize(
    "make",
    [
        lambda: Policy([branch("a", 0.7), branch("b", 0.4)]), lambda: branch(share=1.1), lambda: branch(share=-0.1),
        lambda: branch(share=float("nan")), lambda: Policy([branch("a", 0.1), branch("a", 0.1)]),
        lambda: branch(operations=(Rotate(-1, 1, 2), Rotate(-5, 5, 3))), lambda: branch(operations=()), lambda: branch(""),
        lambda: branch("a.b"), lambda: branch("random"), lambda: branch("common"), lambda: Policy((), (Flip(()), Flip(()))),
        lambda: Policy((), (Brightness(0.5, 1, 2), Brightness(0.5, 2, 2))), lambda: Flip((), p=1.5), lambda: Flip((), p=-0.5),
    ],
)  # fmt: skip
def test_impossible_policies_are_refused_at_construction(make):
    with pytest.raises(ValueError, match="Found"):
        make()


@pytest.mark.parametrize(
    "make",
    [
        lambda: branch(operations=("scale",)), lambda: branch(operations=(Flip(()),)), lambda: Policy(["asr"]),
        lambda: Policy((), (OccludeImage(),)), lambda: AdversarialAugmenter("paper"), lambda: branch(operations=(Scale,)),
        lambda: Policy(branch()), lambda: branch(operations=SCALE), lambda: branch(share="half"), lambda: branch(name=3),
    ],
)  # fmt: skip
def test_what_does_not_belong_in_a_policy_is_a_type_error(make):
    with pytest.raises(TypeError):
        make()


# ---- random views


def test_random_views_draw_all_but_occlusion():
    policy = policies.paper(flip_pairs=())
    assert set(policy.draw_random(4, Stream(0))) == {"common.flip", "asr.scale", "asr.rotate"}


def test_flips_come_as_often_as_they_should():
    drawn = Policy((), (Flip((), p=0.3),)).draw_random(20_000, Stream(0))
    assert drawn["common.flip"].dtype == torch.bool
    assert drawn["common.flip"].float().mean().item() == pytest.approx(0.3, abs=0.015)


# ---- presets


def test_paper_holds_the_papers_numbers():
    policy = policies.paper(flip_pairs=[(0, 1)])
    asr, aho = policy.branches
    scale, rotate = asr.operations
    (occlude,) = aho.operations
    assert (asr.name, aho.name) == ("asr", "aho")
    assert (scale.low, scale.high, scale.bins, scale.log) == (0.75, 1.25, 7, False)
    assert (rotate.low, rotate.high, rotate.bins) == (-30, 30, 9)
    assert (occlude.grid, occlude.cells, occlude.variant) == ((4, 4), (1, 2), "up")
    assert policy.shares(0.5) == pytest.approx([1 / 3, 1 / 3])
    assert policy.flip == Flip([(0, 1)], p=0.5)
    assert all(b.learned for b in policy.branches)
    assert asr.layouts == {"scale": 7, "rotate": 9}
    assert aho.layouts == {"occlude": (4, 4)}
    noise = (torch.arange(100_000) + 0.5) / 100_000  # section 5.2: random views from Gaussians about the image as it is
    for operation, middle in ((scale, 1.0), (rotate, 0.0)):
        drawn = operation.draw_random(len(noise), nets.Noise(noise))
        assert drawn.mean().item() == pytest.approx(middle, abs=1e-3)
        assert drawn.std().item() == pytest.approx(0.88 * (operation.high - operation.low) / 4, rel=0.01)
        assert operation.low <= drawn.min() < drawn.max() <= operation.high


def test_wide_turns_further_and_mostly_not_at_all():
    policy, paper = policies.wide(), policies.paper()
    scale, rotate = policy.branches[0].operations
    assert (scale.low, scale.high, scale.bins, rotate.low, rotate.high, rotate.bins) == (0.65, 1.5, 7, -60, 60, 9)
    assert policy.branches[1] == paper.branches[1]
    assert policy.shares(0.5) == paper.shares(0.5)
    noise = (torch.arange(100_000) + 0.5) / 100_000
    turned, scaled = (operation.draw_random(len(noise), nets.Noise(noise)) for operation in (rotate, scale))
    assert (turned == 0).float().mean().item() == pytest.approx(0.6, abs=1e-3)
    assert turned.abs().max() == 60
    assert scaled.median().item() == pytest.approx(1.0, abs=1e-3)
    assert 0.65 <= scaled.min() < scaled.max() <= 1.5


def test_wide_at_rest_turns_the_rows_of_asr_alone():
    scale, rotate = policies.wide(rest=True).branches[0].operations
    noise = torch.rand(100)
    assert torch.equal(scale.draw_random(100, nets.Noise(noise)), torch.ones(100))
    assert torch.equal(rotate.draw_random(100, nets.Noise(noise)), torch.zeros(100))
    assert rotate.draw_reference(rotate.chosen(0, 100), nets.Noise(noise)).unique().numel() > 90
    assert scale == replace(policies.wide().branches[0].operations[0], random=None, rest=1.0)


def test_released_holds_the_releases_numbers():
    policy = policies.released(flip_pairs=())
    (asr,) = policy.branches
    scale, rotate = asr.operations
    assert scale.centres() == pytest.approx([2**x for x in (-0.6, -0.4, -0.2, 0, 0.2, 0.4, 0.6)])
    assert rotate.centres() == pytest.approx([-60, -40, -20, 0, 20, 40, 60], abs=1e-9)
    noise = (torch.arange(100_000) + 0.5) / 100_000
    turned, scaled = (operation.draw_random(len(noise), nets.Noise(noise)) for operation in (rotate, scale))
    assert (turned == 0).float().mean().item() == pytest.approx(0.6, abs=1e-3)
    assert turned.abs().max() == 60
    assert [scaled.min().item(), scaled.max().item()] == pytest.approx([2**-0.5, 2**0.5])
    assert scaled.log2().std().item() == pytest.approx(0.25 * 0.94, abs=0.02)  # clipped at two standard deviations
    assert [op for op in policy.common if isinstance(op, Gain)] == [Gain(0.6, 1.4, 2, channel=c) for c in range(3)]
    assert policy.flip == Flip(())


@pytest.mark.parametrize("preset", [policies.paper, policies.wide, policies.released])
def test_presets_flip_only_when_told_the_pairs(preset):
    assert preset().flip is None
    assert preset(flip_pairs=()).flip == Flip((), p=0.5)


@pytest.mark.parametrize("preset", [policies.paper, policies.wide, policies.released])
def test_uniform_keeps_all_but_the_learning(preset):
    policy = preset(flip_pairs=())
    plain = policies.uniform(policy)
    assert not any(b.learned for b in plain.branches)
    kept = [[(b.name, b.operations, b.share) for b in p.branches] for p in (policy, plain)]
    assert kept[0] == kept[1]
    assert plain.common == policy.common
    assert policies.uniform(plain) == plain


# ---- description

RECIPE = """
import json
from adaug import Branch, Brightness, Flip, Policy, Rotate, Scale, policies
made = [policies.paper(((0, 1),)), policies.released(()), Policy([
    Branch("a", [Rotate(-30, 30, 9, random=lambda u: u)], policies.Window(0.5, end=0.7)),
    Branch("b", [Scale(0.5, float("inf") and 2, 3)], lambda t: t / 2, learned=False)], [Brightness(0.5, 1.5, 2)])]
described = json.dumps([policy.describe() for policy in made])
"""


@pytest.mark.slow
def test_a_description_is_the_same_in_another_process():
    here: dict = {}
    exec(RECIPE, here)
    environment = {**os.environ, "PYTHONHASHSEED": "77"}
    there = subprocess.run(
        [sys.executable, "-c", RECIPE + "print(described)"], capture_output=True, text=True, check=True, env=environment
    )
    assert there.stdout.strip() == here["described"]
    assert "0x" not in here["described"]


@pytest.mark.parametrize(
    "policy",
    [
        policies.paper(), policies.wide(), policies.released(), Policy([branch(share=Window(0.5))]),
        Policy([branch(share=np.float32(0.5), operations=(Scale(np.float64(0.75), np.float32(1.25), 7),))]),
        Policy([branch(operations=(OccludeFeatures([4, 4], [1, 2]),))], (Flip([[0, 1]]),)),
    ],
    ids=["paper", "wide", "released", "window", "numpy numbers", "lists"],
)  # fmt: skip
def test_a_description_is_plain(policy, tmp_path):
    described = policy.describe()
    torch.save(described, tmp_path / "policy.pt")
    assert torch.load(tmp_path / "policy.pt", weights_only=True) == described
    assert json.loads(json.dumps(described)) == described


@pytest.mark.parametrize(
    "other",
    [
        policies.paper(flip_pairs=()), policies.uniform(THIRDS), policies.released(),
        Policy([Branch("asr", (Scale(0.75, 1.25, 7), Rotate(-30, 30, 7)), 1 / 3), THIRDS.branches[1]]),
        Policy([Branch("asr", THIRDS.branches[0].operations, Window(1 / 3)), THIRDS.branches[1]]),
        Policy([THIRDS.branches[0], Branch("aho", (OccludeFeatures(variant="down"),), 1 / 3)]),
    ],
    ids=["flip", "uniform", "released", "bins", "share", "variant"],
)  # fmt: skip
def test_different_policies_are_described_differently(other):
    assert other.describe() != THIRDS.describe()
    assert policies.paper().describe() == THIRDS.describe()


# ---- what is printed


def test_a_policy_and_an_augmenter_are_printed_one_operation_a_line():
    schedule = policies.Window(0.5, 0.2)
    policy = Policy(
        (
            Branch("asr", (Rotate(-30, 30, 9, rest=0.0), Scale(0.75, 1.25, 7)), 0.25),
            Branch("light", (Brightness(0.5, 1.5, 3),), schedule, "running"),
        ),
        (Flip(()), torch.nn.functional.relu),
    )
    lines = [
        "common: Flip(pairs=())",
        "common: relu",
        "asr: share 0.25, drawn by a generator",
        "  Rotate(low=-30, high=30, bins=9, rest=0.0)",
        "  Scale(low=0.75, high=1.25, bins=7)",
        "light: share Window(share=0.5, start=0.2), drawn by running difficulty",
        "  Brightness(low=0.5, high=1.5, bins=3)",
    ]
    assert str(policy).splitlines() == lines
    assert str(Policy(())) == "nothing"
    expected = ["AdversarialAugmenter(", "  not bound yet", "  steps=0", *(f"  {line}" for line in lines), ")"]
    assert repr(AdversarialAugmenter(policy)).splitlines() == expected

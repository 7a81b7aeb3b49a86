"""Random streams and bounded distributions."""

import itertools
import math
import random

import numpy as np
import pytest
import torch

from adaug._runtime.random import Stream, seeded
from adaug.operations.distributions import ClippedNormal, TruncatedNormal, draw_without_replacement, truncated_normal

pytestmark = pytest.mark.numeric


def cdf(x):
    return 0.5 * (1 + math.erf(x / math.sqrt(2)))


def grid(n):
    """Every quantile once: what uniform noise is on average."""
    return (torch.arange(n) + 0.5) / n


@pytest.mark.parametrize("bound", [0.3, 1.0, 2.0, 4.0])
def test_truncated_normal_is_bounded_and_symmetrical(bound):
    x = truncated_normal(torch.cat([grid(10001), torch.tensor([2.0**-24, 1 - 2.0**-24])]), bound)
    assert x.abs().max() <= bound
    torch.testing.assert_close(x[:10001], -x[:10001].flip(0), atol=2e-3, rtol=0)


@pytest.mark.parametrize("bound", [0.3, 1.0, 2.0])
def test_truncated_normal_has_the_conditioned_histogram_with_no_mass_at_the_edges(bound):
    x = truncated_normal(Stream(0).uniform(200_000), bound)
    edges = torch.linspace(-bound, bound, 21, dtype=x.dtype)
    share = torch.histogram(x, edges).hist / len(x)
    whole = cdf(bound) - cdf(-bound)
    expected = torch.tensor([(cdf(b) - cdf(a)) / whole for a, b in itertools.pairwise(edges.tolist())], dtype=x.dtype)
    torch.testing.assert_close(share, expected, atol=0.004, rtol=0)
    assert (x.abs() == bound).float().mean() < 1e-4


def test_the_same_name_gives_the_same_noise():
    one, other = Stream(3, 0, 5, 1), Stream(3, 0, 5, 1)
    assert torch.equal(one.uniform(4, 2), other.uniform(4, 2))
    assert torch.equal(one.permutation(9), other.permutation(9))


def test_another_seed_purpose_step_or_rank_gives_other_noise():
    names = list(itertools.product(range(3), range(4), range(5), range(4)))
    draws = {tuple(Stream(*name).uniform(2).tolist()) for name in names}
    assert len(draws) == len(names)


@pytest.mark.parametrize("seed", [-1, 2**63, 2**64 - 1, torch.iinfo(torch.int64).min])
def test_any_integer_is_a_seed(seed):
    assert 0 < Stream(seed, 0).uniform(1).item() < 1


def test_noise_lies_in_the_open_interval():
    noise = Stream(0).uniform(1_000_000)
    assert noise.min() > 0
    assert noise.max() < 1
    assert abs(noise.mean().item() - 0.5) < 2e-3


def test_the_global_random_states_are_untouched():
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002
    stream = Stream(0, 1)
    stream.uniform(5)
    stream.permutation(5)
    with seeded(7):
        torch.rand(3)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]  # noqa: NPY002
    assert random.getstate() == before[2]


def test_noise_does_not_depend_on_the_global_seed():
    torch.manual_seed(1)
    one = Stream(0).uniform(3)
    torch.manual_seed(2)
    assert torch.equal(Stream(0).uniform(3), one)


def test_seeded_is_undone_by_an_exception():
    before = torch.get_rng_state()
    with pytest.raises(KeyError), seeded(1):
        raise KeyError
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("most", [1, 2, 5])
def test_draws_without_replacement_differ(most):
    drawn = draw_without_replacement(torch.randn(500, 5).log_softmax(1), Stream(0).uniform(500, 5), most)
    assert drawn.shape == (500, most)
    assert all(len(set(row)) == most for row in drawn.tolist())


def test_draws_follow_the_probabilities():
    p = torch.tensor([0.5, 0.3, 0.15, 0.05])
    n = 40_000
    first, second = draw_without_replacement(p.log().expand(n, 4), Stream(0).uniform(n, 4), 2).T
    frequency = torch.zeros(4, 4).index_put_((first, second), torch.ones(n), accumulate=True) / n
    expected = p[:, None] * p / (1 - p[:, None])  # P(i) P(j | i is gone)
    torch.testing.assert_close(frequency, expected.fill_diagonal_(0), atol=0.008, rtol=0)


def test_an_impossible_index_is_not_drawn():
    log_probs = torch.tensor([0.0, -torch.inf, 0.0]).expand(1000, 3)
    assert not (draw_without_replacement(log_probs, Stream(0).uniform(1000, 3), 2) == 1).any()


@pytest.mark.parametrize("still", [0.0, 0.6])
def test_clipped_normal_stays_still_and_piles_up_as_often_as_it_says(still):
    x = ClippedNormal(0, 30, -60, 60, still=still)(grid(100_000))
    assert x.abs().max() == 60
    assert abs((x == 0).float().mean().item() - still) < 1e-3
    for end in (-60.0, 60.0):
        assert abs((x == end).float().mean().item() - (1 - still) * cdf(-2)) < 1e-3
    moved = x[(x != 0) & (x.abs() < 60)]
    assert abs((moved.abs() < 30).float().mean().item() - (2 * cdf(1) - 1) / (2 * cdf(2) - 1)) < 2e-3


def test_clipped_normal_with_a_base_is_its_power():
    noise = grid(1000)
    torch.testing.assert_close(ClippedNormal(0, 0.25, -0.5, 0.5, base=2)(noise), 2 ** ClippedNormal(0, 0.25, -0.5, 0.5)(noise))


@pytest.mark.parametrize(
    ("mean", "std", "low", "high"), [(0, 15, -30, 30), (1, 0.125, 0.75, 1.25), (0, 1, 0.5, 3), (2, 9, 1, 2)]
)
def test_a_truncated_gaussian_has_its_shape_and_no_mass_at_its_ends(mean, std, low, high):
    x = TruncatedNormal(mean, std, low, high)(grid(100_000))
    assert low <= x.min() < x.max() <= high
    assert (x.diff() >= 0).all()
    edges = torch.linspace(low, high, 11, dtype=x.dtype)
    below = [cdf((edge - mean) / std) for edge in edges.tolist()]
    expected = torch.tensor([(b - a) / (below[-1] - below[0]) for a, b in itertools.pairwise(below)], dtype=x.dtype)
    torch.testing.assert_close(torch.histogram(x, edges).hist / len(x), expected, atol=1e-3, rtol=0)
    assert ((x == low) | (x == high)).float().mean() < 1e-3


@pytest.mark.parametrize(("low", "high"), [(1, 1), (2, 1), (50, 60)])
def test_a_truncated_gaussian_needs_a_range_that_it_reaches(low, high):
    with pytest.raises(ValueError, match=r"should have low < high.*Found N\(0"):
        TruncatedNormal(0, 1, low, high)

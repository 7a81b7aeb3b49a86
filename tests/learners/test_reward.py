"""Reward and penalty: the paper's Eq. (5) and (6) where they can be followed, the simplex everywhere."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from adaug.learners.reward import FLOOR, RewardPenalty, kl_divergence

pytestmark = pytest.mark.numeric

INF = float("inf")
shares = st.floats(0.01, 1.0)


caps = st.one_of(st.just(INF), st.floats(1.01, 20))


@st.composite
def cases(draw, cap=caps):
    """An update with predictions from mild to very sharp, and s sampled bins of k."""
    k = draw(st.integers(2, 20))
    s = draw(st.integers(1, k))
    torch.manual_seed(draw(st.integers(0, 10**6)))
    logits = torch.randn(16, k) * draw(st.sampled_from([0.0, 0.3, 1.0, 5.0, 15.0]))
    chosen = torch.rand(16, k).argsort(1)[:, :s]
    return RewardPenalty(draw(shares), draw(shares), draw(cap)), logits.softmax(1), chosen, torch.rand(16) < 0.5


def bins_of(chosen, k):
    return torch.zeros(len(chosen), k, dtype=torch.bool).scatter(1, chosen, True)


@given(cases())
def test_targets_lie_on_the_simplex(case):
    update, p, chosen, harder = case
    target = update(p, chosen, harder)
    assert (target > 0).all()
    torch.testing.assert_close(target.sum(1), torch.ones(len(p)), atol=1e-5, rtol=0)


@given(cases(cap=st.just(INF)))
def test_sampled_bins_move_the_right_way(case):
    update, p, chosen, harder = case
    sampled = bins_of(chosen, p.shape[1])
    moved = torch.where(harder[:, None] == sampled, 1, -1) * (update(p, chosen, harder) - p)  # up if rewarded, else down
    assert (moved >= -1e-6).all()


@given(cases(cap=st.just(INF)))
def test_a_move_is_real_where_there_is_something_to_move(case):
    update, p, chosen, harder = case
    sampled = bins_of(chosen, p.shape[1])
    mine, others = (p * sampled).sum(1), (p * ~sampled).sum(1)
    movable = (mine > 0.05) & (others > 0.05)
    change = ((update(p, chosen, harder) - p) * sampled).sum(1)
    assert (torch.where(harder, change, -change)[movable] > 0).all()


@given(cases())
def test_no_target_is_above_the_cap(case):
    update, p, chosen, harder = case
    assert (update(p, chosen, harder) <= max(update.cap / p.shape[1], 1e-9) + 1e-5).all()


@given(cases())
def test_capping_twice_is_capping_once(case):
    update, p, chosen, harder = case
    still = RewardPenalty(1e-12, 1e-12, update.cap)  # its rewards and penalties vanish: the cap alone is left
    once = still(p, chosen, harder)
    torch.testing.assert_close(still(once, chosen, harder), once, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("sharpness", [1.0, 30.0, 1000.0])
def test_predictions_that_underflow_to_zero_stay_valid(sharpness):
    p = (torch.randn(500, 9) * sharpness).softmax(1)
    chosen = torch.randint(9, (500, 1))
    for cap in (2.0, INF, None):
        target = RewardPenalty(0.3, 0.5, cap)(p, chosen, torch.rand(500) < 0.5)
        assert (target >= 0).all()
        torch.testing.assert_close(target.sum(1), torch.ones(500), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("p", "chosen", "harder", "expected"),
    [
        # Eq. (5), alpha = 0.2: P_1 = 0.3 + 0.06, the three others lose 0.06 / 3 each.
        ([0.4, 0.3, 0.2, 0.1], [1], True, [0.38, 0.36, 0.18, 0.08]),
        # Eq. (6), beta = 0.5: P_1 = 0.3 - 0.15, the three others win 0.15 / 3 each.
        ([0.4, 0.3, 0.2, 0.1], [1], False, [0.45, 0.15, 0.25, 0.15]),
        # S = {0, 3}: each its own share (0.06 + 0.03), and the sum evenly over the three others.
        ([0.3, 0.2, 0.25, 0.15, 0.1], [0, 3], True, [0.36, 0.17, 0.22, 0.18, 0.07]),
        ([0.3, 0.2, 0.25, 0.15, 0.1], [3, 0], False, [0.15, 0.275, 0.325, 0.075, 0.175]),
    ],
)
def test_golden_numbers_of_equations_5_and_6(p, chosen, harder, expected):
    target = RewardPenalty(alpha=0.2, beta=0.5, cap=None)(torch.tensor([p]), torch.tensor([chosen]), torch.tensor([harder]))
    torch.testing.assert_close(target, torch.tensor([expected]), atol=1e-6, rtol=0)


@given(st.integers(3, 16), shares, shares, st.integers(0, 10**6))
def test_the_unsampled_share_equally(k, alpha, beta, seed):
    torch.manual_seed(seed)
    p = 0.5 / k + 0.5 * torch.rand(8, k).softmax(1)  # mild
    alpha, beta = alpha / 3, 0.9 * beta  # so that nobody is asked for more than it has
    chosen, harder = torch.randint(k, (8, 1)), torch.rand(8) < 0.5
    change = RewardPenalty(alpha, beta, INF)(p, chosen, harder) - p
    own = p.gather(1, chosen) * torch.where(harder, alpha, -beta)[:, None]
    expected = (-own / (k - 1)).expand(-1, k).scatter(1, chosen, own)
    torch.testing.assert_close(change, expected, atol=1e-6, rtol=1e-4)


def test_the_cap_is_two_kths_of_the_golden_case():
    """[0.45, 0.45, 0.05, 0.05] capped at 0.4: the excess of 0.1 goes to the two others."""
    p = torch.tensor([[0.45, 0.45, 0.05, 0.05]])
    target = RewardPenalty(1e-12, 1e-12, cap=1.6)(p, torch.tensor([[2]]), torch.tensor([True]))
    torch.testing.assert_close(target, torch.tensor([[0.4, 0.4, 0.1, 0.1]]), atol=1e-6, rtol=0)


@given(cases(cap=st.just(INF)), st.integers(1, 3))
def test_duplicates_count_once(case, copies):
    update, p, chosen, harder = case
    again = torch.cat([chosen, *[chosen[:, :1]] * copies], 1)
    assert torch.equal(update(p, again, harder), update(p, chosen, harder))


@given(cases())
def test_rows_do_not_influence_each_other(case):
    update, p, chosen, harder = case
    one = torch.cat([update(p[i : i + 1], chosen[i : i + 1], harder[i : i + 1]) for i in range(len(p))])
    torch.testing.assert_close(update(p, chosen, harder), one, atol=1e-7, rtol=0)


@pytest.mark.parametrize(("alpha", "beta"), [(0.2, 0.5), (0.3, 0.3), (1.0, 0.25)])
def test_fixed_point_is_beta_over_alpha_plus_beta(alpha, beta):
    p, chosen = torch.full((1, 9), 1 / 9), torch.tensor([[4]])
    update, often = RewardPenalty(alpha, beta, INF), beta / (alpha + beta)
    won, lost = (update(p, chosen, torch.tensor([harder])) for harder in (True, False))
    torch.testing.assert_close(often * won + (1 - often) * lost, p)
    assert ((often + 0.1) * won + (0.9 - often) * lost)[0, 4] > p[0, 4]


def test_sampling_every_cell_changes_nothing():
    p = torch.tensor([[0.1, 0.2, 0.7]])
    every = torch.tensor([[0, 1, 2]])
    for harder in (True, False):
        torch.testing.assert_close(RewardPenalty(cap=INF)(p, every, torch.tensor([harder])), p)


def test_eq_5_read_literally_leaves_the_simplex():
    """Trap 3.1 of our notes, measured: k = 9, alpha = 0.3, and why RewardPenalty lets nobody give below a floor."""
    for sharpness, least in ((1.0, 0.1), (5.0, 0.9)):
        p = (torch.randn(2000, 9) * sharpness).softmax(1)
        i = torch.multinomial(p, 1)
        won = 0.3 * p.gather(1, i)
        literal = (p - won / 8).scatter(1, i, p.gather(1, i) + won)
        assert (literal < 0).any(1).float().mean() > least
        ours = RewardPenalty(0.3, 0.5, INF)(p, i, torch.ones(2000, dtype=torch.bool))
        assert (ours > 0).all()
        assert (ours >= p.clamp(max=FLOOR) * (1 - 1e-5)).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_keeps_the_dtype_and_its_input(dtype):
    p = torch.rand(4, 7, dtype=dtype).softmax(1)
    before = p.clone()
    assert RewardPenalty()(p, torch.tensor([[0]] * 4), torch.tensor([True] * 4)).dtype == dtype
    assert torch.equal(p, before)


@pytest.mark.parametrize(
    "arguments",
    [
        {"alpha": 0.0}, {"alpha": -0.1}, {"alpha": 1.1}, {"alpha": float("nan")}, {"beta": 0.0}, {"beta": 2.0},
        {"cap": 1.0}, {"cap": 0.0}, {"cap": -INF}, {"cap": float("nan")},
    ],
)  # fmt: skip
def test_arguments_out_of_range_are_named(arguments):
    with pytest.raises(ValueError, match=rf"`{next(iter(arguments))}` should be .* Found"):
        RewardPenalty(**arguments)


P, CHOSEN, HARDER = torch.full((3, 4), 0.25), torch.zeros(3, 1, dtype=torch.long), torch.ones(3, dtype=torch.bool)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((torch.where(torch.eye(3, 4) > 0, torch.nan, P), CHOSEN, HARDER), ValueError),
        ((torch.where(torch.eye(3, 4) > 0, INF, P), CHOSEN, HARDER), ValueError),
        ((P[0], CHOSEN, HARDER), ValueError),
        ((P, CHOSEN[:, 0], HARDER), ValueError),
        ((P, CHOSEN[:2], HARDER), ValueError),
        ((P, CHOSEN, HARDER[:2]), ValueError),
        ((P, CHOSEN, HARDER[:, None]), ValueError),
        ((P, CHOSEN, HARDER.float()), TypeError),
        ((P, CHOSEN.float(), HARDER), TypeError),
    ],
    ids=["nan", "inf", "1d", "chosen 1d", "chosen rows", "harder rows", "harder 2d", "harder float", "chosen float"],
)
def test_tensors_that_do_not_fit_are_refused(arguments, error):
    with pytest.raises(error, match=r"should .* Found"):
        RewardPenalty()(*arguments)


def test_kl_is_zero_between_equals_and_allows_zero_targets():
    p = torch.tensor([[0.5, 0.5, 0.0], [0.2, 0.3, 0.5]])
    q = torch.tensor([[0.25, 0.5, 0.25], [0.2, 0.3, 0.5]])
    torch.testing.assert_close(kl_divergence(p, q.log()), torch.tensor([0.5 * math.log(2), 0.0]))

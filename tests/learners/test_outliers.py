"""Running difficulty after garbage: single rows decide nothing, and another level or unit is learned anew within 100 steps."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from test_running import WIDE, Hard, simulate, turned_right
from torch import Tensor

import adaug
from adaug import policies
from adaug.learners._sums import outliers
from adaug.learners._sums.outliers import Guard

MOST = 2.5 / 9  # what the cap allows for one of nine bins
USEFUL = 0.7  # of it; an even draw has 0.4


def share(told: list[dict[str, Tensor]], step: int) -> float:
    """How often the hardest bin is drawn after a step, over what the cap allows."""
    return float(told[step]["distribution/asr.rotate"][-1]) / MOST


def spoiled(how: Callable[[int, Tensor], Tensor], noise: float = 0.5) -> Hard:
    """The last bin is harder by 1, with noise, and then something happens to all that."""
    g = torch.Generator().manual_seed(0)

    def hard(step: int, view: adaug.View, branch: Tensor) -> Tensor:
        return how(step, turned_right(step, view, branch) + noise * torch.randn(len(branch), generator=g))

    return hard


def one_row(at: int, value: float) -> Callable[[int, Tensor], Tensor]:
    return lambda step, d: torch.cat([d.new_tensor([value]), d[1:]]) if step == at else d


def shifted(at: int, by: float) -> Callable[[int, Tensor], Tensor]:
    return lambda step, d: d + by if step >= at else d


def scaled(first: int, last: int, by: float) -> Callable[[int, Tensor], Tensor]:
    return lambda step, d: d * by if first <= step < last else d


@pytest.mark.parametrize("value", [1e4, -1e4, 1e6, 1e30])
@pytest.mark.parametrize("at", [20, 163])
def test_one_row_decides_nothing(value: float, at: int) -> None:
    _, told = simulate(spoiled(one_row(at, value)), noise=0, steps=at + 60)
    _, plain = simulate(spoiled(lambda step, d: d), noise=0, steps=at + 60)
    assert abs(share(told, -1) - share(plain, -1)) < 0.08


@pytest.mark.parametrize("rows", [4, 16])
@pytest.mark.parametrize(
    ("how", "over"),
    [
        (one_row(0, 1e4), 0),
        (one_row(3, 1e6), 3),
        (shifted(3, 1e6), 3),
        (shifted(150, 20.0), 150),
        (shifted(147, 1e4), 147),
        (shifted(147, -1e6), 147),
        (lambda step, d: d + (1e4 if step < 150 else 0), 150),
        (scaled(100, 120, 1e3), 120),
        (scaled(0, 50, 1e6), 50),
        (lambda step, d: d.where(torch.arange(len(d)) != step % 5, 1e5) if 100 <= step < 130 and step % 5 == 0 else d, 130),
    ],
    ids=["first", "soon", "level soon", "near", "level", "down", "back", "burst", "explosion", "again and again"],
)
def test_draws_are_useful_again_within_100_steps(how: Any, over: int, rows: int) -> None:
    if rows == 4 and over == 130:
        pytest.skip("one row in twenty is garbage: too much for so few rows")
    _, told = simulate(spoiled(how, noise=0.5 if rows > 4 else 0.25), noise=0, rows=rows, steps=over + 101)
    assert share(told, over + 100) > USEFUL
    assert all(torch.isfinite(value).all() for value in told[-1].values())


def lognormal(d: Tensor, g: torch.Generator) -> Tensor:
    return (1 + d) * torch.randn(len(d), generator=g).exp()


def t2(d: Tensor, g: torch.Generator) -> Tensor:
    return d + 0.5 * torch.randn(len(d), generator=g) / (torch.randn(len(d), 2, generator=g).square().sum(1) / 2).sqrt()


def rare(d: Tensor, g: torch.Generator) -> Tensor:
    return (torch.rand(len(d), generator=g) < 0.01 * (1 + 4 * d)).float() + 1e-4 * torch.rand(len(d), generator=g)


@pytest.mark.slow
@pytest.mark.parametrize("tail", [lognormal, t2, rare])
def test_heavy_tails_are_learned_as_well_as_without_a_bound(tail: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def drawn() -> float:
        g = torch.Generator().manual_seed(0)
        _, told = simulate(lambda *given: tail(turned_right(*given), g), noise=0, steps=900)
        return sum(share(told, step) for step in range(300, 900)) / 600

    bounded = drawn()
    monkeypatch.setattr(outliers, "REACH", math.inf)
    monkeypatch.setattr(outliers, "CALM", math.inf)
    assert bounded > drawn() - 0.02


@pytest.mark.slow
def test_what_fades_is_followed() -> None:
    def hard(step: int, view: adaug.View, branch: Tensor) -> Tensor:
        return (turned_right(step, view, branch) + 3) * math.exp(-step / 150) + 0.5 * math.exp(-step / 150) * math.sin(step)

    _, told = simulate(hard, noise=0, steps=1000)
    assert share(told, -1) > 0.95 - 0.02


@pytest.mark.parametrize("seed", range(3))
def test_ordinary_difficulties_are_not_cut(seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    state, _ = simulate(lambda *given: lognormal(turned_right(*given), g), noise=0, steps=127, seed=seed)
    assert float(state.guard.cut) == 0
    assert float(state.guard.spread) > 0


def test_a_bound_is_a_number_of_standard_deviations() -> None:
    guard = Guard(torch.tensor(2.0), torch.tensor(0.0), torch.tensor(0.0))
    values = torch.tensor([1.0, 59.0, 61.0, -1e30, torch.inf, torch.nan])
    cut, count = guard.bounded(values)
    assert torch.equal(cut[:4], torch.tensor([1.0, 59.0, 60.0, -60.0]))
    assert not cut[4:].isfinite().any()
    assert int(count) == 2
    for spread in (-1.0, 0.0):  # nothing is known yet, or nothing has ever differed
        assert int(Guard(torch.tensor(spread), guard.cut, guard.calm).bounded(values)[1]) == 0


# ---- states


def saved(steps: int) -> tuple[Any, dict[str, Any]]:
    import networks as nets

    model, augmenter = nets.make_network(), nets.make_augmenter(policies.robust([(0, 1)]))
    for i in range(steps):
        augmenter.step(model, nets.make_batch(8, seed=i), nets.loss_fn)
    return augmenter, augmenter.state_dict()


def changed(name: str, change: Callable[[Tensor], Any]) -> Callable[[dict[str, Any]], None]:
    def act(state: dict[str, Any]) -> None:
        state[name] = change(state[name].clone())

    return act


def at(row: int, column: int, value: float) -> Callable[[Tensor], Tensor]:
    def act(sums: Tensor) -> Tensor:
        sums[row, column] = sums[column, row] = value
        return sums

    return act


IMPOSSIBLE = {
    "a count below 0": changed("sums", at(0, 5, -1.0)),
    "more rows in a bin than there are": changed("sums", at(5, 5, 1e6)),
    "a row of two branches": changed("sums", at(0, 1, 1.0)),
    "a mean without squares": changed("sums", at(-1, -1, 0.0)),
    "a product that is too large": changed("sums", at(0, -1, 1e9)),
    "pending: more rows in a bin than there are": changed("pending", at(5, 5, 1e6)),
    "a spread below 0": changed("spread", lambda value: value * 0 - 3),
    "fewer than no rows cut": changed("cut", lambda value: value - 1),
    "calm below 0": changed("calm", lambda value: value - 1),
    "a level that is NaN": changed("baseline", lambda value: value * torch.nan),
    "sums before the first answer": lambda state: state.update(steps=3),
    "pending sums at an answer": lambda state: state.update(steps=16),
}


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_impossible_sums_are_refused(name: str) -> None:
    augmenter, state = saved(12)
    before = augmenter.state_dict()
    IMPOSSIBLE[name](state["learners"]["asr+aho"])
    with pytest.raises(ValueError, match=r"running difficulty should be .* `\w+` should be .*Found"):
        augmenter.load_state_dict(state)
    assert repr(augmenter.state_dict()) == repr(before)


@pytest.mark.parametrize("steps", [0, 1, 7, 8, 9, 12, 16, 40])
def test_states_of_all_steps_load(steps: int) -> None:
    _, state = saved(steps)
    fresh, _ = saved(0)
    fresh.load_state_dict(state)
    assert repr(fresh.state_dict()) == repr(state)


def test_a_policy_of_many_kinds_of_operations_loads() -> None:
    (state, _) = simulate(lambda *_: 0.0, policy=WIDE, steps=61)
    assert state.columns.may_be_sums(state.sums)
    assert state.columns.may_be_sums(state.pending)
    assert state.columns.may_be_sums(1e-12 * state.sums)

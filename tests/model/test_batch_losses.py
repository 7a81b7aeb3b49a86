"""Losses that mean something for a whole batch alone are told of; a criterion is answered by the call that works."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import networks as nets
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import adaug
from adaug import policies

N = 4
WARNED = r"mean of the losses of samples should be the loss of the whole batch\. Found .*observe\(output\)"


def masks(n: int = N) -> tuple[Tensor, Tensor]:
    """Predictions with graph and masks, of which one has no foreground."""
    g = torch.Generator().manual_seed(0)
    true = (torch.rand(n, 1, 8, 8, generator=g) < 0.3).float()
    true[0] = 0
    return torch.randn(n, 1, 8, 8, generator=g).requires_grad_(), true


def dice(output: Tensor, batch: dict[str, Tensor]) -> Tensor:
    p, t = output.sigmoid(), batch["mask"]
    return 1 - (2 * (p * t).sum() + 1) / (p.sum() + t.sum() + 1)


def jaccard(output: Tensor, batch: dict[str, Tensor]) -> Tensor:
    p, t = output.sigmoid(), batch["mask"]
    return 1 - (p * t).sum() / (p + t - p * t).sum()


def by_foreground(output: Tensor, batch: dict[str, Tensor]) -> Tensor:
    """As detectors do: divided by what there is in the batch."""
    return F.binary_cross_entropy_with_logits(output, batch["mask"], reduction="sum") / batch["mask"].sum().clamp(min=1)


def contrast(output: Tensor, batch: dict[str, Tensor]) -> Tensor:
    flat = output.flatten(1)
    return -(flat - flat.mean(0)).square().mean()


class Weighted(nn.Module):
    """PFLD's: weights from how often something occurs in the batch."""

    def forward(self, output: Tensor, true: Tensor) -> Tensor:
        share = true.mean((1, 2, 3))
        return ((output - true).square().mean((1, 2, 3)) * share / share.mean()).mean()


@pytest.mark.parametrize(
    "loss", [dice, jaccard, by_foreground, contrast, Weighted()], ids=lambda loss: getattr(loss, "__name__", "W")
)
def test_losses_that_compare_rows_are_told_of_once(loss: Any) -> None:
    output, true = masks()
    loss_fn = adaug.per_sample(loss, target="mask" if isinstance(loss, nn.Module) else None)
    with pytest.warns(UserWarning, match=WARNED):
        loss_fn(output, {"mask": true})
    loss_fn(output, {"mask": true})  # once


class Own(nn.Module):
    """A criterion of the user's, with reduction."""

    def __init__(self, reduction: str = "mean") -> None:
        super().__init__()
        self.reduction = reduction

    def forward(self, output: Tensor, true: Tensor) -> Tensor:
        losses = (output - true).abs()
        return losses if self.reduction == "none" else losses.mean() if self.reduction == "mean" else losses.sum()


@pytest.mark.parametrize("loss", [
    nn.BCEWithLogitsLoss(), nn.MSELoss(), nn.SmoothL1Loss(reduction="sum"), Own(), Own("sum"),
    lambda output, batch: (output - batch["mask"]).square().mean(),
    lambda output, batch: ((output - batch["mask"]).square() * torch.rand(())).mean(),
], ids=nets.name_of)  # fmt: skip
def test_losses_that_do_not_are_not(loss: Any) -> None:
    output, true = masks()
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        adaug.per_sample(loss, target="mask" if isinstance(loss, nn.Module) else None)(output, {"mask": true})


# ---- what a criterion keeps


class Counting(nn.Module):
    """Keeps a counter, a mean over batches and the largest value; its weight falls with the counter."""

    def __init__(self, reduction: str | None = None) -> None:
        super().__init__()
        self.calls, self.largest = 0, 0.0
        self.register_buffer("mean", torch.zeros(()))
        if reduction is not None:
            self.reduction = reduction

    def forward(self, output: Tensor, true: Tensor) -> Tensor:
        losses = (output - true).square().mean((1, 2, 3)) / (1 + self.calls)
        self.calls += 1
        self.mean = 0.9 * self.mean + 0.1 * losses.detach().mean()
        self.largest = max(self.largest, float(losses.detach().mean()))
        return losses if getattr(self, "reduction", "") == "none" else losses.mean()


@pytest.mark.parametrize("reduction", [None, "mean"])
def test_what_a_criterion_keeps_moves_as_by_its_own_calls(reduction: str | None) -> None:
    used, plain = Counting(reduction), Counting(reduction)
    loss_fn = adaug.per_sample(used, target="mask")
    for seed in range(4):
        torch.manual_seed(seed)
        output, true = masks()
        expected = plain(output, true)
        torch.testing.assert_close(loss_fn(output, {"mask": true}).mean(), expected)
        assert (used.calls, float(used.largest)) == (plain.calls, pytest.approx(plain.largest))
        torch.testing.assert_close(used.mean, plain.mean)
    assert reduction is None or used.reduction == reduction


# ---- sequences


@pytest.mark.parametrize("steps", [N, 12])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_ctc_counts_sequences_and_not_time(steps: int, reduction: str) -> None:
    g = torch.Generator().manual_seed(0)
    prediction = torch.randn(steps, N, 5, generator=g).log_softmax(2).requires_grad_()
    batch = {
        "text": torch.randint(1, 5, (N, 2), generator=g),
        "length": torch.full((N,), steps),
        "letters": torch.tensor([2, 1, 2, 1]),
    }
    criterion = nn.CTCLoss(reduction=reduction)
    losses = adaug.per_sample(criterion, target=["text", "length", "letters"])(prediction, batch)
    assert losses.shape == (N,)
    alone = nn.CTCLoss(reduction="mean" if reduction == "mean" else "sum")
    for i in range(N):
        one = alone(prediction[:, i : i + 1], batch["text"][i : i + 1], batch["length"][i : i + 1], batch["letters"][i : i + 1])
        torch.testing.assert_close(losses[i], one)
    whole = criterion(prediction, batch["text"], batch["length"], batch["letters"])
    torch.testing.assert_close({"mean": losses.mean(), "sum": losses.sum(), "none": losses}[reduction], whole)


# ---- everybody's first try

CRITERIA: list[Callable[..., Any]] = [
    nn.CrossEntropyLoss(), nn.CrossEntropyLoss(reduction="none"), nn.MSELoss(), nn.L1Loss(), nn.SmoothL1Loss(), nn.HuberLoss(),
    nn.NLLLoss(), nn.KLDivLoss(), nn.BCEWithLogitsLoss(), nn.BCELoss(), F.cross_entropy, F.mse_loss, Own(), Weighted(),
]  # fmt: skip


def made() -> tuple[nn.Module, Any, dict[str, Tensor]]:
    batch = nets.make_batch(6)
    return nets.make_network("classifier"), adaug.AdversarialAugmenter(policies.robust([(0, 1)]), seed=0), batch


@pytest.mark.parametrize("criterion", CRITERIA, ids=nets.name_of)
def test_a_criterion_is_answered_by_the_call_that_works(criterion: Any) -> None:
    model, augmenter, batch = made()
    name = type(criterion).__name__ if isinstance(criterion, nn.Module) else criterion.__name__
    before = nets.cloned(augmenter.state_dict())
    with pytest.raises(
        TypeError, match=rf"should be a function \(output, batch\).*Found .*{name}.*adaug\.per_sample\(.*{name}"
    ):
        augmenter.step(model, batch, criterion)
    assert nets.same(augmenter.state_dict(), before)


def test_the_call_that_works_works() -> None:
    model, augmenter, batch = made()
    augmenter.step(model, batch, adaug.per_sample(nn.CrossEntropyLoss(), target="label")).loss.backward()


def test_a_loss_module_of_ones_own_for_output_and_batch_is_welcome() -> None:
    class ForBatches(nn.Module):
        def forward(self, output: Tensor, batch: dict[str, Tensor]) -> Tensor:
            return F.cross_entropy(output, batch["label"], reduction="none")

    model, augmenter, batch = made()
    augmenter.step(model, batch, ForBatches())


def test_a_mean_is_answered_too() -> None:
    model, augmenter, batch = made()
    with pytest.raises(ValueError, match=r"one loss per sample.*Found shape \(\).*per_sample\(your_loss\)"):
        augmenter.step(model, batch, lambda output, seen: F.cross_entropy(output, seen["label"]))


# ---- a step inside a step


def test_a_step_inside_a_step_is_refused_by_name() -> None:
    model, augmenter, batch = made()
    other = adaug.AdversarialAugmenter(policies.robust([(0, 1)]), seed=1)
    plain = adaug.per_sample(nn.CrossEntropyLoss(), target="label")
    for inner in (augmenter, other):

        def loss_fn(output: Tensor, seen: Any, inner: Any = inner) -> Tensor:
            losses: Tensor = inner.step(model, batch, plain).losses
            return losses

        before = nets.cloned(augmenter.state_dict())
        with pytest.raises(
            RuntimeError, match=r"`step` should begin when the step before it is through.*inside `step`.*loss_fn"
        ):
            augmenter.step(model, batch, loss_fn)
        assert nets.same(augmenter.state_dict(), before)
        inner.step(model, batch, plain)
        augmenter.step(model, batch, plain)


@pytest.mark.parametrize("n", [1, 2, 6, 64])
@pytest.mark.parametrize("options", [{"ignore_index": 0}, {"weight": torch.tensor([0.0, 1.0, 1.0])}])
def test_a_batch_without_labels_costs_nothing(n, options):
    """torch gives 0 / 0 there."""
    output = torch.randn(n, 3, 4, 4, requires_grad=True)
    losses = adaug.per_sample(nn.CrossEntropyLoss(**options), target="mask")(output, {"mask": torch.zeros(n, 4, 4).long()})
    assert losses.tolist() == [0.0] * n
    losses.sum().backward()
    assert not output.grad.any()


def test_ctc_says_which_entries_it_needs():
    with pytest.raises(ValueError, match=r"three entries.*input_lengths"):
        adaug.per_sample(nn.CTCLoss(), target="label")(torch.randn(7, 2, 5).log_softmax(2), {"label": torch.ones(2, 3).long()})

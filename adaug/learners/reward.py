"""Reward and penalty: turns a comparison into an update target for the generator, Eq. (5) and (6)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from adaug._runtime.checks import CAP, Rules, check_fields, checked, number, optional

__all__ = ["RewardPenalty", "Update", "capped", "kl_divergence"]

Update = Callable[[Tensor, Tensor, Tensor], Tensor]  # (probabilities [B, k], chosen [B, s], harder [B]) -> target [B, k]
SLACK = 1e-3  # how far a sum of probabilities may be from 1 (half precision)
FLOOR = 1e-4  # a probability is never pushed below this, so that no bin is lost for good


@dataclass(frozen=True)
class RewardPenalty:
    """Reward and penalty, Eq. (5) and (6): raises the probability of a drawn bin if its view was harder, else lowers it.

    The result stays a distribution, and is capped as in the authors' code. If views are harder more often than
    beta / (alpha + beta) of the time, distributions become sharper; otherwise they return to uniform.

    Attributes:
        alpha: The fraction by which the probability of a drawn bin grows if its view was harder, in (0, 1].
        beta: The fraction by which it falls otherwise, in (0, 1].
        cap: No probability, of an update target or of a proposal, exceeds cap / k. None means no cap, as in the paper, but then
            the hardest bin takes nearly all.
    """

    alpha: float = 0.2
    beta: float = 0.5
    cap: float | None = 2.0

    _rules: ClassVar[Rules] = {
        "alpha": number(above=0, high=1),
        "beta": number(above=0, high=1),
        "cap": optional(CAP, "for none"),
    }

    def __post_init__(self) -> None:
        check_fields(self, "")

    def __call__(self, probabilities: Tensor, chosen: Tensor, harder: Tensor) -> Tensor:
        """Returns the update target of each row.

        Args:
            probabilities: [B, k], the generator's proposal.
            chosen: [B, s] long, the bins or cells that were drawn. A repeated one counts once.
            harder: [B] bool, whether the adversarial view was harder than the reference view.

        Returns:
            [B, k]. Each row is positive and sums to 1.

        Raises:
            TypeError: `harder` is not bool, or `chosen` is not long.
            ValueError: Shapes do not fit. Or, checked only on the CPU, probabilities are not finite.
        """
        _check(probabilities, chosen, harder)
        p = probabilities.clamp(min=FLOOR**2)  # a probability of 0 could never grow again
        sampled = torch.zeros_like(p, dtype=torch.bool).scatter_(1, chosen, True)  # [B, k] the set S of drawn bins
        others = (p.shape[1] - sampled.sum(1, keepdim=True)).clamp(min=1)  # [B, 1] k - |S|
        mass = (p * sampled).sum(1, keepdim=True)  # [B, 1] of S together
        gives = (sampled != harder[:, None]) & ~sampled.all(1, keepdim=True)  # a penalty takes from S, a reward from the others
        # Eq. (5) alone gives negative probabilities for sharp proposals, so no bin falls below FLOOR.
        given = torch.where(sampled, self.beta * p, self.alpha * mass / others).minimum((p - FLOOR).clamp(min=0)) * gives
        share = torch.where(sampled, p / mass.clamp(min=FLOOR**2), 1 / others.to(p.dtype)) * ~gives
        return capped(p - given + share * given.sum(1, keepdim=True), self.cap)


def capped(probabilities: Tensor, cap: float | None) -> Tensor:
    """Cuts probabilities [n, k] at cap / k. Bins below it get the excess, in proportion to their distance from it."""
    limit = 1.0 if cap is None else cap / probabilities.shape[1]
    if limit >= 1:
        return probabilities
    below = probabilities.clamp(max=limit)
    room = limit - below
    excess = (probabilities - below).sum(1, keepdim=True)
    return below + room * (excess / room.sum(1, keepdim=True))  # once is enough: no bin gets above the limit


def cap_of(update: object) -> float:
    """The `cap` of an update, which holds for proposals too; `inf` if it has none. Raises ValueError if it is not above 1."""
    rule = number(above=1, finite=False, should="a number above 1")
    cap = checked({"cap": getattr(update, "cap", None)}, {"cap": optional(rule, "for none")}, "`update`")["cap"]
    return math.inf if cap is None else float(cap)


def check_update(target: Any, proposed: Tensor) -> Tensor:
    """Checks what an update returned, and returns it without its graph.

    Values are checked only on the CPU: on other devices this would wait for the device.

    Args:
        target: [B, k], what the update returned.
        proposed: [B, k], the proposal that it was given.

    Raises:
        TypeError: `target` is not a tensor of floating point numbers.
        ValueError: Its shape is wrong, or its rows are not probabilities.
    """
    if not isinstance(target, Tensor) or not target.is_floating_point():
        found = str(target.dtype) if isinstance(target, Tensor) else type(target).__name__
        raise TypeError(f"`update` should return a tensor of floating point probabilities [B, k]. Found {found}.")
    if target.shape != proposed.shape:
        raise ValueError(f"`update` should return probabilities {tuple(proposed.shape)}. Found shape {tuple(target.shape)}.")
    if target.device.type == "cpu" and target.numel():
        low, sums = float(target.min()), target.sum(1)
        far = float((sums - 1).abs().max())
        if not (low >= -SLACK and far <= SLACK):  # NaN too
            worst = float(sums[(sums - 1).abs().nan_to_num(math.inf).argmax()])
            raise ValueError(
                "`update` should return probabilities: at least 0, and each row should sum to 1. Found numbers from "
                f"{low:.3g} up, and a row that sums to {worst:.4g}; clamp them to 0 and divide each row by its sum."
            )
    return target.detach()


def _check(p: Tensor, chosen: Tensor, harder: Tensor) -> None:
    if p.ndim != 2 or chosen.ndim != 2 or chosen.shape[0] != p.shape[0] or harder.shape != p.shape[:1]:
        raise ValueError(
            "`probabilities`, `chosen` and `harder` should have shapes (B, k), (B, s) and (B,). "
            f"Found {tuple(p.shape)}, {tuple(chosen.shape)} and {tuple(harder.shape)}."
        )
    if harder.dtype != torch.bool or chosen.dtype != torch.long:
        raise TypeError(f"`harder` should be bool and `chosen` long. Found {harder.dtype} and {chosen.dtype}.")
    if p.device.type == "cpu" and not torch.isfinite(p).all():
        raise ValueError(
            "`probabilities` should be finite. Found NaN or inf: the generator has diverged; "
            "load an earlier state or lower the learning rate of its optimizer."
        )


def kl_divergence(target: Tensor, log_probs: Tensor) -> Tensor:
    """KL(update target || proposal) of each row, Eq. (3) and (4). [B, k], [B, k] -> [B]."""
    return (torch.xlogy(target, target) - target * log_probs).sum(1)

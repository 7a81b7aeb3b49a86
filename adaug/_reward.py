"""How a comparison becomes an update target for the generator: reward and penalty, Eq. (5) and (6)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from adaug._checks import CAP, Rules, check_fields, checked, number

SLACK = 1e-3  # of what should be 1 in sum: a sum of half precision
FLOOR = 1e-4  # a probability is never pushed below this, so that no bin is lost for good


@dataclass(frozen=True)
class RewardPenalty:
    """Eq. (5) and (6), kept on the simplex, and capped as in the authors' release.

    The fixed point is P(harder) = beta / (alpha + beta): with alpha < beta a branch that is rarely harder is pulled back to
    uniform.

    Attributes:
        alpha: The share of its probability that a sampled bin wins when its view was harder, in (0, 1].
        beta: The share that it loses otherwise, in (0, 1].
        cap: No probability of the update target, and of what is drawn from, is above cap / k; `inf` for none, which collapses
            on the hardest bin.
    """

    alpha: float = 0.2
    beta: float = 0.5
    cap: float = 2.0

    _rules: ClassVar[Rules] = {"alpha": number(above=0, high=1), "beta": number(above=0, high=1), "cap": CAP}

    def __post_init__(self) -> None:
        check_fields(self, "")

    def __call__(self, probabilities: Tensor, chosen: Tensor, harder: Tensor) -> Tensor:
        """The update target of each row.

        Args:
            probabilities: [B, k], what the generator proposed.
            chosen: [B, s] long, the sampled bins or cells. One that stands twice counts once.
            harder: [B] bool, whether the adversarial view was harder than the reference view.

        Returns:
            [B, k]: positive, and 1 in sum.

        Raises:
            TypeError: `harder` is not bool, or `chosen` not long.
            ValueError: Shapes do not fit, or (on the CPU, where looking costs no synchronisation) probabilities are not
                finite.
        """
        _check(probabilities, chosen, harder)
        p = probabilities.clamp(min=FLOOR**2)  # one that underflowed to 0 could never be won back
        sampled = torch.zeros_like(p, dtype=torch.bool).scatter_(1, chosen, True)  # [B, k] the set S
        others = (p.shape[1] - sampled.sum(1, keepdim=True)).clamp(min=1)  # [B, 1] k - |S|
        mass = (p * sampled).sum(1, keepdim=True)  # [B, 1] of S together
        gives = (sampled != harder[:, None]) & ~sampled.all(1, keepdim=True)  # S gives when penalised, the rest when not
        # Eq. (5) alone leaves the simplex (a sharp prediction has nothing left to take), so nobody gives below FLOOR.
        given = torch.where(sampled, self.beta * p, self.alpha * mass / others).minimum((p - FLOOR).clamp(min=0)) * gives
        share = torch.where(sampled, p / mass.clamp(min=FLOOR**2), 1 / others.to(p.dtype)) * ~gives
        return capped(p - given + share * given.sum(1, keepdim=True), self.cap)


def capped(probabilities: Tensor, cap: float) -> Tensor:
    """Probabilities [n, k] of which none is above cap / k; what is above is shared out in proportion to the room below."""
    limit = cap / probabilities.shape[1]
    if limit >= 1:
        return probabilities
    below = probabilities.clamp(max=limit)
    room = limit - below
    excess = (probabilities - below).sum(1, keepdim=True)
    return below + room * (excess / room.sum(1, keepdim=True))  # one pass, and nobody is pushed above the limit


def cap_of(update: object) -> float:
    """The cap that an update keeps its targets under, which holds for proposals too: its `cap`, `inf` if it has none.

    Raises ValueError when it is not a number above 1.
    """
    rule = number(above=1, finite=False, should="a number above 1, or inf for none")
    cap: float = checked({"cap": getattr(update, "cap", math.inf)}, {"cap": rule}, "`update`")["cap"]
    return float(cap)


def check_update(target: Any, proposed: Tensor) -> Tensor:
    """What an update gave, on the simplex. Its values are looked at on the CPU alone, where that costs no synchronisation.

    Args:
        target: [B, k], what it gave.
        proposed: [B, k], what it was asked about.

    Raises:
        TypeError: It is no tensor of floating point numbers.
        ValueError: It has another shape, or is no probabilities.
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
                "`update` should return probabilities: none below 0, and 1 in sum. Found numbers from "
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
    """Eq. (3) and (4) for each row: KL(update target || proposal). [B, k], [B, k] -> [B]."""
    return (torch.xlogy(target, target) - target * log_probs).sum(1)

"""The capped best response to difficulties that are known only roughly. A pure function of tensors."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["best_response"]

CHANCE = 3.0  # times what chance alone would let bins differ: below, bins count as equal


def best_response(effects: Tensor, variances: Tensor, valid: Tensor, limit: Tensor) -> Tensor:
    """Probabilities [O, K] of the bins of each operation: `limit` times the probability that a bin is among the hardest.

    The hardest are as many bins as share a sum of 1 at `limit` each.

    Args:
        effects: What each bin adds to the mean difficulty of its operation, [O, K].
        variances: The variances of these numbers, [O, K].
        valid: Which bins an operation has, [O, K] bool. Others get 0.
        limit: The largest probability of a bin, cap / k, [O, 1].
    """
    k, tiny = valid.sum(1, keepdim=True), torch.finfo(effects.dtype).tiny  # [O, 1] the number of bins
    variances = variances.clamp(min=tiny)
    # Empirical Bayes: how much bins really differ is what they differ beyond chance.
    ratio = torch.where(valid, effects.square() / variances, 0).sum(1, keepdim=True) / (k - 1)  # [O, 1] 1 by chance
    spread = (ratio - CHANCE).clamp(min=0) * torch.where(valid, variances, 0).sum(1, keepdim=True) / k  # [O, 1]
    shrunk = effects * spread / (spread + variances)  # [O, K]
    deviation = (spread * variances / (spread + variances)).clamp(min=tiny).sqrt()  # [O, K]
    # The threshold lies between the last of the hardest bins and the next one.
    hardest = torch.where(valid, shrunk, -torch.inf).sort(dim=1, descending=True).values
    last = (1 / limit - 0.5).clamp(min=0)  # [O, 1]
    before, after = last.floor().long(), last.ceil().long().minimum(k - 1)
    threshold = torch.lerp(hardest.gather(1, before), hardest.gather(1, after), last - before)
    chance = torch.special.ndtr((shrunk - threshold) / deviation).nan_to_num(0.5) * valid  # [O, K] to be above the bar
    # The sum should be 1: the uncertain ones give or take, and no bin passes its limit.
    best, open_ = limit * chance, (chance * (1 - chance) + tiny) * valid  # who is certain keeps what is certain
    best = (best + (1 - best.sum(1, keepdim=True)) * open_ / open_.sum(1, keepdim=True)).clamp(min=0)
    best = best / best.sum(1, keepdim=True)
    room = (limit - best).clamp(min=0) * valid
    excess = (best - limit).clamp(min=0).sum(1, keepdim=True)
    return best.minimum(limit) + room * excess / room.sum(1, keepdim=True).clamp(min=tiny)

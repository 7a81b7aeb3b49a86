"""Labels of every family that once went wrong in silence: right by an independent reference, or refused for a reason."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from attacks.families import boxes, fields, flags, maps, names, perspective, sides
from attacks.layouts import channels, clips, flat, forms
from attacks.tally import Tally

FAMILIES = [maps, boxes, names, sides, flags, fields, perspective, channels, clips, flat, forms]


def labels(tally: Tally) -> None:
    """Families of labels, with a reference in float64. A refusal counts as held only if a valid neighbour succeeds."""
    noise = np.random.default_rng(tally.seed)
    torch.manual_seed(tally.seed)
    tally.start()
    while not tally.over:
        family = FAMILIES[noise.integers(len(FAMILIES))]
        what, act, wrong, neighbour = family(noise)

        def right(made: Any, wrong: Callable[[Any], str] = wrong) -> str:
            tally.notes["right by the reference"] += 1
            return wrong(made)

        def kept(neighbour: Callable[[], Any] | None = neighbour, what: str = what) -> bool:
            tally.notes["refused"] += 1
            if neighbour is None:
                tally.add("silent", f"{what}: a valid input was refused")
                return True
            neighbour()  # an error here is one of the attack's
            tally.notes["valid neighbours that succeeded"] += 1
            return True

        tally.judge(f"{family.__name__}: {what}", act, right, kept)

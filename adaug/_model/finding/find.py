"""Finds layers to read and to mask if the user names none. The flow of features proposes them, and trying masks decides."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from torch import Tensor, nn

from adaug._model.finding.choices import proposals
from adaug._model.finding.leak import Run, leak, outputs_of
from adaug._model.finding.probe import Probe

HIDDEN = 0.2  # a cell counts as hidden if at most this part of a change in it reaches the output


@dataclass(frozen=True)
class Found:
    """Layers that were found.

    Attributes:
        read: The layers that generators read.
        hide: The layers that masks multiply: those in `read`, and the same layers of later stacks.
        leak: The part of a change in a hidden cell that still reaches the output. NaN if it cannot be measured.
        skipped: Layers that were left out because adaug cannot tell whether their channels come first or last.
    """

    read: tuple[str, ...] = ()
    hide: tuple[str, ...] = ()
    leak: float = math.nan
    skipped: tuple[str, ...] = ()

    def said(self, *, reads: bool, hides: bool) -> str:
        """A line that tells the user which layers were found.

        Args:
            reads: Whether generators read them.
            hides: Whether masks multiply them.
        """
        users = ["generators read"] * reads + ["masks multiply"] * hides
        if not self.read:
            line = f"features=None found no layer that fits: {' and '.join(users)} the image"
        else:
            layers = [list(names) for names in (self.read,) * reads + (self.hide,) * hides]
            line = f"features=None found layers: {', '.join(f'{a} {b}' for a, b in zip(users, layers, strict=True))}"
            if hides and self.leak > HIDDEN:
                line += (
                    "; masks change nothing" if math.isinf(self.leak) else f"; {self.leak:.0%} of what is hidden gets through"
                )
                line += ", so name better layers in `occlude`, or pass occlude=() to hide parts of the image"
        if self.skipped:
            names = ", ".join(self.skipped[:3]) + (", ..." if len(self.skipped) > 3 else "")
            line += f"; it left out {names}, because it cannot tell whether their channels come first or last"
        return line + "."


def find_layers(model: nn.Module, probed: Probe, pair: Tensor, run: Run) -> Found:
    """Returns the layers of the first proposal that hides a cell, or else of the one that hides it best.

    It costs a pass of two rows without masks, and one for each of at most four proposals.

    Args:
        model: The model, in evaluation mode.
        probed: The result of a pass of `pair` through the model.
        pair: An image and the same image with a changed cell, [2, C, H, W], from `with_a_change`.
        run: A function that calls the model.
    """
    best, plain = Found(), outputs_of(run, pair)
    for proposal in proposals(probed):
        leaks = leak(model, {name: probed.layers[name] for name in proposal.hide}, pair, run, plain)
        if not best.read or leaks < best.leak:
            best = Found(proposal.read, proposal.hide, leaks)
        if leaks <= HIDDEN or math.isnan(leaks):
            break
    return replace(best, skipped=tuple(name for name in probed.layers if name in probed.unclear))

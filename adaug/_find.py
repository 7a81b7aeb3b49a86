"""Which layers to read and to mask when the user names none: proposed by how features flow, chosen by what a mask hides."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from torch import Tensor, nn

from adaug._leak import Run, leak, outputs_of
from adaug._probe import Probe
from adaug._proposals import proposals

HIDDEN = 0.2  # of the change in a cell that may still reach the output: then the cell counts as hidden


@dataclass(frozen=True)
class Found:
    """Layers that were found.

    Attributes:
        read: For generators.
        hide: For masks: those that are read, and the same ones of later stacks.
        leak: Of the change in a hidden cell that still reaches the output, from 0; NaN where it cannot be said.
        skipped: Layers that were left out because nothing says where their channels are.
    """

    read: tuple[str, ...] = ()
    hide: tuple[str, ...] = ()
    leak: float = math.nan
    skipped: tuple[str, ...] = ()

    def said(self, *, reads: bool, hides: bool) -> str:
        """A line on what was found, for the user.

        Args:
            reads: Whether generators read it.
            hides: Whether masks multiply it.
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
            line += f"; left out are {names}: nothing says whether their channels come first or last"
        return line + "."


def find_layers(model: nn.Module, probed: Probe, pair: Tensor, run: Run) -> Found:
    """The layers of the first proposal that hides a cell, or of the one that hides it best.

    Costs one pass of two rows without masks, and one with each proposal that is tried, of at most four.

    Args:
        model: The model, in eval behaviour.
        probed: What a pass of `pair` through it showed.
        pair: An image [2, C, H, W] and the same one with a cell changed, as `with_a_change` makes it.
        run: Calls the model with it.
    """
    best, plain = Found(), outputs_of(run, pair)
    for proposal in proposals(probed):
        leaks = leak(model, {name: probed.layers[name] for name in proposal.hide}, pair, run, plain)
        if not best.read or leaks < best.leak:
            best = Found(proposal.read, proposal.hide, leaks)
        if leaks <= HIDDEN or math.isnan(leaks):
            break
    return replace(best, skipped=tuple(name for name in probed.layers if name in probed.unclear))

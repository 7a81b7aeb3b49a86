"""How a page writes scores: fractions of what is right in per cent, anything else with three digits."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

import numpy as np

from adaug.audits.statistics import Estimate, nanmean
from adaug.audits.table import Table

NONE = "–"
GAP = "\u00a0"  # between a number and its unit: a space at which lines do not break


class Numbers:
    """Writes all scores of one audit, or of two that are compared, in the same way.

    Args:
        audits: The audits. If all their scores are right (1) or wrong (0), numbers are in per cent. Otherwise the largest mean
            of a view gets three digits, and all numbers get as many decimals as this one.
    """

    def __init__(self, *audits: Table) -> None:
        self.shares = all(audit.right_or_wrong for audit in audits)
        self.images = min(len(audit) for audit in audits)
        means = np.concatenate([np.abs(nanmean(audit.table(), axis=0)) for audit in audits])
        largest = float(np.max(means[np.isfinite(means)], initial=0.0))
        self.decimals = None if largest and not 1e-4 <= largest < 1e6 else _decimals(largest, 3)

    @property
    def unit(self) -> str:
        """The unit that short numbers leave out."""
        return "in %" if self.shares else ""

    def value(self, value: float) -> str:
        """ "74.7 %" or "0.747"."""
        if not math.isfinite(value):
            return NONE
        return f"{_percent(value)}{GAP}%" if self.shares else self._digits(value)

    def interval(self, estimate: Estimate) -> str:
        """ "71.4 to 77.7 %". Empty if there is no interval, as for one image."""
        if not self._has_interval(estimate):
            return ""
        if self.shares:
            return f"{_percent(estimate.low)} to {_percent(estimate.high)}{GAP}%"
        return f"{self._digits(estimate.low)} to {self._digits(estimate.high)}"

    def with_interval(self, estimate: Estimate) -> str:
        """ "74.7 % (71.4 to 77.7 %)"."""
        interval = self.interval(estimate)
        return f"{self.value(estimate)} ({interval})" if interval else self.value(estimate)

    def difference(self, value: float) -> str:
        """ "+3.8 points" or "+0.0384"."""
        if not math.isfinite(value):
            return NONE
        return f"{minus(f'{100 * value:+.1f}')}{GAP}points" if self.shares else self._digits(value, sign=True)

    def difference_interval(self, estimate: Estimate) -> str:
        """ "+1.4 to +6.7"."""
        if not self._has_interval(estimate):
            return ""
        return " to ".join(self.difference(end).removesuffix(f"{GAP}points") for end in (estimate.low, estimate.high))

    def short(self, values: Iterable[float], *, sign: bool = False) -> list[str]:
        """The numbers of a table, without unit and with equal decimals, as short as its cells need."""
        scaled = [100 * value if self.shares else value for value in values]
        largest = max((abs(value) for value in scaled if math.isfinite(value)), default=0.0)
        decimals = int(largest < 10) if self.shares else _decimals(largest, 2)
        plus = "+" if sign else ""
        if decimals > 4 or largest >= 1e5:
            texts = [f"{value:{plus}.2g}" for value in scaled]
        else:
            texts = [f"{value:{plus}.{decimals}f}" for value in scaled]
        finite = [math.isfinite(value) for value in scaled]
        return [_unsigned_zero(text) if known else NONE for text, known in zip(texts, finite, strict=True)]

    def _has_interval(self, estimate: Estimate) -> bool:
        return self.images > 1 and math.isfinite(estimate.low) and math.isfinite(estimate.high)

    def _digits(self, value: float, *, sign: bool = False) -> str:
        plus = "+" if sign else ""
        if self.decimals is None:
            return minus(f"{float(value):{plus}.3g}")
        text = f"{float(value):{plus},.{self.decimals}f}"
        if value and not text.strip("+-0.,"):
            return "≈0"
        return minus(text if value else text.lstrip("+-"))


def share(value: float) -> str:
    """ "62 %"."""
    return f"{100 * value:.0f}{GAP}%" if math.isfinite(value) else NONE


def minus(text: str) -> str:
    """Replaces hyphens before numbers by minus signs."""
    return re.sub(r"(?<![\w-])-(?=[\d.])|(?<=\de)-(?=\d)", "−", text)


def cut(text: str, letters: int) -> str:
    """The text with minus signs, and with "…" at its end if it is longer."""
    text = minus(text)
    return text if len(text) <= letters else text[: letters - 1] + "…"


def _percent(value: float) -> str:
    return minus(f"{100 * value:.0f}" if value in (0, 1) else f"{100 * value:.1f}")


def _decimals(largest: float, digits: int) -> int:
    """How many decimals a number needs to have so many digits."""
    return digits - 1 if not largest else max(0, digits - 1 - math.floor(math.log10(largest)))


def _unsigned_zero(text: str) -> str:
    return minus(text[1:] if text[0] in "+-" and not text.strip("+-0.") else text)

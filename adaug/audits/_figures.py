"""The figures of an audit: their names, the same everywhere, and which of them tell something of their own."""

from __future__ import annotations

import math
from collections.abc import Sequence

from adaug.audits.table import SHARE, Table

MEAN, WORST, PER_IMAGE = "mean", "worst view", "worst per image"
TAIL, ALWAYS = f"worst {100 * SHARE:g} % per image", "in every view"
METHODS = {MEAN: "mean", WORST: "worst", PER_IMAGE: "worst_per_image", TAIL: "cvar", ALWAYS: "in_every_view"}
ALL_VIEWS = "all views"


def figures_of(audits: Sequence[Table], views: str | None = None, group: str | None = None) -> list[str]:
    """The names of the figures of some views. Of those that are equal by construction there is one."""
    audit = audits[0]
    count = len(audit.columns(views))
    if count == 1:
        return [MEAN]
    shares = all(one.right_or_wrong for one in audits)
    whole = audit.scores.ndim == 2 or len(audit.groups.get(group or "", range(audit.scores.shape[-1]))) == 1
    names = [MEAN, WORST]
    names += [] if shares and whole and audit.higher_is_better else [PER_IMAGE]  # right in its worst view is right in all
    names += [TAIL] if math.ceil(SHARE * count - 1e-9) > 1 else []
    return [*names, ALWAYS] if shares else names


def groups_of(audit: Table) -> list[str]:
    """The groups of an audit without those that hold every part, and without those that hold what another one holds."""
    if audit.scores.ndim == 2:
        return []
    first = {frozenset(range(audit.scores.shape[2])): ""}
    for name, parts in audit.groups.items():
        first.setdefault(frozenset(parts), name)
    return [name for name in first.values() if name]


def named(figure: str, views: str | None = None, group: str | None = None) -> str:
    """The name of a figure with what it is about: "mean, all views", "mean, rotate" or, of a group, "mean, arms"."""
    return ", ".join(part for part in (figure, views or (None if group else ALL_VIEWS), group) if part)

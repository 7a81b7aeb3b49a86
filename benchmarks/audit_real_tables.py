"""The results of benchmarks/audit_real.py as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from adaug import Audit

GROUPS = {"eyes": (0, 1), "nose": (2,), "mouth": (3, 4)}


def per_cent(value: Any) -> str:
    """An estimate with its interval in per cent."""
    return f"{100 * value:.1f} ({100 * value.low:.1f} to {100 * value.high:.1f})"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table with a head. All columns but the first are aligned to the right."""
    lines = [head, ["---", *["--:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def families(audit: Audit) -> str:
    """The statistics of each family of views."""
    rows = []
    for name in (*(family.name for family in audit.families), None):
        row = [name or "all views", str(len(audit.columns(name))), per_cent(audit.mean(name))]
        if len(audit.columns(name)) > 1:
            view, worst = audit.worst(name)
            row += [f"{per_cent(worst)}, {view}", *(f"{100 * value:.1f}" for value in _of_each_image(audit, name))]
        rows.append(row + [""] * (7 - len(row)))
    return table(["views", "number", "mean", "worst view", "worst per image", "worst 10 %", "in every view"], rows)


def _of_each_image(audit: Audit, name: str | None) -> tuple[float, float, float]:
    return audit.worst_per_image(name), audit.cvar(views=name), audit.in_every_view(name)


def rotation(points: Audit, face: Audit, hand: Sequence[float]) -> str:
    """The rotation curve: all points, each group, faces, the loop."""
    curve, seen = points.curve("rotate"), face.curve("rotate")
    of_groups = [points.curve("rotate", group).mean for group in GROUPS]
    rows = [
        [
            label,
            per_cent(curve.mean[i]),
            *(f"{100 * of[i]:.1f}" for of in of_groups),
            per_cent(seen.mean[i]),
            f"{100 * curve.counted[i]:.1f}",
            f"{100 * hand[i]:.1f}",
        ]
        for i, label in enumerate(curve.axis.labels)
    ]
    return table(["turn", "points found", *GROUPS, "taken for a face", "points that count", "the loop"], rows)


def along(name: str, points: Audit, face: Audit) -> str:
    """The curve of another operation: all points, and faces."""
    curve, seen = points.curve(name), face.curve(name)
    rows = [
        [label, per_cent(curve.mean[i]), per_cent(seen.mean[i]), f"{100 * curve.counted[i]:.1f}"]
        for i, label in enumerate(curve.axis.labels)
    ]
    return table([f"{name}, factor", "points found", "taken for a face", "points that count"], rows)


def groups(audit: Audit) -> str:
    """Each group as it is and under all views."""
    rows = []
    for name in GROUPS:
        view, worst = audit.worst(group=name)
        means = audit.mean("as it is", name), audit.mean(group=name), worst
        rows.append([name, *(per_cent(value) for value in means), view, f"{100 * audit.worst_per_image(group=name):.1f}"])
    return table(["group", "as it is", "mean of all views", "worst view", "which", "worst per image"], rows)


def changes(before: Audit, after: Audit) -> str:
    """The changes that a repair makes."""
    rows = []
    for change in before.compare(after).changes:
        low, high = 100 * change.difference.low, 100 * change.difference.high
        difference = f"{100 * change.difference:+.1f} ({low:+.1f} to {high:+.1f})"
        rows.append([change.name, f"{100 * change.before:.1f}", f"{100 * change.after:.1f}", difference, change.verdict])
    return table(["", "before", "after", "difference", ""], rows)

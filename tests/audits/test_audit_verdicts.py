"""One rule says what got better and what got worse, with one interval, wherever a figure is shown."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_audit import make_audit
from test_audit_page import families, read

from adaug import Audit
from adaug.audits._figures import METHODS, figures_of, groups_of
from adaug.audits._report.numbers import GAP, Numbers
from adaug.audits.comparison import Change, Comparison

GROUPS = {"arms": [0, 1], "legs": [2], "everything": [0, 1, 2], "arms again": [1, 0]}
SPACES = str.maketrans({GAP: " "})


def two(change: float, *, parts: int = 3, right: bool = True, higher: bool = True, n: int = 60) -> tuple[Audit, Audit]:
    """Two audits, of which the second is better in its last views by a change of the scores (worse, where higher is worse)."""
    random, views = np.random.default_rng(0), families()
    shape = (n, sum(len(family.views) for family in views), *([parts] if parts else []))
    chance, noise = np.full(shape, 0.5), random.random(shape)
    later = chance.copy()
    later[:, 12:] += change
    made = [(noise < each).astype(float) if right else each + 0.1 * noise for each in (chance, later)]
    kwargs: dict[str, Any] = {
        "images": [str(i) for i in range(n)],
        "higher_is_better": higher,
        "groups": GROUPS if parts else {},
    }
    return Audit(made[0], views, **kwargs), Audit(made[1], views, **kwargs)


CASES = [
    (change, parts, right, higher)
    for change in (0.0, 0.02, 0.3, -0.3)
    for parts in (0, 3)
    for right in (True, False)
    for higher in (True, False)
]  # fmt: skip


def every_figure(comparison: Comparison) -> list[Change]:
    """Each figure that a terminal or a page may show, asked for by its method."""
    audits, found = (comparison.before, comparison.after), [comparison.mean("as it is")]
    for views in (None, *(family.name for family in comparison.before.families)):
        found += [getattr(comparison, METHODS[name])(views=views) for name in figures_of(audits, views)]
    for group in groups_of(comparison.before):
        found.append(comparison.mean("as it is", group))
        found += [getattr(comparison, METHODS[name])(group=group) for name in figures_of(audits, None, group)]
    return found


@pytest.mark.parametrize(("change", "parts", "right", "higher"), CASES)
def test_a_figure_has_one_verdict_and_one_interval(change: float, parts: int, right: bool, higher: bool) -> None:
    before, after = two(change, parts=parts, right=right, higher=higher)
    comparison = before.compare(after)
    known = {one.name: one for one in comparison.changes}
    assert len(known) == len(comparison.changes), "each once"
    for asked in every_figure(comparison):
        if asked.name in known:
            shown = known[asked.name]
            assert (asked.verdict, repr(asked.difference)) == (shown.verdict, repr(shown.difference))
    lines = str(comparison).splitlines()[3:]
    for line, one in zip(lines, comparison.changes, strict=True):
        assert line.split("  ")[0].rstrip("…") in one.name
        assert line.endswith(one.verdict)
    for verdict, names in (("better", comparison.better()), ("worse", comparison.worse())):
        assert names == [one.name for one in comparison.changes if one.verdict == verdict]
    if abs(change) > 0.1:
        assert {one.verdict for one in comparison.changes} >= {"better" if (change > 0) == higher else "worse"}
    if not change:
        assert {one.verdict for one in comparison.changes} == {"same"}


@pytest.mark.parametrize(("change", "parts", "right", "higher"), CASES[::3])
def test_the_page_says_what_the_terminal_says(change: float, parts: int, right: bool, higher: bool, tmp_path: Path) -> None:
    before, after = two(change, parts=parts, right=right, higher=higher)
    comparison, numbers = before.compare(after), Numbers(before, after)
    text = read(before.html(tmp_path / "page.html", compared=after)).text.translate(SPACES)
    for one in every_figure(comparison):
        ends = f"{numbers.difference(one.difference)} ({numbers.difference_interval(one.difference)})".translate(SPACES)
        mark = {"better": "▲ better", "worse": "▼ worse"}.get(one.verdict, one.verdict)
        assert f"{ends} {mark}" in text, one.name
    for verdict in ("better", "worse"):
        said = re.search(rf"(None|\d+) of {len(comparison.changes)} figures (?:is|are) {verdict}", text)
        assert said is not None
        assert said[1] == str(len(getattr(comparison, verdict)()) or None)
    heading = before.figure(after).get_suptitle()
    assert comparison.mean("as it is").verdict in heading
    assert comparison.worst_per_image().verdict in heading


def test_one_image_tells_nothing_apart(tmp_path: Path) -> None:
    before, after = two(0.3, n=1)
    assert {one.verdict for one in before.compare(after).changes} == {"not told apart"}
    before.html(tmp_path / "page.html", compared=after)


def test_a_change_that_is_the_same_for_all_images_is_told() -> None:
    before = make_audit([[1, 0]] * 9, ("a",))
    after = make_audit([[1, 1]] * 9, ("a",))
    assert before.compare(after).mean("a").verdict == "better"
    assert before.compare(after).mean("as it is").verdict == "same"
    assert after.compare(before).mean("a").verdict == "worse"


def test_figures_that_are_equal_by_construction_are_shown_once() -> None:
    audit = two(0.0, parts=0)[0]  # right or wrong, and one part an image: right in its worst view is right in every view
    assert figures_of([audit], "rotate") == ["mean", "worst view", "in every view"]
    assert float(audit.in_every_view("rotate")) == float(audit.worst_per_image("rotate")) == float(audit.cvar(views="rotate"))
    assert figures_of([audit]) == ["mean", "worst view", "worst 10 % per image", "in every view"]
    wrong = two(0.0, parts=0, higher=False)[0]
    assert figures_of([wrong], "rotate") == ["mean", "worst view", "worst per image", "in every view"]
    parts = two(0.0)[0]
    assert figures_of([parts], "rotate") == ["mean", "worst view", "worst per image", "in every view"]
    assert figures_of([parts], "mirrored") == ["mean"]
    assert groups_of(parts) == ["arms", "legs"]


def test_names_of_figures_are_the_same_everywhere(tmp_path: Path) -> None:
    audit = two(0.0)[0]
    text = read(audit.html(tmp_path / "page.html")).text.translate(SPACES)
    statistics = json.loads(audit.to_json())["all views"]
    assert list(statistics) == list(METHODS)
    docs = (Path(__file__).parents[2] / "docs/read-an-audit.md").read_text()
    for name in METHODS:
        assert name in text
        assert f"| {name} |" in docs
        assert all(word in str(audit) for word in name.split(" per ")), name
        assert any(one.name.startswith(name) for one in audit.compare(audit).changes)


def test_audits_of_other_parts_are_told_apart_from_other_images():
    whole, parts = make_audit(np.ones((4, 3))), make_audit(np.ones((4, 3, 2)))
    with pytest.raises(ValueError, match=r"as many parts of an image. Found scores \[4, 3\] and \[4, 3, 2\]"):
        whole.compare(parts)
    assert whole.compare(whole).worse() == []

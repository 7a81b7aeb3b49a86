"""The page and the figure of an audit: whole, self-contained, and true to its numbers."""

from __future__ import annotations

import base64
import dataclasses
import io
import math
import re
import sys
from collections.abc import Sequence
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path
from typing import Any

import networks as nets
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import adaug
from adaug import Audit, OccludeImage, Rotate, Scale
from adaug.audits import statistics
from adaug.audits._report.cards import encoded, outline
from adaug.audits._report.numbers import Numbers, minus, share
from adaug.audits._report.words import sentences
from adaug.audits.plan import Axis
from adaug.audits.records import FamilyTable, Picture
from adaug.audits.statistics import Estimate

ALONE = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "wbr"}
SCALES, TURNS = ("0.50", "1.00", "2.00"), ("-40°", "+0°", "+40°")


# ---- audits of tables


def families(*, pairs: bool = True, draws: int = 4, turned: str = "rotate") -> tuple[FamilyTable, ...]:
    scale = Axis("scale", "factor of size", SCALES, (0.5, 1.0, 2.0), 3)
    rotate = Axis(turned, "rotation", TURNS, (-40.0, 0.0, 40.0), 3)
    cells = Axis("occlude", "hidden cell", ("(1, 1)", "(1, 2)", "(2, 1)", "(2, 2)"), (0, 1, 2, 3), (2, 2))
    made: list[tuple[str, tuple[str, ...], tuple[Axis, ...]]] = [("as it is", ("as it is",), ())]
    made += [
        (axis.operation, tuple(f"{axis.operation} {label}" for label in axis.labels), (axis,))
        for axis in (scale, rotate, cells)
    ]
    made.append(("mirrored", ("mirrored",), ()))
    if pairs:
        names = tuple(f"scale {a}, {turned} {b}" for a in SCALES for b in TURNS)
        made.append((f"scale × {turned}", names, (scale, rotate)))
    if draws:
        made.append(("draws", tuple(f"draw {i + 1}" for i in range(draws)), ()))
    starts = np.cumsum([0, *(len(views) for _, views, _ in made)])
    return tuple(FamilyTable(name, views, int(at), axes) for (name, views, axes), at in zip(made, starts, strict=False))


def make_audit(
    n: int = 20,
    parts: int = 0,
    *,
    right: bool = True,
    seed: int = 0,
    shift: float = 0.0,
    like: Sequence[FamilyTable] | None = None,
    **kwargs: Any,
) -> Audit:
    """An audit of made-up scores, in which the first bins are the hardest."""
    views = tuple(families() if like is None else like)
    random = np.random.default_rng(seed)
    hard = np.linspace(0.4, 0, sum(len(f.views) for f in views))
    hard[0] = 0
    shape = (n, len(hard), parts) if parts else (n, len(hard))
    chance = 0.7 + shift - (hard[:, None] if parts else hard)
    scores = (random.random(shape) < chance) if right else chance + 0.1 * random.standard_normal(shape)
    kwargs.setdefault("images", tuple(map(str, range(n))))
    return Audit(scores.astype(np.float32), views, **kwargs)


def picture(kind: str, image: int = 0, view: int = 1, size: tuple[int, int] = (48, 64)) -> Picture:
    random = np.random.default_rng(image)
    pixels = random.integers(0, 255, (*size, 3)).astype(np.uint8)
    if kind == "keypoints":
        points = random.uniform(0, size[0], (5, 2)).astype(np.float32)
        labels: dict[str, Any] = {"keypoints": points, "visible": np.array([True, True, False, True, True])}
        said: dict[str, Any] = {"keypoints": points + 3}
    elif kind == "mask":
        mask = np.zeros(size, dtype=np.int64)
        mask[8:20, 10:30] = 1
        labels, said = {"mask": mask}, {"mask": np.roll(mask, 4, 0)[::2, ::2]}
    elif kind == "label":
        labels, said = {"label": np.array(3)}, {"label": np.array(7.0, dtype=np.float32)}
    else:
        labels, said = {}, {}
    return Picture(image, view, pixels, labels, said)


# ---- reading a page


class Reader(HTMLParser):
    """Checks that tags are balanced, and keeps what is needed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ALONE:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, tag
        assert self.open.pop() == tag, tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def all(self, tag: str, css: str | None = None) -> list[dict[str, str | None]]:
        return [
            attrs for name, attrs in self.tags if name == tag and (css is None or css in (attrs.get("class") or "").split())
        ]


def read(path: Path) -> Reader:
    """The page, of which all is there and nothing comes from elsewhere."""
    page = path.read_text(encoding="utf-8")
    reader = Reader()
    reader.feed(page)
    reader.close()
    assert reader.open == []
    assert page.lstrip().startswith("<!DOCTYPE html>")
    assert page.rstrip().endswith("</html>")
    for _, attrs in reader.tags:
        for name in ("src", "href", "xlink:href", "srcset", "data", "action"):
            assert (attrs.get(name) or "data:").startswith(("data:image/", "data:", "#"))
        assert not any(name.startswith("on") for name in attrs)
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in reader.tags}
    assert not re.search(r"@import|url\(|https?:", page)
    used = re.findall(r'xlink:href="#([^"]+)"', page)
    assert set(used) <= {attrs["id"] for _, attrs in reader.tags if "id" in attrs}  # the marks of curves
    assert "nan" not in reader.text.lower().split()
    assert all(attrs.get("alt") for attrs in reader.all("img"))
    assert all(attrs.get("aria-label") or attrs.get("aria-hidden") for attrs in reader.all("svg"))
    assert all(attrs.get("scope") for attrs in reader.all("th"))
    ids = [attrs["id"] for _, attrs in reader.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert {attrs["aria-labelledby"] for _, attrs in reader.tags if "aria-labelledby" in attrs} <= set(ids)
    return reader


def spaced(text: str) -> str:
    return " ".join(text.split())


# ---- what is on it


@pytest.mark.parametrize("parts", [0, 4])
@pytest.mark.parametrize("right", [True, False])
@pytest.mark.parametrize("higher_is_better", [True, False])
@pytest.mark.parametrize("compared", [False, True])
def test_a_page_holds_everything(tmp_path: Path, parts: int, right: bool, higher_is_better: bool, compared: bool) -> None:
    kwargs: dict[str, Any] = {
        "parts": parts,
        "right": right,
        "higher_is_better": higher_is_better,
        "groups": {"arms": [0, 1], "legs": [2]} if parts else {},
    }
    audit = make_audit(excluded={"images without a score": 3}, pictures=[picture("label")], **kwargs)
    later = make_audit(seed=1, shift=0.1, **kwargs) if compared else None
    reader = read(audit.html(tmp_path / "page.html", compared=later, title="How good?"))
    assert "How good?" in reader.text
    for family in audit.families:
        assert family.name in reader.text
    for group in audit.groups:
        assert group in reader.text
    for label in (*SCALES, "−40°", "+40°"):
        assert label in reader.text
    assert "3 images without a score" in reader.text
    assert len(reader.all("svg", "curve")) == 3  # scale, rotate, draws
    assert len(reader.all("svg", "map")) == (6 if compared else 2)
    assert adaug.__version__ in reader.text
    now = later or audit
    numbers = Numbers(audit, now)
    figures = [now.mean("as it is"), now.mean(), now.worst()[1], now.worst_per_image(), now.cvar(), now.mean("mirrored")]
    figures += [now.in_every_view()] if right else []
    figures += [value for group in now.groups for value in (now.mean(group=group), now.worst_per_image(group=group))]
    for figure in figures:
        assert spaced(numbers.value(figure)) in reader.text
        assert spaced(numbers.interval(figure)) in reader.text
    for one in (audit, now):
        for value in (*one.curve("scale").mean, *one.curve("rotate").mean):
            assert spaced(numbers.value(value)) in reader.text
    if later is not None:
        change = audit.compare(later).mean("as it is")
        assert (
            spaced(f"{numbers.difference(change.difference)} ({numbers.difference_interval(change.difference)})") in reader.text
        )


def drawings(path: Path, kind: str) -> list[str]:
    """The drawings of a page, "curve" or "map"."""
    return re.findall(rf'<svg class="plot {kind}".*?</svg>', path.read_text(encoding="utf-8"), flags=re.DOTALL)


def test_maps_hold_the_numbers_of_the_grid(tmp_path: Path) -> None:
    audit = make_audit()
    path = audit.html(tmp_path / "page.html")
    numbers = [[int(n) for n in re.findall(r"<text [^>]*>(\d+)</text>", drawn)] for drawn in drawings(path, "map")]
    grid = audit.grid("scale", "rotate").mean
    cells = [float(mean) for mean in audit.curve("occlude").mean]
    np.testing.assert_allclose([n for n in numbers[0] if n > 2], np.array(cells) * 100, atol=0.5001)  # 1 and 2 are labels
    np.testing.assert_allclose(numbers[1], grid.flatten() * 100, atol=0.5001)
    words = read(path).text
    assert all(spaced(Numbers(audit).value(value)) in words for value in grid.flat)


def test_differences_have_the_colour_of_what_they_mean(tmp_path: Path) -> None:
    for higher_is_better, shift in ((True, -0.3), (False, -0.3)):
        before, after = (make_audit(right=False, higher_is_better=higher_is_better, shift=by) for by in (0.0, shift))
        path = before.html(tmp_path / "page.html", compared=after)
        colours = set(re.findall(r"fill: var\(--(\w+)\)", drawings(path, "map")[-1])) - {"paper", "ink", "soft"}
        better = (shift > 0) == higher_is_better
        assert colours == {"b4" if better else "h7"}
        text = read(path).text
        assert ("▲" in text, "▼" in text) == (better, not better)


def test_what_counts_is_drawn_where_it_is_less_than_all(tmp_path: Path) -> None:
    audit = make_audit(right=False)
    assert "columns at the bottom" not in read(audit.html(tmp_path / "page.html")).text
    audit.scores[:15, audit.columns("scale")[0]] = np.nan
    audit.scores[:15, audit.columns("scale × rotate")[0]] = np.nan
    path = audit.html(tmp_path / "page.html")
    text = read(path).text
    assert [drawn.count("var(--empty)") for drawn in drawings(path, "curve")] == [3, 0, 0]
    assert [drawn.count("stroke-dasharray") for drawn in drawings(path, "map")] == [0, 1]
    for words in ("columns at the bottom", "25 %", "(25 % counts)", "less than half counts"):
        assert words in text


def test_drawings_have_the_colours_of_the_page(tmp_path: Path) -> None:
    path = make_audit().html(tmp_path / "page.html", compared=make_audit(seed=1))
    for drawn in [*drawings(path, "curve"), *drawings(path, "map")]:
        assert not re.findall(r"(?:fill|stroke): #\w+", drawn)
    used = set(re.findall(r"var\(--(\w+)\)", path.read_text(encoding="utf-8")))
    light, dark = (set(re.findall(r"--(\w+):", part)) for part in re.findall(r":root \{(.*?)\}", style(path), re.DOTALL)[::2])
    assert used <= light | {"panel", "good", "bad"}
    assert light <= dark


def style(path: Path) -> str:
    return path.read_text(encoding="utf-8").partition("<style>")[2].partition("</style>")[0]


def test_a_style_of_the_user_changes_no_drawing(tmp_path: Path) -> None:
    from matplotlib import style

    plain = make_audit().html(tmp_path / "page.html").read_bytes()
    with style.context(["dark_background", {"font.size": 30, "svg.fonttype": "path"}]):
        assert make_audit().html(tmp_path / "page.html").read_bytes() == plain


# ---- in words


def said(audit: Audit, later: Audit | None = None) -> dict[str, str]:
    numbers = Numbers(audit, later or audit)
    found = sentences(audit, None if later is None else audit.compare(later), numbers)
    return {sentence.about: spaced(sentence.text) for sentence in found}


def falling() -> Audit:
    """Only scale hurts, at 0.50 alone; of pairs, 0.50 with -40°."""
    audit = make_audit(40)
    audit.scores[:] = 1
    audit.scores[:20, audit.views.index("scale 0.50")] = 0
    audit.scores[:30, audit.views.index("scale 0.50, rotate -40°")] = 0
    return audit


def test_the_summary_names_what_hurts_and_from_where() -> None:
    words = said(falling())
    assert words["as it is"] == "The 40 images as they are: 100 % (100 to 100 %) are right."
    assert words["operations"] == "Scale hurts most: it leaves 50.0 % at 0.50. It hurts beyond doubt at 0.50 and below."
    assert "scale 0.50, rotate −40° is worst: 25.0 %" in words["worst view"]
    assert words["together"].endswith("25.0 %; alone they leave 50.0 % and 100 %.")
    assert words["in every view"].startswith("10 of 40 images (25.0 %)")


def test_the_summary_says_when_nothing_hurts() -> None:
    audit = falling()
    audit.scores[:] = 1
    assert said(audit)["operations"] == "No operation alone hurts beyond doubt."


def test_the_summary_of_a_comparison_says_what_changed() -> None:
    words = said(falling(), dataclasses.replace(falling(), scores=np.ones_like(falling().scores)))
    assert words["better"].endswith("the worst view from 25.0 % to 100 %.") or "from 25.0 % to 100 %" in words["better"]
    assert re.fullmatch(r"None of \d+ figures is worse beyond doubt.", words["worse"])
    back = said(dataclasses.replace(falling(), scores=np.ones_like(falling().scores)), falling())
    assert "from 100 % to 25.0 %" in back["worse"]
    assert back["worst view"].endswith(", before 100 % under as it is.")


@pytest.mark.parametrize("right", [True, False])
def test_nothing_is_beyond_doubt_with_one_image(tmp_path: Path, right: bool) -> None:
    audit, later = (make_audit(1, right=right, seed=seed, shift=seed) for seed in (0, 1))
    words = said(audit, later)
    assert words["as it is"].startswith("The one image as it is: ")
    assert "None of" in words["better"]
    text = read(audit.html(tmp_path / "page.html", compared=later)).text
    assert "▲" not in text
    assert "It hurts beyond doubt" not in text


def test_a_group_that_is_weakest_is_named() -> None:
    audit = make_audit(parts=3, groups={"one": [0], "two": [1, 2]})
    audit.scores[..., 0] = 0
    assert said(audit)["weakest group"].startswith("One: 0 % over all views")


@pytest.mark.parametrize(("value", "text"), [(0, "0 %"), (1, "100 %"), (0.5, "50.0 %"), (0.9999, "100.0 %"), (math.nan, "–")])
def test_shares_are_in_per_cent(value: float, text: str) -> None:
    assert spaced(Numbers(make_audit()).value(value)) == text


def test_numbers_of_a_page_have_the_same_decimals() -> None:
    numbers = Numbers(make_audit(right=False))
    assert [numbers.value(v) for v in (0.5, 0.0612, -0.25, 0.0, 1e-9, math.inf)] == [
        "0.500",
        "0.061",
        "−0.250",
        "0.000",
        "≈0",
        "–",
    ]
    assert numbers.difference(0.1) == "+0.100"
    assert numbers.short([0.123, -0.5, math.nan], sign=True) == ["+0.12", "−0.50", "–"]
    assert numbers.short([0.0, -0.001, 0.2], sign=True) == ["0.00", "0.00", "+0.20"]
    large = Numbers(dataclasses.replace(make_audit(), scores=make_audit(right=False).scores * 3000))
    assert large.value(2345.6) == "2,346"
    assert Numbers(dataclasses.replace(make_audit(), scores=make_audit(right=False).scores * 1e-7)).value(6.54e-8) == "6.54e−08"
    assert share(0.62) == "62\u00a0%"
    assert minus("scale-up -3 to -.5, a-1") == "scale-up −3 to −.5, a-1"


# ---- pictures


@pytest.mark.parametrize("kind", ["keypoints", "mask", "label", "nothing"])
@pytest.mark.parametrize("compared", [False, True])
def test_the_gallery_shows_what_is_true_and_what_was_said(tmp_path: Path, kind: str, compared: bool) -> None:
    shown = [picture(kind, image, view=image + 1) for image in range(3)]
    audit, later = make_audit(pictures=shown), make_audit(seed=1, pictures=shown)
    reader = read(audit.html(tmp_path / "page.html", compared=later if compared else None))
    assert len(reader.all("img")) == 3
    assert "image 2" in reader.text
    assert audit.views[3] in reader.text
    assert ("here before" in reader.text) == compared
    drawn = {"keypoints": {"true", "predicted", "join", "under"}, "mask": {"true", "predicted", "under"}}
    assert {attrs["class"] for attrs in reader.all("path") if "class" in attrs} == drawn.get(kind, set())
    assert ("true class 3, predicted 7" in reader.text) == (kind == "label")
    assert bool(reader.all("input")) == (kind in drawn)
    source = reader.all("img")[0]["src"] or ""
    from PIL import Image

    image = Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2])))
    np.testing.assert_array_equal(np.asarray(image), shown[0].pixels)  # small ones are kept without loss


def test_circles_and_crosses_stand_at_the_centres_of_pixels(tmp_path: Path) -> None:
    one = picture("keypoints", size=(100, 100))
    one.labels["keypoints"][:] = 10
    one.predictions["keypoints"][:] = np.nan
    one.predictions["keypoints"][0] = (40, 20)
    reader = read(make_audit(pictures=[one]).html(tmp_path / "page.html"))
    assert [attrs["d"] for attrs in reader.all("path", "join")] == ["M10.50 10.50L40.50 20.50"]
    assert all((attrs["d"] or "").startswith("M8.90 10.50a1.60") for attrs in reader.all("path", "true"))


def test_outlines_follow_edges_and_stay_short() -> None:
    mask = np.zeros((4, 6), dtype=int)
    mask[1:3, 2:4] = 7
    assert sorted(re.findall("M[^M]+", outline(mask, 12, 4))) == ["M4 1h4", "M4 1v2", "M4 3h4", "M8 1v2"]
    noise = np.random.default_rng(0).integers(0, 5, (256, 256))
    assert 0 < len(outline(noise, 256, 256)) <= 12_000
    assert outline(np.zeros((5, 5), dtype=int), 5, 5) == ""


def test_twelve_pictures_stay_below_a_megabyte(tmp_path: Path) -> None:
    noise = [picture("mask", image, size=(256, 256)) for image in range(12)]
    path = make_audit(pictures=noise).html(tmp_path / "page.html")
    read(path)
    assert path.stat().st_size < 1_000_000
    assert encoded(np.zeros((900, 300, 3), dtype=np.uint8)).startswith("data:image/png;base64,")


# ---- what may be unusual


def test_text_is_escaped(tmp_path: Path) -> None:
    evil = "<script>alert('1')</script>&\"x"
    audit = make_audit(
        parts=2,
        like=families(turned=evil),
        groups={evil: [0], "b": [1]},
        excluded={evil: 1},
        pictures=[picture("keypoints", view=6)],
    )
    path = audit.html(tmp_path / "page.html", title=evil, compared=dataclasses.replace(audit, seed=0))
    reader = read(path)
    assert "<script" not in path.read_text(encoding="utf-8")
    assert reader.text.count(evil) > 5
    assert f"image 0 as the network saw it, {evil}".lower() in (reader.all("img")[0]["alt"] or "").lower()


UNUSUAL = pytest.mark.parametrize(
    "make",
    {
        "one image": lambda seed: make_audit(1, seed=seed),
        "one image of losses": lambda seed: make_audit(1, right=False, seed=seed),
        "nothing but as it is": lambda seed: make_audit(like=families()[:1], seed=seed),
        "no pairs and no draws": lambda seed: make_audit(like=families(pairs=False, draws=0), seed=seed),
        "one draw": lambda seed: make_audit(like=families(draws=1), seed=seed),
        "hundreds of views": lambda seed: make_audit(like=families(draws=200), right=False, seed=seed),
        "long names": lambda seed: make_audit(
            like=families(turned="a very long name " * 12), parts=2, groups={"g" * 300: [0]}, seed=seed
        ),
        "all alike": lambda seed: dataclasses.replace(make_audit(seed=seed), scores=np.full((20, 25), 3.0, dtype=np.float32)),
        "empty views": lambda seed: without(make_audit(right=False, seed=seed), "scale 0.50", "draw 2", "occlude (1, 1)"),
        "an empty operation": lambda seed: without(make_audit(seed=seed), *make_audit().family("rotate").views),
        "nothing as it is": lambda seed: without(make_audit(seed=seed), "as it is"),
        "nothing at all": lambda seed: without(make_audit(seed=seed), *make_audit().views),
        "an empty group": lambda seed: without_part(make_audit(parts=3, groups={"none": [2], "some": [0, 1]}, seed=seed), 2),
        "huge losses": lambda seed: dataclasses.replace(make_audit(), scores=make_audit(right=False, seed=seed).scores * 1e9),
    }.items(),
    ids=lambda item: item[0],
)


@UNUSUAL
@pytest.mark.parametrize("compared", [pytest.param(False, marks=pytest.mark.slow), True])
def test_unusual_audits_have_a_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Any, compared: bool) -> None:
    monkeypatch.setattr(statistics, "RESAMPLES", 100)  # intervals need not be exact here
    read(make[1](0).html(tmp_path / "page.html", compared=make[1](1) if compared else None))


@pytest.mark.slow
@UNUSUAL
@pytest.mark.parametrize("compared", [False, True])
def test_unusual_audits_have_a_figure(monkeypatch: pytest.MonkeyPatch, make: Any, compared: bool) -> None:
    monkeypatch.setattr(statistics, "RESAMPLES", 100)
    make[1](0).figure(make[1](1) if compared else None).draw_without_rendering()


def without(audit: Audit, *views: str) -> Audit:
    audit.scores[:, audit.columns(list(views))] = np.nan
    return audit


def without_part(audit: Audit, part: int) -> Audit:
    audit.scores[..., part] = np.nan
    return audit


def test_other_images_are_refused_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="same images"):
        make_audit().html(tmp_path / "page.html", compared=make_audit(21))
    with pytest.raises(ValueError, match="same images"):
        make_audit().figure(make_audit(21))
    assert list(tmp_path.iterdir()) == []


def test_a_page_is_the_same_every_time(tmp_path: Path) -> None:
    pages = [make_audit(pictures=[picture("mask")]).html(tmp_path / "deep" / f"{i}.html").read_bytes() for i in range(2)]
    assert pages[0] == pages[1]


@pytest.mark.parametrize(
    ("module", "do"), [("jinja2", "html"), ("PIL", "html"), ("matplotlib", "html"), ("matplotlib", "figure")]
)
def test_a_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, do: str) -> None:
    audit = make_audit()
    for name in [name for name in sys.modules if name.startswith("adaug.audits._report")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr(adaug.audits, "_report")
    monkeypatch.setitem(sys.modules, module, None)  # an import of it fails
    with pytest.raises(ModuleNotFoundError, match=rf"Found no {module}; pip install adaug\[audit\]"):
        audit.html(tmp_path / "page.html") if do == "html" else audit.figure()


def test_the_template_is_part_of_the_package() -> None:
    assert {"page.html.j2", "page.css"} <= {file.name for file in files("adaug.audits._report").iterdir()}


# ---- the figure


@pytest.mark.parametrize("compared", [False, True])
def test_the_figure_has_a_panel_for_everything(tmp_path: Path, compared: bool) -> None:
    audit, later = make_audit(), make_audit(seed=1)
    figure = audit.figure(later if compared else None)
    titles = " ".join(axis.get_title(loc="left") for axis in figure.axes)
    for family in audit.families:
        assert family.name in titles + figure.get_suptitle()
    assert len(figure.axes) == 3 + (6 if compared else 2)
    assert figure.get_figwidth() * figure.dpi == 1200
    figure.savefig(tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 10_000
    line = figure.axes[0].lines[-1]
    np.testing.assert_allclose(line.get_ydata(), [float(m) for m in (later if compared else audit).curve("scale").mean])


# ---- audits of networks


def test_audits_of_networks_have_pages(tmp_path: Path) -> None:
    batch = nets.make_batch(6)
    pose = adaug.audit(
        nets.make_network().eval(),
        [batch],
        lambda output, batch: (output.float().mean((2, 3)) > 0).float(),
        adaug.policies.wide([(0, 1)]),
        groups={"first": [0], "second": [1]},
        num_draws=3,
    )
    assert "mirrored" in read(pose.html(tmp_path / "pose.html", compared=pose)).text
    assert len(read(pose.html(tmp_path / "pose.html")).all("img")) == 6

    masks = {"image": batch["image"], "mask": (batch["image"][:, 0] > 0.5).long()}
    segments = adaug.audit(
        lambda image: torch.stack([0.6 - image[:, 0], image[:, 0] - 0.4], 1),
        [masks],
        lambda output, batch: (output.argmax(1) == batch["mask"]).float().mean((1, 2)),
        [Scale(0.5, 2.0, 3), Rotate(-60, 60, 3)],
        targets={"mask": adaug.Target("mask", fill=0)},
    )
    assert read(segments.html(tmp_path / "segments.html")).all("path", "true")

    classes = adaug.audit(
        lambda image: F.adaptive_avg_pool2d(image, 1).flatten(1),
        [{"image": batch["image"], "label": batch["label"]}],
        right_class,
        [Rotate(-60, 60, 3), OccludeImage((2, 2), 1)],
    )
    assert "true class" in read(classes.html(tmp_path / "classes.html")).text


def right_class(output: Tensor, batch: dict[str, Tensor]) -> Tensor:
    return (output.argmax(1) == batch["label"]).float()


def test_an_estimate_without_an_interval_has_none() -> None:
    assert Numbers(make_audit()).interval(Estimate(0.5, math.nan, math.nan)) == ""
    assert Numbers(make_audit(1)).interval(Estimate(0.5, 0.5, 0.5)) == ""

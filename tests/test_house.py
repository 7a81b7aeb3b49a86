"""The plan of the library in docs/: drawn from the imports of today, one way up, the same every time."""

import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "docs"))

import house  # noqa: E402


def build(folder, files):
    for name, text in files.items():
        path = folder / "adaug" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return house.rooms(folder / "adaug")


SMALL = {
    "__init__": "from adaug.top import Top",
    "top": "import adaug._middle\nfrom adaug import pack, _low",
    "_middle": '"""The middle\none.\n\nMore."""\nfrom ._low import x\nimport torch',
    "_low": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from adaug.top import Top",
    "pack/__init__": "from adaug.pack._a import a",
    "pack/_a": "def f():\n    from .. import _low\n    from . import _b",
    "pack/_b": "",
}


@pytest.mark.slow
def test_the_picture_is_that_of_today():
    drawn = house.draw(house.rooms(ROOT / "adaug"))
    assert house.PICTURE.read_text(encoding="utf-8") == drawn, "It is old: run python docs/house.py."


def test_every_import_finds_its_room(tmp_path):
    plan = build(tmp_path, SMALL)
    assert {name: set(room.imports) for name, room in plan.items()} == {
        "top": {"_middle", "pack", "_low"}, "_middle": {"_low"}, "_low": set(), "pack": {"_low"},
    }  # fmt: skip
    assert plan["_middle"].says == "The middle one."
    assert plan["pack"].files == ("_a", "_b")
    assert house.floors(plan) == {"_low": 0, "_middle": 1, "pack": 1, "top": 2}


def test_what_follows_is_not_drawn(tmp_path):
    plan = build(tmp_path, SMALL)
    assert house.arrows(plan) == [("_middle", "_low"), ("pack", "_low"), ("top", "_middle"), ("top", "pack")]
    picture = house.draw(plan)
    assert picture == house.draw(dict(reversed(plan.items())))
    assert set(plan) <= set(re.findall(r">(\w+)</text>", picture))


def test_a_circle_is_named(tmp_path):
    plan = build(tmp_path, {"a": "from adaug import b", "b": "from adaug import c", "c": "from adaug import a"})
    with pytest.raises(ValueError, match="A circle: a -> b -> c -> a"):
        house.floors(plan)


def test_rooms_that_stand_alone_are_drawn_too(tmp_path):
    assert ">alone</text>" in house.draw(build(tmp_path, {"alone": "", "other": "import adaug.third", "third": ""}))


def test_the_page_names_rooms_that_there_are():
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    steps = page[page.index("## One mini-batch") : page.index("## Decisions")]
    named = re.findall(r"`(_?[a-z]+)`", "".join(line.rpartition(" | ")[2] for line in steps.splitlines() if line[:1] == "|"))
    assert len(named) > 10
    assert set(named) <= set(house.rooms(ROOT / "adaug"))

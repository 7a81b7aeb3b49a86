"""Draws the plan of the library from its imports: python docs/house.py. The same imports give the same file.

A room is a module or a package below adaug/. It stands one floor above the highest room that it imports, so every
arrow points down. An arrow that follows from others is left out: if a imports b and b imports c, a to c is not drawn.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "docs" / "figures" / "house.svg"
HIGH, STOREY, GAP = 46, 84, 22  # pixels


@dataclass(frozen=True)
class Room:
    """A module or a package: its name, its first sentence, its own files, and the rooms that it imports."""

    name: str
    says: str
    files: tuple[str, ...]
    imports: frozenset[str]

    @property
    def public(self) -> bool:
        """Whether users may import it."""
        return not self.name.startswith("_")


def rooms(folder: Path) -> dict[str, Room]:
    """The rooms of a package by name. `__init__` is the door and no room."""
    found = {}
    for path in sorted(folder.iterdir()):
        if path.suffix == ".py" and path.stem != "__init__":
            found[path.stem] = [path]
        elif (path / "__init__.py").exists():
            found[path.name] = sorted(path.rglob("*.py"))
    result = {}
    for name, paths in found.items():
        first = next((p for p in paths if p.stem == "__init__"), paths[0])
        says = (
            ast.get_docstring(ast.parse(first.read_text(encoding="utf-8")))
            or ""
        )
        inside = tuple(p.stem for p in paths if p.stem != "__init__")
        result[name] = Room(
            name,
            says.split("\n\n")[0].replace("\n", " "),
            inside if first.stem == "__init__" else (),
            frozenset(
                other
                for path in paths
                for other in _imported(path, folder)
                if other in found and other != name
            ),
        )
    return result


def _imported(path: Path, folder: Path) -> Iterator[str]:
    """First part of every name below the package that a file imports; what only the type checker sees is left out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    unseen = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If)
        and ast.unparse(node.test).endswith("TYPE_CHECKING")
        for inner in ast.walk(node)
    }
    within = [folder.name, *path.relative_to(folder).parent.parts]
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = within[: len(within) - node.level + 1] if node.level else []
            origin = ".".join([*base, *filter(None, [node.module])])
            names = [f"{origin}.{alias.name}" for alias in node.names]
        for name in names if id(node) not in unseen else ():
            top, *rest = name.split(".")
            if top == folder.name and rest:
                yield rest[0]


def floors(plan: dict[str, Room]) -> dict[str, int]:
    """The floor of every room, from 0. Raises ValueError where imports run in a circle."""
    found: dict[str, int] = {}

    def floor(name: str, above: tuple[str, ...] = ()) -> int:
        if name in above:
            raise ValueError(f"A circle: {' -> '.join([*above, name])}.")
        if name not in found:
            below = [
                floor(other, (*above, name))
                for other in sorted(plan[name].imports)
            ]
            found[name] = 1 + max(below, default=-1)
        return found[name]

    for name in plan:
        floor(name)
    return found


def arrows(plan: dict[str, Room]) -> list[tuple[str, str]]:
    """Who imports whom, without what follows from the rest (the transitive reduction)."""
    reach: dict[str, set[str]] = {}
    for name in sorted(plan, key=floors(plan).__getitem__):
        reach[name] = set(plan[name].imports).union(
            *(reach[other] for other in plan[name].imports)
        )
    return [
        (name, other)
        for name in sorted(plan)
        for other in sorted(plan[name].imports)
        if not any(other in reach[third] for third in plan[name].imports)
    ]


Point = tuple[
    str, int
]  # a room, or an arrow that passes a floor, with the floor
Link = tuple[Point, Point]  # from a floor to the one below


def _links(plan: dict[str, Room]) -> dict[tuple[str, str], list[Point]]:
    """Every arrow as the points that it passes, floor by floor."""
    level = floors(plan)
    return {
        (a, b): [
            (a, level[a]),
            *((f"{a}>{b}", i) for i in range(level[a] - 1, level[b], -1)),
            (b, level[b]),
        ]
        for a, b in arrows(plan)
    }


def _order(plan: dict[str, Room], links: list[Link]) -> list[list[Point]]:
    """Each floor from left to right, with few crossings: every point moves to the mean place of its neighbours."""
    points = {(name, level) for name, level in floors(plan).items()}.union(
        *links
    )
    start = [
        sorted(p for p in points if p[1] == i)
        for i in range(1 + max(level for _, level in points))
    ]
    near = _neighbours(links)
    best = now = start
    for sweep in range(40):
        now = [list(row) for row in now]
        for i in range(len(now)) if sweep % 2 else range(len(now))[::-1]:
            other = i - 1 if sweep % 2 else i + 1
            if 0 <= other < len(now):
                place = {p: j for j, p in enumerate(now[other])}
                now[i].sort(
                    key=lambda p, place=place: _mean(place, near.get(p, []))
                )
        now = _swapped(now, links)
        best = min(best, now, key=lambda rows: _crossings(rows, links))
    return best


def _swapped(rows: list[list[Point]], links: list[Link]) -> list[list[Point]]:
    """Neighbours on a floor change places where this takes crossings away."""
    for row in rows:
        for j in range(len(row) - 1):
            before = _crossings(rows, links)
            row[j], row[j + 1] = row[j + 1], row[j]
            if _crossings(rows, links) >= before:
                row[j], row[j + 1] = row[j + 1], row[j]
    return rows


def _neighbours(links: list[Link]) -> dict[Point, list[Point]]:
    near: dict[Point, list[Point]] = {}
    for a, b in links:
        near.setdefault(a, []).append(b)
        near.setdefault(b, []).append(a)
    return near


def _mean(place: dict[Point, int], near: Iterable[Point]) -> float:
    found = [place[p] for p in near if p in place]
    return sum(found) / len(found) if found else len(place) / 2


def _crossings(rows: list[list[Point]], links: list[Link]) -> int:
    place = {p: j for row in rows for j, p in enumerate(row)}
    ends = [(a[1], place[a], place[b]) for a, b in links]
    return sum(
        f == g and (a - c) * (b - d) < 0
        for i, (f, a, b) in enumerate(ends)
        for g, c, d in ends[:i]
    )


def _label(room: Room) -> list[str]:
    """The name of a room, and the files of a package in one line or two."""
    files, half = room.files, (len(room.files) + 1) // 2
    if len(" ".join(files)) > 24:
        return [room.name, " ".join(files[:half]), " ".join(files[half:])]
    return [room.name, *filter(None, [" ".join(files)])]


def _width(room: Room) -> int:
    name, *files = (len(line) for line in _label(room))
    return round(max([8 * name, *(5.6 * length for length in files)])) + 24


def _across(
    rows: list[list[Point]], links: list[Link], width: dict[Point, int]
) -> dict[Point, int]:
    """The middle of every point: near the middle of its neighbours, as far as those beside it leave room."""
    near, x = _neighbours(links), {}
    for row in rows:
        left = 0
        for p in row:
            x[p] = left + width[p] / 2
            left += width[p] + GAP
        x |= {p: x[p] - left / 2 for p in row}
    for _ in range(30):
        for row in rows:
            wish = [
                sum(x[q] for q in near.get(p, [p])) / len(near.get(p, [p]))
                for p in row
            ]
            needs = [0.0]
            for a, b in pairwise(row):
                needs.append(needs[-1] + (width[a] + width[b]) / 2 + GAP)
            rising = _rising([w - n for w, n in zip(wish, needs, strict=True)])
            x |= {
                p: at + n for p, at, n in zip(row, rising, needs, strict=True)
            }
    left = min(x[p] - width[p] / 2 for p in x)
    return {p: round(at - left) + 12 for p, at in x.items()}


def _rising(values: list[float]) -> list[float]:
    """The nearest values that never fall: those that fall share their mean."""
    blocks: list[tuple[float, int]] = []
    for value in values:
        total, count = value, 1
        while blocks and blocks[-1][0] / blocks[-1][1] > total / count:
            total, count = total + blocks[-1][0], count + blocks.pop()[1]
        blocks.append((total, count))
    return [total / count for total, count in blocks for _ in range(count)]


def draw(plan: dict[str, Room]) -> str:
    """The picture, as SVG with the names of the rooms as text."""
    paths = _links(plan)
    links = [link for path in paths.values() for link in pairwise(path)]
    rows = _order(plan, links)
    width = {
        p: _width(plan[p[0]]) if p[0] in plan else 0
        for row in rows
        for p in row
    }
    x = _across(rows, links, width)
    y = {p: (len(rows) - 1 - p[1]) * STOREY + 12 for p in x}  # its upper edge
    wide = max(x[p] + width[p] // 2 for p in x) + 12
    high = (len(rows) - 1) * STOREY + HIGH + 24
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{wide}" height="{high}" viewBox="0 0 {wide} {high}" '
        f'font-family="DejaVu Sans Mono, Menlo, Consolas, '
        'monospace" text-anchor="middle">',
        "<title>The rooms of the library; an arrow means: imports</title>",
        '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0L8 4L0 8z" fill="#666"/></marker></defs>',
        f'<rect width="{wide}" height="{high}" rx="8" fill="#fff"/>',
    ]
    for (name, other), path in paths.items():
        lines.append(
            f'<path d="{_curve(path, x, y)}" fill="none" stroke="#777" stroke-width="1.2" marker-end="url(#head)">'
            f"<title>{name} imports {other}</title></path>"
        )
    for p in sorted(x):
        if p[0] not in plan:
            continue
        room = plan[p[0]]
        name, *files = _label(room)
        fill, edge = (
            ("#dcefe6", "#00734f") if room.public else ("#f3f3f3", "#222")
        )
        lines += [
            f'<rect x="{x[p] - width[p] // 2}" y="{y[p]}" width="{width[p]}" height="{HIGH}" rx="6" fill="{fill}" '
            f'stroke="{edge}"><title>{escape(room.says)}</title></rect>',
            f'<text x="{x[p]}" y="{y[p] + (28 - 6 * len(files))}" font-size="13" fill="#111">{name}</text>',
            *(
                f'<text x="{x[p]}" y="{y[p] + 41 - 6 * len(files) + 11 * i}" font-size="9" fill="#444">{line}</text>'
                for i, line in enumerate(files)
            ),
        ]
    return "\n".join([*lines, "</svg>\n"])


def _curve(path: list[Point], x: dict[Point, int], y: dict[Point, int]) -> str:
    """From under a room, past the floors between, to the top of another."""
    start, *between, end = path
    at = (x[start], y[start] + HIGH)
    text = f"M{at[0]} {at[1]}"
    for p in [*between, end]:
        over = y[p] - at[1]
        text += f"C{at[0]} {at[1] + over // 2} {x[p]} {y[p] - over // 2} {x[p]} {y[p]}"
        at = (x[p], y[p])
        if p is not end:
            at = (x[p], y[p] + HIGH)
            text += f"V{at[1]}"
    return text


def write() -> None:
    """Writes docs/figures/house.svg."""
    PICTURE.write_text(draw(rooms(ROOT / "adaug")), encoding="utf-8")


if __name__ == "__main__":
    write()

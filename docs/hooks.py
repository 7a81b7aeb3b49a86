"""Puts the results of benchmarks and the list of modules into the pages, so that nobody has to copy them by hand.

`<!-- results: PATTERN -->` on a line of its own becomes every benchmarks/results/PATTERN.md with its pictures, or a note
that there is none yet. Headings become one level lower. Of a comparison of arms, the figure comes first, and only its first
table is open. `<!-- rooms -->` becomes the list of the library's folders.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
LAYERS = re.compile(r"^layers = \[\n(.*?)^\]", re.DOTALL | re.MULTILINE)
MARKER = re.compile(r"^<!-- results: (\S+) -->$", re.MULTILINE)
LINK = re.compile(r"\]\((?!\w+:|#|/)([^)\s]+)\)")
NONE = """!!! note "Not measured yet"
    This place shows `benchmarks/results/{}.md` once the benchmark that writes it has been run.
"""
ROOMS = "<!-- rooms -->"


def on_files(files: Files, config: Any) -> Files:
    """Adds the pictures and other files beside the results to the site."""
    for path in sorted(RESULTS.glob("**/*")):
        if path.is_file() and path.suffix in (".svg", ".png", ".json", ".csv"):
            name = path.relative_to(RESULTS).as_posix()
            files.append(
                File.generated(
                    config, f"results/{name}", abs_src_path=str(path)
                )
            )
    return files


def on_page_markdown(
    markdown: str, page: Any, config: Any, files: Files
) -> str:
    """Replaces the markers of one page."""
    if ROOMS in markdown:
        markdown = markdown.replace(ROOMS, rooms())
    return MARKER.sub(lambda match: results(match[1], files), markdown)


def layers() -> list[list[str]]:
    """The folders and modules of the library from the top down, as import-linter holds them."""
    text = LAYERS.search((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert text is not None
    return [line.split(" | ") for line in re.findall(r'"(.+)"', text[1])]


def rooms_of(name: str) -> list[str]:
    """The modules and folders in a folder of the library."""
    inside = sorted((ROOT / "adaug" / name).glob("*"))
    return [
        path.stem
        for path in inside
        if path.stem != "__init__"
        and (path.suffix == ".py" or (path / "__init__.py").exists())
    ]


def rooms() -> str:
    """What each folder and module is for, from the top down."""
    lines = ["| folder or module | what it is for |", "|---|---|"]
    for name in (name for row in layers() for name in row):
        path = ROOT / "adaug" / name
        path = (
            path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        )
        said = (
            ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        )
        says = said.split("\n\n")[0].replace("\n", " ")
        lines.append(f"| `{name}` | {says} |")
    return "\n".join(lines)


def results(pattern: str, files: Files) -> str:
    """The results of a pattern, as part of a page."""
    found = sorted(RESULTS.glob(f"{pattern}.md"))
    return (
        "\n\n".join(_section(path, files) for path in found)
        if found
        else NONE.format(pattern)
    )


def _arranged(text: str) -> str:
    """A comparison of arms with its figure first, and with all tables but the first folded. Other results stay as they are."""
    head, _, rest = text.partition("\nOther scores\n")
    others, _, rest = rest.partition("\nDifferences:")
    differences, _, rest = rest.partition("\n![")
    if not rest:
        return text
    picture, _, command = rest.partition("\n")
    about, _, table = head.partition("\n\n")
    return (
        f"{about}\n\n![{picture}\n\n{table}\n{_folded('More scores', others)}"
        f"{_folded('Differences, with intervals', f'Differences:{differences}')}{command}"
    )


def _folded(title: str, text: str) -> str:
    return f'<details markdown="1">\n<summary>{title}</summary>\n\n{text.strip()}\n\n</details>\n\n'


def _section(path: Path, files: Files) -> str:
    text, fenced, lines = _arranged(path.read_text(encoding="utf-8")), False, []
    for line in text.splitlines():
        fenced ^= line.lstrip().startswith("```")
        lines.append(
            f"##{line}" if line.startswith("#") and not fenced else line
        )  # its title becomes a third level
    folder = path.parent.relative_to(RESULTS).as_posix()

    def link(
        match: re.Match[str],
    ) -> str:  # what is not on the site is named, not linked
        name = (Path("results") / folder / match[1]).as_posix()
        return f"]({name})" if files.get_file_from_path(name) else "]"

    return (
        LINK.sub(link, "\n".join(lines))
        + f"\n\n<small>From `benchmarks/results/{path.relative_to(RESULTS)}`.</small>"
    )

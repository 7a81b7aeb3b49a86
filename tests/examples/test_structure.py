"""What a person who reads the examples may rely on: they are small, and use what adaug offers everybody."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import adaug

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").rglob("*.py"))
PUBLIC = {"adaug", *(f"adaug.{name}" for name in ("keypoints", "plots", "policies", "operations"))}


def imports(path: Path) -> list[tuple[str, str]]:
    """(module, name) of everything that a file imports; no name for the module itself."""
    pairs = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            pairs += [(alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name} should import by whole names"
            pairs += [(node.module or "", alias.name) for alias in node.names]
    return pairs


def test_the_hourglass_is_read_in_an_hour() -> None:
    lines = {
        path.name: len(path.read_text(encoding="utf-8").splitlines()) for path in (ROOT / "examples/hourglass").glob("*.py")
    }
    assert sum(lines.values()) < 1500, lines


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: str(path.relative_to(ROOT / "examples")))
def test_an_example_uses_what_everybody_may(path: Path) -> None:
    for module, name in imports(path):
        assert module.split(".")[0] != "benchmarks", f"{path.name} imports {module}"
        if module.split(".")[0] == "adaug":
            assert module in PUBLIC, f"{path.name} imports {module}"
            assert module != "adaug" or not name or name in adaug.__all__, f"{path.name} imports {name}"
            assert not name.startswith("_"), f"{path.name} imports {name}"


@pytest.mark.parametrize("folder", ["datasets", "hourglass"])
def test_lower_rooms_import_no_upper_ones(folder: str) -> None:
    """Data sets know nothing of networks, and the hourglass nothing of the scripts."""
    shared = ("audit_tables", "markdown_tables", "results_file", "running_means", "safe_files")
    below = {
        "datasets": ("examples.datasets", "examples.safe_files"),
        "hourglass": ("examples.datasets", "examples.hourglass", *(f"examples.{name}" for name in shared)),
    }
    for path in (ROOT / "examples" / folder).glob("*.py"):
        for module, name in imports(path):
            if module.split(".")[0] == "examples":
                whole = f"{module}.{name}" if module == "examples" else module
                assert whole.startswith(below[folder]), f"{path.name} imports {whole}"

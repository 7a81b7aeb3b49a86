"""What a person who reads the examples may rely on: they are small, and use what adaug offers everybody."""

from __future__ import annotations

import ast
import importlib
import sys
from pathlib import Path

import pytest

import adaug

ROOT = Path(__file__).parents[2]
CHECKED = ["examples", "docs"]
MODULES = ("audits", "keypoints", "learners", "operations", "plots", "policies")
ALONE = ("plain_loop", "face_alignment", "segmentation", "classification")
EXTRAS = {"PIL", "matplotlib", "scipy", "sklearn", "tqdm"}
FILES = sorted(path for folder in CHECKED for path in (ROOT / folder).rglob("*.py"))
FILES_BY_NAME = {str(path.relative_to(ROOT)): path for path in FILES}


def imports(tree: ast.Module) -> list[tuple[str, str]]:
    """(module, name) of everything that a file imports; no name for the module itself."""
    pairs = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            pairs += [(alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            pairs += [("." * node.level + (node.module or ""), alias.name) for alias in node.names]
    return pairs


def private_of_others(tree: ast.Module) -> list[str]:
    """Attributes like `augmenter._bound`. What a class keeps for itself may be private, and other packages are not meant."""
    packages = {alias.asname or alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    packages = {name.split(".")[0] for name in packages} - {"adaug"}

    def meant(node: ast.Attribute) -> bool:
        whose = ast.unparse(node.value)
        return whose not in ("self", "cls") and whose.split(".")[0] not in packages

    private = (node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr.startswith("_"))
    return sorted(ast.unparse(node) for node in private if meant(node) and not node.attr.endswith("__"))


@pytest.mark.parametrize("name", FILES_BY_NAME)
def test_only_what_is_public_is_used(name: str) -> None:
    tree = ast.parse(FILES_BY_NAME[name].read_text(encoding="utf-8"))
    for module, imported in imports(tree):
        assert not module.startswith("."), f"{name} should import by whole names"
        if module.split(".")[0] != "adaug":
            continue
        if module == "adaug":
            assert not imported or imported in adaug.__all__ or imported in MODULES, f"{name} imports {imported}"
            continue
        assert module.removeprefix("adaug.") in MODULES, f"{name} imports {module}"
        offered = importlib.import_module(module)
        assert not imported or imported in getattr(offered, "__all__", dir(offered)), f"{name} imports {module}.{imported}"
        assert not imported.startswith("_"), f"{name} imports {module}.{imported}"
    assert private_of_others(tree) == [], name


def test_a_private_attribute_would_be_found() -> None:
    tree = ast.parse(
        "import os, adaug\nself._mine, self.augmenter._bound, step()._bound.hooks, f.__name__, os._exit, adaug._views"
    )
    assert private_of_others(tree) == ["adaug._views", "self.augmenter._bound", "step()._bound"]


@pytest.mark.parametrize("script", ALONE)
def test_a_script_can_be_copied_alone(script: str) -> None:
    text = (ROOT / "examples" / f"{script}.py").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 350
    for module, _ in imports(ast.parse(text)):
        top = module.split(".")[0]
        assert top in {"adaug", "numpy", "torch", *EXTRAS} or top in sys.stdlib_module_names, f"{script} imports {module}"


def test_the_folder_holds_what_the_pages_say() -> None:
    names = {path.name for path in (ROOT / "examples").iterdir()} - {"__init__.py", "__pycache__"}
    scripts = {f"{name}.py" for name in (*ALONE, "hourglass_lsp", "hourglass_mpii")}
    assert names == {*scripts, "datasets", "hourglass", "notebooks"}


def test_the_hourglass_is_read_in_an_hour() -> None:
    lines = {
        path.name: len(path.read_text(encoding="utf-8").splitlines()) for path in (ROOT / "examples/hourglass").glob("*.py")
    }
    assert sum(lines.values()) < 1950, lines
    assert len(lines) <= 12


@pytest.mark.parametrize("folder", ["datasets", "hourglass"])
def test_lower_rooms_import_no_upper_ones(folder: str) -> None:
    """Data sets know nothing of networks, and the hourglass nothing of the scripts."""
    below = {"datasets": ("examples.datasets",), "hourglass": ("examples.datasets", "examples.hourglass")}
    for path in (ROOT / "examples" / folder).glob("*.py"):
        for module, name in imports(ast.parse(path.read_text(encoding="utf-8"))):
            assert module.split(".")[0] != "benchmarks", f"{path.name} imports {module}"
            if module.split(".")[0] == "examples":
                whole = f"{module}.{name}" if module == "examples" else module
                assert whole.startswith(below[folder]), f"{path.name} imports {whole}"

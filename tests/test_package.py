"""The package as others get it: what the wheel holds, what an import brings along, what is public."""

import ast
import importlib
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import adaug

ROOT = Path(__file__).resolve().parent.parent
CORE = ROOT / "adaug"


def module_name(path):
    """A file below adaug/ as a module, e.g. "operations._base"; a package by its own name."""
    return ".".join(path.relative_to(CORE).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_name(path): path for path in CORE.rglob("*.py") if path != CORE / "__init__.py"}
KINDS_OF_OPERATIONS = {"Binned", "Geometric", "Photometric", "Occlusion", *adaug.operations.__all__} - {"Operation"}


@pytest.mark.slow
def test_an_import_brings_the_core_dependencies_alone():
    extras = ["matplotlib", "scipy", "PIL", "lightning", "transformers", "accelerate", "tensorboard", "sklearn", "h5py"]
    script = f"import sys, adaug; print([name for name in {extras} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_public_and_private_can_be_told_apart():
    """A public module says by `__all__` what is public in it, and all of that is there."""
    for name in MODULES:
        if any(part.startswith("_") for part in name.split(".")) or name.startswith("integrations."):  # those need extras
            continue
        module = importlib.import_module(f"adaug.{name}")
        assert isinstance(module.__all__, list), name
        assert all(hasattr(module, public) for public in module.__all__), name
        assert not [public for public in module.__all__ if public.startswith("_")], name
    assert sorted(adaug.__all__) == adaug.__all__
    assert all(hasattr(adaug, name) for name in adaug.__all__)
    assert len(adaug.__all__) <= 29


def test_a_folder_has_at_most_a_dozen_rooms():
    for folder in {path.parent for path in CORE.rglob("*.py")}:
        rooms = [
            path
            for path in folder.iterdir()
            if path.stem != "__init__" and (path.suffix == ".py" or (path / "__init__.py").exists())
        ]
        assert len(rooms) <= (20 if folder == CORE else 12), folder


def test_nobody_but_operations_asks_which_kind_an_operation_is():
    for name, path in MODULES.items():
        if name.startswith("operations"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("isinstance", "issubclass"):
                asked = {part.id for part in ast.walk(node.args[1]) if isinstance(part, ast.Name)}
                assert not asked & KINDS_OF_OPERATIONS, f"{name}, line {node.lineno}"


def test_the_library_knows_nothing_of_the_examples():
    for path in CORE.rglob("*.py"):
        text = path.read_text()
        assert "from examples" not in text
        assert "import examples" not in text


@pytest.mark.slow
def test_the_wheel_holds_adaug_alone(tmp_path):
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", tmp_path, "."]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"adaug"}
    assert {"adaug/py.typed", "adaug/integrations/lightning.py"} <= set(names)
    metadata = next(name for name in names if name.endswith("METADATA"))
    required = [
        line for line in zipfile.ZipFile(wheel).read(metadata).decode().splitlines() if line.startswith("Requires-Dist")
    ]
    core = sorted({line.split()[1].split(">")[0] for line in required if "extra" not in line})
    assert core == ["kornia", "numpy", "torch", "typing-extensions"]

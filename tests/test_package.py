"""The package as others get it: what the wheel holds, what an import brings along, who imports whom."""

import ast
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CORE = ROOT / "adaug"


def imports(path):
    """The adaug modules that a file imports at its top."""
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("adaug"):
            named = [f"adaug.{alias.name}" for alias in node.names] if node.module == "adaug" else [node.module]
            found |= {name.removeprefix("adaug.") for name in named}
    return {name for name in found if (CORE / f"{name}.py").exists()}


def test_an_import_brings_the_core_dependencies_alone():
    extras = ["matplotlib", "scipy", "PIL", "lightning", "transformers", "accelerate", "tensorboard", "sklearn", "h5py"]
    script = f"import sys, adaug; print([name for name in {extras} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_imports_run_one_way():
    graph = {path.stem: imports(path) for path in CORE.glob("*.py") if path.stem != "__init__"}
    floors: dict[str, int] = {}

    def floor(name, above=()):
        assert name not in above, f"a circle: {' -> '.join([*above, name])}"
        if name not in floors:
            floors[name] = 1 + max((floor(other, (*above, name)) for other in graph[name]), default=0)
        return floors[name]

    assert max(map(floor, graph)) == floor("augmenter")


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

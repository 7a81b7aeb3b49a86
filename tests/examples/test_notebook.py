"""The notebook runs from top to bottom, and keeps its pictures, so that they are seen without running it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "examples" / "notebooks" / "audit_train_audit.ipynb"

pytestmark = pytest.mark.filterwarnings("ignore")  # Jupyter warns about its own versions


def test_its_pictures_are_kept() -> None:
    nbformat = pytest.importorskip("nbformat")
    cells = [cell for cell in nbformat.read(NOTEBOOK, as_version=4).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1)), "executed in order"
    outputs = [output for cell in cells for output in cell.outputs]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 4
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]


@pytest.mark.slow
def test_it_runs_from_top_to_bottom() -> None:
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert sum(cell.source.count("epochs=30") for cell in notebook.cells) == 1
    for cell in notebook.cells:
        cell.source = cell.source.replace("epochs=30", "epochs=2")  # the same code, in a fraction of the time
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    nbclient.NotebookClient(notebook, timeout=300).execute(env=os.environ | {"PYTHONPATH": path})

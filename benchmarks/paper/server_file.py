"""The predictions of finished runs on MPII as files: JSON of the validation people, or what the test server takes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from examples.hourglass import benchmark, mpii
from examples.datasets.crop_cache import load_crops
from examples.hourglass.data import Source, canvas_of
from examples.datasets.people import MPII
from benchmarks.paper.prediction_files import write_json, write_server_file
from examples.hourglass.trained import load_network


def check_predictions(file: Path, root: Path) -> None:
    """Before anything is trained: raises ValueError when the file could not be written from what `root` holds."""
    if file.suffix not in (".json", ".mat"):
        raise ValueError(f"`--predictions` should end in .json or .mat. Found {file.name!r}.")
    if file.suffix == ".mat":
        _official(root)


def write_predictions(
    file: Path, folders: Sequence[Path], root: Path, test: Source, *, device: str = "cpu", **cache: Any
) -> list[Path]:
    """One file a run, named after its folder when there are several. Returns their paths.

    .json: the validation people, the first `test.number` of them. .mat: all test people, as the server wants them; needs
    the official annotations.
    """
    server = file.suffix == ".mat"
    everybody = mpii.read_mat(_official(root)) if server else mpii.select(mpii.read_annotations(root), "valid")
    chosen = [person for person in everybody if person.is_test] if server else everybody[: test.number]
    where = mpii.originals(chosen, root / "images")
    written = []
    for folder in folders:
        config, model = load_network(folder, MPII, device)
        name, size = "mpii-test" if server else "mpii-valid", config.size
        people, where = load_crops(where, name, size=size, canvas=canvas_of(size), **cache)
        found = benchmark.predict(model, people, where, config.loss, size=size)
        path = file if len(folders) == 1 else file.with_name(f"{file.stem}-{folder.name}{file.suffix}")
        path.parent.mkdir(parents=True, exist_ok=True)
        if server:
            write_server_file(path, found, chosen, mpii.read_release(_official(root)))
        else:
            write_json(path, found, chosen)
        written.append(path)
    return written


def _official(root: Path) -> Path:
    paths = [path for folder in mpii.FOLDERS if (path := root / folder / mpii.OFFICIAL[0]).is_file()]
    if not paths:
        raise ValueError(
            f"A .mat for the server needs the official annotations, {mpii.OFFICIAL[0]}, in {root}. Found none; "
            f"`python -m examples.datasets.check --mpii {root}` says where to get it."
        )
    return paths[0]

"""Writes the predictions of finished runs on MPII: validation people as JSON, or test people as .mat for MPII's server.

python -m benchmarks.paper.server_file runs/stacks/asr+aho-seed0 --mpii DIR --file pred_keypoints_mpii.mat
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.paper.comparisons import load_model
from benchmarks.paper.prediction_files import write_json, write_server_file
from examples.datasets import mpii
from examples.datasets.crop_cache import load_crops
from examples.datasets.people import MPII
from examples.hourglass.data import Source, canvas_of
from examples.hourglass.evaluation import predict


def check_predictions(file: Path, root: Path) -> None:
    """Raises ValueError if the file cannot be made from the files in `root`."""
    if file.suffix not in (".json", ".mat"):
        raise ValueError(f"`--file` should end in .json or .mat. Found {file.name!r}.")
    if file.suffix == ".mat":
        _official(root)


def write_predictions(
    file: Path, folders: Sequence[Path], root: Path, test: Source, *, device: str = "cpu", **cache: Any
) -> list[Path]:
    """Writes one file for each run and returns the paths. If there are several, their names include the run's folder.

    .json has the first `test.number` validation people. .mat has all test people, as the server needs them, and requires the
    official annotations.
    """
    server = file.suffix == ".mat"
    everybody = mpii.read_mat(_official(root)) if server else mpii.select(mpii.read_annotations(root), "valid")
    chosen = [person for person in everybody if person.is_test] if server else everybody[: test.number]
    where = mpii.originals(chosen, root / "images")
    written = []
    for folder in folders:
        config, model = load_model(folder, MPII, device)
        name, size = "mpii-test" if server else "mpii-valid", config.size
        people, where = load_crops(where, name, size=size, canvas=canvas_of(size), **cache)
        predicted = where.to_image(predict(model, people, size, config.loss).double().numpy(), size)
        path = file if len(folders) == 1 else file.with_name(f"{file.stem}-{folder.name}{file.suffix}")
        path.parent.mkdir(parents=True, exist_ok=True)
        if server:
            write_server_file(path, predicted, chosen, mpii.read_release(_official(root)))
        else:
            write_json(path, predicted, chosen)
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


def main(arguments: Sequence[str] | None = None) -> list[Path]:
    """Writes the files and prints their paths."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.paper.server_file", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, help="folders with a checkpoint, of networks with MPII's joints")
    parser.add_argument("--mpii", type=Path, required=True, metavar="DIR", help="folder with images/ and annotations")
    parser.add_argument("--file", type=Path, required=True, help=".json for the validation people, or .mat for the server")
    parser.add_argument("--test-people", type=int, default=None, help="only so many people in the .json")
    parser.add_argument("--cache", type=Path, default=None, help="folder for the crops (None: in ~/.cache)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args(arguments)
    check_predictions(options.file, options.mpii)
    source = Source(options.test_people)
    paths = write_predictions(options.file, options.runs, options.mpii, source, device=options.device, cache_dir=options.cache)
    print("\n".join(f"  {path}" for path in paths))
    return paths


if __name__ == "__main__":
    main()

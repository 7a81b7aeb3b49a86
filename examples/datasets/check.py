"""Lists what is missing or broken in a copy of MPII or LSP, file by file, and where to get it.

    python -m examples.datasets.check --mpii DIR [--lsp DIR]

The exit code is 0 if everything is there, else 1.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from PIL import Image
from tqdm import tqdm  # type: ignore[import-untyped, unused-ignore]

from examples.datasets import lsp, mpii
from examples.datasets.cropping import UNREADABLE

SHOWN = 50  # files that are listed without --all
LISTED = 10  # lines of an error that lists files

MPII_HELP = """\
To get MPII (http://human-pose.mpi-inf.mpg.de, "Download"):
  images, 12.9 GB    https://datasets.d2.mpi-inf.mpg.de/andriluka14cvpr/mpii_human_pose_v1.tar.gz
                     unpack so that the JPEGs lie in {root}/images
  annotations, one of
    mpii_annotations.json (or .gz)   of the stacked-hourglass ports, for example bearpaw/pytorch-pose, data/mpii;
                                     preferred, since it says who is held out for validation
    train.json and valid.json        of HRNet or mmpose
    mpii_human_pose_v1_u12_1.mat     https://datasets.d2.mpi-inf.mpg.de/andriluka14cvpr/mpii_human_pose_v1_u12_2.zip
                                     with valid_images.txt beside it, a list of the images that Tompson et al. held out;
                                     the test server's predictions need this file too
  put them in {root} or {root}/annot"""

LSP_HELP = """\
To get Leeds Sports Pose (http://sam.johnson.io/research/lsp.html and lspet.html; mirrors by the names are easy to find):
  lsp_dataset.zip      unpack as {root}/lsp, with joints.mat and images/im0001.jpg to im2000.jpg
  lspet_dataset.zip    the extension; unpack as {root}/lspet, with joints.mat and images/im00001.jpg to im10000.jpg"""


@dataclass
class Inspection:
    """The result of checking one data set: what is there, what is wrong, and how to repair it."""

    name: str
    help: str
    present: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return self.text()

    def text(self, shown: int | None = SHOWN) -> str:
        """The result as text, with at most `shown` problems."""
        lines = [f"{self.name}: {f'{len(self.problems)} problems' if self.problems else 'complete'}"]
        lines += [f"  {line}" for line in self.present]
        lines += [f"  ✗ {line}" for line in self.problems[:shown]]
        if shown is not None and len(self.problems) > shown:
            lines.append(f"  … and {len(self.problems) - shown} more; --all lists them")
        return "\n".join([*lines, *([self.help] if self.problems else [])])


def check_mpii(root: Path, *, quick: bool = False, progress: bool = True) -> Inspection:
    """Checks MPII's annotations and images. quick: check only that images exist, without decoding them."""
    inspection = Inspection(f"MPII in {root}", MPII_HELP.format(root=root))
    try:
        paths = mpii.find_annotations(root)
        inspection.present.append(f"annotations: {', '.join(str(path.relative_to(root)) for path in paths)}")
        people = mpii.read_annotations(root)
    except (OSError, ValueError) as error:
        inspection.problems.append(str(error))
        return inspection
    counts = {
        "train": sum(not (person.is_validation or person.is_test) for person in people),
        "valid": sum(person.is_validation for person in people),
        "test": sum(person.is_test for person in people),
    }
    inspection.present.append("people: " + ", ".join(f"{count:,} {split}" for split, count in counts.items() if count))
    if not counts["valid"]:
        inspection.problems.append(f"{paths[0]} does not say who validates: {mpii.VALID_IMAGES} should lie beside it")
    if paths[0].suffix != ".mat" and (counts["train"], counts["valid"]) != (22246, 2958):
        inspection.problems.append(
            f"{paths[0]} should hold 22,246 people to train on and 2,958 to validate with; is it cut off?"
        )
    _check_images(inspection, (root / "images" / person.image for person in people), quick, progress)
    return inspection


def check_lsp(root: Path, *, quick: bool = False, progress: bool = True) -> Inspection:
    """Checks LSP, and its extension if there is one."""
    inspection = Inspection(f"LSP in {root}", LSP_HELP.format(root=root))
    own, extended = lsp.folders(root)
    for name, folder, read, count in (("lsp", own, lsp.read_lsp, 2000), ("lspet", extended, lsp.read_lspet, 10000)):
        if name == "lspet" and not folder.exists():
            inspection.present.append("no extension (lspet); Table 3 trains on it too")
            continue
        try:
            people = read(folder)
        except Exception as error:  # scipy raises all kinds of errors
            inspection.problems.append(f"{folder / 'joints.mat'}: {error}")
            continue
        inspection.present.append(f"{name}: {len(people):,} people" + (f" of {count:,}" if len(people) < count else ""))
        _check_images(inspection, people.files, quick, progress)
    return inspection


def _check_images(inspection: Inspection, files: Iterable[Path], quick: bool, progress: bool) -> None:
    names = sorted(set(files))
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow releases Python's lock while it decodes
        results = pool.map(partial(_wrong_with, quick=quick), names)
        wrong = [text for text in tqdm(results, "images", len(names), disable=not progress) if text]
    inspection.present.append(
        f"images: {len(names) - len(wrong):,} of {len(names):,} {'are there' if quick else 'can be read'}"
    )
    inspection.problems += wrong


def _wrong_with(path: Path, quick: bool) -> str | None:
    if not path.is_file():
        return f"{path} is missing"
    if path.stat().st_size == 0:
        return f"{path} is empty"
    try:
        if not quick:
            with Image.open(path) as image:
                image.load()
    except UNREADABLE as error:
        return f"{path} cannot be read: {error}"
    return None


@contextmanager
def pointing_at_check(options: str) -> Iterator[None]:
    """Adds to errors how to list all that is missing, and shortens long lists of files."""
    try:
        yield
    except (OSError, ValueError) as error:
        lines = str(error).splitlines()
        if len(lines) > LISTED:
            lines = [*lines[: LISTED - 2], f"  … and {len(lines) - LISTED + 1} more", lines[-1]]
        check = f"`python -m examples.datasets.check {options}` says what is missing and where to get it."
        kind = (
            FileNotFoundError if isinstance(error, FileNotFoundError) else OSError if isinstance(error, OSError) else ValueError
        )
        raise kind("\n".join([*lines, check])) from error


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints what is wrong and returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m examples.datasets.check", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--mpii", type=Path, metavar="DIR", help="folder with images/ and the annotations")
    parser.add_argument("--lsp", type=Path, metavar="DIR", help="folder with lsp/ and lspet/")
    parser.add_argument("--quick", action="store_true", help="check only that images exist, without decoding them")
    parser.add_argument("--all", action="store_true", help="list every file, however many")
    options = parser.parse_args(arguments)
    if options.mpii is None and options.lsp is None:
        parser.error("--mpii or --lsp should say which folder to look at. Found neither.")
    inspections = [
        function(root, quick=options.quick, progress=sys.stderr.isatty())
        for function, root in ((check_mpii, options.mpii), (check_lsp, options.lsp))
        if root is not None
    ]
    print("\n\n".join(inspection.text(None if options.all else SHOWN) for inspection in inspections))
    return int(any(inspection.problems for inspection in inspections))


if __name__ == "__main__":
    raise SystemExit(main())

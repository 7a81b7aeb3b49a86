"""The people that a run trains and tests on: drawn people, MPII, LSP, or MPII with LSP."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from examples.datasets import lsp, mpii
from examples.datasets.check import pointing_at_check
from examples.datasets.crop_cache import load_crops
from examples.datasets.cropping import Originals, concatenate
from examples.datasets.drawn_people import draw_people
from examples.datasets.people import People

Test = Literal["drawn", "mpii-valid", "lsp-test"]


@dataclass(frozen=True)
class Metric:
    """The score of a data set: its name, the threshold of its table and those of its curve."""

    name: str
    threshold: float
    curve: tuple[float, ...]


POSES = {"narrow": "drawn people who stand and walk", "wide": "drawn people who also bend and lie"}
PCKH = Metric("PCKh", 0.5, (0.1, 0.2, 0.3, 0.4, 0.5))
PCK_TORSO = Metric("PCK", 0.2, (0.05, 0.1, 0.15, 0.2))


@dataclass(frozen=True)
class Source:
    """A choice of people. number: None means all. poses, seed: for drawn people only."""

    number: int | None = None
    poses: Literal["narrow", "wide"] = "narrow"
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Data:
    """People to train on, to validate and to test on, with names for reports.

    validation: decides when the learning rate falls. The test people decide nothing, except in MPII, whose validation people
        are those of the paper's Table 1.
    originals: the test people in their photographs, if any.
    source: how to choose the same test people again.
    """

    people: People
    validation: People
    test: People
    metric: Metric
    trained_on: str
    tested_on: str
    kind: Test
    originals: Originals | None = None
    source: Source = Source()

    def described(self) -> dict[str, Any]:
        """The description for results.json."""
        return {
            "train": self.trained_on,
            "test": self.tested_on,
            "kind": self.kind,
            "source": asdict(self.source),
            "train_people": len(self.people),
            "validation_people": len(self.validation),
            "test_people": len(self.test),
            "joints": self.people.joints.name,
            "coordinates": "crops" if self.originals is None else "original photographs",
        }


def drawn(train: Source, test: Source, *, size: int) -> Data:
    """Drawn people with MPII's joints. They need no files, but a `number`."""
    held_out = replace(train, number=max(1, (test.number or 3) // 3), seed=test.seed + 1)
    people, validation, shown = (_draw(source, size) for source in (train, held_out, test))
    return Data(people, validation, shown, PCKH, POSES[train.poses], POSES[test.poses], "drawn", source=test)


def of_mpii(root: Path, train: Source, test: Source, *, size: int, **cache: Any) -> Data:
    """MPII with its validation people held out, as in Table 1. cache: further arguments of `load_crops`."""
    with pointing_at_check(f"--mpii {root}"):
        people, _ = _crops(_limited(mpii.read_mpii(root, "train"), train), "mpii-train", size, cache)
    shown, where = people_to_test("mpii-valid", test, size=size, mpii_root=root, **cache)
    return Data(people, shown, shown, PCKH, "MPII training set", "MPII validation set", "mpii-valid", where, test)


def of_lsp(
    root: Path, train: Source, test: Source, *, size: int, extension: bool = True, mpii_root: Path | None = None, **cache: Any
) -> Data:
    """Trains on LSP's first half, its extension and all labelled people of MPII; tests on LSP's second half (Table 3).

    The last tenth of LSP's first half is held out for validation.
    """
    parts, names = [], []
    own, extended = lsp.folders(root)
    with pointing_at_check(f"--lsp {root}" + (f" --mpii {mpii_root}" if mpii_root else "")):
        if mpii_root is not None:
            parts.append(mpii.common_joints(mpii.read_mpii(mpii_root, "trainval")))
            names.append("MPII")
        first_half = lsp.split_of(lsp.read_lsp(own), "train")
        kept = len(first_half) - max(1, len(first_half) // 10)
        parts.append(first_half.subset(range(kept)))
        names.append("LSP training set")
        if extension and (train.number is None or train.number > sum(map(len, parts))):
            parts.append(lsp.read_lspet(extended))
            names.append("LSPET")
        together = _limited(concatenate(parts), train)
        people, _ = _crops(together, "mpii-lsp-train" if mpii_root else "lsp-train", size, cache)
        validation, _ = _crops(first_half.subset(range(kept, len(first_half))), "lsp-validation", size, cache)
    shown, where = people_to_test("lsp-test", test, size=size, lsp_root=root, **cache)
    return Data(people, validation, shown, PCK_TORSO, " + ".join(names), "LSP test set", "lsp-test", where, test)


def people_to_test(
    kind: Test, source: Source, *, size: int, mpii_root: Path | None = None, lsp_root: Path | None = None, **cache: Any
) -> tuple[People, Originals | None]:
    """Only the test people of a comparison. Raises ValueError if their folder is missing."""
    if kind == "drawn":
        return _draw(source, size), None
    root, option = (mpii_root, "--mpii") if kind == "mpii-valid" else (lsp_root, "--lsp")
    if root is None:
        raise ValueError(f"The folder of the test people should be given for {kind}. Found none; pass {option} DIR.")
    with pointing_at_check(f"{option} {root}"):
        everybody = (
            mpii.read_mpii(root, "valid") if kind == "mpii-valid" else lsp.split_of(lsp.read_lsp(lsp.folders(root)[0]), "test")
        )
        return _crops(_limited(everybody, source), kind, size, cache)


def canvas_of(size: int) -> int:
    """The side of a crop with its surroundings, for views that turn and zoom out."""
    return size * 3 // 2


def _draw(source: Source, size: int) -> People:
    if source.number is None:
        raise ValueError("Drawn people should have a number. Found None; pass --people and --test-people.")
    return draw_people(source.number, size=size, canvas=canvas_of(size), poses=source.poses, seed=source.seed)


def _limited(people: Originals, source: Source) -> Originals:
    """The first `number` people, before any is cropped: a test with 100 people need not wait for 22,000 crops."""
    return people if source.number is None else people.subset(range(min(source.number, len(people))))


def _crops(people: Originals, name: str, size: int, cache: dict[str, Any]) -> tuple[People, Originals]:
    return load_crops(people, name, size=size, canvas=canvas_of(size), **cache)

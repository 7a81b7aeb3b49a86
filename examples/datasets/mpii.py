"""MPII Human Pose (Andriluka et al., CVPR 2014): reads its annotations in three common forms, and crops its people.

`root` has `images/` and, there or in `annot/`, one of
    mpii_annotations.json or .json.gz   the stacked-hourglass form, which marks the validation people
    train.json and valid.json           the form of HRNet and mmpose
    mpii_human_pose_v1_u12_1.mat        the official file; needs `valid_images.txt`, the list of validation images
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.io import loadmat  # type: ignore[import-untyped, unused-ignore]

from examples.datasets import lsp
from examples.datasets.cropping import Array, Originals
from examples.datasets.people import LSP, MPII

Split = Literal["train", "valid", "trainval"]

HOURGLASS = ("mpii_annotations.json", "mpii_annotations.json.gz")
HRNET = ("train.json", "valid.json")
OFFICIAL = ("mpii_human_pose_v1_u12_1.mat",)
VALID_IMAGES = "valid_images.txt"
FOLDERS = (".", "annot", "annotations", "mpii_human_pose_v1_u12_2")

# MPII's joint for each of LSP's. For LSP's neck we take MPII's upper neck, as usual: LSP's neck lies above the shoulders by
# 27 % of the way to the top of the head (median; 18 % in its extension), MPII's upper neck by 18 %, and its thorax by 0 %.
LSP_FROM_MPII = (0, 1, 2, 3, 4, 5, 10, 11, 12, 13, 14, 15, 8, 9)


@dataclass(frozen=True, eq=False)
class Annotation:
    """One person. Coordinates are pixels; (0, 0) is the centre of the image's first pixel (the files count from 1).

    centre         (x, y)   rough place of the person, as annotated
    scale          size of the person: 1 is 200 pixels tall
    joints         float64 [16, 2], zeros if not labelled
    labelled       bool [16]
    visible        bool [16], labelled and not occluded; equal to `labelled` if the file does not say
    head_size      0.6 x the diagonal of the head's rectangle, in pixels; None if the file has no rectangles
    is_validation  held out for validation by Tompson et al. (CVPR 2015)
    is_test        in the benchmark's test set, without joints
    source         numbers of image and rectangle in the official file, from 1; None in other files
    """

    image: str
    centre: tuple[float, float]
    scale: float
    joints: Array
    labelled: NDArray[np.bool_]
    visible: NDArray[np.bool_]
    head_size: float | None
    is_validation: bool
    is_test: bool = False
    source: tuple[int, int] | None = None


def read_mpii(root: Path, split: Split) -> Originals:
    """The people of a split in their photographs."""
    return originals(select(read_annotations(root), split), root / "images")


def common_joints(people: Originals) -> Originals:
    """MPII's people with LSP's 14 joints. `pck_length` becomes the torso, as in LSP."""
    joints = list(LSP_FROM_MPII)
    keypoints, visibility = people.keypoints[:, joints], people.visibility[:, joints]
    torso = lsp.torso(keypoints, visibility, people.side)
    return replace(people, keypoints=keypoints, visibility=visibility, pck_length=torso, joints=LSP)


def select(annotations: Iterable[Annotation], split: Split) -> list[Annotation]:
    """The people of a split. "train" and "valid" are the two parts of the official training set, which has joints."""
    if split not in ("train", "valid", "trainval"):
        raise ValueError(f"`split` should be 'train', 'valid' or 'trainval'. Found {split!r}.")
    people = [person for person in annotations if not person.is_test]
    chosen = [person for person in people if split == "trainval" or person.is_validation == (split == "valid")]
    if not chosen:
        raise ValueError(
            f"The annotations should hold people of the split {split!r}. Found none among {len(people)}. "
            f"The official file alone does not say who validates: put {HOURGLASS[0]} or {VALID_IMAGES} beside it."
        )
    return chosen


def originals(annotations: Sequence[Annotation], images: Path) -> Originals:
    """The windows of the usual crop: 200 pixels x scale x 1.25, with the centre 15 x scale pixels further down."""
    scale = np.array([person.scale for person in annotations])
    return Originals(
        files=tuple(images / person.image for person in annotations),
        centre=np.array([person.centre for person in annotations]) + np.stack([0 * scale, 15 * scale], 1),
        side=200 * 1.25 * scale,
        keypoints=np.stack([person.joints for person in annotations]),
        visibility=np.stack([person.labelled for person in annotations]).astype(np.float64),
        pck_length=np.array([head_size(person) for person in annotations]),
        joints=MPII,
    )


def head_size(person: Annotation) -> float:
    """The head size that PCKh divides by. MPII's scale is head size / 25, so rectangles are not needed."""
    return 25 * person.scale if person.head_size is None else person.head_size


# -- annotations -----------------------------------------------------------------------------------------------------


def find_annotations(root: str | Path) -> list[Path]:
    """The files of the first form that exists."""
    for names, all_of_them in ((HOURGLASS, False), (HRNET, True), (OFFICIAL, False)):
        for folder in FOLDERS:
            there = [path for name in names if (path := Path(root) / folder / name).is_file()]
            if len(there) == len(names) if all_of_them else there:
                return there if all_of_them else there[:1]
    raise FileNotFoundError(
        f"{root} should hold MPII's annotations: {HOURGLASS[0]} (or .gz), or {' and '.join(HRNET)}, or {OFFICIAL[0]}, "
        "there or in annot/. Found none. `python -m examples.datasets.check` says where to get them."
    )


def read_annotations(root: str | Path) -> list[Annotation]:
    """Reads the annotations in whichever form `root` has. `root` may also be a single file."""
    root = Path(root)
    paths = [root] if root.is_file() else find_annotations(root)
    if paths[0].suffix == ".mat":
        beside = paths[0].with_name(VALID_IMAGES)
        names = beside.read_text().split() if beside.is_file() else ()
        return read_mat(paths[0], names)
    return [person for path in paths for person in read_json(path, is_validation=path.name.startswith("valid"))]


def read_json(path: str | Path, *, is_validation: bool = False) -> list[Annotation]:
    """Reads the stacked-hourglass or the HRNet form. The latter has a file for each split, so pass `is_validation`."""
    path = Path(path)
    try:
        content = path.read_bytes()
        rows = json.loads(gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content)
    except (ValueError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path} should hold JSON. Found it damaged: {error}. Download it again.") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError(f"{path} should hold a list of people. Found a {type(rows).__name__} of something else.")
    people = []
    for i, row in enumerate(rows):
        try:
            people.append(_from_hourglass(row) if "joint_self" in row else _from_hrnet(row, is_validation))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{path} should hold people with `img_paths`, `objpos`, `scale_provided`, `joint_self` [16, 3] "
                f"or with `image`, `center`, `scale`, `joints` [16, 2]. Found, for person {i}: {error!r}."
            ) from error
    return people


def _from_hourglass(row: dict[str, Any]) -> Annotation:
    points = np.array(row["joint_self"], np.float64).reshape(16, 3)
    labelled = (points[:, :2] != 0).any(1)  # a joint may lie outside the image or on its border; only (0, 0) means missing
    return Annotation(
        image=row["img_paths"],
        centre=(row["objpos"][0] - 1.0, row["objpos"][1] - 1.0),
        scale=float(row["scale_provided"]),
        joints=np.where(labelled[:, None], points[:, :2] - 1, 0),
        labelled=labelled,
        visible=labelled & (points[:, 2] > 0),
        head_size=None,
        is_validation=bool(row["isValidation"]),
        source=(int(row["annolist_index"]), int(row["people_index"])) if "annolist_index" in row else None,
    )


def _from_hrnet(row: dict[str, Any], is_validation: bool) -> Annotation:
    # Centre and scale are as annotated here too: HRNet changes them only when it reads the file.
    points = np.array(row["joints"], np.float64).reshape(16, 2)
    labelled = np.array(row["joints_vis"], np.float64).reshape(16) > 0  # it says what is labelled, not what is occluded
    return Annotation(
        image=row["image"],
        centre=(row["center"][0] - 1.0, row["center"][1] - 1.0),
        scale=float(row["scale"]),
        joints=np.where(labelled[:, None], points - 1, 0),
        labelled=labelled,
        visible=labelled,
        head_size=None,
        is_validation=is_validation,
    )


# -- the official file -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Release:
    """The official file. train: bool of each image. separated: for each image, the rectangles (from 1) of separate people."""

    people: list[Annotation]
    images: list[str]
    train: NDArray[np.bool_]
    separated: list[list[int]]


def read_mat(path: str | Path, validation: Collection[str] = ()) -> list[Annotation]:
    """Reads the "sufficiently separated" people: those with joints in training images, and all in test images.

    validation: names of the images that Tompson et al. held out.
    """
    release, names = read_release(path), set(validation)
    return [
        replace(person, is_validation=not person.is_test and person.image in names)
        for person in release.people
        if person.source and person.source[1] in release.separated[person.source[0] - 1]
        if person.is_test or person.labelled.any()
    ]


def read_release(path: str | Path) -> Release:
    """Everybody in the official file who has a place and a scale."""
    path = Path(path)
    try:
        release = loadmat(str(path), struct_as_record=False, squeeze_me=True)["RELEASE"]
        annolist, train = _items(release.annolist), np.atleast_1d(release.img_train).astype(bool)
        separated = [[int(i) for i in np.ravel(ids)] for ids in _items(release.single_person)]
    except FileNotFoundError:
        raise
    except Exception as error:  # scipy raises all kinds of errors
        raise ValueError(
            f"{path} should hold MATLAB's struct `RELEASE`, as published. Found it damaged: {error!r}. Download it again."
        ) from error
    if len(annolist) != len(train) or len(separated) != len(train):
        raise ValueError(
            f"{path} should say of every image whether it trains and who is separated. "
            f"Found {len(annolist)} images, {len(train)} and {len(separated)} of these."
        )
    people = []
    for i, entry in enumerate(annolist):
        for j, rectangle in enumerate(_items(_field(entry, "annorect"))):
            person = _from_rectangle(rectangle, entry.image.name, (i + 1, j + 1), is_test=not train[i])
            if person is not None:
                people.append(person)
    return Release(people, [str(entry.image.name) for entry in annolist], train, separated)


def _from_rectangle(rectangle: Any, image: str, source: tuple[int, int], *, is_test: bool) -> Annotation | None:
    scale, place = _field(rectangle, "scale"), _field(rectangle, "objpos")
    if scale is None or _field(place, "x") is None or _field(place, "y") is None:
        return None
    corners = [_field(rectangle, name) for name in ("x1", "y1", "x2", "y2")]
    joints, labelled, visible = np.zeros((16, 2)), np.zeros(16, bool), np.zeros(16, bool)
    for point in _items(_field(_field(rectangle, "annopoints"), "point")):
        k = int(point.id)
        joints[k], labelled[k] = (float(point.x) - 1, float(point.y) - 1), True
        flag = _field(point, "is_visible")  # a number, a character, or empty (always so for necks and head tops)
        visible[k] = flag is None or bool(int(flag))
    return Annotation(
        image=str(image),
        centre=(float(place.x) - 1, float(place.y) - 1),
        scale=float(scale),
        joints=joints,
        labelled=labelled,
        visible=visible,
        head_size=None if None in corners else 0.6 * float(np.hypot(corners[2] - corners[0], corners[3] - corners[1])),
        is_validation=False,
        is_test=is_test,
        source=source,
    )


def _items(value: Any) -> list[Any]:
    """MATLAB's struct array or cell as a list. It may be missing, empty, or a single element instead of an array."""
    if isinstance(value, np.ndarray) and value.dtype == object:
        return list(value.ravel())
    return [] if value is None or np.size(value) == 0 else [value]


def _field(struct: Any, name: str) -> Any:
    """A field of a struct. None if there is no struct or no such field, or if it is empty."""
    value = getattr(struct, name, None)
    return None if value is None or np.size(value) == 0 or (isinstance(value, str) and not value) else value

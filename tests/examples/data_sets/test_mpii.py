from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat  # type: ignore[import-untyped, unused-ignore]

from examples.datasets import check, lsp, mpii
from examples.datasets.crop_cache import load_crops
from examples.datasets.cropping import concatenate
from examples.datasets.people import LSP, MPII

REAL = Path(__file__).parents[3].parent / "shared" / "data"
needs_annotations = pytest.mark.skipif(
    not (REAL / "mpii" / "mpii_annotations.json.gz").is_file(), reason="needs MPII's annotations in ../shared/data"
)
EMPTY = np.zeros((0, 0))


def structs(rows: list[dict[str, Any]]) -> np.ndarray:
    """MATLAB's struct array: every element has all the fields, empty where it has no value."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    array = np.empty((1, len(rows)), dtype=[(name, object) for name in names])
    for i, row in enumerate(rows):
        for name in names:
            array[name][0, i] = row.get(name, EMPTY)
    return array


def cells(values: list[Any]) -> np.ndarray:
    array = np.empty((len(values), 1), object)
    for i, value in enumerate(values):
        array[i, 0] = value
    return array


def points(joints: np.ndarray, visible: list[Any], ids: list[int]) -> np.ndarray:
    return structs([{"x": joints[k, 0], "y": joints[k, 1], "id": k, "is_visible": visible[k]} for k in ids])


@pytest.fixture
def joints() -> np.ndarray:
    """[2, 16, 2], counted from 1 as in the files."""
    return np.random.default_rng(0).uniform((40, 30), (160, 130), (2, 16, 2)).round(3)


@pytest.fixture
def root(tmp_path: Path, joints: np.ndarray) -> Path:
    """The official file with its irregularities, the other two forms of the same people, and their images."""
    visible: list[Any] = ["1", "0", 1, 0, "1", np.uint8(0), True, False, EMPTY, "", "1", "1", "1", "1", "1", "1"]
    shuffled = np.random.default_rng(1).permutation(16).tolist()
    head = {"x1": 80, "y1": 20, "x2": 110, "y2": 60}
    place = {"scale": 2.0, "objpos": {"x": 100.0, "y": 80.0}}
    annolist = [
        {  # two people, the second without joints 0, 5; the third without joints at all
            "image": {"name": "a.jpg"},
            "annorect": structs(
                [
                    {**head, **place, "annopoints": {"point": points(joints[0], visible, shuffled)}},
                    {**head, **place, "annopoints": {"point": points(joints[1], visible, [1, 2, 3, 4, *range(6, 16)])}},
                    {**place},
                ]
            ),
        },
        {"image": {"name": "b.jpg"}, "annorect": EMPTY},
        {"image": {"name": "c.jpg"}, "annorect": {**place}},  # of the test set: one struct, neither head nor joints
        {"image": {"name": "d.jpg"}, "annorect": {**head, **place, "annopoints": {"point": points(joints[0], visible, [9])}}},
        {"image": {"name": "e.jpg"}, "annorect": structs([{**head}, {"scale": 1.0}, {**head, **place, "annopoints": EMPTY}])},
        {"image": {"name": "f.jpg"}, "annorect": structs([{**place}, {**place}, {"scale": 1.0}])},
    ]
    release = {
        "annolist": structs(annolist),
        "img_train": np.array([[1, 1, 0, 1, 1, 0]], np.uint8),
        "single_person": cells([np.array([[1], [2], [3]], np.uint8), EMPTY, 1, 1, np.array([[1], [2], [3]]), 2]),
        "version": "12",
    }
    savemat(tmp_path / "mpii_human_pose_v1_u12_1.mat", {"RELEASE": release}, long_field_names=True)

    (tmp_path / "images").mkdir()
    for name in "abcdef":
        Image.new("RGB", (201, 161), (200, 30, 30)).save(tmp_path / "images" / f"{name}.jpg")
    return tmp_path


def hourglass_row(joints: np.ndarray, labelled: list[bool], **more: Any) -> dict[str, Any]:
    self = [[*point, 1.0] if known else [0.0, 0.0, 0.0] for point, known in zip(joints.tolist(), labelled, strict=True)]
    common = {"dataset": "MPI", "img_paths": "a.jpg", "objpos": [100.0, 80.0], "scale_provided": 2.0, "joint_self": self}
    return {**common, "annolist_index": 1.0, "people_index": 1.0, "isValidation": 0.0, "numOtherPeople": 0.0, **more}


def test_the_official_file_with_its_irregularities(root: Path, joints: np.ndarray) -> None:
    people = mpii.read_mat(root / "mpii_human_pose_v1_u12_1.mat", ["d.jpg", "f.jpg"])
    assert [(person.image, person.source) for person in people] == [
        *(("a.jpg", (1, 1)), ("a.jpg", (1, 2)), ("c.jpg", (3, 1)), ("d.jpg", (4, 1)), ("f.jpg", (6, 2)))
    ]
    first, second, test, alone, _ = people
    np.testing.assert_allclose(first.joints, joints[0] - 1)
    assert first.labelled.all()
    assert first.visible.astype(int).tolist() == [1, 0, 1, 0, 1, 0, 1, 0, 1, 1, 1, 1, 1, 1, 1, 1]
    assert (first.centre, first.scale, first.head_size) == ((99, 79), 2, pytest.approx(0.6 * 50))
    assert np.flatnonzero(~second.labelled).tolist() == [0, 5]
    assert (second.joints[[0, 5]] == 0).all()
    assert (test.is_test, test.head_size, test.labelled.any()) == (True, None, False)
    assert np.flatnonzero(alone.labelled).tolist() == [9]
    assert [person.is_validation for person in people] == [False, False, False, True, False]
    assert [len(mpii.select(people, split)) for split in ("train", "valid", "trainval")] == [2, 1, 3]
    assert len(mpii.read_release(root / "mpii_human_pose_v1_u12_1.mat").people) == 8


def test_the_three_forms_agree(root: Path, joints: np.ndarray) -> None:
    known = [k not in (0, 5) for k in range(16)]
    official = mpii.read_annotations(root)
    (root / "annot").mkdir()
    rows = [hourglass_row(joints[0], [True] * 16), hourglass_row(joints[1], known, people_index=2.0, isValidation=1.0)]
    with gzip.open(root / "annot" / "mpii_annotations.json.gz", "wt") as file:
        json.dump(rows, file)
    hourglass = mpii.read_annotations(root)
    for path, row, labelled in (("train.json", joints[0], [True] * 16), ("valid.json", joints[1], known)):
        points = np.where(np.array(labelled)[:, None], row, -1).tolist()
        entry = {
            "image": "a.jpg",
            "center": [100, 80],
            "scale": 2,
            "joints": points,
            "joints_vis": np.array(labelled, int).tolist(),
        }
        (root / path).write_text(json.dumps([entry]))
    hrnet = [*mpii.read_annotations(root / "train.json"), *mpii.read_annotations(root / "valid.json")]
    for people in (hourglass, hrnet):
        assert [person.is_validation for person in people] == [False, True]
        for person, expected in zip(people, official, strict=False):
            np.testing.assert_allclose(person.joints, expected.joints)
            assert person.labelled.tolist() == expected.labelled.tolist()
            assert (person.centre, person.scale, person.image) == (expected.centre, expected.scale, expected.image)
    assert [person.source for person in hourglass] == [(1, 1), (1, 2)]


def test_a_joint_outside_the_image_is_labelled(joints: np.ndarray) -> None:
    row = hourglass_row(joints[0], [True] * 16)
    row["joint_self"][0], row["joint_self"][1] = [0.0, 12.0, 1.0], [-7.0, 3.0, 0.0]
    person = mpii._from_hourglass(row)
    assert person.labelled.all()
    assert not person.visible[1]
    assert person.joints[:2].tolist() == [[-1, 11], [-8, 2]]


def test_the_usual_crop(root: Path) -> None:
    people = mpii.originals(mpii.read_annotations(root)[:1], root)
    assert people.centre.tolist() == [[99, 79 + 30]]
    assert people.side.tolist() == [500]
    # The first pixel of the crop begins where the window does, half a pixel before its centre.
    corner = people.to_image(np.array([[[-0.5, -0.5], [255.5, 255.5]]]), 256)
    np.testing.assert_allclose(corner, [[[99 - 250, 109 - 250], [99 + 250, 109 + 250]]])


@pytest.mark.parametrize(("size", "canvas"), [(256, 256), (256, 384), (64, 96), (7, 13)])
def test_to_the_crop_and_back(root: Path, size: int, canvas: int) -> None:
    people = mpii.originals(mpii.read_annotations(root)[:2], root)
    inside = people.to_crop(people.keypoints, size, canvas)
    np.testing.assert_allclose(people.to_image(inside, size, canvas), people.keypoints, atol=1e-10)
    np.testing.assert_allclose(inside - (canvas - size) / 2, people.to_crop(people.keypoints, size), atol=1e-10)


@pytest.mark.parametrize("content", [b"", b"MATLAB 5.0 MAT-file, cut", b"cut"])
def test_a_damaged_file_is_named(tmp_path: Path, content: bytes, root: Path) -> None:
    path = root / "mpii_human_pose_v1_u12_1.mat"
    path.write_bytes(path.read_bytes()[: len(path.read_bytes()) // 2] if content == b"cut" else content)
    with pytest.raises(ValueError, match=r"u12_1\.mat should hold .* Found it damaged"):
        mpii.read_annotations(root)
    for name, text in (("a.json", '[{"joint_self": [[1'), ("b.json", '[{"joint_self": [[1, 2, 3]]}]')):
        (tmp_path / name).write_text(text)
        with pytest.raises(ValueError, match=f"{name} should hold"):
            mpii.read_json(tmp_path / name)
    (tmp_path / "c.json.gz").write_bytes(gzip.compress(b"[]" * 1000)[:20])
    with pytest.raises(ValueError, match=r"c\.json\.gz should hold JSON"):
        mpii.read_json(tmp_path / "c.json.gz")


def test_a_missing_form_and_a_missing_split_say_what_to_do(tmp_path: Path, root: Path) -> None:
    with pytest.raises(FileNotFoundError, match="should hold MPII's annotations"):
        mpii.find_annotations(tmp_path / "images")
    with pytest.raises(ValueError, match=r"put mpii_annotations\.json or valid_images\.txt beside it"):
        mpii.read_mpii(root, "valid")
    (root / "valid_images.txt").write_text("d.jpg\n")
    assert len(mpii.select(mpii.read_annotations(root), "valid")) == 1


def test_people_and_common_joints(root: Path) -> None:
    people = load_crops(mpii.read_mpii(root, "trainval"), "mpii", size=32, canvas=48, cache_dir=root, progress=False)[0]
    assert people.images.shape == (3, 3, 48, 48)
    assert people.joints == MPII
    everybody = mpii.originals(mpii.select(mpii.read_annotations(root), "trainval"), root / "images")
    torch.testing.assert_close(people.pck_length, torch.from_numpy(everybody.pck_length * 32 / everybody.side).float())
    after = mpii.common_joints(everybody)
    assert after.joints == LSP
    assert after.keypoints.shape == (3, 14, 2)
    for index, name in zip(mpii.LSP_FROM_MPII, LSP.names, strict=True):
        assert MPII.names[index].removeprefix("upper ") == name


def test_mpii_with_lsp(root: Path, tmp_path: Path, joints: np.ndarray) -> None:
    (tmp_path / "lsp" / "images").mkdir(parents=True)
    for i in (1, 2):
        Image.new("RGB", (201, 161), (30, 30, 200)).save(tmp_path / "lsp" / "images" / f"im000{i}.jpg")
    flags = np.zeros((2, 14, 1))
    savemat(tmp_path / "lsp" / "joints.mat", {"joints": np.concatenate([joints[:, :14], flags], 2).transpose(2, 1, 0)})
    options: dict[str, Any] = {"size": 32, "canvas": 48, "cache_dir": root, "progress": False}
    everybody = concatenate([mpii.common_joints(mpii.read_mpii(root, "trainval")), lsp.read_lsp(tmp_path / "lsp").subset([0])])
    people, _ = load_crops(everybody, "mpii-lsp", **options)
    assert len(people) == 4
    assert people.joints == LSP
    alone = lsp.load_lsp(tmp_path, "train", **options)
    torch.testing.assert_close(people.images[3:], alone.images)
    torch.testing.assert_close(people.keypoints[3:], alone.keypoints)
    torch.testing.assert_close(people.pck_length[3:], alone.pck_length)


# -- check -----------------------------------------------------------------------------------------------------------


def test_check_says_what_is_wrong_file_by_file(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "valid_images.txt").write_text("d.jpg\n")
    assert check.main(["--mpii", str(root)]) == 0
    assert "complete" in capsys.readouterr().out
    images = root / "images"
    (images / "a.jpg").unlink()
    (images / "c.jpg").write_bytes((images / "c.jpg").read_bytes()[:700])
    (images / "d.jpg").write_bytes(b"")
    assert check.main(["--mpii", str(root), "--lsp", str(root)]) == 1
    text = capsys.readouterr().out
    assert "annotations: mpii_human_pose_v1_u12_1.mat" in text
    for line in (f"{images}/a.jpg is missing", f"{images}/c.jpg cannot be read", f"{images}/d.jpg is empty", "1 of 4 can"):
        assert line in text
    assert "mpii_human_pose_v1.tar.gz" in text  # what to download, and where to
    assert f"{root}/lsp" in text
    assert check.main(["--mpii", str(root), "--quick"]) == 1
    assert "c.jpg" not in capsys.readouterr().out


def test_check_without_annotations_or_with_few(tmp_path: Path, root: Path, joints: np.ndarray) -> None:
    assert any("Found none" in problem for problem in check.check_mpii(tmp_path / "images").problems)
    (root / "mpii_annotations.json").write_text(json.dumps([hourglass_row(joints[0], [True] * 16)]))
    assert any("is it cut off" in problem for problem in check.check_mpii(root, progress=False).problems)
    (root / "mpii_annotations.json").unlink()
    official = root / "mpii_human_pose_v1_u12_1.mat"
    official.write_bytes(official.read_bytes()[:2000])
    (problem,) = check.check_mpii(root, progress=False).problems
    assert str(official) in problem
    assert "Download it again" in problem
    inspection = check.Inspection("many", "help", problems=[str(i) for i in range(99)])
    assert "and 49 more" in inspection.text()
    assert "and 49 more" not in inspection.text(None)
    with pytest.raises(SystemExit):
        check.main([])


# -- the real annotations --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def published() -> list[mpii.Annotation]:
    return mpii.read_annotations(REAL / "mpii")


@needs_annotations
def test_the_published_annotations(published: list[mpii.Annotation]) -> None:
    people = published
    assert len(people) == 25204
    assert len(mpii.select(people, "valid")) == 2958
    assert not {person.image for person in mpii.select(people, "train")} & {p.image for p in mpii.select(people, "valid")}
    assert len({person.source for person in people}) == 25204
    labelled = np.stack([person.labelled for person in people])
    assert 0.9 < labelled.mean() < 0.99
    assert all((person.joints[~person.labelled] == 0).all() for person in people)
    crops = mpii.originals(people, REAL / "mpii" / "images")
    inside = crops.to_crop(crops.keypoints, 256)[labelled]
    assert ((inside > -0.5) & (inside < 255.5)).all(1).mean() > 0.99
    hrnet = REAL / "mpii" / "hrnet_format_5_images.json"
    for few in mpii.read_json(hrnet, is_validation=True) if hrnet.is_file() else ():
        (same,) = [p for p in people if p.image == few.image and np.hypot(*np.subtract(p.centre, few.centre)) < 1]
        assert few.scale == pytest.approx(same.scale, abs=1e-3)
        np.testing.assert_allclose(few.joints, same.joints, atol=1e-3)
        assert few.labelled.tolist() == same.labelled.tolist()


@needs_annotations
def test_head_sizes_follow_from_the_scale(published: list[mpii.Annotation]) -> None:
    h5py = pytest.importorskip("h5py", reason="needs h5py to read the published head sizes")
    people = mpii.select(published, "valid")
    with h5py.File(REAL / "mpii" / "valid.h5") as file:
        assert [person.source for person in people] == [
            (int(i) + 1, int(j) + 1) for i, j in zip(file["index"][()], file["person"][()], strict=True)
        ]
        np.testing.assert_allclose([mpii.head_size(person) for person in people], file["normalize"][()], atol=0.0126)
        crops, parts = mpii.originals(people, REAL), file["part"][()]
        known = crops.visibility > 0
        assert (known == parts.any(-1)).all()
        assert np.abs(crops.keypoints + 1 - parts)[known].max() <= 1  # whole pixels there
        np.testing.assert_allclose(crops.centre + 1, file["center"][()], atol=0.01)
        np.testing.assert_allclose(crops.side / 200, file["scale"][()], atol=0.001)


@needs_annotations
def test_the_published_images(tmp_path: Path, published: list[mpii.Annotation]) -> None:
    annotations = [p for p in published if (REAL / "mpii" / "images" / p.image).is_file()]
    crops = mpii.originals(annotations, REAL / "mpii" / "images")
    people, _ = load_crops(crops, "few", size=64, canvas=96, cache_dir=tmp_path, progress=False)
    x, y = people.keypoints.round().long().clamp(0, 95).unbind(2)
    pixels = people.images.sum(1)[torch.arange(len(people))[:, None], y, x]
    assert (pixels[people.visibility > 0] > 0).float().mean() > 0.98

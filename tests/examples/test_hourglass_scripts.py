"""The two scripts from end to end on tiny copies of MPII and LSP."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import loadmat, savemat  # type: ignore[import-untyped, unused-ignore]

import adaug
from benchmarks import result_files
from benchmarks.compare import __main__ as driver
from benchmarks.compare import of_examples, studies
from benchmarks.compare.studies import hourglasses
from benchmarks.paper import server_file
from benchmarks.paper.comparisons import load_model
from examples import hourglass_lsp, hourglass_mpii
from examples.datasets import check
from examples.datasets.check import pointing_at_check
from examples.datasets.drawn_people import draw_people
from examples.datasets.people import LSP, MPII
from examples.datasets.photograph_pck import pck_in_photographs
from examples.hourglass import comparison, data
from examples.hourglass.augmentation import policy_of
from examples.hourglass.config import PAPER, Config, run_script, starting_point
from examples.hourglass.data import Source
from tests.examples.data_sets.test_mpii import hourglass_row, points, structs

TRAIN, VALID = 6, 3
TINY = [
    *("--size", "32", "--width", "8", "--depth", "2", "--stride", "2", "--modules", "1"),
    *("--epochs", "1", "0", "0", "--batch-size", "3", "--bins-every", "0", "--arms", "random", "--device", "cpu"),
]


@pytest.fixture(autouse=True)
def _quiet() -> Any:
    with warnings.catch_warnings():  # TensorBoard's own imports warn
        warnings.filterwarnings("ignore", category=DeprecationWarning, module="tensorboard")
        yield


@pytest.fixture
def mpii_root(tmp_path: Path) -> Path:
    """Drawn people as photographs, one each, with annotations in the form of the stacked-hourglass ports."""
    root = tmp_path / "mpii"
    (root / "images").mkdir(parents=True)
    people = draw_people(TRAIN + VALID, size=120, canvas=160)
    rows = []
    for i in range(len(people)):
        Image.fromarray(people.images[i].permute(1, 2, 0).numpy()).save(root / "images" / f"{i}.jpg", quality=95)
        rows.append(
            hourglass_row(
                people.keypoints[i].double().numpy() + 1,
                [True] * 16,
                img_paths=f"{i}.jpg",
                objpos=[80.0, 75.0],
                scale_provided=0.5,
                annolist_index=i + 1.0,
                isValidation=float(i >= TRAIN),
            )
        )
    (root / "mpii_annotations.json").write_text(json.dumps(rows))
    return root


@pytest.fixture
def lsp_root(tmp_path: Path) -> Path:
    """Four photographs of LSP and two of its extension."""
    root, rng = tmp_path / "leeds", np.random.default_rng(0)
    for name, digits, n in (("lsp", 4, 4), ("lspet", 5, 2)):
        (root / name / "images").mkdir(parents=True)
        for i in range(1, n + 1):
            Image.new("RGB", (100, 120), (30, 30, 200)).save(root / name / "images" / f"im{i:0{digits}d}.jpg")
        joints = np.concatenate([rng.uniform((25, 25), (75, 95), (n, 14, 2)), np.ones((n, 14, 1))], 2)
        savemat(root / name / "joints.mat", {"joints": joints.transpose((2, 1, 0) if name == "lsp" else (1, 2, 0))})
    return root


def run(module: Any, tmp_path: Path, *options: object, out: str = "out") -> dict[str, Any]:
    return module.main([*TINY, "--cache", str(tmp_path / "cache"), "--out", str(tmp_path / out), *map(str, options)])


def predict(tmp_path: Path, mpii_root: Path, file: Path, seeds: Sequence[int] = (0,)) -> None:
    folders = [str(tmp_path / "out" / f"random-seed{seed}") for seed in seeds]
    cache = ["--cache", str(tmp_path / "cache"), "--device", "cpu"]
    server_file.main([*folders, "--mpii", str(mpii_root), "--file", str(file), *cache])


def test_mpii_from_end_to_end(mpii_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "found" / "pred.json"
    results = run(hourglass_mpii, tmp_path, "--mpii", mpii_root)
    assert results["data"] == {
        "train": "MPII training set",
        "test": "MPII validation set",
        "kind": "mpii-valid",
        "source": {"number": None, "poses": "narrow", "seed": 0},
        "train_people": TRAIN,
        "validation_people": VALID,
        "test_people": VALID,
        "joints": "MPII",
        "coordinates": "original photographs",
    }
    (scores,) = results["arms"]["random"]
    assert list(scores["benchmark"]) == ["0.1", "0.2", "0.3", "0.4", "0.5"]
    printed = capsys.readouterr().out
    assert "as the benchmark counts it, in pixels of the original photographs" in printed
    predict(tmp_path, mpii_root, file)
    assert str(file) in capsys.readouterr().out
    # The file's joints give the very scores of results.json, so it is in pixels of the photographs.
    written = json.loads(file.read_text())["people"]
    assert [person["image"] for person in written] == [f"{i}.jpg" for i in range(TRAIN, TRAIN + VALID)]
    _, where = data.people_to_test("mpii-valid", Source(), size=32, mpii_root=mpii_root, cache_dir=tmp_path / "cache")
    assert where is not None
    for threshold, row in scores["benchmark"].items():
        assert pck_in_photographs(np.array([person["joints"] for person in written]), where, float(threshold)) == row


def test_a_perfect_network_scores_100_on_mpii(mpii_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "_predict_in_photographs", lambda run, people, where: where.keypoints)
    results = run(hourglass_mpii, tmp_path, "--mpii", mpii_root, "--people", 4, "--test-people", 2)
    assert set(results["arms"]["random"][0]["benchmark"]["0.1"].values()) == {100.0}
    assert results["people"] == {"train": 4, "test": 2, "joints": "MPII"}


def test_the_servers_file(mpii_root: Path, tmp_path: Path) -> None:
    people = draw_people(4, size=120, canvas=160, seed=3).keypoints.double().numpy() + 1
    place = {"scale": 0.5, "objpos": {"x": 80.0, "y": 75.0}}
    head = {"x1": 70, "y1": 20, "x2": 90, "y2": 40}
    labelled = [{"point": points(joints, [1] * 16, list(range(16)))} for joints in people]
    annolist = [
        {
            "image": {"name": f"{i}.jpg"},
            "annorect": structs([{**head, **place, **({"annopoints": labelled[i]} if i < 4 else {})}]),
        }
        for i in range(6)
    ]
    release = {
        "annolist": structs(annolist),
        "img_train": np.array([[1, 1, 1, 1, 0, 0]], np.uint8),
        "single_person": np.array([[np.array([[1]])]] * 6, object).reshape(6, 1),
    }
    (mpii_root / "mpii_annotations.json").unlink()
    savemat(mpii_root / "mpii_human_pose_v1_u12_1.mat", {"RELEASE": release}, long_field_names=True)
    (mpii_root / "valid_images.txt").write_text("3.jpg\n")
    file = tmp_path / "pred_keypoints_mpii.mat"
    run(hourglass_mpii, tmp_path, "--mpii", mpii_root, "--seeds", 0, 1)
    predict(tmp_path, mpii_root, file)
    pred = loadmat(str(file), struct_as_record=False, squeeze_me=True)["pred"]
    assert [entry.image.name for entry in pred] == ["4.jpg", "5.jpg"]
    assert all(len(entry.annorect.annopoints.point) == 16 for entry in pred)
    predict(tmp_path, mpii_root, file, seeds=(0, 1))
    assert {path.name for path in tmp_path.glob("*.mat")} == {
        "pred_keypoints_mpii.mat",
        "pred_keypoints_mpii-random-seed0.mat",
        "pred_keypoints_mpii-random-seed1.mat",
    }


@pytest.mark.parametrize(("extension", "count"), [pytest.param([], 10, marks=pytest.mark.slow), (["--lspet"], 12)])
def test_mpii_with_lsp(mpii_root: Path, lsp_root: Path, tmp_path: Path, extension: list[str], count: int) -> None:
    results = run(hourglass_mpii, tmp_path, "--mpii", mpii_root, "--lsp", lsp_root, *extension)
    assert results["people"] == {"train": count, "test": 2, "joints": "LSP"}
    assert results["data"]["train"] == "MPII + LSP training set" + (" + LSPET" if extension else "")
    assert (results["metric"]["name"], results["metric"]["threshold"]) == ("PCK", 0.2)
    folder = tmp_path / "out" / "random-seed0"
    config, model = load_model(folder, LSP)
    with pytest.raises(ValueError, match=r"should hold a run on the joints of MPII\. Found one on LSP-"):
        load_model(folder, MPII)
    assert (config.size, config.epochs, config.seed) == (32, (1, 0, 0), 0)
    assert model(torch.zeros(1, 3, 32, 32))[-1].shape[1] == len(LSP) < len(MPII)


def test_lsp_from_end_to_end(lsp_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = run(hourglass_lsp, tmp_path, "--data", lsp_root)
    assert results["people"] == {"train": 3, "test": 2, "joints": "LSP"}  # one of four is held out for validation
    (scores,) = results["arms"]["random"]
    # The torso scales with the crop, so both coordinates count the same joints.
    assert scores["benchmark"]["0.2"]["Mean"] == pytest.approx(scores["pck"]["0.2"]["Mean"])
    assert "PCK@0.2 as the benchmark counts it" in capsys.readouterr().out


@pytest.mark.slow
def test_a_study_scores_people_by_their_audits(
    lsp_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("RESULTS", "RAW"):
        monkeypatch.setattr(result_files, name, tmp_path / name)
    options = (*TINY[: TINY.index("--arms")], "--device", "cpu", "--cache", str(tmp_path / "cache"))
    arms = hourglasses.LSP_300.arms[1:3]
    study = replace(
        hourglasses.LSP_300, task=lambda data: of_examples.Example(data, options), arms=arms, against=["random"], seeds=1
    )
    monkeypatch.setitem(studies.STUDIES, "accuracy_lsp_300", study)
    driver.main(["accuracy_lsp_300", "--data", str(lsp_root), "--out", str(tmp_path / "runs")])
    assert (tmp_path / "RESULTS" / "accuracy_lsp_300.svg").is_file()
    printed = capsys.readouterr().out
    assert "| arm     | seeds | as it is | grid mean | weakest view | worst per image | worst 10 % | in every view |" in printed
    assert "rotate -60°" in printed.split("Other scores")[-1]
    path = sorted((tmp_path / "runs").rglob("seed0.json"))[0]
    run = json.loads(path.read_text())
    audit = adaug.Audit.load(next(path.parent.rglob("audit-*.npz")))
    assert run["scores"]["grid mean"] == pytest.approx(100 * float(audit.mean("rotate × scale")))
    assert run["scores"]["hidden"] == pytest.approx(100 * float(audit.mean("occlude")))
    assert {"PCK, flip test", "training gap", "scale 1.41"} <= run["scores"].keys()


def test_paper_gives_other_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    assert starting_point(Config(), ["--seeds", "1"]) == Config()
    assert starting_point(Config(), ["--paper"]) == PAPER
    dense = starting_point(Config(), ["--paper", "--block", "dense"])
    assert (dense.block, dense.modules, dense.size) == ("dense", 6, 256)
    configs = []
    for module in (hourglass_mpii, hourglass_lsp):
        monkeypatch.setattr(module, "compare", lambda people, config, *_: configs.append(config) or {})
        monkeypatch.setattr(module, "of_lsp", lambda *_, **__: None)
    hourglass_mpii.main(["--paper", "--stacks", "2", "--people", "2", "--test-people", "2"])
    hourglass_lsp.main(["--data", "x", "--paper", "--size", "128"])
    assert [(config.stacks, config.size, config.optimizer) for config in configs] == [(2, 256, "rmsprop"), (1, 128, "rmsprop")]


def test_paper_is_the_paper() -> None:
    policy = policy_of(PAPER, LSP)
    papers = adaug.policies.paper(LSP.flip_pairs)
    assert [branch.operations for branch in policy.branches] == [branch.operations for branch in papers.branches]
    assert policy.flip == papers.flip
    how = policy.branches[0].learned
    assert (how.update.cap, how.generator.keywords["width"]) == (None, 256)
    assert PAPER.narrowed() == ""
    assert (PAPER.pretrain_people, PAPER.pretrain_views, PAPER.epochs[1], PAPER.sigma) == (None, 63, 1, 1)
    assert replace(PAPER, generator_width=64, generator_size=16).narrowed() == (
        "64 of 256 channels and what they read is pooled to 16²"
    )


def test_none_is_a_value_of_options_that_may_be_none(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    configs = []
    monkeypatch.setattr(hourglass_mpii, "compare", lambda people, config, *_: configs.append(config) or {})
    people = ["--people", "2", "--test-people", "2"]
    hourglass_mpii.main([*people, "--cap", "none", "--patience", "3", "--sigma", "2", "--alpha", "0.1", "--random", "uniform"])
    (config,) = configs
    assert (config.cap, config.patience, config.sigma, config.alpha, config.random) == (None, 3, 2.0, 0.1, "uniform")
    with pytest.raises(SystemExit):
        hourglass_mpii.main(["--cap", "many"])
    assert "argument --cap: invalid float or none value: 'many'" in capsys.readouterr().err


def test_data_is_the_folder_with_joints_or_its_parent(
    lsp_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = [run(hourglass_lsp, tmp_path, "--data", root, out=root.name) for root in (lsp_root, lsp_root / "lsp")]
    assert results[0]["arms"]["random"][0]["pck"] == results[1]["arms"]["random"][0]["pck"]
    assert check.check_lsp(lsp_root / "lsp").problems == check.check_lsp(lsp_root).problems == []
    capsys.readouterr()
    with pytest.raises(SystemExit):
        hourglass_lsp.main(["--help"])
    assert "DIR/lspet/joints.mat" in capsys.readouterr().out


def test_errors_are_in_the_words_of_the_command_line() -> None:
    def fails() -> None:
        raise OSError(
            "Replace them, or leave them out by skip_corrupt=True, or give `cache_dir`. `batch_size` and `other` stay."
        )

    with pytest.raises(SystemExit, match=r"error: .*by --skip-corrupt, or give --cache\. --batch-size and `other` stay\."):
        run_script(fails)


def test_few_people_in_a_pass_are_warned_of(lsp_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(hourglass_lsp, tmp_path, "--data", lsp_root)
    assert "Warning: a pass has only 3 people." in capsys.readouterr().out


def test_what_is_missing_points_at_check(mpii_root: Path, lsp_root: Path, tmp_path: Path) -> None:
    check = r"(?s){}.*`python -m examples\.datasets\.check {} says what is missing"
    with pytest.raises(FileNotFoundError, match=check.format("should hold MPII's annotations", "--mpii .*nowhere`")):
        run(hourglass_mpii, tmp_path, "--mpii", tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=check.format(r"lsp/joints\.mat", "--lsp .*nowhere`")):
        run(hourglass_lsp, tmp_path, "--data", tmp_path / "nowhere")
    for i in range(TRAIN):
        (mpii_root / "images" / f"{i}.jpg").unlink()
    with pytest.raises(OSError, match=check.format(r"Found 6 that are not.*0\.jpg", "--mpii .*mpii`")):
        run(hourglass_mpii, tmp_path, "--mpii", mpii_root)


def test_a_long_list_of_files_is_cut_short() -> None:
    with pytest.raises(OSError, match="first") as caught, pointing_at_check("--mpii x"):
        raise OSError("\n".join(["first", *map(str, range(100)), "Replace them"]))
    assert len(str(caught.value).splitlines()) == 11
    assert "… and 93 more\nReplace them\n" in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--lspet"], "--lspet needs --lsp"),
        (["--lsp", "x"], "--lsp needs --mpii"),
    ],
)
def test_options_that_do_not_go_together(options: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        hourglass_mpii.main(options)
    assert message in capsys.readouterr().err


def test_predictions_that_cannot_be_written_are_known_before_they_are_made(mpii_root: Path) -> None:
    with pytest.raises(ValueError, match=r"should end in \.json or \.mat\. Found 'a\.csv'"):
        server_file.main(["run", "--mpii", str(mpii_root), "--file", "a.csv"])
    with pytest.raises(ValueError, match=r"needs the official annotations.*Found none.*datasets\.check"):
        server_file.main(["run", "--mpii", str(mpii_root), "--file", "a.mat"])

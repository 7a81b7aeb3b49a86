"""The benchmark of the worst view: every arm trains, runs are paired and kept, and its statistics are known."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks import differences, result_files, worst_arms, worst_tasks, worst_view
from benchmarks.draw import frontier
from examples.datasets.people import People
from examples.datasets.w300 import W300, inter_ocular
from examples.face_alignment import draw_faces

ARMS = (
    "plain",
    "random",
    "uniform --end 0.5",
    "even",
    "fixed",
    "exact",
    "uniform --views 2",
    "worst-of-2",
    "uniform --share 2/3",
    "uniform --rest --hide features",
    "running --joint --images",
    "running --operations trivial --learned-shares",
    "running --response softmax",
    "running --response proportional --joint",
    "running --operations more --context image --cells even",
)


def arm(words: str) -> object:
    return worst_arms.arm_parser().parse_args(words.split())


def people(faces: dict[str, torch.Tensor]) -> People:
    points = faces["keypoints"]
    return People((255 * faces["image"]).byte(), points, faces["visibility"], inter_ocular(points), W300)


@pytest.fixture(scope="module")
def faces() -> worst_tasks.Task:
    known, new = (people(draw_faces(4, 64, seed=seed)) for seed in (0, 1))
    return worst_tasks._points("", known, new, worst_tasks.points_found, epochs=2)


@pytest.mark.parametrize("words", ARMS)
def test_every_arm_trains_from_the_same_weights(words: str, faces: worst_tasks.Task, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(
        worst_view.adaug, "audit", lambda model, *_, **__: seen.append([p.detach().clone() for p in model.parameters()])
    )
    monkeypatch.setattr(worst_view, "said", lambda audit: None)
    monkeypatch.setattr(worst_view, "statistics", lambda kept: {})
    monkeypatch.setattr(worst_view, "each_view", lambda kept: {})
    found = [worst_view.run(arm(f"{words} --batch-size 4 --epochs 2"), faces, 3) for _ in range(2)]
    assert all(torch.equal(a, b) for a, b in zip(*seen, strict=True))  # of a seed, always the same
    assert found[0]["steps"] == 2
    assert bool(found[0]["peaks"]) == (words.startswith(("exact", "running")) and "--context" not in words)


@pytest.mark.parametrize(
    "words",
    [
        "fixed --images",
        "even --views 2",
        "exact --context image",
        "uniform --cells even",
        "worst-of-2 --hide features",
        "random --rest",
        "even --end 0.5",
        "even --rest",
        "uniform --response softmax",
        "running --response softmax --cap 3",
        "uniform --cap 3",
        "running --operations trivial --joint",
        "running --operations trivial --share 1/2",
        "running --learned-shares --share 1/2",
    ],
)
def test_an_option_that_an_arm_would_ignore_is_refused(words: str, faces: worst_tasks.Task) -> None:
    with pytest.raises(ValueError, match=r"An arm should have only options that change it\. Found --"):
        worst_arms.policy_of(arm(words), faces)


def test_the_hardest_views_are_trained_on(faces: worst_tasks.Task, monkeypatch: pytest.MonkeyPatch) -> None:
    task, chosen = faces, arm("worst-of-3 --hidden 1/2")
    views = worst_arms.augmenter_of(worst_arms.policy_of(chosen, task), chosen, task, 0, 30)
    drawn, trained = [], []
    step, loss_fn = views.step, task.loss_fn
    views.step = lambda *given: drawn.append(step(*given)) or drawn[-1]
    watched = replace(task, loss_fn=lambda output, batch: trained.append(batch) or loss_fn(output, batch))
    torch.manual_seed(0)
    model, batch = task.network(), next(task.batches(4, 0, 0))
    worst_arms.WorstOf(3, views, task.error, watched).step(model, batch)
    hardest = torch.stack([one.losses for one in drawn]).argmax(0)
    for row, draw in enumerate(hardest.tolist()):
        assert torch.equal(trained[-1]["image"][row], drawn[draw].batch["image"][row])
        assert torch.equal(trained[-1]["keypoints"][row], drawn[draw].batch["keypoints"][row])
    assert model.training


def test_runs_are_kept_and_tabled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(result_files, "RESULTS", tmp_path)
    monkeypatch.setattr(result_files, "RAW", tmp_path)
    words = ["worst_view.py", "digits", "--train", "32", "--test", "16", "--seeds", "0", "--out", str(tmp_path / "runs")]
    words += ["--arms", "uniform, some: uniform", "uniform, all: uniform --share 1", "plain"]
    words += ["by class: running --context class", "--name", "digits", "--against", "plain"]
    monkeypatch.setattr("sys.argv", [*words, "--", "--epochs", "1"])
    worst_view.main()
    (path,) = (tmp_path / "runs").rglob("digits*share-1*/seed0.json")
    assert json.loads(path.read_text())["steps"] == 2
    before = path.stat().st_mtime_ns
    monkeypatch.setattr("sys.argv", [*words, "--finished", "--", "--epochs", "1"])
    worst_view.main()
    assert path.stat().st_mtime_ns == before
    assert "| uniform, all  |" in (tmp_path / "digits.md").read_text()
    assert (tmp_path / "digits.svg").is_file()


def test_regions_of_a_face_are_drawn_where_its_points_are() -> None:
    faces = people(draw_faces(2, 64, seed=0))
    rows = worst_tasks.regions(faces)
    assert rows["mask"].shape == (2, 96, 96)
    for row, points in enumerate(faces.keypoints):
        middles = {"eyes": points[36:42].mean(0), "mouth": points[48:60].mean(0)}
        for name, (x, y) in middles.items():
            assert worst_tasks.REGIONS[rows["mask"][row, round(float(y)), round(float(x))]] == name


def test_p_is_corrected_for_the_number_of_comparisons() -> None:
    assert differences.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert differences.holm([0.9, 0.8]) == [1.0, 1.0]
    pairs = {"a": {seed: {"x": value} for seed, value in enumerate((1.0, 2.0, 3.0))}}
    text, numbers = differences.corrected_tables({"first": pairs, "second": pairs}, ["x"])
    assert numbers["first"]["a"]["x"]["p"] == pytest.approx(2 * numbers["first"]["a"]["x"]["p of one"])
    assert "| a   |     3 | +2.0 ± 1.0 (−0.5 to +4.5, p 0.15) |" in text


def test_arms_are_compared_at_an_equal_score() -> None:
    lines = {"u, 1": (10, 0), "u, 2": (8, 4), "u, 3": (4, 6)}
    runs = {
        name: {seed: {"scores": {"x": x + seed, "y": y}} for seed in range(3)}
        for name, (x, y) in {**lines, "on": (9, 2), "above": (6, 7), "beside": (12, 9)}.items()
    }
    found = differences.at_equal(runs, "u", "x", ["y"])
    assert found.keys() == {"on", "above"}
    assert [run["y"] for run in found["above"].values()] == pytest.approx([2, 2, 2])
    assert [run["y"] for run in found["on"].values()] == pytest.approx([0, 0, 0])
    assert differences.interpolated([(0, 0), (1, 2)], 2) == 2
    assert differences.front([(4, 6), (8, 4), (7, 3), (10, 0), (10, 0)]) == [(4, 6), (8, 4), (10, 0)]
    scores = {name: {"x": [1.0, 2.0], "y": [3.0, 4.0]} for name in runs}
    assert len(frontier(scores, "x", "y").axes[0].containers) == 4

"""Studies: every arm trains, runs are paired and kept, and the statistics are known."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

import adaug
from benchmarks import result_files
from benchmarks.compare import __main__ as driver
from benchmarks.compare import differences, learners, of_examples, studies, tasks, training, trials
from benchmarks.compare.arms import EVEN, RUNNING, Arm, RandomViews, Trainer, Views, described, even, plain
from benchmarks.compare.studies import hourglasses
from benchmarks.compare.study import Study
from benchmarks.draw import frontier
from examples.datasets.people import People
from examples.datasets.w300 import W300, inter_ocular
from examples.face_alignment import draw_faces

SMALL = [arm for study in studies.STUDIES.values() if study.run is training.run for arm in study.arms]
ARMS = list({str(described(arm)): arm for arm in SMALL}.values())  # of all studies, each once
USUAL = ("plain", "random", "even", "exact", "running", "fixed", "hard images", "learned shares", "one table", "two views")


def people(faces: dict[str, torch.Tensor]) -> People:
    points = faces["keypoints"]
    return People((255 * faces["image"]).byte(), points, faces["visibility"], inter_ocular(points), W300)


@pytest.fixture(scope="module")
def faces() -> tasks.Task:
    known, new = (people(draw_faces(4, 64, seed=seed)) for seed in (0, 1))
    return tasks.of_points("", known, new, tasks.points_found, epochs=2)


def arms() -> list[object]:
    """All arms that differ by more than a number; those that a fast suite can leave out are slow."""
    kinds = {}
    for arm in ARMS:
        kinds.setdefault(arm.name.rpartition(", ")[2], arm)
    usual = {name: any(name.endswith(word) for word in (*USUAL, "worst-of-2", "uniform, image", "trivial")) for name in kinds}
    return [pytest.param(arm, id=name, marks=[] if usual[name] else [pytest.mark.slow]) for name, arm in kinds.items()]


@pytest.mark.parametrize("arm", arms())
def test_every_arm_trains_from_the_same_weights(arm: Arm, faces: tasks.Task, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(
        training.adaug, "audit", lambda model, *_, **__: seen.append([p.detach().clone() for p in model.parameters()])
    )
    monkeypatch.setattr(training, "said", lambda audit: None)
    monkeypatch.setattr(training, "statistics", lambda kept: {})
    monkeypatch.setattr(training, "each_view", lambda kept: {})
    found = [training.run(faces, replace(arm, batch_size=4, epochs=2), 3) for _ in range(2)]
    assert all(torch.equal(a, b) for a, b in zip(*seen, strict=True))  # of a seed, always the same
    assert found[0]["steps"] == 2
    tells = [branch.learned for branch in arm.policy(faces).branches if not isinstance(branch.learned, learners.WorstOf)]
    assert bool(found[0]["peaks"]) == any(tells)  # the worst of k is drawn evenly


def test_an_arm_is_known_by_what_it_is() -> None:
    for study in studies.STUDIES.values():
        descriptions = [tuple(described(arm)) for arm in study.arms]
        assert len(set(descriptions)) == len(descriptions), study.name
        assert not any("0x" in word for words in descriptions for word in words)  # an address changes from run to run
    assert described(Arm("a")) == described(Arm("b")) != described(Arm("a", Views(share=1 / 2)))
    hardest = [described(Arm("a", Views(), partial(trials.WorstOf, k=k))) for k in (2, 2, 3)]
    assert hardest[0] == hardest[1] != hardest[2]
    assert described(Arm("a", Views(learners.Fixed()))) != described(Arm("a", Views(learners.WorstOf(2))))
    assert described(Arm("a", Views())) != described(Arm("a", Views(operations=trials.one_table)))


def test_views_are_those_of_the_task(faces: tasks.Task) -> None:
    digits = tasks.digits(train=8, test=8)
    assert [len(policy(digits).branches) for policy in (Views(), plain, even, Views(hidden=1 / 3))] == [1, 0, 0, 2]
    assert [len(policy(faces).branches) for policy in (Views(), plain, even, Views(hidden=0))] == [2, 0, 1, 1]
    assert Views()(faces) == adaug.policies.uniform(adaug.policies.wide(faces.pairs))
    cells_even = Views(RUNNING, cells=EVEN)(faces).branches
    assert [bool(branch.learned) for branch in cells_even] == [True, False]
    ends = Views(end=0.5)(faces)
    assert (ends.shares(0.4), ends.shares(0.6)) == ([1 / 3, 1 / 3], [0, 0])


def test_an_arm_of_worst_of_k_refuses_features_that_batches_do_not_keep(faces: tasks.Task) -> None:
    with pytest.raises(ValueError, match=r"should hide parts of the image\. Found features"):
        trials.WorstOf(Arm("a", hides="features"), faces, 0, 1, k=2)
    with pytest.raises(ValueError, match="should be of a task that tells its rows apart"):
        trials.HardImages(Arm("a"), tasks.digits(train=8, test=8), 0, 1)


def test_a_study_refuses_arms_that_it_lacks() -> None:
    with pytest.raises(ValueError, match=r"should compare arms that it has\. Found c, d\."):
        Study("s", "?", tasks.digits, [Arm("a"), Arm("b")], against=["c"], pairs={"": [("a", "d")]})
    with pytest.raises(ValueError, match="names that differ"):
        Study("s", "?", tasks.digits, [Arm("a"), Arm("a")])


def test_the_hardest_views_are_trained_on(faces: tasks.Task) -> None:
    drawn, trained = [], []
    loss_fn = faces.loss_fn
    watched = replace(faces, loss_fn=lambda output, batch: trained.append(batch) or loss_fn(output, batch))
    trainer = trials.WorstOf(Arm("a", Views(hidden=1 / 2)), watched, 0, 10, k=3)
    step = trainer.augmenter.step
    trainer.augmenter.step = lambda *given: drawn.append(step(*given)) or drawn[-1]
    torch.manual_seed(0)
    model, batch = faces.network(), next(faces.batches(4, 0, 0))
    trainer.step(model, batch)
    hardest = torch.stack([one.losses for one in drawn]).argmax(0)
    for row, draw in enumerate(hardest.tolist()):
        assert torch.equal(trained[-1]["image"][row], drawn[draw].batch["image"][row])
        assert torch.equal(trained[-1]["keypoints"][row], drawn[draw].batch["keypoints"][row])
    assert model.training


def test_a_step_on_two_views_sees_each_image_twice(faces: tasks.Task) -> None:
    seen = []
    watched = replace(faces, loss_fn=lambda output, batch: seen.append(batch["index"]) or faces.loss_fn(output, batch))
    batch = next(faces.batches(4, 0, 0))
    Trainer(Arm("a", views=2), watched, 0, 1).step(faces.network(), batch)
    assert seen[-1].tolist() == batch["index"].tolist() * 2


def test_hard_images_come_more_often(faces: tasks.Task) -> None:
    trainer = trials.HardImages(Arm("a", batch_size=4), faces, 0, 1)
    trainer.errors = torch.tensor([0.1, 0.2, 0.3, 0.4])
    index = torch.cat([batch["index"] for _ in range(300) for batch in trainer.batches(0)])
    often = index.bincount().float() / len(index)
    torch.testing.assert_close(often, torch.tensor([1.0, 1, 3, 3]) / 8, atol=0.04, rtol=0)


def test_the_hardest_branches_get_the_largest_shares(faces: tasks.Task) -> None:
    trainer = trials.LearnedShares(Arm("a", Views(RUNNING)), faces, 0, 1)
    model, batch = faces.network(), next(faces.batches(4, 0, 0))
    trainer.sums, trainer.rows = torch.tensor([0.0, 1e6, 0]), torch.ones(3)
    for _ in range(20):
        trainer.step(model, batch)
    first, second = trainer.augmenter.policy.shares(0.5)
    assert first > 0.4 > 0.3 > second
    assert trainer.shares.sum() == pytest.approx(1, abs=1e-5)


TINY = Study(
    "digits_of_a_test",
    "A question?",
    tasks.digits,
    [
        Arm("uniform, some", epochs=1),
        Arm("uniform, all", Views(share=1), epochs=1),
        Arm("plain", plain, epochs=1),
        Arm("random", trainer=RandomViews, epochs=1),
    ],
    sizes={"train": 32, "test": 16},
    seeds=2,
    against=["plain"],
    pairs={"Both": [("random", "plain")]},
    family="uniform",
    needs_data=False,
)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("RESULTS", "RAW"):
        monkeypatch.setattr(result_files, name, tmp_path)
    monkeypatch.setattr(driver, "RESULTS", tmp_path)
    monkeypatch.setitem(studies.STUDIES, TINY.name, TINY)
    return tmp_path


def test_runs_are_kept_and_tabled(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [TINY.name, "--out", str(here / "runs")]
    driver.main([*words, "--finished"])
    assert "No run is finished." in capsys.readouterr().out
    driver.main([*words, "--seeds", "0"])
    paths = sorted((here / "runs").rglob("seed0.json"))
    assert len(paths) == 4
    run = json.loads(paths[0].read_text())
    assert run["steps"] == 2
    assert run["origin"].keys() == {"commit", "machine", "torch", "date"}
    before = [path.stat().st_mtime_ns for path in paths]
    driver.main([*words, "--seeds", "0"])  # is read
    driver.main([*words, "--finished"])
    assert [path.stat().st_mtime_ns for path in paths] == before
    text = (here / "digits_of_a_test.md").read_text()
    assert text.startswith("A question? Digits named right, in per cent; 32 to train on, 16 to test on. CPU s: of training")
    assert "| uniform, all  |     1 |" in text
    assert "To plain, of the same steps" in text
    assert f"commit {result_files.commit()}, {result_files.machine()}, torch" in text
    assert (here / "digits_of_a_test.svg").is_file()
    driver.main(words)  # the second seed
    assert "| uniform, all  |     2 |" in (here / "digits_of_a_test.md").read_text()


def test_a_run_of_another_version_is_made_anew(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = []
    study = replace(
        TINY, run=lambda task, arm, seed, folder: made.append(arm.name) or {"scores": {"as it is": 1.0}, "cpu_seconds": 1}
    )
    driver.compare(study, None, here, [0])
    driver.compare(study, None, here, [0])
    assert made == [arm.name for arm in TINY.arms]
    path = sorted(here.rglob("seed0.json"))[0]
    path.write_text(json.dumps(json.loads(path.read_text()) | {"version": 2}))
    assert len(driver.compare(study, None, here, [0], train=False)) == 3
    assert "should hold a run of version 3 and of this description. Found another" in capsys.readouterr().out
    driver.compare(replace(study, sizes={"train": 16, "test": 16}), None, here, [0])
    assert len(made) == 2 * len(TINY.arms)  # other data, other runs


@pytest.mark.parametrize("figure", ["dots", "frontier", "time"])
def test_a_study_is_drawn(figure: str) -> None:
    scores = dict.fromkeys(("as it is", "grid mean", "worst per image", "worst 10 %", "in every view"), 50.0)
    run = {"scores": scores, "cpu_seconds": 7.0, "origin": {"machine": "a"}}
    drawn = driver.figure_of(replace(TINY, figure=figure), {"uniform, some": {0: run, 1: run}, "plain": {0: run}})
    assert len(drawn.axes) == {"dots": 5, "frontier": 1, "time": 4}[figure]


def test_data_are_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        driver.main(["worst_view_faces"])
    assert "worst_view_faces should have --data." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arm", "words", "variant"),
    [
        (hourglasses.BOTH, ["asr+aho"], ""),
        (hourglasses.LSP_300.arms[4], ["asr+aho"], "one_for_all=True"),
        (hourglasses.LSP_300_CHANGES.arms[3], ["asr+aho", *hourglasses.WIDE], "random='normal', until=0.7"),
    ],
)
def test_an_arm_of_the_hourglass_may_name_changes(monkeypatch, tmp_path, arm, words, variant) -> None:
    calls = []

    def main(arguments, variant="", **more):
        at = arguments.index("--arms") + 1
        calls.append((arguments[at : at + len(words)], variant, "make_augmenter" in more))
        raise KeyboardInterrupt

    monkeypatch.setattr(of_examples.hourglass_lsp, "main", main)
    with pytest.raises(KeyboardInterrupt):
        of_examples.run_people(of_examples.people(Path("data")), arm, 0, tmp_path)
    assert calls == [(words, variant, bool(variant))]


def test_regions_of_a_face_are_drawn_where_its_points_are() -> None:
    faces = people(draw_faces(2, 64, seed=0))
    rows = tasks.regions(faces)
    assert rows["mask"].shape == (2, 96, 96)
    for row, points in enumerate(faces.keypoints):
        middles = {"eyes": points[36:42].mean(0), "mouth": points[48:60].mean(0)}
        for name, (x, y) in middles.items():
            assert tasks.REGIONS[rows["mask"][row, round(float(y)), round(float(x))]] == name


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

"""The benchmarks measure what they say: on what they build, and with numbers that are known."""

from __future__ import annotations

import ast
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks import draw, network_costs, result_files, scaling, step_overhead, warp, workloads
from benchmarks.compare import differences
from benchmarks.paper import ablations
from examples.datasets.people import MPII
from examples.hourglass.augmentation import policy_of
from examples.hourglass.config import ARMS, Config

SOURCES = sorted(Path(draw.__file__).parent.rglob("*.py"))
PUBLIC = {"adaug", *(f"adaug.{name}" for name in ("audits", "keypoints", "operations", "plots", "policies", "learners"))}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_benchmarks_know_nothing_private(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            assert all(one.name in PUBLIC for one in node.names if one.name.startswith("adaug")), ast.unparse(node)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("adaug"):
            assert node.module in PUBLIC, ast.unparse(node)
            assert not any(one.name.startswith("_") for one in node.names), ast.unparse(node)
        if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.endswith("__"):
            assert ast.unparse(node.value) == "self", ast.unparse(node)


def runs_of(name: str, **arms: list[float]) -> differences.Runs:
    """Runs with one score, seed by seed."""
    return {
        arm: {
            seed: {"scores": {name: value}, "cpu_seconds": 10.0 + seed, "origin": {"machine": "ab"[seed % 2]}}
            for seed, value in enumerate(values)
        }
        for arm, values in arms.items()
    }


def test_differences_are_paired_by_seed() -> None:
    runs = runs_of("x", a=[51.0, 62.5, 70.0], b=[50.0, 61.0], c=[2.5])
    pairs = differences.of_pairs(runs, [("a", "b"), ("c", "a"), ("b", "absent")])
    assert pairs == {"a": {0: {"x": 1.0}, 1: {"x": 1.5}}, "c": {0: {"x": -48.5}}}
    statistic = differences.summary([run["x"] for run in pairs["a"].values()])
    assert statistic == pytest.approx({"seeds": 2, "mean": 1.25, "sd": 0.3536}, abs=1e-3)  # of two, p says nothing
    assert differences.shown(statistic) == "+1.2 ± 0.4"
    known = {"seeds": 3, "mean": 2, "sd": 1, "p": 0.0742, "low": 2 - 2.4841, "high": 2 + 2.4841}
    assert differences.summary([1.0, 2.0, 3.0]) == pytest.approx(known, abs=1e-3)
    assert differences.shown({"mean": 2.0, "sd": 0.1, "p": 0.126}) == "+2.0 ± 0.1 (p 0.13)"
    assert differences.shown({"mean": 2.0, "sd": 0.1, "p": 0.00412}) == "+2.0 ± 0.1 (p 0.004)"
    assert differences.shown(differences.summary([-1.5])) == "−1.5 (1 seed)"


def test_the_table_knows_arms_that_have_fewer_seeds() -> None:
    text = differences.means(runs_of("as it is", random=[50, 52], uniform=[51], exact=[52, 53]))
    assert "| exact   |     2 | 52.5 ± 0.7 |    10 |" in text  # the seconds of the machine of most runs
    assert "| uniform |     1 |       51.0 |    10 |" in text
    assert "Other scores" not in text


def test_other_scores_have_a_table_of_their_own() -> None:
    names = ["grid mean", *"abcdef", "NME"]
    run = {"scores": dict.fromkeys(names, 5.55), "cpu_seconds": 7.0, "origin": {"machine": "a"}}
    first, second = differences.means({"none": {0: run}}).split("Other scores")
    assert "NME" not in first
    assert "| none |     1 |       5.5 |" in first
    assert "grid mean" not in second
    assert "| none | 5.5 |" in second


def test_the_table_says_how_sharp_the_generators_ended() -> None:
    run = {"scores": {"NME": 5.0}, "cpu_seconds": 7.0, "origin": {"machine": "a"}}
    arms = {"random": {}, "uniform": {"peaks": {"asr.scale": 1.0}}, "asr": {"peaks": {"asr.scale": 6.5}}}
    text = differences.means({arm: {0: run | more} for arm, more in arms.items()})
    last = text.split("(1: uniform)")[1].split("\n")
    assert last[2:] == ["| arm | asr.scale |", last[3], "| asr |      6.50 |"]
    assert differences.peaks({0: run, 1: run | arms["asr"]}) == {"asr.scale": "6.50"}


@pytest.mark.parametrize("name", workloads.WORKLOADS)
def test_every_workload_takes_every_kind_of_step(name: str) -> None:
    workload = workloads.WORKLOADS[name]
    rows = workload.batch(2, 64)
    assert {len(value) for value in rows.values()} == {2}
    losses = workload.loss_fn(
        workload.network().eval()(workload.batch(2, workload.side)["image"]), workload.batch(2, workload.side)
    )
    assert losses.shape == (2,)


@pytest.mark.slow
@pytest.mark.parametrize("variant", step_overhead.USUAL)
def test_a_timed_step_trains(variant: str) -> None:
    workload = replace(workloads.WORKLOADS["unet-128"], side=64, images=6)
    step_overhead.build(workload, variant, step_overhead.Machine(channels_last=True))()


def test_errors_of_keypoints_are_known() -> None:
    rows = warp.scenes(4, 96, 64)
    exact = warp.pixel_errors(rows)
    assert len(exact)
    assert exact.max() < 1e-3
    shifted = warp.pixel_errors({**rows, "keypoints": rows["keypoints"] + torch.tensor([0.3, -0.4])})
    torch.testing.assert_close(shifted, torch.full_like(shifted, 0.5), atol=1e-3, rtol=0)


@pytest.mark.parametrize("pipeline", [warp.adaug_pipeline, warp.kornia_pipeline])
def test_rival_pipelines_move_image_mask_and_keypoints_together(pipeline) -> None:
    torch.manual_seed(0)
    rows = warp.scenes(6, 96, 64)
    made = pipeline(64)(rows)
    assert made["image"].shape == (6, 3, 64, 64)
    assert made["mask"].shape == (6, 64, 64)
    errors = warp.pixel_errors(made)
    assert len(errors)
    assert errors.max() < 0.05
    both = (made["mask"] > 0) == (made["image"].amax(1) > 0.5)
    assert both.float().mean() > 0.98


def test_timed_grids_are_the_same() -> None:
    inverse = warp.turned(3)
    expected = torch.nn.functional.affine_grid(inverse, [3, 1, 8, 8], align_corners=False)
    for name, grid in warp.GRIDS.items():
        torch.testing.assert_close(grid(inverse, 8), expected, msg=name)
    lines = warp.grid_table({8: warp.grid_ratios(8, 3, 1)}).splitlines()
    assert lines[0] == "| grid / sampling | 8 × 8 |"
    assert [line.split(" |")[0] for line in lines[2:]] == [f"| {name}" for name in warp.GRIDS]


def test_a_ring_of_two_sends_everything_once() -> None:
    seconds = scaling.LATENCY + 1e9 / 2 / scaling.BANDWIDTH
    assert scaling.ring_ms(1e9, 2) == pytest.approx(2e3 * seconds)


def test_operations_are_counted() -> None:
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 1, bias=False), torch.nn.Conv2d(8, 2, 1, bias=False))
    pixels = 256 * 256
    assert network_costs.forward_operations(model) == 2 * pixels * (3 * 8 + 8 * 2)
    assert network_costs.forward_operations(model, "0") == 2 * pixels * 3 * 8
    assert network_costs.kept_bytes(model) == 4 * pixels * (3 + 8)


def test_pictures_can_be_drawn(tmp_path) -> None:
    ratio = {"median": 1.5, "min": 1.2, "max": 1.9}
    network = {"about": "a net", "side": 64, "batch": 6, "ratio_to_plain": {"default": ratio, "both": ratio}}
    of_lengths = {
        "random, 2": {0: {"s": 20.0, "upright": 52.0}},
        "random, 1": {0: {"s": 10.0, "upright": 50.0}, 1: {"s": 11.0, "upright": 51.0}},
        "asr, 1": {0: {"s": 20.0, "upright": 53.0}},
    }
    figures = {
        "overhead": draw.overhead({"a": network}, (1.15,)),
        "scaling": draw.scaling({"images": {"6": ratio, 12: ratio}, "bins": {5: ratio}}),
        "over_time": draw.over_time(of_lengths, "s", ["upright"]),
        "accuracy": draw.accuracy({"random": {"upright": [50.0, 51.0]}, "asr": {"upright": [52.0]}}, ["upright"]),
    }
    for name, figure in figures.items():
        figure.savefig(tmp_path / f"{name}.svg")
        assert os.path.getsize(tmp_path / f"{name}.svg") > 1000
    lines = [line.get_xydata().tolist() for line in figures["over_time"].axes[0].lines]
    assert lines == [[[10, 50], [20, 52]], [[11, 51]], [[20, 53]]]


def test_the_overhead_table_has_a_column_for_each_network() -> None:
    ratios = {variant: {"median": 1.5, "min": 1.25, "max": 2.0} for variant in list(step_overhead.VARIANTS)[1:]}
    seconds = {"default": 1.0, "compiled generators": 31.4}
    network = {"about": "a network", "side": 64, "batch": 6, "plain_seconds": {"median": 0.123}, "ratio_to_plain": ratios}
    network |= {"build_and_first_steps_seconds": seconds, "operations": {"plain": 8, "default": 14}}
    peaks = {"small": {"default": 3.0, "plain": 2.0}, "large": {"default": 110.0, "plain": 100.0}}
    lines = step_overhead.table({name: {**network, "peak_mib": peak} for name, peak in peaks.items()}).splitlines()
    assert lines[0] == "| step / plain step | small | large |"
    assert "| plain | 1 (0.12 s) | 1 (0.12 s) |" in lines
    assert "| default | 1.50 (1.25–2.00) | 1.50 (1.25–2.00) |" in lines
    assert "| memory, default | – | 1.10 |" in lines
    assert "| memory, robust | – | – |" in lines
    assert "| compiling | 30 s | 30 s |" in lines
    assert "- large: a network, 64 × 64, batch 6; operations dispatched: plain 8, default 14." in lines


def test_the_operations_of_a_step_are_counted() -> None:
    x = torch.ones(3)
    assert step_overhead.operations(lambda: x.add_(1).mul_(2)) == 2


def test_an_ablation_changes_what_it_names_alone() -> None:
    config = Config(scale=(0.7, 1.4), rotation=60)
    for arm in ARMS:
        policy = policy_of(replace(config, arm=arm), MPII)
        changed = ablations.Ablation(random="normal", share=0.2, rest=True).change(policy, replace(config, arm=arm))
        assert [branch.name for branch in changed.branches] == [branch.name for branch in policy.branches]
        assert [branch.learned for branch in changed.branches] == [branch.learned for branch in policy.branches]
        assert (changed == policy) == (arm in ("none", "trivial"))
    occlusion = policy_of(Config(arm="aho"), MPII)
    assert ablations.Ablation(share=0.2).change(occlusion, Config(arm="aho")).common == occlusion.common


def test_results_are_written_for_people_and_their_numbers_beside_the_runs(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(result_files, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(result_files, "RAW", tmp_path / "runs")

    def origin(machine: str) -> dict[str, str]:
        return {"commit": "c0ffee", "machine": machine, "torch": "2.6", "date": "2026-11-30"}

    path = result_files.save("of_a_test", {"value": 1}, "| a |", origins=[origin("x"), origin("y"), origin("x")])
    assert path == tmp_path / "results" / "of_a_test.md"
    assert "commit c0ffee, x and y, torch 2.6, 2026-11-30.\n" in path.read_text()
    assert json.loads((tmp_path / "runs" / "of_a_test.json").read_text())["value"] == 1
    assert result_files.with_spread([1.0, 2.0, 3.0]) == "2.0 ± 1.0"


def test_a_result_says_where_it_comes_from(monkeypatch) -> None:
    script = result_files.ROOT / "benchmarks" / "compare" / "__main__.py"
    monkeypatch.setattr("sys.argv", [str(script), "a_study", "--data", "/home/me/data", "--name", "two words"])
    assert result_files.command() == "python -m benchmarks.compare a_study --data DIR --name 'two words'"
    monkeypatch.setattr("sys.argv", [str(result_files.ROOT / "benchmarks" / "warp.py")])
    assert result_files.command() == "python benchmarks/warp.py"
    assert result_files.origin().keys() == {"commit", "machine", "torch", "date"}
    result_files.commit.cache_clear()
    monkeypatch.setattr(result_files, "ROOT", Path("/"))
    assert result_files.commit() == "unknown"
    result_files.commit.cache_clear()

"""The benchmarks measure what they say: on what they build, and with numbers that are known."""

from __future__ import annotations

import json
import os
from dataclasses import replace

import pytest
import torch

from benchmarks import accuracy, differences, draw, network_costs, result_files, scaling, step_overhead, warp, workloads
from benchmarks.paper import ablations
from examples.datasets.people import MPII
from examples.hourglass.augmentation import policy_of
from examples.hourglass.config import ARMS, Config


def scores(*values: float) -> dict[int, dict[str, float]]:
    return {seed: {"upright": value} for seed, value in enumerate(values)}


def test_differences_are_paired_by_seed() -> None:
    statistic = differences.difference(scores(51.0, 62.5, 70.0), {**scores(50.0, 61.0), 7: {"upright": 0.0}}, "upright")
    assert statistic == pytest.approx({"seeds": 2, "mean": 1.25, "sd": 0.3536}, abs=1e-3)  # of two, p says nothing
    assert differences.shown(statistic) == "+1.2 ± 0.4"
    known = {"seeds": 3, "mean": 2, "sd": 1, "p": 0.0742, "low": 2 - 2.4841, "high": 2 + 2.4841}
    assert differences.summary([1.0, 2.0, 3.0]) == pytest.approx(known, abs=1e-3)
    assert differences.shown({"mean": 2.0, "sd": 0.1, "p": 0.126}) == "+2.0 ± 0.1 (p 0.13)"
    assert differences.shown({"mean": 2.0, "sd": 0.1, "p": 0.00412}) == "+2.0 ± 0.1 (p 0.004)"
    assert differences.shown(differences.difference(scores(1.0), scores(2.5), "upright")) == "−1.5 (1 seed)"


def test_the_accuracy_table_knows_arms_that_have_fewer_seeds() -> None:
    runs = {
        arm: {seed: {"scores": of_seed, "cpu_seconds": 10.0 + seed, "machine": "ab"[seed]} for seed, of_seed in of_arm.items()}
        for arm, of_arm in {"random": scores(50, 52), "uniform": scores(51), "asr+aho --until 0.7": scores(52, 53)}.items()
    }
    text, numbers = differences.tables(runs, ["random", "uniform", "absent"])
    assert "| asr+aho --until 0.7 |     2 | 52.5 ± 0.7 |    10 |" in text  # the seconds of the machine of most runs
    assert numbers["random"]["asr+aho --until 0.7"]["upright"]["mean"] == 1.5
    assert numbers["uniform"]["random"]["upright"]["seeds"] == 1
    assert "Other scores" not in text


def test_pairs_are_compared_each_and_all_together() -> None:
    arms = {"a": [50, 52, 54], "b": [49, 50, 50], "c": [60], "d": [57]}
    runs = {arm: {seed: {"scores": of_seed} for seed, of_seed in scores(*values).items()} for arm, values in arms.items()}
    pairs = differences.of_pairs(runs, ["first: a vs b", "c vs d", "c vs absent"])
    assert pairs == {
        "first": {0: {"upright": 1}, 1: {"upright": 2}, 2: {"upright": 4}},
        "c vs d": {0: {"upright": 3}},
    }
    assert differences.together(pairs, "upright") == [2, 2, 4]  # seed by seed: one more run of a seed is no new evidence
    text = differences.pairs_table(pairs)
    assert "| first  |     3 | +2.3 ± 1.5 (p 0.12) |" in text
    assert "| upright | +2.7 ± 1.2 (p 0.06) | 4 of 4 runs |" in text
    assert differences.pairs_table(differences.of_pairs(runs, ["c vs absent"])) == "No pair is finished."


def test_an_arm_may_have_a_name_for_the_tables() -> None:
    assert differences.named("asr+aho --until 0.7") == ("asr+aho --until 0.7",) * 2
    assert differences.named("early: asr+aho --until 0.7") == ("early", "asr+aho --until 0.7")


def test_other_scores_have_a_table_of_their_own() -> None:
    names = ["grid mean", *"abcdef", "NME"]
    text, _ = differences.tables(
        {"none": {0: {"scores": dict.fromkeys(names, 5.555), "cpu_seconds": 7.0, "machine": "a"}}}, [], decimals=2
    )
    first, second = text.split("Other scores")
    assert "NME" not in first
    assert "| none |     1 |      5.55 |" in first
    assert "grid mean" not in second
    assert "| none | 5.55 |" in second


def test_the_table_says_how_sharp_the_generators_ended() -> None:
    run = {"scores": {"NME": 5.0}, "cpu_seconds": 7.0, "machine": "a"}
    arms = {"random": {}, "uniform": {"peaks": {"asr.scale": 1.0}}, "asr": {"peaks": {"asr.scale": 6.5}}}
    text, _ = differences.tables({arm: {0: run | more} for arm, more in arms.items()}, [])
    last = text.split("(1: uniform)")[1].split("\n")
    assert last[2:] == ["| arm | asr.scale |", last[3], "| asr |      6.50 |"]
    assert differences.peaks({0: run, 1: run | arms["asr"]}) == {"asr.scale": "6.50"}


def test_a_finished_run_is_read_and_one_with_other_arguments_made_anew(tmp_path, monkeypatch, capsys) -> None:
    made = []
    monkeypatch.setitem(accuracy.TASKS, "people", lambda arguments, seed, folder: made.append(arguments) or {"scores": {}})
    for rest in (["--people", "3"], ["--people", "3"], ["--people", "4"]):
        accuracy.run_once("people", "asr+aho --until 0.7", 1, rest, tmp_path)
    assert accuracy.run_once("people", "random", 1, ["--people", "4"], tmp_path, train=False) is None
    assert accuracy.run_once("people", "asr+aho --until 0.7", 1, ["--people", "4"], tmp_path, train=False) is not None
    path = next(tmp_path.rglob("finished.json"))
    path.write_text(json.dumps({"arguments": json.loads(path.read_text())["arguments"], "scores": {"upright": 1}}))
    assert accuracy.run_once("people", "asr+aho --until 0.7", 1, ["--people", "4"], tmp_path, train=False) is None
    assert "should hold the scores of an audit. Found a run from before; without --finished" in capsys.readouterr().out
    assert made == [["--people", n, "--arms", "asr+aho", "--until", "0.7"] for n in ("3", "4")]


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


@pytest.mark.parametrize(
    ("arm", "arms", "variant"),
    [
        (["asr+aho", "--until", "0.7", "--cap", "3"], ["asr+aho", "--cap", "3"], "--until 0.7"),
        (["global", "--update-every", "4"], ["asr+aho"], "--one-for-all --update-every 4"),
        (["random"], ["random"], ""),
    ],
)
def test_an_arm_of_people_may_name_an_ablation(monkeypatch, tmp_path, arm, arms, variant) -> None:
    calls = []

    def main(arguments, variant="", **more):
        calls.append((arguments[2 : 3 + len(arms)], variant, "make_augmenter" in more))
        raise KeyboardInterrupt

    monkeypatch.setattr(ablations.hourglass_lsp, "main", main)
    with pytest.raises(KeyboardInterrupt):
        accuracy.people(["--arms", *arm], 0, tmp_path)
    assert calls == [(["--arms", *arms], variant, bool(variant))]


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
    path = result_files.save("of_a_test", {"value": 1}, "| a |", machines=["x", "y", "x"])
    assert path == tmp_path / "results" / "of_a_test.md"
    assert "x and y, torch" in path.read_text()
    assert json.loads((tmp_path / "runs" / "of_a_test.json").read_text())["value"] == 1
    assert result_files.with_spread([1.0, 2.0, 3.0]) == "2.0 ± 1.0"

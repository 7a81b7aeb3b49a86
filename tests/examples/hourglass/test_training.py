from __future__ import annotations

import errno
import io
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

import adaug
from adaug.learners import Paper
from benchmarks.paper.ablations import Ablation
from examples import hourglass_mpii
from examples.datasets import safe_files
from examples.datasets.drawn_people import draw_people
from examples.datasets.people import MPII, People
from examples.hourglass import checkpoints, training
from examples.hourglass.augmentation import policy_of
from examples.hourglass.checkpoints import one_run
from examples.hourglass.config import ARMS, UNLEARNED, Arm, Config, Machine
from examples.hourglass.progress import Means, Progress
from examples.hourglass.training import Run, learning_rate, make_model, my_parts, train

ROOT = Path(__file__).resolve().parents[3]
# Eight pixels a side at the neck's level would be no hourglass; 32 pixels, stride 2 and two halvings leave 4 x 4.
TINY = Config(
    size=32,
    width=8,
    depth=2,
    epochs=(1, 1, 1),
    batch_size=6,
    pretrain_people=6,
    pretrain_views=4,
    evaluate_every=1,
    bins_every=0,
)
OPTIONS = [
    *("--size", "32", "--width", "8", "--depth", "2"),
    *("--epochs", "1", "1", "1", "--batch-size", "6"),
    *("--people", "12", "--test-people", "6", "--device", "cpu"),
]


@pytest.fixture(scope="module")
def people() -> People:
    return draw_people(12, size=32, canvas=48)


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    # Tiny tensors, and TensorBoard's own imports warn.
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning, module="tensorboard")
        yield
    torch.set_num_threads(before)


def run(people: People, folder: Path | str, **changes: Any) -> Run:
    return train(people, people.subset([0, 1, 2]), replace(TINY, **changes), folder, progress=False)


def same(a: Run, b: Run) -> bool:
    first, second = a.model.state_dict(), b.model.state_dict()
    return all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.slow
def test_the_script_from_end_to_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "all"
    results = hourglass_mpii.main([*OPTIONS, "--arms", *ARMS, "--bins-every", "1", "--out", str(out)])
    printed = capsys.readouterr().out
    assert list(results["arms"]) == list(ARMS)
    assert json.loads((out / "results.json").read_text())["arms"].keys() == results["arms"].keys()
    assert {runs[0]["images"] for runs in results["arms"].values()} == {24}, "every arm sees as many images"
    story = (
        "Only the views",
        "What training found hard",
        "| hardest rotation: ",
        "flip test",
        "From none to asr+aho",
        "Next: ",
    )
    assert sorted(story, key=printed.index) == list(story)
    lines = [line for line in printed[printed.index("flip test") :].splitlines() if line.startswith("|")]
    assert lines[0].replace(" ", "") == "|%|Head|Sho.|Elb.|Wri.|Hip|Knee|Ank.|Mean|"
    assert len({len(line) for line in lines[: 2 * len(ARMS) + 1]}) == 1
    assert any(line.startswith("| asr+aho − none") for line in lines)
    for name in ("distributions", "views"):
        assert (out / f"{name}.png").stat().st_size > 10_000
        assert f"{name}.png" in printed
    history = results["arms"]["asr+aho"][0]["history"]
    assert [epoch["stage"] for epoch in history] == [1, 2, 3]
    assert history[2]["distribution"].keys() == {"asr.scale", "asr.rotate", "aho.occlude"}
    assert history[2]["reward_rate"].keys() == {"asr", "aho"}
    assert history[2]["loss"].keys() == {"random", "asr", "aho"}
    assert [len(history[2]["by_bin"][name]) for name in ("scale", "rotate")] == [7, 9]
    assert list((out / "asr+aho-seed0" / "tensorboard").iterdir())


@pytest.fixture(scope="module")
def baselines(people: People, tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    """The random arm after stage 1 and after stage 3."""
    return [run(people, tmp_path_factory.mktemp("random"), arm="random", epochs=(1, 1, third)) for third in (0, 1)]


GENERATED = {
    "none": [], "random": ["asr", "aho"], "uniform": [], "trivial": [], "running": [], "robust": [],
    "asr": ["asr"], "aho": ["aho"], "asr+aho": ["asr", "aho"],
}  # fmt: skip
OTHERS_FROM_THE_START: tuple[Arm, ...] = ("none", "trivial")


@pytest.mark.parametrize("arm", [
    "robust", "asr+aho", *(pytest.param(arm, marks=pytest.mark.slow) for arm in ("running", "uniform", "asr", "aho"))
])  # fmt: skip
def test_arms_start_alike_and_differ_in_stage_3_alone(people: People, tmp_path: Path, baselines: list[Run], arm: Arm) -> None:
    assert same(run(people, tmp_path / "a", arm=arm, epochs=(1, 0, 0)), baselines[0])
    assert not same(run(people, tmp_path / "b", arm=arm), baselines[1])
    branches = policy_of(replace(TINY, arm=arm), MPII).branches
    generated = [branch.name for branch in branches if isinstance(branch.learned, Paper)]
    assert generated == GENERATED[arm]


@pytest.mark.parametrize("arm", OTHERS_FROM_THE_START)
def test_arms_without_the_papers_views_never_see_them(people: People, tmp_path: Path, baselines: list[Run], arm: Arm) -> None:
    first = run(people, tmp_path, arm=arm, epochs=(1, 0, 0))
    assert not same(first, baselines[0])
    stages = [epoch.stage for epoch in run(people, tmp_path / "b", arm=arm).history]
    assert stages == ([1, 2, 3] if GENERATED[arm] else [1, 3])  # otherwise there is nothing to pre-train
    batch = next(people.batches(6, shuffle=False))
    views = first.augmenter.random(batch)["image"]
    plain = people.cropped(TINY.size).images[:6].float() / 255
    assert torch.allclose(views, plain, atol=1e-4) == (arm == "none")
    branches = policy_of(replace(TINY, arm=arm), MPII).branches
    assert [branch.name for branch in branches if isinstance(branch.learned, Paper)] == GENERATED[arm]


def test_one_distribution_for_all_images(people: People, tmp_path: Path) -> None:
    make_augmenter = Ablation(one_for_all=True).make_augmenter
    trained = train(people, people.subset([0, 1, 2]), TINY, tmp_path, make_augmenter=make_augmenter, progress=False)
    shown = trained.augmenter.distributions(trained.model, next(people.batches(6, shuffle=False)))
    assert set(shown) == {"asr.scale", "asr.rotate", "aho.occlude"}
    for value in shown.values():
        assert torch.equal(value, value[:1].expand_as(value))
        assert value.std(1).min() > 0  # it was pre-trained


def test_the_same_seed_gives_the_same_weights(people: People, tmp_path: Path, whole: Run) -> None:
    assert same(run(people, tmp_path), whole)
    assert not torch.equal(*(next(make_model(replace(TINY, seed=seed), MPII).parameters()) for seed in (3, 4)))
    state = torch.get_rng_state()
    make_model(TINY, MPII)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    "changes",
    [
        {"loss": "mse", "optimizer": "rmsprop", "lr": 2.5e-4, "patience": 1},
        {"precision": "bf16"},
        pytest.param({"accumulate": 2}, marks=pytest.mark.slow),
        pytest.param({"block": "dense", "stacks": 2}, marks=pytest.mark.slow),
        pytest.param({"measure": "loss"}, marks=pytest.mark.slow),
    ],
    ids=lambda changes: "-".join(changes),
)
def test_options(people: People, tmp_path: Path, changes: dict[str, Any]) -> None:
    trained = run(people, tmp_path, **changes)
    assert all(torch.isfinite(value).all() for value in trained.model.state_dict().values())
    assert [epoch.stage for epoch in trained.history] == ([1, 3] if trained.config.arm in UNLEARNED else [1, 2, 3])


@pytest.mark.parametrize(
    ("ablation", "said", "changes"),
    [
        pytest.param(Ablation(until=0.5), "until=0.5", {"measure": "loss"}, marks=pytest.mark.slow),
        pytest.param(Ablation(scoring="train", update_every=2), "scoring='train', update_every=2", {}, marks=pytest.mark.slow),
        pytest.param(Ablation(reads=("hg.0.neck",)), "reads=('hg.0.neck',)", {}, marks=pytest.mark.slow),
        (Ablation(share=0.2, reads=(), hides=()), "share=0.2, reads=(), hides=()", {}),
        pytest.param(Ablation(random="normal"), "random='normal'", {"arm": "random"}, marks=pytest.mark.slow),
        (Ablation(rest=True), "rest=True", {"arm": "aho"}),
    ],
)
def test_ablations(people: People, tmp_path: Path, ablation: Ablation, said: str, changes: dict[str, Any]) -> None:
    assert str(ablation) == said
    config = replace(TINY, variant=str(ablation), **changes)
    trained = train(people, people.subset([0, 1, 2]), config, tmp_path, make_augmenter=ablation.make_augmenter, progress=False)
    assert all(torch.isfinite(value).all() for value in trained.model.state_dict().values())
    with pytest.raises(ValueError, match=rf"variant: .*{re.escape(said)}.* there, '' now"):
        run(people, tmp_path, **changes)


def test_an_ablation_that_changes_nothing_is_the_arm(people: People, tmp_path: Path, whole: Run) -> None:
    ablation = Ablation()
    assert str(ablation) == ""
    trained = train(people, people.subset([0, 1, 2]), TINY, tmp_path, make_augmenter=ablation.make_augmenter, progress=False)
    assert same(trained, whole)


@pytest.mark.slow
def test_channels_last_changes_no_result(people: People, tmp_path: Path) -> None:
    usual = run(people, tmp_path / "a")
    other = train(people, people.subset(range(5)), TINY, tmp_path / "b", machine=Machine(channels_last=True), progress=False)
    for ours, theirs in zip(usual.model.parameters(), other.model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=3e-3, rtol=0)  # Adam's step is 1e-3 whatever the gradient's size


def test_learning_rates() -> None:
    rate = partial(learning_rate, Config(lr=1.0), scores=[], decay=0.1, decay_at=(0.5, 0.75))
    assert [round(rate(done), 3) for done in (0, 0.49, 0.5, 0.75, 1)] == [1, 1, 0.1, 0.01, 0.01]
    patient = Config(lr=1.0, patience=2)
    scores = [10.0, 20.0, 15.0, 21.0, 19.0, 21.0, 30.0]
    assert [learning_rate(patient, 0, scores[:n]) for n in range(8)] == [1, 1, 1, 1, 1, 1, 0.2, 0.2]


def test_config_says_what_is_wrong(people: People, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"`arm` should be one of none, random.*Found 'best'"):
        Config(arm="best")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"`epochs` should be three numbers"):
        Config(epochs=(0, 1, 0))
    with pytest.raises(ValueError, match=r"multiple of ranks x accumulate = 4\. Found 6"):
        run(people, tmp_path, accumulate=4)
    with pytest.raises(ValueError, match=r"at least a batch of people to train on, 6\. Found 3"):
        run(people.subset(range(3)), tmp_path)


@pytest.fixture(scope="module")
def whole(people: People, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that nothing interrupted."""
    return run(people, tmp_path_factory.mktemp("whole"))


# -- stage 1 is shared, stage 2 is resumed inside its epoch, ranks read their own rows ------------------------------------


@pytest.mark.parametrize("arm", [
    "random", "asr+aho", *(pytest.param(arm, marks=pytest.mark.slow) for arm in ("uniform", "running", "robust", "asr", "aho"))
])  # fmt: skip
def test_a_shared_stage_1_gives_the_very_weights_of_an_own_one(people: People, tmp_path: Path, arm: Arm) -> None:
    config, few = replace(TINY, arm=arm), people.subset([0, 1, 2])
    train(people, few, replace(TINY, arm="random"), tmp_path / "1", only_stage_1=True, progress=False)
    shared = train(people, few, config, tmp_path / "shared", stage_1=tmp_path / "1", progress=False)
    _assert_the_same(shared, run(people, tmp_path / "own", arm=arm))


def test_a_stage_1_of_other_settings_is_refused(people: People, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="should hold the checkpoint of stage 1"):
        train(people, people, TINY, tmp_path / "a", stage_1=tmp_path / "nowhere", progress=False)
    train(people, people, replace(TINY, arm="random", lr=0.5), tmp_path / "1", only_stage_1=True, progress=False)
    with pytest.raises(ValueError, match=r"same settings.*lr: 0\.5 there"):
        train(people, people, TINY, tmp_path / "b", stage_1=tmp_path / "1", progress=False)


def test_stage_2_goes_on_inside_its_epoch(people: People, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config: dict[str, Any] = {"pretrain_people": None, "batch_size": 3, "accumulate": 3, "epochs": (1, 2, 1)}
    whole = run(people, tmp_path / "whole", **config)  # four steps an epoch, in one part
    monkeypatch.setattr(training, "PART", 1)
    usual, calls = adaug.AdversarialAugmenter.pretrain, 0

    def killed(*given: Any, **more: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 7:
            raise KeyboardInterrupt
        return usual(*given, **more)

    monkeypatch.setattr(adaug.AdversarialAugmenter, "pretrain", killed)
    with pytest.raises(KeyboardInterrupt):
        run(people, tmp_path / "part", **config)
    assert torch.load(tmp_path / "part" / checkpoints.NAME, weights_only=True)["session"]["partial"]["steps"] == 2
    _assert_the_same(run(people, tmp_path / "part", **config), whole)
    assert calls == 9, "two steps of the epoch were not made again"


@pytest.mark.parametrize(("ranks", "accumulate"), [(1, 1), (2, 1), (4, 2), (3, 4)])
def test_ranks_read_their_own_rows_and_all_together_everybody(ranks: int, accumulate: int) -> None:
    order, size = torch.randperm(72), 24
    each = [list(my_parts(order, size, accumulate, rank, ranks)) for rank in range(ranks)]
    assert {len(parts) for parts in each} == {3 * accumulate}
    for step, batch in enumerate(order.split(size)):
        read = torch.cat([torch.cat(parts[step * accumulate : (step + 1) * accumulate]) for parts in each])
        assert sorted(read.tolist()) == sorted(batch.tolist())


def test_the_time_left_knows_what_each_stage_costs(tmp_path: Path) -> None:
    config = replace(TINY, arm="asr+aho", pretrain_views=63)
    progress = Progress(tmp_path, config, [1, 2, 3], [10, 4, 10], [], False)
    progress.at = 5
    assert progress.seconds_left({1: [15.0, 5], 2: [0.0, 0], 3: [0.0, 0]}) == pytest.approx(5 * 3 + 4 * 64 + 10 * 5)
    assert progress.seconds_left({1: [15.0, 5], 2: [8.0, 4], 3: [0.0, 0]}) < 5 * 3 + 4 * 2 + 10 * 5
    progress.close()
    progress = Progress(tmp_path, replace(config, arm="random"), [1, 3], [10, 10], [], False)
    assert progress.seconds_left({1: [30.0, 10], 2: [0.0, 0], 3: [0.0, 0]}) == pytest.approx(60)
    progress.start()
    progress.step(Means(torch.device("cpu")))
    assert re.search(
        r"random seed 0: epoch 1 of 2 \(random views\), step 1 of 10, \d+ images/s, .* GiB, .* left",
        progress.line(Means(torch.device("cpu"))),
    )
    progress.close()


# -- resuming --------------------------------------------------------------------------------------------------------


def test_a_finished_run_is_not_trained_again(people: People, whole: Run) -> None:
    again = run(people, whole.folder)
    assert same(whole, again)
    assert again.history == whole.history


def test_a_folder_is_not_taken_from_another_run(people: People, tmp_path: Path) -> None:
    run(people, tmp_path, epochs=(1, 0, 0))
    before = (tmp_path / "checkpoint.pt").read_bytes()
    with pytest.raises(ValueError, match=r"same settings\. Found another one \(lr: 0\.001 there, 0\.5 now\).*--no-resume"):
        run(people, tmp_path, epochs=(1, 0, 0), lr=0.5)
    with pytest.raises(ValueError, match=r"people: 'MPII-12-.*' there, 'MPII-9-.*' now"):
        run(people.subset(range(9)), tmp_path, epochs=(1, 0, 0))
    assert (tmp_path / "checkpoint.pt").read_bytes() == before
    (tmp_path / "checkpoint.pt").write_bytes(before[:1000])
    with pytest.raises(ValueError, match=r"should be a checkpoint\. Found that it cannot be read"):
        run(people, tmp_path, epochs=(1, 0, 0))
    train(people, people, replace(TINY, epochs=(1, 0, 0), lr=0.5), tmp_path, resume=False, progress=False)


def test_a_folder_that_cannot_be_written_is_known_at_once(people: People, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file/run"):
        run(people, tmp_path / "file" / "run")


def test_a_half_written_checkpoint_does_not_count(
    people: People, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: Run
) -> None:
    replaced = os.replace

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    def second(source: Any, target: Any) -> None:
        monkeypatch.setattr(safe_files.os, "replace", killed)
        replaced(source, target)

    monkeypatch.setattr(safe_files.os, "replace", second)
    with pytest.raises(KeyboardInterrupt):
        run(people, tmp_path / "part")
    monkeypatch.setattr(safe_files.os, "replace", replaced)
    assert (tmp_path / "part" / "checkpoint.pt.tmp").exists()
    assert same(run(people, tmp_path / "part"), whole)
    assert not (tmp_path / "part" / "checkpoint.pt.tmp").exists()


def _damaged(whole: bytes) -> Iterator[bytes]:
    """A checkpoint with single bits flipped, cut short, empty, and files that are none."""
    rng = random.Random(0)
    for _ in range(100):
        position = rng.randrange(8 * len(whole))
        flipped = bytearray(whole)
        flipped[position // 8] ^= 1 << position % 8
        yield bytes(flipped)
    yield from (whole[:-1], whole[: len(whole) // 2], b"", b"\n", b"a text\n", whole[: -safe_files.TRAILER])
    other = io.BytesIO()
    torch.save({"weights": torch.ones(3)}, other)
    yield other.getvalue()


def test_no_damaged_checkpoint_is_taken(people: People, whole: Run, tmp_path: Path) -> None:
    path = tmp_path / checkpoints.NAME
    content = (whole.folder / checkpoints.NAME).read_bytes()
    identity = torch.load(io.BytesIO(content), weights_only=True)
    for damaged in _damaged(content):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=rf"^{path} should be a checkpoint.*delete it or use --no-resume[^\n]*$"):
            checkpoints.load_checkpoint(tmp_path, identity)
    safe_files.write_checked(path, b"whole, and no checkpoint")
    with pytest.raises(ValueError, match=rf"^{path} should be a checkpoint"):
        checkpoints.load_checkpoint(tmp_path, identity)


def test_a_full_disk_leaves_the_last_checkpoint(
    people: People, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: Run
) -> None:
    path, sync, wholes = tmp_path / checkpoints.NAME, os.fsync, []

    def full(file: int) -> None:
        if path.exists():
            wholes.append(path.read_bytes())
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(file)

    monkeypatch.setattr(safe_files.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        run(people, tmp_path)
    assert path.read_bytes() == wholes[0]
    assert not list(tmp_path.glob("*.tmp"))
    monkeypatch.setattr(safe_files.os, "fsync", sync)
    assert same(run(people, tmp_path), whole)


def test_a_run_takes_its_folder_and_clears_what_a_killed_one_left(tmp_path: Path) -> None:
    for name in ("half.tmp", "other.part", "mine.txt"):
        (tmp_path / name).write_text("")
    with one_run(tmp_path, ("other.*",)):
        assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "mine.txt"]
    with one_run(tmp_path):
        pass  # and again


def test_two_runs_do_not_share_a_folder(people: People, tmp_path: Path) -> None:
    with (
        one_run(tmp_path),
        pytest.raises(OSError, match=rf"one run at a time\. Found another one in it \(process {os.getpid()} on .*\); wait"),
    ):
        run(people, tmp_path)
    with (
        one_run(tmp_path),
        pytest.raises(OSError, match=r"one run at a time"),
    ):
        hourglass_mpii.main([*OPTIONS, "--out", str(tmp_path)])


def _assert_the_same(resumed: Run, whole: Run) -> None:
    states = [torch.load(one.folder / checkpoints.NAME, weights_only=True)["session"] for one in (resumed, whole)]
    _assert_equal(*states)
    histories = [[replace(epoch, seconds=0, cpu_seconds=0) for epoch in one.history] for one in (resumed, whole)]
    assert histories[0] == histories[1]


# One process imports all this once, and each run dies in a fork of it.
KILLED = """
import json, os, signal, sys, torch
torch.set_num_threads(1)
from examples.datasets import safe_files
from examples.hourglass import augmentation, training
from tests.examples.hourglass.test_training import draw_people, run

def die_in(owner, name, when):
    calls = 0
    usual = getattr(owner, name)
    def wrapped(*args):
        nonlocal calls
        calls += 1
        if calls == when:
            if name == "fsync":
                os.ftruncate(args[0], 100)
            os.kill(os.getpid(), signal.SIGKILL)
        return usual(*args)
    setattr(owner, name, wrapped)

WHERE = {
    "stage 1": (training._Session, "_random"), "stage 2": (augmentation, "error_of"), "stage 3": (training._Session, "_step"),
    "evaluation": (training._Session, "_evaluate"), "writing": (safe_files.os, "fsync"), "renaming": (safe_files.os, "replace"),
}
people, codes = draw_people(12, size=32, canvas=48), []
for where, when, folder in json.loads(sys.argv[1]):
    child = os.fork()
    if not child:
        die_in(*WHERE[where], when)
        run(people, folder)
        os._exit(0)
    codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
print(json.dumps(codes))
"""
KILLS = [
    ("stage 1", 2),
    ("stage 2", 3),
    ("stage 3", 1),
    ("stage 3", 2),
    ("evaluation", 2),
    ("writing", 1),
    ("writing", 3),
    ("renaming", 2),
]


def _python(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, int], Path]:
    """What each killed run left."""
    folders = {kill: tmp_path_factory.mktemp("killed") for kill in KILLS}
    done = _python("-c", KILLED, json.dumps([(*kill, str(folder)) for kill, folder in folders.items()]))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == len(KILLS) * [-signal.SIGKILL], done.stderr
    return folders


@pytest.mark.slow
@pytest.mark.parametrize(("where", "when"), KILLS)
def test_a_killed_run_resumes_to_the_same_bits(
    people: People, whole: Run, killed: dict[tuple[str, int], Path], where: str, when: int
) -> None:
    folder = killed[where, when]
    _assert_the_same(run(people, folder), whole)
    assert not list(folder.glob("*.tmp"))


@pytest.mark.slow
def test_sigterm_ends_the_script_and_the_same_command_goes_on(tmp_path: Path) -> None:
    def command(out: Path) -> list[str]:
        return ["examples/hourglass_mpii.py", *OPTIONS, "--arms", "random", "--epochs", "2", "0", "2", "--out", str(out)]

    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, *command(tmp_path / "a")], cwd=ROOT, env=environment)
    deadline = time.monotonic() + 120
    while not list((tmp_path / "a").glob("*/checkpoint.pt")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGTERM)
    assert process.wait(120) == -signal.SIGTERM
    assert not (tmp_path / "a" / "results.json").exists()
    for out in ("a", "b"):
        done = _python(*command(tmp_path / out))
        assert done.returncode == 0, done.stderr
    states = [torch.load(tmp_path / out / "random-seed0/checkpoint.pt", weights_only=True)["session"] for out in ("a", "b")]
    _assert_equal(*states)


def _assert_equal(a: Any, b: Any) -> None:
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            _assert_equal(a[key], b[key])
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b)
    else:
        assert a == b


@pytest.mark.slow
def test_two_ranks(tmp_path: Path) -> None:
    options = [*OPTIONS, "--test-people", "7", "--bins-every", "0", "--arms", "random", "asr+aho", "--out", str(tmp_path)]
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "examples/hourglass_mpii.py"]
    done = _python(*torchrun, *options)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Look at:") == 1, "one rank alone prints"
    results = json.loads((tmp_path / "results.json").read_text())
    (scores,) = results["arms"]["asr+aho"]
    assert scores["images"] == 24
    # Seven people, 14 joints in groups: every share is a whole number of 98ths, so nobody was counted twice.
    hits = scores["pck"]["0.5"]["Mean"] * 98 / 100
    assert hits == pytest.approx(round(hits), abs=1e-6)
    again = _python(*torchrun, *options)
    assert again.returncode == 0, again.stderr
    assert json.loads((tmp_path / "results.json").read_text())["arms"]["asr+aho"][0]["pck"] == scores["pck"]

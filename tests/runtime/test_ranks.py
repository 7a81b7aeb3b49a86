"""Ranks that do not do the same get an error that all can catch and go on; running difficulty is alike on all."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import networks as nets
import pytest
import ranks_worker
import torch
import torch.distributed as dist

import adaug
from adaug._views.view import concatenate
from adaug.learners import Running, Seen

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not dist.is_available() or not dist.is_gloo_available(), reason="needs gloo"),
]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What the two ranks of ranks_worker.py saw."""
    folder, here = tmp_path_factory.mktemp("ranks"), Path(__file__).parents[1]
    paths = [str(Path(adaug.__file__).parents[1]), str(here), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(path for path in paths if path)}
    command = [sys.executable, str(here / "ranks_worker.py")]
    workers = [subprocess.Popen([*command, rank, folder], env=environment, stderr=subprocess.PIPE, text=True) for rank in "01"]
    try:
        ends = [worker.communicate(timeout=180)[1] for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    assert [worker.returncode for worker in workers] == [0, 0], "\n".join(end[-4000:] for end in ends)
    return [torch.load(folder / f"uneven{rank}.pt", weights_only=False) for rank in range(2)]


def test_a_rank_with_fewer_batches_is_named_within_the_set_time(ranks):
    message, seconds = ranks[0]["fewer_batches"]["error"]
    assert "Found rank 0 in step 2 without rank 1" in message
    assert "skip a batch on all of them or on none" in message
    assert seconds < ranks_worker.SECONDS + 4
    assert ranks[0]["fewer_batches"]["unchanged"]


def test_a_rank_that_has_left_is_named_at_once(ranks):
    message, seconds = ranks[0]["one_left"]["error"]
    assert "Found rank 0 in step 1 without rank 1" in message
    assert seconds < 10


def test_a_rank_that_never_binds_is_named(ranks):
    message, seconds = ranks[0]["bound_alone"]["error"]
    assert re.search(r"Found rank 0 at binding \(\d+ numbers\) without rank 1, after", message)
    assert seconds < ranks_worker.SECONDS + 4
    assert ranks[0]["bound_alone"]["hooks"] == 0


def test_ranks_at_different_steps_are_told_so(ranks):
    for rank in ranks:
        assert "Found rank 0 in step 0, rank 1 in step 7; load one state on all" in rank["other_steps"]["error"][0]


def test_running_difficulty_is_the_same_on_all_ranks_to_the_bit(ranks):
    a, b = (rank["running"] for rank in ranks)
    assert nets.same(a["state"], b["state"])
    assert nets.same(dict(a["table"]), dict(b["table"]))
    assert a["state"]["steps"] == 8


def alone(policy, steps):
    """Running difficulty in one process that sees the rows of all ranks."""
    (state,) = adaug.AdversarialAugmenter(policy)._state.learners.values()
    for parts in steps:
        views, branches, difficulties = zip(*parts, strict=True)
        view = concatenate(list(views), [len(branch) for branch in branches]) if len(views) > 1 else views[0]
        seen = Seen(view, torch.cat(branches), partial(torch.cat, difficulties), lambda: None)
        state = Running().observe(state, seen)
    return Running().state_dict(state)


def test_running_difficulty_of_two_ranks_is_that_of_one_process_with_all_rows(ranks):
    steps = list(zip(ranks[0]["running"]["seen"], ranks[1]["running"]["seen"], strict=True))
    expected, found = alone(ranks_worker.policy("running"), steps), ranks[0]["running"]["state"]
    for name in ("sums", "pending", "probabilities"):
        torch.testing.assert_close(found[name], expected[name], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("learned", [True, "running"])
@pytest.mark.parametrize("fails_at", ["a score", "the training pass"])
def test_a_rank_may_skip_a_batch_that_fails(ranks, learned, fails_at):
    """No rank dies, both go on together, and both have learned the same."""
    a, b = (rank["skipped"][learned, fails_at] for rank in ranks)
    assert b["errors"][0] == (2, "This batch is broken.")
    if learned is True and fails_at == "a score":  # rank 0 waits before its training pass, and rank 1 comes with its next batch
        assert (len(a["errors"]), len(b["errors"])) == (0, 1)
    else:
        (step, message), (later, other) = a["errors"][0], b["errors"][1]
        assert (step, later, len(a["errors"]), len(b["errors"])) == (2, 3, 1, 2)
        assert message == other
        assert re.search(r"Found rank 0 with sums .*, rank 1 in step 2; load", message)
    assert a["state"]["steps"] == b["state"]["steps"] == 6 - len(a["errors"])
    assert nets.same(a["state"], b["state"])
    weights = [{name: value for name, value in side["model"].items() if "running" not in name} for side in (a, b)]
    assert nets.same(*weights)


def test_ranks_go_on_after_one_was_late(ranks):
    for rank in ranks:
        assert len(rank["late"]["errors"]) == 1
        assert rank["late"]["steps"] == 3
    assert "Found rank 0 in step 1 without rank 1" in ranks[0]["late"]["errors"][0]

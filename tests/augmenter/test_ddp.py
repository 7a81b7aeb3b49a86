"""Two processes that train together: generators alike to the bit, draws of their own, gradients over the union of rows."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import networks as nets
import pytest
import torch
import torch.distributed as dist

import adaug
from adaug.learners.reward import kl_divergence

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not dist.is_available() or not dist.is_gloo_available(), reason="needs gloo"),
]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What the two ranks of ddp_worker.py saw."""
    folder = tmp_path_factory.mktemp("ddp")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    here = Path(__file__).parents[1]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-addr", "127.0.0.1"]
    command += ["--master-port", str(port), str(here / "ddp_worker.py"), str(folder)]
    paths = [str(Path(adaug.__file__).parents[1]), str(here), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(path for path in paths if path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]
    return [torch.load(folder / f"rank{rank}.pt", weights_only=False) for rank in range(2)]


@pytest.mark.parametrize("scene", ["twenty_steps", "rows_missing", "scored_in_training", "pretrained"])
def test_generators_are_alike_to_the_bit(ranks, scene):
    a, b = (rank[scene]["generators"] for rank in ranks)
    assert a["asr"]["generator"].keys() == b["asr"]["generator"].keys()
    assert nets.same(a, b)
    assert any(value.any() for name, value in a["asr"]["generator"].items() if name.startswith("heads"))  # they have learned


def test_model_weights_are_alike(ranks):
    a, b = (rank["twenty_steps"]["model"] for rank in ranks)
    assert all(torch.equal(a[name], b[name]) for name in a if "running" not in name)


def test_every_rank_draws_for_itself(ranks):
    a, b = (rank["twenty_steps"]["seen"] for rank in ranks)
    for (_, branch_a, matrix_a, mask_a), (_, branch_b, matrix_b, mask_b) in zip(a, b, strict=True):
        assert not torch.equal(matrix_a, matrix_b)
        assert branch_a.bincount().tolist() == branch_b.bincount().tolist()
        assert not (torch.equal(mask_a, mask_b) and torch.equal(branch_a, branch_b))


def test_a_rank_without_rows_of_a_branch_waits_for_nobody(ranks):
    """That it came here at all says that nothing hung; here that it did lack rows."""
    branches = [set(step.tolist()) for step in ranks[1]["rows_missing"]["branches"]]
    assert all(len(found) == 1 for found in branches)
    assert len(set.union(*branches)) > 1


def test_the_gradient_is_the_mean_over_the_union_of_rows(ranks):
    a, b = (rank["one_update"] for rank in ranks)
    assert nets.same(a["moved"], b["moved"])
    generator = adaug.Generator(a["shapes"], {"scale": 7, "rotate": 9}, width=16, size=8)
    generator.load_state_dict(a["before"])
    valid = torch.cat([a["valid"], b["valid"]])
    assert valid.tolist() == [True] * 7 + [False, True]
    logits = generator([torch.cat(pair)[valid] for pair in zip(a["features"], b["features"], strict=True)])
    divergence = sum(
        kl_divergence(torch.cat([a["targets"][operation], b["targets"][operation]])[valid], logits[operation].log_softmax(1))
        for operation in logits
    )
    divergence.mean().backward()
    for name, parameter in generator.named_parameters():
        torch.testing.assert_close(a["moved"][name], parameter.grad, rtol=1e-4, atol=1e-6, msg=name)


def test_both_ranks_go_on_from_the_state_of_rank_0(ranks):
    for rank in ranks:
        assert rank["resumed"]["equal"] == {"before binding": True, "after binding": True}
    a, b = (rank["resumed"]["seen"] for rank in ranks)
    assert not any(torch.equal(step_a[2], step_b[2]) for step_a, step_b in zip(a, b, strict=True))


@pytest.mark.parametrize("case", ["generators, exact", "generators, scored in training", "running, layers found"])
def test_a_sharded_model_trains_as_in_ddp(ranks, case):
    """Steps by fully_shard, past an answer: losses, generators and running difficulty of each rank are those of DDP."""
    for rank in ranks:
        whole, sharded = (rank["sharded"][case, how] for how in ("ddp", "fsdp"))
        torch.testing.assert_close(sharded["losses"], whole["losses"], rtol=1e-3, atol=1e-4)
        if case.startswith("running"):
            for sums in ("sums", "pending"):
                one, other = (found["state"]["learners"]["asr+aho"][sums] for found in (sharded, whole))
                assert one.any()
                torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)
    layers = [rank["sharded"][case, how]["layers"] for rank in ranks for how in ("ddp", "fsdp")]
    assert layers.count(layers[0]) == 4, "all ranks find the same layers, in images of their own"
    a, b = (rank["sharded"][case, "fsdp"]["state"] for rank in ranks)
    assert nets.same(a["learners"], b["learners"])
    assert a["measure"] == b["measure"]
    assert (a["measure"] is not None) == case.startswith("running")


@pytest.mark.parametrize("name", ["means", "mixed", "response"])
def test_the_state_of_a_users_own_learner_is_alike_to_the_bit(ranks, name):
    a, b = (rank["own_learners"][name] for rank in ranks)
    assert nets.same(a["state"], b["state"])
    assert nets.same(a["weights"], b["weights"])
    learned = next(state for state in a["state"]["learners"].values() if state is not None)
    assert learned["steps"] == 9
    if name == "means":  # each row of both ranks is turned: 7 a step, which fade
        assert float(learned["turn.rotate"][:, 1].sum()) == pytest.approx(7 * (1 - 0.9**9) / (1 - 0.9), rel=1e-4)

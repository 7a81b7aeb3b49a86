"""On a GPU: the same step, in any precision and layout, that waits for nothing. Where there is none, the meta device shows
as much as it can: its tensors have no values, so that a step which reads one fails where a GPU would have to be waited for.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import networks as nets
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import adaug
from adaug.learners.running import EVERY

gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
PAIRS = [(0, 1)]
AUGMENTERS: dict[str, dict[str, Any]] = {
    "default": {},
    "training": {"scoring": "train"},
    "now and then": {"update_every": 2},
    "reads the image": {"features": ()},
    "hides the image": {"occlude": ()},
    "one for all": {"features": (), "generator": adaug.learners.OneForAll},
    "difficulty": {"difficulty": adaug.keypoints.normalized_error},
    "wide": {"policy": adaug.policies.wide(PAIRS)},
    "rest": {"policy": adaug.policies.wide(PAIRS, rest=True)},
    "released": {"policy": adaug.policies.released(PAIRS)},
    "trivial": {"policy": adaug.policies.trivial(PAIRS)},
    "robust": {"policy": adaug.policies.robust(PAIRS)},
}


class NeverWaits(TorchDispatchMode):
    """Raises where a GPU's queue would be waited for: a copy between devices that blocks, or an operation that mixes them."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        name = func.overloadpacket.__name__
        if name in ("_to_copy", "copy_"):
            ends = {tensor.device.type for tensor in tensors} | {torch.device(kwargs.get("device") or tensors[0].device).type}
            blocks = not (kwargs.get("non_blocking") or (name == "copy_" and True in args[2:]))
        else:
            ends = {tensor.device.type for tensor in tensors if tensor.ndim}  # a number on the CPU travels with the call
            blocks = True
        if len(ends) > 1 and blocks:
            raise RuntimeError(f"{name} would wait, or fail: {[(tuple(t.shape), t.device.type) for t in tensors]}")
        return func(*args, **kwargs)


@pytest.fixture
def meta(monkeypatch):
    """Lets autocast be asked for on the meta device, which knows none, and leaves the first look at pixel values out."""
    usual = torch.autocast

    def autocast(kind, *args, **kwargs):
        return nullcontext() if kind == "meta" else usual(kind, *args, **kwargs)

    monkeypatch.setattr(torch, "autocast", autocast)
    for module in ("augmenter", "augment"):
        monkeypatch.setattr(f"adaug.{module}.check_policy", lambda policy, batch, wait: None)


def draws_at_random(augmenter):
    """Whether `random` would do anything."""
    return any(operation.in_random_views for operation in augmenter.policy.operations.values())


def moved(batch, device):
    return {name: value.to(device) for name, value in batch.items()}


@pytest.mark.parametrize("name", [
    pytest.param(name, marks=[] if name in ("default", "trivial") else pytest.mark.slow) for name in AUGMENTERS
])  # fmt: skip
def test_a_step_reads_no_value_and_mixes_no_devices(meta, name):
    model, augmenter = nets.make_network().to("meta"), nets.make_augmenter(**AUGMENTERS[name])
    side, n = nets.SIDE, 9
    more = {"mask": torch.zeros(n, side, side).long(), "boxes": torch.zeros(n, 4, 4), "heatmaps": torch.zeros(n, 2, 16, 16)}
    batch = moved({**nets.make_batch(n), **more}, "meta")
    augmenter.bind(model, batch)
    with NeverWaits():
        for _ in range(EVERY + 1):
            result = augmenter.step(model, batch, nets.loss_fn)
        if draws_at_random(augmenter):
            augmenter.random(batch)
        augmenter.distributions(model, batch)
        augment = adaug.Augment(augmenter.policy, seed=0)
        for _ in range(2):
            assert augment(batch)["image"].device.type == "meta"
        augment({**batch, "image": (batch["image"] * 255).to(torch.uint8)})
    assert {value.device.type for value in [result.losses, result.branch, *result.metrics.values()]} == {"meta"}


def test_what_would_wait_is_seen():
    here, there = torch.ones(3), torch.ones(3, device="meta")
    for waits in (
        lambda: here.to("meta"),
        lambda: there.to("cpu"),
        lambda: there[torch.tensor([0, 1])],
        lambda: there + here,
        lambda: there.copy_(here),
        lambda: float(there.sum()),
        lambda: there.nonzero(),
    ):
        with pytest.raises((RuntimeError, NotImplementedError)), NeverWaits():
            waits()
    with NeverWaits():
        there + here.to("meta", non_blocking=True) + 1.0


# -- with a GPU ------------------------------------------------------------------------------------------------------


@gpu
def test_augment_draws_on_a_gpu_what_it_draws_on_the_cpu():
    found = [
        adaug.Augment(adaug.policies.robust(PAIRS), seed=0)(moved(nets.make_batch(), device)) for device in ("cpu", "cuda")
    ]
    assert found[1]["image"].device.type == "cuda"
    torch.testing.assert_close(found[1]["keypoints"].cpu(), found[0]["keypoints"], atol=1e-3, rtol=1e-4)


@gpu
@pytest.mark.parametrize("name", AUGMENTERS)
def test_a_gpu_draws_what_the_cpu_draws_and_finds_the_same_losses(name):
    found = []
    for device in ("cpu", "cuda"):
        model, augmenter = nets.make_network("without BN").to(device).eval(), nets.make_augmenter(**AUGMENTERS[name])
        found.append(augmenter.step(model, moved(nets.make_batch(), device), nets.loss_fn))
    assert torch.equal(found[0].branch, found[1].branch.cpu())
    torch.testing.assert_close(found[1].batch["keypoints"].cpu(), found[0].batch["keypoints"], atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(found[1].losses.cpu(), found[0].losses, atol=1e-3, rtol=1e-2)


@gpu
@pytest.mark.parametrize("name", AUGMENTERS)
def test_a_step_does_not_wait_for_the_gpu(name):
    model, augmenter = nets.make_network().cuda(), nets.make_augmenter(**AUGMENTERS[name])
    batch = moved(nets.make_batch(), "cuda")
    augmenter.step(model, batch, nets.loss_fn).loss.backward()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(EVERY + 1):
            augmenter.step(model, batch, nets.loss_fn).loss.backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@gpu
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_mixed_precision_trains_every_weight(dtype, layout, compiled):
    torch.compiler.reset()
    model = nets.make_network().cuda().to(memory_format=layout)
    augmenter = nets.make_augmenter()
    scaler = torch.amp.GradScaler("cuda", init_scale=2.0**8, enabled=dtype == torch.float16)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    batch = moved(nets.make_batch(), "cuda")
    batch["image"] = batch["image"].contiguous(memory_format=layout)
    augmenter.bind(model, batch)
    network = torch.compile(model) if compiled else model
    before = [parameter.detach().clone() for parameter in model.parameters()]
    for _ in range(3):
        with torch.autocast("cuda", dtype):
            loss = augmenter.step(network, batch, nets.loss_fn).loss
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())
    assert all(not torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True) if old.ndim > 1)


@gpu
def test_random_states_of_the_gpu_are_put_back():
    torch.use_deterministic_algorithms(True, warn_only=True)
    states, model = [], nets.make_network().cuda()
    batch = moved(nets.make_batch(), "cuda")
    try:
        for augmenter in (None, nets.make_augmenter()):
            torch.cuda.manual_seed(3)
            if augmenter is None:
                model(batch["image"])  # the one pass of the user's own that a step makes
            else:
                augmenter.step(model, batch, nets.loss_fn)
            states.append(torch.cuda.get_rng_state())
    finally:
        torch.use_deterministic_algorithms(False)
    assert torch.equal(*states)


@gpu
def test_a_state_of_a_gpu_goes_on_as_if_it_had_not_stopped():
    def train(steps, state=None):
        model, augmenter = nets.make_network().cuda().eval(), nets.make_augmenter()
        if state is not None:
            augmenter.load_state_dict(state)
        for _ in range(steps):
            augmenter.step(model, moved(nets.make_batch(seed=augmenter.steps), "cuda"), nets.loss_fn)
        return augmenter.state_dict()

    whole, half = train(4), train(2)
    resumed = train(2, half)
    assert resumed["steps"] == whole["steps"] == 4
    for name, adversary in nets.saved_generators(whole).items():
        for key, value in adversary["generator"].items():
            torch.testing.assert_close(nets.saved_generators(resumed)[name]["generator"][key], value, atol=1e-6, rtol=1e-5)


MATRIX_KERNELS = ("aten::mm", "aten::bmm", "aten::addmm", "aten::baddbmm", "aten::matmul")


class MultipliesNothing(TorchDispatchMode):
    """Raises where matrices are multiplied by a kernel that may round to TF32."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func._schema.name not in MATRIX_KERNELS, func
        return func(*args, **(kwargs or {}))


def test_geometry_is_exact_whatever_a_gpu_may_round():
    turns = [adaug.Scale(0.5, 2, 3), adaug.Rotate(-90, 90, 3), adaug.Shear(-9, 9, 3), adaug.Translate(-0.1, 0.1, 3)]
    augmenter = adaug.AdversarialAugmenter(adaug.Policy((), [adaug.Flip(PAIRS), *turns]), output_size=24, seed=0)
    batch = {**nets.make_batch(4), "boxes": (torch.rand(4, 2, 4) * 32).sort().values, "mask": torch.zeros(4, 32, 32)}
    with MultipliesNothing():
        augmenter.random(batch)


@pytest.mark.parametrize("name", AUGMENTERS)
def test_a_default_device_is_for_the_user_alone(name):
    augmenter, model, batch = nets.make_augmenter(**AUGMENTERS[name]), nets.make_network(), nets.make_batch(12)
    torch.set_default_device("meta")  # whatever is made without a word of where then has no values
    try:
        if draws_at_random(augmenter):
            augmenter.random(batch)
        adaug.Augment(augmenter.policy, seed=0)(batch)
        for _ in range(2):
            augmenter.step(model, batch, nets.loss_fn).loss.backward()
        if any(isinstance(branch.learned, adaug.learners.Paper) for branch in augmenter.policy.branches):
            augmenter.pretrain(model, [batch], nets.loss_fn, steps=1, max_views=4)
        found = augmenter.distributions(model, batch)
    finally:
        torch.set_default_device(None)
    assert {value.device.type for value in found.values()} <= {"cpu"}

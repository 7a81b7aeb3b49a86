"""Mixed precision, accumulation, compilation, checkpointing, schedules: the step in the loops that people write."""

# ruff: noqa: PT017
from __future__ import annotations

import copy

import networks as nets
import pytest
import torch
from torch import nn

import adaug
from adaug.policies import Window


def gradients(model):
    return {name: nets.cloned(p.grad) for name, p in model.named_parameters()}


def occluding(share=1.0, **kwargs):
    """Every row occluded, nothing else: what is easiest to compare."""
    return nets.make_augmenter(adaug.Policy([adaug.Branch("aho", [adaug.OccludeFeatures()], share)]), **kwargs)


def twin_of(model):
    """The same model, made again, with nothing of the library on it."""
    return nets.clean_copy(model)


# ---- mixed precision


@pytest.mark.parametrize("look_first", [False, True])
@pytest.mark.parametrize("backward_inside", [False, True])
def test_bf16_autocast_trains_every_weight_as_a_plain_pass_would(backward_inside, look_first):
    model, augmenter = nets.make_network(), nets.make_augmenter()
    for i in range(2):
        twin, batch = twin_of(model), nets.make_batch(12, seed=i)
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            if look_first:
                augmenter.distributions(model, batch)
            state = torch.get_rng_state()
            result = augmenter.step(model, batch, nets.loss_fn)
            if backward_inside:
                result.loss.backward()
        if not backward_inside:
            result.loss.backward()
        torch.set_rng_state(state)
        with torch.autocast("cpu", torch.bfloat16):
            losses = nets.replayed(twin, result)
        losses.mean().backward()
        assert torch.equal(result.losses, losses)
        assert all(p.grad is not None and p.grad.any() for p in model.parameters() if p.ndim > 1)
        assert nets.same(gradients(model), gradients(twin))
        assert all(state.dtype == torch.float32 for state in augmenter._adversaries["asr"].generator.parameters())
        assert torch.is_autocast_cache_enabled()


def test_looking_inside_autocast_does_not_cost_the_users_own_pass_its_gradients():
    model, augmenter, batch = nets.make_network(), nets.make_augmenter(), nets.make_batch()
    augmenter.bind(model, batch)
    with torch.autocast("cpu", torch.bfloat16):
        augmenter.distributions(model, batch)
        augmenter.pretrain(model, [batch], nets.loss_fn, steps=1, most_views=2)
        nets.loss_fn(model(batch["image"]), batch).mean().backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_models_and_images_of_other_precision(dtype):
    model, batch = nets.make_network().to(dtype), nets.make_batch()
    batch["image"] = batch["image"].to(dtype)
    result = nets.make_augmenter().step(model, batch, nets.loss_fn)
    result.loss.backward()
    assert result.batch["image"].dtype == dtype
    assert all(p.grad is not None and p.grad.dtype == dtype for p in model.parameters())


def test_grad_scaler_changes_nothing_but_the_scale():
    def train(scaler):
        torch.manual_seed(0)
        model, augmenter = nets.make_network(), nets.make_augmenter()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for i in range(4):
            result = augmenter.step(model, nets.make_batch(6, seed=i), nets.loss_fn)
            optimizer.zero_grad()
            scaler.scale(result.loss).backward()
            scaler.step(optimizer)
            scaler.update()
        return model.state_dict(), augmenter.state_dict()

    on, off = (train(torch.amp.GradScaler("cpu", init_scale=2.0**8, enabled=enabled)) for enabled in (True, False))
    assert nets.same(on, off)


def test_grad_scaler_skips_a_step_that_overflows_and_goes_on():
    model, augmenter = nets.make_network(), nets.make_augmenter()
    optimizer, scaler = torch.optim.SGD(model.parameters(), lr=0.1), torch.amp.GradScaler("cpu", init_scale=2.0**8)

    def overflows(output, batch):
        return nets.loss_fn(output, batch) * torch.tensor([torch.inf] + [1.0] * (len(output) - 1))

    before = nets.cloned(dict(model.named_parameters()))
    scaler.scale(augmenter.step(model, nets.make_batch(), overflows).loss).backward()
    scaler.step(optimizer)
    scaler.update()
    assert scaler.get_scale() == 2.0**7
    assert nets.same(nets.cloned(dict(model.named_parameters())), before)
    optimizer.zero_grad()
    scaler.scale(augmenter.step(model, nets.make_batch(), nets.loss_fn).loss).backward()
    scaler.step(optimizer)
    assert all(torch.isfinite(p).all() for p in model.parameters())
    assert torch.isfinite(torch.cat([p.flatten() for p in augmenter._adversaries["aho"].generator.parameters()])).all()


# ---- accumulation


@pytest.mark.parametrize("at_once", [False, True], ids=["backward each", "one backward"])
def test_gradients_accumulate_over_steps(at_once):
    model, augmenter = nets.make_network().eval(), nets.make_augmenter()
    twin = twin_of(model)
    results = []
    for i in range(3):
        results.append(augmenter.step(model, nets.make_batch(8, seed=i), nets.loss_fn))
        if not at_once:
            (results[-1].loss / 3).backward()
    if at_once:
        (sum(result.loss for result in results) / 3).backward()
    for result in results:
        (nets.replayed(twin, result).mean() / 3).backward()
    for (name, mine), theirs in zip(model.named_parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, msg=name, rtol=1e-5, atol=1e-7)


# ---- torch.compile

# torch's own: dynamo asks a non-leaf input of a compiled part for its .grad, and meets our warnings-as-errors
compiles = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor", "ignore::DeprecationWarning")


@pytest.fixture
def graphs():
    """A backend's record of the graphs that it got: the number of calls in each."""
    torch.compiler.reset()
    yield []
    torch.compiler.reset()


def recording(graphs):
    def backend(graph, inputs):
        graphs.append(sum(node.op.startswith("call") for node in graph.graph.nodes))
        return graph

    return backend


class Small(nn.Module):
    """An encoder with a skip and a neck, quick to compile."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU())
        self.neck, self.head = nn.Conv2d(8, 8, 3, 2, 1), nn.Conv2d(8, 2, 1)

    def forward(self, x):
        skip = self.body(x)
        return self.head(skip + nn.functional.interpolate(self.neck(skip).relu(), scale_factor=2))


def small():
    torch.manual_seed(0)
    return Small()


def on_small(**kwargs):
    return occluding(**{"features": ["body.0", "neck"], "occlude": ["body.0", "neck"], **kwargs})


def whole(model, backend):
    return torch.compile(model, backend=backend)


def fullgraph(model, backend):
    return torch.compile(model, backend=backend, fullgraph=True)


def in_place(model, backend):
    model.compile(backend=backend)
    return model


def parts(model, backend):
    model.body, model.neck = torch.compile(model.body, backend=backend), torch.compile(model.neck, backend=backend)
    return model


def parts_in_place(model, backend):
    model.body.compile(backend=backend)
    model.neck.compile(backend=backend)
    return model


def only_forward(model, backend):
    model.forward = torch.compile(model.forward, backend=backend)
    return model


WAYS = [whole, fullgraph, in_place, parts, parts_in_place, only_forward]


@compiles
@pytest.mark.parametrize(("way", "moment"), [
    pytest.param(way, moment, marks=[] if way in (whole, in_place) and moment != "never called" else pytest.mark.slow)
    for way in WAYS for moment in ("never called", "called before", "bound before")
])  # fmt: skip
def test_masks_reach_a_compiled_model(way, moment, graphs):
    """Bound before or after compiling: the same losses as eager, never a silently dead hook."""
    model, plain, batch = small(), small(), nets.make_batch(8)
    eager, augmenter = on_small(), on_small()
    if moment == "bound before":
        augmenter.bind(model, batch)
    compiled = way(model, recording(graphs))
    if moment == "called before":
        compiled(batch["image"])
        with torch.no_grad():
            compiled(batch["image"])
    for i in range(2):
        batch = nets.make_batch(8, seed=i)
        expected, found = eager.step(plain, batch, nets.loss_fn), augmenter.step(compiled, batch, nets.loss_fn)
        expected.loss.backward()
        found.loss.backward()
        torch.testing.assert_close(found.losses, expected.losses, rtol=1e-5, atol=1e-7)
        opened = nets.loss_fn(plain(found.batch["image"]), found.batch)
        assert ((opened - found.losses).abs() > 1e-7).all(), "occlusion made no difference"
    assert close_gradients(gradients(plain), {name.replace("_orig_mod.", ""): g for name, g in gradients(model).items()})
    torch.testing.assert_close(compiled(batch["image"]), plain(batch["image"]), rtol=1e-5, atol=1e-6)


def close_gradients(found, expected):
    """Equal but for the order in which they were summed."""
    scale = max(float(grad.norm()) for grad in expected.values())
    return found.keys() == expected.keys() and all(float((found[n] - expected[n]).norm()) <= 1e-5 * scale for n in found)


@compiles
@pytest.mark.slow
def test_hooks_that_compiled_code_does_not_call_raise(graphs):
    """A model that hides that it is compiled: dead hooks must not pass for occlusion."""
    model, batch = small(), nets.make_batch(8)
    inner = small()
    run = torch.compile(inner.forward, backend=recording(graphs))
    run(batch["image"])

    class Hides(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = inner

        def forward(self, x):
            return run(x)

    eager, augmenter, hides = on_small(), on_small(features=["inner.body.0"], occlude=["inner.body.0", "inner.neck"]), Hides()
    expected = eager.step(model, batch, nets.loss_fn).losses
    try:
        found = augmenter.step(hides, batch, nets.loss_fn).losses
    except (RuntimeError, ValueError) as error:
        assert "Found" in str(error)
    else:
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)


@compiles
@pytest.mark.slow
def test_inductor_meets_the_masks_too():
    batch = nets.make_batch(8)
    torch.compiler.reset()
    expected, found = (a.step(m, batch, nets.loss_fn) for a, m in ((on_small(), small()), (on_small(), torch.compile(small()))))
    torch.testing.assert_close(found.losses, expected.losses, rtol=1e-4, atol=1e-5)
    found.loss.backward()


@compiles
def test_the_hooks_break_no_graph(graphs):
    model, batch = nets.make_network().eval(), nets.make_batch()
    augmenter = nets.make_augmenter()
    augmenter.bind(model, batch)
    assert torch._dynamo.explain(model)(batch["image"]).graph_break_count == 0
    torch.compiler.reset()
    augmenter.step(fullgraph(model, recording(graphs)), batch, nets.loss_fn)  # a break in the armed pass would raise


@compiles
@pytest.mark.parametrize(("way", "expected"), [(whole, 1), (in_place, 1), (parts, 2)])
def test_a_step_leaves_a_compiled_model_compiled(way, expected, graphs):
    """One graph for each compiled module, and one more for the plain calls in between, never compiled again."""
    model, augmenter, batch = small(), on_small(), nets.make_batch(8)
    compiled = way(model, recording(graphs))
    augmenter.bind(compiled, batch)
    graphs.clear()
    torch._dynamo.utils.counters.clear()
    for i in range(2):
        augmenter.step(compiled, nets.make_batch(8, seed=i), nets.loss_fn).loss.backward()
    assert len(graphs) == expected
    for i in range(2, 5):
        compiled(batch["image"])
        augmenter.step(compiled, nets.make_batch(8, seed=i), nets.loss_fn).loss.backward()
    assert len(graphs) <= 2 * expected
    assert not torch._dynamo.utils.counters["graph_break"]


@compiles
def test_a_state_is_the_same_whether_the_model_is_compiled_or_not(graphs):
    a, b = on_small(), on_small()
    a.bind(parts(small(), recording(graphs)), nets.make_batch())
    b.bind(small(), nets.make_batch())
    assert repr(a) == repr(b)
    assert nets.same(a.state_dict(), b.state_dict())
    b.load_state_dict(a.state_dict())


# ---- activation checkpointing


def checkpointed(use_reentrant):
    model = nets.Hourglass(checkpointing=use_reentrant)
    model.load_state_dict(nets.make_network().state_dict())
    return model


REENTRANT = pytest.mark.parametrize("use_reentrant", [False, True], ids=["not reentrant", "reentrant"])
QUIET = pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")


@REENTRANT
@QUIET
@pytest.mark.parametrize("how", ["loss", "losses", "autograd.grad", "accumulated", "with another term", "twice"])
def test_checkpointed_gradients_equal_the_plain_ones(use_reentrant, how):
    if use_reentrant and how in ("autograd.grad", "twice"):
        pytest.skip("torch itself refuses these through reentrant checkpoints")
    grads = []
    for model in (checkpointed(use_reentrant).train(), checkpointed(None).train()):
        torch.manual_seed(0)
        augmenter = occluding(0.7)
        for i in range(3):
            if how != "accumulated":
                model.zero_grad()
            result = augmenter.step(model, nets.make_batch(8, seed=i), nets.loss_fn)
            loss = result.loss
            if how == "losses":
                loss = (result.losses * torch.arange(8)).sum()
            elif how == "with another term":
                loss = loss + 1e-2 * sum(p.square().sum() for p in model.parameters())
            if how == "autograd.grad":
                found = torch.autograd.grad(loss, list(model.parameters()))
                for parameter, grad in zip(model.parameters(), found, strict=True):
                    parameter.grad = grad
            elif how == "twice":
                loss.backward(retain_graph=True)
                loss.backward()
            else:
                loss.backward()
        grads.append(gradients(model))
    assert close_gradients(*grads)


@REENTRANT
@QUIET
@pytest.mark.parametrize("between", ["another step", "validation", "a forward of another batch"])
def test_a_checkpointed_step_that_cannot_be_right_raises_or_is_right(use_reentrant, between):
    """Several steps before one backward, or other runs in between: the right gradients or a RuntimeError."""
    grads = []
    for model in (checkpointed(use_reentrant).train(), checkpointed(None).train()):
        torch.manual_seed(0)
        augmenter = occluding(0.7)
        loss = augmenter.step(model, nets.make_batch(8), nets.loss_fn).loss
        if between == "another step":
            loss = loss + augmenter.step(model, nets.make_batch(8, seed=1), nets.loss_fn).loss
        elif between == "validation":
            with torch.no_grad():
                model.eval()(nets.make_batch(8, seed=1)["image"])
            model.train()
        else:
            loss = loss + model(nets.make_batch(8, seed=1)["image"]).square().mean()
        try:
            loss.backward()
        except RuntimeError as error:
            assert "checkpoint" in str(error)
            assert model.checkpointing is not None
            model.zero_grad()
            augmenter.step(model, nets.make_batch(8), nets.loss_fn).loss.backward()  # and it can go on
            return
        grads.append(gradients(model))
    assert close_gradients(*grads)


@REENTRANT
@QUIET
def test_a_checkpointed_model_is_plain_outside_a_step(use_reentrant):
    model, augmenter, image = checkpointed(use_reentrant).eval(), occluding(), nets.make_batch()["image"]
    augmenter.step(model, nets.make_batch(), nets.loss_fn).loss.backward()
    twin = twin_of(model)
    model.zero_grad()
    model(image).sum().backward()
    twin(image).sum().backward()
    assert close_gradients(gradients(model), gradients(twin))


# ---- models and outputs


@pytest.mark.parametrize("network", nets.NETWORKS)
def test_every_kind_of_network_trains(network):
    model, augmenter = nets.make_network(network), nets.make_augmenter(network=network)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for i in range(3):
        result = augmenter.step(model, nets.make_batch(9, seed=i), nets.loss_fn)
        optimizer.zero_grad()
        result.loss.backward()
        optimizer.step()
        assert result.losses.shape == result.branch.shape == (9,)
        assert result.branch.dtype == torch.long
        assert result.branch.bincount(minlength=3).tolist() == [3, 3, 3]
        assert all(isinstance(v, torch.Tensor) and not v.requires_grad for v in result.metrics.values())
        assert {"loss/random", "loss/asr", "loss/aho", "reward_rate/asr", "reward_rate/aho"} <= result.metrics.keys()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize("returns", ["list", "dict"])
def test_every_stack_is_masked(returns):
    model = nets.Hourglass(returns=returns).eval()
    result = occluding().step(model, nets.make_batch(), lambda output, batch: stacks_of(output).sum(0))
    twin = nets.clean_copy(model)
    with nets.masked_by_hand(twin, nets.HOURGLASS_BRIDGES, [mask for _, mask in result.view.feature_masks]):
        expected = stacks_of(twin(result.batch["image"]))
    plain = stacks_of(twin(result.batch["image"]))
    assert torch.equal(result.losses, expected.sum(0))
    assert (expected != plain).all()  # in each of the stacks


def stacks_of(output):
    maps = list(output.values()) if isinstance(output, dict) else output
    return torch.stack([heat.square().flatten(1).mean(1) for heat in maps])


@pytest.mark.parametrize("network", nets.NETWORKS)
@pytest.mark.parametrize("features", [None, ()])
def test_layers_found_by_itself_or_none_at_all(network, features):
    model = nets.make_network(network)
    augmenter = nets.make_augmenter(network=network, features=features, occlude=None)
    result = augmenter.step(model, nets.make_batch(), nets.loss_fn)
    result.loss.backward()
    assert all(p.grad is not None for p in model.parameters())
    assert ("the image" in repr(augmenter)) == (features == ())
    for name in augmenter._bound.taps.features:
        assert name in repr(augmenter)


# ---- schedules


def test_in_warm_up_all_rows_are_random_and_nothing_is_learned():
    model, augmenter = nets.make_network(), nets.make_augmenter(warmup_steps=3)
    augmenter.bind(model, nets.make_batch())
    before, runs = nets.generators(augmenter), []
    model.register_forward_hook(lambda *_: runs.append(1))
    for i in range(3):
        result = augmenter.step(model, nets.make_batch(seed=i), nets.loss_fn)
        assert not result.branch.any()
        assert not torch.equal(result.batch["image"], nets.make_batch(seed=i)["image"])  # random views, not none
        assert all(mask.all() for _, mask in result.view.feature_masks)
    assert len(runs) == 3
    assert nets.same(nets.generators(augmenter), before)
    assert augmenter.step(model, nets.make_batch(), nets.loss_fn).branch.any()
    assert not nets.same(nets.generators(augmenter), before)


@pytest.mark.parametrize("every", [1, 2, 3])
def test_generators_learn_at_every_kth_step_and_propose_at_all(every):
    model, augmenter = nets.make_network(), nets.make_augmenter(update_every=every)
    augmenter.bind(model, nets.make_batch())
    runs, learned = [], []
    model.register_forward_hook(lambda *_: runs.append(1))
    for i in range(6):
        before = nets.generators(augmenter)
        runs.clear()
        result = augmenter.step(model, nets.make_batch(seed=i), nets.loss_fn)
        learned.append(not nets.same(nets.generators(augmenter), before))
        assert len(runs) == (3 if learned[-1] else 1)
        assert set(result.branch.tolist()) == {0, 1, 2}
        assert "entropy/asr.scale" in result.metrics
    assert learned == [i % every == 0 for i in range(6)]


def fading():
    asr, aho = adaug.policies.paper().branches
    return adaug.Policy(
        [
            adaug.Branch("asr", asr.operations, lambda progress: 0.5 * (1 - progress)),
            adaug.Branch("aho", aho.operations, Window(0.5, 0.25, 0.75)),
        ]
    )


@pytest.mark.parametrize("by", ["progress", "total_steps"])
def test_shares_follow_progress(by):
    model = nets.make_network()
    augmenter = nets.make_augmenter(fading(), total_steps=4 if by == "total_steps" else None)
    counts = []
    for i in range(5):
        if by == "progress":
            augmenter.progress = i / 4
        assert augmenter.progress == i / 4
        result = augmenter.step(model, nets.make_batch(16, seed=i), nets.loss_fn)
        result.loss.backward()
        counts.append(result.branch.bincount(minlength=3).tolist())
    assert counts == [[8, 8, 0], [2, 6, 8], [4, 4, 8], [14, 2, 0], [16, 0, 0]]


def test_a_branch_that_is_off_costs_nothing_and_keeps_its_generator():
    model, augmenter = nets.make_network(), nets.make_augmenter(fading())
    augmenter.progress = 1.0
    augmenter.bind(model, nets.make_batch())
    before, runs = nets.generators(augmenter), []
    model.stem.register_forward_hook(lambda *_: runs.append(1))
    augmenter.step(model, nets.make_batch(), nets.loss_fn)
    assert len(runs) == 1
    assert nets.same(nets.generators(augmenter), before)


def test_progress_outside_zero_to_one_is_refused():
    augmenter = nets.make_augmenter()
    for value in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="progress"):
            augmenter.progress = value
    assert augmenter.progress == 0


def test_a_model_that_was_deepcopied_can_have_an_augmenter_of_its_own():
    model, first = nets.make_network().eval(), occluding()
    first.bind(model, nets.make_batch())
    second = copy.deepcopy(model)
    a = first.step(model, nets.make_batch(), nets.loss_fn)
    b = occluding().step(second, nets.make_batch(), nets.loss_fn)
    assert torch.equal(a.losses, b.losses)


def test_two_augmenters_on_one_model_do_not_meet_each_others_masks():
    model, first, second = nets.make_network().eval(), occluding(), occluding(seed=5)
    first.bind(model, nets.make_batch())
    second.bind(model, nets.make_batch())
    for augmenter in (first, second):
        result = augmenter.step(model, nets.make_batch(), nets.loss_fn)
        assert torch.equal(result.losses, nets.replayed(twin_of(model), result))


def test_inference_mode_is_put_back_and_refused_clearly_or_works():
    model, augmenter = nets.make_network(), nets.make_augmenter()
    augmenter.bind(model, nets.make_batch())
    with torch.inference_mode():
        found = augmenter.distributions(model, nets.make_batch())
    torch.testing.assert_close(found["asr.scale"].sum(1), torch.ones(9))
    result = augmenter.step(model, nets.make_batch(), nets.loss_fn)
    result.loss.backward()
    assert all(p.grad is not None for p in model.parameters() if isinstance(p, nn.Parameter))

"""torch.compile, however a model was compiled and whenever the augmenter was bound."""

# ruff: noqa: PT017
from __future__ import annotations

import networks as nets
import pytest
import torch
from torch import nn

import adaug

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
    return nets.occluding(**{"features": ["body.0", "neck"], "occlude": ["body.0", "neck"], **kwargs})


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
FAST = [(whole, "bound before"), (in_place, "called before")]


@compiles
@pytest.mark.parametrize(("way", "moment"), [
    pytest.param(way, moment, marks=[] if (way, moment) in FAST else pytest.mark.slow)
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
    assert nets.close_gradients(
        nets.gradients(plain), {name.replace("_orig_mod.", ""): g for name, g in nets.gradients(model).items()}
    )
    torch.testing.assert_close(compiled(batch["image"]), plain(batch["image"]), rtol=1e-5, atol=1e-6)


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


@compiles
@pytest.mark.slow
def test_a_compiled_generator_learns_as_an_eager_one(graphs):
    """As docs/performance.md compiles it: the number of rows varies, the code is made once a branch, the state fits both."""

    def compiled(shapes, layouts):
        generator = adaug.Generator(shapes, layouts)
        generator.compile(dynamic=True, backend=recording(graphs))
        return generator

    states = []
    for factory in (None, compiled):
        model, augmenter = small(), on_small(generator=factory)
        for i in range(4):
            augmenter.step(model, nets.make_batch(7, seed=i), nets.loss_fn)
        states.append(augmenter.state_dict())
    assert len(graphs) == len(augmenter.policy.branches)
    assert nets.same(*states)

"""An audit moves nothing of the user's, whatever it is given; and a look or a score of a step does not either."""

from __future__ import annotations

import copy
import functools
import random
from collections.abc import Callable
from typing import Any

import networks as nets
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.ao.quantization import MinMaxObserver

import adaug
from adaug._model.inside import modules_in


class Restless(nn.Module):
    """Writes to whatever it can in its forward, in evaluation mode too."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.conv = nn.Conv2d(3, 2, 3, padding=1)
        self.scale = nn.Parameter(torch.ones(1))
        self.register_buffer("count", torch.zeros(()))
        self.register_buffer("same", torch.zeros(()))
        self.calls = 0
        self.started = False

    def forward(self, image: Tensor) -> Tensor:
        if not self.started:  # data-dependent initialisation
            with torch.no_grad():
                self.scale.copy_(image.std())
                self.conv.bias.data.fill_(float(image.mean()))
            self.started = True
        self.count = self.count + 1
        self.same += 1
        self.norm.running_mean += 1
        self.calls += 1
        self.latest = image
        np.random.rand(), random.random(), torch.rand(())  # noqa: NPY002
        out: Tensor = self.scale * self.conv(self.norm(image))
        return out


class Observed(nn.Module):
    """torch's own observer, and an activation of it in a layer of torch."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.observer = nn.Conv2d(3, 2, 3, padding=1), MinMaxObserver()

    def forward(self, image: Tensor) -> Tensor:
        out: Tensor = self.observer(self.conv(image))
        return out


def traces(network: nn.Module) -> list[Any]:
    """All that a user can see of a network, and the random states."""
    seen: list[Any] = [copy.deepcopy(network.state_dict()), [module.training for module in network.modules()]]
    for module in network.modules():
        own = {name: value for name, value in vars(module).items() if name not in ("_modules", "_parameters", "_buffers")}
        seen.append({name: copy.deepcopy(value) for name, value in own.items() if isinstance(value, (bool, int, float))})
        seen.append(sorted(own))
    seen += [torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()]  # noqa: NPY002
    return seen


def score(output: Any, batch: Any) -> Tensor:
    np.random.rand(), random.random(), torch.rand(())  # noqa: NPY002
    return output["out"].mean((1, 2, 3)) if isinstance(output, dict) else output.mean((1, 2, 3))


NET: Any = None


class Holder:
    def __init__(self, network: nn.Module) -> None:
        self.parts = {"network": [network]}

    def __call__(self, image: Tensor) -> Any:
        return self.parts["network"][0](image)

    def predict(self, image: Tensor) -> Any:
        return self(image)


class Hidden:
    """Holds a network where no search finds it."""

    __slots__ = ("get",)

    def __init__(self, network: nn.Module) -> None:
        self.get = {id(network): network}.__getitem__, id(network)

    def __call__(self, image: Tensor) -> Any:
        return self.get[0](self.get[1])(image)


def through_a_global(network: nn.Module) -> Callable[..., Any]:
    globals()["NET"] = network
    return lambda image: NET(image)


def decorated(network: nn.Module) -> Callable[..., Any]:
    @functools.wraps(score)
    def run(image: Tensor) -> Any:
        return network(image)

    return torch.no_grad()(run)


WAYS: dict[str, Callable[[nn.Module], Any]] = {
    "itself": lambda network: network,
    "a closure": lambda network: lambda image: {"out": network(image)},
    "a default": lambda network: lambda image, held=network: held(image),
    "a partial": lambda network: functools.partial(lambda held, image: held(image), network),
    "a bound method": lambda network: network.forward,
    "a global": through_a_global,
    "an object": Holder,
    "a method of an object": lambda network: Holder(network).predict,
    "a wrapper": decorated,
    "a closure in a closure": lambda network: (lambda inner: lambda image: inner(image))(lambda image: network(image)),
    "where nobody sees it": Hidden,
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("made", [Restless, Observed, nets.make_network], ids=lambda made: made.__name__)
@pytest.mark.parametrize("mode", [True, False])
def test_nothing_of_a_network_moves(way: str, made: Callable[[], nn.Module], mode: bool) -> None:
    network = made().train(mode)
    before = traces(network)
    given = WAYS[way](network)
    for _ in range(2):  # the first pass is watched more closely than the others
        audit = adaug.audit(given, [nets.make_batch(4)], score, [adaug.Rotate(-60, 60, 3)], num_draws=1)
        assert nets.same(traces(network), before)
    with torch.no_grad():
        np.testing.assert_allclose(
            audit.scores[:, 0], adaug.audit(network, [nets.make_batch(4)], score, [], num_draws=0).scores[:, 0]
        )


@pytest.mark.parametrize("way", [way for way in WAYS if way != "where nobody sees it"])
def test_networks_inside_functions_are_found(way: str) -> None:
    network = Restless()
    assert modules_in(WAYS[way](network)) == [network]


def test_a_function_without_a_network_has_none() -> None:
    for function in (
        score,
        torch.sigmoid,
        lambda image: image,
        functools.partial(torch.mean, dim=1),
        list(range(5)).__getitem__,
    ):
        assert modules_in(function) == [] or function is not score
    loop: list[Any] = []
    loop.append(loop)
    assert modules_in(lambda image: loop) == []


def test_a_network_in_the_score_moves_neither() -> None:
    judge = nets.make_network().train()
    before = traces(judge)

    def judged(output: Any, batch: dict[str, Tensor]) -> Tensor:
        out: Tensor = judge(batch["image"]).mean((1, 2, 3))
        return out

    adaug.audit(lambda image: image, [nets.make_batch(4)], judged, [adaug.Rotate(-60, 60, 3)], num_draws=1)
    assert nets.same(traces(judge), before)


def test_a_look_and_a_score_of_a_step_move_nothing() -> None:
    class Whole(Restless):
        pass

    network, augmenter = Whole().train(), adaug.AdversarialAugmenter(adaug.policies.paper([(0, 1)]), seed=0)
    batch, plain = nets.make_batch(8), Whole().train()
    plain.load_state_dict(network.state_dict())
    augmenter.bind(network, batch)
    assert nets.same(network.state_dict(), plain.state_dict())
    assert network.calls == 0
    for i in range(3):
        augmenter.step(network, batch, lambda output, seen: output.square().mean((1, 2, 3)))
        assert network.calls == int(network.count) == int(network.same) == i + 1, "the training pass alone"


def test_a_network_that_has_not_its_shapes_yet_is_refused() -> None:
    lazy = nn.Sequential(nn.Flatten(), nn.LazyLinear(3))
    with pytest.raises(ValueError, match=r"should have their shapes\. Found LazyLinear.*run the model once"):
        adaug.audit(lazy, [nets.make_batch(2)], lambda output, _: output.mean(1), [adaug.Rotate(-9, 9, 3)])
    lazy(torch.zeros(2, 3, 32, 32))
    adaug.audit(lazy, [nets.make_batch(2)], lambda output, _: output.mean(1), [adaug.Rotate(-9, 9, 3)])


def test_a_pending_backward_pass_survives_a_look() -> None:
    policy = adaug.policies.paper([(0, 1)], learned=adaug.learners.Paper(features=("conv",)))
    network, augmenter = Observed().train(), adaug.AdversarialAugmenter(policy, occlude=("conv",), seed=0)
    batch = nets.make_batch(4)
    loss = augmenter.step(network, batch, lambda output, seen: output.square().mean((1, 2, 3))).loss
    augmenter.distributions(network, batch)
    loss.backward()

"""The generator and the branch's player around it."""

import math

import networks as nets
import pytest
import torch

from adaug import Branch, Generator, OccludeFeatures, RewardPenalty, Rotate, Scale
from adaug._runtime.random import Stream
from adaug.learners import OneForAll, Trial, Trials
from adaug.learners.adversary import Adversary, UpdateTargets

SHAPES = ((32, 16, 16), (48, 8, 8), (64, 4, 4))
LAYOUTS = {"scale": 7, "rotate": 9, "occlude": (4, 5)}


def features(n, shapes=SHAPES, seed=0):
    stream = Stream(seed)
    return [stream.uniform(n, *shape) for shape in shapes]


def generator(shapes=SHAPES, opinionated=False, **options):
    torch.manual_seed(0)
    made = Generator(shapes, LAYOUTS, **options)
    if opinionated:
        for parameter in made.heads.parameters():
            torch.nn.init.normal_(parameter)
    return made


@pytest.mark.parametrize(
    "shapes", [SHAPES, SHAPES[1:2], ((3, 64, 48),), ((1, 32, 32),), ((256, 13, 7), (8, 3, 2)), ((16, 8, 8), (16, 8, 8))],
    ids=["three", "one", "image", "grey", "odd sizes", "equal"],
)  # fmt: skip
def test_it_starts_uniform_with_a_logit_for_each_bin_and_cell(shapes):
    logits = generator(shapes)(features(3, shapes))
    found = {name: tuple(value.shape) for name, value in logits.items()}
    assert found == {"scale": (3, 7), "rotate": (3, 9), "occlude": (3, 20)}
    for value in logits.values():
        torch.testing.assert_close(value.softmax(1), torch.full_like(value, 1 / value.shape[1]))


def test_every_head_learns_from_the_start():
    made = generator()
    loss = sum(value[:, 0].sum() for value in made(features(2)).values())
    loss.backward()
    assert all(any(p.grad.abs().sum() > 0 for p in head.parameters()) for head in made.heads.values())


@pytest.mark.parametrize("shapes", [SHAPES, ((3, 64, 64),)], ids=["features", "image"])
def test_rows_do_not_influence_each_other(shapes):
    made, inputs = generator(shapes, opinionated=True), features(5, shapes)
    together = made(inputs)
    for i in range(5):
        alone = made([value[i : i + 1] for value in inputs])
        for name, value in alone.items():
            torch.testing.assert_close(value, together[name][i : i + 1], atol=1e-4, rtol=1e-4)


def test_rows_get_answers_of_their_own():
    logits = generator(opinionated=True)(features(2))
    assert all((value[0] - value[1]).abs().max() > 1e-3 for value in logits.values())


@pytest.mark.parametrize("order", [(2, 1, 0), (1, 0, 2), (2, 0, 1)])
def test_features_come_in_any_order(order):
    expected = generator(opinionated=True)(features(2))
    inputs = features(2)
    found = generator([SHAPES[i] for i in order], opinionated=True)([inputs[i] for i in order])
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value)


def test_a_map_of_cells_follows_its_image_about_the_grid():
    """The head of cells is a map: with a neck that sees locally, a mirrored input gives mirrored cells."""
    torch.manual_seed(0)
    made = Generator(SHAPES[:1], {"occlude": (4, 4)})
    torch.nn.init.normal_(made.heads["occlude"][1].weight)
    for module in made.modules():
        if isinstance(module, torch.nn.Conv2d):  # symmetrical filters, so that mirroring commutes with the network
            with torch.no_grad():
                module.weight.copy_((module.weight + module.weight.flip(-1)) / 2)
    (x,) = features(2, SHAPES[:1])
    cells, mirrored = (made([value])["occlude"].unflatten(1, (4, 4)) for value in (x, x.flip(-1)))
    torch.testing.assert_close(mirrored, cells.flip(-1), atol=1e-4, rtol=1e-4)


def test_it_is_small_beside_an_hourglass():
    bridge = [(256, side, side) for side in (64, 32, 16, 8, 4)]
    assert sum(p.numel() for p in Generator(bridge, LAYOUTS).parameters()) < 300_000  # one stack has 3.6 million and more


@pytest.mark.parametrize("width", [8, 16, 40, 56, 100, 128])
def test_any_even_width_works(width):
    assert generator(width=width)(features(1))["scale"].shape == (1, 7)


def player(*operations, make=None, shapes=SHAPES, cap=math.inf):
    branch = Branch("asr", operations or (Scale(0.75, 1.25, 7), Rotate(-30, 30, 9)), 0.5)
    return Adversary(branch, shapes, make, None, Stream(0), torch.device("cpu"), cap)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_predictions_are_float32_log_probabilities_also_inside_autocast(dtype):
    inputs = [value.to(dtype) for value in features(3)]
    adversary = player(Scale(0.75, 1.25, 7), OccludeFeatures())
    for parameter in adversary.generator.heads.parameters():
        torch.nn.init.normal_(parameter)
    with torch.autocast("cpu", torch.bfloat16):
        inside = adversary.predict(inputs)
    for name, value in adversary.predict(inputs).items():
        assert inside[name].dtype == torch.float32
        assert torch.equal(inside[name], value)
        torch.testing.assert_close(value.exp().sum(1), torch.ones(3))


def test_making_a_generator_leaves_the_global_random_state():
    before = torch.get_rng_state()
    player()
    assert torch.equal(torch.get_rng_state(), before)


def test_predictions_carry_no_gradient_into_the_features():
    inputs = [value.requires_grad_() for value in features(2)]
    assert player().predict(inputs)["scale"].requires_grad
    sum(value.sum() for value in player().predict(inputs).values()).backward()
    assert all(value.grad is None for value in inputs)


def test_learning_moves_towards_the_target_and_leaves_out_invalid_rows():
    adversary = player()
    inputs = features(4)
    target = torch.eye(7)[[3, 3, 0, 0]]
    target[2:] = torch.nan
    valid = torch.tensor([True, True, False, False])
    for _ in range(30):
        adversary.move(adversary.gradients(UpdateTargets({"scale": target}, adversary.predict(inputs), valid)))
    learned = adversary.predict(inputs)
    assert learned["scale"][:2].argmax(1).tolist() == [3, 3]
    torch.testing.assert_close(learned["rotate"].exp(), torch.full((4, 9), 1 / 9))


def test_a_generator_with_the_wrong_logits_is_named():
    class Wrong(torch.nn.Module):
        def forward(self, inputs):
            return {"scale": torch.zeros(len(inputs[0]), 6, requires_grad=True)}

    def make(shapes, layouts):
        module = Wrong()
        module.weight = torch.nn.Parameter(torch.zeros(1))
        return module

    with pytest.raises(ValueError, match=r"\(3, 7\) for 'scale'. Found \(3, 6\)"):
        player(make=make).predict(features(3))


def test_one_for_all_starts_uniform_and_gives_every_row_the_same():
    made = OneForAll(SHAPES, LAYOUTS)
    logits = made(features(3))
    assert {name: tuple(value.shape) for name, value in logits.items()} == {
        "scale": (3, 7),
        "rotate": (3, 9),
        "occlude": (3, 20),
    }
    assert all((value == 0).all() for value in logits.values())
    optimizer = torch.optim.Adam(made.parameters(), lr=1e-3)
    for _ in range(50):
        loss = torch.nn.functional.cross_entropy(made(features(3))["rotate"], torch.tensor([4, 4, 4]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    found = made(features(2, seed=1))["rotate"].softmax(1)
    assert torch.equal(found[0], found[1])
    assert found[0, 4] > 0.5


# ---- the scale of what it reads

IMAGE = ((3, 32, 32),)
ROWS = 8


def small(shapes, layouts):
    return Generator(shapes, layouts, width=8, size=8)


def drawn(branch, log_probs, stream):
    """What is drawn for rows of a branch, without a model."""
    rows = {branch.name: Trial(branch, torch.arange(ROWS), {})}
    return Trials(None, None, (32, 32), rows, stream, None, 0).draw(branch.name, log_probs)


def without_signal(shapes, inputs, steps, cap=2.0, make=small):
    """Drives a branch by coin flips: the least entropy of a row beside uniform, the greatest probability beside cap / k."""
    adversary, stream = player(Scale(0.75, 1.25, 7), OccludeFeatures(), make=make, shapes=shapes, cap=cap), Stream(1)
    update, least, greatest = RewardPenalty(cap=cap), 1.0, 0.0
    for _ in range(steps):
        predicted = adversary.predict(inputs(stream))
        proposal = drawn(adversary.branch, predicted, stream)
        harder = stream.uniform(ROWS) < 0.5
        targets = {}
        for name, value in predicted.items():
            p, k = value.detach().exp(), value.shape[1]
            least = min(least, float((torch.special.entr(p).sum(1) / math.log(k)).min()))
            greatest = max(greatest, float(p.max() * k / cap))
            targets[name] = update(p, proposal.chosen[name], harder)
        adversary.move(adversary.gradients(UpdateTargets(targets, predicted, torch.ones(ROWS, dtype=torch.bool))))
    return least, greatest


@pytest.mark.parametrize(("scale", "constant"), [
    (1e4, False),
    *(pytest.param(*case, marks=pytest.mark.slow) for case in [(1.0, False), (1e-12, False), (1.0, True), (1e4, True)]),
])  # fmt: skip
@pytest.mark.parametrize("shapes", [((16, 8, 8),), IMAGE], ids=["features", "image"])
def test_without_a_signal_it_stays_uniform_whatever_the_scale_of_images(shapes, scale, constant):
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, 2, 1), torch.nn.ReLU(), torch.nn.Conv2d(8, 16, 3, 2, 1))

    @torch.no_grad()
    def inputs(stream):
        image = stream.uniform(ROWS, 3, 1, 1).expand(-1, -1, 32, 32) if constant else stream.uniform(ROWS, 3, 32, 32)
        return [scale * image if shapes == IMAGE else network(scale * image)]

    least, greatest = without_signal(shapes, inputs, steps=150)
    assert least > 0.95
    assert greatest <= 1 + 1e-6


@pytest.mark.parametrize("shapes", [SHAPES, IMAGE], ids=["features", "image"])
@pytest.mark.parametrize("scale", [1e3, 1e-3, 1e-20, 1e20])
def test_a_factor_changes_nothing_of_what_it_learned(shapes, scale):
    adversary, inputs = player(make=small, shapes=shapes), features(4, shapes)
    for _ in range(30):
        predicted = adversary.predict(inputs)
        adversary.move(
            adversary.gradients(UpdateTargets({"scale": torch.eye(7)[:4]}, predicted, torch.ones(4, dtype=torch.bool)))
        )
    expected = adversary.generator(inputs)
    assert expected["scale"].std() > 0.1
    for name, value in adversary.generator([scale * level for level in inputs]).items():
        torch.testing.assert_close(value, expected[name], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("shapes", [SHAPES, IMAGE], ids=["features", "image"])
@pytest.mark.parametrize("value", [0.0, 1.0, -3e4, 1e-20, 1e-42, 1e30])
def test_maps_of_one_value_are_safe(shapes, value):
    made = generator(shapes, opinionated=True)
    inputs = [torch.full((2, *shape), value, requires_grad=True) for shape in shapes]
    logits = made(inputs)
    sum(value.sum() for value in logits.values()).backward()
    assert all(torch.isfinite(value).all() and value.abs().max() < 1e3 for value in logits.values())
    assert all(torch.isfinite(p.grad).all() for p in made.parameters())


def test_an_image_keeps_its_tint():
    red, blue = torch.zeros(2, 1, 3, 32, 32)
    red[:, 0] = blue[:, 2] = 0.5
    made = generator(IMAGE, opinionated=True)
    assert (made([red])["scale"] - made([blue])["scale"]).abs().max() > 1e-3


# ---- the cap


class Fixed(torch.nn.Module):
    """A generator of logits that it was given, in every row."""

    def __init__(self, logits):
        super().__init__()
        self.logits = torch.nn.Parameter(logits)

    def forward(self, inputs):
        return {"scale": self.logits.expand(len(inputs[0]), -1)}


def fixed(*logits, cap=2.0):
    return player(Scale(0.75, 1.25, len(logits)), make=lambda *_: Fixed(torch.tensor(logits)), cap=cap)


@pytest.mark.parametrize("sharp", [3.0, 100.0, 1e4])
@pytest.mark.parametrize("cap", [1.01, 2.0, 3.5])
def test_no_prediction_is_above_the_cap(sharp, cap):
    log_probs = fixed(0.0, 0.0, sharp, 0.0, sharp, 0.0, 0.1, cap=cap).predict(features(2))["scale"]
    assert torch.isfinite(log_probs).all()
    torch.testing.assert_close(log_probs.exp().sum(1), torch.ones(2))
    assert log_probs.exp().max() <= cap / 7 + 1e-6
    assert log_probs[0].argmax() in (2, 4)


def test_a_generator_below_the_cap_predicts_what_it_says():
    log_probs = fixed(0.0, 0.1, 0.2, 0.3).predict(features(2))["scale"]
    torch.testing.assert_close(log_probs, torch.tensor([[0.0, 0.1, 0.2, 0.3]] * 2).log_softmax(1))


def test_a_generator_that_overshot_the_cap_is_pulled_back():
    adversary = fixed(0.0, 0.0, 6.0, 0.0, 0.0, 0.0, 0.0)
    predicted = adversary.predict(features(2))
    target = predicted["scale"].detach().exp()  # it asks for what is shown, which is not what the generator says
    before = adversary.generator.logits.detach().softmax(0)[2].clone()
    for _ in range(50):
        adversary.move(
            adversary.gradients(
                UpdateTargets({"scale": target}, adversary.predict(features(2)), torch.ones(2, dtype=torch.bool))
            )
        )
    assert adversary.generator.logits.softmax(0)[2] < before - 1e-4


def test_without_a_cap_a_prediction_is_the_generators_own():
    log_probs = fixed(0.0, 0.0, 9.0, cap=math.inf).predict(features(1))["scale"]
    assert torch.equal(log_probs, torch.tensor([[0.0, 0.0, 9.0]]).log_softmax(1))


class Sharp(Fixed):
    """A generator that wants the first bin or cell of each operation and no other."""

    def __init__(self, shapes, layouts):
        super().__init__(torch.tensor([50.0]))
        self.bins = {name: math.prod(k) if isinstance(k, tuple) else k for name, k in layouts.items()}

    def forward(self, inputs):
        return {
            name: torch.nn.functional.pad(self.logits, (0, k - 1)).expand(len(inputs[0]), -1) for name, k in self.bins.items()
        }


def test_what_is_drawn_reported_and_updated_is_never_above_the_cap():
    seen = []

    class Watched(RewardPenalty):
        def __call__(self, probabilities, chosen, harder):
            seen.append(probabilities)
            return super().__call__(probabilities, chosen, harder)

    model, update = nets.make_network(), Watched(cap=1.5)
    augmenter = nets.make_augmenter(generator=Sharp, update=update)
    result = augmenter.step(model, nets.make_batch(), nets.loss_fn)
    reported = [value for name, value in result.metrics.items() if name.startswith("distribution/")]
    reported += augmenter.distributions(model, nets.make_batch()).values()
    assert len(seen) == 3
    for p in seen + reported:
        assert p.max() <= 1.5 / p.shape[-1] + 1e-6
        torch.testing.assert_close(p.sum(-1), torch.ones(p.shape[:-1]))


def test_an_update_without_a_cap_leaves_proposals_alone():
    model = nets.make_network()
    augmenter = nets.make_augmenter(generator=Sharp, update=lambda probabilities, chosen, harder: probabilities)
    assert all(p.max() > 0.99 for p in augmenter.distributions(model, nets.make_batch()).values())


@pytest.mark.parametrize("cap", [1.0, 0, float("nan"), "2"])
def test_the_cap_of_an_update_should_be_a_number_above_one(cap):
    def update(probabilities, chosen, harder):
        return probabilities

    update.cap = cap
    with pytest.raises(ValueError, match=r"`cap` of `update` should be a number above 1.* Found"):
        nets.make_augmenter(update=update)

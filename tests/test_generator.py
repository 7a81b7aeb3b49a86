"""The generator and the branch's player around it."""

import pytest
import torch

from adaug import Branch, Generator, OccludeFeatures, OneForAll, Rotate, Scale
from adaug._adversary import Adversary, Lesson
from adaug._random import Stream

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


def player(*operations, make=None):
    branch = Branch("asr", operations or (Scale(0.75, 1.25, 7), Rotate(-30, 30, 9)), 0.5)
    return Adversary(branch, SHAPES, make, None, Stream(0), torch.device("cpu"))


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
        adversary.learn(Lesson({"scale": target}, adversary.predict(inputs), valid))
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

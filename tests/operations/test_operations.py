"""Operations: their bins, matrices, colours and masks; and how little it takes to add one."""

import contextlib
import itertools
import math
from dataclasses import dataclass

import kornia
import networks as nets
import pytest
import torch
from torch import nn

import adaug
from adaug import (
    AdversarialAugmenter,
    Branch,
    Brightness,
    Contrast,
    OccludeFeatures,
    OccludeImage,
    Policy,
    Rotate,
    Saturation,
    Scale,
    Shear,
    Translate,
)  # fmt: skip
from adaug._runtime.random import Stream
from adaug.learners import Paper
from adaug.operations import Gain, Geometric, Photometric

pytestmark = pytest.mark.numeric

BINNED = [
    Scale(0.75, 1.25, 7), Scale(0.5, 2.0, 5, log=True), Rotate(-30, 30, 9), Rotate(-60, 60, 2, spread=0.3),
    Translate(-0.1, 0.2, 4), Translate(-0.1, 0.1, 3, axis="y"), Shear(-10, 10, 3), Shear(0, 20, 6, axis="y", spread=5.0),
    Brightness(0.5, 1.5, 4), Contrast(0.1, 2, 3, log=True), Saturation(0, 2, 4), Gain(0.6, 1.4, 2, channel=1),
]  # fmt: skip
every_binned = pytest.mark.parametrize("operation", BINNED, ids=repr)


# ---- bins


@every_binned
def test_bins_tile_the_range(operation):
    edges, centres = operation.edges(), operation.centres()
    assert len(edges) == operation.bins + 1
    assert len(centres) == operation.bins
    assert edges[0] == pytest.approx(operation.low)
    assert edges[-1] == pytest.approx(operation.high)
    assert all(a < centre < b for (a, b), centre in zip(itertools.pairwise(edges), centres, strict=True))


@every_binned
def test_every_draw_lies_in_its_own_bin_and_together_they_cover_it(operation):
    edges = operation.edges()
    noise = torch.cat([Stream(0).uniform(2000), torch.tensor([2.0**-24, 1 - 2.0**-24])])
    for i, (low, high) in enumerate(itertools.pairwise(edges)):
        drawn = operation.draw(operation.chosen(i, len(noise)), nets.Noise(noise))
        slack = 1e-5 * max(abs(low), abs(high))
        assert drawn.min() >= low - slack
        assert drawn.max() <= high + slack
        assert (drawn.max() - drawn.min()) > 0.95 * (high - low)  # no gaps between bins are left undrawn


@every_binned
def test_draws_do_not_pile_up_at_the_edges_of_a_bin(operation):
    low, high = operation.edges()[:2]
    drawn = operation.draw(operation.chosen(0, 20_000), Stream(0))
    near = 0.01 * (high - low)
    assert ((drawn < low + near) | (drawn > high - near)).float().mean() < 0.025


@pytest.mark.parametrize("spread", [0.3, 1.0, 2.0])
def test_spread_is_the_standard_deviation_in_half_bins(spread):
    rotate = Rotate(-50, 50, 5, spread=spread)  # half a bin is 10 degrees
    drawn = rotate.draw(rotate.chosen(2, 100_000), Stream(0)) / 10
    b = 1 / spread  # the variance of a normal truncated at b standard deviations
    density, mass = math.exp(-b * b / 2) / math.sqrt(2 * math.pi), math.erf(b / math.sqrt(2))
    assert drawn.std().item() == pytest.approx(spread * math.sqrt(1 - 2 * b * density / mass), rel=0.02)


def test_log_bins_have_equal_ratios_and_geometric_centres():
    scale = Scale(0.5, 2, 4, log=True)
    assert scale.edges() == pytest.approx([2**x for x in (-1, -0.5, 0, 0.5, 1)])
    assert scale.centres() == pytest.approx([2**x for x in (-0.75, -0.25, 0.25, 0.75)])


def test_linear_bins_have_equal_widths():
    assert Scale(0.75, 1.25, 5).edges() == pytest.approx([0.75, 0.85, 0.95, 1.05, 1.15, 1.25])
    assert Rotate(-30, 30, 3).centres() == pytest.approx([-20, 0, 20])


@every_binned
def test_random_magnitudes_cover_the_whole_range(operation):
    drawn = operation.draw_random(20_000, Stream(0))
    counts = torch.histogram(drawn.clamp(operation.low, operation.high), drawn.new_tensor(operation.edges())).hist
    torch.testing.assert_close(counts / 20_000, drawn.new_full((operation.bins,), 1 / operation.bins), atol=0.02, rtol=0)


def test_a_random_distribution_of_ones_own_is_used():
    noise = Stream(0).uniform(10)
    assert torch.equal(Rotate(-30, 30, 3, random=lambda u: 7 * u).draw_random(10, nets.Noise(noise)), 7 * noise)


def test_bins_are_chosen_by_their_probabilities():
    log_probs = torch.tensor([0.7, 0.2, 0.1]).log().expand(20_000, 3)
    chosen = Rotate(-30, 30, 3).choose(log_probs, Stream(0))
    assert chosen.shape == (20_000, 1)
    torch.testing.assert_close(torch.bincount(chosen[:, 0]) / 20_000, torch.tensor([0.7, 0.2, 0.1]), atol=0.02, rtol=0)


# ---- matrices

ANGLES = torch.tensor([-60.0, -10.0, 0.0, 25.0, 90.0])
ORIGIN = torch.zeros(5, 2)


def moved(operation, magnitude, point, size=(40, 60)):
    """Where a point (x right, y down from the centre) goes."""
    return (operation.matrix(torch.tensor([magnitude]), size)[0] @ torch.tensor([*point, 1.0]))[:2].tolist()


def test_rotation_is_kornias_and_counter_clockwise_as_seen():
    expected = kornia.geometry.get_rotation_matrix2d(ORIGIN, ANGLES, torch.ones(5, 2))
    torch.testing.assert_close(Rotate(-90, 90, 3).matrix(ANGLES, (8, 8))[:, :2], expected, atol=1e-5, rtol=0)
    assert moved(Rotate(-90, 90, 3), 90.0, (1.0, 0.0)) == pytest.approx([0, -1], abs=1e-6)  # what was right is up


def test_scale_is_kornias_and_above_one_enlarges():
    factor = torch.tensor([0.5, 0.75, 1.0, 1.25, 2.0])
    expected = kornia.geometry.get_rotation_matrix2d(ORIGIN, torch.zeros(5), factor[:, None].expand(-1, 2))
    torch.testing.assert_close(Scale(0.5, 2, 3).matrix(factor, (8, 8))[:, :2], expected)
    assert moved(Scale(0.5, 2, 3), 2.0, (3.0, -4.0)) == [6, -8]


def test_shear_is_kornias_and_leans_as_it_says():
    angle = torch.deg2rad(torch.tensor([-20.0, -5.0, 0.0, 5.0, 20.0]))
    x = Shear(-20, 20, 3).matrix(torch.rad2deg(angle), (8, 8))
    y = Shear(-20, 20, 3, axis="y").matrix(torch.rad2deg(angle), (8, 8))
    torch.testing.assert_close(x, kornia.geometry.get_shear_matrix2d(ORIGIN, sx=angle))
    torch.testing.assert_close(y, kornia.geometry.get_shear_matrix2d(ORIGIN, sy=-angle))
    tan = math.tan(math.radians(20))
    assert moved(Shear(-20, 20, 3), 20.0, (0.0, -10.0)) == pytest.approx([10 * tan, -10], abs=1e-5)  # the top to the right
    assert moved(Shear(-20, 20, 3, axis="y"), 20.0, (10.0, 0.0)) == pytest.approx([10, 10 * tan], abs=1e-5)  # the right down


def test_translation_is_a_fraction_of_the_view():
    assert moved(Translate(-1, 1, 3), 0.1, (1.0, 2.0), (40, 60)) == pytest.approx([7, 2])  # to the right
    assert moved(Translate(-1, 1, 3, axis="y"), 0.1, (1.0, 2.0), (40, 60)) == pytest.approx([1, 6])  # down


# ---- colours

IMAGE = torch.rand(3, 3, 6, 5, generator=torch.Generator().manual_seed(0))
FACTOR = torch.tensor([0.5, 1.0, 1.7])


@pytest.mark.parametrize(
    ("operation", "expected"),
    [
        (Brightness(0, 2, 2), kornia.enhance.adjust_brightness_accumulative),
        (Contrast(0, 2, 2), kornia.enhance.adjust_contrast_with_mean_subtraction),
        (Saturation(0, 2, 2), kornia.enhance.adjust_saturation_with_gray_subtraction),
    ],
)
def test_colours_are_kornias(operation, expected):
    torch.testing.assert_close(operation.apply(IMAGE, FACTOR), expected(IMAGE, FACTOR))


def test_gain_changes_one_channel():
    seen = Gain(0.5, 2, 2, channel=1).apply(IMAGE, FACTOR)
    assert torch.equal(seen[:, [0, 2]], IMAGE[:, [0, 2]])
    torch.testing.assert_close(seen[:, 1], (IMAGE[:, 1] * FACTOR[:, None, None]).clamp(0, 1))


COLOURS = [Brightness(0.5, 1.5, 4), Contrast(0.5, 1.5, 4), Saturation(0.5, 1.5, 4), Gain(0.5, 1.5, 2, channel=2)]
every_colour = pytest.mark.parametrize("operation", COLOURS, ids=lambda op: op.name)


@every_colour
def test_the_neutral_magnitude_changes_nothing(operation):
    torch.testing.assert_close(operation.apply(IMAGE, torch.full((3,), 1.0)), IMAGE, atol=1e-6, rtol=0)


@every_colour
def test_colours_stay_between_0_and_1(operation):
    seen = operation.apply(IMAGE, torch.tensor([0.0, 1.0, 5.0]))
    assert seen.min() >= 0
    assert seen.max() <= 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@every_colour
def test_colours_keep_the_dtype(operation, dtype):
    batch = {"image": IMAGE.to(dtype)}
    augmenter = AdversarialAugmenter(Policy((), (operation,)), seed=0)
    seen = augmenter.random(batch)["image"]
    assert seen.dtype == dtype
    assert not torch.equal(seen, batch["image"])


@pytest.mark.parametrize("channels", [1, 4])
@every_colour
def test_colours_work_on_any_channels_or_say_what_they_need(operation, channels):
    image = torch.rand(2, channels, 8, 8)
    augmenter = AdversarialAugmenter(Policy((), (operation,)), seed=0)
    with contextlib.suppress(ValueError):  # a typed refusal is as good, an IndexError from inside is not
        assert augmenter.random({"image": image})["image"].shape == image.shape


def test_a_saturation_says_which_channels_it_needs():
    batch = {"image": torch.rand(2, 4, 8, 8)}
    with pytest.raises(ValueError, match=r"Saturation should get images of 3 channels.*or 1.*Found 4; leave it out"):
        AdversarialAugmenter(Policy((), (Saturation(0.5, 1.5, 5),)), seed=0).random(batch)


# ---- occlusion

VARIANTS = ("up", "down", "independent")
SIDES = (64, 32, 16, 8, 4)


def drawn(operation, n=64, seed=0):
    stream = Stream(seed)
    chosen = operation.choose(torch.zeros(n, operation.bins), stream)
    first = chosen.unflatten(1, (operation.fields, -1))[:, 0]
    count = torch.zeros(n, operation.bins).scatter(1, first, 1).sum(1).long()
    return count, chosen, operation.draw(chosen, stream)


@pytest.mark.parametrize("operation", [OccludeImage(), OccludeImage((3, 5), 4), OccludeFeatures((2, 3), (1, 2, 3))], ids=repr)
def test_as_many_cells_are_hidden_as_were_counted(operation):
    count, chosen, mask = drawn(operation)
    assert mask.shape == (64, 1, *operation.grid)
    assert torch.equal((mask == 0).flatten(1).sum(1), count)
    assert set(count.tolist()) == set(operation.cells)
    assert torch.equal(mask.flatten(1) == 0, torch.zeros(64, operation.bins, dtype=torch.bool).scatter(1, chosen, True))


def test_each_number_of_cells_is_as_frequent():
    count, _, _ = drawn(OccludeImage(cells=(1, 2, 5)), n=9000)
    torch.testing.assert_close(torch.bincount(count)[[1, 2, 5]] / 9000, torch.full((3,), 1 / 3), atol=0.02, rtol=0)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("operation", [OccludeFeatures(), OccludeImage()], ids=["features", "image"])
def test_up_hides_whole_cells_at_every_resolution(operation, side):
    _, _, mask = drawn(operation)
    blocks = operation.resized(mask, (side, side), SIDES.index(side)).unflatten(3, (4, -1)).unflatten(2, (4, -1))
    assert torch.equal(blocks, mask[:, :, :, None, :, None].expand_as(blocks))


def test_up_leaves_what_is_left_of_a_pixel_coarser_than_the_grid():
    operation = OccludeFeatures(cells=1)
    _, _, mask = drawn(operation)
    coarse = operation.resized(mask, (2, 2), 5)
    torch.testing.assert_close(coarse.flatten(1).sum(1), torch.full((64,), 3.75))
    assert coarse.min() == 0.75


def test_down_hides_at_least_as_much_at_coarser_levels():
    operation = OccludeFeatures(variant="down")
    _, _, mask = drawn(operation)
    masks = [operation.resized(mask, (side, side), level) for level, side in enumerate(SIDES)]
    for fine, coarse in itertools.pairwise(masks):
        wide = coarse.repeat_interleave(2, 2).repeat_interleave(2, 3)
        assert ((wide > 0) <= (fine > 0)).all()
    hidden = [(m == 0).float().mean().item() for m in masks]
    assert hidden == sorted(hidden)
    assert hidden[-1] > 1.2 * hidden[0]  # "more than needed"


def test_down_hides_about_its_cells_at_the_finest_level():
    operation = OccludeFeatures(cells=2, variant="down")
    _, _, mask = drawn(operation, n=500)
    hidden = (operation.resized(mask, (64, 64), 0) == 0).flatten(1).sum(1)
    assert hidden.max() <= 2 * 16 * 16
    assert hidden.min() >= 2 * 8 * 8  # moved by up to half a cell: a quarter of a corner cell is left
    assert hidden.float().mean() > 0.8 * 2 * 16 * 16


def test_independent_hides_its_count_at_every_level_and_other_cells_at_each():
    operation = OccludeFeatures(variant="independent")
    count, _, mask = drawn(operation)
    masks = [operation.resized(mask, (side, side), level) for level, side in enumerate(SIDES)]
    for m, side in zip(masks, SIDES, strict=True):
        assert torch.equal((m == 0).flatten(1).sum(1), count * (side // 4) ** 2)
    cells = [torch.nn.functional.max_pool2d(m, m.shape[-1] // 4) for m in masks]
    for one, other in itertools.combinations(cells, 2):
        assert (one != other).flatten(1).any(1).float().mean() > 0.8


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("size", [(64, 48), (13, 7), (5, 9), (4, 4), (3, 2), (1, 1)])
def test_any_size_of_features_gets_a_mask(variant, size):
    operation = OccludeFeatures(variant=variant)
    _, _, mask = drawn(operation)
    for level in range(7):
        seen = operation.resized(mask, size, level)
        assert seen.shape == (64, 1, *size)
        assert seen.min() >= 0
        assert seen.max() <= 1
        assert ((seen < 1).flatten(1).any(1)).all()


# ---- one's own


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.down = nn.Conv2d(3, 8, 3, stride=4, padding=1)
        self.head = nn.Linear(8, 1)

    def forward(self, image):
        return self.head(self.down(image).relu().mean((2, 3)))[:, 0]


@dataclass(frozen=True)
class Stretch(Geometric):
    """A wider object."""

    def matrix(self, magnitude, size):
        one = torch.ones_like(magnitude)
        return torch.diag_embed(torch.stack([magnitude, one, one], -1))


@dataclass(frozen=True)
class Invert(Photometric):
    """Towards the negative."""

    neutral = 0.0

    def apply(self, image, magnitude):
        amount = magnitude[:, None, None, None]
        return image * (1 - amount) + (1 - image) * amount


@pytest.mark.parametrize("operation", [Stretch(1.2, 1.5, 3), Invert(0.2, 0.9, 4)], ids=["geometric", "photometric"])
def test_an_operation_of_ones_own_needs_no_registration(operation):
    name = type(operation).__name__.lower()
    augmenter = AdversarialAugmenter(Policy([Branch("mine", [operation], 0.5, Paper(features=["down"]))]), seed=0)
    batch = {"image": torch.rand(6, 3, 32, 32), "keypoints": torch.rand(6, 2, 2) * 8 + 12}
    model = Net()
    result = augmenter.step(model, batch, lambda output, batch: output.square())
    result.loss.backward()
    assert result.metrics[f"distribution/mine.{name}"].shape == (operation.bins,)
    assert not torch.equal(result.batch["image"], batch["image"])
    assert torch.equal(result.batch["keypoints"], batch["keypoints"]) == isinstance(operation, Photometric)
    assert augmenter.distributions(model, batch)[f"mine.{name}"].shape == (6, operation.bins)


@pytest.mark.parametrize(
    ("operation", "method"),
    [
        (Geometric(0, 1, 2), lambda op: op.matrix(torch.ones(1), (4, 4))),
        (Photometric(0, 1, 2), lambda op: op.apply(IMAGE, FACTOR)),
    ],
)
def test_an_unfinished_operation_says_what_it_lacks(operation, method):
    with pytest.raises(NotImplementedError, match="should define"):
        method(operation)


# ---- errors


@pytest.mark.parametrize(
    "make",
    [
        lambda: Rotate(-30, 30, 1), lambda: Rotate(-30, 30, 2.5), lambda: Rotate(-30, 30, True), lambda: Rotate(-30, 30, "9"),
        lambda: Rotate(30, -30, 9), lambda: Rotate(5, 5, 9), lambda: Rotate(float("nan"), 3, 9),
        lambda: Rotate(0, float("inf"), 9), lambda: Rotate(-30, 30, 9, log=True), lambda: Rotate(-30, 30, 9, spread=0),
        lambda: Scale(0, 1, 3), lambda: Scale(-1, 1, 3),
        lambda: Translate(-1, 1, 3, axis="z"), lambda: Shear(-1, 1, 3, axis=0),
        lambda: OccludeImage((0, 4)), lambda: OccludeImage((1, 1)), lambda: OccludeImage((4, 4, 4)),
        lambda: OccludeImage((2.0, 2)),
        lambda: OccludeImage(cells=()), lambda: OccludeImage(cells=0), lambda: OccludeImage(cells=16),
        lambda: OccludeImage(cells=(1, 99)), lambda: OccludeImage(cells=(1.5,)),
        lambda: OccludeFeatures(variant="sideways"),
    ],
)  # fmt: skip
def test_bad_arguments_are_refused_at_construction(make):
    with pytest.raises(ValueError, match=r"should .* Found"):
        make()


def test_every_operation_is_public():
    assert all(type(operation).__name__ in adaug.operations.__all__ for operation in BINNED)


def test_at_rest_only_the_rows_of_the_branch_move_and_are_compared_with_random_ones(monkeypatch):
    seen = []
    usual = Paper.compare

    def compare(learner, state, trials):
        seen.append(trials)
        return usual(learner, state, trials)

    monkeypatch.setattr(Paper, "compare", compare)
    asr = adaug.Branch("asr", [Rotate(-60, 60, 9, rest=0.0), Scale(0.5, 2, 7, rest=1.0)], 1 / 2)
    augmenter = nets.make_augmenter(adaug.Policy([asr, adaug.Branch("aho", [adaug.OccludeFeatures()], 1 / 4)]))
    result = augmenter.step(nets.make_network(), nets.make_batch(24), nets.loss_fn)
    moved = (result.view.matrix - torch.eye(3)).abs().amax((1, 2)) > 1e-3
    assert torch.equal(moved, result.branch == 1)
    (trials,) = seen
    turning, hiding = trials.reference["asr"], trials.reference["aho"]
    assert torch.allclose(result.view.matrix[result.branch == 0], torch.eye(3, dtype=torch.float32).expand(6, 3, 3), atol=1e-5)
    assert torch.allclose(hiding.matrix, torch.eye(3, dtype=torch.float32).expand(6, 3, 3), atol=1e-5)
    angles = torch.atan2(turning.matrix[:, 1, 0], turning.matrix[:, 0, 0]).rad2deg()
    assert angles.unique().numel() == 12
    assert angles.abs().max() <= 60
    assert "'rest': 0.0" in str(augmenter.policy.describe())


def test_a_magnitude_at_rest_is_finite():
    with pytest.raises(ValueError, match="`rest` of Rotate should be finite"):
        Rotate(-60, 60, 9, rest=float("nan"))
    with pytest.raises(ValueError, match=r"positive. Found rest=0"):
        Scale(0.5, 2.0, 7, rest=0)

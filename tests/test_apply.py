"""One door: operations at given magnitudes, or a view once more, on a batch with all that belongs to its pixels."""

from __future__ import annotations

import networks as nets
import pytest
import torch
from torch import Tensor

import adaug
from adaug import OccludeFeatures, OccludeImage, Rotate, Scale, Translate, apply_view
from adaug.operations import Apply, Brightness, Geometric

ROTATE, SCALE = Rotate(-30, 30, 9), Scale(0.5, 2, 7, log=True)


def full(n: int = 3, side: int = 33) -> dict[str, Tensor]:
    """A batch with an entry of every kind; its first keypoint lies at the centre, the second to the right of it."""
    centre = (side - 1) / 2
    points = torch.tensor([[centre, centre], [centre + 8, centre]]).expand(n, 2, 2).clone()
    return {
        "image": torch.rand(n, 3, side, side),
        "keypoints": points,
        "visibility": torch.ones(n, 2),
        "heatmaps": adaug.keypoints.render_heatmaps(points, side, 2.0),
        "mask": torch.ones(n, side, side, dtype=torch.long),
        "boxes": torch.tensor([[[centre - 4, centre - 2, centre + 4, centre + 2]]]).expand(n, 1, 4).clone(),
        "label": torch.arange(n),
    }


# ---- what is done


def test_a_magnitude_moves_every_entry() -> None:
    batch = full()
    turned = apply_view(batch, [(ROTATE, 90.0)])  # outside the operation's range: it is done all the same
    torch.testing.assert_close(turned["keypoints"][:, 1], torch.tensor([[16.0, 8.0]]).expand(3, 2), atol=1e-4, rtol=0)
    torch.testing.assert_close(turned["image"], batch["image"].rot90(1, (2, 3)), atol=1e-4, rtol=0)
    torch.testing.assert_close(turned["boxes"][0, 0], torch.tensor([14.0, 13.0, 18.0, 21.0]), atol=1e-4, rtol=0)
    peaks, _ = adaug.keypoints.decode_heatmaps(turned["heatmaps"])
    torch.testing.assert_close(peaks, turned["keypoints"], atol=0.05, rtol=0)
    assert torch.equal(turned["label"], batch["label"])


def test_operations_follow_one_another_and_interpolate_once() -> None:
    batch = full()
    there = apply_view(batch, [(SCALE, 2.0), (ROTATE, 90.0)])
    torch.testing.assert_close(there["keypoints"][0, 1], torch.tensor([16.0, 0.0]), atol=1e-4, rtol=0)
    shifted = apply_view(batch, [(Translate(-1, 1, 2), 8 / 33), (ROTATE, 90.0)])
    other = apply_view(batch, [(ROTATE, 90.0), (Translate(-1, 1, 2), 8 / 33)])
    torch.testing.assert_close(shifted["keypoints"][0, 0], torch.tensor([16.0, 8.0]), atol=1e-4, rtol=0)
    torch.testing.assert_close(other["keypoints"][0, 0], torch.tensor([24.0, 16.0]), atol=1e-4, rtol=0)
    back = apply_view(batch, [(ROTATE, 37.0), (ROTATE, -37.0)])  # one matrix: nothing is lost to interpolation
    torch.testing.assert_close(back["image"], batch["image"], atol=1e-4, rtol=0)


def test_every_row_may_have_a_magnitude_of_its_own() -> None:
    batch, angles = full(), [0.0, 90.0, -90.0]
    together = apply_view(batch, [(ROTATE, angles)])
    for i, angle in enumerate(angles):
        alone = apply_view({key: value[i : i + 1] for key, value in batch.items()}, [(ROTATE, torch.tensor(angle))])
        for key, value in alone.items():
            torch.testing.assert_close(together[key][i : i + 1], value, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("cells", "hidden"),
    [(5, [[5]] * 3), ([0, 15], [[0, 15]] * 3), (torch.tensor([[1, 2], [3, 4], [5, 5]]), [[1, 2], [3, 4], [5]])],
    ids=["one", "some", "by row"],
)
def test_cells_are_hidden_where_it_was_said(cells: object, hidden: list[list[int]]) -> None:
    batch = {"image": torch.ones(3, 1, 16, 16)}
    image = apply_view(batch, [(OccludeImage((4, 4), 1), cells)])["image"]
    black = (image.unflatten(3, (4, 4)).unflatten(2, (4, 4)).amax((3, 5)) == 0)[:, 0].flatten(1)  # [3, 16]
    assert [torch.nonzero(row).flatten().tolist() for row in black] == hidden


def test_colours_come_before_hidden_cells() -> None:
    batch = {"image": torch.full((2, 3, 8, 8), 0.5)}
    lighter = Apply(0, 1, 2, function=lambda image, magnitude: (image + magnitude[:, None, None, None]).clamp(0, 1))
    image = apply_view(batch, [(OccludeImage((2, 2), 1), 0), (lighter, 0.25)])["image"]
    assert image[:, :, :4, :4].eq(0).all()
    assert image[:, :, 4:].eq(0.75).all()


def test_a_view_is_cut_from_the_middle_of_a_larger_canvas() -> None:
    batch = full(side=33)
    cut = apply_view(batch, [], output_size=17)
    torch.testing.assert_close(cut["image"], batch["image"][:, :, 8:25, 8:25], atol=1e-5, rtol=0)
    torch.testing.assert_close(cut["keypoints"], batch["keypoints"] - 8)
    turned = apply_view(batch, [(ROTATE, 90.0)], output_size=(17, 17))
    torch.testing.assert_close(turned["image"], batch["image"].rot90(1, (2, 3))[:, :, 8:25, 8:25], atol=1e-4, rtol=0)


def test_nothing_to_do_gives_the_batch_as_it_is() -> None:
    batch = full()
    result = apply_view(batch, [])
    assert result["image"] is batch["image"]
    assert all(torch.equal(result[key], value) for key, value in batch.items() if isinstance(value, torch.Tensor))


def test_it_is_what_a_step_does_and_what_its_view_does_again() -> None:
    batch = nets.make_batch(12)
    policy = adaug.policies.uniform(adaug.policies.wide([(0, 1)]))
    result = adaug.AdversarialAugmenter(policy, occlude=nets.OCCLUDE, seed=0).step(nets.make_network(), batch, nets.loss_fn)
    assert nets.same(apply_view(batch, result.view), result.batch)
    scale, rotate = (result.view.magnitudes[f"asr.{name}"] for name in ("scale", "rotate"))
    unflipped = ~result.view.flipped
    again = apply_view(batch, [(SCALE, scale), (ROTATE, rotate)])
    torch.testing.assert_close(again["image"][unflipped], result.batch["image"][unflipped], atol=1e-5, rtol=0)
    torch.testing.assert_close(again["keypoints"][unflipped], result.batch["keypoints"][unflipped], atol=1e-4, rtol=0)


def test_it_draws_nothing_and_changes_no_batch() -> None:
    batch = full()
    copied, state = nets.cloned(batch), torch.get_rng_state()
    done = [(ROTATE, 20.0), (Brightness(0.5, 1.5, 3), 1.2), (OccludeImage((4, 4)), [3])]
    assert nets.same(apply_view(batch, done), apply_view(batch, done))
    assert torch.equal(torch.get_rng_state(), state)
    assert nets.same(batch, copied)


def test_targets_and_structure_are_the_users() -> None:
    image, joints = torch.rand(2, 3, 8, 8), torch.rand(2, 4, 2) * 8
    seen = apply_view((image, joints), [(SCALE, 0.5)], targets={1: "keypoints"})
    assert isinstance(seen, tuple)
    torch.testing.assert_close(seen[1], (joints - 3.5) / 2 + 3.5)


def test_an_operation_of_ones_own_goes_through_the_same_door() -> None:
    class Mirror(Geometric):
        def matrix(self, magnitude: Tensor, size: tuple[int, int]) -> Tensor:
            return torch.diag(torch.tensor([-1.0, 1.0, 1.0])).expand(len(magnitude), 3, 3)

    batch = full()
    torch.testing.assert_close(apply_view(batch, [(Mirror(0, 1, 2), 1.0)])["image"], batch["image"].flip(-1), atol=1e-5, rtol=0)


# ---- what cannot be done


@pytest.mark.parametrize(
    ("view", "error", "pattern"),
    [
        ([(OccludeFeatures(), 3)], TypeError, "Found OccludeFeatures, whose masks need a network; use OccludeImage"),
        ([ROTATE], TypeError, r"pairs of an operation and its magnitude\. Found Rotate"),
        ([("rotate", 30)], TypeError, r"pairs of an operation.*Found \('rotate', 30\)"),
        ([(ROTATE, "thirty")], TypeError, "a number, or one for each row. Found 'thirty'"),
        ([(ROTATE, None)], TypeError, "Found None"),
        ([(ROTATE, float("nan"))], ValueError, "Found nan"),
        ([(ROTATE, [1.0, 2.0])], ValueError, r"one for each of 3 rows\. Found \(2,\)"),
        ([(SCALE, 0.0)], ValueError, r"Scale.*Found 0\.0"),
        ([(SCALE, -1.0)], ValueError, r"Scale.*Found -1\.0"),
        ([(OccludeImage(), 16)], ValueError, "from 0 to 15. Found 16"),
        ([(OccludeImage(), -1)], ValueError, "from 0 to 15. Found -1"),
        ([(OccludeImage(), [[1], [2]])], ValueError, r"for 3 rows\. Found \(2, 1\)"),
        ([(OccludeImage(), 1.5)], TypeError, "integers, at least one. Found 1.5"),
        ([(OccludeImage(), [])], TypeError, r"at least one\. Found \[\]"),
        ([(OccludeImage(), "all")], TypeError, "numbers. Found 'all'"),
    ],
)
def test_what_cannot_be_done_is_said(view: object, error: type[Exception], pattern: str) -> None:
    with pytest.raises(error, match=pattern):
        apply_view(full(), view)  # type: ignore[arg-type]


def test_colours_want_images_between_0_and_1() -> None:
    with pytest.raises(ValueError, match=r"Brightness should get images in \[0, 1\]. Found values"):
        apply_view({"image": torch.randn(2, 3, 8, 8)}, [(Brightness(0.5, 1.5, 3), 1.0)])

"""kornia's own augmentations as the common part of a policy, its functions as binned operations, and the baselines."""

import kornia.augmentation as K
import pytest
import torch
from kornia import enhance

import adaug
from adaug import Branch, Policy, Rotate, policies
from adaug.learners import Paper
from adaug.operations import Apply

pytestmark = pytest.mark.numeric
PAPER = Paper(features=())


def batch():
    return {"image": torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(0)), "label": torch.arange(8)}


def loss_fn(output, batch):
    return output.square().mean((1, 2, 3))


def augmented(policy, **arguments):
    augmenter = adaug.AdversarialAugmenter(policy, seed=0, **arguments)
    return augmenter.step(torch.nn.Conv2d(3, 2, 3), batch(), loss_fn)


def test_kornias_colours_are_done_to_every_row_and_leave_the_random_state():
    policy = Policy([Branch("turn", [Rotate(-1e-3, 1e-3, 2)], 0.5, PAPER)], common=[K.ColorJiggle(0.5, 0.5, 0.5, 0.1, p=1.0)])
    augmenter = adaug.AdversarialAugmenter(policy, seed=0)
    before = torch.get_rng_state()
    augmenter.random(batch())
    assert torch.equal(before, torch.get_rng_state())
    result, again = augmented(policy), augmented(policy)
    assert torch.equal(result.batch["image"], again.batch["image"])
    assert ((result.batch["image"] - batch()["image"]).abs().amax((1, 2, 3)) > 0.02).all()
    assert torch.equal(result.batch["label"], batch()["label"])


def test_the_paint_is_the_same_for_both_views_that_are_compared():
    seen = []
    policy = Policy(
        [Branch("hide", [adaug.OccludeImage((2, 2), 1)], 1.0, PAPER)], common=[K.RandomGaussianNoise(std=0.5, p=1.0)]
    )
    augmented(policy, difficulty=lambda output, batch: seen.append(batch["image"]) or output.mean((1, 2, 3)))
    hard, usual = seen[-1].chunk(2)
    both = (hard != 0) & (usual != 0)
    assert torch.equal(hard[both], usual[both])


def test_what_moves_pixels_is_refused():
    with pytest.raises(TypeError, match="RandomRotation"):
        Policy([], common=[K.RandomRotation(30.0)])


def test_any_function_of_images_and_magnitudes_is_an_operation():
    operation = Apply(0.5, 2.0, 5, function=enhance.adjust_gamma, log=True)
    assert operation.name == "adjust_gamma"
    result = augmented(Policy([Branch("gamma", [operation], 0.5, PAPER)]))
    assert "distribution/gamma.adjust_gamma" in result.metrics
    magnitude = result.view.magnitudes["gamma.adjust_gamma"]
    torch.testing.assert_close(result.batch["image"], enhance.adjust_gamma(batch()["image"], magnitude))


@pytest.mark.parametrize("learned", [False, PAPER])
def test_trivial_gives_each_row_one_operation_or_none(learned):
    augmenter = adaug.AdversarialAugmenter(policies.trivial(learned=learned), seed=0)
    images = {"image": torch.rand(10, 3, 16, 16)}
    result = augmenter.step(torch.nn.Conv2d(3, 2, 3), images, loss_fn)
    assert sorted(result.branch.tolist()) == list(range(10))
    still = result.branch == 0
    torch.testing.assert_close(result.batch["image"][still], images["image"][still], atol=1e-5, rtol=0)
    moved = (result.view.matrix - torch.eye(3)).abs().amax((1, 2)) > 1e-3
    geometric = torch.tensor([0 < number <= 6 for number in result.branch.tolist()])
    assert torch.equal(moved, geometric)
    assert ("reward_rate/rotate" in result.metrics) == bool(learned)

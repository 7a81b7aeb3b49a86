"""Images of different sizes in one batch, as detectors take them: each has a view of its own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import adaug
from adaug import Rotate, Scale

SIZES = [(40, 32), (32, 48), (24, 24)]
POLICY = adaug.policies.robust(())


def parts() -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    noise = torch.Generator().manual_seed(0)
    images = [torch.rand(3, *size, generator=noise) for size in SIZES]
    boxes = [torch.tensor([[8.0, 8, 16, 20]]).repeat(i, 1) for i in range(len(SIZES))]
    return images, [{"boxes": one, "labels": torch.ones(len(one)).long(), "image_id": torch.tensor(3)} for one in boxes]


def batch_of(structure: str) -> Any:
    images, targets = parts()
    if structure == "tuple":
        return images, targets
    if structure == "mapping":
        return {"images": images, "targets": targets, "image_id": torch.arange(3)}
    return [{"image": image, **target} for image, target in zip(images, targets, strict=True)]


def read(made: Any) -> tuple[list[Tensor], list[Any]]:
    if isinstance(made, tuple):
        return made
    if isinstance(made, dict):
        return made["images"], made["targets"]
    return [row["image"] for row in made], made


STRUCTURES = ("tuple", "mapping", "rows")


@pytest.mark.parametrize("structure", STRUCTURES)
def test_draw_moves_each_row_in_its_own_size(structure: str) -> None:
    augmenter = adaug.AdversarialAugmenter(POLICY, seed=0)
    given = batch_of(structure)
    made = augmenter.draw(given)
    augmenter.observe(difficulty=torch.rand(3))
    images, targets = read(made)
    assert type(made) is type(given)
    assert [tuple(image.shape[1:]) for image in images] == SIZES
    assert [len(target["boxes"]) for target in targets] == [0, 1, 2]
    assert augmenter.view is not None
    assert augmenter.view.canvas == tuple(SIZES)
    for repeated, image in zip(read(adaug.apply_view(given, augmenter.view))[0], images, strict=True):
        assert torch.equal(repeated, image)
    untouched = batch_of(structure)
    for image, before in zip(read(given)[0], read(untouched)[0], strict=True):
        assert torch.equal(image, before)


@pytest.mark.parametrize("structure", STRUCTURES)
def test_every_row_is_what_it_would_be_alone(structure: str) -> None:
    given, sizes = batch_of(structure), torch.tensor([1.0, 1.5, 0.8])
    made = adaug.apply_view(given, [(Rotate(-90, 90, 9), 30.0), (Scale(0.5, 2, 3), sizes)])
    images, targets = read(made)
    for i, (image, target) in enumerate(zip(*parts(), strict=True)):
        alone = adaug.apply_view(([image], [target]), [(Rotate(-90, 90, 9), 30.0), (Scale(0.5, 2, 3), float(sizes[i]))])
        assert torch.equal(images[i], alone[0][0])
        assert torch.equal(targets[i]["boxes"], alone[1][0]["boxes"])


def test_views_lead_back() -> None:
    augmenter = adaug.AdversarialAugmenter(POLICY, seed=0)
    images, targets = parts()
    points = [{"keypoints": torch.full((1, 2, 2), 12.0)} for _ in targets]
    _, moved = augmenter.draw((images, points))
    assert augmenter.view is not None
    assert any((row["keypoints"] != 12).any() for row in moved)
    for row in adaug.unapply_view(moved, augmenter.view):
        torch.testing.assert_close(row["keypoints"], torch.full((1, 2, 2), 12.0), atol=1e-3, rtol=0)


def test_an_empty_policy_changes_no_bit() -> None:
    images, _ = adaug.AdversarialAugmenter(adaug.Policy(()), seed=0).draw(parts())
    assert all(map(torch.equal, images, parts()[0]))


def test_one_output_size_joins_them() -> None:
    augmenter = adaug.AdversarialAugmenter(POLICY, seed=0, output_size=24)
    assert [tuple(image.shape) for image in augmenter.draw(parts())[0]] == [(3, 24, 24)] * 3


def test_difficulties_reach_the_table_and_what_nobody_knows_is_said() -> None:
    augmenter = adaug.AdversarialAugmenter(POLICY, seed=0)
    for _ in range(3):
        augmenter.draw(parts())
        augmenter.observe(difficulty=torch.tensor([0.1, 0.5, 0.9]))
    assert "rotate" in str(augmenter.difficulty_table())
    augmenter.draw(parts())
    with pytest.raises(ValueError, match="difficulty=losses"):
        augmenter.observe({"loss_classifier": torch.tensor(1.0)})


def test_functions_of_images_need_one_size() -> None:
    policy = adaug.Policy((), [lambda image: image * 0.5])
    augmenter = adaug.AdversarialAugmenter(policy, seed=0)
    with pytest.raises(ValueError, match="functions in `common` should get images of one size"):
        augmenter.draw(parts())
    assert augmenter.steps == 0


def test_a_step_says_what_to_use_instead() -> None:
    augmenter = adaug.AdversarialAugmenter(POLICY, seed=0)
    with pytest.raises(ValueError, match="should have one size"):
        augmenter.step(nn.Conv2d(3, 3, 1), parts(), lambda output, batch: torch.rand(3))
    assert augmenter.steps == 0


def test_what_may_mix_rows_up_is_refused() -> None:
    images, _ = parts()
    flat = {"images": images, "boxes": torch.rand(3, 4), "batch_idx": torch.tensor([0, 0, 1])}
    with pytest.raises(ValueError, match="objects in lists"):
        adaug.apply_view(flat, [(Rotate(-90, 90, 9), 30.0)], targets={"boxes": adaug.Target("boxes", rows="batch_idx")})
    augmenter = adaug.AdversarialAugmenter(POLICY, seed=0)
    _, targets = augmenter.draw((images, [{"keypoints": torch.full((1, 2, 2), 9.0)} for _ in images]))
    assert augmenter.view is not None
    with pytest.raises(ValueError, match="as it was made for, 3"):
        adaug.unapply_view(targets[1:], augmenter.view)
    with pytest.raises(ValueError, match="a mapping for each image"):
        adaug.unapply_view({"keypoints": torch.rand(3, 2, 2)}, augmenter.view)


@pytest.mark.parametrize("size", [(24, 24), (24, 40)], ids=["equal", "different"])
def test_cells_mean_the_same_for_all_sizes(size: tuple[int, int]) -> None:
    images = [torch.ones(3, 24, 24), torch.ones(3, *size)]
    made = adaug.apply_view({"images": images}, [(adaug.OccludeImage((4, 4)), torch.tensor([5, 6]))])["images"]
    assert [float((image == 0).float().mean()) for image in made] == [0.125, 0.125]

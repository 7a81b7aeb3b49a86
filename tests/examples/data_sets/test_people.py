from __future__ import annotations

from itertools import chain
from typing import Literal

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from examples.datasets.drawn_people import draw_people
from examples.datasets.painting import dress, paint
from examples.datasets.people import LSP, MPII, Joints, People
from examples.datasets.skeleton import POSES, pose

PoseName = Literal["narrow", "wide"]
JOINTS = pytest.mark.parametrize("joints", [MPII, LSP], ids=lambda joints: joints.name)
BOTH = pytest.mark.parametrize("poses", ["narrow", "wide"])


@pytest.fixture(scope="module")
def few() -> People:
    return draw_people(10, size=32, canvas=48)


@JOINTS
def test_flip_pairs_are_an_involution_that_exchanges_right_and_left(joints: Joints) -> None:
    assert len(set(chain.from_iterable(joints.flip_pairs))) == 2 * len(joints.flip_pairs)
    for a, b in joints.flip_pairs:
        assert joints.names[a].replace("right", "left") == joints.names[b]
    unpaired = set(range(len(joints))) - set(chain.from_iterable(joints.flip_pairs))
    assert not any("left" in joints.names[i] or "right" in joints.names[i] for i in unpaired)


@JOINTS
def test_groups_and_limbs(joints: Joints) -> None:
    grouped = sorted(chain.from_iterable(joints.groups.values()))
    assert len(grouped) == len(set(grouped)) == 14
    assert {joints.names[i] for i in set(range(len(joints))) - set(grouped)} <= {"pelvis", "thorax"}
    assert list(joints.groups) == ["Head", "Sho.", "Elb.", "Wri.", "Hip", "Knee", "Ank."]
    assert set(chain.from_iterable(joints.limbs)) == set(range(len(joints)))
    for a, b in joints.limbs:
        assert {joints.names[a].split()[0], joints.names[b].split()[0]} != {"left", "right"} or "hip" in joints.names[a]


def test_an_epoch_holds_everybody_once_and_depends_on_seed_and_epoch_alone(few: People) -> None:
    def order(*, seed: int, epoch: int) -> list[int]:
        return torch.cat([batch["index"] for batch in few.batches(4, seed=seed, epoch=epoch)]).tolist()

    first, state = order(seed=3, epoch=5), torch.get_rng_state()
    torch.rand(1)
    assert order(seed=3, epoch=5) == first
    torch.set_rng_state(state)
    order(seed=3, epoch=5)
    assert torch.get_rng_state().equal(state)
    assert sorted(first) == list(range(10))
    assert order(seed=3, epoch=6) != first != order(seed=4, epoch=5)


def test_batches_hold_what_they_say(few: People) -> None:
    batches = list(few.batches(4, shuffle=False))
    assert [len(batch["index"]) for batch in batches] == [4, 4, 2]
    assert [len(batch["index"]) for batch in few.batches(4, drop_last=True)] == [4, 4]
    torch.testing.assert_close(batches[1]["image"], few.images[4:8].float() / 255)
    torch.testing.assert_close(batches[1]["keypoints"], few.keypoints[4:8])
    assert batches[0]["index"].dtype == torch.long


def test_a_batch_can_be_changed_without_changing_the_people(few: People) -> None:
    before = few.keypoints.clone()
    for shuffle in (True, False):
        next(few.batches(4, shuffle=shuffle))["keypoints"].zero_()
    torch.testing.assert_close(few.keypoints, before)


def test_subset_and_crop(few: People) -> None:
    for indices in ([3, 1, 0], torch.tensor([3, 1, 0])):
        assert len(few.subset(indices)) == 3
        torch.testing.assert_close(few.subset(indices).images, few.images[[3, 1, 0]])
    cropped = few.cropped(32)
    torch.testing.assert_close(cropped.images, few.images[:, :, 8:40, 8:40])
    torch.testing.assert_close(cropped.keypoints, few.keypoints - 8)
    with pytest.raises(ValueError, match="`size` should be"):
        few.cropped(33)


def test_wrong_tensors_are_named(few: People) -> None:
    with pytest.raises(ValueError, match="`visibility` should be"):
        People(few.images, few.keypoints, few.visibility[:, :3], few.pck_length, MPII)
    with pytest.raises(ValueError, match="`images` should be"):
        People(few.images.float(), few.keypoints, few.visibility, few.pck_length, MPII)


@BOTH
def test_drawing_is_reproducible_and_image_i_does_not_depend_on_n(poses: PoseName) -> None:
    many, fewer = draw_people(6, poses=poses, seed=7), draw_people(3, poses=poses, seed=7)
    torch.testing.assert_close(many.images[:3], fewer.images, rtol=0, atol=0)
    torch.testing.assert_close(many.keypoints[:3], fewer.keypoints, rtol=0, atol=0)
    assert (draw_people(3, poses=poses, seed=8).images != fewer.images).float().mean() > 0.5


@BOTH
def test_people_stay_inside_the_central_crop_and_fill_it(poses: PoseName) -> None:
    people = draw_people(60, size=32, canvas=64, poses=poses).cropped(32)
    assert people.keypoints.min() >= 0
    assert people.keypoints.max() <= 31
    extent = (people.keypoints.amax(1) - people.keypoints.amin(1)).amax(1)
    assert extent.median() > 0.6 * 32
    assert ((people.pck_length > 0.05 * 32) & (people.pck_length < 0.4 * 32)).all()


@BOTH
def test_every_joint_lies_on_its_person(poses: PoseName) -> None:
    for seed in range(20):
        rng = np.random.default_rng(seed)
        skeleton, look = pose(rng, POSES[poses]), dress(rng)
        pictures = []
        for background in ("black", "white"):
            image = Image.new("RGB", (200, 200), background)
            paint(ImageDraw.Draw(image), skeleton, look, 100, np.array([100.0, 100.0]))
            pictures.append(np.asarray(image))
        drawn = (pictures[0] == pictures[1]).all(2)
        x, y = (skeleton.joints[:, :2] * 100 + 100).round().astype(int).T
        assert drawn[y, x].all()
        assert drawn.mean() < 0.4


def test_wide_poses_are_wider_than_narrow_ones() -> None:
    spread = {}
    for poses in POSES:
        joints = [pose(np.random.default_rng(i), POSES[poses]).joints for i in range(100)]
        up = np.array([j[7, :2] - j[6, :2] for j in joints])
        spread[poses] = np.degrees(np.abs(np.arctan2(up[:, 0], -up[:, 1])))
    assert spread["narrow"].max() < 35
    assert np.median(spread["wide"]) > 25
    assert spread["wide"].max() > 80


def test_limbs_keep_their_length_in_space() -> None:
    bones = [(0, 1), (1, 2), (3, 4), (4, 5), (10, 11), (11, 12), (13, 14), (14, 15), (8, 9)]
    for i in range(50):
        joints = pose(np.random.default_rng(i), POSES["wide"]).joints
        lengths = np.array([np.linalg.norm(joints[a] - joints[b]) for a, b in bones])
        assert (lengths > 0.12).all()
        assert (lengths < 0.28).all()
        np.testing.assert_allclose(lengths[[0, 1, 4, 5]], lengths[[3, 2, 7, 6]])


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="`poses` should be"):
        draw_people(1, poses="flying")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="`size` should be"):
        draw_people(1, size=64, canvas=48)

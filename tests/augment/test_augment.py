"""Augment: the operations without a model, on batches, on samples inside a Dataset, and on lists of what cannot be stacked."""

import copy
import pickle

import numpy as np
import pytest
import torch

import adaug
from adaug import Branch, Brightness, Flip, OccludeFeatures, Policy, Rotate, Scale, policies

PAIRS = [(0, 1)]
TURN = Policy((Branch("turn", (Rotate(20, 60, 4), Scale(0.7, 1.3, 3)), 1.0),), (Flip(PAIRS),))
LIGHT = Policy((Branch("light", (Brightness(0.5, 0.9, 4),), 1.0),))
NOTHING = Policy(())


def make_batch(n=6, side=16):
    noise = torch.Generator().manual_seed(n)
    return {
        "image": torch.rand(n, 3, side, side, generator=noise),
        "keypoints": torch.rand(n, 4, 2, generator=noise) * side,
        "visibility": torch.ones(n, 4),
        "mask": torch.randint(0, 5, (n, side, side), generator=noise),
        "boxes": torch.tensor([[[2.0, 3, 9, 12]]]).repeat(n, 1, 1),
        "label": torch.arange(n),
        "name": [f"{i}.jpg" for i in range(n)],
    }


def row(batch, i):
    return {name: entry[i] for name, entry in batch.items()}


def same(a, b):
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[name], b[name]) for name in a)
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else np.array_equal(a, b)


# ---- batches


def test_a_batch_is_what_its_view_makes_of_it():
    batch = make_batch()
    before = copy.deepcopy(batch)
    result, view = adaug.Augment(TURN, seed=1)(batch, view=True)
    assert same(batch, before)
    assert same(result, adaug.apply_view(batch, view))
    assert not torch.equal(result["keypoints"], batch["keypoints"])
    assert result["name"] == batch["name"]


@pytest.mark.parametrize("policy", [policies.paper(PAIRS), policies.robust(PAIRS), policies.wide(PAIRS, rest=True)])
def test_every_branch_is_drawn_on_its_share_and_learned_ones_evenly(policy):
    n = 900
    batch = {"image": torch.rand(n, 3, 8, 8) + 0.1, "keypoints": torch.full((n, 2, 2), 4.0)}
    result, view = adaug.Augment(policy, seed=0)(batch, view=True)
    (hidden,) = [magnitude for name, magnitude in view.magnitudes.items() if name.startswith("aho")]
    assert (hidden.flatten(1).amin(1) == 0).sum() == n / 3
    assert not view.feature_masks  # they hide the image
    assert (result["image"] == 0).all(1).flatten(1).any(1)[hidden.flatten(1).amin(1) == 0].all()
    if any(operation.rest is not None for operation in policy.branches[0].operations):
        rotate = policy.branches[0].operations[1]
        counts = rotate.membership(view.magnitudes["asr.rotate"][view.magnitudes["asr.rotate"] != 0]).float().sum(0)
        assert counts.min() > 15
        assert counts.max() < 55  # 300 rows in 9 bins


def test_a_schedule_reads_the_progress_that_is_set():
    policy = Policy((Branch("late", (Rotate(20, 60, 4, rest=0.0),), policies.Window(1.0, 0.5)),))
    augment, batch = adaug.Augment(policy, seed=0), make_batch()
    assert torch.allclose(augment(batch)["keypoints"], batch["keypoints"], atol=1e-4)
    augment.progress = 0.7
    assert not torch.allclose(augment(batch)["keypoints"], batch["keypoints"], atol=1.0)


def test_the_global_random_state_stays():
    state = torch.get_rng_state()
    adaug.Augment(policies.trivial(PAIRS))(make_batch())
    assert torch.equal(state, torch.get_rng_state())


def test_output_size_cuts_from_the_middle():
    result = adaug.Augment(NOTHING, output_size=(8, 10))(make_batch())
    assert result["image"].shape == (6, 3, 8, 10)
    assert result["mask"].shape == (6, 8, 10)


# ---- samples


def test_a_sample_is_what_a_batch_of_one_is():
    batch, augment = make_batch(1), adaug.Augment(TURN, seed=3)
    for index in range(3):
        whole, single = augment(batch, index=index), augment(row(batch, 0), index=index)
        assert same(single, row(whole, 0))
        assert single["keypoints"].shape == (4, 2)
        assert single["label"].ndim == 0


def test_samples_share_the_branches_as_rows_do():
    augment, sample = adaug.Augment(policies.paper(), seed=0), torch.ones(3, 8, 8)
    hidden = sum(bool(augment(sample, index=i, view=True)[1].masks) for i in range(300))
    assert 70 < hidden < 130


def test_a_sample_may_be_a_tuple_or_an_image_alone():
    image, augment = torch.rand(3, 16, 16), adaug.Augment(TURN, seed=0)
    pair = augment((image, 3), index=0)
    assert isinstance(pair, tuple)
    assert pair[1] == 3
    assert torch.equal(pair[0], augment(image, index=0))
    assert torch.equal(augment((image, torch.tensor(3)), index=0)[1], torch.tensor(3))


def test_entries_inside_others_are_moved_in_their_place():
    augment = adaug.Augment(TURN, seed=0, targets={("meta", "joints"): "keypoints"})
    batch, points = make_batch(1), torch.rand(4, 2) * 16
    sample = {"image": batch["image"][0], "meta": {"joints": points, "id": 7}}
    result = augment(sample, index=0)
    flat = adaug.Augment(TURN, seed=0)({"image": batch["image"][0], "keypoints": points}, index=0)
    assert torch.equal(result["meta"]["joints"], flat["keypoints"])
    assert result["meta"]["id"] == 7


def test_what_is_not_known_of_a_sample_is_refused():
    with pytest.raises(ValueError, match="Each tensor of a batch should have a kind"):
        adaug.Augment(TURN)((torch.rand(3, 16, 16), torch.rand(4, 2)))
    with pytest.raises(TypeError, match=r"a mapping, a tuple or an image. Found str"):
        adaug.Augment(TURN)("image.jpg")
    with pytest.raises(ValueError, match="a value for each pixel"):
        adaug.Augment(TURN)({"image": torch.rand(3, 16, 16), "label": torch.zeros(16, 16)})


# ---- integers, colours last, pictures, arrays, subclasses


def test_integers_are_rounded_not_truncated():
    image = torch.randint(0, 256, (3, 16, 16), dtype=torch.uint8)
    result, view = adaug.Augment(LIGHT, seed=0)(image, view=True)
    assert result.dtype == torch.uint8
    factor = float(view.magnitudes["light.brightness"])
    assert torch.equal(result, (image * factor).round().to(torch.uint8))
    assert not torch.equal(result, (image * factor).to(torch.uint8))
    batch = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    assert torch.equal(adaug.Augment(Policy((), (Flip(p=1.0),)), seed=0)(batch), batch.flip(-1))


def test_a_fill_is_in_the_units_of_the_image():
    image = torch.full((1, 3, 16, 16), 200, dtype=torch.uint8)
    away = Policy((Branch("away", (adaug.Translate(0.4, 0.5, 2),), 1.0),))
    result = adaug.Augment(away, targets={0: adaug.Target("image", fill=128)})((image,))[0]
    assert set(result[:, :, 4:-4].unique().tolist()) >= {128, 200}


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.float64])
@pytest.mark.parametrize("shape", [(16, 20, 3), (2, 16, 20, 3)])
def test_arrays_with_colours_last_come_back_so(dtype, shape):
    image = np.random.default_rng(0).random(shape)
    image = (image * np.iinfo(dtype).max).astype(dtype) if np.issubdtype(dtype, np.integer) else image.astype(dtype)
    mask = np.random.default_rng(1).integers(0, 9, shape[:-1]).astype(np.uint16)
    result = adaug.Augment(Policy((), (Flip(p=1.0),)), seed=0, channels="last")({"image": image, "mask": mask})
    assert isinstance(result["image"], np.ndarray)
    assert result["image"].dtype == dtype
    axis = len(shape) - 2
    np.testing.assert_allclose(result["image"], np.flip(image, axis), rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(result["mask"], np.flip(mask, axis))
    assert result["mask"].dtype == np.uint16
    with pytest.raises(ValueError, match='pass channels="last"'):
        adaug.Augment(NOTHING)({"image": image, "mask": mask})


def test_tensors_with_channels_last_come_back_so():
    batch, last = make_batch(), make_batch()
    last["image"] = last["image"].permute(0, 2, 3, 1)
    first, result = adaug.Augment(TURN, seed=0)(batch), adaug.Augment(TURN, seed=0, channels="last")(last)
    assert torch.equal(result["image"].permute(0, 3, 1, 2), first["image"])


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "CMYK", "F", "I;16"])
def test_pictures_come_back_as_pictures(mode):
    image_module = pytest.importorskip("PIL.Image")
    noise = np.random.default_rng(0)
    if mode in ("F", "I;16"):
        picture = image_module.fromarray(noise.integers(0, 200, (12, 20)).astype(np.float32 if mode == "F" else np.uint16))
    else:
        picture = image_module.fromarray(noise.integers(0, 256, (12, 20, 3), dtype=np.uint8)).convert(mode)
    result = adaug.Augment(Policy((), (Flip(p=1.0),)), seed=0)(picture)
    assert (type(result), result.mode, result.size) == (type(picture), mode, (20, 12))
    np.testing.assert_allclose(np.asarray(result), np.asarray(picture)[:, ::-1], atol=1e-4)


@pytest.mark.parametrize("mode", ["P", "1", "L"])
def test_pictures_may_be_masks(mode):
    image_module = pytest.importorskip("PIL.Image")
    noise = np.random.default_rng(0)
    mask = image_module.fromarray(noise.integers(0, 2, (12, 20), dtype=np.uint8) * 255).convert(mode)
    image = image_module.fromarray(noise.integers(0, 256, (12, 20, 3), dtype=np.uint8))
    result = adaug.Augment(Policy((), (Flip(p=1.0),)), seed=0, targets={1: "mask"})((image, mask))[1]
    assert result.mode == mode
    np.testing.assert_array_equal(np.asarray(result), np.asarray(mask)[:, ::-1])
    assert result.getpalette() == mask.getpalette()
    if mode != "L":
        with pytest.raises(ValueError, match=r"use .convert\('RGB'\)"):
            adaug.Augment(TURN)(mask)


class Tagged(torch.Tensor):
    """As torchvision's tv_tensors: a class that carries something along and that functions do not keep."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **(kwargs or {}))


def tagged(tensor, **carried):
    made = tensor.as_subclass(Tagged)
    vars(made).update(carried)
    return made


def test_subclasses_of_tensors_stay_what_they_are():
    sample = {
        "image": tagged(torch.randint(0, 256, (3, 16, 16), dtype=torch.uint8)),
        "boxes": tagged(torch.tensor([[2.0, 3, 5, 6]]), format="XYWH", canvas_size=(16, 16)),
        "mask": tagged(torch.zeros(16, 16, dtype=torch.uint8)),
    }
    result = adaug.Augment(TURN, seed=0, output_size=12)(sample, index=0)
    assert all(type(entry) is Tagged for entry in result.values())
    assert vars(result["boxes"]) == {"format": "XYWH", "canvas_size": (12, 12)}
    plain = {**sample, "boxes": torch.tensor([[2.0, 3, 5, 6]])}
    kinds = {"boxes": adaug.Target("boxes", format="xywh")}
    expected = adaug.Augment(TURN, seed=0, output_size=12, targets=kinds)(plain, index=0)
    assert torch.equal(result["boxes"].as_subclass(torch.Tensor), expected["boxes"])


# ---- lists of what cannot be stacked


def detection(n=3):
    sizes = [(16, 20), (24, 12), (10, 10)][:n]
    images = [torch.rand(3, *size) for size in sizes]
    objects = [
        {
            "boxes": torch.tensor([[2.0, 3, 8, 9]]).repeat(i, 1),
            "masks": torch.ones(i, *size, dtype=torch.uint8),
            "keypoints": torch.cat([torch.rand(i, 5, 2) * 8, torch.ones(i, 5, 1)], -1),
            "labels": torch.ones(i, dtype=torch.long),
            "image_id": i,
        }
        for i, size in enumerate(sizes)
    ]
    return images, objects


KINDS = {(1, "boxes"): "boxes", (1, "masks"): "mask", (1, "keypoints"): "keypoints"}


def test_lists_as_torchvisions_detectors_have_them():
    images, objects = detection()
    augment = adaug.Augment(TURN, seed=0, targets=KINDS)
    (moved, found), views = augment((images, objects), index=4, view=True)
    assert isinstance(moved, list)
    assert [image.shape for image in moved] == [image.shape for image in images]
    assert [len(entry["boxes"]) for entry in found] == [0, 1, 2]
    for i, view in enumerate(views):
        alone = {"image": images[i][None], "mask": objects[i]["masks"][None]}
        again = adaug.apply_view(alone, view)
        assert torch.equal(again["image"][0], moved[i])
        assert torch.equal(again["mask"][0], found[i]["masks"])
        assert found[i]["image_id"] == i
    assert len({float(view.magnitudes["turn.rotate"]) for view in views}) == 3
    one, target = augment((images[1], objects[1]), index=0)  # the same targets serve a sample of a Dataset
    assert one.shape == images[1].shape
    assert target["boxes"].shape == (1, 4)


def test_lists_in_a_mapping_and_beside_stacked_images():
    images, objects = detection()
    batch = {"image": images, "boxes": [entry["boxes"] for entry in objects], "label": torch.arange(3)}
    result = adaug.Augment(TURN, seed=0)(batch)
    assert [boxes.shape for boxes in result["boxes"]] == [(0, 4), (1, 4), (2, 4)]
    assert torch.equal(result["label"], torch.arange(3))
    batch["image"] = torch.rand(3, 3, 16, 16)
    result = adaug.Augment(TURN, seed=0)(batch)
    assert result["image"].shape == (3, 3, 16, 16)
    assert not torch.equal(result["boxes"][2], batch["boxes"][2])
    assert not torch.equal(result["image"], batch["image"])


# ---- noise


def test_an_index_names_the_noise():
    augment, sample = adaug.Augment(TURN, seed=5), row(make_batch(), 0)
    first = augment(sample, index=2, epoch=1)
    augment(sample)
    assert same(augment(sample, index=2, epoch=1), first)
    assert same(pickle.loads(pickle.dumps(augment))(sample, index=2, epoch=1), first)
    for other in (augment(sample, index=3, epoch=1), augment(sample, index=2, epoch=0), augment(sample)):
        assert not same(other, first)
    assert not same(adaug.Augment(TURN, seed=6)(sample, index=2, epoch=1), first)
    with pytest.raises(ValueError, match="`index` should come with a seed"):
        adaug.Augment(TURN)(sample, index=0)
    with pytest.raises(ValueError, match="`index` should be an integer of at least 0"):
        augment(sample, index=-1)


def test_a_seed_repeats_a_run_and_ranks_differ(monkeypatch):
    sample = row(make_batch(), 0)
    first, again, other = (adaug.Augment(TURN, seed=5) for _ in range(3))
    drawn = [first(sample)["keypoints"] for _ in range(2)]
    assert not torch.equal(*drawn)
    assert all(torch.equal(again(sample)["keypoints"], points) for points in drawn)
    monkeypatch.setenv("RANK", "1")
    assert not torch.equal(other(sample)["keypoints"], drawn[0])
    assert same(other(sample, index=0), first(sample, index=0))
    monkeypatch.delenv("RANK")
    torch.manual_seed(11)
    later = adaug.Augment(TURN)
    torch.manual_seed(12)  # after construction, before the first call
    expected = adaug.Augment(TURN, seed=12)(sample)
    assert same(later(sample), expected)


class Samples(torch.utils.data.Dataset):
    def __init__(self, augment, named):
        self.augment, self.named, self.epoch = augment, named, 0

    def __len__(self):
        return 4

    def __getitem__(self, i):
        sample = {"image": torch.ones(3, 8, 8), "keypoints": torch.full((4, 2), 2.0), "id": i}
        return self.augment(sample, index=i, epoch=self.epoch) if self.named else self.augment(sample)


def epoch_of(dataset, workers):
    batches = torch.utils.data.DataLoader(dataset, batch_size=1, num_workers=workers)
    return torch.cat([batch["keypoints"] for batch in batches])


def test_workers_and_epochs_differ_and_names_repeat_them():
    named = Samples(adaug.Augment(TURN, seed=0), named=True)
    expected = epoch_of(named, 0)
    assert torch.equal(epoch_of(named, 2), expected)
    assert torch.equal(epoch_of(named, 1), expected)
    named.epoch = 1
    assert not torch.equal(epoch_of(named, 0), expected)
    for seed in (None, 0):
        unnamed = Samples(adaug.Augment(TURN, seed=seed), named=False)
        both = torch.cat([epoch_of(unnamed, 2), epoch_of(unnamed, 2)])
        assert len(both.flatten(1).unique(dim=0)) == 8


# ---- the augmenter's random views


@pytest.mark.parametrize(
    "policy",
    [
        policies.trivial(),
        policies.wide(rest=True),
        Policy((Branch("hide", (OccludeFeatures(),), 0.5),)),
        policies.uniform(Policy((Branch("hide", (adaug.OccludeImage(),), 0.5),))),
    ],
)
def test_random_views_that_would_change_nothing_are_refused(policy):
    with pytest.raises(ValueError, match=r"use adaug.Augment\(policy\), which draws every branch"):
        adaug.AdversarialAugmenter(policy, seed=0).random(make_batch())


def test_random_views_of_what_is_common_are_drawn():
    for policy in (
        Policy((), (Flip(PAIRS, p=1.0),)),
        policies.trivial(PAIRS),
        Policy(policies.trivial().branches, (Brightness(0.5, 0.9, 4),)),
    ):
        batch = make_batch()
        assert not torch.equal(adaug.AdversarialAugmenter(policy, seed=0).random(batch)["image"], batch["image"])


# ---- what is refused


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"policy": "paper"}, TypeError, "should be an adaug.Policy"),
        ({"channels": "middle"}, ValueError, "'first' or 'last'"),
        ({"seed": "one"}, TypeError, "`seed` should be an integer"),
        ({"targets": {"image": "picture"}}, ValueError, "one of image"),
        ({"seed": 0.5, "channels": "middle"}, TypeError, "(?s)`seed` should be.*`channels` should be"),
    ],
)
def test_arguments_are_checked(arguments, error, match):
    with pytest.raises(error, match=match):
        adaug.Augment(**({"policy": TURN} | arguments))


def test_it_says_what_it_does():
    policy = Policy((Branch("hide", (OccludeFeatures(grid=(2, 2)),), 0.5),), (Flip(PAIRS),))
    lines = ["  common: Flip(pairs=((0, 1),))", "  hide: share 0.5, drawn evenly", "    OccludeImage(grid=(2, 2))"]
    assert repr(adaug.Augment(policy)) == "\n".join(["Augment(", *lines, ")"])

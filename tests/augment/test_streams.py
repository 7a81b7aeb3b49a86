"""Streams and values: who draws what, in which epoch, and integers, masked arrays and fills that would be lost."""

import copy
import pickle

import numpy as np
import pytest
import torch

import adaug
from adaug import Augment, Branch, Flip, Policy, Rotate, Target, Translate

TURN = Policy([Branch("turn", [Rotate(20, 60, 4)], 1.0)])
FLIP = Policy((), (Flip(p=1.0),))
SAMPLE = {"image": torch.ones(3, 8, 8), "keypoints": torch.full((4, 2), 2.0)}


def drawn(augment, times=3, **options):
    return torch.stack([augment(SAMPLE, **options)["keypoints"] for _ in range(times)])


@pytest.mark.parametrize("count", [2, 3, 5])
def test_augments_of_one_process_draw_different_views(count):
    augments = [Augment(TURN) for _ in range(count)]
    views = torch.cat([drawn(augment) for augment in augments]).flatten(1)
    assert len(views.unique(dim=0)) == len(views)


def test_a_seed_is_repeated_and_a_copy_goes_on():
    assert torch.equal(drawn(Augment(TURN, seed=3)), drawn(Augment(TURN, seed=3)))
    torch.manual_seed(4321)
    first = Augment(TURN)
    expected = drawn(Augment(TURN, seed=4321))
    assert torch.equal(drawn(first), expected)  # the first of a process, as before
    other = pickle.loads(pickle.dumps(first))
    assert torch.equal(drawn(other), drawn(first))
    assert torch.equal(drawn(copy.deepcopy(first)), drawn(first))
    for made in (copy.copy(first), copy.deepcopy(first), pickle.loads(pickle.dumps(first))):
        made.progress, made.epoch = 0.5, 3
    assert (first.progress, first.epoch) == (0, 0)


class Named(torch.utils.data.Dataset):
    def __init__(self, augment, named=True):
        self.augment, self.named = augment, named
        self.epoch = None

    def __len__(self):
        return 6

    def __getitem__(self, i):
        return self.augment(SAMPLE, index=i, epoch=self.epoch) if self.named else self.augment(SAMPLE)


def epochs_of(dataset, workers, epochs=3, **options):
    found, several = [], workers > 0
    loader = torch.utils.data.DataLoader(dataset, batch_size=1, num_workers=workers, persistent_workers=several, **options)
    for epoch in range(epochs):
        dataset.augment.epoch = epoch
        found.append(torch.cat([batch["keypoints"] for batch in loader]))
    return torch.stack(found)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [None, 0])
def test_persistent_workers_draw_new_views_in_every_epoch(seed):
    found = epochs_of(Named(Augment(TURN, seed=seed), named=False), 2)
    assert len(found.flatten(0, 1).flatten(1).unique(dim=0)) == 18


@pytest.mark.slow
@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_persistent_workers_know_the_epoch_and_repeat_it_by_seed(context):
    expected = epochs_of(Named(Augment(TURN, seed=0)), 0)
    assert len(expected.flatten(0, 1).flatten(1).unique(dim=0)) == 18
    found = epochs_of(Named(Augment(TURN, seed=0)), 2, multiprocessing_context=context)
    assert torch.equal(found, expected)
    augment = Augment(TURN, seed=0)
    assert torch.equal(augment(SAMPLE, index=2, epoch=1)["keypoints"], expected[1, 2])


@pytest.mark.slow  # torch takes seconds to end such workers
@pytest.mark.parametrize("start", [0, 5])
@pytest.mark.parametrize("persistent", [True, False])
def test_workers_that_see_an_old_epoch_count_on(start, persistent):
    """The data set's own attribute stays as it was when a worker that persists started."""
    dataset, found = Named(Augment(TURN, seed=0)), []
    loader = torch.utils.data.DataLoader(dataset, batch_size=1, num_workers=2, persistent_workers=persistent, shuffle=True)
    expected = [
        torch.stack([Augment(TURN, seed=0)(SAMPLE, index=i, epoch=start + e)["keypoints"] for i in range(6)]) for e in range(3)
    ]
    for epoch in range(3):
        dataset.epoch = start + epoch
        found.append(torch.cat([batch["keypoints"] for batch in loader]))
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.equal(ours.flatten(1).sort(0).values, theirs.flatten(1).sort(0).values)
    assert len(torch.cat(found).flatten(1).unique(dim=0)) == 18


@pytest.mark.parametrize("value", [50, -0.1, 1.5, torch.nan, torch.inf])
def test_progress_is_checked(value):
    augment = Augment(TURN, seed=0)
    with pytest.raises(ValueError, match=r"`progress` should be a number in \[0, 1\]. Found"):
        augment.progress = value
    assert augment.progress == 0
    for fine in (0, 0.5, 1, np.float32(0.25), torch.tensor(1.0)):
        augment.progress = fine
        assert augment.progress == float(fine)
    with pytest.raises(TypeError, match="`progress` should be a number"):
        augment.progress = "half"
    with pytest.raises(ValueError, match="`epoch` should be an integer of at least 0"):
        augment.epoch = -1


# ---- values that would be lost


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64, "uint64", "int64"])
@pytest.mark.parametrize("channels", [None, 3])
def test_integers_of_any_size_are_kept(dtype, channels):
    most = {torch.int32: 2**31 - 1, "uint64": 2**64 - 1}.get(dtype, 2**63 - 1)
    noise = np.random.default_rng(0)
    shape = (2, 16, 12) if channels is None else (2, channels, 16, 12)
    values = noise.integers(most - 2**20, most, shape, endpoint=True, dtype=np.uint64)
    mask = values.astype(dtype) if isinstance(dtype, str) else torch.from_numpy(values.astype(np.int64)).to(dtype)
    made = Augment(FLIP, seed=0)({"image": torch.rand(2, 3, 16, 12), "mask": mask})["mask"]
    np.testing.assert_array_equal(np.asarray(made), np.asarray(mask)[..., ::-1])


@pytest.mark.parametrize("fill", [-1, 0, 255, 2**60])
def test_large_integers_turn_as_small_ones_do(fill):
    mask = torch.randint(0, 9, (2, 16, 16))
    batch = {"image": torch.rand(2, 3, 16, 16), "mask": mask, "large": mask + 2**60}
    targets = {"mask": Target("mask", fill=-1), "large": Target("mask", fill=fill)}
    made = adaug.apply_view(batch, [(Rotate(-90, 90, 9), 33.0), (Translate(-1, 1, 9), 0.13)], targets=targets)
    expected = torch.where(made["mask"] == -1, fill, made["mask"] + 2**60)
    assert torch.equal(made["large"], expected)


@pytest.mark.parametrize("name", ["image", "mask", "keypoints"])
def test_masked_arrays_are_refused(name):
    sample = {
        "image": np.ones((3, 8, 8), np.float32),
        "mask": np.zeros((8, 8), np.uint8),
        "keypoints": np.ones((4, 2), np.float32),
    }
    masked = {**sample, name: np.ma.masked_array(sample[name], mask=sample[name] > 0.5)}
    with pytest.raises(TypeError, match=rf"'{name}' should hold a value everywhere. Found a masked array; use .filled"):
        Augment(FLIP.__class__((), (Flip(()),)), seed=0)(masked)
    Augment(Policy((), (Flip(()),)), seed=0)({**sample, name: masked[name].filled(0)})


@pytest.mark.parametrize(
    ("fill", "fits"),
    [(0, True), (128, True), (255, True), (255.0, True), (300, False), (0.5, False), (-1, False), (torch.nan, False)],
)
@pytest.mark.parametrize("form", ["tensor", "array", "picture"])
def test_images_of_integers_take_integers_as_fill(fill, fits, form):
    array = np.full((16, 16, 3), 200, np.uint8)
    pil = pytest.importorskip("PIL.Image")
    image = {"tensor": torch.from_numpy(array), "array": array, "picture": pil.fromarray(array)}[form]
    away = Augment(
        Policy([Branch("away", [Translate(0.4, 0.5, 2)], 1.0)]),
        seed=0,
        channels="last",
        targets={0: Target("image", fill=fill)},
    )
    if fits:
        assert set(np.unique(np.asarray(away((image,))[0])[:, :4])) == {int(fill)}
    else:
        with pytest.raises(ValueError, match=r"fill of 0 should be a number that its dtype holds, an integer from 0 to 255"):
            away((image,))


@pytest.mark.parametrize(
    ("dtype", "fill", "fits"), [(np.uint16, 65535, True), (np.uint16, 70000, False), (np.uint8, 256, False)]
)
def test_masks_take_what_their_dtype_holds(dtype, fill, fits):
    away = Augment(Policy([Branch("away", [Translate(0.4, 0.5, 2)], 1.0)]), seed=0, targets={"mask": Target("mask", fill=fill)})
    sample = {"image": np.ones((3, 16, 16), np.float32), "mask": np.zeros((16, 16), dtype)}
    if fits:
        assert away(sample)["mask"].max() == fill
    else:
        with pytest.raises(ValueError, match="fill of 'mask' should be a number that its dtype holds"):
            away(sample)

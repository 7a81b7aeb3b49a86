"""A preview shows the images of whatever holds them, with labels where they belong, and changes nothing."""

from __future__ import annotations

import collections
import io
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

import adaug
from adaug import plots
from adaug.augment import _TAKEN

matplotlib = pytest.importorskip("matplotlib")

N, SIDE = 5, 24
Named = collections.namedtuple("Named", ["image", "keypoints", "label"])
WHERE = torch.tensor([[3.0, 4.0], [17.0, 4.0], [9.0, 20.0]])  # of the keypoints in each image, moved by its number


def image(i: int) -> Tensor:
    """An image [3, H, W] in [0, 1] with a spot at each keypoint, and dark noise elsewhere."""
    spots = adaug.keypoints.render_heatmaps(points(i)[None], SIDE, sigma=1.5)[0]
    return (spots + 0.1 * torch.rand(3, SIDE, SIDE, generator=torch.Generator().manual_seed(i))).clamp(0, 1)


def points(i: int) -> Tensor:
    return WHERE + i / 4


def stacked(of: Callable[[int], Tensor]) -> Tensor:
    return torch.stack([of(i) for i in range(N)])


def sample(i: int) -> dict[str, Any]:
    return {"image": image(i), "keypoints": points(i), "label": torch.tensor(i)}


def batch() -> dict[str, Any]:
    return {"image": stacked(image), "keypoints": stacked(points), "label": torch.arange(N)}


def bytes_of(i: int) -> np.ndarray[Any, Any]:
    return (image(i) * 255).round().byte().permute(1, 2, 0).numpy()


class Held(Dataset[Any]):
    def __init__(self, make: Callable[[int], Any], n: int = N) -> None:
        self.make, self.n = make, n

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, i: int) -> Any:
        return self.make(i)


class Streamed(IterableDataset[Any]):
    def __iter__(self) -> Any:
        return (sample(i) for i in range(N))


BY_POSITION = {1: "keypoints"}
FLAT = {"points": adaug.Target("keypoints", rows="batch_idx"), "cls": adaug.Target("label", rows="batch_idx")}

# name -> (what holds the images, the targets that it needs)
HOLDERS: dict[str, tuple[Callable[[], Any], Any]] = {
    "a batch": (batch, None),
    "a tuple": (lambda: tuple(batch().values()), BY_POSITION),
    "a list": (lambda: list(batch().values()), BY_POSITION),
    "a named tuple": (lambda: Named(**batch()), BY_POSITION),
    "a nested batch": (
        lambda: {"inputs": batch()},
        {("inputs", name): name.rstrip("s") if name == "label" else name for name in batch()},
    ),
    "a mapping for each row": (lambda: [sample(i) for i in range(N)], None),
    "lists of a detector": (
        lambda: ([image(i) for i in range(N)], [{"keypoints": points(i), "label": torch.tensor(i)} for i in range(N)]),
        None,
    ),
    "flat objects": (
        lambda: {"image": stacked(image), "points": stacked(points), "batch_idx": torch.arange(N), "cls": torch.arange(N)},
        FLAT,
    ),
    "batches": (
        lambda: [{name: value[:3] for name, value in batch().items()}, *[{k: v[3:] for k, v in batch().items()}]],
        None,
    ),
    "a generator": (lambda: (sample(i) for i in range(N)), None),
    "a loader": (lambda: DataLoader(Held(sample), batch_size=2), None),
    "a loader with a worker": (lambda: DataLoader(Held(sample), batch_size=2, num_workers=1), None),
    "a stream": (Streamed, None),
    "mappings": (lambda: Held(sample), None),
    "tuples": (lambda: Held(lambda i: tuple(sample(i).values())), BY_POSITION),
    "tensors": (lambda: TensorDataset(*batch().values()), BY_POSITION),
    "numbers as labels": (lambda: Held(lambda i: (image(i), points(i), i)), BY_POSITION),
    "arrays of bytes": (lambda: Held(lambda i: {"image": bytes_of(i), "keypoints": points(i).numpy(), "label": i}), None),
    "a list of tuples": (lambda: [(bytes_of(i), points(i), i) for i in range(N)], BY_POSITION),
}


def shown(figure: Any) -> list[Any]:
    """The axes with an image, once the figure is drawn without a warning."""
    figure.savefig(io.BytesIO(), format="png")
    return [axis for axis in figure.axes if axis.images]


def dots(axis: Any) -> np.ndarray[Any, Any]:
    return np.concatenate([np.asarray(one.get_offsets()) for one in axis.collections])


@pytest.mark.parametrize("name", HOLDERS)
def test_images_come_with_their_labels_from_whatever_holds_them(name: str) -> None:
    make, targets = HOLDERS[name]
    axes = shown(plots.samples(make(), targets=targets))
    assert [axis.get_title() for axis in axes] == list(map(str, range(N)))
    for i, axis in enumerate(axes):
        np.testing.assert_allclose(axis.images[0].get_array(), image(i).permute(1, 2, 0), atol=3e-3)
        np.testing.assert_allclose(dots(axis), points(i), atol=1e-5)


LAST = {"arrays of bytes", "a list of tuples"}
TURN = adaug.Policy([adaug.Branch("all", [adaug.Rotate(80, 100, 2)], 1.0, learned=False)])
DRAWING: dict[str, Callable[[Any, str], Any]] = {
    "policy": lambda targets, name: TURN,
    "Augment": lambda targets, name: adaug.Augment(TURN, targets=targets, channels="last" if name in LAST else "first"),
    "augmenter": lambda targets, name: adaug.AdversarialAugmenter(TURN, targets=targets),
}


@pytest.mark.parametrize("name", HOLDERS)
@pytest.mark.parametrize("drawing", DRAWING)
def test_what_draws_views_moves_pixels_and_labels_alike(name: str, drawing: str) -> None:
    make, targets = HOLDERS[name]
    if drawing == "augmenter" and name in LAST:
        pytest.skip("a training gets batches of tensors")
    by = DRAWING[drawing](targets, name)
    axes = shown(plots.samples(make(), augment=by, targets=targets if drawing == "policy" else None))
    titles = [axis.get_title().split("\n") for axis in axes]
    assert [title[0] for title in titles] == list(map(str, range(N)))
    assert all(title[1].startswith("rotate") for title in titles)
    assert len({title[1] for title in titles}) > 1
    for i, axis in enumerate(axes):
        places, picture = dots(axis), np.asarray(axis.images[0].get_array())
        assert np.abs(places - points(i).numpy()).max() > 3
        for j, (x, y) in enumerate(places.round().astype(int)):
            assert picture[y, x, j] > 0.6, (i, j)


# ---- what is left alone


class Own(Dataset[Any]):
    """A data set that draws from everything that a user's may draw from."""

    def __init__(self, augment: adaug.Augment) -> None:
        self.augment = augment

    def __len__(self) -> int:
        return N

    def __getitem__(self, i: int) -> Any:
        drawn = torch.rand(()) + random.random() + np.random.rand()  # noqa: NPY002
        return self.augment({"image": (image(i) * drawn / 3).float(), "keypoints": points(i)})


def states() -> tuple[Any, ...]:
    return torch.get_rng_state().tolist(), random.getstate(), str(np.random.get_state())  # noqa: NPY002


@pytest.mark.parametrize("seed", [None, 3], ids=["seed of torch", "seed of its own"])
@pytest.mark.parametrize("loaded", [False, True], ids=["data set", "loader"])
def test_a_preview_changes_nothing_that_training_draws(seed: int | None, loaded: bool) -> None:
    def views(preview: bool) -> list[Tensor]:
        torch.manual_seed(1), random.seed(1), np.random.seed(1), _TAKEN.clear()  # noqa: NPY002
        data = Own(adaug.Augment(TURN, seed=seed))
        beside, generator = adaug.Augment(TURN, seed=seed), torch.Generator().manual_seed(1)
        loader = DataLoader(data, batch_size=2, shuffle=True, generator=generator)
        if preview:
            before = states()
            plots.samples(loader if loaded else data, 3, augment=beside)
            assert states() == before
        taken = [batch["keypoints"] for batch in loader]
        return [*taken, *(beside(sample(i))["keypoints"] for i in range(2))]

    plain, seen = views(False), views(True)
    assert all(torch.equal(a, b) for a, b in zip(plain, seen, strict=True))


@pytest.mark.parametrize("steps", [0, 2])
def test_a_preview_shows_what_an_augmenter_draws_now_and_leaves_it(steps: int) -> None:
    def after(preview: bool) -> list[Tensor]:
        torch.manual_seed(4)
        augmenter, drawn = adaug.AdversarialAugmenter(adaug.policies.robust(flip_pairs=[(0, 1)])), []
        for step in range(steps + 2):
            if preview and step == steps:
                previewed = [dots(axis) for axis in shown(plots.samples(batch(), augment=augmenter, seed=4))]
                plots.samples(Held(sample), augment=augmenter)
            drawn.append(augmenter.draw(batch())["keypoints"])
            augmenter.observe(difficulty=drawn[-1].mean((1, 2)))
            if preview and step == steps:
                np.testing.assert_allclose(previewed, drawn[-1], atol=1e-5)
        return drawn

    assert all(torch.equal(a, b) for a, b in zip(after(False), after(True), strict=True))


def test_an_augmenter_that_needs_the_model_is_drawn_evenly() -> None:
    axes = shown(plots.samples(batch(), augment=adaug.AdversarialAugmenter()))
    assert any("rotate" in axis.get_title() for axis in axes)


def test_batches_and_gradients_stay_as_they_are() -> None:
    given = batch() | {"image": stacked(image).requires_grad_()}
    copies = {name: value.detach().clone() for name, value in given.items()}
    plots.samples(given)
    assert all(torch.equal(value, copies[name]) for name, value in given.items())


def test_a_seed_repeats_what_is_drawn() -> None:
    def places(seed: int) -> np.ndarray[Any, Any]:
        return np.concatenate([dots(axis) for axis in shown(plots.samples(Held(sample), augment=TURN, seed=seed))])

    np.testing.assert_array_equal(places(0), places(0))
    assert not np.array_equal(places(0), places(1))


# ---- how many, and which


def test_samples_are_spread_over_a_data_set() -> None:
    axes = shown(plots.samples(Held(lambda i: (image(i % N), i), 1000), 4))
    assert [axis.get_title() for axis in axes] == ["0", "250", "500", "750"]


def test_no_more_is_read_than_is_shown() -> None:
    def endless() -> Any:
        i = 0
        while True:
            yield {name: value[: 2 + i] for name, value in batch().items()}
            i += 1

    assert len(shown(plots.samples(endless(), 6))) == 6


@pytest.mark.parametrize(
    ("data", "error", "pattern"),
    [
        ([], ValueError, "at least one image. Found none in list"),
        (Held(sample, 0), ValueError, "at least one image. Found none in Held"),
        (iter(()), ValueError, "at least one image"),
        ({"keypoints": torch.zeros(2, 3, 2)}, ValueError, "should hold an image. Found none among .*keypoints"),
        (Held(lambda i: {"label": i}), ValueError, r"should hold an image.*targets=\{key"),
        ({"image": torch.zeros(2, 3, 8, 8), "what": torch.zeros(2, 8)}, ValueError, "should have a kind.*'what'"),
        (torch.zeros(2, 3, 4, 8, 8), ValueError, "Found clips"),
        (7, TypeError, "`data` should be a batch, a DataLoader.*Found int"),
        ("path", TypeError, "`data` should be a batch.*Found str"),
        (Held(lambda i: i), TypeError, "a sample should be.*Found int"),
    ],
    ids=[
        "no list",
        "no data",
        "no batches",
        "no image",
        "no image in samples",
        "unknown",
        "clips",
        "number",
        "text",
        "numbers",
    ],
)
def test_what_cannot_be_shown_is_refused(data: Any, error: type[Exception], pattern: str) -> None:
    with pytest.raises(error, match=pattern):
        plots.samples(data)


@pytest.mark.parametrize("augment", [len, adaug.Augment(TURN, clips=True), "wide"], ids=["function", "clips", "text"])
def test_what_draws_no_views_is_refused(augment: Any) -> None:
    with pytest.raises(TypeError, match="`augment` should be a Policy, an Augment"):
        plots.samples(batch(), augment=augment)


@pytest.mark.parametrize(
    ("arguments", "error", "pattern"),
    [
        ({"n": 0}, ValueError, "`n` should be an integer of at least 1. Found 0"),
        ({"columns": 0}, ValueError, "`columns` should be"),
        ({"classes": [3]}, TypeError, "`classes` should be a list of the names of classes"),
        ({"limbs": [(0, 3)]}, ValueError, r"`limbs` should join keypoints from 0 to 2. Found \(0, 3\)"),
        ({"rest": "label"}, ValueError, "`rest` should be 'other', or None"),
    ],
    ids=["n", "columns", "classes", "limbs", "rest"],
)
def test_arguments_are_checked(arguments: dict[str, Any], error: type[Exception], pattern: str) -> None:
    with pytest.raises(error, match=pattern):
        plots.samples(batch(), **arguments)


# ---- how it looks


def extent_of(axis: Any, number: int) -> list[float]:
    return list(axis.images[number].get_extent())


@pytest.mark.parametrize("low_high", [(0, 1), (0.2, 0.6), (-1, 1), (-2, 2.5), (0, 255), (-9, 700)], ids=str)
def test_images_of_any_range_are_shown_alike(low_high: tuple[float, float]) -> None:
    low, high = low_high
    dark = torch.linspace(low, low + (high - low) / 4, SIDE * SIDE).reshape(1, SIDE, SIDE)
    light = torch.linspace(low, high, SIDE * SIDE).reshape(1, SIDE, SIDE)
    first, second = (np.asarray(axis.images[0].get_array()) for axis in shown(plots.samples([dark, light])))
    for picture in (first, second):
        assert picture.min() >= 0
        assert picture.max() <= 1
        assert (np.diff(picture.flatten()) > 0).all()
    assert first.max() == pytest.approx(second.min() + (second.max() - second.min()) / 4, abs=1e-5)
    if low_high != (0.2, 0.6):
        assert second.max() - second.min() > 0.85


def test_points_that_are_not_visible_are_hollow() -> None:
    one = {"image": image(0), "keypoints": points(0), "visibility": torch.tensor([1.0, 0.0, 1.0])}
    figure = plots.samples(one, numbers=True, limbs=[(0, 1), (0, 2)], left=[0], right=[1])
    (axis,) = shown(figure)
    assert [len(collection.get_facecolor()) for collection in axis.collections] == [1, 0, 1]
    assert len(axis.lines) == 1, "a limb to a joint that is not visible"
    assert [text.get_text() for text in axis.texts] == ["0", "1", "2"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["left", "right", "not visible"]


def test_boxes_lie_on_the_edges_of_pixels() -> None:
    boxes = torch.tensor([[2.0, 3.0, 12.0, 9.0], [0.0, 0.0, 0.0, 0.0], [0.0, 0.0, SIDE, SIDE]])
    one = {"image": image(0), "boxes": boxes, "labels": torch.tensor([1, 0, 2])}
    (axis,) = shown(plots.samples(one, classes=["none", "cat", "dog"]))
    corners = [(patch.get_xy(), patch.get_width(), patch.get_height()) for patch in axis.patches]
    assert corners == [((1.5, 2.5), 10, 6), ((-0.5, -0.5), SIDE, SIDE)]
    assert [text.get_text() for text in axis.texts] == ["cat", "dog"]
    assert axis.get_title() == ""


@pytest.mark.parametrize("stride", [1, 4])
@pytest.mark.parametrize("kind", ["mask", "masks", "heatmaps", "people"])
def test_maps_cover_the_image(kind: str, stride: int) -> None:
    side = SIDE // stride
    maps = torch.zeros(2, side, side) if kind in ("masks", "heatmaps") else torch.zeros(side, side)
    maps[..., 1, 2] = 1
    one = {"image": image(0), kind: maps.long() if kind == "mask" else maps}
    if kind == "mask" and stride == 4:
        pytest.skip("a mask has the size of its image")
    (axis,) = shown(plots.samples(one, targets={"people": "density"} if kind == "people" else None))
    over = np.asarray(axis.images[1].get_array())
    assert extent_of(axis, 1) == [-0.5, SIDE - 0.5, SIDE - 0.5, -0.5]
    assert over.shape == (side, side, 4)
    assert np.argwhere(over[..., 3] > 0).tolist() == [[1, 2]]


def test_masks_have_a_colour_for_each_class_and_grey_for_what_is_ignored() -> None:
    mask = torch.zeros(SIDE, SIDE, dtype=torch.uint8)
    mask[1, 1], mask[2, 2], mask[3, 3] = 1, 2, 255
    one = {"image": image(0), "mask": mask}
    (axis,) = shown(plots.samples(one, targets={"mask": adaug.Target("mask", fill=255)}))
    over = np.asarray(axis.images[1].get_array())
    assert np.argwhere(over[..., 3] > 0).tolist() == [[1, 1], [2, 2], [3, 3]]
    assert not np.allclose(over[1, 1], over[2, 2])
    assert np.ptp(over[3, 3, :3]) == 0


LABELS: dict[str, tuple[Any, str]] = {
    "a number": (2, "dog"),
    "a tensor": (torch.tensor(1), "cat"),
    "a class without a name": (torch.tensor(7), "7"),
    "a text": ("a cat", "a cat"),
    "one-hot": (torch.tensor([0, 1, 0]), "cat"),
    "several": (torch.tensor([0, 1, 1]), "cat, dog"),
    "mixed": (torch.tensor([0.25, 0.0, 0.75]), "none 0.25, dog 0.75"),
    "a value": (torch.tensor(0.5), "0.5"),
    "an array": (np.array(2), "dog"),
}


@pytest.mark.parametrize("name", LABELS)
def test_labels_stand_above(name: str) -> None:
    value, expected = LABELS[name]
    (axis,) = shown(plots.samples({"image": image(0), "label": value}, classes=["none", "cat", "dog"]))
    assert axis.get_title().replace("\N{NO-BREAK SPACE}", " ") == expected


def test_images_of_other_forms() -> None:
    from PIL import Image

    grey, tall = torch.rand(8, 12), torch.rand(3, 30, 10)
    for one in ([grey[None]], [Image.fromarray(bytes_of(0))], [(Image.fromarray(bytes_of(0)), 3)], [image(0), tall], tall):
        assert len(shown(plots.samples(one))) == (len(one) if isinstance(one, list) else 1)

"""Families of labels that once went wrong in silence: each gives an input, what is right, and a valid neighbour."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import reference
import torch
from torch import Tensor

import adaug
from adaug._batches.parse import parse
from adaug.apply import view_of
from adaug.operations import Geometric

Case = tuple[str, Callable[[], Any], Callable[[Any], str], Callable[[], Any] | None]  # what, act, what is wrong, a neighbour


class Tilt(Geometric):
    """A perspective that users write."""

    def __init__(self) -> None:
        super().__init__(-0.6, 0.6, 3)

    def matrix(self, magnitude: Tensor, size: Any) -> Tensor:
        made = torch.eye(3).repeat(len(magnitude), 1, 1)
        made[:, 2, 0], made[:, 2, 1] = magnitude / max(size), 0.4 * magnitude / max(size)
        return made


# ---- what the families share


def sizes(noise: Any, multiple: int = 1) -> tuple[int, int]:
    return multiple * int(noise.integers(12 // multiple + 1, 48 // multiple)), multiple * int(
        noise.integers(12 // multiple + 1, 48 // multiple)
    )


def views(noise: Any) -> list[tuple[Any, float]]:
    every = [
        (adaug.Rotate(-180, 180, 9), float(noise.choice([90, 180, noise.uniform(-180, 180)]))),
        (adaug.Scale(0.5, 2, 9), float(noise.uniform(0.6, 1.7))), (adaug.Translate(-1, 1, 9), float(noise.uniform(-0.4, 0.4))),
        (adaug.operations.Shear(-40, 40, 9), float(noise.uniform(-25, 25))), (Tilt(), float(noise.uniform(-0.6, 0.6))),
    ]  # fmt: skip
    return [every[i] for i in noise.permutation(5)[: noise.integers(1, 4)]]


def moved(batch: Any, pairs: Any, targets: Any = None) -> tuple[Any, Any]:
    """What a view makes of a batch, and its matrix in float64, scaled to 1 at the middle."""
    parsed = parse(batch, targets)
    view = view_of(parsed, pairs, parsed.size)
    matrix = reference.scaled(view.matrix[0].double().numpy(), parsed.size)  # type: ignore[index]
    return adaug.apply_view(batch, view, targets=targets), matrix


def differs(name: str, found: Any, expected: Any, slack: float, sure: Any = True) -> str:
    gap = np.abs(np.asarray(found, float) - expected) * sure
    return f"{name} differs by {np.nanmax(gap):.3g}" if gap.size and not np.nanmax(gap) <= slack else ""


def images(size: tuple[int, int], n: int = 2) -> Tensor:
    return torch.rand(n, 3, *size)


# ---- families


def maps(noise: Any) -> Case:
    """Items 1 and 2: layouts and strides."""
    size, kind = sizes(noise), str(noise.choice(["mask", "heatmaps", "density"]))
    stride, count = int(noise.integers(1, 7)), int(noise.integers(1, 7))
    layout = str(noise.choice(["fits", "ceil", "floor", "declared", "swapped", "last", "[H, W, 1]", "any"]))
    if layout == "fits":
        size = (size[0] // stride * stride or stride, size[1] // stride * stride or stride)
    small = tuple(-(-side // stride) if layout != "floor" else max(1, side // stride) for side in size)
    shape = {
        "swapped": (count, *small[::-1]),
        "last": (*small, count),
        "[H, W, 1]": (*size, 1),
        "any": tuple(noise.integers(1, 40, 3)),
    }.get(layout, (count, *small))
    value = torch.from_numpy(
        noise.integers(0, 9, (2, *shape)) if kind == "mask" else noise.random((2, *shape)).astype(np.float32)
    )
    declared = stride if layout == "declared" else None
    targets, pairs = {"it": adaug.Target(kind, stride=declared)}, views(noise)
    tells = declared or next((side / m for side, m in [(size[0], shape[1])] if m * size[1] == shape[2] * size[0]), None)

    def wrong(made: Any) -> str:
        found, matrix = made
        if found["it"].shape != value.shape or tells is None:
            return f"maps of {tuple(value.shape)} beside images of {size} became {tuple(found['it'].shape)}"
        small_matrix = reference.at_stride(matrix, tells)
        plane, got = value[0, 0].double().numpy(), found["it"][0, 0].double().numpy()
        if kind == "density":
            least, most = reference.stays(plane, matrix, shape[1:], tells)
            slack = 0.02 * plane.sum() + 1e-2
            return "" if least - slack <= got.sum() <= most + slack else f"a sum of {got.sum()}, not {least} to {most}"
        expected, sure = reference.warped(plane, small_matrix, shape[1:], 0 if kind == "mask" else 1)
        return differs("a map", got, expected, 1e-2, sure)

    right = torch.zeros(2, count, *size, dtype=value.dtype)
    batch, plain = {"image": images(size), "it": value}, {"image": images(size), "it": right}
    return (
        f"{kind} {tuple(value.shape)} beside images of {size}, {layout}, stride {stride}",
        lambda: moved(batch, pairs, targets),
        wrong,
        None if layout in ("fits", "declared") else lambda: moved(plain, pairs, {"it": kind}),
    )


def boxes(noise: Any) -> Case:
    """Item 3: edges in any unit and format, and their visible part."""
    size, n = sizes(noise), int(noise.integers(0, 6))
    unit, form = noise.choice(["pixels", "unit", "signed"]), str(noise.choice(["xyxy", "xywh", "cxcywh"]))
    least, whole = float(noise.choice([0, 0, 0.5])), np.array(size[::-1])
    low = noise.random((2, n, 2)) * whole
    high = low + noise.random((2, n, 2)) * 20

    def as_given(low: Any, high: Any) -> Any:
        a, b = ({"pixels": e, "unit": e / whole, "signed": 2 * e / whole - 1}[unit] for e in (low, high))
        return np.concatenate({"xyxy": [a, b], "xywh": [a, b - a], "cxcywh": [(a + b) / 2, b - a]}[form], -1)

    target = adaug.Target("boxes", unit=str(unit), format=form, min_visibility=least)
    pairs, value = views(noise), torch.from_numpy(as_given(low, high))

    def wrong(made: Any) -> str:
        edges = np.concatenate([low, high], -1)[0]
        expected, more, fewer = (reference.boxes(made[1], edges, size, part) for part in (least, least * 1.001, least * 0.999))
        before = (reference.depth(made[1], reference.corners_of(edges)) > 0.05).all(-1)[:, None]  # all of it, the observer
        sure = (np.abs(more - fewer) < 1e-9) & before
        return differs("a box", made[0]["it"][0], as_given(expected[:, :2], expected[:, 2:]), 2e-2, sure)

    return f"{form} {unit} {n} {least}", lambda: moved({"image": images(size), "it": value}, pairs, {"it": target}), wrong, None


def names(noise: Any) -> Case:
    """Item 4: coordinates and maps under names that say nothing of them."""
    size, n = sizes(noise), int(noise.integers(2, 5))
    name = str(noise.choice(["label", "labels", "class", "classes", "weights", "ids", "meta"]))
    shapes = [
        (68, 2),
        (136,),
        (int(noise.integers(1, 8)), 5),
        (4,),
        (3, 4),
        (2, 2, 2),
        size,
        (5, *size),
        (*size, 5),
        size[::-1],
    ]
    shape = shapes[noise.integers(len(shapes))]
    value = torch.from_numpy(noise.random((n, *shape)) * min(size)).to([torch.float32, torch.float64][noise.integers(2)])
    given = {"inner": value} if name == "meta" else value
    classes = torch.from_numpy(noise.integers(0, 1000, n))
    return (
        f"{name} {tuple(value.shape)}",
        lambda: moved({"image": images(size, n), name: given}, views(noise)),
        lambda made: "numbers that may be coordinates stayed",
        lambda: moved({"image": images(size, n), name: {"inner": classes} if name == "meta" else classes}, views(noise)),
    )  # fmt: skip


def sides(noise: Any) -> Case:
    """Item 5: pairs of entries."""
    size, k = sizes(noise), int(noise.integers(2, 9))
    order = noise.permutation(k)
    own = [tuple(map(int, order[2 * i : 2 * i + 2])) for i in range(noise.integers(0, k // 2 + 1))]
    kind = str(noise.choice(["keypoints", "mask", "ids", "heatmaps", "label"]))
    shape = {"keypoints": (2, k, 2), "mask": (2, k, *size), "ids": (2, *size), "heatmaps": (2, k, *size), "label": (2, 3)}[kind]
    integers = kind in ("mask", "ids", "label")
    value = torch.from_numpy(
        noise.integers(0, k, shape) if integers else noise.random(shape).astype(np.float32) * (min(size) - 1)
    )
    declared = bool(noise.integers(2))
    flip = [tuple(map(int, noise.permutation(3)[:2]))]
    batch = {"image": images(size), "keypoints": torch.rand(2, 3, 2) * (min(size) - 1), "it": value}
    form = "ids" if kind == "label" else None  # integers of 0 and 1 alone may be one-hot, too
    target = adaug.Target("mask" if kind == "ids" else kind, format=form, pairs=own if declared else None)
    augment = adaug.AdversarialAugmenter(adaug.Policy((), (adaug.Flip(flip, p=1.0),)), targets={"it": target})
    swap = np.arange(k)
    for left, right in own if declared else flip if kind == "heatmaps" and k > max(flip[0]) else []:
        swap[left], swap[right] = right, left

    def wrong(made: Any) -> str:
        x = value.numpy()
        if kind == "keypoints":
            expected = x[:, swap] * np.array([-1, 1]) + np.array([size[1] - 1, 0])
        elif kind in ("ids", "label"):
            expected = swap[x] if kind == "label" else swap[x][..., ::-1]
        else:
            expected = x[:, swap][..., ::-1]
        return differs(kind, made["it"], expected, 1e-2)

    def neighbour() -> Any:
        none = adaug.Target("mask" if kind == "ids" else kind, pairs=())
        return adaug.AdversarialAugmenter(augment.policy, targets={"it": none}).random(batch)

    what = f"{kind} of {k} with {own if declared else 'no pairs'} beside a flip with {flip}"
    return what, lambda: augment.random(batch), wrong, None if declared else neighbour


def flags(noise: Any) -> Case:
    """Item 6: third columns and visibilities."""
    size, k = sizes(noise), int(noise.integers(1, 7))
    points = noise.random((2, k, 2)) * np.array(size[::-1])
    kind = str(noise.choice(["flags", "depth", "fractions below 0", "NaN", "declared depth"]))
    third = {
        "flags": noise.integers(-1, 3, (2, k)).astype(float), "depth": noise.normal(0, 50, (2, k)) + 100.5,
        "declared depth": noise.normal(0, 50, (2, k)),
        "fractions below 0": -noise.uniform(0.01, 0.99, (2, k)), "NaN": np.full((2, k), np.nan),
    }[kind]  # fmt: skip
    value = torch.from_numpy(np.concatenate([points, third[..., None]], -1))
    target = adaug.Target("keypoints", format="xyz" if kind == "declared depth" else None)
    policy = adaug.Policy([adaug.Branch("v", [adaug.Rotate(-90, 90, 5), adaug.Scale(0.5, 2, 5)], 1.0, False)])
    augment = adaug.Augment(policy, seed=int(noise.integers(99)), targets={"it": target})
    batch = {"image": images(size), "it": value}

    def wrong(made: Any) -> str:
        found, view = made
        matrix = view.matrix[0].double().numpy()
        places = reference.points(matrix, points[0])
        if kind not in ("flags", "declared depth"):
            return f"{kind} was taken for a visibility"
        sure = np.abs((places + 0.5) % np.array(size[::-1]) - 0).min(-1) > 1e-2
        expected = np.where(reference.visible(places, size) | (third[0] < 1), third[0], 0) if kind == "flags" else third[0]
        return differs("a place", found["it"][0, :, :2], places, 1e-2) or differs(
            "a flag", found["it"][0, :, 2], expected, 1e-6, sure
        )

    plain = {"image": images(size), "it": value[..., :2]}
    return (
        kind,
        lambda: augment(batch, view=True),
        wrong,
        None if kind in ("flags", "declared depth") else lambda: augment(plain),
    )


def fields(noise: Any) -> Case:
    """Items 7 and 10: vectors under any view, a perspective too."""
    stride = int(noise.integers(1, 5))
    size = sizes(noise, stride)
    small, kept, count = (size[0] // stride, size[1] // stride), bool(noise.integers(2)), int(noise.integers(1, 3))
    value = torch.from_numpy(noise.normal(0, 1, (2, 2 * count, *small)))
    target, pairs = adaug.Target("vectors", unit="direction" if kept else None), views(noise)

    def wrong(made: Any) -> str:
        expected = reference.vectors(value[0, :2].numpy(), made[1], small, stride, kept)
        return differs("a vector", made[0]["it"][0, :2], expected, 5e-2)

    return f"{size} at {stride}", lambda: moved({"image": images(size), "it": value}, pairs, {"it": target}), wrong, None


def perspective(noise: Any) -> Case:
    """Item 10: pixels, points and masks."""
    size = sizes(noise)
    pairs, image = [(Tilt(), float(noise.uniform(-0.6, 0.6))), *views(noise)], images(size)
    points, mask = noise.random((2, 5, 2)) * np.array(size[::-1]), torch.from_numpy(noise.integers(0, 9, (2, *size)))

    def wrong(made: Any) -> str:
        found, matrix = made
        plane, _ = reference.warped(image[0, 0].double().numpy(), matrix, size, 1)
        ids, sure = reference.warped(mask[0].double().numpy(), matrix, size, 0)
        places = reference.points(matrix, points[0])
        near = np.abs(places).max(-1, keepdims=True) < 300
        return (
            differs("a pixel", found["image"][0, 0], plane, 2e-2) or differs("a mask", found["mask"][0], ids, 0, sure)
            or differs("a point", found["keypoints"][0], places, 2e-2, near)
        )  # fmt: skip

    return str(size), lambda: moved({"image": image, "keypoints": torch.from_numpy(points), "mask": mask}, pairs), wrong, None

"""Families of forms and layouts: channels, clips, objects of all images, dtypes. See `families`."""

from __future__ import annotations

from typing import Any

import numpy as np
import reference
import torch

import adaug
from attacks.families import Case, differs, images, sizes


def channels(noise: Any) -> Case:
    """Items 1 and 8: alpha and bands, first and last."""
    size, count, last = sizes(noise), int(noise.integers(1, 9)), bool(noise.integers(2))
    image = noise.random((*size, count) if last else (count, *size)).astype(np.float32)
    light = adaug.Policy([adaug.Branch("light", [adaug.Brightness(0.4, 0.6, 2)], 1.0, False)])
    where = str(noise.choice(["first", "last"]))
    augment = adaug.Augment(light, seed=0, channels=where)  # type: ignore[arg-type]
    alpha = {2: 1, 4: 3}.get(count)

    def wrong(made: Any) -> str:
        if (where == "last") != last or count > 4:
            return f"{count} channels, {'last' if last else 'first'}, were taken for colours, channels={where!r}"
        before, after = (x if last else np.moveaxis(x, 0, -1) for x in (image, made))
        if np.array_equal(before[..., 0], after[..., 0]):
            return "colours did not change"
        return "alpha changed" if alpha and not np.array_equal(before[..., alpha:], after[..., alpha:]) else ""

    plain = np.ones((*size, 3) if where == "last" else (3, *size), np.float32)
    valid = count <= 4 and (where == "last") == last
    return f"{image.shape} channels={where}", lambda: augment(image), wrong, None if valid else lambda: augment(plain)


def clips(noise: Any) -> Case:
    """Item 9: frames of one clip get one view, and what has two readings is asked for."""
    size, t = sizes(noise), int(noise.integers(5, 70))
    kind = str(noise.choice(["clip", "asked", "grey", "volume"]))
    turn = adaug.Policy([adaug.Branch("turn", [adaug.Rotate(20, 60, 4)], 1.0, False)])
    shape, label = {
        "clip": ((t, 3, *size), 1),
        "asked": ((t, 3, *size), 1),
        "grey": ((t, *size), torch.arange(t)),
        "volume": ((t, *size), 1),
    }[kind]
    sample = {"image": torch.rand(shape), "label": label}

    def wrong(made: Any) -> str:
        if kind != "clip":
            return f"{shape} was read without a question"
        matrix = made[1].matrix
        return "" if len(matrix) == t and torch.equal(matrix, matrix[:1].expand_as(matrix)) else "frames got different views"

    def neighbour() -> Any:
        return adaug.Augment(turn, seed=0)({"image": torch.rand(t, 1, *size), "label": torch.arange(t)})

    return (
        f"{kind} {shape}",
        lambda: adaug.Augment(turn, seed=0, clips=kind == "clip")(sample, view=True),
        wrong,
        None if kind == "clip" else neighbour,
    )


def flat(noise: Any) -> Case:
    """Item 13: objects move with the image that each names."""
    size, b, n = sizes(noise), int(noise.integers(2, 6)), int(noise.integers(1, 9))
    n = b if noise.integers(2) else n  # as many objects as images
    index, declared = noise.integers(0, b, n), bool(noise.integers(3))
    points = noise.random((n, 4, 2)) * np.array(size[::-1])
    name = str(noise.choice(["batch_idx", "image_index", "img_idx"]))
    batch = {"image": images(size, b), "keypoints": torch.from_numpy(points), name: torch.from_numpy(index)}
    targets = {"keypoints": adaug.Target("keypoints", rows=name if declared else None)}
    policy = adaug.Policy([adaug.Branch("turn", [adaug.Rotate(-90, 90, 9)], 1.0, False)])

    def wrong(made: Any) -> str:
        matrices = made[1].matrix.double().numpy()
        rows = index if declared or n != b or list(index) != list(range(b)) else range(b)
        expected = np.stack([reference.points(matrices[row], place) for row, place in zip(rows, points, strict=True)])
        return differs("an object", made[0]["keypoints"], expected, 1e-2)

    def act(given: Any = targets) -> Any:
        return adaug.Augment(policy, seed=0, targets=given)(batch, view=True)

    return (
        f"{n} objects of {b} images, rows={declared}",
        act,
        wrong,
        None if declared else lambda: act({"keypoints": adaug.Target("keypoints", rows=name)}),
    )


def forms(noise: Any) -> Case:
    """Items 11 and 14: dtypes, byte orders, masked and object arrays, fills."""
    size = sizes(noise)
    dtype = str(noise.choice(["<f4", ">f4", ">f8", "<i4", ">i8", "u1", "u2", "O", "masked", "<i2"]))
    place = np.floor(noise.random((4, 2)) * np.array(size[::-1]))
    value: Any = np.ma.masked_array(place, place > 3) if dtype == "masked" else place.astype(dtype)
    labels_ = noise.integers(2**53, 2**62, size)
    fill, image = noise.choice([0, 7, 255, 300, 0.5]), noise.integers(0, 255, (3, *size), dtype=np.uint8)
    augment = adaug.Augment(
        adaug.Policy((), (adaug.Flip((), p=1.0),)), seed=0, targets={"image": adaug.Target("image", fill=float(fill))}
    )
    bad = dtype in ("O", "masked") or fill in (300, 0.5)

    def wrong(made: Any) -> str:
        if bad:
            return f"{dtype} with a fill of {fill} was taken"
        expected = place * np.array([-1, 1]) + np.array([size[1] - 1, 0])
        return (
            differs("a point", made["keypoints"], expected, 1e-3)
            or ("" if np.array_equal(made["mask"], labels_[:, ::-1]) else "large integers changed")
            or ("" if np.array_equal(made["image"], image[..., ::-1]) else "the image changed")
        )  # fmt: skip

    def act(keypoints: Any = value, use: Any = augment) -> Any:
        return use({"image": image, "keypoints": keypoints, "mask": labels_})

    plain = adaug.Augment(augment.policy, seed=0)
    return f"{dtype} fill {fill}", act, wrong, (lambda: act(place, plain)) if bad else None

"""Articulated people drawn from a seed, with MPII's 16 joints: data for tests and for runs without a download."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from examples.datasets.painting import SKIN, capsule, dress, paint, random_colour, shaded
from examples.datasets.people import MPII, People
from examples.datasets.skeleton import POSES, Array, Poses, Skeleton, head_size, pose


def draw_people(
    n: int, *, size: int = 64, canvas: int = 96, poses: Literal["narrow", "wide"] = "narrow", seed: int = 0
) -> People:
    """Draws `n` people who fit into the central size x size of a canvas x canvas image. `pck_length` is MPII's head size.

    "narrow" people stand or walk. "wide" ones also bend, lie, and stand on their heads. Image i depends on the seed and on i,
    not on `n`.
    """
    if poses not in POSES:
        raise ValueError(f"`poses` should be one of {sorted(POSES)}. Found {poses!r}.")
    if not 16 <= size <= canvas:
        raise ValueError(f"`size` should be at least 16 and at most `canvas` = {canvas}. Found {size}.")
    if n < 0:
        raise ValueError(f"`n` should not be negative. Found {n}.")
    images = np.empty((n, 3, canvas, canvas), np.uint8)
    keypoints = np.empty((n, len(MPII), 2), np.float32)
    pck_length = np.empty(n, np.float32)
    for i in range(n):
        rng = np.random.default_rng([seed, sorted(POSES).index(poses), i])
        images[i], keypoints[i], pck_length[i] = _draw(rng, size, canvas, POSES[poses])
    return People(
        images=torch.from_numpy(images),
        keypoints=torch.from_numpy(keypoints),
        visibility=torch.ones(n, len(MPII)),
        pck_length=torch.from_numpy(pck_length),
        joints=MPII,
    )


def _draw(rng: np.random.Generator, size: int, canvas: int, poses: Poses) -> tuple[NDArray[np.uint8], Array, float]:
    """One image [3, canvas, canvas], its keypoints [16, 2] and head size."""
    factor = 3 if canvas <= 128 else 2  # supersampling is the antialiasing
    image = _background(rng, canvas * factor)
    painter = ImageDraw.Draw(image)
    skeleton = pose(rng, poses)
    scale, origin = _placement(rng, skeleton, size, canvas)
    if rng.random() < 0.35:
        away = np.array([rng.choice([-1, 1]) * rng.uniform(0.5, 0.8), rng.uniform(-0.3, 0.3)]) * size
        paint(
            painter,
            pose(rng, poses),
            dress(rng),
            scale * rng.uniform(0.5, 1.0) * factor,
            (origin + away) * factor - 0.5,
        )
    # Pillow, too, counts from the centre of the first pixel, here of a supersampled one.
    paint(painter, skeleton, dress(rng), scale * factor, origin * factor - 0.5)
    keypoints = skeleton.joints[:, :2] * scale + origin - 0.5  # (0, 0) is the centre of the first pixel, not its corner
    if rng.random() < 0.35:
        _occlude(rng, painter, (keypoints + 0.5) * factor, size * factor)
    pixels = np.asarray(image.reduce(factor), np.float32)
    pixels = (pixels - 128) * rng.uniform(0.7, 1.1) + 128
    pixels = pixels * rng.uniform(0.7, 1.15) * rng.uniform(0.93, 1.07, 3).astype(np.float32)
    pixels += rng.standard_normal(pixels.shape, np.float32) * np.float32(rng.uniform(1, 6))
    image_out = np.clip(pixels, 0, 255).astype(np.uint8).transpose(2, 0, 1)
    return image_out, keypoints, float(head_size(skeleton) * scale)


def _placement(rng: np.random.Generator, skeleton: Skeleton, size: int, canvas: int) -> tuple[float, Array]:
    """Pixels per body height, and the place of the skeleton's origin, so that the person fills the central crop."""
    points = np.concatenate([skeleton.joints, skeleton.hands, skeleton.toes])[:, :2]
    low, high = points.min(0) - 0.03, points.max(0) + 0.03
    longest = float((high - low).max())
    # A limit: a crouching person should not fill the crop, or its head would be twice as large as others'.
    scale = size * rng.uniform(0.8, 0.94) / max(longest, 0.72)
    slack = (size - (high - low) * scale) / 2
    centre = canvas / 2 + slack.clip(0, 0.1 * size) * rng.uniform(-0.8, 0.8, 2)
    return float(scale), centre - (low + high) / 2 * scale


def _background(rng: np.random.Generator, side: int) -> Image.Image:
    """A smooth scene with boxes, blobs, bars, and limbs that belong to nobody."""
    coarse = int(rng.integers(2, 6))
    base = np.array(random_colour(rng), np.float64) * 0.7 + 40
    grid = np.clip(base + rng.normal(0, 28, (coarse, coarse, 3)), 0, 255).astype(np.uint8)
    image = Image.fromarray(grid).resize((side, side), Image.Resampling.BILINEAR)
    painter = ImageDraw.Draw(image)
    if rng.random() < 0.6:
        horizon = side * rng.uniform(0.5, 0.85)
        painter.rectangle((0, horizon, side, side), fill=shaded(random_colour(rng), 0.7))
    for _ in range(rng.integers(2, 9)):
        x, y = rng.uniform(-0.1, 1.0, 2) * side
        w, h = rng.uniform(0.05, 0.4, 2) * side
        kind = rng.integers(4)
        colour = shaded(random_colour(rng), float(rng.uniform(0.6, 1.0)))
        if kind == 0:
            painter.rectangle((x, y, x + w, y + h), fill=colour, outline=shaded(colour, 0.7), width=3)
        elif kind == 1:
            painter.ellipse((x, y, x + w, y + h), fill=colour)
        elif kind == 2:
            painter.line((x, y, x + w - 0.2 * side, y + h), fill=colour, width=int(rng.integers(2, 10)))
        else:
            skin = SKIN[rng.integers(len(SKIN))] if rng.random() < 0.5 else colour
            start, end = np.array([x, y]), np.array([x, y]) + rng.normal(0, 0.15 * side, 2)
            capsule(painter, start, end, 0.035 * side, 0.02 * side, skin)
    return image


def _occlude(rng: np.random.Generator, painter: ImageDraw.ImageDraw, keypoints: Array, size: float) -> None:
    """Paints one or two things in front of a limb. Joints under them stay labelled, as in MPII."""
    for _ in range(rng.integers(1, 3)):
        x, y = keypoints[rng.choice([0, 1, 4, 5, 10, 11, 14, 15])] + rng.normal(0, 0.03 * size, 2)
        w, h = rng.uniform(0.05, 0.11, 2) * size
        colour = random_colour(rng)
        if rng.random() < 0.5:
            painter.rectangle((x - w, y - h, x + w, y + h), fill=colour, outline=shaded(colour, 0.7), width=3)
        else:
            painter.ellipse((x - w, y - h, x + w, y + h), fill=colour, outline=shaded(colour, 0.7), width=3)

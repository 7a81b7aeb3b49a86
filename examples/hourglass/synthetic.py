"""Articulated people drawn from a seed, with MPII's 16 joints: data for tests and for runs without a download.

A 3D skeleton is posed, projected without perspective and painted from far to near. Left and right can be told apart,
by face and hair and because everybody's left sleeve and trouser leg are the darker ones.
"""

from __future__ import annotations

import math
from colorsys import hsv_to_rgb
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from examples.hourglass.people import MPII, People

Array = NDArray[np.float64]
Colour = tuple[int, int, int]
Range = tuple[float, float]

# Rows of a frame: the directions left, up and forward of a body part. Image axes: x right, y down, z to the viewer.
LEFT, UP, FORWARD = 0, 1, 2
FACING_VIEWER: Array = np.array([[1.0, 0.0, 0.0], [0.0, -1.0, 0.0], [0.0, 0.0, 1.0]])

SKIN: tuple[Colour, ...] = (
    (255, 219, 188),
    (236, 188, 150),
    (206, 150, 110),
    (160, 108, 74),
    (110, 72, 50),
    (74, 48, 36),
)
HAIR: tuple[Colour, ...] = ((30, 24, 22), (62, 40, 26), (112, 74, 40), (196, 158, 92), (140, 60, 30), (150, 150, 150))
LEFT_SHADE = 0.66
RING = tuple((math.cos(angle * math.pi / 5), math.sin(angle * math.pi / 5)) for angle in range(10))


@dataclass(frozen=True)
class Poses:
    """Ranges in degrees of the joint angles; `rolls`, in-plane turns of the body, are (weight, centre, half-range)."""

    rolls: tuple[tuple[float, float, float], ...]
    bend: Range
    lean: Range
    arm_out: Range
    arm_forward: Range
    elbow: Range
    leg_out: Range
    leg_forward: Range
    knee: Range


POSES: dict[str, Poses] = {
    "narrow": Poses(
        rolls=((1.0, 0, 8),),
        bend=(-4, 12),
        lean=(-8, 8),
        arm_out=(4, 55),
        arm_forward=(-25, 40),
        elbow=(0, 80),
        leg_out=(1, 14),
        leg_forward=(-18, 28),
        knee=(0, 35),
    ),
    "wide": Poses(
        rolls=((0.5, 0, 25), (0.25, 60, 20), (0.25, -60, 20)),
        bend=(-20, 60),
        lean=(-25, 25),
        arm_out=(-5, 150),
        arm_forward=(-50, 130),
        elbow=(0, 130),
        leg_out=(0, 50),
        leg_forward=(-35, 80),
        knee=(0, 110),
    ),
}


@dataclass(frozen=True)
class Skeleton:
    """A posed body. `joints` [16, 3], `hands`, `toes` [2, 3] (right, left), in body heights; `head` a frame."""

    joints: Array
    hands: Array
    toes: Array
    head: Array


@dataclass(frozen=True)
class Garment:
    colour: Colour
    second: Colour
    pattern: str  # plain, stripes or checks
    period: float  # in body heights


@dataclass(frozen=True)
class Look:
    skin: Colour
    hair: Colour
    long_hair: bool
    shirt: Garment
    trousers: Garment
    shoes: Colour
    sleeve: float  # the share of the arm that is covered, 0 to 2: upper arm, then forearm
    leg: float  # the same of the leg
    girth: float


def draw_people(
    n: int, *, size: int = 64, canvas: int = 96, poses: Literal["narrow", "wide"] = "narrow", seed: int = 0
) -> People:
    """`n` people who fit the central size x size of a canvas x canvas image; `reference` is MPII's head size.

    "narrow" people stand or walk; "wide" ones also bend, lie, and stand on their heads. Image i depends on the seed
    and on i, not on `n`.
    """
    if poses not in POSES:
        raise ValueError(f"`poses` should be one of {sorted(POSES)}. Found {poses!r}.")
    if not 16 <= size <= canvas:
        raise ValueError(f"`size` should be at least 16 and at most `canvas` = {canvas}. Found {size}.")
    if n < 0:
        raise ValueError(f"`n` should not be negative. Found {n}.")
    images = np.empty((n, 3, canvas, canvas), np.uint8)
    keypoints = np.empty((n, len(MPII), 2), np.float32)
    reference = np.empty(n, np.float32)
    for i in range(n):
        rng = np.random.default_rng([seed, sorted(POSES).index(poses), i])
        images[i], keypoints[i], reference[i] = _draw(rng, size, canvas, POSES[poses])
    return People(
        images=torch.from_numpy(images),
        keypoints=torch.from_numpy(keypoints),
        visibility=torch.ones(n, len(MPII)),
        reference=torch.from_numpy(reference),
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
    keypoints = skeleton.joints[:, :2] * scale + origin - 0.5  # the first pixel's centre, not its corner, is (0, 0)
    if rng.random() < 0.35:
        _occlude(rng, painter, (keypoints + 0.5) * factor, size * factor)
    pixels = np.asarray(image.reduce(factor), np.float32)
    pixels = (pixels - 128) * rng.uniform(0.7, 1.1) + 128
    pixels = pixels * rng.uniform(0.7, 1.15) * rng.uniform(0.93, 1.07, 3).astype(np.float32)
    pixels += rng.standard_normal(pixels.shape, np.float32) * np.float32(rng.uniform(1, 6))
    image_out = np.clip(pixels, 0, 255).astype(np.uint8).transpose(2, 0, 1)
    return image_out, keypoints, float(head_size(skeleton) * scale)


def _placement(rng: np.random.Generator, skeleton: Skeleton, size: int, canvas: int) -> tuple[float, Array]:
    """Pixels per body height, and where the skeleton's origin lies, so that the person fills the central crop."""
    points = np.concatenate([skeleton.joints, skeleton.hands, skeleton.toes])[:, :2]
    low, high = points.min(0) - 0.03, points.max(0) + 0.03
    longest = float((high - low).max())
    # A crouching person would fill the crop too; but nobody should have twice the head of the one beside him.
    scale = size * rng.uniform(0.8, 0.94) / max(longest, 0.72)
    slack = (size - (high - low) * scale) / 2
    centre = canvas / 2 + slack.clip(0, 0.1 * size) * rng.uniform(-0.8, 0.8, 2)
    return float(scale), centre - (low + high) / 2 * scale


# -- posing ----------------------------------------------------------------------------------------------------------


def pose(rng: np.random.Generator, poses: Poses) -> Skeleton:
    """A body in a random pose, the pelvis at the origin."""

    def draw(limits: Range) -> float:
        # Twice uniform, averaged: most people are near the middle of a range, few at its ends.
        return float(rng.uniform(*limits) + rng.uniform(*limits)) / 2

    yaw = rng.choice([0.0, 180.0, 90.0, -90.0], p=[0.5, 0.2, 0.15, 0.15]) + rng.uniform(-35, 35)
    pelvis_frame = _turn(FACING_VIEWER, UP, yaw)
    chest = _turn(_turn(_turn(pelvis_frame, LEFT, draw(poses.bend)), FORWARD, draw(poses.lean)), UP, rng.uniform(-15, 15))
    head = _turn(_turn(_turn(chest, UP, rng.uniform(-35, 35)), LEFT, rng.uniform(-12, 20)), FORWARD, rng.uniform(-12, 12))
    build = rng.uniform(0.9, 1.1, 8)
    joints = np.zeros((16, 3))
    joints[7] = chest[UP] * 0.26 * build[0]
    joints[8] = joints[7] + (chest[UP] + 0.15 * chest[FORWARD]) * 0.055
    joints[9] = joints[8] + head[UP] * 0.155 * build[1]
    hands, toes = np.zeros((2, 3)), np.zeros((2, 3))
    for side, shoulder, elbow, wrist, hip, knee, ankle in ((-1, 12, 11, 10, 2, 1, 0), (1, 13, 14, 15, 3, 4, 5)):
        joints[shoulder] = joints[7] + chest[LEFT] * side * 0.098 * build[2] - chest[UP] * 0.012
        joints[hip] = pelvis_frame[LEFT] * side * 0.062 * build[3] - pelvis_frame[UP] * 0.01
        upper = _direction(chest, side, draw(poses.arm_out), draw(poses.arm_forward))
        inward = chest[FORWARD] + rng.uniform(-0.2, 0.8) * chest[UP] - rng.uniform(-0.3, 0.8) * side * chest[LEFT]
        fore = _fold(upper, inward, draw(poses.elbow))
        joints[elbow] = joints[shoulder] + upper * 0.165 * build[4]
        joints[wrist] = joints[elbow] + fore * 0.145 * build[5]
        thigh = _direction(pelvis_frame, side, draw(poses.leg_out), draw(poses.leg_forward))
        shank = _fold(thigh, -pelvis_frame[FORWARD] + 0.1 * pelvis_frame[UP], draw(poses.knee))
        joints[knee] = joints[hip] + thigh * 0.235 * build[6]
        joints[ankle] = joints[knee] + shank * 0.225 * build[7]
        index = (side + 1) // 2
        hands[index] = joints[wrist] + fore * 0.035
        foot = _fold(shank, pelvis_frame[FORWARD] + 0.25 * side * pelvis_frame[LEFT], 75)
        toes[index] = joints[ankle] + foot * 0.075 + shank * 0.015
    weights = np.array([roll[0] for roll in poses.rolls])
    _, centre, spread = poses.rolls[rng.choice(len(weights), p=weights / weights.sum())]
    spin = _turn(np.eye(3), 2, centre + rng.uniform(-spread, spread))
    return Skeleton(joints @ spin, hands @ spin, toes @ spin, head @ spin)


def _turn(frame: Array, axis: int, degrees: float) -> Array:
    """The frame turned about one of its own rows: the next row goes towards the one after it."""
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    first, second = (axis + 1) % 3, (axis + 2) % 3
    turned: Array = frame.copy()
    turned[first] = cos * frame[first] + sin * frame[second]
    turned[second] = cos * frame[second] - sin * frame[first]
    return turned


def _direction(frame: Array, side: int, outward: float, forward: float) -> Array:
    """A limb hanging down, lifted `forward` and then `outward` by these degrees."""
    out, ahead = np.radians(outward), np.radians(forward)
    swing = np.cos(ahead) * -frame[UP] + np.sin(ahead) * frame[FORWARD]
    direction: Array = np.cos(out) * swing + np.sin(out) * side * frame[LEFT]
    return direction


def _fold(direction: Array, towards: Array, degrees: float) -> Array:
    """The lower half of a limb: `direction` bent by `degrees` towards another direction."""
    normal = towards - (towards @ direction) * direction
    normal /= np.linalg.norm(normal) + 1e-9
    bent: Array = np.cos(np.radians(degrees)) * direction + np.sin(np.radians(degrees)) * normal
    return bent


def head_size(skeleton: Skeleton) -> float:
    """0.6 times the diagonal of the head's box, as MPII defines it, in body heights."""
    length = float(np.linalg.norm(skeleton.joints[9] - skeleton.joints[8]))
    return 0.6 * length * float(np.hypot(1.0, 0.8))


# -- painting --------------------------------------------------------------------------------------------------------


def dress(rng: np.random.Generator) -> Look:
    """Skin, hair and clothes."""

    def garment() -> Garment:
        pattern = str(rng.choice(["plain", "stripes", "checks"], p=[0.55, 0.3, 0.15]))
        return Garment(_colour(rng), _colour(rng), pattern, float(rng.uniform(0.03, 0.06)))

    return Look(
        skin=SKIN[rng.integers(len(SKIN))],
        hair=HAIR[rng.integers(len(HAIR))],
        long_hair=bool(rng.random() < 0.35),
        shirt=garment(),
        trousers=garment(),
        shoes=_shade(_colour(rng), 0.6),
        sleeve=float(rng.choice([0.0, 0.55, 1.0, 1.95], p=[0.1, 0.4, 0.1, 0.4])),
        leg=float(rng.choice([0.5, 0.9, 1.95], p=[0.2, 0.2, 0.6])),
        girth=float(rng.uniform(0.85, 1.25)),
    )


def paint(painter: ImageDraw.ImageDraw, skeleton: Skeleton, look: Look, scale: float, origin: Array) -> None:
    """Paint a body, far parts first; `scale` is pixels per body height, `origin` where the pelvis is."""
    joints, hands, toes = skeleton.joints * scale, skeleton.hands * scale, skeleton.toes * scale
    for points in (joints, hands, toes):
        points[:, :2] += origin
    unit = scale * look.girth
    parts: list[tuple[float, str, int]] = [(float(joints[[2, 3, 12, 13], 2].mean()), "torso", 0)]
    parts.append((float(joints[[8, 9], 2].mean()) + 0.02 * scale, "head", 0))
    for side, elbow, wrist, hip, knee in ((0, 11, 10, 2, 1), (1, 14, 15, 3, 4)):
        # In front view arms hang beside the body at its depth: they are nearer than what is behind them.
        parts.append((float(joints[[elbow, wrist], 2].mean()) + 0.03 * scale, "arm", side))
        parts.append((float(joints[[hip, knee], 2].mean()) - 0.03 * scale, "leg", side))
    for _, part, side in sorted(parts):
        shade = LEFT_SHADE if side else 1.0
        if part == "torso":
            _paint_torso(painter, joints, look, unit)
        elif part == "head":
            _paint_head(painter, joints, skeleton.head, look, scale)
        elif part == "arm":
            shoulder, elbow, wrist = ((12, 11, 10), (13, 14, 15))[side]
            _capsule(painter, joints[wrist], hands[side], 0.02 * unit, 0.024 * unit, look.skin)
            radii = (0.036 * unit, 0.028 * unit, 0.021 * unit)
            _limb(painter, joints[[shoulder, elbow, wrist]], radii, look.skin, look.shirt, look.sleeve, shade, unit)
        else:
            hip, knee, ankle = ((2, 1, 0), (3, 4, 5))[side]
            _capsule(painter, joints[ankle], toes[side], 0.027 * unit, 0.02 * unit, _shade(look.shoes, shade))
            radii = (0.056 * unit, 0.04 * unit, 0.027 * unit)
            _limb(painter, joints[[hip, knee, ankle]], radii, look.skin, look.trousers, look.leg, shade, unit)


def _limb(
    painter: ImageDraw.ImageDraw,
    joints: Array,
    radii: tuple[float, float, float],
    skin: Colour,
    garment: Garment,
    covered: float,
    shade: float,
    unit: float,
) -> None:
    """Two segments, the lower one first; the garment covers `covered` of them (0 to 2), a little wider."""
    for segment in (1, 0):
        start, end, thick, thin = joints[segment], joints[segment + 1], radii[segment], radii[segment + 1]
        _capsule(painter, start, end, thick, thin, skin)
        share = min(max(covered - segment, 0.0), 1.0)
        if share > 0:
            hem, width = start + share * (end - start), thick + share * (thin - thick)
            colour, second = _shade(garment.colour, shade), _shade(garment.second, shade)
            _capsule(painter, start, hem, thick * 1.12, width * 1.12, colour)
            _bands(painter, start, hem, thick, width, second, garment, unit)


def _bands(
    painter: ImageDraw.ImageDraw,
    start: Array,
    end: Array,
    thick: float,
    thin: float,
    colour: Colour,
    garment: Garment,
    unit: float,
) -> None:
    """Stripes across a segment, or squares that alternate between its two sides."""
    along = (end - start)[:2]
    length = math.hypot(*along)
    count = int(length / (garment.period * unit))
    if garment.pattern == "plain" or count < 1:
        return
    across = np.array([-along[1], along[0]]) / length
    for i in range(count):
        t0, t1 = (i + 0.25) / count, (i + 0.75) / count
        edges = (-1, 1) if garment.pattern == "stripes" else ((-1, 0) if i % 2 else (0, 1))
        corners = [
            start[:2] + t * along + edge * (thick + t * (thin - thick)) * across
            for t, edge in ((t0, edges[0]), (t0, edges[1]), (t1, edges[1]), (t1, edges[0]))
        ]
        painter.polygon([(float(x), float(y)) for x, y in corners], fill=colour)


def _paint_torso(painter: ImageDraw.ImageDraw, joints: Array, look: Look, unit: float) -> None:
    hips, shoulders = joints[[2, 3]], joints[[12, 13]]
    waist = 0.55 * hips + 0.45 * shoulders
    _hull(painter, np.concatenate([hips, 0.8 * hips + 0.2 * shoulders]), 0.058 * unit, look.trousers.colour)
    body = np.concatenate([shoulders, waist, 0.82 * hips + 0.18 * shoulders])
    _capsule(painter, joints[7], joints[8], 0.036 * unit, 0.032 * unit, look.skin)
    _hull(painter, body, 0.047 * unit, _shade(look.shirt.colour, 0.75))
    _hull(painter, body, 0.040 * unit, look.shirt.colour)
    middle = shoulders.mean(0), (0.8 * hips + 0.2 * shoulders).mean(0)
    half = float(np.linalg.norm((shoulders[0] - shoulders[1])[:2])) / 2 + 0.03 * unit
    _bands(painter, middle[0], middle[1], half, 0.85 * half, look.shirt.second, look.shirt, unit)
    if (joints[13, 0] - joints[12, 0]) * (joints[6, 1] - joints[7, 1]) > 0:
        # Only a chest has a neckline; a back has none.
        _disc(painter, joints[7] + 0.1 * (joints[6] - joints[7]), 0.03 * unit, look.skin)


def _paint_head(painter: ImageDraw.ImageDraw, joints: Array, frame: Array, look: Look, scale: float) -> None:
    """Skull, face and hair as discs placed in three dimensions, so that the face shows where the person looks."""
    neck, top = joints[8], joints[9]
    length = float(np.linalg.norm(top - neck))
    centre = neck + 0.56 * (top - neck)
    radius = 0.40 * length
    _capsule(painter, neck, centre, 0.03 * scale, 0.032 * scale, _shade(look.skin, 0.85))

    def at(left: float, up: float, forward: float) -> Array:
        spot: Array = centre + radius * (left * frame[LEFT] + up * frame[UP] + forward * frame[FORWARD])
        return spot

    pieces: list[tuple[Array, float, Colour]] = [
        (at(0, -0.32, 0.12), 0.74 * radius, look.skin),
        (at(0, 0.10, 0.10), 0.94 * radius, look.skin),
        (at(0, 0.22, -0.22), 1.0 * radius, look.hair),
        (at(0.93, -0.1, -0.05), 0.2 * radius, _shade(look.skin, 0.9)),
        (at(-0.93, -0.1, -0.05), 0.2 * radius, _shade(look.skin, 0.9)),
        (at(0, -0.15, 1.05), 0.17 * radius, _shade(look.skin, 0.82)),
        (at(0.36, 0.12, 0.92), 0.17 * radius, (25, 20, 20)),
        (at(-0.36, 0.12, 0.92), 0.17 * radius, (25, 20, 20)),
        (at(0.0, -0.58, 0.86), 0.16 * radius, (150, 50, 50)),
    ]
    if look.long_hair:
        pieces.append((at(0, -0.55, -0.55), 0.85 * radius, look.hair))
    for spot, size, colour in sorted(pieces, key=lambda piece: float(piece[0][2])):
        _disc(painter, spot, size, colour)


def _capsule(painter: ImageDraw.ImageDraw, start: Array, end: Array, thick: float, thin: float, colour: Colour) -> None:
    """A tapered, rounded bar: a dark rim, the colour, and a lighter core towards the upper left, where the light is."""
    ax, ay, bx, by = float(start[0]), float(start[1]), float(end[0]), float(end[1])
    length = math.hypot(bx - ax, by - ay) + 1e-9
    nx, ny = (ay - by) / length, (bx - ax) / length  # across the bar
    for grow, offset, tone in ((1.0, 0.0, 0.7), (0.82, 0.0, 1.0), (0.4, -0.25, 1.16)):
        fill = _shade(colour, tone)
        ra, rb, da, db = grow * thick, grow * thin, offset * thick, offset * thin
        x0, y0, x1, y1 = ax + da, ay + da, bx + db, by + db
        corners = (
            *(x0 + nx * ra, y0 + ny * ra, x1 + nx * rb, y1 + ny * rb),
            *(x1 - nx * rb, y1 - ny * rb, x0 - nx * ra, y0 - ny * ra),
        )
        painter.polygon(corners, fill=fill)
        painter.ellipse((x0 - ra, y0 - ra, x0 + ra, y0 + ra), fill=fill)
        painter.ellipse((x1 - rb, y1 - rb, x1 + rb, y1 + rb), fill=fill)


def _disc(painter: ImageDraw.ImageDraw, centre: Array, radius: float, colour: Colour) -> None:
    x, y = float(centre[0]), float(centre[1])
    painter.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)


def _hull(painter: ImageDraw.ImageDraw, points: Array, radius: float, colour: Colour) -> None:
    """The convex hull of discs of one radius, by Andrew's monotone chain."""
    cloud = sorted((x + radius * dx, y + radius * dy) for x, y in points[:, :2].tolist() for dx, dy in RING)
    chain: list[tuple[float, float]] = []
    for half in (cloud, cloud[::-1]):
        start = len(chain)
        for x, y in half:
            while len(chain) >= start + 2:
                (x0, y0), (x1, y1) = chain[-2], chain[-1]
                if (x1 - x0) * (y - y0) - (y1 - y0) * (x - x0) > 0:
                    break
                chain.pop()
            chain.append((x, y))
    painter.polygon(chain, fill=colour)


# -- surroundings ----------------------------------------------------------------------------------------------------


def _background(rng: np.random.Generator, side: int) -> Image.Image:
    """A smooth scene with things in it: boxes, blobs, bars, and limbs that belong to nobody."""
    coarse = int(rng.integers(2, 6))
    base = np.array(_colour(rng), np.float64) * 0.7 + 40
    grid = np.clip(base + rng.normal(0, 28, (coarse, coarse, 3)), 0, 255).astype(np.uint8)
    image = Image.fromarray(grid).resize((side, side), Image.Resampling.BILINEAR)
    painter = ImageDraw.Draw(image)
    if rng.random() < 0.6:
        horizon = side * rng.uniform(0.5, 0.85)
        painter.rectangle((0, horizon, side, side), fill=_shade(_colour(rng), 0.7))
    for _ in range(rng.integers(2, 9)):
        x, y = rng.uniform(-0.1, 1.0, 2) * side
        w, h = rng.uniform(0.05, 0.4, 2) * side
        kind = rng.integers(4)
        colour = _shade(_colour(rng), float(rng.uniform(0.6, 1.0)))
        if kind == 0:
            painter.rectangle((x, y, x + w, y + h), fill=colour, outline=_shade(colour, 0.7), width=3)
        elif kind == 1:
            painter.ellipse((x, y, x + w, y + h), fill=colour)
        elif kind == 2:
            painter.line((x, y, x + w - 0.2 * side, y + h), fill=colour, width=int(rng.integers(2, 10)))
        else:
            skin = SKIN[rng.integers(len(SKIN))] if rng.random() < 0.5 else colour
            start, end = np.array([x, y]), np.array([x, y]) + rng.normal(0, 0.15 * side, 2)
            _capsule(painter, start, end, 0.035 * side, 0.02 * side, skin)
    return image


def _occlude(rng: np.random.Generator, painter: ImageDraw.ImageDraw, keypoints: Array, size: float) -> None:
    """One or two things in front of a limb; the joints under them stay labelled, as they are in MPII."""
    for _ in range(rng.integers(1, 3)):
        x, y = keypoints[rng.choice([0, 1, 4, 5, 10, 11, 14, 15])] + rng.normal(0, 0.03 * size, 2)
        w, h = rng.uniform(0.05, 0.11, 2) * size
        colour = _colour(rng)
        if rng.random() < 0.5:
            painter.rectangle((x - w, y - h, x + w, y + h), fill=colour, outline=_shade(colour, 0.7), width=3)
        else:
            painter.ellipse((x - w, y - h, x + w, y + h), fill=colour, outline=_shade(colour, 0.7), width=3)


def _colour(rng: np.random.Generator) -> Colour:
    """A colour of random hue, from grey to strong, from dim to bright."""
    red, green, blue = hsv_to_rgb(rng.random(), rng.uniform(0, 0.85), rng.uniform(0.3, 1.0))
    return int(255 * red), int(255 * green), int(255 * blue)


def _shade(colour: Colour, factor: float) -> Colour:
    red, green, blue = colour
    return min(255, int(red * factor)), min(255, int(green * factor)), min(255, int(blue * factor))

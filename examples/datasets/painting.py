"""Dresses and paints a skeleton, the far limbs first.

Left and right can be told apart by face and hair, and because everybody's left sleeve and trouser leg are darker.
"""

from __future__ import annotations

import math
from colorsys import hsv_to_rgb
from dataclasses import dataclass

import numpy as np
from PIL import ImageDraw

from examples.datasets.skeleton import FORWARD, LEFT, UP, Array, Skeleton

Colour = tuple[int, int, int]

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
    sleeve: float  # how much of the arm is covered, 0 to 2: upper arm, then forearm
    leg: float  # the same for the leg
    girth: float


def dress(rng: np.random.Generator) -> Look:
    """Draws the colours of skin, hair and clothes."""

    def garment() -> Garment:
        pattern = str(rng.choice(["plain", "stripes", "checks"], p=[0.55, 0.3, 0.15]))
        return Garment(random_colour(rng), random_colour(rng), pattern, float(rng.uniform(0.03, 0.06)))

    return Look(
        skin=SKIN[rng.integers(len(SKIN))],
        hair=HAIR[rng.integers(len(HAIR))],
        long_hair=bool(rng.random() < 0.35),
        shirt=garment(),
        trousers=garment(),
        shoes=shaded(random_colour(rng), 0.6),
        sleeve=float(rng.choice([0.0, 0.55, 1.0, 1.95], p=[0.1, 0.4, 0.1, 0.4])),
        leg=float(rng.choice([0.5, 0.9, 1.95], p=[0.2, 0.2, 0.6])),
        girth=float(rng.uniform(0.85, 1.25)),
    )


def paint(painter: ImageDraw.ImageDraw, skeleton: Skeleton, look: Look, scale: float, origin: Array) -> None:
    """Paints a body, far parts first. scale: pixels per body height. origin: the place of the pelvis."""
    joints, hands, toes = skeleton.joints * scale, skeleton.hands * scale, skeleton.toes * scale
    for points in (joints, hands, toes):
        points[:, :2] += origin
    unit = scale * look.girth
    parts: list[tuple[float, str, int]] = [(float(joints[[2, 3, 12, 13], 2].mean()), "torso", 0)]
    parts.append((float(joints[[8, 9], 2].mean()) + 0.02 * scale, "head", 0))
    for side, elbow, wrist, hip, knee in ((0, 11, 10, 2, 1), (1, 14, 15, 3, 4)):
        # In a front view, arms hang beside the body at its depth, so they are nearer than parts behind them.
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
            capsule(painter, joints[wrist], hands[side], 0.02 * unit, 0.024 * unit, look.skin)
            radii = (0.036 * unit, 0.028 * unit, 0.021 * unit)
            _limb(painter, joints[[shoulder, elbow, wrist]], radii, look.skin, look.shirt, look.sleeve, shade, unit)
        else:
            hip, knee, ankle = ((2, 1, 0), (3, 4, 5))[side]
            capsule(painter, joints[ankle], toes[side], 0.027 * unit, 0.02 * unit, shaded(look.shoes, shade))
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
    """Paints two segments, the lower one first. A slightly wider garment covers `covered` of them (0 to 2)."""
    for segment in (1, 0):
        start, end, thick, thin = joints[segment], joints[segment + 1], radii[segment], radii[segment + 1]
        capsule(painter, start, end, thick, thin, skin)
        share = min(max(covered - segment, 0.0), 1.0)
        if share > 0:
            hem, width = start + share * (end - start), thick + share * (thin - thick)
            colour, second = shaded(garment.colour, shade), shaded(garment.second, shade)
            capsule(painter, start, hem, thick * 1.12, width * 1.12, colour)
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
    """Paints stripes across a segment, or squares that alternate between its two sides."""
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
    capsule(painter, joints[7], joints[8], 0.036 * unit, 0.032 * unit, look.skin)
    _hull(painter, body, 0.047 * unit, shaded(look.shirt.colour, 0.75))
    _hull(painter, body, 0.040 * unit, look.shirt.colour)
    middle = shoulders.mean(0), (0.8 * hips + 0.2 * shoulders).mean(0)
    half = float(np.linalg.norm((shoulders[0] - shoulders[1])[:2])) / 2 + 0.03 * unit
    _bands(painter, middle[0], middle[1], half, 0.85 * half, look.shirt.second, look.shirt, unit)
    if (joints[13, 0] - joints[12, 0]) * (joints[6, 1] - joints[7, 1]) > 0:
        # Only a chest has a neckline; a back has none.
        _disc(painter, joints[7] + 0.1 * (joints[6] - joints[7]), 0.03 * unit, look.skin)


def _paint_head(painter: ImageDraw.ImageDraw, joints: Array, frame: Array, look: Look, scale: float) -> None:
    """Paints skull, face and hair as discs in three dimensions, so that the face shows where the person looks."""
    neck, top = joints[8], joints[9]
    length = float(np.linalg.norm(top - neck))
    centre = neck + 0.56 * (top - neck)
    radius = 0.40 * length
    capsule(painter, neck, centre, 0.03 * scale, 0.032 * scale, shaded(look.skin, 0.85))

    def at(left: float, up: float, forward: float) -> Array:
        spot: Array = centre + radius * (left * frame[LEFT] + up * frame[UP] + forward * frame[FORWARD])
        return spot

    pieces: list[tuple[Array, float, Colour]] = [
        (at(0, -0.32, 0.12), 0.74 * radius, look.skin),
        (at(0, 0.10, 0.10), 0.94 * radius, look.skin),
        (at(0, 0.22, -0.22), 1.0 * radius, look.hair),
        (at(0.93, -0.1, -0.05), 0.2 * radius, shaded(look.skin, 0.9)),
        (at(-0.93, -0.1, -0.05), 0.2 * radius, shaded(look.skin, 0.9)),
        (at(0, -0.15, 1.05), 0.17 * radius, shaded(look.skin, 0.82)),
        (at(0.36, 0.12, 0.92), 0.17 * radius, (25, 20, 20)),
        (at(-0.36, 0.12, 0.92), 0.17 * radius, (25, 20, 20)),
        (at(0.0, -0.58, 0.86), 0.16 * radius, (150, 50, 50)),
    ]
    if look.long_hair:
        pieces.append((at(0, -0.55, -0.55), 0.85 * radius, look.hair))
    for spot, size, colour in sorted(pieces, key=lambda piece: float(piece[0][2])):
        _disc(painter, spot, size, colour)


def capsule(painter: ImageDraw.ImageDraw, start: Array, end: Array, thick: float, thin: float, colour: Colour) -> None:
    """Paints a tapered, rounded bar: a dark rim, the colour, and a lighter core towards the light at the upper left."""
    ax, ay, bx, by = float(start[0]), float(start[1]), float(end[0]), float(end[1])
    length = math.hypot(bx - ax, by - ay) + 1e-9
    nx, ny = (ay - by) / length, (bx - ax) / length  # across the bar
    for grow, offset, tone in ((1.0, 0.0, 0.7), (0.82, 0.0, 1.0), (0.4, -0.25, 1.16)):
        fill = shaded(colour, tone)
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


def random_colour(rng: np.random.Generator) -> Colour:
    """A colour of random hue, from grey to strong, from dim to bright."""
    red, green, blue = hsv_to_rgb(rng.random(), rng.uniform(0, 0.85), rng.uniform(0.3, 1.0))
    return int(255 * red), int(255 * green), int(255 * blue)


def shaded(colour: Colour, factor: float) -> Colour:
    red, green, blue = colour
    return min(255, int(red * factor)), min(255, int(green * factor)), min(255, int(blue * factor))

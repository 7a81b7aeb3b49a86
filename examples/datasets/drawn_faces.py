"""Faces drawn from a seed, with the 68 points of 300-W: data for tests and for runs without a download.

A head of 68 points in three dimensions gets proportions, an expression and a pose. It is projected without perspective, and
painted along its points.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from examples.datasets.painting import HAIR, SKIN, Colour, random_colour, shaded
from examples.datasets.people import People
from examples.datasets.w300 import W300, inter_ocular

Array = NDArray[np.float64]

# The right half of a frontal face, x y z: x to the image's right, y down, z to the viewer, 1 the width of the brows.
RIGHT: dict[int, tuple[float, float, float]] = {
    0: (-0.61, 0.22, -0.34), 1: (-0.60, 0.38, -0.30), 2: (-0.575, 0.53, -0.25), 3: (-0.53, 0.68, -0.18),
    4: (-0.46, 0.82, -0.10), 5: (-0.365, 0.94, -0.02), 6: (-0.25, 1.04, 0.05), 7: (-0.13, 1.11, 0.09), 8: (0, 1.135, 0.1),
    17: (-0.51, 0.10, -0.02), 18: (-0.43, 0.03, 0.05), 19: (-0.32, 0.005, 0.09), 20: (-0.21, 0.02, 0.12),
    21: (-0.105, 0.055, 0.14), 27: (0, 0.20, 0.13), 28: (0, 0.305, 0.19), 29: (0, 0.41, 0.25), 30: (0, 0.51, 0.31),
    31: (-0.125, 0.585, 0.15), 32: (-0.065, 0.61, 0.19), 33: (0, 0.625, 0.21),
    36: (-0.385, 0.225, 0), 37: (-0.315, 0.175, 0.06), 38: (-0.225, 0.175, 0.07), 39: (-0.15, 0.235, 0.05),
    40: (-0.225, 0.255, 0.06), 41: (-0.31, 0.255, 0.05),
    48: (-0.24, 0.79, 0.05), 49: (-0.15, 0.75, 0.11), 50: (-0.06, 0.728, 0.15), 51: (0, 0.74, 0.155),
    57: (0, 0.895, 0.14), 58: (-0.065, 0.888, 0.13), 59: (-0.155, 0.853, 0.1),
    60: (-0.205, 0.79, 0.06), 61: (-0.065, 0.777, 0.12), 62: (0, 0.782, 0.125), 66: (0, 0.805, 0.12),
    67: (-0.065, 0.803, 0.115),
}  # fmt: skip
BROWS, MOUTH, LOWER_LIP = range(17, 27), range(48, 68), [55, 56, 57, 58, 59, 65, 66, 67]
UPPER_LIDS, CORNERS = [37, 38, 43, 44], [48, 54, 60, 64]


def draw_faces(n: int, *, size: int = 64, canvas: int = 96, seed: int = 0) -> People:
    """Draws `n` faces. The box of the landmarks x 1.25 fills the central size x size of a canvas x canvas image.

    Points under hair, glasses or other things stay labelled. `pck_length` is the distance of the outer eye corners. Face i
    depends on the seed and on i, not on `n`.
    """
    if not 16 <= size <= canvas:
        raise ValueError(f"`size` should be at least 16 and at most `canvas` = {canvas}. Found {size}.")
    if n < 0:
        raise ValueError(f"`n` should not be negative. Found {n}.")
    images = np.empty((n, 3, canvas, canvas), np.uint8)
    points = np.empty((n, 68, 2), np.float32)
    for i in range(n):
        images[i], points[i] = _draw(np.random.default_rng([seed, i]), size, canvas)
    keypoints = torch.from_numpy(points)
    return People(torch.from_numpy(images), keypoints, torch.ones(n, 68), inter_ocular(keypoints), W300)


def frontal() -> Array:
    """The mean face, symmetric about x = 0. [68, 3]."""
    points = np.zeros((68, 3))
    for index, place in RIGHT.items():
        points[index] = place
    for right, left in W300.flip_pairs:
        side, other = (right, left) if right in RIGHT else (left, right)
        points[other] = points[side] * (-1, 1, 1)
    return points


# -- a head ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Head:
    """A posed head in image pixels: landmarks [68, 2], hairline and crown (from ear to ear), and the map from points of the
    unposed head, (x, y, z), to the image."""

    points: Array
    hairline: Array
    crown: Array
    matrix: Array  # [3, 2]
    origin: Array  # [2]

    def at(self, places: Array) -> Array:
        """Maps points [..., 3] of the unposed head to pixels."""
        result: Array = places @ self.matrix + self.origin
        return result

    @property
    def unit(self) -> float:
        """Pixels per unit of length."""
        return float(np.linalg.norm(self.matrix[1]))


def shape_face(rng: np.random.Generator) -> Array:
    """A head with random proportions and expression, [68, 3]."""
    face = frontal()
    vary = {name: float(np.clip(rng.normal(0, 1), -2, 2)) for name in ("wide", "jaw", "eyes", "apart", "nose", "lips", "mouth")}
    low = np.clip((face[:, 1] - 0.3) / 0.85, 0, 1)  # 0 at the eyes, 1 at the chin
    face[:17, 0] *= 1 + 0.07 * vary["jaw"] * low[:17] * (1 - low[:17]) * 4 + 0.03 * vary["wide"]
    face[:, 1] *= 1 + 0.03 * float(rng.normal())
    for eye in (range(36, 42), range(42, 48)):
        middle = face[eye].mean(0)
        face[eye] = middle + (face[eye] - middle) * (1 + 0.07 * vary["eyes"])
        face[eye, 0] += np.sign(middle[0]) * 0.015 * vary["apart"]
    face[27:36, 0] *= 1 + 0.12 * vary["nose"]
    face[28:36, 1] += 0.02 * float(rng.normal()) * np.linspace(0.3, 1, 8)
    face[MOUTH, 0] *= 1 + 0.07 * vary["mouth"]
    middle_y = face[[60, 64], 1].mean()
    face[MOUTH, 1] = middle_y + (face[MOUTH, 1] - middle_y) * (1 + 0.15 * vary["lips"])

    opened = float(rng.choice([0.0, rng.uniform(0.02, 0.22)], p=[0.5, 0.5]))
    face[LOWER_LIP, 1] += opened * np.array([0.8, 1, 1, 1, 0.8, 1, 1, 1])
    face[CORNERS, 1] += 0.35 * opened
    face[:17, 1] += 0.55 * opened * low[:17] ** 2
    smile = float(rng.uniform(-0.03, 0.075))
    face[CORNERS, 1] -= smile
    face[[49, 53, 55, 59], 1] -= 0.4 * smile
    face[CORNERS, 0] *= 1 + 1.5 * max(smile, 0)
    raised = float(rng.choice([0.0, rng.uniform(-0.035, 0.09)], p=[0.4, 0.6]))
    face[BROWS, 1] -= raised
    face[[20, 21, 22, 23], 1] += 0.5 * float(rng.uniform(-0.03, 0.04))
    face[UPPER_LIDS, 1] += float(rng.choice([rng.uniform(-0.015, 0.02), 0.055], p=[0.92, 0.08])) - 0.15 * raised
    return face


def pose_face(rng: np.random.Generator, face: Array, size: float, canvas: float) -> Head:
    """Turns the head a little to the side and up, rolls it in the image, and puts its landmarks' box in the centre."""
    yaw, pitch, roll = np.radians(np.clip(rng.normal(0, [14, 7, 12]), [-28, -12, -30], [28, 12, 30]))
    about_y = np.array([[np.cos(yaw), 0, -np.sin(yaw)], [0, 1, 0], [np.sin(yaw), 0, np.cos(yaw)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(pitch), np.sin(pitch)], [0, -np.sin(pitch), np.cos(pitch)]])
    about_z = np.array([[np.cos(roll), np.sin(roll), 0], [-np.sin(roll), np.cos(roll), 0], [0, 0, 1]])
    matrix = (about_y @ about_x @ about_z)[:, :2]
    flat = face @ matrix
    low, high = flat.min(0), flat.max(0)
    scale = size / 1.25 / float((high - low).max())
    origin = canvas / 2 - (low + high) / 2 * scale
    angle = np.linspace(np.pi, 0, 13)
    tops = rng.uniform([-0.30, -0.52], [-0.20, -0.40])
    across = abs(face[0, 0])
    hairline, crown = (
        np.stack([wide * across * np.cos(angle), 0.15 + (top - 0.15) * np.sin(angle) ** power, depth - 0.15 * np.sin(angle)], 1)
        for wide, top, power, depth in ((0.93, tops[0], 0.55, -0.05), (1.13, tops[1], 0.8, -0.3))
    )
    head = Head(flat * scale + origin, hairline, crown, matrix * scale, origin)
    return Head(head.points, head.at(hairline), head.at(crown), head.matrix, head.origin)


# -- painting --------------------------------------------------------------------------------------------------------


def _draw(rng: np.random.Generator, size: int, canvas: int) -> tuple[NDArray[np.uint8], Array]:
    """One image [3, canvas, canvas] and its points [68, 2]."""
    factor = 3 if canvas <= 128 else 2  # supersampling is the antialiasing
    head = pose_face(rng, shape_face(rng), size * factor, canvas * factor)
    image = _background(rng, canvas * factor)
    image = _paint_head(rng, image, head)
    if rng.random() < 0.3:
        _occlude(rng, ImageDraw.Draw(image), head)
    pixels = np.asarray(image.reduce(factor), np.float32)
    y, x = np.mgrid[-1 : 1 : canvas * 1j, -1 : 1 : canvas * 1j]
    angle, strength = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.35)
    light = 1 + strength * (np.cos(angle) * x + np.sin(angle) * y)  # a lamp at one side
    pixels = ((pixels - 128) * rng.uniform(0.75, 1.1) + 128) * rng.uniform(0.75, 1.1) * light[..., None]
    pixels = pixels * rng.uniform(0.93, 1.07, 3) + rng.standard_normal(pixels.shape) * rng.uniform(1, 6)
    # Until here the first pixel starts at 0; for points, its centre is (0, 0).
    return np.clip(pixels, 0, 255).astype(np.uint8).transpose(2, 0, 1), head.points / factor - 0.5


def _paint_head(rng: np.random.Generator, image: Image.Image, head: Head) -> Image.Image:
    points, unit = head.points, head.unit
    skin, hair = SKIN[rng.integers(len(SKIN))], HAIR[rng.integers(len(HAIR))]
    style = rng.choice(["short", "long", "bald", "fringe"], p=[0.4, 0.3, 0.1, 0.2])
    painter = ImageDraw.Draw(image)

    jaw = _curve(points[:17])
    outline = np.concatenate([jaw, _curve(head.hairline[::-1])])
    if style == "long":
        back = np.array([[s * x, y, -0.4] for s in (1, -1) for x, y in ((0.79, 0.4), (0.83, 0.8), (0.7, 1.2))])
        _polygon(painter, _curve(np.concatenate([head.crown, head.at(back[:3]), head.at(back[:2:-1])])), shaded(hair, 0.75))
    neck = head.at(np.array([[-0.36, 0.75, -0.3], [0.36, 0.75, -0.3], [0.4, 1.6, -0.3], [-0.4, 1.6, -0.3]]))
    shirt = np.array([[-0.4, 1.33, 0], [-1.3, 1.6, 0], [-1.7, 3, 0], [1.7, 3, 0], [1.3, 1.6, 0], [0.4, 1.33, 0], [0, 1.5, 0]])
    _polygon(painter, neck, shaded(skin, 0.72))
    _polygon(painter, head.at(shirt), random_colour(rng))
    for side in (-1, 1):
        ear = head.at(np.array([side * 0.63, 0.33, -0.36]))
        _ellipse(painter, ear, 0.085 * unit, 0.15 * unit, shaded(skin, 0.86))
    _polygon(painter, outline, skin)
    image = _shaded(image, outline, head, skin)
    painter = ImageDraw.Draw(image)

    if rng.random() < 0.25 and style != "long":
        _paint_beard(painter, points, shaded(_mixed(hair, skin, 0.5), 0.75))
    _paint_eyes(rng, painter, head, skin)
    _paint_nose(painter, head, skin)
    _paint_mouth(rng, painter, head, skin)
    bushy = 0.024 * unit * rng.uniform(0.8, 1.4)
    for brow, thick in ((points[17:22], [0.35, 1, 1.1, 1, 0.7]), (points[22:27], [0.7, 1, 1.1, 1, 0.35])):
        half = bushy * np.array(thick)[:, None] * _down(head)
        _polygon(painter, np.concatenate([_curve(brow - half), _curve(brow + half)[::-1]]), shaded(hair, 0.8))

    if style != "bald":
        line = head.hairline.copy()
        if style == "fringe":
            line[2:-2] += _down(head) * rng.uniform(0.02, 0.16) * unit
            line += rng.normal(0, 0.012 * unit, line.shape)
        _polygon(painter, np.concatenate([_curve(head.crown), _curve(line)[::-1]]), hair)
        for t in rng.uniform(0.1, 0.9, 5):  # a few strands
            k = t * (len(line) - 1)
            i = int(k)
            _line(painter, np.stack([head.crown[i], line[i]]) * 0.8 + line[i] * 0.2, shaded(hair, 1.35), 0.012 * unit)
    if rng.random() < 0.2:
        _paint_glasses(rng, painter, head)
    return image


def _shaded(image: Image.Image, outline: Array, head: Head, skin: Colour) -> Image.Image:
    """Shades the face: dark rims, eye sockets and sides of the nose; light cheeks, nose and forehead."""
    unit = head.unit
    face, dark, light = (Image.new("L", image.size) for _ in range(3))
    _polygon(ImageDraw.Draw(face), outline, 255)
    painter = ImageDraw.Draw(dark)
    _polygon(painter, outline, 120)
    _polygon(painter, outline.mean(0) + (outline - outline.mean(0)) * 0.86, 0)
    for x, y, wide, high, tone in (
        (0.27, 0.2, 0.17, 0.1, 110),
        (0.1, 0.45, 0.04, 0.16, 70),
        (0, 0.66, 0.16, 0.03, 110),
        (0, 0.97, 0.13, 0.02, 90),
    ):
        for side in (-1, 1):
            _ellipse(painter, head.at(np.array([side * x, y, 0.12])), wide * unit, high * unit, tone)
    painter = ImageDraw.Draw(light)
    for x, y, wide, high, tone in (
        (0.32, 0.52, 0.13, 0.1, 110),
        (0, 0.42, 0.03, 0.17, 150),
        (0, -0.05, 0.25, 0.09, 90),
        (0, 1.03, 0.1, 0.05, 80),
    ):
        for side in (-1, 1):
            _ellipse(painter, head.at(np.array([side * x, y, 0.15])), wide * unit, high * unit, tone)
    blur = ImageFilter.BoxBlur(0.05 * unit)
    for layer, factor in ((dark, 0.5), (light, 1.35)):
        strength = ImageChops.multiply(layer.filter(blur).filter(blur), face)
        image = Image.composite(Image.new("RGB", image.size, shaded(skin, factor)), image, strength)
    return image


def _paint_eyes(rng: np.random.Generator, painter: ImageDraw.ImageDraw, head: Head, skin: Colour) -> None:
    iris = shaded(((70, 45, 25), (60, 100, 140), (70, 110, 70), (110, 80, 40))[rng.integers(4)], float(rng.uniform(0.7, 1.1)))
    gaze = rng.uniform([-0.03, -0.008], [0.03, 0.008]) * head.unit
    for eye in (head.points[36:42], head.points[42:48]):
        rim = np.concatenate([_curve(eye[:4]), _curve(eye[[3, 4, 5, 0]])])
        _polygon(painter, rim, (238, 234, 230))
        opening = float(np.linalg.norm(eye[[1, 2]].mean(0) - eye[[4, 5]].mean(0)))
        radius = min(0.052 * head.unit, 0.62 * opening)
        centre = eye.mean(0) + gaze
        _ellipse(painter, centre, radius, radius, iris)
        _ellipse(painter, centre, 0.5 * radius, 0.5 * radius, (12, 10, 10))
        _ellipse(painter, centre - 0.35 * radius, 0.2 * radius, 0.2 * radius, (250, 250, 250))
        _line(painter, _curve(eye[:4]), shaded(skin, 0.25), 0.024 * head.unit)
        _line(painter, _curve(eye[[3, 4, 5, 0]]), shaded(skin, 0.55), 0.012 * head.unit)
        _line(painter, _curve(eye[:4]) - 0.05 * head.unit * _down(head), shaded(skin, 0.7), 0.012 * head.unit)


def _paint_nose(painter: ImageDraw.ImageDraw, head: Head, skin: Colour) -> None:
    points, unit = head.points, head.unit
    base = _curve(points[31:36])
    _line(painter, base + 0.01 * unit * _down(head), shaded(skin, 0.6), 0.022 * unit)
    for wing, inner in ((31, 32), (35, 34)):
        up = points[wing] - 0.075 * unit * _down(head)
        _line(
            painter,
            _curve(np.stack([up, points[wing] + 0.25 * (points[wing] - points[inner]), points[wing]])),
            shaded(skin, 0.68),
            0.016 * unit,
        )
        _ellipse(painter, points[inner] - 0.012 * unit * _down(head), 0.03 * unit, 0.017 * unit, shaded(skin, 0.4))
    tip = points[30]
    _ellipse(painter, tip, 0.035 * unit, 0.028 * unit, shaded(skin, 1.14))


def _paint_mouth(rng: np.random.Generator, painter: ImageDraw.ImageDraw, head: Head, skin: Colour) -> None:
    points, unit = head.points, head.unit
    red = ((190, 80, 80), (170, 60, 80), (160, 90, 80))[rng.integers(3)]
    lips = _mixed(red, skin, float(rng.uniform(0.2, 0.6)))
    upper = np.concatenate([_curve(points[48:55]), _curve(points[[64, 63, 62, 61, 60]])])
    lower = np.concatenate([_curve(points[[54, 55, 56, 57, 58, 59, 48]]), _curve(points[[60, 67, 66, 65, 64]])])
    inside = np.concatenate([_curve(points[60:65]), _curve(points[[64, 65, 66, 67, 60]])])
    _polygon(painter, inside, (62, 20, 24))
    gap = float(np.linalg.norm(points[66] - points[62]))
    if gap > 0.06 * unit:
        teeth = points[[60, 61, 62, 63, 64]]
        drop = np.array([0.0, 1, 1, 1, 0])[:, None] * min(0.35 * gap, 0.055 * unit) * _down(head)
        _polygon(painter, np.concatenate([_curve(teeth), _curve(teeth + drop)[::-1]]), (235, 230, 220))
        _ellipse(painter, points[66] - 0.1 * gap * _down(head), 0.08 * unit, 0.22 * gap, (150, 70, 75))
    _polygon(painter, lower, shaded(lips, 1.05))
    _polygon(painter, upper, shaded(lips, 0.86))
    _line(painter, _curve(points[60:65]), shaded(lips, 0.45), 0.014 * unit)
    _line(painter, _curve(points[[57 - 1, 57, 57 + 1]]) + 0.02 * unit * _down(head), shaded(skin, 0.75), 0.012 * unit)


def _paint_beard(painter: ImageDraw.ImageDraw, points: Array, colour: Colour) -> None:
    """Paints a beard along the jaw and around the mouth, and a moustache."""
    jaw = points[2:15]
    lip = points[[54, 53, 52, 51, 50, 49, 48]]
    up = (points[33] - points[51]) * 0.55
    inner = np.concatenate(
        [(points[13] * 0.55 + points[54] * 0.45)[None], lip + up, (points[3] * 0.55 + points[48] * 0.45)[None]]
    )
    _polygon(painter, np.concatenate([_curve(jaw), _curve(inner)]), colour)


def _paint_glasses(rng: np.random.Generator, painter: ImageDraw.ImageDraw, head: Head) -> None:
    unit, colour = head.unit, shaded(random_colour(rng), 0.4)
    centres = [head.points[36:42].mean(0), head.points[42:48].mean(0)]
    angle = np.linspace(0, 2 * np.pi, 24)
    across, down = head.matrix[0] / unit, _down(head)
    squareness, dark = rng.uniform(0.5, 1), rng.random() < 0.3
    for centre in centres:
        x, y = (np.sign(f(angle)) * np.abs(f(angle)) ** squareness for f in (np.cos, np.sin))
        rim = centre + unit * (0.19 * x[:, None] * across + 0.13 * y[:, None] * down)
        if dark:
            _polygon(painter, rim, (25, 25, 30))
        _line(painter, rim, colour, 0.03 * unit)
    _line(painter, np.stack([centres[0] + 0.19 * unit * across, centres[1] - 0.19 * unit * across]), colour, 0.03 * unit)
    for centre, side in zip(centres, (-1, 1), strict=True):
        _line(
            painter,
            np.stack([centre + side * 0.19 * unit * across, head.at(np.array([side * 0.62, 0.22, -0.3]))]),
            colour,
            0.025 * unit,
        )


def _occlude(rng: np.random.Generator, painter: ImageDraw.ImageDraw, head: Head) -> None:
    """Paints a hand, a cup or a card in front of a part of the face. Points under it stay labelled."""
    x, y = head.points[rng.choice([4, 8, 12, 19, 24, 48, 54, 57])] + rng.normal(0, 0.08 * head.unit, 2)
    kind = rng.integers(3)
    if kind == 0:  # fingers
        skin, away = SKIN[rng.integers(len(SKIN))], rng.uniform(-0.5, 0.5)
        for i in range(4):
            start = np.array([x, y]) + (i - 1.5) * 0.1 * head.unit * np.array([np.cos(away), np.sin(away)])
            end = start + 0.9 * head.unit * np.array([-np.sin(away), np.cos(away)])
            _line(painter, np.stack([start, end]), shaded(skin, 0.65), 0.11 * head.unit)
            _line(painter, np.stack([start, end]), skin, 0.085 * head.unit)
        return
    wide, high = rng.uniform(0.1, 0.24, 2) * head.unit
    colour = random_colour(rng)
    draw = painter.ellipse if kind == 1 else painter.rectangle
    draw((x - wide, y - high, x + wide, y + high), fill=colour, outline=shaded(colour, 0.6), width=3)


def _background(rng: np.random.Generator, side: int) -> Image.Image:
    """A smooth scene with boxes, blobs and bars in it."""
    coarse = int(rng.integers(2, 6))
    base = np.array(random_colour(rng)) * 0.7 + 40
    grid = np.clip(base + rng.normal(0, 28, (coarse, coarse, 3)), 0, 255).astype(np.uint8)
    image = Image.fromarray(grid).resize((side, side), Image.Resampling.BILINEAR)
    painter = ImageDraw.Draw(image)
    for _ in range(rng.integers(2, 9)):
        x, y = rng.uniform(-0.1, 1.0, 2) * side
        wide, high = rng.uniform(0.05, 0.4, 2) * side
        kind, colour = rng.integers(3), shaded(random_colour(rng), float(rng.uniform(0.5, 1.0)))
        if kind == 0:
            painter.rectangle((x, y, x + wide, y + high), fill=colour, outline=shaded(colour, 0.7), width=3)
        elif kind == 1:
            painter.ellipse((x, y, x + wide, y + high), fill=colour)
        else:
            painter.line((x, y, x + wide - 0.2 * side, y + high), fill=colour, width=int(rng.integers(2, 10)))
    return image


# -- strokes ---------------------------------------------------------------------------------------------------------


def _curve(points: Array, steps: int = 5) -> Array:
    """A smooth line through points [n, 2] (Catmull and Rom), with `steps` pieces between neighbours."""
    padded = np.concatenate([2 * points[:1] - points[1:2], points, 2 * points[-1:] - points[-2:-1]])
    a, b, c, d = (padded[i : len(padded) - 3 + i, None] for i in range(4))  # [n - 1, 1, 2] each
    t = np.arange(steps)[:, None] / steps
    pieces = 0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
    return np.concatenate([pieces.reshape(-1, 2), points[-1:]])


def _down(head: Head) -> Array:
    """The direction from forehead to chin, of length 1."""
    direction: Array = head.matrix[1] / np.linalg.norm(head.matrix[1])
    return direction


# Pillow counts from the centre of the first pixel, the head from its corner.
def _polygon(painter: ImageDraw.ImageDraw, points: Array, colour: Colour | int) -> None:
    painter.polygon([(x, y) for x, y in (points - 0.5).tolist()], fill=colour)


def _ellipse(painter: ImageDraw.ImageDraw, centre: Array, wide: float, high: float, colour: Colour | int) -> None:
    x, y = centre[0] - 0.5, centre[1] - 0.5
    painter.ellipse((x - wide, y - high, x + wide, y + high), fill=colour)


def _line(painter: ImageDraw.ImageDraw, points: Array, colour: Colour, width: float) -> None:
    """A line with round ends."""
    painter.line([(x, y) for x, y in (points - 0.5).tolist()], fill=colour, width=max(1, round(width)), joint="curve")
    for end in (points[0], points[-1]):
        _ellipse(painter, end, width / 2, width / 2, colour)


def _mixed(a: Colour, b: Colour, share: float) -> Colour:
    """Mixes colours: `share` of b, the rest of a."""
    red, green, blue = ((1 - share) * x + share * y for x, y in zip(a, b, strict=True))
    return int(red), int(green), int(blue)

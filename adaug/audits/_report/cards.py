"""The weakest cases of an audit as cards: the image, with the truth and the prediction drawn over it."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from adaug.audits._report.numbers import Numbers, minus
from adaug.audits.plan import AS_IT_IS
from adaug.audits.records import Picture
from adaug.audits.table import Table

LARGEST = 320  # pixels of a side: about as wide as a card
BYTES = 40_000  # of an image, so that twelve stay below 1 MB; a PNG if it is small enough, else a JPEG
OUTLINE = 12_000  # characters
PIXELATED = 128  # images with fewer pixels appear as squares, as the network saw them

Pixels = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Card:
    """What the page shows of one case.

    Attributes:
        image: The number of the image.
        view: The name of its worst view.
        source: The image as a data URI.
        alt: A description, for readers who do not see the image.
        size: (width, height) in pixels, as the network saw it.
        overlay: The inside of an SVG over the image. May be empty.
        classes: Such as "true class 6, predicted 4". Empty without labels.
        scores: Pairs (name, score): under this view, and otherwise.
        pixelated: Whether to show single pixels, because the image is small.
    """

    image: int
    view: str
    source: str
    alt: str
    size: tuple[int, int]
    overlay: str
    classes: str
    scores: tuple[tuple[str, str], ...]
    pixelated: bool


def cards(audit: Table, before: Table | None, numbers: Numbers) -> list[Card]:
    """The cards of an audit. With `before`, a card also has the earlier score under the same view."""
    table, plain = audit.table(), audit.columns(AS_IT_IS)[0]
    made = []
    for picture in audit.pictures:
        height, width = picture.pixels.shape[:2]
        view = minus(audit.detail(audit.views[picture.view]))
        scores = [("here", _score(table[picture.image, picture.view], audit, numbers))]
        if before is not None:
            scores.append(("here before", _score(before.table()[picture.image, picture.view], audit, numbers)))
        if picture.view != plain:
            scores.append((AS_IT_IS, _score(table[picture.image, plain], audit, numbers)))
        classes = _classes(picture)
        alt = f"Image {picture.image} as the network saw it, {view}: score {scores[0][1]}{'; ' + classes if classes else ''}"
        made.append(
            Card(
                picture.image,
                view,
                encoded(picture.pixels),
                alt,
                (width, height),
                _mask_overlay(picture) + _keypoint_overlay(picture),
                classes,
                tuple(scores),
                max(width, height) < PIXELATED,
            )
        )
    return made


def _score(value: float, audit: Table, numbers: Numbers) -> str:
    if numbers.shares and audit.scores.ndim == 2 and value in (0, 1):
        return "right" if (value == 1) == (audit.higher_is_better) else "wrong"
    return numbers.value(float(value))


def encoded(pixels: Pixels) -> str:
    """[H, W, 3] uint8 -> a data URI: PNG if it is small, else JPEG."""
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(pixels, dtype=np.uint8))
    image.thumbnail((LARGEST, LARGEST))
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    kind = "png"
    for quality in (88, 75, 60):
        if file.tell() <= BYTES:
            break
        file, kind = io.BytesIO(), "jpeg"
        image.save(file, "JPEG", quality=quality, optimize=True)
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode('ascii')}"


# ---- overlays


def _keypoint_overlay(picture: Picture) -> str:
    """True points as circles, predicted ones as crosses, and a line from one to the other."""
    true, predicted = (_points(part) for part in (picture.labels, picture.predictions))
    if true is None:
        return ""
    visible = np.asarray(picture.labels.get("visible", np.ones(len(true))), dtype=bool).flatten()
    scale = max(picture.pixels.shape[:2])
    r = (0.016 if len(true) <= 30 else 0.010) * scale
    lines, circles, crosses = [], [], []
    for i, ((x, y), counts) in enumerate(zip(true, visible, strict=True)):
        if not (counts and math.isfinite(x) and math.isfinite(y)):
            continue
        circles.append(f"M{x - r:.2f} {y:.2f}a{r:.2f} {r:.2f} 0 1 0 {2 * r:.2f} 0a{r:.2f} {r:.2f} 0 1 0 {-2 * r:.2f} 0")
        if predicted is not None and i < len(predicted) and np.isfinite(predicted[i]).all():
            u, v = predicted[i]
            lines.append(f"M{x:.2f} {y:.2f}L{u:.2f} {v:.2f}")
            crosses.append(f"M{u - r:.2f} {v - r:.2f}l{2 * r:.2f} {2 * r:.2f}m0 {-2 * r:.2f}l{-2 * r:.2f} {2 * r:.2f}")
    drawn = {"join": lines, "true": circles, "predicted": crosses}
    return "".join(_path(name, "".join(shapes)) for name, shapes in drawn.items())


def _points(part: Mapping[str, Pixels]) -> Pixels | None:
    if "keypoints" not in part:
        return None
    return np.asarray(part["keypoints"], dtype=float).reshape(-1, 2) + 0.5  # (0, 0) is the centre of the first pixel


def _mask_overlay(picture: Picture) -> str:
    """The outlines of both masks."""
    height, width = picture.pixels.shape[:2]
    drawn = ""
    for name, part in (("true", picture.labels), ("predicted", picture.predictions)):
        if "mask" in part:
            drawn += _path(name, outline(_classes_of(part["mask"]), width, height))
    return drawn


def _classes_of(mask: Pixels) -> Pixels:
    """[h, w], [1, h, w] or scores [C, h, w] -> the class of each pixel."""
    mask = np.asarray(mask)
    if mask.ndim > 2:
        mask = mask.reshape(-1, *mask.shape[-2:])
        mask = mask[0] if len(mask) == 1 else mask.argmax(0)
    return np.rint(np.nan_to_num(mask.astype(float))).astype(int)


def outline(mask: Pixels, width: int, height: int) -> str:
    """The edges between classes as the data of an SVG path. Coarser if it would be long."""
    step = 1
    while True:
        coarse = mask[::step, ::step]
        x, y = width / mask.shape[1] * step, height / mask.shape[0] * step
        steps = [f"M{a * x:.4g} {i * y:.4g}h{(b - a) * x:.4g}" for i, a, b in _edges(coarse)]
        steps += [f"M{i * x:.4g} {a * y:.4g}v{(b - a) * y:.4g}" for i, a, b in _edges(coarse.T)]
        path = "".join(steps)
        if len(path) <= OUTLINE or min(coarse.shape) < 8:
            return path
        step *= 2


def _edges(mask: Pixels) -> list[tuple[int, int, int]]:
    """(row, from, to) of each straight edge between a row and the one above it."""
    found = []
    for i in range(1, len(mask)):
        differs = np.concatenate([[False], mask[i] != mask[i - 1], [False]]).astype(int)
        turns = np.flatnonzero(np.diff(differs))
        found += [(i, int(a), int(b)) for a, b in zip(turns[::2], turns[1::2], strict=True)]
    return found


def _path(name: str, data: str) -> str:
    """A line over a dark one, so that it is visible on any image."""
    if not data:
        return ""
    under = "" if name == "join" else f'<path class="under" d="{data}"/>'
    return f'{under}<path class="{name}" d="{data}"/>'


def _classes(picture: Picture) -> str:
    true, predicted = (_class_name(part.get("label")) for part in (picture.labels, picture.predictions))
    return ", ".join(f"{word} {name}" for word, name in (("true class", true), ("predicted", predicted)) if name)


def _class_name(label: Pixels | None) -> str:
    """ "6", or "0, 2, 5" if several are true."""
    if label is None:
        return ""
    values = np.asarray(label).flatten()
    if len(values) == 1:
        return f"{float(values[0]):g}"
    chosen = [str(i) for i in np.flatnonzero(values > 0.5)]
    return ", ".join(chosen[:5]) + (", …" if len(chosen) > 5 else "")

"""Writes predictions to files: as JSON, and as the .mat for MPII's evaluation server."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.io import savemat  # type: ignore[import-untyped, unused-ignore]

from examples.datasets.cropping import Array
from examples.datasets.mpii import Annotation, Release
from examples.datasets.people import MPII


def write_json(path: str | Path, predicted: Array, people: Sequence[Annotation]) -> None:
    """Writes joints [N, 16, 2] with the people that they belong to. Pixels of the photographs; (0, 0) is a pixel's centre."""
    _check(predicted, people)
    rows = [
        {"image": person.image, "source": person.source, "joints": np.round(points, 3).tolist()}
        for person, points in zip(people, predicted, strict=True)
    ]
    content = {"coordinates": "pixels, (0, 0) the centre of the first", "joints": list(MPII.names), "people": rows}
    Path(path).write_text(json.dumps(content) + "\n")


def write_server_file(path: str | Path, predicted: Array, people: Sequence[Annotation], release: Release) -> None:
    """Writes `pred`: a struct for each test image as in the official file, with the joints [N, 16, 2] of all separated people.

    The server counts pixels from 1 and joints from 0. It wants the name `pred_keypoints_mpii.mat`.
    """
    _check(predicted, people)
    joints = {person.source: points for person, points in zip(people, predicted, strict=True)}
    test = np.flatnonzero(~release.train)
    rectangles: dict[int, dict[int, Annotation]] = {int(image): {} for image in test}
    for person in release.people:
        if person.is_test and person.source:
            rectangles[person.source[0] - 1][person.source[1]] = person
    wanted = {(image + 1, i) for image in rectangles for i in release.separated[image] if i in rectangles[image]}
    if wanted != set(joints):
        raise ValueError(
            f"`people` should be the {len(wanted)} separated people of the test images. Found {len(joints)}, of whom "
            f"{len(wanted & set(joints))} are. `read_mat` gives them: those with `is_test`."
        )
    pred = _structs(len(test), "image", "annorect")
    for slot, image in enumerate(rectangles):
        pred[0, slot]["image"] = _struct(name=release.images[image])
        pred[0, slot]["annorect"] = rectangle = _structs(max(rectangles[image], default=0), "scale", "objpos", "annopoints")
        for number, person in rectangles[image].items():
            x, y = person.centre
            row = rectangle[0, number - 1]
            row["scale"], row["objpos"] = person.scale, _struct(x=x + 1, y=y + 1)
            if person.source in joints:
                row["annopoints"] = _struct(point=_points(joints[person.source]))
    savemat(str(path), {"pred": pred}, do_compression=True)


def _check(predicted: Array, people: Sequence[Annotation]) -> None:
    if predicted.shape != (len(people), len(MPII), 2):
        raise ValueError(f"`predicted` should have the shape {(len(people), len(MPII), 2)}. Found {predicted.shape}.")


def _points(joints: Array) -> NDArray[np.void]:
    points = _structs(len(joints), "x", "y", "id")
    for i, (x, y) in enumerate(joints):
        points[0, i] = (float(x) + 1, float(y) + 1, float(i))
    return points


def _structs(count: int, *fields: str) -> NDArray[np.void]:
    """A MATLAB struct array of 1 x count with empty fields."""
    structs = np.empty((1, count), dtype=[(name, object) for name in fields])
    for name in fields:
        for i in range(count):
            structs[name][0, i] = np.zeros((0, 0))
    return structs


def _struct(**fields: Any) -> NDArray[np.void]:
    struct = _structs(1, *fields)
    for name, value in fields.items():
        struct[name][0, 0] = value
    return struct

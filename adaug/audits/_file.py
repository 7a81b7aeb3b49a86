"""Saves an audit as one file: an .npz without pickles, with a checksum in the archive's comment."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from adaug._runtime.files import replace_file
from adaug.audits.plan import Axis
from adaug.audits.records import FamilyTable, Picture
from adaug.audits.table import Table

VERSION = 4  # of the file. 4: identity and labels
FIELDS = "higher_is_better", "groups", "images", "seed", "excluded", "labels", "identity"
MARK = b"sha256 "
COMMENT = len(MARK) + 64


def write(audit: Table, path: Path) -> Path:
    """Writes an audit. Raises ValueError or OSError if that fails; an older file then stays as it was."""
    arrays: dict[str, Any] = {"scores": audit.scores}
    pictures = []
    for i, picture in enumerate(audit.pictures):
        arrays[f"picture{i}"] = picture.pixels
        for part in ("labels", "predictions"):
            arrays |= {f"picture{i}.{part}.{name}": value for name, value in getattr(picture, part).items()}
        pictures.append({"image": picture.image, "view": picture.view})
    described = {
        "version": VERSION,
        "families": [dataclasses.asdict(family) for family in audit.families],
        **{name: getattr(audit, name) for name in FIELDS},
        "pictures": pictures,
    }
    archive = io.BytesIO()
    np.savez_compressed(archive, described=np.array(json.dumps(described)), **arrays)
    return replace_file(path, _sealed(archive.getvalue()))


def _sealed(archive: bytes) -> bytes:
    """Adds the checksum of the whole archive as its comment, at the end. Zip's own checksums leave out names and sizes."""
    body = archive[:-2]  # without the length of the comment, none so far
    return b"".join([body, COMMENT.to_bytes(2, "little"), MARK, hashlib.sha256(body).hexdigest().encode()])


def _checked(content: bytes) -> bytes:
    """The content, if its checksum is right. Raises ValueError if not."""
    if not content:
        raise ValueError("it is empty")
    if content[-COMMENT:][: len(MARK)] != MARK:
        raise ValueError("no checksum at its end: cut short, or written by another program or version")
    if content != _sealed(content[:-COMMENT]):
        raise ValueError("its checksum is wrong: bits have changed")
    return content


def read(path: str | Path) -> dict[str, Any]:
    """Reads the fields of an audit. Raises ValueError if the file is damaged or of another kind."""
    try:
        with np.load(io.BytesIO(_checked(Path(path).read_bytes())), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        described = json.loads(str(arrays["described"]))
        if described["version"] != VERSION:
            raise ValueError(f"version {described['version']}")
        return _fields(arrays, described)
    except FileNotFoundError:
        raise
    except Exception as error:
        raise ValueError(
            f"{path} should be an audit that `Audit.save` of this version wrote. Found {type(error).__name__}: {error}; "
            "delete it and audit again."
        ) from error


def _fields(arrays: Mapping[str, Any], described: Mapping[str, Any]) -> dict[str, Any]:
    families = tuple(
        FamilyTable(**_tuples(family) | {"axes": tuple(Axis(**_tuples(axis)) for axis in family["axes"])})
        for family in described["families"]
    )

    def parts(i: int, part: str) -> dict[str, Any]:
        start = f"picture{i}.{part}."
        return {name.removeprefix(start): value for name, value in arrays.items() if name.startswith(start)}

    pictures = tuple(
        Picture(picture["image"], picture["view"], arrays[f"picture{i}"], parts(i, "labels"), parts(i, "predictions"))
        for i, picture in enumerate(described["pictures"])
    )
    kept = {name: described[name] for name in FIELDS}
    if arrays["scores"].shape[:2] != (len(kept["images"]), sum(len(family.views) for family in families)):
        raise ValueError(f"scores of shape {arrays['scores'].shape}")
    return {"scores": arrays["scores"], "families": families, "pictures": pictures, **kept}


def _tuples(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Lists become tuples, as they were before JSON."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}

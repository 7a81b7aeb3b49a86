"""An audit as one file: an .npz without pickles, whole or not there."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from adaug.audits._plan import Axis
from adaug.audits._records import FamilyTable, Picture

if TYPE_CHECKING:
    from adaug.audits._table import Audit

VERSION = 1  # of the file


def write(audit: Audit, path: Path) -> Path:
    """Writes an audit under another name, and renames it."""
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
        "worse": audit.worse,
        "groups": {name: list(map(int, parts)) for name, parts in audit.groups.items()},
        "images": list(audit.images),
        "seed": audit.seed,
        "model": audit.model,
        "excluded": dict(audit.excluded),
        "pictures": pictures,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".part")
    with beside.open("wb") as file:
        np.savez_compressed(file, described=np.array(json.dumps(described)), **arrays)
    os.replace(beside, path)
    return path


def read(path: str | Path) -> dict[str, Any]:
    """The fields of the audit that a file holds. Raises ValueError that names a file which is damaged or of another kind."""
    try:
        with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as file:
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
            "audit again."
        ) from error


def _fields(arrays: Mapping[str, Any], described: Mapping[str, Any]) -> dict[str, Any]:
    families = tuple(
        FamilyTable(
            family["name"],
            tuple(family["views"]),
            family["start"],
            tuple(
                Axis(
                    axis["operation"],
                    axis["quantity"],
                    tuple(axis["labels"]),
                    tuple(axis["centres"]),
                    axis["layout"] if isinstance(axis["layout"], int) else (axis["layout"][0], axis["layout"][1]),
                )
                for axis in family["axes"]
            ),
            tuple(family["details"]),
        )
        for family in described["families"]
    )

    def parts(i: int, part: str) -> dict[str, Any]:
        start = f"picture{i}.{part}."
        return {name.removeprefix(start): value for name, value in arrays.items() if name.startswith(start)}

    pictures = tuple(
        Picture(picture["image"], picture["view"], arrays[f"picture{i}"], parts(i, "labels"), parts(i, "predictions"))
        for i, picture in enumerate(described["pictures"])
    )
    kept = {name: described[name] for name in ("worse", "groups", "images", "seed", "model", "excluded")}
    if arrays["scores"].shape[:2] != (len(kept["images"]), sum(len(family.views) for family in families)):
        raise ValueError(f"scores of shape {arrays['scores'].shape}")
    return {"scores": arrays["scores"], "families": families, "pictures": pictures, **kept}

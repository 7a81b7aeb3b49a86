"""What identifies an audit: fingerprints of all that its scores depend on."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from adaug._batches.batch import Batch
from adaug._batches.tree import has_names, has_rows, leaves
from adaug._model.wrappers import unwrap
from adaug._runtime.geometry import Size
from adaug._runtime.identity import UnknownError, fingerprint
from adaug.audits.plan import Plan

UNKNOWN = "unknown: "


def identity_of(
    model: Any, score: Any, plan: Plan, forward: Any, targets: Any, rest: str | None, higher_is_better: bool, seed: int
) -> dict[str, str]:
    """The fingerprint of each argument that scores depend on. One that cannot be read is "unknown: why"."""
    parts = {
        "model": unwrap(model) if isinstance(model, nn.Module) else model,
        "score": score,
        "views": (plan.families, plan.pairs),
        "forward": forward,
        "targets": dict(targets or {}),
        "rest": rest,
        "higher_is_better": higher_is_better,
        "seed": seed,
    }
    return {name: _known(value) for name, value in parts.items()}


def _known(value: Any) -> str:
    try:
        return fingerprint(value)
    except UnknownError as error:
        return f"{UNKNOWN}{error}"


def images_of(parsed: Batch) -> list[str]:
    """A fingerprint of each image, [n]."""
    rows = parsed.image.detach().float().cpu().numpy()
    return [hashlib.blake2b(str(row.shape).encode() + row.tobytes(), digest_size=8).hexdigest() for row in rows]


def labels_of(parsed: Batch, view_size: Size) -> list[str]:
    """A fingerprint of everything else that belongs to each image, and of the size that it is shown in, [n]."""
    n, image = len(parsed), parsed.keys_of("image")[0]
    entries = {key: entry for key, entry in parsed.entries.items() if key != image and key not in parsed.listed}
    each = [(path, leaf, has_rows(leaf, n)) for path, leaf in leaves(entries, opens=has_names)]
    return [_known([(path, leaf[i] if rows else leaf) for path, leaf, rows in each] + [view_size]) for i in range(n)]


def check_same(path: Path, known: Mapping[str, str], own: Mapping[str, str]) -> None:
    """Raises ValueError unless an audit in a file was made with the same arguments, as far as they can be known."""
    unread = [f"{name} holds {own[name].removeprefix(UNKNOWN)}" for name in own if own[name].startswith(UNKNOWN)]
    if unread:
        raise ValueError(
            f"{path} should hold an audit with arguments that adaug can compare with these. Found that {'; '.join(unread)}; "
            "delete it or name another file."
        )
    others = [name for name in own if known.get(name) != own[name]]
    if others:
        what = ", ".join(f"`{name}`" for name in others)
        raise ValueError(
            f"{path} should hold an audit of the same arguments. Found that it was made with another {what} (weights, settings "
            "or code differ); delete it or name another file."
        )


def check_images(
    images: list[str], labels: list[str], known_images: Sequence[str], known_labels: Sequence[str], start: int
) -> None:
    """Raises ValueError unless an audit in a file has these images, with these labels, from number `start` on."""
    end = start + len(images)
    for what, own, known in (
        ("images", images, known_images),
        ("labels or another `output_size`", labels, known_labels),
    ):
        unread = [print for print in own if print.startswith(UNKNOWN)]
        if unread or own != list(known[start:end]):
            raise ValueError(
                "`loader` should give the images that the file holds, in their order, with the same labels. Found "
                + (f"labels of {unread[0]}" if unread else f"other {what} from image {start} on")
                + "; do not shuffle, delete the file or name another one."
            )

"""Checkpoints, crops and audits with damaged bytes."""

from __future__ import annotations

import io
import random
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import networks as nets
import numpy as np
import torch

import adaug
from attacks.inputs import AnyChannels
from attacks.tally import Tally
from examples.hourglass.checkpoints import NAME, load_checkpoint, save_checkpoint


def files(tally: Tally) -> None:
    """Checkpoints, crops and audits with damaged bytes: each is refused, and none is read as it is not."""
    from tests.examples.data_sets.test_crop_cache import draw as draw_photographs
    from tests.examples.data_sets.test_crop_cache import load as load_crops

    with tempfile.TemporaryDirectory() as name:
        folder, number = Path(name), tally.random
        identity = {"config": {"a": 1}, "people": "x"}
        save_checkpoint(folder, {**identity, "weights": torch.arange(500.0)})
        audit = adaug.audit(AnyChannels(), [nets.make_batch(4)], lambda out, _: out.mean((1, 2, 3)), [adaug.Rotate(-30, 30, 3)])
        audit.save(folder / "audit.npz")
        people = draw_photographs(folder / "images", 3)
        crops = load_crops(people, folder)[0].fingerprint()
        for photograph in people.files:  # or they would be cut again
            photograph.unlink()
        table = audit.scores.copy()
        readers: dict[Path, tuple[Callable[[], Any], Callable[[Any], bool]]] = {
            folder / NAME: (
                lambda: load_checkpoint(folder, identity),
                lambda s: torch.equal(s["weights"], torch.arange(500.0)),
            ),
            folder / "audit.npz": (lambda: adaug.Audit.load(folder / "audit.npz"), lambda a: np.array_equal(a.scores, table)),
        }
        for path in (folder / "cache").glob("*/*.np?"):
            readers[path] = (lambda: load_crops(people, folder)[0], lambda c: c.fingerprint() == crops)
        tally.start()
        while not tally.over:
            path = number.choice(list(readers))
            content, (read, same) = path.read_bytes(), readers[path]
            damaged, way = _damaged(content, number)
            path.write_bytes(damaged)
            tally.judge(f"{path.name} {way}", read, lambda found, same=same: "" if same(found) else "read as something else")
            path.write_bytes(content)


def _damaged(content: bytes, number: random.Random) -> tuple[bytes, str]:
    at, way = number.randrange(len(content)), number.choice(["a bit", "a bit", "cut", "longer", "zeros", "empty", "foreign"])
    end = min(len(content), at + number.randrange(1, 64))
    changed = bytearray(content)
    changed[at] ^= 1 << number.randrange(8)
    foreign = io.BytesIO()
    torch.save({"a": 1}, foreign)
    return {
        "a bit": bytes(changed), "cut": content[:at], "longer": content + b"x", "empty": b"", "foreign": foreign.getvalue(),
        "zeros": content[:at] + bytes(end - at) + content[end:],
    }[way], f"{way} at {at}"  # fmt: skip

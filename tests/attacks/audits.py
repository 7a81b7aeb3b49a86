"""Audits and their files: changed arguments, interrupted runs, full disks, odd paths, and two audits that are compared."""

from __future__ import annotations

import errno
import os
import random
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import networks as nets
import numpy as np
import torch
from torch import Tensor, nn

import adaug
from adaug import Rotate, Scale, Target
from attacks.inputs import JUNK
from attacks.tally import Tally

FILL = {"mask": Target("mask", fill=0)}
GOOD = (TypeError, ValueError, RuntimeError, OSError)


class Net(nn.Module):
    """A network with settings, which writes to what it holds in evaluation mode too."""

    def __init__(self, gain: float = 1.0, act: Any = torch.relu) -> None:
        super().__init__()
        self.gain, self.act, self.calls = gain, act, 0
        self.layer, self.norm = nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2)
        nn.init.constant_(self.layer.weight, 0.1)
        nn.init.zeros_(self.layer.bias)
        self.register_buffer("count", torch.zeros(()))

    def forward(self, image: Tensor) -> Tensor:
        self.calls, self.count = self.calls + 1, self.count + 1
        np.random.rand(), random.random(), torch.rand(())  # noqa: NPY002
        out: Tensor = self.act(self.gain * self.norm(self.layer(image))) + 0 * self.count
        return out


def score_of(by: float, parts: bool) -> Callable[..., Tensor]:
    def score(output: Tensor, batch: dict[str, Tensor]) -> Tensor:
        rows = output.mean((2, 3)) * by + batch["label"][:, None]
        return rows if parts else rows.mean(1)

    return score


def batches(rows: int, seed: int, **changes: Any) -> list[dict[str, Any]]:
    whole = nets.make_batch(rows, seed=seed)
    whole["mask"] = (whole["image"].mean(1) > 0.2).long()
    whole |= changes
    return [{name: value[i : i + 4] for name, value in whole.items()} for i in range(0, rows, 4)]


def arguments(number: random.Random) -> dict[str, Any]:
    """Arguments of an audit, each from a few values, so that two of them often differ in one."""
    parts = number.random() < 0.3
    return {
        "model": number.choice([Net, lambda: Net(2.0), lambda: Net(act=torch.tanh), lambda: _inside(Net(1.5))])(),
        "loader": batches(8, number.randrange(2), **({"label": torch.ones(8).long()} if number.random() < 0.2 else {})),
        "score": score_of(number.choice([1.0, 2.0]), parts),
        "views": number.choice([[Rotate(-60, 60, 3)], [Rotate(-60.1, 60.1, 3)], [Scale(0.5, 2, 3), Rotate(-60, 60, 3)]]),
        "targets": {"mask": Target("mask", fill=number.choice([0, 255]))},
        "output_size": number.choice([None, 24, 32]),
        "groups": {"one": number.choice([[0], (0,), range(1)])} if parts else None,
        "num_draws": number.choice([0, 2]), "seed": number.randrange(2), "num_pictures": number.choice([0, 2]),
        "higher_is_better": number.random() < 0.8,
    }  # fmt: skip


def _inside(network: nn.Module) -> Callable[[Tensor], Any]:
    return lambda image: network(image)


def audits(tally: Tally) -> None:
    """Audits and their files: a wrong one is never taken for the right one, nothing is lost, and nothing moves."""
    ways = [_another, _interrupted, _full, _path, _compared, _score]
    tally.start()
    with tempfile.TemporaryDirectory() as name:
        for i in range(10**9):
            if tally.over:
                return
            folder = Path(name) / str(i)
            folder.mkdir()
            tally.random.choice(ways)(tally, folder, tally.random)


def _judged(tally: Tally, what: str, act: Callable[[], str]) -> None:
    """`act` says what is wrong: "lost ...", "moved ..." or another text for what is silent."""
    try:
        wrong = act()
    except Exception as error:
        said = str(error)
        good = isinstance(error, GOOD) and "should" in said and "Found" in said
        tally.add(
            "held" if good else "unhelpful", f"{what} -> {type(error).__name__}: {said:.200}", f"{type(error).__name__} {what}"
        )
        return
    outcome = "held" if not wrong else "lost" if wrong.startswith("lost") else "silent"
    tally.add(outcome, f"{what} -> {wrong}", f"{what} {wrong[:40]}")


def _network(model: Any) -> nn.Module:
    network: nn.Module = model if isinstance(model, nn.Module) else model.__closure__[0].cell_contents
    return network


def _another(tally: Tally, folder: Path, number: random.Random) -> None:
    """A file of one audit, given to another one: the scores are those of a fresh audit, or it is refused."""
    first, second = arguments(number), arguments(number)
    for name in first:  # they differ in a few arguments
        if number.random() < 0.75 or name in ("score", "groups"):
            second[name] = first[name]
    damaged = number.random() < 0.15

    def act() -> str:
        path = folder / "one.audit"
        adaug.audit(**first, path=path)
        if damaged:
            content = bytearray(path.read_bytes())
            content[number.randrange(len(content))] ^= 1 << number.randrange(8)
            path.write_bytes(content)
        held, network = path.read_bytes(), _network(second["model"])
        before = [nets.cloned(network.state_dict()), network.calls, network.training, torch.get_rng_state(), random.getstate()]
        try:
            found = adaug.audit(**second, path=path)
        except ValueError:
            if path.read_bytes() != held:
                return "lost: the file has changed after a refusal"
            raise
        after = [network.state_dict(), network.calls, network.training, torch.get_rng_state(), random.getstate()]
        if not nets.same(after, before):
            return "the network or a random state has moved"
        read, fresh = adaug.Audit.load(path), adaug.audit(**second)
        if not (np.array_equal(found.scores, fresh.scores, equal_nan=True) and read.to_json() == found.to_json()):
            return "other scores than those of a fresh audit"
        return "" if not fresh.compare(read).worse() and fresh.groups == read.groups else "a gate that fails"

    _judged(tally, f"another audit{', damaged' if damaged else ''}", act)


def _interrupted(tally: Tally, folder: Path, number: random.Random) -> None:
    """A run that ends after some batches, and goes on."""
    given, at = arguments(number), number.randrange(3)
    error = number.choice([KeyboardInterrupt, OSError, StopAsyncIteration, MemoryError])

    def broken() -> Iterator[Any]:
        yield from given["loader"][:at]
        raise error

    def act() -> str:
        path = folder / "one.audit"
        whole = adaug.audit(**given)
        try:
            adaug.audit(**given | {"loader": broken()}, path=path)
        except BaseException as caught:
            held = getattr(caught, "audit", None)
            if at and (held is None or not np.array_equal(held.scores, whole.scores[: 4 * at], equal_nan=True)):
                return "lost: the exception carries no audit"
            if at and len(adaug.Audit.load(path)) != 4 * at:
                return "lost: the file holds fewer images"
        again = adaug.audit(**given, path=path)
        return "" if np.array_equal(again.scores, whole.scores, equal_nan=True) else "goes on to other scores"

    _judged(tally, "an interrupted run", act)


def _full(tally: Tally, folder: Path, number: random.Random) -> None:
    """A disk that is full from some moment on."""
    given, at, real, times = arguments(number), number.randrange(4), os.fsync, [0]

    def full(file: int) -> None:
        times[0] += 1
        if times[0] > at:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(file)

    def act() -> str:
        path, whole = folder / "one.audit", adaug.audit(**given)
        with mock.patch("os.fsync", full):
            try:
                adaug.audit(**given, path=path)
            except OSError as caught:
                if "Found the disk full" not in str(caught):
                    raise
                held = getattr(caught, "audit", None)
                if held is None or not np.array_equal(held.scores, whole.scores[: len(held)], equal_nan=True):
                    return "lost: the exception carries no audit"
        if list(folder.glob("*.part")):
            return "lost: half a file stays"
        again = adaug.audit(**given, path=path)
        return "" if np.array_equal(again.scores, whole.scores, equal_nan=True) else "goes on to other scores"

    _judged(tally, "a full disk", act)


def _path(tally: Tally, folder: Path, number: random.Random) -> None:
    """Odd paths, told before the first batch."""
    (folder / "file").write_text("x")
    odd = [
        folder,
        folder / "file" / "x",
        folder / ("a" * 300),
        Path("/proc/x"),
        Path("/"),
        folder / "a b" / "ü.npz",
        folder / "file",
    ]
    path, read = number.choice([*odd, *(value for value in JUNK if value != "" and value != "x")]), [0]
    if isinstance(path, str):
        path = folder / path

    def counted() -> Iterator[Any]:
        read[0] += 1
        yield from batches(4, 0)

    def act() -> str:
        try:
            adaug.audit(Net(), counted(), score_of(1.0, False), [Rotate(-9, 9, 3)], num_draws=0, targets=FILL, path=path)
        except GOOD:
            if read[0]:
                return "lost: the path was not checked before the first batch"
            raise
        return "" if path is None or len(adaug.Audit.load(path)) == 4 else "no file"

    _judged(tally, f"path={str(path)[-40:]!r}", act)


def _compared(tally: Tally, folder: Path, number: random.Random) -> None:
    """Two audits of made-up scores: one verdict everywhere."""
    n, parts, right = number.choice([1, 2, 20]), number.choice([0, 2]), number.random() < 0.5
    noise = np.random.default_rng(number.randrange(10**6))
    first = adaug.audit(Net(), batches(n, 0), score_of(1.0, bool(parts)), [Rotate(-9, 9, 3)], targets=FILL, num_draws=1)
    shape, by = first.scores.shape, number.choice([0, 0.1, 0.5, -0.5])

    def made(shift: float) -> adaug.Audit:
        scores = noise.random(shape) + shift
        scores[noise.random(shape) < number.choice([0, 0.1])] = np.nan
        scores = np.where(np.isnan(scores), np.nan, scores > 0.6) if right else scores
        return adaug.Audit(scores, first.families, number.random() < 2, {"one": [0]} if parts else {}, first.images)

    def act() -> str:
        before, after = made(0), made(by)
        before, after = (
            adaug.Audit.load(audit.save(folder / "a")) if number.random() < 0.5 else audit for audit in (before, after)
        )
        comparison, names = before.compare(after), []
        for line, change in zip(str(comparison).splitlines()[3:], comparison.changes, strict=True):
            if not line.endswith(change.verdict):
                return f"print says something else than {change.verdict}"
            names += [change.name] if change.verdict == "better" else []
        if names != comparison.better() or set(names) & set(comparison.worse()):
            return "lists that say something else"
        for asked, change in ((comparison.mean("rotate"), "mean, rotate"), (comparison.worst("rotate"), "worst view, rotate")):
            shown = next(one for one in comparison.changes if one.name == change)
            if repr(asked.difference) != repr(shown.difference):
                return f"two intervals of {change}"
        if number.random() < 0.1:
            page = before.html(folder / "a.html", compared=after).read_text()
            counts = [f"{len(found) or 'None'} of {len(comparison.changes)} figures" for found in (names, comparison.worse())]
            if not all(count in page for count in counts):
                return "a page that says something else"
        return ""

    _judged(tally, f"two audits of {n} images, {by:+}", act)


def _score(tally: Tally, folder: Path, number: random.Random) -> None:
    """Scores of any kind."""
    junk, given = number.choice(JUNK), arguments(number)
    shape = number.choice([(), (4,), (4, 2), (4, 3), (4, 2, 2), (3,), (0,)])
    value = number.choice(
        [junk, torch.zeros(shape), torch.full(shape, torch.inf), torch.full(shape, torch.nan), np.zeros(shape)]
    )

    def act() -> str:
        audit = adaug.audit(
            **given | {"score": lambda output, batch: value, "groups": None, "loader": batches(4, 0), "pairs": False}
        )
        return "" if audit.scores.shape[:2] == (4, len(audit.views)) else "scores of another shape"

    _judged(
        tally, f"a score of {type(value).__name__} {shape if isinstance(value, Tensor | np.ndarray) else repr(value)[:30]}", act
    )

"""Nothing computed is lost: paths are checked first, several may write, and an exception carries what there is."""

from __future__ import annotations

import errno
import multiprocessing
import os
from pathlib import Path
from typing import Any

import networks as nets
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, SequentialSampler, WeightedRandomSampler

import adaug
from adaug import Audit, Rotate
from adaug._runtime import files


def loader(n: int = 12, batch: int = 4) -> list[dict[str, Tensor]]:
    whole = nets.make_batch(n)
    return [{key: value[i : i + batch] for key, value in whole.items()} for i in range(0, n, batch)]


def model(image: Tensor) -> Tensor:
    return image.mean((1, 2, 3))


def score(output: Tensor, batch: Any) -> Tensor:
    return output


def audited(path: Any = None, batches: Any = None, **more: Any) -> Audit:
    batches = loader() if batches is None else batches
    return adaug.audit(model, batches, score, [Rotate(-60, 60, 3)], num_draws=1, num_pictures=1, path=path, **more)


def must_not_be_read() -> Any:
    raise AssertionError("a batch was read")
    yield


def unfit(tmp_path: Path) -> dict[str, Path]:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    return {
        "a folder": tmp_path / "folder",
        "below a file": tmp_path / "file" / "one.audit",
        "a long name": tmp_path / ("a" * 300),
        "of the system": Path("/proc/one.audit"),
        "no name": Path("/"),
    }


@pytest.mark.parametrize("where", ["a folder", "below a file", "a long name", "of the system", "no name"])
def test_a_path_that_cannot_be_written_is_told_before_the_first_batch(where: str, tmp_path: Path) -> None:
    path = unfit(tmp_path)[where]
    with pytest.raises(ValueError, match=r"`path` should be a file that can be written\. Found .*name another one"):
        audited(path, must_not_be_read())
    audit = audited()
    for write in (audit.save, audit.html):
        with pytest.raises(ValueError, match=r"should be a file that can be written"):
            write(path)
    assert not list(tmp_path.rglob("*.part"))
    assert len(audited(tmp_path / "new" / "folder" / "one.audit")) == 12


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_is_closed_is_told_too(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(ValueError, match="should be a file that can be written"):
        audited(tmp_path / "one.audit", must_not_be_read())


@pytest.mark.parametrize("at", [1, 2, 3, 4])
def test_a_full_disk_loses_nothing(at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The n-th time that something is written and all times after that."""
    whole, real, times = audited(), os.fsync, []

    def full(number: int) -> None:
        times.append(number)
        if len(times) >= at:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(number)

    monkeypatch.setattr("os.fsync", full)
    path = tmp_path / "one.audit"
    if at == 4:
        audited(path)
        return
    with pytest.raises(OSError, match=r"should be room for .*one\.audit\. Found the disk full; make room") as caught:
        audited(path)
    computed = caught.value.audit  # type: ignore[attr-defined]
    np.testing.assert_array_equal(computed.scores, whole.scores[: 4 * at])
    assert path.exists() == (at > 1)
    assert not list(tmp_path.glob("*.part"))
    monkeypatch.setattr("os.fsync", real)
    np.testing.assert_array_equal(audited(path).scores, whole.scores)


def write(path: Path, number: int, content: bytes) -> None:
    for _ in range(60):
        files.replace_file(path, content)


def test_many_writers_of_one_path_all_succeed(tmp_path: Path) -> None:
    path, audits = tmp_path / "one.audit", [audited(batches=loader(n)) for n in (4, 8, 12)]
    contents = [audit.save(tmp_path / str(i)).read_bytes() for i, audit in enumerate(audits)]
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=write, args=(path, i, contents[i % 3])) for i in range(6)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert [writer.exitcode for writer in writers] == [0] * 6
    assert path.read_bytes() in contents
    assert not list(tmp_path.glob("*.part"))


def test_a_slower_run_does_not_write_over_a_complete_one(tmp_path: Path) -> None:
    path = tmp_path / "one.audit"

    def slow() -> Any:
        yield loader()[0]
        audited(path)  # another run of the same, which is through before this one goes on
        yield loader()[1]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        audited(path, slow())
    assert len(caught.value.audit) == 8  # type: ignore[attr-defined]
    assert len(Audit.load(path)) == 12


class Rows(torch.utils.data.Dataset[Any]):
    def __init__(self) -> None:
        self.batch = nets.make_batch(12)

    def __len__(self) -> int:
        return 12

    def __getitem__(self, i: int) -> Any:
        return {key: value[i] for key, value in self.batch.items()}


ROWS = Rows()
SHUFFLED = {
    "shuffle": lambda: DataLoader(ROWS, 4, shuffle=True),
    "a random sampler": lambda: DataLoader(ROWS, 4, sampler=WeightedRandomSampler([1.0] * 12, 12)),
    "a batch sampler": lambda: DataLoader(ROWS, batch_sampler=BatchSampler(RandomSampler(ROWS), 4, False)),
}


@pytest.mark.parametrize("how", SHUFFLED)
def test_a_loader_that_shuffles_is_told_at_once(how: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"images in one order.*continue audits\. Found .*Sampler; use .*shuffle=False"):
        audited(tmp_path / "one.audit", SHUFFLED[how]())
    assert not list(tmp_path.iterdir())
    with pytest.warns(UserWarning, match=r"images in one order.*compare audits\. Found"):
        assert len(audited(batches=SHUFFLED[how]())) == 12
    for ordered in (DataLoader(ROWS, 4), DataLoader(ROWS, batch_sampler=BatchSampler(SequentialSampler(ROWS), 4, False))):
        audited(tmp_path / "one.audit", ordered)


@pytest.mark.parametrize("change", ["reordered", "repeated", "fewer"])
def test_images_that_are_not_those_of_the_file_are_told_and_nothing_is_lost(change: str, tmp_path: Path) -> None:
    path, batches = tmp_path / "one.audit", loader()
    audited(path)
    held = path.read_bytes()
    given = {"reordered": [batches[0], batches[2], batches[1]], "repeated": [batches[0]] * 3, "fewer": batches[:1]}[change]
    with pytest.raises(ValueError, match=r"should give the .*images that the file holds.*Found.*name another") as caught:
        audited(path, given)
    assert len(caught.value.audit) == 4  # type: ignore[attr-defined]
    assert path.read_bytes() == held


def test_a_file_that_is_damaged_while_an_audit_runs_is_written_anew(tmp_path: Path) -> None:
    path = tmp_path / "one.audit"

    def batches() -> Any:
        yield loader()[0]
        path.write_bytes(b"something else")
        yield from loader()[1:]

    audited(path, batches())
    assert len(Audit.load(path)) == 12

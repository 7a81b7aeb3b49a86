from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from examples.datasets import crop_cache
from examples.datasets.crop_cache import load_crops
from examples.datasets.cropping import Originals, cut
from examples.datasets.people import LSP, People

N, WIDTH, HEIGHT = 12, 203, 151  # odd, because a JPEG drawn at half its size then has a rounded side
REPOSITORY = Path(__file__).parents[3]


def draw(folder: Path, n: int = N, file: str = "{i}.jpg", centre: tuple[float, float] = (100.0, 75.0)) -> Originals:
    """Photographs, each with a white spot on joint 0 of its person, and the window around them."""
    rng = np.random.default_rng(0)
    keypoints = rng.uniform((50, 40), (150, 110), (n, 14, 2))
    folder.mkdir(parents=True, exist_ok=True)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    for i in range(n):
        if not (path := folder / file.format(i=i)).exists():
            distance = np.hypot(x - keypoints[i, 0, 0], y - keypoints[i, 0, 1])
            spot = (255 * np.clip(9 - distance, 0, 1)).astype(np.uint8)
            Image.fromarray(np.repeat(spot[..., None], 3, 2)).save(path, quality=95)
    return Originals(
        files=tuple(folder / file.format(i=i) for i in range(n)),
        centre=np.tile(centre, (n, 1)) + rng.uniform(-5, 5, (n, 2)),
        side=rng.uniform(120, 160, n),
        keypoints=keypoints,
        visibility=np.ones((n, 14)),
        pck_length=np.full(n, 40.0),
        joints=LSP,
    )


@pytest.fixture
def people(tmp_path: Path) -> Originals:
    return draw(tmp_path / "images")


def load(people: Originals, folder: Path, **more: Any) -> tuple[People, Originals]:
    options: dict[str, Any] = {"size": 64, "canvas": 96, "cache_dir": folder / "cache", "progress": False, **more}
    return load_crops(people, "people", **options)


def cuts(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The rows that are cut from now on, in this process."""
    rows: list[int] = []
    real = crop_cache.cut_rows
    monkeypatch.setattr(crop_cache, "cut_rows", lambda *call: rows.extend(call[1]) or real(*call))
    return rows


@pytest.mark.parametrize(("size", "canvas"), [(64, 96), (16, 24), (200, 200)])
def test_crops_show_the_spots_where_the_joints_are(people: Originals, tmp_path: Path, size: int, canvas: int) -> None:
    crops, where = load(people, tmp_path, size=size, canvas=canvas)
    weight = (crops.images.double().mean(1) - 8).clamp_min(0)
    grid = torch.arange(canvas, dtype=torch.float64)
    x, y = ((weight.sum(axis) * grid).sum(1) / weight.sum((1, 2)) for axis in (1, 2))
    torch.testing.assert_close(torch.stack([x, y], 1), crops.keypoints[:, 0].double(), rtol=0, atol=0.12)
    np.testing.assert_allclose(where.to_image(crops.keypoints.double().numpy(), size, canvas), people.keypoints, atol=1e-3)
    torch.testing.assert_close(crops.pck_length, torch.from_numpy(40 * size / people.side).float())


def test_the_images_are_a_view_of_the_file(people: Originals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mapped = []
    monkeypatch.setattr(
        crop_cache.torch, "from_numpy", lambda array, real=torch.from_numpy: mapped.append(array) or real(array)
    )
    crops, _ = load(people, tmp_path)
    (images,) = (array for array in mapped if array.dtype == np.uint8)
    assert isinstance(images, np.memmap)
    assert crops.images.data_ptr() == images.ctypes.data
    assert crops.subset([3, 1]).images.equal(crops.images[[3, 1]])
    for row, path in enumerate(people.files):
        expected = cut(path, people.centre[row], people.side[row], 64, 96)
        assert crops.images[row].equal(torch.from_numpy(expected))


def test_cut_once_until_something_changes(people: Originals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = cuts(monkeypatch)
    first, _ = load(people, tmp_path)
    assert sorted(rows) == list(range(N))
    assert load(people, tmp_path)[0].images.equal(first.images)
    assert len(rows) == N
    (folder,) = (path for path in (tmp_path / "cache").iterdir() if path.is_dir())
    assert sorted(path.name for path in folder.iterdir()) == ["images.npy", "targets.npz"]
    load(people, tmp_path, size=32)
    load(people.subset(range(3)), tmp_path)
    assert len(rows) == 2 * N + 3
    image = people.files[2]
    image.write_bytes(image.read_bytes() + b"\0")
    assert load(people, tmp_path)[0].images.equal(first.images)
    assert len(rows) == 3 * N + 3
    for path in people.files:  # to save room
        path.unlink()
    assert load(people, tmp_path)[0].images.equal(first.images)
    assert len(rows) == 3 * N + 3


@pytest.mark.parametrize("name", ["images.npy", "targets.npz"])
def test_a_damaged_cache_is_cut_again(people: Originals, tmp_path: Path, name: str) -> None:
    first = load(people, tmp_path)[0].images.clone()
    (path,) = (tmp_path / "cache").glob(f"*/{name}")
    for content in (path.read_bytes()[:1000], b""):
        path.write_bytes(content)
        assert load(people, tmp_path)[0].images.equal(first)


def flips(path: Path, number: int) -> Iterator[None]:
    """The file with one bit changed, again and again; whole at the end."""
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    for position in rng.integers(8 * len(whole), size=number):
        flipped = bytearray(whole)
        flipped[position // 8] ^= 1 << position % 8
        path.write_bytes(flipped)
        yield
    path.write_bytes(whole)


@pytest.mark.parametrize("name", ["images.npy", "targets.npz"])
def test_no_changed_bit_of_a_cache_goes_unnoticed(
    people: Originals, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    first = load(people, tmp_path)[0]
    images = first.images.clone()
    (path,) = (tmp_path / "cache").glob(f"*/{name}")
    for _ in flips(path, 2):
        crops, _ = load(people, tmp_path, progress=True)
        assert crops.images.equal(images)
        assert crops.fingerprint() == first.fingerprint()
        assert f"{path} is damaged" in capsys.readouterr().out
    for photograph in people.files:
        photograph.unlink()
    for _ in flips(path, 20):
        with pytest.raises(ValueError, match=rf"^{path} should be as it was written[^\n]*delete {path.parent}\.$"):
            load(people, tmp_path)
    assert load(people, tmp_path)[0].images.equal(images)


def test_damage_to_what_a_killed_run_left_is_cut_again(
    people: Originals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(crop_cache, "write_checked", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            load(people, tmp_path)
    (path,) = (tmp_path / "cache").glob("*.partial/images.npy")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    rows = cuts(monkeypatch)
    crops, _ = load(people, tmp_path)
    assert rows == [N - 1]
    assert crops.images[N - 1].equal(torch.from_numpy(cut(people.files[-1], people.centre[-1], people.side[-1], 64, 96)))


def test_all_broken_images_are_named_or_left_out(people: Originals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = people.files[7].read_bytes()
    people.files[1].unlink()
    people.files[7].write_bytes(whole[:700])
    people.files[N - 1].write_bytes(b"no image")
    rows = cuts(monkeypatch)
    with pytest.raises(OSError, match="3 that are not") as caught:
        load(people, tmp_path)
    assert all(str(people.files[row]) in str(caught.value) for row in (1, 7, N - 1))
    assert len(rows) == N
    for _ in range(2):
        with pytest.warns(UserWarning, match="3 of 12 people's images"):
            crops, kept = load(people, tmp_path, skip_corrupt=True)
        assert rows[N:] == [1, 7, N - 1]  # the others were kept
        assert [int(path.stem) for path in kept.files] == [0, N - 3, 2, 3, 4, 5, 6, N - 2, 8]
        assert len(crops) == N - 3
        np.testing.assert_allclose(kept.to_image(crops.keypoints.double().numpy(), 64, 96), kept.keypoints, atol=1e-3)
        for row, path in enumerate(kept.files):
            assert crops.images[row].equal(torch.from_numpy(cut(path, kept.centre[row], kept.side[row], 64, 96)))
    with pytest.raises(OSError, match="3 that are not"):  # from the finished cache, which leaves them out
        load(people, tmp_path)
    draw(tmp_path / "images")  # again, where missing
    people.files[7].write_bytes(whole)
    people.files[N - 1].write_bytes(whole)
    assert len(load(people, tmp_path)[0]) == N


def test_nothing_readable(people: Originals, tmp_path: Path) -> None:
    for path in people.files:
        path.unlink()
    with pytest.raises(OSError, match="12 that are not"):
        load(people, tmp_path, skip_corrupt=True)


def test_a_full_disk_is_noticed_before_it_is_full(people: Originals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = crop_cache.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(crop_cache.shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(OSError, match="GB free for the crops"):
        load(people, tmp_path)


# Cuts 60 people of one photograph and takes a while to note each four of them.
SCRIPT = """
import sys
import time
from pathlib import Path

if __name__ == "__main__":
    sys.path[:0] = [{repository!r}, {tests!r}]
    from examples.datasets import crop_cache
    from test_crop_cache import draw, load

    def slowly(*call, real=crop_cache._results):
        for result in real(*call):
            yield result
            time.sleep(0.1)

    crop_cache.CHUNK, crop_cache._results = 4, slowly
    folder = Path(sys.argv[1])
    load(draw(folder / "images", 60, "one.jpg"), folder, workers=int(sys.argv[2]))
"""


def start(folder: Path, workers: int) -> subprocess.Popen[bytes]:
    """A process that cuts, as soon as it has begun to."""
    draw(folder / "images", 60, "one.jpg")
    (folder / "script.py").write_text(SCRIPT.format(repository=str(REPOSITORY), tests=str(Path(__file__).parent)))
    process = subprocess.Popen([sys.executable, str(folder / "script.py"), str(folder), str(workers)])
    deadline = time.monotonic() + 60
    while not finished(folder):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)
    return process


def finished(folder: Path) -> int:
    """How many people the process has cut."""
    for path in (folder / "cache").glob("*.partial/done.npy"):
        try:
            return int(np.load(path)[:, 0].sum())
        except (OSError, ValueError, EOFError):  # just being made, or moved away
            continue
    return 0


def children(pid: int) -> list[int]:
    return [int(child) for path in Path(f"/proc/{pid}/task").glob("*/children") for child in path.read_text().split()]


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_killed_run_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    process = start(tmp_path, workers=2)
    others = children(process.pid)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    done = finished(tmp_path)
    assert 0 < done < 60
    rows = cuts(monkeypatch)
    people = draw(tmp_path / "images", 60, "one.jpg")
    crops, _ = load(people, tmp_path)
    assert len(rows) == 60 - done
    for row in range(0, 60, 7):
        expected = cut(people.files[row], people.centre[row], people.side[row], 64, 96)
        assert crops.images[row].equal(torch.from_numpy(expected))
    assert len(others) >= 2
    deadline = time.monotonic() + 20
    while not all(map(gone, others)):  # nobody is left that waits for work
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.slow
def test_two_at_once_cut_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    process = start(tmp_path, workers=1)
    rows = cuts(monkeypatch)
    people = draw(tmp_path / "images", 60, "one.jpg")
    crops, _ = load(people, tmp_path, progress=True)
    assert "waiting for it" in capsys.readouterr().out
    assert rows == []
    assert len(crops) == 60
    assert process.wait() == 0
    assert not list((tmp_path / "cache").glob("*.partial"))

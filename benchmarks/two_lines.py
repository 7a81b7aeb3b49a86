"""What `draw` and `observe` add to a plain step of 4 images of 64 x 64, and to the images per second of a DataLoader.

    OMP_NUM_THREADS=1 python benchmarks/two_lines.py

The step is that of a small network, so that the two lines show. Its CPU time is counted, in rounds in a row: plain, the two
lines, and `step`. The loader hands out uint8 images of 96 x 96 with a mask; its images per second are counted by the clock.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset

import adaug
from benchmarks.result_files import save

ROUNDS, STEPS, IMAGES = 15, 40, 512
TARGET_MS = 1.5


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Conv2d(3, 4, 5, padding=2)


def plain_loss(output: Tensor, batch: Any) -> Tensor:
    return cross_entropy(output, batch["mask"])


def row_losses(output: Tensor, batch: Any) -> Tensor:
    return cross_entropy(output, batch["mask"], reduction="none").mean((1, 2))


def small_batch() -> dict[str, Tensor]:
    noise = torch.Generator().manual_seed(0)
    return {"image": torch.rand(4, 3, 64, 64, generator=noise), "mask": torch.randint(0, 4, (4, 64, 64), generator=noise)}


def steps_of(arm: str) -> Callable[[], None]:
    """One training step of an arm."""
    model, batch = network(), small_batch()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    augmenter = adaug.AdversarialAugmenter(adaug.policies.robust(()), seed=0)

    def step() -> None:
        if arm == "step":
            loss = augmenter.step(model, batch, row_losses).loss
        else:
            seen = augmenter.draw(batch) if arm == "draw and observe" else batch
            output = model(seen["image"])
            loss = plain_loss(output, seen)
            if arm == "draw and observe":
                augmenter.observe(output)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call, unused-ignore]
        optimizer.step()

    return step


def step_times() -> dict[str, list[float]]:
    """Milliseconds of CPU time of a step, by arm: a median for each round."""
    arms = {name: steps_of(name) for name in ("plain", "draw and observe", "step")}
    found: dict[str, list[float]] = {name: [] for name in arms}
    for number in range(ROUNDS + 1):
        for name, step in arms.items():
            times = []
            for _ in range(STEPS):
                start = time.process_time()
                step()
                times.append(1e3 * (time.process_time() - start))
            if number:  # the first round warms up
                found[name].append(statistics.median(times))
    return found


class Photographs(Dataset[dict[str, Tensor]]):
    """Images in memory, as uint8."""

    def __len__(self) -> int:
        return IMAGES

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        noise = torch.Generator().manual_seed(i)
        image = torch.randint(0, 256, (3, 96, 96), dtype=torch.uint8, generator=noise)
        return {"image": image, "mask": torch.zeros(96, 96, dtype=torch.long)}


def _read(loader: DataLoader[dict[str, Tensor]], draws: bool) -> Iterator[dict[str, Tensor]]:
    augmenter = adaug.AdversarialAugmenter(adaug.policies.robust(()), seed=0)
    for batch in loader:
        batch = {**batch, "image": batch["image"].float() / 255}
        yield augmenter.draw(batch) if draws else batch


def images_per_second(workers: int, draws: bool) -> float:
    loader = DataLoader(Photographs(), batch_size=32, num_workers=workers)
    start = time.perf_counter()
    count = sum(len(batch["image"]) for batch in _read(loader, draws))
    return count / (time.perf_counter() - start)


def main() -> None:
    torch.set_num_threads(1)
    steps = step_times()
    lines = ["| a step of | ms of CPU time, median of rounds (least to most) | more than plain |", "|---|--:|--:|"]
    base = statistics.median(steps["plain"])
    for name, times in steps.items():
        middle = statistics.median(times)
        lines.append(f"| {name} | {middle:.2f} ({min(times):.2f} to {max(times):.2f}) | {middle - base:.2f} |")
    lines += ["", "| workers | images per second without `draw` | with `draw` in the loop | ratio |", "|--:|--:|--:|--:|"]
    loaders: dict[str, list[list[float]]] = {}
    for workers in (0, 2):
        pairs = [[images_per_second(workers, draws) for draws in (False, True)] for _ in range(5)]
        loaders[str(workers)] = pairs
        before, after = (statistics.median(pair[i] for pair in pairs) for i in (0, 1))
        ratios = [pair[1] / pair[0] for pair in pairs]
        spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        lines.append(f"| {workers} | {before:.0f} | {after:.0f} | {spread} |")
    title = f"`policies.robust()` on one layer: 4 images of 64 x 64 with a mask. The target is {TARGET_MS} ms more."
    print("\n".join(lines))
    save("two_lines", {"steps": steps, "loaders": loaders}, title + "\n\n" + "\n".join(lines))


if __name__ == "__main__":
    main()

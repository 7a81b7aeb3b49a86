"""How many images can the hourglass's input give to ranks? Counted in CPU time, one simulated rank after the other.

    python benchmarks/input_ranks.py

Every rank trains on 32 people a step, crops of 256 pixels on canvases of 384, from a memory map like that of the crop cache.
It reads the rows of its own people as uint8 in a thread, as in training. What a device then does with them is not counted.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.result_files import save
from examples.datasets.people import MPII, People
from examples.hourglass.training import my_parts

RANKS, ROWS, CANVAS, PEOPLE = (1, 2, 4, 8), 32, 384, 2048


def crops(folder: Path) -> People:
    """People of noise, in a file."""
    images = np.lib.format.open_memmap(folder / "images.npy", mode="w+", dtype=np.uint8, shape=(PEOPLE, 3, CANVAS, CANVAS))
    rng = np.random.default_rng(0)
    for row in images:
        row[:] = rng.integers(0, 256, row.shape, np.uint8)
    shape = (PEOPLE, len(MPII))
    return People(torch.from_numpy(images), torch.zeros(*shape, 2), torch.ones(shape), torch.ones(PEOPLE), MPII)


def seconds_a_step(people: People, rank: int, ranks: int, steps: int) -> float:
    """CPU seconds of a step of a rank."""
    order = torch.cat([people.order(0, epoch) for epoch in range(1 + steps * ROWS * ranks // PEOPLE)])
    loaded = people.loaded(my_parts(order[: steps * ROWS * ranks], ROWS * ranks, 1, rank, ranks))
    started, taken = time.process_time(), sum(len(batch["index"]) for batch in loaded)
    assert taken == steps * ROWS
    return (time.process_time() - started) / steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    measured: dict[int, list[float]] = {ranks: [] for ranks in RANKS}
    with tempfile.TemporaryDirectory() as folder:
        people = crops(Path(folder))
        for ranks in RANKS:  # once before, so that all rounds find the file in memory
            seconds_a_step(people, 0, ranks, options.steps)
        for _ in range(options.rounds):
            for ranks, slowest in measured.items():
                slowest.append(max(seconds_a_step(people, rank, ranks, options.steps) for rank in range(ranks)))
    lines = ["| ranks | CPU s a step of the slowest rank | images a CPU second, all ranks | × one rank |", "|--:|--:|--:|--:|"]
    medians = {ranks: float(np.median(slowest)) for ranks, slowest in measured.items()}
    for ranks, seconds in medians.items():
        ceiling = ranks * ROWS / seconds
        lines.append(f"| {ranks} | {seconds:.4f} | {ceiling:,.0f} | {ceiling * medians[1] / ROWS:.2f} |")
    note = (
        f"{ROWS} people a rank and step, canvases of {CANVAS} × {CANVAS}; the median of {options.rounds} rounds of "
        f"{options.steps} steps, of the slowest rank in each. The ranks ran one after the other, each alone on its cores."
    )
    print("\n".join(lines))
    text = "\n".join([*lines, "", note])
    print(f"written to {save('input_ranks', {'seconds': measured}, text)}")


if __name__ == "__main__":
    main()

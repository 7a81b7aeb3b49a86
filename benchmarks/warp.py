"""How fast, and how exact, is one warp per view? Flips, scales and rotates image, mask and keypoints.

    python benchmarks/warp.py                       # needs the extra [bench] for albumentations
    python benchmarks/warp.py --side 128 --images 48 --rounds 20

It compares adaug with three others that do the same: kornia's AugmentationSequential on the same tensors; compiled functions of
kornia's geometry (the container cannot be compiled); and albumentations, image by image in a DataLoader's workers, from uint8
arrays to the same tensors. "From a canvas" means that images are 1.5 times as large and are cut, so that zooming out shows real
surroundings. Error: each keypoint has a smooth blob in the image; the error is the distance in pixels between both after the
pipeline, for whole blobs. "Grid" compares three ways to compute where each output pixel comes from, as a multiple
of the time of sampling.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import kornia.augmentation as K
import kornia.geometry as KG
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import adaug
from adaug.keypoints import render_heatmaps
from benchmarks.result_files import save, spread

Rows = dict[str, Tensor]
SIGMA = 3.0  # pixels, of the blobs: bilinear interpolation does not move the centre of so smooth a blob
EPOCH = 8  # batches
DEGREES, SCALE = 30.0, (0.75, 1.25)


def scenes(n: int, size: int, side: int, seed: int = 0) -> Rows:
    """Images [n, 3, size, size] with a mask, and with a blob for each of three keypoints in the central side x side."""
    g = torch.Generator().manual_seed(seed)
    keypoints = (size - side) / 2 + side * (0.25 + 0.5 * torch.rand(n, 3, 2, generator=g))
    image = render_heatmaps(keypoints, size, SIGMA)
    return {"image": image, "mask": (image.amax(1) > 0.5).to(torch.uint8), "keypoints": keypoints}


def adaug_pipeline(side: int) -> Callable[[Rows], Rows]:
    """One matrix and one grid for everything."""
    scale, rotate = adaug.Scale(*SCALE, 7), adaug.Rotate(-DEGREES, DEGREES, 9)
    policy = adaug.Policy((), (adaug.Flip(()), scale, rotate))
    augmenter = adaug.AdversarialAugmenter(policy, output_size=side, seed=0)
    return augmenter.random


def _uniform(low: float, high: float) -> Callable[[Tensor], Tensor]:
    return partial(_between, low=low, high=high)


def _between(noise: Tensor, low: float, high: float) -> Tensor:
    return low + (high - low) * noise


_turn = _uniform(-DEGREES, DEGREES)


def kornia_pipeline(side: int) -> Callable[[Rows], Rows]:
    """Kornia's container, one operation after the other."""
    container = K.AugmentationSequential(
        K.RandomHorizontalFlip(p=0.5),
        K.RandomAffine(degrees=DEGREES, scale=SCALE, p=1.0, align_corners=True),
        K.CenterCrop(side),
        data_keys=["input", "mask", "keypoints"],
    )

    def run(rows: Rows) -> Rows:
        image, mask, keypoints = container(rows["image"], rows["mask"][:, None].float(), rows["keypoints"])
        return {"image": image, "mask": mask[:, 0].to(torch.uint8), "keypoints": keypoints}

    return run


def compiled_kornia(side: int) -> Callable[[Rows], Rows]:
    """Kornia's functions with one matrix for everything, written by hand and compiled."""

    @torch.compile
    def warped(rows: Rows, angle: Tensor, factor: Tensor, mirrored: Tensor) -> Rows:
        n, _, h, w = rows["image"].shape
        centre = torch.tensor([(w - 1) / 2, (h - 1) / 2]).expand(n, 2)
        scales = torch.stack([torch.where(mirrored, -factor, factor), factor], 1)
        matrix = KG.get_affine_matrix2d(torch.full((n, 2), (side - h) / 2), centre, scales, angle)
        image = KG.warp_affine(rows["image"], matrix[:, :2], (side, side))
        mask = KG.warp_affine(rows["mask"][:, None].float(), matrix[:, :2], (side, side), mode="nearest")
        return {
            "image": image,
            "mask": mask[:, 0].to(torch.uint8),
            "keypoints": KG.transform_points(matrix, rows["keypoints"]),
        }

    def run(rows: Rows) -> Rows:
        n = len(rows["image"])
        angle, factor = _between(torch.rand(n), -DEGREES, DEGREES), _between(torch.rand(n), *SCALE)
        moved: Rows = warped(rows, angle, factor, torch.rand(n) < 0.5)
        return moved

    return run


class Albumented(Dataset[Rows]):
    """Images as uint8 arrays, augmented one by one."""

    def __init__(self, rows: Rows, side: int) -> None:
        import albumentations as A

        self.image = rows["image"].mul(255).round().byte().permute(0, 2, 3, 1).contiguous().numpy()
        self.mask, self.keypoints = rows["mask"].numpy(), rows["keypoints"].numpy()
        self.transform = A.Compose(
            [
                A.HorizontalFlip(p=0.5),
                A.Affine(scale=SCALE, rotate=(-DEGREES, DEGREES), keep_ratio=True, p=1.0),
                A.CenterCrop(side, side),
            ],
            keypoint_params=A.KeypointParams(format="xy", remove_invisible=False),
            seed=0,
        )

    def __len__(self) -> int:
        return len(self.image)

    def __getitem__(self, i: int) -> Rows:
        sample = self.transform(image=self.image[i], mask=self.mask[i], keypoints=self.keypoints[i])
        image = torch.from_numpy(sample["image"]).permute(2, 0, 1).float() / 255
        points = torch.from_numpy(np.asarray(sample["keypoints"], np.float32))
        return {"image": image, "mask": torch.from_numpy(sample["mask"]), "keypoints": points}


def albumentations_loader(rows: Rows, side: int, images: int, workers: int) -> Iterator[Rows]:
    """Endless batches, so that the start of the workers is not timed."""
    loader = DataLoader(Albumented(rows, side), images, num_workers=workers, persistent_workers=workers > 0)
    while True:
        yield from loader


def pixel_errors(rows: Rows) -> Tensor:
    """The distances of keypoints from the centres of their blobs, for whole blobs, [m]."""
    image, points = rows["image"], rows["keypoints"]
    h, w = image.shape[-2:]
    margin = 4 * SIGMA * SCALE[1]
    whole = ((points > margin) & (points < w - 1 - margin)).all(-1)
    x, y = torch.arange(w).float(), torch.arange(h).float()
    mass = image.sum((-2, -1))
    centre = torch.stack([(image.sum(-2) * x).sum(-1) / mass, (image.sum(-1) * y).sum(-1) / mass], -1)
    return (centre - points).norm(dim=-1)[whole]


def measure(side: int, canvas: int, images: int, rounds: int, workers: int) -> dict[str, Any]:
    """Images per second of each pipeline, ratios to adaug's in each round, and errors."""
    rows = scenes(images, canvas, side)
    ours, theirs = adaug_pipeline(side), kornia_pipeline(side)
    compiled = compiled_kornia(side)
    pipelines: dict[str, Callable[[], Rows]] = {
        "adaug": lambda: ours(rows),
        "kornia": lambda: theirs(rows),
        "kornia's functions, compiled": lambda: compiled(rows),
    }
    try:
        batches = albumentations_loader(scenes(images * EPOCH, canvas, side), side, images, workers)
        pipelines["albumentations"] = lambda: next(batches)
        for _ in range(EPOCH):
            next(batches)
    except ImportError:
        print("albumentations is not installed: its row is left out")
    rates: dict[str, list[float]] = defaultdict(list)
    errors: dict[str, list[Tensor]] = defaultdict(list)
    names = list(pipelines)
    for i in range(rounds + 1):
        for name in names[i % len(names) :] + names[: i % len(names)]:
            start = time.perf_counter()
            for _ in range(EPOCH):  # a whole epoch of the loader, because its workers rest at the end
                made = pipelines[name]()
            if i:  # the first round warms up
                rates[name].append(EPOCH * images / (time.perf_counter() - start))
            errors[name].append(pixel_errors(made))
    return {
        name: {
            "images_per_second": spread(rates[name]),
            "adaug_is_faster_by": spread([a / b for a, b in zip(rates["adaug"], rates[name], strict=True)]),
            "error_px": {"mean": float(torch.cat(errors[name]).mean()), "max": float(torch.cat(errors[name]).max())},
        }
        for name in pipelines
    }


def parts(inverse: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """What each column and each row of the grid of matrices [n, 2, 3] contributes, both [n, side, 2]."""
    at = (torch.arange(side) * 2 + 1) / side - 1
    columns, rows = (inverse[:, None, :, i] * at[:, None] for i in (0, 1))
    return columns, rows + inverse[:, None, :, 2]


def sums_of_pairs(inverse: Tensor, side: int) -> Tensor:
    """The grid [n, side, side, 2], as a part for the column plus a part for the row."""
    columns, rows = parts(inverse, side)
    return rows[:, :, None] + columns[:, None]


def complex_sums(inverse: Tensor, side: int) -> Tensor:
    """The same, where each pair is added as one complex number."""
    columns, rows = (torch.view_as_complex(part.contiguous()) for part in parts(inverse, side))
    return torch.view_as_real(rows[:, :, None] + columns[:, None])


GRIDS: dict[str, Callable[[Tensor, int], Tensor]] = {
    "complex sums (adaug)": complex_sums,
    "sums of pairs": sums_of_pairs,
    "F.affine_grid": lambda inverse, side: F.affine_grid(inverse, [len(inverse), 3, side, side], align_corners=False),
}


def turned(n: int) -> Tensor:
    """Matrices [n, 2, 3] of rotations, in normalised coordinates."""
    angles = torch.linspace(-0.5, 0.5, n)
    rows = [torch.cos(angles), -torch.sin(angles), 0.1 * angles], [torch.sin(angles), torch.cos(angles), -0.1 * angles]
    return torch.stack([torch.stack(row, -1) for row in rows], 1)


def grid_ratios(side: int, images: int, rounds: int) -> dict[str, Any]:
    """The time of each of GRIDS divided by that of sampling the images."""
    inverse, image = turned(images), torch.rand(images, 3, side, side)
    points = F.affine_grid(inverse, [images, 3, side, side], align_corners=False)

    def seconds(function: Callable[[], Tensor]) -> float:
        start = time.perf_counter()
        for _ in range(EPOCH):
            function()
        return time.perf_counter() - start

    ratios: dict[str, list[float]] = defaultdict(list)
    for i in range(rounds + 1):
        sampling = seconds(lambda: F.grid_sample(image, points, align_corners=False))
        for name, grid in GRIDS.items():
            ratio = seconds(partial(grid, inverse, side)) / sampling
            if i:  # the first round warms up
                ratios[name].append(ratio)
    return {name: spread(values) for name, values in ratios.items()}


def grid_table(results: dict[int, Any]) -> str:
    """The ratios as Markdown, with a column for each side."""
    lines = [
        "| grid / sampling | " + " | ".join(f"{side} × {side}" for side in results) + " |",
        "|---|" + "--:|" * len(results),
    ]
    for name in GRIDS:
        ratios = [result[name] for result in results.values()]
        cells = [f"{ratio['median']:.2f} ({ratio['min']:.2f}–{ratio['max']:.2f})" for ratio in ratios]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def table(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    lines = ["| | | images/s | adaug is faster by | error px, mean (max) |", "|---|---|--:|--:|--:|"]
    for case, pipelines in results.items():
        for name, times in pipelines.items():
            rate, ratio, error = times["images_per_second"], times["adaug_is_faster_by"], times["error_px"]
            times = "" if name == "adaug" else f"{ratio['median']:.1f} × ({ratio['min']:.1f}–{ratio['max']:.1f})"
            lines.append(f"| {case} | {name} | {rate['median']:.0f} | {times} | {error['mean']:.3f} ({error['max']:.3f}) |")
    note = (
        "Medians of the rounds (least–greatest). Flip, scale and rotation of image, mask, keypoints. adaug and kornia take "
        "float batches that are there; albumentations takes uint8 images one by one, and its time includes floats, collating "
        "and the way from its workers, which run while nothing else does."
    )
    return "\n".join([*lines, "", note])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, nargs="+", default=[128, 256])
    parser.add_argument("--images", type=int, default=24, help="images in a batch")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--workers", type=int, default=2, help="of albumentations' DataLoader")
    parser.add_argument("--name", default="warp", help="name of the file under results/")
    options = parser.parse_args()
    torch.manual_seed(0)
    results = {}
    for side in options.side:
        for canvas, how in ((side, ""), (side * 3 // 2, ", from a canvas")):
            case = f"{side} × {side}{how}"
            results[case] = measure(side, canvas, options.images, options.rounds, options.workers)
            print(case, results[case], flush=True)
    grids = {side: grid_ratios(side, options.images, 4 * options.rounds) for side in options.side}
    text = f"{table(results)}\n\n{grid_table(grids)}"
    print(text)
    print(f"written to {save(options.name, {'rounds': options.rounds, 'cases': results, 'grids': grids}, text)}")


if __name__ == "__main__":
    main()

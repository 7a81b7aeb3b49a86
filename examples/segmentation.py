"""Segments textured shapes on clutter by a small U-Net: random views, or training against weak spots.

    python examples/segmentation.py               # a minute or two; both take the same steps from the same weights
    python examples/segmentation.py --out runs/segmentation             # also writes a page about both networks

The ignore index 255 marks borders in the masks. `Target("mask", fill=255)` also gives it to pixels that a rotation or zooming
out brings in from outside the image. Such pixels do not count: not in the loss, not in "harder", not in the audit. One seed
proves little: compare several.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor, nn
from tqdm import tqdm  # type: ignore[import-untyped, unused-ignore]

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import adaug
from examples.hourglass.tables import VIEWS, said, show, statistics

Rows = dict[str, Tensor]
ARMS = ("random", "robust", "adversarial")
CLASSES = ("background", "disc", "square", "star")
IGNORE = 255
TARGETS = {"mask": adaug.Target("mask", fill=IGNORE)}
FINE = 3  # samples per pixel and axis: antialiased images, and the pixels that a border crosses


# -- data ------------------------------------------------------------------------------------------------------------


def draw_scenes(n: int, size: int, seed: int) -> Rows:
    """`n` scenes: "image" [n, 3, size, size] in [0, 1] and "mask" [n, size, size] uint8, the same for the same seed."""
    scenes = [_scene(np.random.default_rng([seed, i]), size) for i in range(n)]
    images, masks = (torch.from_numpy(np.stack(part)) for part in zip(*scenes, strict=True))
    return {"image": images.float().permute(0, 3, 1, 2) / 255, "mask": masks}


def _scene(rng: np.random.Generator, size: int) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
    side = FINE * size
    image, mask = _texture(rng, size, 20, 130), Image.new("L", (side, side))
    clutter = Image.new("L", (side, side))
    painter = ImageDraw.Draw(clutter)
    for _ in range(rng.integers(3, 9)):  # thin lines and open arcs, which do not count as shapes
        painter.line(rng.uniform(0, side, 4).tolist(), fill=255, width=int(rng.integers(2, 7)))
        (x, y), radius = rng.uniform(0, side, 2), rng.uniform(0.04, 0.12) * side
        start, length = rng.uniform([0, 60], [360, 270])
        painter.arc((x - radius, y - radius, x + radius, y + radius), start, start + length, fill=255, width=4)
    image = _pasted(image, _texture(rng, size, 20, 250), clutter)
    for _ in range(rng.integers(2, 5)):
        label = int(rng.integers(1, len(CLASSES)))
        outline = rng.uniform(0.15, 0.85, 2) * side + _outline(label, rng.uniform(0, 360), rng.uniform(0.12, 0.24) * side)
        cover = Image.new("L", (side, side))
        ImageDraw.Draw(cover).polygon([(x, y) for x, y in outline.tolist()], fill=255)
        image = _pasted(image, _texture(rng, size, 90, 250), cover)
        mask.paste(label, mask=cover)
    samples = np.asarray(mask).reshape(size, FINE, size, FINE)
    labels, lowest = samples.max((1, 3)), samples.min((1, 3))
    labels[labels != lowest] = IGNORE  # pixels that a border crosses, which annotators leave out too
    return (image + rng.standard_normal(image.shape) * rng.uniform(2, 10)).clip(0, 255), labels


def _pasted(image: NDArray[np.float64], texture: NDArray[np.float64], cover: Image.Image) -> NDArray[np.float64]:
    """Pastes the texture over the image where the finer `cover` is white."""
    share = np.asarray(cover.reduce(FINE), np.float64)[..., None] / 255
    return image + share * (texture - image)


def _outline(label: int, turn: float, radius: float) -> NDArray[np.float64]:
    """The corners of a disc, square or star around the origin. [corners, 2]."""
    corners = {1: 40, 2: 4, 3: 10}[label]
    angle = np.radians(turn) + np.arange(corners) * 2 * np.pi / corners
    reach = np.where(np.arange(corners) % 2, 0.45, 1.2) if label == 3 else np.full(corners, {1: 0.9, 2: 1.1}[label])
    return radius * reach[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)


def _texture(rng: np.random.Generator, size: int, darkest: float, brightest: float) -> NDArray[np.float64]:
    """Stripes, dots or blotches in two colours. [size, size, 3]."""
    first, second = rng.uniform(darkest, brightest, (2, 3))
    y, x = np.mgrid[:size, :size]
    angle, period = rng.uniform(0, np.pi), rng.uniform(0.05, 0.16) * size
    u, v = (x * np.cos(angle) + y * np.sin(angle)) / period, (y * np.cos(angle) - x * np.sin(angle)) / period
    kind = rng.integers(3)
    if kind == 2:
        noise = Image.fromarray(rng.uniform(0, 255, (6, 6)).astype(np.uint8)).resize((size, size), Image.Resampling.BICUBIC)
        share = np.asarray(noise) / 255
    else:
        share = 0.5 + 0.5 * np.sin(2 * np.pi * u) * (np.sin(2 * np.pi * v) if kind else 1.0)
    blended: NDArray[np.float64] = first + (share * rng.uniform(0.2, 0.8))[..., None] * (second - first)
    return blended


# -- network and measures --------------------------------------------------------------------------------------------


def _block(inputs: int, outputs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (inputs, outputs):
        layers += [nn.Conv2d(channels, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
    return nn.Sequential(*layers)


class UNet(nn.Module):
    """A small U-Net. It works at half the image's resolution, which is a quarter of the work.

    [B, 3, H, W] -> logits [B, classes, H, W], H and W divisible by 16.
    """

    def __init__(self, classes: int = len(CLASSES), width: int = 12) -> None:
        super().__init__()
        widths = [width, 2 * width, 4 * width, 6 * width]
        self.stem = nn.Conv2d(3, width, 4, stride=2, padding=1)
        self.down = nn.ModuleList(_block(a, b) for a, b in zip([width, *widths], widths, strict=False))
        self.up = nn.ModuleList(_block(widths[i] + widths[i + 1], widths[i]) for i in (2, 1, 0))
        self.score = nn.Conv2d(width, classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        x = self.stem(image)
        skips: list[Tensor] = []
        for i, block in enumerate(self.down):
            x = block(F.max_pool2d(x, 2) if i else x)
            skips.append(x)
        for block, skip in zip(self.up, skips[-2::-1], strict=True):
            x = block(torch.cat([skip, F.interpolate(x, scale_factor=2.0, mode="nearest")], 1))
        return F.interpolate(self.score(x), image.shape[-2:], mode="bilinear", align_corners=False)


def loss_fn(output: Tensor, batch: Rows) -> Tensor:
    """Cross-entropy of each image, averaged over its valid pixels, [B, C, h, w] -> [B]. Fewer pixels do not make it easier."""
    losses = F.cross_entropy(output, batch["mask"].long(), ignore_index=IGNORE, reduction="none")  # [B, h, w]
    return losses.sum((1, 2)) / (batch["mask"] != IGNORE).sum((1, 2)).clamp(min=1)


def class_iou(predicted: Tensor, mask: Tensor, classes: int) -> Tensor:
    """Intersection over union of each class over all valid pixels of label maps, [classes]. NaN for a class in neither."""
    valid = mask != IGNORE
    pairs = mask[valid].long() * classes + predicted[valid].long()
    confusion = torch.bincount(pairs, minlength=classes**2).reshape(classes, classes).double()
    overlap = confusion.diagonal()
    return overlap / (confusion.sum(0) + confusion.sum(1) - overlap)


def iou_of_each(output: Tensor, batch: Rows) -> Tensor:
    """Intersection over union of each class in each image, [B, classes]; NaN for a class that an image lacks."""
    predicted, mask = output.argmax(1), batch["mask"]
    valid, scores = mask != IGNORE, []
    for label in range(output.shape[1]):
        there, seen = mask == label, (predicted == label) & valid
        iou = (there & seen).sum((1, 2)) / (there | seen).sum((1, 2))
        scores.append(torch.where(there.any(2).any(1), iou, torch.nan))
    return torch.stack(scores, 1)


# -- training --------------------------------------------------------------------------------------------------------


def batches(data: Rows, size: int, seed: int) -> Iterator[Rows]:
    """The batches of one epoch, in an order that depends only on the seed. A last batch that is not full is left out."""
    order = torch.randperm(len(data["image"]), generator=torch.Generator().manual_seed(seed))
    for index in order.split(size):
        if len(index) == size:
            yield {name: value[index] for name, value in data.items()}


def train(arm: str, data: Rows, args: argparse.Namespace) -> UNet:
    """Trains a network for `args.epochs` epochs. Arms differ only in the views that the network sees."""
    torch.manual_seed(args.seed)
    model = UNet()
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    steps = args.epochs * (len(data["image"]) // args.batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=5e-3, total_steps=steps)
    policy = adaug.policies.robust(flip_pairs=())  # scales, rotations, hidden parts, and flips
    more: dict[str, Any] = {}
    if arm == "adversarial":
        policy, more = adaug.policies.wide(flip_pairs=()), {"features": ["down.*"]}  # the layers to read, and to hide cells of
    augmenter = adaug.AdversarialAugmenter(policy, **more, targets=TARGETS, seed=args.seed)
    for epoch in tqdm(range(args.epochs), arm):
        for batch in batches(data, args.batch_size, args.seed * 1000 + epoch):
            if arm != "random":
                loss = augmenter.step(model, batch, loss_fn).loss
            else:
                batch = augmenter.random(batch)
                loss = loss_fn(model(batch["image"]), batch).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return model


@torch.no_grad()
def evaluate(model: UNet, data: Rows) -> dict[str, float]:
    """IoU of each class and their mean, in per cent, on the plain images."""
    model.eval()
    predicted = torch.cat([model(image).argmax(1) for image in data["image"].split(64)])
    iou = 100 * class_iou(predicted, data["mask"], len(CLASSES))
    return {**dict(zip(CLASSES, iou.tolist(), strict=True)), "mIoU": float(iou.nanmean())}


def audit(model: UNet, data: Rows) -> adaug.Audit:
    """Audits a network on scenes as they are, turned, scaled, and hidden in part, by their IoU."""
    rows = [dict(zip(data, part, strict=True)) for part in zip(*(value.split(64) for value in data.values()), strict=True)]
    groups = {name: [label] for label, name in enumerate(CLASSES)}
    return adaug.audit(model, rows, iou_of_each, VIEWS, targets=TARGETS, groups=groups, num_draws=0)


def main(argv: Sequence[str] | None = None) -> dict[str, dict[str, float]]:
    """Trains and audits the arms. Prints and returns their IoU: arm -> class, "mIoU" or statistic -> per cent."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=48, help="side of an image in pixels, divisible by 16")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--scenes", type=int, nargs=2, default=(150, 150), help="numbers of images to train on and to test on")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=["random", "robust"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="folder for audit.html")
    args = parser.parse_args(argv)

    data = [draw_scenes(n, args.size, seed=i) for i, n in enumerate(args.scenes)]
    models = {arm: train(arm, data[0], args) for arm in args.arms}
    scores = {arm: evaluate(model, data[1]) for arm, model in models.items()}

    print(f"{args.scenes[0]} training and {args.scenes[1]} test images, {args.epochs} epochs, seed {args.seed}")
    base = scores[args.arms[0]]
    print(f"{'IoU, %':12s}" + "".join(f"{arm:>18s}" for arm in scores))
    for name in base:
        cells = (of_arm[name] if arm == args.arms[0] else of_arm[name] - base[name] for arm, of_arm in scores.items())
        print(f"{name:12s}" + "".join(f"{cell:{'+' if i else ''}18.1f}" for i, cell in enumerate(cells)))
    audits = {arm: audit(model, data[1]) for arm, model in models.items()}
    print("\nIoU in per cent, the mean of the classes in an image")
    for line in show(audits, args.out):
        print(line)
    return {arm: {**of_arm, **statistics(said(audits[arm]))} for arm, of_arm in scores.items()}


if __name__ == "__main__":
    main()

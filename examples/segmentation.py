"""Segments textured shapes on clutter, or the regions of faces: random views, or training against weak spots.

    python segmentation.py                          # a minute or two; all arms take the same steps from the same weights
    python segmentation.py --data DIR --size 64                       # DIR/trainset and DIR/testset of 300-W
    python segmentation.py --out runs/segmentation                    # also writes a page about the first and the last network

It needs only adaug and its extra `examples`: copy it, and put in your network, your data and your loss. The ignore index 255
marks borders in the masks. `Target("mask", fill=255)` also gives it to pixels that a rotation or zooming out brings in from
outside the image. Such pixels do not count: not in the loss, not in "harder", not in the audit. One seed proves little: compare
several before you believe a difference.
"""

import argparse
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor, nn
from tqdm import tqdm  # type: ignore[import-untyped, unused-ignore]

import adaug

Rows = dict[str, Tensor]  # "image" [B, 3, H, W] in [0, 1] and "mask" [B, H, W] uint8
Array = NDArray[np.float64]
IGNORE = 255
TARGETS = {"mask": adaug.Target("mask", fill=IGNORE)}
CLASSES = ("background", "disc", "square", "star")
REGIONS = ("background", "face", "brows", "eyes", "nose", "mouth")  # of the faces in --data

# -- what the networks see: in training ... --------------------------------------------------------------------------

ARMS = {  # () says that a mirror image exchanges no labels
    "random": adaug.policies.wide(flip_pairs=()),  # its random views
    "robust": adaug.policies.robust(flip_pairs=()),  # views that are hard now come more often
    "adversarial": adaug.policies.wide(flip_pairs=()),  # the paper's generators propose views
}

# ... and in the audit: turned, scaled by 0.71, 1 and 1.41, and one of 4 x 4 cells hidden
VIEWS = (adaug.Rotate(-70, 70, 7), adaug.Scale(2**-0.75, 2**0.75, 3, log=True), adaug.OccludeImage((4, 4), (1,)))
GRID = "rotate × scale"  # all rotations at all scales
SHOWN: dict[str, Callable[[adaug.audits.Comparison], adaug.audits.Change]] = {  # what the table shows of a comparison
    "as it is": lambda compared: compared.mean("as it is"),
    "grid mean": lambda compared: compared.mean(GRID),
    "worst per image": lambda compared: compared.worst_per_image(GRID),  # each image in its worst view
    "hidden": lambda compared: compared.mean("occlude"),
    "worst hidden": lambda compared: compared.worst_per_image("occlude"),
}

# -- drawn scenes ----------------------------------------------------------------------------------------------------

FINE = 3  # samples per pixel and axis: antialiased images, and the pixels that a border crosses


def draw_scenes(n: int, size: int, seed: int) -> Rows:
    """Draws `n` scenes of size x size pixels. Scene i depends on the seed and on i, not on `n`."""
    scenes = [_scene(np.random.default_rng([seed, i]), size) for i in range(n)]
    images, masks = (torch.from_numpy(np.stack(part)) for part in zip(*scenes, strict=True))
    return {"image": images.float().permute(0, 3, 1, 2) / 255, "mask": masks}


def _scene(rng: np.random.Generator, size: int) -> tuple[Array, NDArray[np.uint8]]:
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


def _pasted(image: Array, texture: Array, cover: Image.Image) -> Array:
    """Pastes the texture over the image where the finer `cover` is white."""
    share = np.asarray(cover.reduce(FINE), np.float64)[..., None] / 255
    return image + share * (texture - image)


def _outline(label: int, turn: float, radius: float) -> Array:
    """The corners of a disc, square or star around the origin. [corners, 2]."""
    corners = {1: 40, 2: 4, 3: 10}[label]
    angle = np.radians(turn) + np.arange(corners) * 2 * np.pi / corners
    reach = np.where(np.arange(corners) % 2, 0.45, 1.2) if label == 3 else np.full(corners, {1: 0.9, 2: 1.1}[label])
    return radius * reach[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)


def _texture(rng: np.random.Generator, size: int, darkest: float, brightest: float) -> Array:
    """Stripes or dots in two colours. [size, size, 3]."""
    first, second = rng.uniform(darkest, brightest, (2, 3))
    y, x = np.mgrid[:size, :size]
    angle, period = rng.uniform(0, np.pi), rng.uniform(0.05, 0.16) * size
    u, v = (x * np.cos(angle) + y * np.sin(angle)) / period, (y * np.cos(angle) - x * np.sin(angle)) / period
    share = 0.5 + 0.5 * np.sin(2 * np.pi * u) * (np.sin(2 * np.pi * v) if rng.integers(2) else 1.0)
    blended: Array = first + (share * rng.uniform(0.2, 0.8))[..., None] * (second - first)
    return blended


# -- faces of 300-W --------------------------------------------------------------------------------------------------


def read_faces(folder: Path, size: int) -> Rows:
    """Reads the faces in a folder and its subfolders, and draws their regions along their 68 points.

    A face fills the central size x size of images one and a half times as wide, so that zooming out shows real surroundings.
    """
    files = sorted(folder.rglob("*.pts"))
    if not files:
        raise FileNotFoundError(f"{folder} should hold images with .pts files beside them. Found none.")
    images, masks = [], []
    for path in tqdm(files, folder.name):
        image, points = read_face(path, size, size * 3 // 2)
        images.append(image)
        masks.append(regions(points, size * 3 // 2))
    return {"image": torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255, "mask": torch.stack(masks)}


def read_face(path: Path, size: int, canvas: int) -> tuple[NDArray[np.uint8], Array]:
    """The canvas [canvas, canvas, 3] around the face of a .pts file, and its points [68, 2].

    The box of the points x 1.25 becomes the central size x size. Outside the photograph it is black.
    """
    inside = path.read_text().partition("{")[2].partition("}")[0]
    points = np.array(inside.split(), np.float64).reshape(68, 2) - 1  # the files count from 1; (0, 0) is the first centre
    low, high = points.min(0), points.max(0)
    side = 1.25 * float((high - low).max()) * canvas / size
    left, top = (low + high) / 2 + 0.5 - side / 2  # here the first pixel reaches from 0 to 1
    x, y, right, bottom = math.floor(left), math.floor(top), math.ceil(left + side), math.ceil(top + side)
    photograph = next(other for other in path.parent.glob(f"{path.stem}.*") if other.suffix in (".jpg", ".jpeg", ".png"))
    with Image.open(photograph) as image:
        region = image.convert("RGB").crop((x, y, right, bottom))
    box = (left - x, top - y, min(left - x + side, right - x), min(top - y + side, bottom - y))
    resized = region.resize((canvas, canvas), Image.Resampling.BICUBIC, box=box)
    return np.array(resized), (points + 0.5 - (left, top)) * canvas / side - 0.5


def regions(points: Array, side: int) -> Tensor:
    """The label map of a face with these 68 points, [side, side] uint8."""
    xy = [(x, y) for x, y in points.tolist()]
    mask = Image.new("L", (side, side))
    painter = ImageDraw.Draw(mask)
    painter.polygon([*xy[:17], *xy[26:16:-1]], fill=REGIONS.index("face"))
    for brow in (xy[17:22], xy[22:27]):
        painter.line(brow, fill=REGIONS.index("brows"), width=3)
    painter.polygon([xy[27], *xy[31:36]], fill=REGIONS.index("nose"))
    for eye in (xy[36:42], xy[42:48]):
        painter.polygon(eye, fill=REGIONS.index("eyes"))
    painter.polygon(xy[48:60], fill=REGIONS.index("mouth"))
    return torch.from_numpy(np.array(mask))


# -- network, loss, scores -------------------------------------------------------------------------------------------


def block(inputs: int, outputs: int) -> nn.Sequential:
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
        self.down = nn.ModuleList(block(a, b) for a, b in zip([width, *widths], widths, strict=False))
        self.up = nn.ModuleList(block(widths[i] + widths[i + 1], widths[i]) for i in (2, 1, 0))
        self.score = nn.Conv2d(width, classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        x = self.stem(image)
        skips: list[Tensor] = []
        for i, down in enumerate(self.down):
            x = down(F.max_pool2d(x, 2) if i else x)
            skips.append(x)
        for up, skip in zip(self.up, skips[-2::-1], strict=True):
            x = up(torch.cat([skip, F.interpolate(x, scale_factor=2.0, mode="nearest")], 1))
        return F.interpolate(self.score(x), image.shape[-2:], mode="bilinear", align_corners=False)


def loss_fn(output: Tensor, batch: Rows) -> Tensor:
    """Cross-entropy of each image, averaged over its valid pixels, [B, C, h, w] -> [B]. Fewer pixels do not make it easier."""
    losses = F.cross_entropy(output, batch["mask"].long(), ignore_index=IGNORE, reduction="none")  # [B, h, w]
    return losses.sum((1, 2)) / (batch["mask"] != IGNORE).sum((1, 2)).clamp(min=1)


def iou_of_each(output: Tensor, batch: Rows) -> Tensor:
    """Intersection over union of each class in each image, [B, classes]; NaN for a class that an image lacks."""
    predicted, mask = output.argmax(1), batch["mask"]
    valid, scores = mask != IGNORE, []
    for label in range(output.shape[1]):
        there, seen = mask == label, (predicted == label) & valid
        iou = (there & seen).sum((1, 2)) / (there | seen).sum((1, 2))
        scores.append(torch.where(there.any(2).any(1), iou, torch.nan))
    return torch.stack(scores, 1)


# -- train and audit -------------------------------------------------------------------------------------------------


def batches(data: Rows, size: int, seed: int) -> Iterator[Rows]:
    """The batches of one epoch, in an order that depends only on the seed. A last batch that is not full is left out."""
    order = torch.randperm(len(data["image"]), generator=torch.Generator().manual_seed(seed))
    for index in order.split(size):
        if len(index) == size:
            yield {name: value[index] for name, value in data.items()}


def train(arm: str, data: Rows, classes: Sequence[str], args: argparse.Namespace) -> UNet:
    """Trains a network for `args.epochs` epochs. Arms differ only in the views that the network sees."""
    torch.manual_seed(args.seed)
    model = UNet(len(classes))
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    steps = args.epochs * (len(data["image"]) // args.batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=5e-3, total_steps=steps)
    augmenter = adaug.AdversarialAugmenter(ARMS[arm], targets=TARGETS, output_size=args.size, seed=args.seed)
    for epoch in tqdm(range(args.epochs), arm):
        for batch in batches(data, args.batch_size, args.seed * 1000 + epoch):
            if arm == "random":
                batch = augmenter.random(batch)
                loss = loss_fn(model(batch["image"]), batch).mean()
            else:
                loss = augmenter.step(model, batch, loss_fn).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return model


def audit(model: nn.Module, data: Rows, classes: Sequence[str], size: int) -> adaug.Audit:
    """Audits a network on images as they are, turned, scaled, and hidden in part, by their IoU."""
    rows = [dict(zip(data, part, strict=True)) for part in zip(*(value.split(64) for value in data.values()), strict=True)]
    groups = {name: [label] for label, name in enumerate(classes)}
    return adaug.audit(model, rows, iou_of_each, VIEWS, targets=TARGETS, output_size=size, groups=groups, num_draws=0)


def compare(audits: dict[str, adaug.Audit]) -> dict[str, dict[str, float]]:
    """Prints and returns the main numbers in per cent. Says where the last network differs from the first beyond chance."""
    first = next(iter(audits.values()))
    compared = {arm: first.compare(audited) for arm, audited in audits.items()}
    changes = {arm: {row: figure(of_arm) for row, figure in SHOWN.items()} for arm, of_arm in compared.items()}
    scores = {arm: {row: 100 * change.after for row, change in of_arm.items()} for arm, of_arm in changes.items()}
    *_, (last, of_last) = changes.items()
    print(f"{'IoU, %':16s}" + "".join(f"{arm:>13s}" for arm in audits))
    for row in SHOWN:
        verdict = f"   {last}: {of_last[row].verdict}" if len(audits) > 1 else ""
        print(f"{row:16s}" + "".join(f"{of_arm[row]:13.1f}" for of_arm in scores.values()) + verdict)
    for name in first.groups:
        scores = {arm: {**of_arm, name: 100 * float(audits[arm].mean("as it is", name))} for arm, of_arm in scores.items()}
        print(f"{name:16s}" + "".join(f"{of_arm[name]:13.1f}" for of_arm in scores.values()) + "   (as it is)")
    return scores


def main(argv: Sequence[str] | None = None) -> dict[str, dict[str, float]]:
    """Trains and audits the arms. Prints and returns their IoU, the mean of an image: arm -> measure or class -> per cent."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with 300-W's trainset/ and testset/; default: drawn scenes")
    parser.add_argument("--size", type=int, default=48, help="side of an image in pixels, divisible by 16")
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--images", type=int, nargs=2, default=(150, 150), help="how many to train on and to test on, at most")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=["random", "robust"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="folder for audit.html")
    args = parser.parse_args(argv)

    if args.data is None:
        classes: Sequence[str] = CLASSES
        known, new = (draw_scenes(n, args.size, seed=i) for i, n in enumerate(args.images))
    else:
        classes = REGIONS
        parts = zip(("trainset", "testset"), args.images, strict=True)
        known, new = ({k: v[:n] for k, v in read_faces(args.data / part, args.size).items()} for part, n in parts)
    audits = {arm: audit(train(arm, known, classes, args), new, classes, args.size) for arm in args.arms}
    counts = f"{len(known['image'])} training and {len(new['image'])} test images"
    print(f"{counts}, {args.epochs} epochs, seed {args.seed}; IoU is the mean of the classes in an image")
    if args.out is not None:
        page = audits[args.arms[0]].html(args.out / "audit.html", compared=audits[args.arms[-1]])
        print(f"{page}: where both are weak, and on which images")
    return compare(audits)


if __name__ == "__main__":
    main()

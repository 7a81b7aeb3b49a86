"""Finds 68 landmarks on faces: random views, or training against weak spots.

    python face_alignment.py                             # a minute or two; all arms take the same steps from the same weights
    python face_alignment.py --data DIR --faces 100 300               # 300-W, DIR/trainset and DIR/testset; default: all faces
    python face_alignment.py --out runs/faces                         # also writes a page about the first and the last network

It needs only adaug and its extra `examples`: copy it, and put in your network, your data and your loss. It prints 300-W's
errors in per cent: NME (normalised mean error, over the distance of the outer eye corners), AUC (area under the curve of errors
up to 0.08), and FR (failure rate: faces with an error above 0.08). Then an audit counts the points that are found on turned,
scaled and partly hidden faces. One seed proves little: compare several before you believe a difference.
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
from adaug.keypoints import decode_heatmaps, flip_heatmaps, normalized_error, render_heatmaps

Faces = dict[str, Tensor]  # "image" [B, 3, H, W] in [0, 1], "keypoints" [B, 68, 2], "visibility" [B, 68]
Array = NDArray[np.float64]
STRIDE = 4  # image pixels for each pixel of a heat map
NEAR = 0.15  # a point counts as found within this part of the distance of the outer eye corners
ERRORS = ("NME", "AUC@0.08", "FR@0.08")
GROUPS = {"jaw": range(17), "brows": range(17, 27), "nose": range(27, 36), "eyes": range(36, 48), "mouth": range(48, 68)}
FLIP_PAIRS = [  # points that change places in a mirror image
    *((i, 16 - i) for i in range(8)), *((17 + i, 26 - i) for i in range(5)), (31, 35), (32, 34),
    (36, 45), (37, 44), (38, 43), (39, 42), (40, 47), (41, 46),
    (48, 54), (49, 53), (50, 52), (55, 59), (56, 58), (60, 64), (61, 63), (65, 67),
]  # fmt: skip

# -- what the networks see: in training ... --------------------------------------------------------------------------

ARMS = {
    "random": adaug.policies.wide(FLIP_PAIRS),  # its random views
    "robust": adaug.policies.robust(FLIP_PAIRS),  # views that are hard now come more often
    "adversarial": adaug.policies.wide(FLIP_PAIRS),  # the paper's generators propose views
}

# ... and in the audit: turned, scaled by 0.71, 1 and 1.41, and one of 4 x 4 cells hidden
VIEWS = (adaug.Rotate(-70, 70, 7), adaug.Scale(2**-0.75, 2**0.75, 3, log=True), adaug.OccludeImage((4, 4), (1,)))
GRID = "rotate × scale"  # all rotations at all scales
SHOWN: dict[str, Callable[[adaug.audits.Comparison], adaug.audits.Change]] = {  # what the table shows of a comparison
    "as it is": lambda compared: compared.mean("as it is"),
    "grid mean": lambda compared: compared.mean(GRID),
    "worst per image": lambda compared: compared.worst_per_image(GRID),  # each face in its worst view
    "in every view": lambda compared: compared.in_every_view(GRID),
    "hidden": lambda compared: compared.mean("occlude"),
    "worst hidden": lambda compared: compared.worst_per_image("occlude"),
}

# -- drawn faces -----------------------------------------------------------------------------------------------------

# The right half of a frontal face and its middle: x to the right of the image, y down, z to the viewer; 1 is the brows' width.
FACE = {
    0: (-0.61, 0.22, -0.34), 1: (-0.60, 0.38, -0.30), 2: (-0.575, 0.53, -0.25), 3: (-0.53, 0.68, -0.18),
    4: (-0.46, 0.82, -0.10), 5: (-0.365, 0.94, -0.02), 6: (-0.25, 1.04, 0.05), 7: (-0.13, 1.11, 0.09), 8: (0, 1.135, 0.1),
    17: (-0.51, 0.10, -0.02), 18: (-0.43, 0.03, 0.05), 19: (-0.32, 0.005, 0.09), 20: (-0.21, 0.02, 0.12),
    21: (-0.105, 0.055, 0.14), 27: (0, 0.20, 0.13), 28: (0, 0.305, 0.19), 29: (0, 0.41, 0.25), 30: (0, 0.51, 0.31),
    31: (-0.125, 0.585, 0.15), 32: (-0.065, 0.61, 0.19), 33: (0, 0.625, 0.21),
    36: (-0.385, 0.225, 0), 37: (-0.315, 0.175, 0.06), 38: (-0.225, 0.175, 0.07), 39: (-0.15, 0.235, 0.05),
    40: (-0.225, 0.255, 0.06), 41: (-0.31, 0.255, 0.05),
    48: (-0.24, 0.79, 0.05), 49: (-0.15, 0.75, 0.11), 50: (-0.06, 0.728, 0.15), 51: (0, 0.74, 0.155),
    57: (0, 0.895, 0.14), 58: (-0.065, 0.888, 0.13), 59: (-0.155, 0.853, 0.1), 60: (-0.205, 0.79, 0.06),
    61: (-0.065, 0.777, 0.12), 62: (0, 0.782, 0.125), 66: (0, 0.805, 0.12), 67: (-0.065, 0.803, 0.115),
}  # fmt: skip
PARTS = {  # the first point and the one after the last -> lightness; eyes and lips close to a shape
    (17, 22): 0.3, (22, 27): 0.3, (27, 31): 1.15, (31, 36): 0.6, (36, 42): 1.6, (42, 48): 1.6, (48, 60): 0.7, (60, 68): 0.2,
}  # fmt: skip


def frontal() -> Array:
    """The mean face, symmetric about x = 0. [68, 3]."""
    points = np.zeros((68, 3))
    points[list(FACE)] = list(FACE.values())
    for pair in FLIP_PAIRS:
        right, left = pair if pair[0] in FACE else pair[::-1]
        points[left] = points[right] * (-1, 1, 1)
    return points


def draw_faces(n: int, size: int, seed: int) -> Faces:
    """Draws `n` faces, each in the central size x size of its image. Face i depends on the seed and on i, not on `n`."""
    return gathered(_draw(np.random.default_rng([seed, i]), size, size * 3 // 2) for i in range(n))


def _draw(rng: np.random.Generator, size: int, canvas: int) -> tuple[NDArray[np.uint8], Array]:
    """One image [canvas, canvas, 3] and its points [68, 2]."""
    face = frontal() * rng.uniform([0.9, 0.93, 0.8], [1.1, 1.07, 1.2])
    for part in map(list, GROUPS.values()):  # they grow and move a little
        middle = face[part].mean(0)
        face[part] = middle + (face[part] - middle) * rng.uniform(0.93, 1.07) + (0, rng.normal(0, 0.02), 0)
    face[[*range(55, 60), 65, 66, 67], 1] += rng.choice([0, rng.uniform(0, 0.2)])  # an open mouth
    yaw, pitch, roll = np.radians(rng.normal(0, [20, 8, 8]))
    seen = face @ np.array([[np.cos(yaw), 0], [0, np.cos(pitch)], [np.sin(yaw), np.sin(pitch)]])  # from far away
    flat = seen @ np.array([[np.cos(roll), np.sin(roll)], [-np.sin(roll), np.cos(roll)]])
    low, high = flat.min(0), flat.max(0)
    points = (flat - (low + high) / 2) * size / 1.25 / (high - low).max() + canvas / 2 - 0.5

    fine = 3  # samples per pixel and axis
    xy, unit = (points + 0.5) * fine - 0.5, fine * size / 1.6
    image = Image.fromarray(rng.integers(0, 255, (5, 5, 3), np.uint8)).resize((canvas * fine,) * 2, Image.Resampling.BICUBIC)
    painter = ImageDraw.Draw(image)
    skin = np.array([220, 170, 140]) * rng.uniform(0.45, 1.1)

    def colour(lightness: float) -> tuple[int, ...]:
        return tuple(np.clip(skin * lightness * rng.uniform(0.85, 1.15, 3), 0, 255).astype(int).tolist())

    middle = xy[27:31].mean(0)
    up = xy[17:27].mean(0) - middle
    head = np.concatenate([xy[:17], xy[26:16:-1] + 0.8 * up])
    for outline, lightness in ((middle + (head - middle) * 1.2 + 0.1 * up, rng.uniform(0.1, 0.9)), (head, 1.0)):  # hair, skin
        painter.polygon([(x, y) for x, y in outline.tolist()], fill=colour(lightness))
    for (first, end), lightness in PARTS.items():
        stroke = [(x, y) for x, y in xy[first:end].tolist()]
        if first >= 36:
            painter.polygon(stroke, fill=colour(lightness), outline=colour(0.3))
        else:
            painter.line(stroke, fill=colour(lightness), width=round(0.05 * unit), joint="curve")
    for eye in (xy[36:42], xy[42:48]):
        (x, y), r = eye.mean(0), 0.035 * unit
        painter.ellipse((x - r, y - r, x + r, y + r), fill=(20, 15, 10))
    if rng.random() < 0.3:  # something in front of the face; points under it stay labelled
        (x, y), (w, h) = xy[rng.integers(68)], rng.uniform(0.1, 0.25, 2) * unit
        painter.rectangle((x - w, y - h, x + w, y + h), fill=colour(rng.uniform(0.2, 1.5)))
    pixels = np.asarray(image.reduce(fine)) * rng.uniform(0.7, 1.15) + rng.normal(0, rng.uniform(1, 8), (canvas, canvas, 3))
    return pixels.clip(0, 255).astype(np.uint8), points


def gathered(faces: Iterator[tuple[NDArray[np.uint8], Array]]) -> Faces:
    images, points = (torch.from_numpy(np.stack(part)) for part in zip(*faces, strict=True))
    image = images.permute(0, 3, 1, 2).float() / 255
    return {"image": image, "keypoints": points.float(), "visibility": torch.ones(len(image), 68)}


# -- faces of 300-W --------------------------------------------------------------------------------------------------


def read_faces(folder: Path, size: int) -> Faces:
    """Reads the faces in a folder and its subfolders.

    A face fills the central size x size of images one and a half times as wide, so that zooming out shows real surroundings.
    """
    files = sorted(folder.rglob("*.pts"))
    if not files:
        raise FileNotFoundError(f"{folder} should hold images with .pts files beside them. Found none.")
    return gathered(read_face(path, size, size * 3 // 2) for path in tqdm(files, folder.name))


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


# -- network, loss, scores -------------------------------------------------------------------------------------------


def layer(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())


class PointUNet(nn.Module):
    """Down and up again: [B, 3, H, W] -> logits of where each point is, [B, 68, H / 4, W / 4]; H, W divisible by 16."""

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        self.stem = nn.Sequential(layer(3, width // 2, kernel=5, stride=2), layer(width // 2, width, stride=2))
        self.down = nn.ModuleList([layer(width, width), nn.Sequential(layer(width, width), layer(width, width))])
        self.neck = nn.Sequential(layer(width, width), layer(width, width))
        self.up = nn.ModuleList([layer(2 * width, width), layer(2 * width, width)])
        self.score = nn.Conv2d(width, 68, 1)

    def forward(self, image: Tensor) -> Tensor:
        fine = self.down[0](self.stem(image))
        coarse = self.down[1](F.max_pool2d(fine, 2))
        x = self.neck(F.max_pool2d(coarse, 2))
        for up, skip in zip(self.up, (coarse, fine), strict=True):
            x = up(torch.cat([skip, F.interpolate(x, scale_factor=2.0, mode="nearest")], 1))
        logits: Tensor = self.score(x)
        return logits


def loss_fn(output: Tensor, batch: Faces) -> Tensor:
    """Cross-entropy over the places of each point, averaged over the points in the frame, [B]."""
    target = render_heatmaps(batch["keypoints"], output.shape[-1], stride=STRIDE, visibility=batch["visibility"])
    target = target / target.sum((2, 3), keepdim=True).clamp(min=1e-9)
    losses = -(target * output.flatten(2).log_softmax(2).view_as(output)).sum((2, 3))  # [B, 68]
    return losses.sum(1) / batch["visibility"].sum(1).clamp(min=1)


def heatmaps(output: Tensor) -> Tensor:
    """Probabilities of places, [B, 68, h, w]."""
    return output.float().flatten(2).softmax(2).view_as(output)


def difficulty(output: Tensor, batch: Faces) -> Tensor:
    """The error over the size of the face, [B]. So a face does not become "harder" by enlarging it."""
    return normalized_error(heatmaps(output), batch)


def inter_ocular(keypoints: Tensor) -> Tensor:
    """The distance of the outer eye corners. [B, 68, 2] -> [B]."""
    return (keypoints[:, 36] - keypoints[:, 45]).norm(dim=-1)


def nme(predicted: Tensor, truth: Tensor) -> Tensor:
    """The normalised mean error of each face. [B, 68, 2], [B, 68, 2] -> [B]."""
    return (predicted - truth).norm(dim=-1).mean(-1) / inter_ocular(truth)


def measures(error: Tensor) -> dict[str, float]:
    """300-W's measures in per cent, from the NME [N] of each face."""
    auc = (1 - error.double() / 0.08).clamp(min=0).mean()  # exact: an error e adds a step from e on, of area 0.08 - e
    values = error.mean(), auc, (error > 0.08).double().mean()
    return {name: 100 * float(value) for name, value in zip(ERRORS, values, strict=True)}


def found(output: Tensor, batch: Faces) -> Tensor:
    """Which points are found (1) or not (0), [B, 68]. The distance of the eyes is that in the view."""
    predicted, _ = decode_heatmaps(heatmaps(output), stride=STRIDE)
    distance = (predicted - batch["keypoints"]).norm(dim=-1)
    return (distance <= NEAR * inter_ocular(batch["keypoints"])[:, None]).float()


# -- train, test and audit -------------------------------------------------------------------------------------------


def batches(data: Faces, size: int, seed: int | None = None) -> Iterator[Faces]:
    """The batches of one epoch: full ones in an order that depends only on the seed, or without a seed all in order."""
    n = len(data["image"])
    order = torch.arange(n) if seed is None else torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    for index in order.split(size):
        if seed is None or len(index) == size:
            yield {name: value[index] for name, value in data.items()}


def train(arm: str, data: Faces, args: argparse.Namespace) -> PointUNet:
    """Trains a network for `args.epochs` epochs. Arms differ only in the views that the network sees."""
    torch.manual_seed(args.seed)
    model = PointUNet()
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    steps = args.epochs * (len(data["image"]) // args.batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=5e-3, total_steps=steps)
    augmenter = adaug.AdversarialAugmenter(ARMS[arm], output_size=args.size, difficulty=difficulty, seed=args.seed)
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
    return model.eval()


@torch.no_grad()
def evaluate(model: nn.Module, data: Faces, size: int) -> dict[str, float]:
    """300-W's measures in per cent, on the faces as they are. Predictions are averaged with those on the mirror image."""
    margin, errors = (data["image"].shape[-1] - size) // 2, []
    for batch in batches(data, 64):
        image = F.pad(batch["image"], [-margin] * 4)  # the central crop
        maps, mirrored = heatmaps(model(image)), heatmaps(model(image.flip(-1)))
        predicted, _ = decode_heatmaps((maps + flip_heatmaps(mirrored, FLIP_PAIRS)) / 2, stride=STRIDE)
        errors.append(nme(predicted, batch["keypoints"] - margin))
    return measures(torch.cat(errors))


def audit(model: nn.Module, data: Faces, size: int) -> adaug.Audit:
    """Audits a network on faces as they are, turned, scaled, and hidden in part: which points does it find?"""
    return adaug.audit(model, list(batches(data, 64)), found, VIEWS, output_size=size, groups=GROUPS, num_draws=0)


def compare(audits: dict[str, adaug.Audit]) -> dict[str, dict[str, float]]:
    """Prints and returns the main numbers in per cent. Says where the last network differs from the first beyond chance."""
    first = next(iter(audits.values()))
    compared = {arm: first.compare(audited) for arm, audited in audits.items()}
    changes = {arm: {row: figure(of_arm) for row, figure in SHOWN.items()} for arm, of_arm in compared.items()}
    scores = {arm: {row: 100 * change.after for row, change in of_arm.items()} for arm, of_arm in changes.items()}
    *_, (last, of_last) = changes.items()
    print(f"{'points found, %':16s}" + "".join(f"{arm:>13s}" for arm in audits))
    for row in SHOWN:
        verdict = f"   {last}: {of_last[row].verdict}" if len(audits) > 1 else ""
        print(f"{row:16s}" + "".join(f"{of_arm[row]:13.1f}" for of_arm in scores.values()) + verdict)
    return scores


def main(argv: Sequence[str] | None = None) -> dict[str, dict[str, float]]:
    """Trains, tests and audits the arms. Prints and returns the results: arm -> measure -> per cent."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with 300-W's trainset/ and testset/; default: drawn faces")
    parser.add_argument("--size", type=int, default=64, help="side of a view in pixels, divisible by 16")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--faces", type=int, nargs=2, help="to train and to test on; default: 240 and 150, or all in DIR")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=["random", "robust"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="folder for audit.html")
    args = parser.parse_args(argv)

    if args.data is None:
        known, new = (draw_faces(n, args.size, seed=i) for i, n in enumerate(args.faces or (240, 150)))
    else:
        parts = zip(("trainset", "testset"), args.faces or (None, None), strict=True)
        known, new = ({k: v[:n] for k, v in read_faces(args.data / part, args.size).items()} for part, n in parts)
    errors, audits = {}, {}
    for arm in args.arms:
        model = train(arm, known, args)
        errors[arm], audits[arm] = evaluate(model, new, args.size), audit(model, new, args.size)

    print(f"{len(known['image'])} training and {len(new['image'])} test faces, {args.epochs} epochs, seed {args.seed}")
    print(f"{'error, %':16s}" + "".join(f"{arm:>13s}" for arm in errors))
    for name in ERRORS:
        print(f"{name:16s}" + "".join(f"{of_arm[name]:13.2f}" for of_arm in errors.values()))
    if args.out is not None:
        page = audits[args.arms[0]].html(args.out / "audit.html", compared=audits[args.arms[-1]])
        print(f"{page}: where both are weak, and on which images")
    return {arm: {**errors[arm], **scores} for arm, scores in compare(audits).items()}


if __name__ == "__main__":
    main()

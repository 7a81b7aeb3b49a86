"""Where is a network weak that others trained? Audits MTCNN's O-Net from facenet-pytorch on Helen's test faces.

    python -m venv elsewhere                             # the network needs an environment of its own
    elsewhere/bin/pip install torch==2.13.0 numpy "kornia>=0.9" typing-extensions pillow matplotlib tqdm requests
    elsewhere/bin/pip install --no-deps facenet-pytorch  # its dependencies would bring an old torch
    elsewhere/bin/python benchmarks/audit_real.py --data DIR    # DIR/helen/trainset and DIR/helen/testset of 300-W

The package imports torchvision, which O-Net does not use. So an empty stand-in replaces torchvision. Class and weights are the
package's own.

The network sees a square window of 48 x 48 pixels, cut from a larger part of the photograph. The window is as wide as the box
of the 68 landmarks, and a tenth of this further up: there the network finds most points on 200 faces of the trainset
(`--windows` prints them). A point counts as found within a tenth of the distance of the eyes. "Face" means a probability above
the package's threshold, 0.7. A separate loop without adaug makes the rotation curve again.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import itertools
import math
import sys
import time
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import adaug
from adaug import Audit, Brightness, Contrast, OccludeImage, Rotate, Scale, Translate
from benchmarks import draw
from benchmarks.result_files import save
from examples.datasets.cropping import cut, to_crop
from examples.datasets.w300 import read_pts

Rows = dict[str, Tensor]
SIDE, CANVAS = 48, 120  # pixels
WIDE, UP = 1.0, 0.1  # the window, in widths of the landmarks' box
PHOTOGRAPHED = 156  # pixels of that box in Helen's photographs, as they come cropped
NEAR, FACE = 0.1, 0.7
GROUPS = {"eyes": (0, 1), "nose": (2,), "mouth": (3, 4)}
ROTATE = Rotate(-90, 90, 13)
VIEWS = (
    ROTATE,
    Scale(0.5, 2.0, 9, log=True),
    Translate(-0.3, 0.3, 9, axis="x"),
    Translate(-0.3, 0.3, 9, axis="y"),
    Brightness(0.2, 5.0, 9, log=True),
    Contrast(0.2, 5.0, 9, log=True),
    OccludeImage((4, 4), (1,)),
)
FACE_VIEWS = (*VIEWS[:2], *VIEWS[4:])  # without pairs of shifts, which would be three quarters of the work
TURNS = (-60.0, -30.0, 0.0, 30.0, 60.0)  # rotations that the repaired model tries


# ---- the network and its scores


class Points(torch.nn.Module):
    """O-Net with images in [0, 1] as its input, and points in pixels [B, 5, 2] and the probability of a face [B].

    The package reads a fraction p of a box of w pixels as the pixel w * p of the photograph. Shrunk to a crop of s pixels that
    is s * p - (1 - s / w) / 2.
    """

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Rows:
        image = F.interpolate(image, size=SIDE, mode="area")  # as the package does; does nothing at 48 x 48
        _, points, face = self.network((image * 255 - 127.5) * 0.0078125)
        fractions = torch.stack([points[:, :5], points[:, 5:]], -1)  # five x, then five y
        return {"keypoints": SIDE * fractions - (1 - SIDE / PHOTOGRAPHED) / 2, "face": face[:, 1]}


class Upright(torch.nn.Module):
    """A repair without training: tries some rotations of the crop and takes the one that looks most like a face."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> Rows:
        found = [self._turned(image, angle) for angle in TURNS]
        face = torch.stack([of["face"] for of in found])  # [turns, B]
        best, rows = face.argmax(0), torch.arange(len(image))
        return {"keypoints": torch.stack([of["keypoints"] for of in found])[best, rows], "face": face[best, rows]}

    def _turned(self, image: Tensor, angle: float) -> Rows:
        seen = adaug.apply_view({"image": image}, [(ROTATE, angle)])["image"] if angle else image
        found = self.model(seen)
        back = {"image": seen, "keypoints": found["keypoints"]}
        return {**found, "keypoints": adaug.apply_view(back, [(ROTATE, -angle)])["keypoints"]}


class Finer(torch.nn.Module):
    """The same network on crops with twice the side. Points are in pixels of these crops."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> Rows:
        output = self.model(image)
        return {**output, "keypoints": output["keypoints"] * 2 + 0.5}


def load_network() -> tuple[torch.nn.Module, str]:
    """The package's O-Net with its weights, and their fingerprint."""
    for name in ("torchvision", "torchvision.transforms", "torchvision.ops", "torchvision.ops.boxes"):
        sys.modules.setdefault(name, MagicMock())
    module = importlib.import_module("facenet_pytorch.models.mtcnn")
    weights = Path(module.__file__ or "").parents[1] / "data" / "onet.pt"
    return module.ONet().eval(), hashlib.sha256(weights.read_bytes()).hexdigest()[:16]


def errors(output: Rows, batch: Rows) -> Tensor:
    """The error of each point over the distance of the eyes, [B, 5]."""
    truth = batch["keypoints"]
    eyes = (truth[:, 0] - truth[:, 1]).norm(dim=-1)
    return (output["keypoints"] - truth).norm(dim=-1) / eyes[:, None]


def found(output: Rows, batch: Rows) -> Tensor:
    """Which points are found, [B, 5]."""
    return (errors(output, batch) < NEAR).float()


def is_face(output: Rows, batch: Rows) -> Tensor:
    """Which images the network takes for a face, [B]."""
    return (output["face"] > FACE).float()


# ---- faces


def five_points(landmarks: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The centres of the eyes, the tip of the nose and the corners of the mouth. [68, 2] -> [5, 2]."""
    eyes = [landmarks[eye].mean(0) for eye in (slice(36, 42), slice(42, 48))]
    return np.stack([*eyes, landmarks[30], landmarks[48], landmarks[54]])


def load_faces(folder: Path, most: int | None, side: int = SIDE, wide: float = WIDE, up: float = UP) -> Rows:
    """Canvases [N, 3, ., .] uint8 whose central `side` pixels are the window, and keypoints [N, 5, 2] in them."""
    canvas = side * CANVAS // SIDE
    images, points = [], []
    for path in sorted(folder.glob("*.jpg"))[:most]:
        landmarks = read_pts(path.with_suffix(".pts"))
        low, high = landmarks.min(0), landmarks.max(0)
        box = float((high - low).max())
        centre = (low + high) / 2 - [0, up * box]
        images.append(cut(path, centre, wide * box, side, canvas))
        points.append(to_crop(five_points(landmarks), centre, np.float64(wide * box), side, canvas))
    if not images:
        raise FileNotFoundError(f"{folder} should hold images with .pts files beside them. Found none.")
    return {"image": torch.from_numpy(np.stack(images)), "keypoints": torch.from_numpy(np.stack(points)).float()}


def batches(faces: Rows, size: int = 64) -> list[Rows]:
    """The batches of a loader: images in [0, 1] with their keypoints."""
    parts = zip(faces["image"].split(size), faces["keypoints"].split(size), strict=True)
    return [{"image": image.float() / 255, "keypoints": points} for image, points in parts]


def windows(model: torch.nn.Module, folder: Path) -> str:
    """The fraction of points that are found in windows of other sizes and places, as Markdown."""
    lines = ["| window | up | points found | error |", "|--:|--:|--:|--:|"]
    for wide, up in itertools.product((0.8, 0.9, 1.0, 1.1, 1.2, 1.4), (0.0, 0.05, 0.1, 0.15, 0.2)):
        faces = load_faces(folder, 200, wide=wide, up=up)
        audited = [
            adaug.audit(model, batches(faces), score, [Rotate(-1, 1, 2)], num_draws=0, output_size=SIDE).mean("as it is")
            for score in (found, errors)
        ]
        lines.append(f"| {wide} | {up} | {audited[0]:.3f} | {audited[1]:.4f} |")
    return "\n".join(lines)


# ---- the same curve again, without adaug


def by_hand(network: Callable[[Tensor], Any], images: Tensor, folder: Path) -> tuple[list[float], list[float]]:
    """The rotation curve of canvases [N, 3, 120, 120] uint8: points found, and their mean error. It uses nothing from adaug."""
    files = sorted(folder.glob("*.pts"))[: len(images)]
    rows = [[line.split() for line in file.read_text().split("{")[1].split("}")[0].split("\n") if line] for file in files]
    p = torch.tensor([[[float(x) - 1, float(y) - 1] for x, y in row] for row in rows])  # [N, 68, 2], counted from 0
    low, side = p.amin(1), (p.amax(1) - p.amin(1)).amax(1)
    centre = (low + p.amax(1)) / 2 - torch.stack([0 * side, side / 10], 1)
    five = torch.stack([p[:, 36:42].mean(1), p[:, 42:48].mean(1), p[:, 30], p[:, 48], p[:, 54]], 1)
    five = (five - centre[:, None]) * (48 / side)[:, None, None]  # from the centre of the window, in pixels of the crop
    hits, distances = [], []
    for i in range(13):
        angle = math.radians(-90 + 180 / 13 * (i + 0.5))
        c, s = math.cos(angle), math.sin(angle)
        theta = 48 / 120 * torch.tensor([[[c, -s, 0], [s, c, 0]]]).expand(len(images), 2, 3)  # crop -> canvas
        grid = F.affine_grid(theta, [len(images), 3, 48, 48], align_corners=False)
        crop = F.grid_sample(images.float(), grid, align_corners=False)
        truth = five @ torch.tensor([[c, -s], [s, c]]) + 23.5
        with torch.no_grad():
            out = network((crop - 127.5) / 128)[1].reshape(-1, 2, 5).transpose(1, 2) * 48 - 0.5 + 24 / 156
        error = (out - truth).norm(dim=2) / (truth[:, 0] - truth[:, 1]).norm(dim=1)[:, None]
        error[((truth < -0.5) | (truth >= 47.5)).any(2)] = math.nan
        hits.append(float(torch.where(error.isnan(), error, (error < 0.1).float()).nanmean(1).nanmean()))
        distances.append(float(error.nanmean(1).nanmean()))
    return hits, distances


def difference(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The largest difference between two curves."""
    return max(abs(a - b) for a, b in zip(ours, theirs, strict=True))


# ---- the results as Markdown


def per_cent(value: Any) -> str:
    """An estimate with its interval in per cent."""
    return f"{100 * value:.1f} ({100 * value.low:.1f} to {100 * value.high:.1f})"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table with a head. All columns but the first are aligned to the right."""
    lines = [head, ["---", *["--:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def families(audit: Audit) -> str:
    """The statistics of each family of views."""
    rows = []
    for name in (*(family.name for family in audit.families), None):
        row = [name or "all views", str(len(audit.columns(name))), per_cent(audit.mean(name))]
        if len(audit.columns(name)) > 1:
            view, worst = audit.worst(name)
            row += [f"{per_cent(worst)}, {view}", *(f"{100 * value:.1f}" for value in _of_each_image(audit, name))]
        rows.append(row + [""] * (7 - len(row)))
    return table(["views", "number", "mean", "worst view", "worst per image", "worst 10 %", "in every view"], rows)


def _of_each_image(audit: Audit, name: str | None) -> tuple[float, float, float]:
    return audit.worst_per_image(name), audit.cvar(views=name), audit.in_every_view(name)


def rotation(points: Audit, face: Audit, hand: Sequence[float]) -> str:
    """The rotation curve: all points, each group, faces, the loop."""
    curve, seen = points.curve("rotate"), face.curve("rotate")
    of_groups = [points.curve("rotate", group).mean for group in GROUPS]
    rows = [
        [
            label,
            per_cent(curve.mean[i]),
            *(f"{100 * of[i]:.1f}" for of in of_groups),
            per_cent(seen.mean[i]),
            f"{100 * curve.counted[i]:.1f}",
            f"{100 * hand[i]:.1f}",
        ]
        for i, label in enumerate(curve.axis.labels)
    ]
    return table(["turn", "points found", *GROUPS, "taken for a face", "points that count", "the loop"], rows)


def along(name: str, points: Audit, face: Audit) -> str:
    """The curve of another operation: all points, and faces."""
    curve, seen = points.curve(name), face.curve(name)
    rows = [
        [label, per_cent(curve.mean[i]), per_cent(seen.mean[i]), f"{100 * curve.counted[i]:.1f}"]
        for i, label in enumerate(curve.axis.labels)
    ]
    return table([f"{name}, factor", "points found", "taken for a face", "points that count"], rows)


def groups(audit: Audit) -> str:
    """Each group as it is and under all views."""
    rows = []
    for name in GROUPS:
        view, worst = audit.worst(group=name)
        means = audit.mean("as it is", name), audit.mean(group=name), worst
        rows.append([name, *(per_cent(value) for value in means), view, f"{100 * audit.worst_per_image(group=name):.1f}"])
    return table(["group", "as it is", "mean of all views", "worst view", "which", "worst per image"], rows)


def changes(before: Audit, after: Audit) -> str:
    """The changes that a repair makes."""
    rows = []
    for change in before.compare(after).changes:
        low, high = 100 * change.difference.low, 100 * change.difference.high
        difference = f"{100 * change.difference:+.1f} ({low:+.1f} to {high:+.1f})"
        rows.append([change.name, f"{100 * change.before:.1f}", f"{100 * change.after:.1f}", difference, change.verdict])
    return table(["", "before", "after", "difference", ""], rows)


# ---- the run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with helen/trainset and helen/testset of 300-W")
    parser.add_argument("--out", type=Path, help="folder for the audits; those that are there are continued")
    parser.add_argument("--images", type=int, help="number of faces; default: all")
    parser.add_argument("--name", default="audit_real", help="name of the files under results/")
    parser.add_argument("--windows", action="store_true", help="only print how windows were chosen")
    args = parser.parse_args()

    network, weights = load_network()
    model, testset = Points(network), args.data / "helen" / "testset"
    if args.windows:
        print(windows(model, args.data / "helen" / "trainset"))
        return
    faces, fine = (load_faces(testset, args.images, side) for side in (SIDE, 2 * SIDE))

    def audit(name: str, asked: torch.nn.Module, score: Callable[[Rows, Rows], Tensor], **kwargs: Any) -> Audit:
        start, path = time.process_time(), args.out / f"{name}.audit" if args.out else None
        loader, views = batches(kwargs.pop("faces", faces)), kwargs.pop("views", VIEWS)
        made = adaug.audit(asked, loader, score, views, path=path, **kwargs)
        print(f"\n{name}, {time.process_time() - start:.0f} CPU seconds\n{made}", flush=True)
        return made

    points = audit("points", model, found, output_size=SIDE, groups=GROUPS)
    face = audit("face", model, is_face, output_size=SIDE, views=FACE_VIEWS)
    turns = audit("errors", model, errors, output_size=SIDE, views=[ROTATE], num_draws=0, higher_is_better=False)
    before = audit("before", model, found, output_size=SIDE, views=VIEWS[:2], groups=GROUPS)
    after = audit("after", Upright(model), found, output_size=SIDE, views=VIEWS[:2], groups=GROUPS)
    finer = audit("finer", Finer(model), found, output_size=2 * SIDE, faces=fine, views=VIEWS[:2], num_draws=0, groups=GROUPS)

    hits, distances = by_hand(network, faces["image"], testset)
    apart = {
        "points found": difference(points.curve("rotate").mean, hits),
        "mean error": difference(turns.curve("rotate").mean, distances),
    }
    blur = {name: difference(points.curve(name).mean, finer.curve(name).mean) for name in ("rotate", "scale")}
    package = metadata.version("facenet-pytorch")
    text = "\n\n".join(
        [
            f"O-Net of facenet-pytorch {package} (weights {weights}…) on {len(points)} test faces of "
            f"Helen. A point is found within {NEAR} of the distance of the eyes. Per cent, with 95 % intervals over images.",
            families(points),
            "What `print(report)` shows if turns and sizes alone are asked for:",
            f"```text\n{before}\n```",
            "**Rotation.** "
            f"The independent loop differs by {apart['points found']:.1g} at most in the share of points that are found, and "
            f"by {apart['mean error']:.1g} in their mean error (as a part of the distance of the eyes).",
            rotation(points, face, hits),
            "**Size and light.**",
            along("scale", points, face),
            along("brightness", points, face),
            "**Each group.**",
            groups(points),
            f"**Is it a face?** A probability above {FACE}, the threshold of the package.",
            families(face),
            "**Blur.** The same views cut from canvases of twice the resolution and averaged to 48 × 48, so that a larger face "
            f"shows real detail, move the rotation curve by {100 * blur['rotate']:.1f} at most and the scale curve by "
            f"{100 * blur['scale']:.1f}.",
            "**Repaired without training.** The network looks at five turns of each crop (−60° to 60°), and the points of the "
            "one that is most like a face count.",
            changes(before, after),
            "`before.compare(after).worse(by=0.02)`: "
            + ", ".join(f'"{name}"' for name in before.compare(after).worse(by=0.02))
            + ".",
        ]
    )
    audits = {"points": points, "face": face, "errors": turns, "finer": finer, "before": before, "after": after}
    result = {
        "versions": {name: metadata.version(name) for name in ("facenet-pytorch", "torch", "kornia", "numpy", "pillow")},
        "weights": weights,
        "loop": {"points found": hits, "mean error": distances, "largest difference": apart},
        "blur": blur,
        "audits": {name: made.to_dict() for name, made in audits.items()},
    }
    print(text)
    print(f"written to {save(args.name, result, text, draw.audited(points, face, after, hits))}")


if __name__ == "__main__":
    main()

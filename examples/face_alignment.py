"""Finds 68 landmarks on faces: random views, or training against weak spots, with the same number of steps.

    python examples/face_alignment.py                                   # drawn faces, about a minute
    python examples/face_alignment.py --data DIR --epochs 40            # DIR/trainset and DIR/testset of 300-W
    python examples/face_alignment.py --data DIR --faces 100 300        # 100 faces to learn from, 300 to test on

It prints 300-W's errors in per cent: the NME (normalised mean error, over the distance of the outer eye corners), the AUC (area
under the curve of errors up to 0.08), and the failure rate (faces with an error above 0.08). Then an audit counts the points
that are found on turned, scaled and partly hidden faces; `--out DIR` writes it as a page. One seed proves little: compare
several before you believe a difference.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor
from tqdm import tqdm  # type: ignore[import-untyped, unused-ignore]

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import adaug
from adaug.keypoints import decode_heatmaps, flip_heatmaps, normalized_error, render_heatmaps
from adaug.operations import Geometric
from examples.datasets.drawn_faces import draw_faces
from examples.datasets.people import TARGETS, Batch, People
from examples.datasets.w300 import W300, auc, failure_rate, inter_ocular, load_w300, nme
from examples.hourglass.losses import heatmap_cross_entropy, predicted_heatmaps
from examples.hourglass.model import StackedHourglass
from examples.hourglass.tables import VIEWS, each_view, said, show, statistics

ARMS = ("none", "random", "uniform", "trivial", "running", "robust", "global", "asr", "aho", "adversarial")
POLICIES = {
    "paper": adaug.policies.paper(W300.flip_pairs),
    "wide": adaug.policies.wide(W300.flip_pairs),
    "rest": adaug.policies.wide(W300.flip_pairs, rest=True),
}
STRIDE: Final = 4
ERRORS = ("NME", "AUC@0.08", "FR@0.08", "NME, training")
NEAR = 0.15  # a point counts as found within this part of the distance of the outer eye corners
LAYERS = ["hg.0.skip*", "hg.0.neck"]  # the layers that generators read and masks multiply


def loss_fn(output: list[Tensor], batch: Batch) -> Tensor:
    """Cross-entropy over the pixels of each heat map, [B]."""
    target = render_heatmaps(batch["keypoints"], output[-1].shape[-1], stride=STRIDE, visibility=batch["visibility"])
    return heatmap_cross_entropy(output, target, batch["visibility"])


def difficulty(output: list[Tensor], batch: Batch) -> Tensor:
    """The error over the size of the face, [B]. So a face does not become "harder" by enlarging it."""
    return normalized_error(predicted_heatmaps("cross-entropy", output), batch)


def policy_of(arm: str, policy: adaug.Policy) -> adaug.Policy:
    """The policy of an arm. "global" learns one distribution for all images."""
    asr, aho = policy.branches
    return {
        "none": adaug.Policy(()),
        "uniform": adaug.policies.uniform(policy),
        "running": adaug.policies.running(policy),
        "robust": adaug.policies.running(policy.on_image()),  # policies.robust, if the policy is wide
        "trivial": adaug.policies.trivial(W300.flip_pairs),
        "asr": replace(policy, branches=[asr]),
        "aho": adaug.Policy([aho], [*policy.common, *(one for one in asr.operations if isinstance(one, Geometric))]),
    }.get(arm, policy)


def train(arm: str, faces: People, args: argparse.Namespace) -> StackedHourglass:
    """Trains a network for `args.epochs` epochs. Arms differ only in the views that the network sees."""
    torch.manual_seed(args.seed)
    depth = (args.size // STRIDE).bit_length() - 3  # the neck is 4 x 4
    model = StackedHourglass(len(W300), width=args.width, depth=depth, stride=STRIDE).to(args.device)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    steps = args.epochs * (len(faces) // args.batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1e-2, total_steps=steps)
    policy = policy_of(arm, POLICIES[args.policy])
    more: dict[str, Any] = {}
    if arm == "global":
        more = {"features": (), "generator": adaug.learners.OneForAll}
    elif any(branch.has_generator for branch in policy.branches):
        more = {"features": LAYERS}
    augmenter = adaug.AdversarialAugmenter(
        policy,
        **more,
        occlude=LAYERS if policy.hides_features else None,
        targets=TARGETS,
        output_size=args.size,  # faces come in larger images, so zooming out shows real surroundings
        difficulty=difficulty,
        seed=args.seed,
    )
    for epoch in tqdm(range(args.epochs), arm):
        for cpu in faces.batches(args.batch_size, seed=args.seed, epoch=epoch, drop_last=True):
            batch = {name: value.to(args.device) for name, value in cpu.items()}
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


@torch.no_grad()
def evaluate(model: StackedHourglass, faces: People, args: argparse.Namespace) -> Tensor:
    """The NME [N] on each face's central crop. Predictions are averaged with those on the mirror image."""
    model.eval()
    errors = []
    for batch in faces.cropped(args.size).batches(64, shuffle=False):
        image = batch["image"].to(args.device)
        maps, mirrored = (predicted_heatmaps("cross-entropy", model(shown)) for shown in (image, image.flip(-1)))
        predicted, _ = decode_heatmaps((maps + flip_heatmaps(mirrored, W300.flip_pairs)) / 2, stride=STRIDE)
        errors.append(nme(predicted.cpu(), batch["keypoints"]))
    return torch.cat(errors)


def found(output: list[Tensor], batch: Batch) -> Tensor:
    """Which points are found (1) or not (0), [B, 68]. The distance of the eyes is that in the view."""
    predicted, _ = decode_heatmaps(predicted_heatmaps("cross-entropy", output), stride=STRIDE)
    distance = (predicted - batch["keypoints"]).norm(dim=-1)
    return (distance <= NEAR * inter_ocular(batch["keypoints"])[:, None]).float()


def audit(model: StackedHourglass, faces: People, size: int) -> adaug.Audit:
    """Audits a network on faces as they are, turned, scaled, and hidden in part."""
    batches = list(faces.batches(64, shuffle=False))
    return adaug.audit(model, batches, found, VIEWS, targets=TARGETS, output_size=size, groups=W300.groups, num_draws=0)


def errors_of(model: StackedHourglass, known: People, new: People, args: argparse.Namespace) -> dict[str, float]:
    """The NME, AUC and failure rate of a network, in per cent."""
    error = evaluate(model, new, args)
    values = (float(error.mean()), auc(error), failure_rate(error), float(evaluate(model, known, args).mean()))
    return {name: 100 * value for name, value in zip(ERRORS, values, strict=True)}


def main(argv: Sequence[str] | None = None) -> dict[str, dict[str, float]]:
    """Trains and audits the arms. Prints and returns the results: arm -> measure -> per cent."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with 300-W's trainset/ and testset/; default: drawn faces")
    parser.add_argument("--size", type=int, default=64, choices=(32, 64, 128, 256), help="side of a crop in pixels")
    parser.add_argument("--width", type=int, default=48, help="channels of the hourglass")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument(
        "--faces", type=int, nargs=2, help="numbers of faces to train and to test on; default: 240 and 150, or all in DIR"
    )
    parser.add_argument(
        "--arms", nargs="+", choices=ARMS, default=["random", "robust"], help="arms to train; differences are to the first"
    )
    parser.add_argument(
        "--policy", choices=POLICIES, default="wide", help="policy whose ranges all arms but none and trivial use"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, help="folder for audit.html")
    args = parser.parse_args(argv)

    canvas = args.size * 3 // 2
    if args.data is None:
        known, new = (draw_faces(n, size=args.size, canvas=canvas, seed=i) for i, n in enumerate(args.faces or (240, 150)))
    else:
        known, new = (load_w300(args.data / part, size=args.size, canvas=canvas) for part in ("trainset", "testset"))
        if args.faces is not None:
            known, new = (faces.subset(range(min(n, len(faces)))) for faces, n in zip((known, new), args.faces, strict=True))
    scores, audits = {}, {}
    for arm in args.arms:
        model = train(arm, known, args)
        scores[arm], audits[arm] = errors_of(model, known, new, args), audit(model, new, args.size)

    print(f"{len(known)} training and {len(new)} test faces, {args.epochs} epochs, seed {args.seed}")
    base = scores[args.arms[0]]
    print(f"{'per cent':12s}" + "".join(f"{name:>18s}" for name in base))
    for arm, errors in scores.items():
        change = {name: "" if arm == args.arms[0] else f" ({value - base[name]:+.2f})" for name, value in errors.items()}
        print(f"{arm:12s}" + "".join(f"{f'{value:.2f}{change[name]}':>18s}" for name, value in errors.items()))
    print(f"\nPoints within {NEAR} of the distance of the outer eye corners")
    for line in show(audits, args.out):
        print(line)
    kept = {arm: said(audited) for arm, audited in audits.items()}
    return {arm: {**errors, **statistics(kept[arm]), **each_view(kept[arm])} for arm, errors in scores.items()}


if __name__ == "__main__":
    main()

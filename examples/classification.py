"""Classifies handwritten digits (scikit-learn's, 8 x 8, enlarged to 32 x 32): random views, or training against weak spots.

    python examples/classification.py             # a minute or two; both take the same steps from the same weights
    python examples/classification.py --out runs/digits                 # also writes a page about both networks
    python examples/classification.py --arms random robust adversarial # the paper's generators too

Batches are plain (image, label) tuples. Nothing is flipped, because a mirrored 2 is not a digit. The script audits each network
on digits as they are, turned, scaled and hidden in part. One seed proves little: compare several.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits  # type: ignore[import-untyped, unused-ignore]
from torch import Tensor, nn
from tqdm import tqdm  # type: ignore[import-untyped, unused-ignore]

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import adaug
from examples.hourglass.tables import VIEWS, said, show, statistics

Pair = tuple[Tensor, Tensor]
ARMS = ("random", "robust", "adversarial")
SIZE = 32

POLICY = adaug.Policy(
    [
        adaug.Branch(
            "warp",
            [
                adaug.Rotate(-30, 30, 9),
                adaug.Scale(0.75, 1.25, 5),
                adaug.Shear(-15, 15, 5),
                adaug.Translate(-0.1, 0.1, 5, axis="x"),
                adaug.Translate(-0.1, 0.1, 5, axis="y"),
            ],
            share=1 / 3,
        ),
        adaug.Branch("hide", [adaug.OccludeImage(grid=(4, 4), cells=(1, 2))], share=1 / 3),
    ]
)


def digits(train: int) -> tuple[Pair, Pair]:
    """The first `train` digits, and the last 797 by other writers. Images [N, 1, 32, 32] in [0, 1], labels [N]."""
    digits = load_digits()
    image = torch.from_numpy(digits.images).float()[:, None] / 16
    image = F.interpolate(image, (SIZE, SIZE), mode="bilinear", align_corners=False)
    label = torch.from_numpy(digits.target).long()
    if not 1 <= train <= 1000:
        raise ValueError(f"`train` should be from 1 to 1000; the last 797 digits are for testing. Found {train}.")
    return (image[:train], label[:train]), (image[1000:], label[1000:])


class Residual(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs),
        )  # fmt: skip
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + self.shortcut(x))


class ResNet(nn.Module):
    """[B, 1, 32, 32] -> logits [B, 10], through features of 16 x 16, 8 x 8 and 4 x 4."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, width, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        self.stages = nn.ModuleList(
            [Residual(width, width, 1), Residual(width, 2 * width, 2), Residual(2 * width, 4 * width, 2)]
        )
        self.score = nn.Linear(4 * width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x)
        logits: Tensor = self.score(x.mean((2, 3)))
        return logits


def loss_fn(output: Tensor, batch: Pair) -> Tensor:
    """Cross-entropy of each image, [B]."""
    return F.cross_entropy(output, batch[1], reduction="none")


def batches(data: Pair, size: int, seed: int) -> Iterator[Pair]:
    """The batches of one epoch, in an order that depends only on the seed. A last batch that is not full is left out."""
    order = torch.randperm(len(data[0]), generator=torch.Generator().manual_seed(seed))
    for index in order.split(size):
        if len(index) == size:
            yield data[0][index], data[1][index]


def train(arm: str, data: Pair, args: argparse.Namespace) -> ResNet:
    """Trains a network for `args.epochs` epochs. Arms differ only in the views that the network sees."""
    torch.manual_seed(args.seed)
    model = ResNet()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=3e-3, total_steps=args.epochs * (len(data[0]) // args.batch_size)
    )
    more: dict[str, Any] = {"features": ["stages.*"]} if arm == "adversarial" else {}  # the layers that generators read
    policy = adaug.policies.running(POLICY) if arm == "robust" else POLICY
    augmenter = adaug.AdversarialAugmenter(policy, **more, seed=args.seed)
    for epoch in tqdm(range(args.epochs), arm):
        for batch in batches(data, args.batch_size, args.seed * 1000 + epoch):
            if arm != "random":
                loss = augmenter.step(model, batch, loss_fn).loss
            else:
                image, label = augmenter.random(batch)
                loss = loss_fn(model(image), (image, label)).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return model


def right(output: Tensor, batch: Pair) -> Tensor:
    """Whether each digit is named correctly (1) or not (0), [B]."""
    return (output.argmax(1) == batch[1]).float()


def audit(model: ResNet, data: Pair) -> adaug.Audit:
    """Audits a network on digits as they are, turned (further than any training view), scaled, and hidden in part."""
    return adaug.audit(model, list(zip(*(part.split(64) for part in data), strict=True)), right, VIEWS, num_draws=0)


def main(argv: Sequence[str] | None = None) -> dict[str, dict[str, float]]:
    """Trains and audits the arms. Prints and returns their accuracy: arm -> statistic -> per cent."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=25)
    parser.add_argument("--digits", type=int, default=300, help="digits to train on, at most 1000")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=["random", "robust"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="folder for audit.html")
    args = parser.parse_args(argv)

    data, test = digits(args.digits)
    audits = {arm: audit(train(arm, data, args), test) for arm in args.arms}
    print(
        f"{len(data[0])} training and {len(test[0])} test digits, {args.epochs} epochs, seed {args.seed}; accuracy in per cent"
    )
    for line in show(audits, args.out):
        print(line)
    return {arm: statistics(said(audited)) for arm, audited in audits.items()}


if __name__ == "__main__":
    main()

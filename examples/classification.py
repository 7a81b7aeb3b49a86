"""Names handwritten digits (scikit-learn's, 8 x 8, enlarged to 32 x 32): random views, or training against weak spots.

    python classification.py                                      # a minute; all arms take the same steps from the same weights
    python classification.py --arms random robust adversarial     # the paper's generators too
    python classification.py --out runs/digits                    # also writes a page about the first and the last network

It needs only adaug and its extra `examples`: copy it, and put in your network, your data and your loss. Batches are plain
(image, label) tuples. Nothing is flipped, because a mirrored 2 is not a digit. At the end it audits each network on digits as
they are, turned, scaled and hidden in part. One seed proves little: compare several before you believe a difference.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits  # type: ignore[import-untyped, unused-ignore]
from torch import Tensor, nn
from tqdm import tqdm  # type: ignore[import-untyped, unused-ignore]

import adaug

Pair = tuple[Tensor, Tensor]  # images [B, 1, 32, 32] and labels [B]
SIZE = 32

# -- what the networks see: in training ... --------------------------------------------------------------------------

WARP = (
    adaug.Rotate(-30, 30, 9),
    adaug.Scale(0.75, 1.25, 5),
    adaug.Shear(-15, 15, 5),
    adaug.Translate(-0.1, 0.1, 5, axis="x"),
    adaug.Translate(-0.1, 0.1, 5, axis="y"),
)
HIDE = (adaug.OccludeImage(grid=(4, 4), cells=(1, 2)),)
POLICY = adaug.Policy([adaug.Branch("warp", WARP, share=1 / 3), adaug.Branch("hide", HIDE, share=1 / 3)])
ARMS = {
    "random": POLICY,  # its random views
    "robust": adaug.policies.running(POLICY),  # views that are hard now come more often
    "adversarial": POLICY,  # the paper's generators propose views
}

# ... and in the audit: turned further than any training view, scaled by 0.71, 1 and 1.41, and one of 4 x 4 cells hidden
VIEWS = (adaug.Rotate(-70, 70, 7), adaug.Scale(2**-0.75, 2**0.75, 3, log=True), adaug.OccludeImage((4, 4), (1,)))
GRID = "rotate × scale"  # all rotations at all scales
SHOWN: dict[str, Callable[[adaug.audits.Comparison], adaug.audits.Change]] = {  # what the table shows of a comparison
    "as it is": lambda compared: compared.mean("as it is"),
    "grid mean": lambda compared: compared.mean(GRID),
    "worst per image": lambda compared: compared.worst_per_image(GRID),  # each image in its worst view
    "in every view": lambda compared: compared.in_every_view(GRID),
    "hidden": lambda compared: compared.mean("occlude"),
    "worst hidden": lambda compared: compared.worst_per_image("occlude"),
}


# -- data ------------------------------------------------------------------------------------------------------------


def digits(train: int) -> tuple[Pair, Pair]:
    """The first `train` digits, and the last 797 by other writers. Images [N, 1, 32, 32] in [0, 1], labels [N]."""
    digits = load_digits()
    image = torch.from_numpy(digits.images).float()[:, None] / 16
    image = F.interpolate(image, (SIZE, SIZE), mode="bilinear", align_corners=False)
    label = torch.from_numpy(digits.target).long()
    if not 1 <= train <= 1000:
        raise ValueError(f"`train` should be from 1 to 1000; the last 797 digits are for testing. Found {train}.")
    return (image[:train], label[:train]), (image[1000:], label[1000:])


def batches(data: Pair, size: int, seed: int) -> Iterator[Pair]:
    """The batches of one epoch, in an order that depends only on the seed. A last batch that is not full is left out."""
    order = torch.randperm(len(data[0]), generator=torch.Generator().manual_seed(seed))
    for index in order.split(size):
        if len(index) == size:
            yield data[0][index], data[1][index]


# -- network, loss, score --------------------------------------------------------------------------------------------


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
        self.stages = nn.Sequential(Residual(width, width, 1), Residual(width, 2 * width, 2), Residual(2 * width, 4 * width, 2))
        self.score = nn.Linear(4 * width, 10)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.score(self.stages(self.stem(x)).mean((2, 3)))
        return logits


def loss_fn(output: Tensor, batch: Pair) -> Tensor:
    """Cross-entropy of each image, [B]."""
    return F.cross_entropy(output, batch[1], reduction="none")


def right(output: Tensor, batch: Pair) -> Tensor:
    """Whether each digit is named correctly (1) or not (0), [B]."""
    return (output.argmax(1) == batch[1]).float()


# -- train and audit -------------------------------------------------------------------------------------------------


def train(arm: str, data: Pair, args: argparse.Namespace) -> ResNet:
    """Trains a network for `args.epochs` epochs. Arms differ only in the views that the network sees."""
    torch.manual_seed(args.seed)
    model = ResNet()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    steps = args.epochs * (len(data[0]) // args.batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=3e-3, total_steps=steps)
    augmenter = adaug.AdversarialAugmenter(ARMS[arm], seed=args.seed)
    for epoch in tqdm(range(args.epochs), arm):
        for batch in batches(data, args.batch_size, args.seed * 1000 + epoch):
            if arm == "random":
                image, label = augmenter.random(batch)
                loss = loss_fn(model(image), (image, label)).mean()
            else:
                loss = augmenter.step(model, batch, loss_fn).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return model


def audit(model: ResNet, data: Pair) -> adaug.Audit:
    """Audits a network: which digits does it name correctly, under which view?"""
    return adaug.audit(model, list(zip(*(part.split(64) for part in data), strict=True)), right, VIEWS, num_draws=0)


def compare(audits: dict[str, adaug.Audit]) -> dict[str, dict[str, float]]:
    """Prints and returns the main numbers in per cent. Says where the last network differs from the first beyond chance."""
    first = next(iter(audits.values()))
    compared = {arm: first.compare(audited) for arm, audited in audits.items()}
    changes = {arm: {row: figure(of_arm) for row, figure in SHOWN.items()} for arm, of_arm in compared.items()}
    scores = {arm: {row: 100 * change.after for row, change in of_arm.items()} for arm, of_arm in changes.items()}
    *_, (last, of_last) = changes.items()
    print(f"{'accuracy, %':16s}" + "".join(f"{arm:>13s}" for arm in audits))
    for row in SHOWN:
        verdict = f"   {last}: {of_last[row].verdict}" if len(audits) > 1 else ""
        print(f"{row:16s}" + "".join(f"{of_arm[row]:13.1f}" for of_arm in scores.values()) + verdict)
    return scores


def main(argv: Sequence[str] | None = None) -> dict[str, dict[str, float]]:
    """Trains and audits the arms. Prints and returns their accuracy: arm -> measure -> per cent."""
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
    print(f"{len(data[0])} training and {len(test[0])} test digits, {args.epochs} epochs, seed {args.seed}")
    if args.out is not None:
        page = audits[args.arms[0]].html(args.out / "audit.html", compared=audits[args.arms[-1]])
        print(f"{page}: where both are weak, and on which images")
    return compare(audits)


if __name__ == "__main__":
    main()

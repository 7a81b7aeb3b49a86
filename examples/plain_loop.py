"""The smallest complete script: 16 joints of drawn people, plain PyTorch, random and then adversarial augmentation."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm  # type: ignore[import-untyped, unused-ignore]

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import adaug
from examples.datasets.drawn_people import draw_people
from examples.datasets.people import MPII


def layer(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1), nn.BatchNorm2d(outputs), nn.ReLU())


def loss_fn(output: Tensor, batch: dict[str, Tensor]) -> Tensor:  # one number for each image: [B]
    target = adaug.keypoints.render_heatmaps(batch["keypoints"], (16, 16), stride=4, visibility=batch["visibility"])
    losses = -(target * output.clamp(min=1e-9).log()).sum((1, 2, 3))
    return losses / target.sum((1, 2, 3)).clamp(min=1e-9)  # a cross-entropy over places, by what is in the frame


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Trains both arms and returns their PCKh@0.5 in per cent."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--people", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    people, test = draw_people(args.people, canvas=64, seed=0), draw_people(200, canvas=64, seed=1)
    scores = {}
    for arm in ("random", "adversarial"):
        torch.manual_seed(args.seed)
        model = nn.Sequential(
            layer(3, 16, 2), layer(16, 32, 2), *(layer(32, 32, 1) for _ in range(5)),
            nn.Conv2d(32, 16, 1), nn.Flatten(2), nn.Softmax(2), nn.Unflatten(2, (16, 16)),  # where each joint is
        )  # fmt: skip
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        augmenter = adaug.AdversarialAugmenter(
            adaug.policies.paper(flip_pairs=MPII.flip_pairs), features=["0", "6"], targets={"reference": "other"},
            difficulty=adaug.keypoints.normalized_error, seed=args.seed,
        )  # fmt: skip
        for epoch in tqdm(range(args.epochs), arm):
            for batch in people.batches(12, seed=args.seed, epoch=epoch):
                if arm == "adversarial":
                    loss = augmenter.step(model, batch, loss_fn).loss
                else:
                    batch = augmenter.random(batch)
                    loss = loss_fn(model(batch["image"]), batch).mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        pck = adaug.keypoints.PCK(0.5)  # PCKh@0.5: half a head is near enough
        model.eval()
        for batch in test.batches(50, shuffle=False):
            with torch.no_grad():
                found, _ = adaug.keypoints.decode_heatmaps(model(batch["image"]), stride=4)
            pck.update(found, batch["keypoints"], batch["visibility"], size=batch["reference"])
        scores[arm] = 100 * float(pck.compute())
        print(f"{arm:12s} PCKh@0.5 {scores[arm]:5.1f} %")
    print(f"{'difference':12s}         {scores['adversarial'] - scores['random']:+6.1f}")
    return scores


if __name__ == "__main__":
    main()

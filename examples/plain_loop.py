"""The smallest complete script: four joints of drawn figures, plain PyTorch, random views and then adaug's.

It needs only adaug: copy it, and put in your network, your data and your loss. Test figures are turned further than training
figures. One seed proves little: compare several before you believe a difference.
"""

import argparse
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

import adaug

SIDE = 64  # of an image, in pixels
FLIP_PAIRS = [(0, 1)]  # in a mirror image the hands change places; head and foot do not


def draw_figures(n: int, seed: int, turned: float = 0.0) -> dict[str, Tensor]:
    """Draws bars from a middle to two hands, head and foot, on noise, turned by up to so many radians."""
    random = torch.Generator().manual_seed(seed)
    angle = torch.tensor([0.0, 3.14, -1.57, 1.57]) + torch.randn(n, 4, generator=random) * torch.tensor([0.5, 0.5, 0.15, 0.15])
    angle = angle + turned * (2 * torch.rand(n, 1, generator=random) - 1)
    length = SIDE * (0.2 + 0.15 * torch.rand(n, 4, 1, generator=random))
    middle = SIDE * (0.45 + 0.1 * torch.rand(n, 1, 2, generator=random))
    limbs = length * torch.stack([angle.cos(), angle.sin()], -1)  # [n, 4, 2]
    y, x = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    offset = torch.stack([x, y], -1) - middle[:, :, None, None]  # [n, 1, SIDE, SIDE, 2], from the middle to each pixel
    limb = limbs[:, :, None, None]
    along = ((offset * limb).sum(-1, keepdim=True) / limb.square().sum(-1, keepdim=True)).clamp(0, 1)
    near = (3 - (offset - along * limb).norm(dim=-1)).clamp(0, 1)  # [n, 4, SIDE, SIDE]: 1 on a limb, 0 away from it
    colour = torch.tensor([[0.2, 0.4, 0.9], [0.2, 0.4, 0.9], [0.9, 0.7, 0.5], [0.7, 0.2, 0.2]])
    bars = (near[:, :, None] * colour[:, :, None, None]).amax(1)
    noise = nn.functional.interpolate(torch.rand(n, 3, 12, 12, generator=random), SIDE, mode="bilinear")
    return {"image": torch.maximum(bars, 0.9 * noise), "keypoints": middle + limbs, "visibility": torch.ones(n, 4)}


def batches(data: dict[str, Tensor], size: int, seed: int) -> Iterator[dict[str, Tensor]]:
    """The batches of one epoch, in an order that depends only on the seed."""
    for index in torch.randperm(len(data["image"]), generator=torch.Generator().manual_seed(seed)).split(size):
        yield {name: value[index] for name, value in data.items()}


def layer(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1), nn.BatchNorm2d(outputs), nn.ReLU())


def loss_fn(output: Tensor, batch: dict[str, Tensor]) -> Tensor:  # one number for each image: [B]
    target = adaug.keypoints.render_heatmaps(batch["keypoints"], (16, 16), stride=4, visibility=batch["visibility"])
    losses = -(target * output.clamp(min=1e-9).log()).sum((1, 2, 3))
    return losses / target.sum((1, 2, 3)).clamp(min=1e-9)  # cross-entropy over places, divided by the joints in the frame


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Trains both arms and returns their PCK (correct joints) in per cent."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--people", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    train, test = draw_figures(args.people, seed=0), draw_figures(200, seed=1, turned=0.7)
    scores = {}
    for arm in ("random", "robust"):
        torch.manual_seed(args.seed)
        model = nn.Sequential(
            layer(3, 16, 2), layer(16, 32, 2), *(layer(32, 32, 1) for _ in range(5)),
            nn.Conv2d(32, 4, 1), nn.Flatten(2), nn.Softmax(2), nn.Unflatten(2, (16, 16)),  # where each joint is
        )  # fmt: skip
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        augmenter = adaug.AdversarialAugmenter(adaug.policies.robust(flip_pairs=FLIP_PAIRS), seed=args.seed)
        for epoch in range(args.epochs):
            for batch in batches(train, 12, seed=1000 * args.seed + epoch):
                if arm == "robust":
                    loss = augmenter.step(model, batch, loss_fn).loss
                else:
                    batch = augmenter.random(batch)
                    loss = loss_fn(model(batch["image"]), batch).mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        pck = adaug.keypoints.PCK(0.05)  # near enough: a twentieth of the image
        model.eval()
        for batch in batches(test, 50, seed=0):
            with torch.no_grad():
                predicted, _ = adaug.keypoints.decode_heatmaps(model(batch["image"]), stride=4)
            size = torch.full((len(predicted),), float(SIDE))
            pck.update(predicted, batch["keypoints"], batch["visibility"], size=size)
        scores[arm] = 100 * float(pck.compute())
        print(f"{arm:12s} PCK@0.05 {scores[arm]:5.1f} %")
    print(f"{'difference':12s}         {scores['robust'] - scores['random']:+6.1f}")
    return scores


if __name__ == "__main__":
    main()

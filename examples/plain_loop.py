"""The smallest complete script, plain PyTorch: four joints of drawn figures, random and then adversarial augmentation.

It needs nothing of the other examples; copy it and put your network, your loader and your loss in.
"""

import argparse
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

import adaug

FLIP_PAIRS = [(0, 1)]  # the left and the right hand; head and foot have no partner


def draw_figures(n: int, side: int = 32, seed: int = 0) -> dict[str, Tensor]:
    """Figures on noise: a bar from head to foot, and two arms of other colours that end in the hands.

    Returns:
        "image" [n, 3, side, side] in [0, 1], "keypoints" [n, 4, 2] (left hand, right hand, head, foot) in pixels, and
        "visibility" [n, 4].
    """
    random = torch.Generator().manual_seed(seed)
    angle = (torch.rand(n, 4, generator=random) - 0.5) * torch.tensor([1.6, 1.6, 0.4, 0.4])  # of a limb, in radians
    angle = angle + torch.tensor([0.0, torch.pi, -torch.pi / 2, torch.pi / 2])
    length = side * (0.2 + 0.12 * torch.rand(n, 4, generator=random))
    centre = side * (0.45 + 0.1 * torch.rand(n, 1, 2, generator=random))
    keypoints = centre + length[..., None] * torch.stack([angle.cos(), angle.sin()], -1)
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    along = torch.linspace(0, 1, side)[:, None, None]  # points of a limb, which is drawn as dots that touch
    dots = (centre[:, :, None, None] + along * (keypoints - centre)[:, :, None, None]).flatten(2, 4)
    dots = dots.view(n, 4, side, 1, 1, 2)
    distance = (dots - torch.stack([x, y], -1)).square().sum(-1).amin(2).sqrt()  # [n, 4, side, side], to each limb
    colour = torch.tensor([[1, 0.3, 0.2], [0.2, 0.4, 1], [0.9, 0.9, 0.3], [0.3, 0.9, 0.4]])
    limbs = ((2.2 - distance).clamp(0, 1)[:, :, None] * colour[:, :, None, None]).amax(1)
    noise = nn.functional.interpolate(torch.rand(n, 3, 6, 6, generator=random), side, mode="bilinear")
    image = torch.maximum(0.7 * noise, limbs * (0.5 + 0.5 * torch.rand(n, 3, 1, 1, generator=random)))
    return {"image": image, "keypoints": keypoints, "visibility": torch.ones(n, 4)}


def batches(data: dict[str, Tensor], size: int, seed: int) -> Iterator[dict[str, Tensor]]:
    """One epoch in an order that depends on the seed alone."""
    for index in torch.randperm(len(data["image"]), generator=torch.Generator().manual_seed(seed)).split(size):
        yield {name: value[index] for name, value in data.items()}

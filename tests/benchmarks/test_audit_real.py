"""The benchmark that audits an off-the-shelf network: its loop and the audit agree, and it reads points as the package does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import adaug
from benchmarks import audit_real
from examples.datasets.w300 import write_pts


class Network(nn.Module):
    """Takes and gives what O-Net does, with weights drawn at random."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.points, self.face = nn.Linear(3 * 12 * 12, 10), nn.Linear(3 * 12 * 12, 2)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        seen = nn.functional.avg_pool2d(image, 4).flatten(1)
        face: Tensor = self.face(seen).softmax(1)
        return face, 0.5 + 0.3 * self.points(seen).tanh(), face


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six noisy photographs with points, some of which a turn moves out of the frame."""
    made, random = tmp_path_factory.mktemp("faces"), np.random.default_rng(0)
    for i in range(6):
        coarse = Image.fromarray(random.integers(0, 255, (12, 14, 3), np.uint8))
        coarse.resize((210, 180)).save(made / f"{i}.jpg")
        write_pts(made / f"{i}.pts", random.uniform((50, 40), (150, 140), (68, 2)))
    return made


def test_the_loop_and_the_audit_agree(folder: Path) -> None:
    network, faces = Network().eval(), audit_real.load_faces(folder, None)
    hits, distances = audit_real.by_hand(network, faces["image"], folder)
    model, views = audit_real.Points(network), [audit_real.ROTATE]
    for score, theirs in ((audit_real.found, hits), (audit_real.errors, distances)):
        made = adaug.audit(model, audit_real.batches(faces, 4), score, views, num_draws=0, output_size=audit_real.SIDE)
        assert audit_real.difference(made.curve("rotate").mean, theirs) < 1e-5
        assert min(theirs) < max(theirs)


def test_a_crop_of_twice_the_side_gives_the_same_points_in_its_own_pixels(folder: Path) -> None:
    near, fine = (audit_real.load_faces(folder, None, side)["keypoints"] for side in (48, 96))
    torch.testing.assert_close(near, (fine - 0.5) / 2)
    image = torch.rand(2, 3, 48, 48)
    model = audit_real.Points(Network().eval())
    twice = nn.functional.interpolate(image, scale_factor=2)
    torch.testing.assert_close(
        model(image)["keypoints"], (audit_real.Finer(model)(twice)["keypoints"] - 0.5) / 2, atol=1e-4, rtol=0
    )


def test_the_repair_turns_its_points_back() -> None:
    class Compass(nn.Module):
        """Finds the brightest pixel, and a face where it lies straight above the middle."""

        def forward(self, image: Tensor) -> dict[str, Tensor]:
            best = image.mean(1).flatten(1).argmax(1)
            points = torch.stack([best % 49, best // 49], -1).float()[:, None]
            return {"keypoints": points, "face": -(points[:, 0] - torch.tensor([24.0, 6.0])).norm(dim=-1)}

    image = torch.zeros(2, 3, 49, 49)
    for row, (x, y) in enumerate(((24, 6), (15, 8))):  # upright, and turned by about 30 degrees
        image[row, :, y - 1 : y + 2, x - 1 : x + 2] = 0.5
        image[row, :, y, x] = 1.0
    found = audit_real.Upright(Compass())(image)["keypoints"][:, 0]
    assert (found - torch.tensor([[24.0, 6.0], [15.0, 8.0]])).norm(dim=-1).max() < 1.0

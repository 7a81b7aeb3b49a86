"""Models that were saved or copied while bound load without adaug; magnitudes of a wrong shape are told in words."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import networks as nets
import pytest
import torch
from kornia.filters import gaussian_blur2d
from torch import Tensor, nn

import adaug
from adaug.operations import Apply

LOAD = """
import sys
import torch
sys.modules["adaug"] = None  # as where it is not installed
model = torch.load(sys.argv[1], weights_only=False)
torch.save(model(torch.ones(2, 3, 32, 32)), sys.argv[2])
"""


def bound(policy: Any) -> tuple[nn.Module, Any]:
    model = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 2, 1)).eval()
    augmenter = adaug.AdversarialAugmenter(policy, seed=0)
    augmenter.step(model, {"image": torch.rand(6, 3, 32, 32)}, lambda output, batch: output.square().mean((1, 2, 3)))
    return model, augmenter


@pytest.mark.slow
@pytest.mark.parametrize("policy", [adaug.policies.paper(()), adaug.policies.wide(())], ids=["paper", "masks alone"])
def test_a_model_that_was_saved_while_bound_loads_without_adaug(policy: Any, tmp_path: Path) -> None:
    model, augmenter = bound(policy)
    assert nets.count_hooks(model) > 0
    torch.save(model, tmp_path / "model.pt")
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", LOAD, tmp_path / "model.pt", tmp_path / "out.pt"], check=True, cwd=tmp_path
    )
    with torch.no_grad():
        torch.testing.assert_close(torch.load(tmp_path / "out.pt").detach(), model(torch.ones(2, 3, 32, 32)))
    del augmenter


@pytest.mark.parametrize("how", ["copy", "file"])
def test_copies_run_compile_and_can_be_bound_again(how: str, tmp_path: Path) -> None:
    model, _ = bound(adaug.policies.paper(()))
    other: Any = copy.deepcopy(model)
    if how == "file":
        torch.save(model, tmp_path / "model.pt")
        other = torch.load(tmp_path / "model.pt", weights_only=False)
    batch = {"image": torch.rand(6, 3, 32, 32)}
    assert torch.equal(other(batch["image"]), model(batch["image"]))
    assert torch.equal(torch.compile(other, backend="eager")(batch["image"]), model(batch["image"]))
    augmenter = adaug.AdversarialAugmenter(adaug.policies.paper(()), seed=0)
    augmenter.step(other, batch, lambda output, batch: output.square().mean((1, 2, 3))).loss.backward()


def test_a_copy_is_the_same_model_for_an_audit(tmp_path: Path) -> None:
    model, _ = bound(adaug.policies.paper(()))
    batch = [{"image": torch.rand(4, 3, 32, 32)}]
    for one in (model, copy.deepcopy(model)):
        adaug.audit(one, batch, lambda output, _: output.mean((1, 2, 3)), [adaug.Rotate(-9, 9, 3)], path=tmp_path / "a")


# ---- magnitudes


def times(image: Tensor, m: Tensor) -> Tensor:
    return image * m


def right(image: Tensor, m: Tensor) -> Tensor:
    return image * m.reshape(-1, 1, 1, 1)


def blur(image: Tensor, sigma: Tensor) -> Tensor:
    return gaussian_blur2d(image, (5, 5), torch.stack([sigma, sigma], 1))


def wrong_blur(image: Tensor, sigma: Tensor) -> Tensor:
    return gaussian_blur2d(image, (5, 5), sigma)


@pytest.mark.parametrize("n", [4, 16])  # 16 is the width of the images, where times is wrong without an error of torch
@pytest.mark.parametrize("function", [times, wrong_blur, lambda image, m: image.mean(1), lambda image, m: None])
def test_magnitudes_of_the_wrong_shape_are_told_in_words(function: Any, n: int) -> None:
    operation, batch = Apply(0.5, 1.5, 3, function=function), {"image": torch.rand(n, 3, 16, 16)}
    with pytest.raises(ValueError, match=r"`function` of Apply should .*Found"):
        adaug.apply_view(batch, [(operation, torch.linspace(0.5, 1.5, n))])


@pytest.mark.parametrize("n", [1, 4, 16])
@pytest.mark.parametrize("function", [right, blur])
def test_magnitudes_of_the_right_shape_go_through(function: Any, n: int) -> None:
    operation, batch = Apply(0.5, 1.5, 3, function=function), {"image": torch.rand(n, 3, 16, 16)}
    amounts = torch.linspace(0.5, 1.5, n)
    seen = adaug.apply_view(batch, [(operation, amounts)])["image"]
    for i in range(n):
        torch.testing.assert_close(seen[i : i + 1], function(batch["image"][i : i + 1], amounts[i : i + 1]))

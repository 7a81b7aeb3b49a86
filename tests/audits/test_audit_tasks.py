"""The audit as a look at where a network is weak: a loss by bin, as `plots.loss_by_bin` gave it before."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from networks import Small as Net
from networks import small_batches as batches
from networks import small_loss as loss_fn
from torch import Tensor, nn

import adaug


def by_bin(model: nn.Module, loader: Any, operation: Any, score: Any = loss_fn, **more: Any) -> Tensor:
    audit = adaug.audit(model, loader, score, [operation], higher_is_better=False, num_draws=0, **more)
    return torch.tensor([float(mean) for mean in audit.curve(operation.name, alike=True).mean])


@pytest.mark.parametrize(
    "operation",
    [
        adaug.Rotate(-60, 60, 5),
        adaug.Scale(0.5, 2, 4, log=True),
        adaug.Brightness(0.5, 1.5, 3),
        adaug.OccludeImage((2, 2), (1,)),
    ],
    ids=lambda operation: type(operation).__name__,
)
def test_a_loss_by_bin_against_one_view_after_the_other(operation: Any) -> None:
    torch.manual_seed(0)
    model, loader = Net().eval(), batches()
    expected = []
    for i in range(operation.bins):
        losses = []
        for batch in loader:
            if isinstance(operation, adaug.OccludeImage):
                seen = _drawn(batch, ())
                row, column = divmod(i, 2)
                seen["image"][:, :, row * 8 : row * 8 + 8, column * 8 : column * 8 + 8] = 0
            else:
                constant = type(operation)(
                    operation.low, operation.high, 2, random=lambda u, i=i: torch.full_like(u, operation.centres()[i])
                )
                seen = _drawn(batch, (constant,))
            with torch.no_grad():
                losses.append(loss_fn(model(seen["image"]), seen))
        expected.append(torch.cat(losses).mean())
    torch.testing.assert_close(by_bin(model, loader, operation, output_size=16), torch.stack(expected), atol=1e-5, rtol=1e-5)


def _drawn(batch: dict[str, Tensor], common: Any) -> dict[str, Tensor]:
    """The view by another way: as a random draw that can only be this one."""
    result: dict[str, Tensor] = adaug.AdversarialAugmenter(adaug.Policy((), common), output_size=16).random(batch)
    return result


def test_a_look_leaves_no_trace() -> None:
    model, loader = Net().train(), batches()
    model.layers[3].eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    images, random = loader[0]["image"].clone(), torch.get_rng_state()
    first = by_bin(model, loader, adaug.Rotate(-30, 30, 3))
    assert torch.equal(first, by_bin(model, loader, adaug.Rotate(-30, 30, 3)))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert [module.training for module in model.modules()] == [True, True, True, True, True, False]
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())
    assert torch.equal(torch.get_rng_state(), random)
    assert torch.equal(loader[0]["image"], images)


def test_an_image_without_a_loss_counts_in_no_bin() -> None:
    def partly(output: Tensor, batch: dict[str, Tensor]) -> Tensor:
        return torch.where(batch["image"].amax((1, 2, 3)) > 1, torch.nan, loss_fn(output, batch))

    torch.manual_seed(0)
    model, loader = Net().eval(), batches()
    for batch in loader:
        batch["image"][0] += 1
    rest = [{name: value[1:] for name, value in batch.items()} for batch in loader]
    rotate = adaug.Rotate(-30, 30, 3)
    torch.testing.assert_close(by_bin(model, loader, rotate, partly), by_bin(model, rest, rotate))


def test_an_image_that_misses_a_bin_counts_in_none_where_bins_should_be_alike() -> None:
    def partly(output: Tensor, batch: dict[str, Tensor]) -> Tensor:
        left = batch["keypoints"][:, 0, 0] < 8  # the first keypoint moves to the left where the view turns it there
        return torch.where(left, torch.nan, batch["keypoints"][:, 0, 0])

    audit = adaug.audit(Net(), batches(30), partly, [adaug.Rotate(-60, 60, 3)], higher_is_better=False, num_draws=0)
    always = np.isfinite(audit.table("rotate")).all(1)
    assert 0 < always.sum() < np.isfinite(audit.table("rotate")).any(1).sum()
    means = [float(mean) for mean in audit.curve("rotate", alike=True).mean]
    np.testing.assert_allclose(means, audit.table("rotate")[always].mean(0), rtol=1e-6)

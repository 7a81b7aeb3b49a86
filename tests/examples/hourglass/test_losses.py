from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from examples.hourglass.losses import heatmap_cross_entropy, heatmap_mse

LossFn = Callable[[Sequence[Tensor], Tensor, Tensor], Tensor]
LOSSES = pytest.mark.parametrize("loss_fn", [heatmap_mse, heatmap_cross_entropy])


def example(seed: int = 0) -> tuple[list[Tensor], Tensor, Tensor]:
    """Outputs of two stacks [4, 5, 8, 8], Gaussians, and visibility: one joint missing in every row but the first."""
    generator = torch.Generator().manual_seed(seed)
    outputs = [torch.randn(4, 5, 8, 8, generator=generator) for _ in range(2)]
    centre = torch.rand(4, 5, 2, 1, 1, generator=generator) * 7
    y, x = torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="ij")
    target = torch.exp(-((x - centre[:, :, 0]) ** 2 + (y - centre[:, :, 1]) ** 2) / 2)
    visibility = torch.ones(4, 5)
    visibility[[1, 2, 3], [0, 2, 4]] = 0
    return outputs, target, visibility


@LOSSES
def test_samples_do_not_influence_each_other(loss_fn: LossFn) -> None:
    outputs, target, visibility = example()
    together = loss_fn(outputs, target, visibility)
    assert together.shape == (4,)
    for i in range(4):
        alone = loss_fn([o[i : i + 1] for o in outputs], target[i : i + 1], visibility[i : i + 1])
        torch.testing.assert_close(alone, together[i : i + 1])


@LOSSES
@pytest.mark.parametrize("rubbish", [1e6, math.nan, math.inf])
def test_unlabelled_joints_do_not_matter_whatever_they_hold(loss_fn: LossFn, rubbish: float) -> None:
    outputs, target, visibility = example()
    expected = loss_fn(outputs, target, visibility)
    hidden = visibility[:, :, None, None] == 0
    spoilt = [o.masked_fill(hidden, rubbish).requires_grad_() for o in outputs]
    loss = loss_fn(spoilt, target.masked_fill(hidden, rubbish), visibility)
    torch.testing.assert_close(loss, expected)
    loss.sum().backward()
    for output in spoilt:
        assert output.grad is not None
        assert output.grad.isfinite().all()
        assert (output.grad.masked_select(hidden) == 0).all()


@LOSSES
def test_a_sample_without_joints_costs_nothing_and_keeps_its_graph(loss_fn: LossFn) -> None:
    outputs, target, visibility = example()
    visibility[2] = 0
    outputs = [o.requires_grad_() for o in outputs]
    loss = loss_fn(outputs, target, visibility)
    assert loss[2] == 0
    loss[2].backward()
    assert all(o.grad is not None and (o.grad == 0).all() for o in outputs)


@LOSSES
def test_a_joint_less_is_not_a_loss_less(loss_fn: LossFn) -> None:
    outputs, target, _ = example()
    outputs, target = [o[:, :1].expand(-1, 5, -1, -1) for o in outputs], target[:, :1].expand(-1, 5, -1, -1)
    few = torch.tensor([1.0, 1, 0, 0, 0]).expand(4, 5)
    torch.testing.assert_close(loss_fn(outputs, target, few), loss_fn(outputs, target, torch.ones(4, 5)))


@LOSSES
def test_stacks_are_averaged(loss_fn: LossFn) -> None:
    outputs, target, visibility = example()
    single = [loss_fn([o], target, visibility) for o in outputs]
    torch.testing.assert_close(loss_fn(outputs, target, visibility), (single[0] + single[1]) / 2)


@LOSSES
def test_half_precision_is_computed_in_float32_and_float64_stays(loss_fn: LossFn) -> None:
    outputs, target, visibility = example()
    with torch.autocast("cpu", torch.bfloat16):
        assert loss_fn([o.bfloat16() for o in outputs], target.bfloat16(), visibility).dtype == torch.float32
    assert loss_fn([o.double() for o in outputs], target.double(), visibility).dtype == torch.float64


def test_squared_error_is_zero_at_the_target_and_pi_at_the_zero_map() -> None:
    y, x = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    target = torch.exp(-((x - 8) ** 2 + (y - 7) ** 2) / 2)[None, None]
    one = torch.ones(1, 1)
    assert heatmap_mse([target], target, one) == 0
    assert heatmap_mse([torch.zeros_like(target)], target, one).item() == pytest.approx(math.pi, rel=1e-3)


def test_cross_entropy_is_that_of_uniform_at_zero_logits_and_least_at_the_target() -> None:
    _, target, _ = example()
    visibility = torch.ones(4, 5)
    uniform = heatmap_cross_entropy([torch.zeros_like(target)], target, visibility)
    torch.testing.assert_close(uniform, torch.full((4,), math.log(64)))
    best = heatmap_cross_entropy([target.log()], target, visibility)
    assert (best < uniform).all()
    logits = target.log().requires_grad_()
    heatmap_cross_entropy([logits], target, visibility).sum().backward()
    assert logits.grad is not None
    assert logits.grad.abs().max() < 1e-6


@LOSSES
def test_wrong_shapes_are_named(loss_fn: LossFn) -> None:
    outputs, target, visibility = example()
    with pytest.raises(ValueError, match="`target_heatmaps` should have"):
        loss_fn(outputs, target[..., :4], visibility)
    with pytest.raises(ValueError, match="`visibility` should have"):
        loss_fn(outputs, target, visibility[:, :3])
    with pytest.raises(ValueError, match="`outputs` should be"):
        loss_fn(outputs[0], target, visibility)  # type: ignore[arg-type]

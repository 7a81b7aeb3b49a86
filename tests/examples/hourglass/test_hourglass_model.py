from __future__ import annotations

from fnmatch import fnmatch
from typing import Any

import pytest
import torch

from examples.hourglass.model import StackedHourglass

SMALL: dict[str, Any] = {"width": 16, "depth": 3, "stride": 2}


@pytest.mark.parametrize(
    ("arguments", "millions"),
    [({"modules": 3}, 9.4), ({"block": "dense", "modules": 6}, 4.5), ({"stacks": 8}, 25.4)],
)
def test_parameter_counts_are_the_papers(arguments: dict[str, Any], millions: float) -> None:
    assert sum(p.numel() for p in StackedHourglass(**arguments).parameters()) / 1e6 == pytest.approx(millions, abs=0.1)


@pytest.mark.parametrize("block", ["residual", "dense"])
@pytest.mark.parametrize(("stride", "size", "depth"), [(2, 64, 3), (4, 64, 2), (4, 128, 3)])
def test_one_heatmap_a_joint_and_stack(block: Any, stride: Any, size: int, depth: int) -> None:
    model = StackedHourglass(5, stacks=2, width=16, depth=depth, block=block, stride=stride)
    outputs = model(torch.rand(2, 3, size, size + stride * 2**depth))
    assert [tuple(output.shape) for output in outputs] == [(2, 5, size // stride, size // stride + 2**depth)] * 2


@pytest.mark.parametrize("block", ["residual", "dense"])
def test_gradients_reach_every_parameter(block: Any) -> None:
    torch.manual_seed(0)
    model = StackedHourglass(4, stacks=2, modules=2, block=block, **SMALL)
    torch.stack(model(torch.rand(2, 3, 64, 64))).square().mean().backward()
    unreached = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert unreached == []


@pytest.mark.parametrize("block", ["residual", "dense"])
def test_bridges_have_names_and_the_neck_is_four_by_four(block: Any) -> None:
    model = StackedHourglass(stacks=2, block=block, **SMALL)
    names = [name for name, _ in model.named_modules()]
    assert [n for n in names if fnmatch(n, "hg.0.skip*") and n.count(".") == 2] == [f"hg.0.skip{i}" for i in (1, 2, 3)]
    shapes: list[tuple[int, ...]] = []
    handles = [
        model.get_submodule(name).register_forward_hook(lambda _m, _i, out: shapes.append(tuple(out.shape[2:])))
        for name in ("hg.0.skip1", "hg.0.skip2", "hg.0.skip3", "hg.0.neck")
    ]
    model(torch.rand(1, 3, 64, 64))
    for handle in handles:
        handle.remove()
    assert shapes == [(32, 32), (16, 16), (8, 8), (4, 4)]


def test_rows_are_independent_in_eval_mode() -> None:
    model = StackedHourglass(4, **SMALL).eval()
    images = torch.rand(3, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(model(images)[0][1:2], model(images[1:2])[0], rtol=1e-4, atol=1e-6)


def test_first_predictions_are_near_zero() -> None:
    assert StackedHourglass(4, **SMALL)(torch.rand(2, 3, 64, 64))[0].abs().max() < 0.1


@pytest.mark.parametrize("shape", [(1, 3, 65, 64), (1, 3, 64, 72), (1, 1, 64, 64), (3, 64, 64), (1, 3, 0, 64)])
def test_images_of_a_wrong_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="`image` should have"):
        StackedHourglass(4, **SMALL)(torch.zeros(shape))


@pytest.mark.parametrize(
    "arguments",
    [{"block": "other"}, {"stride": 3}, {"width": 10}, {"stacks": 0}, {"modules": 0}, {"depth": 0}, {"joints": 0}],
)
def test_wrong_arguments_are_refused_by_name(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"`{next(iter(arguments))}` should be"):
        StackedHourglass(**arguments)

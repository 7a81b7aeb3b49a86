from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import adaug
from adaug import plots

matplotlib = pytest.importorskip("matplotlib")


class Net(nn.Module):
    """Has every kind of state that a look could disturb."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Conv2d(4, 2, 1))

    def forward(self, image: Tensor) -> Tensor:
        result: Tensor = self.layers(image)
        return result


def batches(n: int = 5, canvas: int = 24) -> list[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return [
        {
            "image": torch.rand(m, 3, canvas, canvas, generator=generator),
            "keypoints": torch.rand(m, 4, 2, generator=generator) * (canvas - 1),
            "visibility": torch.ones(m, 4),
        }
        for m in (n, 2)
    ]


def loss_fn(output: Tensor, batch: dict[str, Tensor]) -> Tensor:
    return output.square().mean((1, 2, 3)) + batch["keypoints"][..., 0].mean(1) + batch["visibility"].mean(1)


def inked(figure: Any) -> bool:
    """Whether the figure is drawn without a warning and is not blank."""
    file = io.BytesIO()
    figure.savefig(file, format="png")
    picture = matplotlib.image.imread(io.BytesIO(file.getvalue()))
    return bool(picture[..., :3].std() > 0.01)


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
def test_loss_by_bin_against_one_view_after_the_other(operation: Any) -> None:
    torch.manual_seed(0)
    model, loader = Net().eval(), batches()
    found = plots.loss_by_bin(model, loader, operation, loss_fn, output_size=16)
    expected = []
    for i in range(operation.bins):
        losses = []
        for batch in loader:
            seen = dict(batch)
            if isinstance(operation, adaug.OccludeImage):
                seen = _turned(batch, ())
                row, column = divmod(i, 2)
                seen["image"][:, :, row * 8 : row * 8 + 8, column * 8 : column * 8 + 8] = 0
            else:
                constant = type(operation)(
                    operation.low, operation.high, 2, random=lambda u, i=i: torch.full_like(u, operation.centres()[i])
                )
                seen = _turned(batch, (constant,))
            with torch.no_grad():
                losses.append(loss_fn(model(seen["image"]), seen))
        expected.append(torch.cat(losses).mean())
    torch.testing.assert_close(found, torch.stack(expected), atol=1e-5, rtol=1e-5)


def _turned(batch: dict[str, Tensor], common: Any) -> dict[str, Tensor]:
    result: dict[str, Tensor] = adaug.AdversarialAugmenter(adaug.Policy((), common), output_size=16).random(batch)
    return result


def test_loss_by_bin_leaves_no_trace() -> None:
    model, loader = Net().train(), batches()
    model.layers[3].eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    images, random = loader[0]["image"].clone(), torch.get_rng_state()
    first = plots.loss_by_bin(model, loader, adaug.Rotate(-30, 30, 3), loss_fn)
    assert torch.equal(first, plots.loss_by_bin(model, loader, adaug.Rotate(-30, 30, 3), loss_fn))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert [module.training for module in model.modules()] == [True, True, True, True, True, False]
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())
    assert torch.equal(torch.get_rng_state(), random)
    assert torch.equal(loader[0]["image"], images)
    assert not first.requires_grad


def test_an_image_without_a_finite_loss_counts_in_no_bin() -> None:
    def partly(output: Tensor, batch: dict[str, Tensor]) -> Tensor:
        return torch.cat([torch.full((1,), torch.nan), loss_fn(output, batch)[1:]])

    torch.manual_seed(0)
    model, loader = Net().eval(), batches()
    rest = [{name: value[1:] for name, value in batch.items()} for batch in loader]
    found = plots.loss_by_bin(model, loader, adaug.Rotate(-30, 30, 3), partly)
    torch.testing.assert_close(found, plots.loss_by_bin(model, rest, adaug.Rotate(-30, 30, 3), loss_fn))


def test_loss_by_bin_says_what_is_wrong() -> None:
    rotate = adaug.Rotate(-30, 30, 3)
    with pytest.raises(TypeError, match=r"`operation` should be a binned operation.*Found OccludeFeatures"):
        plots.loss_by_bin(Net(), batches(), adaug.OccludeFeatures(), loss_fn)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"at least one batch\. Found none"):
        plots.loss_by_bin(Net(), [], rotate, loss_fn)
    with pytest.raises(ValueError, match=r"one loss per sample, shape \(5,\)\. Found shape \(\)"):
        plots.loss_by_bin(Net(), batches(), rotate, lambda output, batch: output.mean())


def test_views_of_a_step() -> None:
    model, batch = Net(), batches(9)[0]
    policy = adaug.policies.uniform(adaug.policies.paper(flip_pairs=[(0, 1)]))
    augmenter = adaug.AdversarialAugmenter(policy, occlude=["layers.0"], features=["layers.0"])
    result = augmenter.step(model, batch, loss_fn)
    figure = plots.draw_views(
        result.batch,
        view=result.view,
        titles=[augmenter.branch_names[i] for i in result.branch.tolist()],
        limbs=[(0, 1), (1, 2)],
        left=[0],
        right=[1],
        columns=4,
        title="a step",
    )
    assert inked(figure)
    shown = [axis for axis in figure.axes if axis.images]
    assert len(shown) == 9
    assert sorted(axis.get_title() for axis in shown) == ["aho"] * 3 + ["asr"] * 3 + ["random"] * 3
    cells = {axis.get_title(): len(axis.patches) for axis in shown}
    assert cells["random"] == cells["asr"] == 0
    assert cells["aho"] in (1, 2)


def test_keypoints_are_drawn_where_they_are() -> None:
    batch = {"image": torch.zeros(1, 1, 8, 10), "keypoints": torch.tensor([[[2.0, 3.0, 1.0], [7.0, 5.0, 0.0]]])}
    figure = plots.draw_views(batch, limbs=[(0, 1)])
    places = [tuple(collection.get_offsets()[0]) for collection in figure.axes[0].collections]
    assert places == [(2, 3), (7, 5)]
    assert not figure.axes[0].lines, "a limb to a joint that is not visible"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["not visible"]
    assert inked(figure)
    with pytest.raises(ValueError, match=r"`titles` should have one text an image, 1\. Found 0"):
        plots.draw_views(batch, titles=[])


def test_distributions_over_time() -> None:
    policy = adaug.policies.paper()
    history = [
        {
            "distribution/asr.scale": torch.rand(7).softmax(0),
            "distribution/asr.rotate": torch.rand(9).softmax(0),
            "loss/asr": 1.0,
        },
        {"loss/random": torch.tensor(1.0)},
        {"asr.scale": [1 / 7] * 7, "asr.rotate": [1 / 9] * 9, "aho.occlude": torch.rand(16).softmax(0)},
    ]
    figure = plots.draw_distributions(history, policy=policy, epochs=[4, 5, 6])
    assert inked(figure)
    labels = [text.get_text() for axis in figure.axes for text in axis.get_yticklabels()]
    assert {"-27°", "+0°", "1.00"} <= set(labels)
    assert inked(plots.draw_distributions(history[:1])), "without a policy"
    with pytest.raises(ValueError, match=r"at least one distribution\. Found none"):
        plots.draw_distributions(history[1:2])
    with pytest.raises(ValueError, match=r"a number for each of 3 epochs\. Found 1"):
        plots.draw_distributions(history, epochs=[1])

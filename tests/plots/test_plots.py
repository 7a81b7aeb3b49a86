from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from networks import Small as Net
from networks import small_batches as batches
from networks import small_loss as loss_fn

import adaug
from adaug import plots

matplotlib = pytest.importorskip("matplotlib")


def inked(figure: Any) -> bool:
    """Whether the figure is drawn without a warning and is not blank."""
    file = io.BytesIO()
    figure.savefig(file, format="png")
    picture = matplotlib.image.imread(io.BytesIO(file.getvalue()))
    return bool(picture[..., :3].std() > 0.01)


def test_views_of_a_step() -> None:
    model, batch = Net(), batches(9)[0]
    policy = adaug.policies.uniform(adaug.policies.paper(flip_pairs=[(0, 1)]))
    augmenter = adaug.AdversarialAugmenter(policy, occlude=["layers.0"])
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
    with pytest.raises(ValueError, match=r"`titles` should have a text for each of 1 images\. Found 0"):
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
    measured = [{**epoch, "difficulty/asr.rotate": torch.rand(9)} for epoch in history if epoch]
    both = plots.draw_distributions(measured, policy=policy)
    titles = [axis.get_title(loc="left") for axis in both.axes]
    assert {"asr.rotate: found hard", "asr.rotate: drawn", "asr.scale"} <= set(titles)
    with pytest.raises(ValueError, match=r"at least one distribution\. Found none"):
        plots.draw_distributions(history[1:2])
    with pytest.raises(ValueError, match=r"a number for each of 3 epochs\. Found 1"):
        plots.draw_distributions(history, epochs=[1])

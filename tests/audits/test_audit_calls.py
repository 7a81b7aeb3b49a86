"""How an audit calls the user's functions: any `forward`, scores of one number, and scores that ask for the view."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from typing import Any

import networks as nets
import numpy as np
import pytest
import torch
from torch import Tensor, nn

import adaug
from adaug import Audit, OccludeImage, Rotate, Scale

VIEWS = [Rotate(-60, 60, 3), OccludeImage((2, 2), 1)]


def loader(batch: int, n: int = 7) -> list[dict[str, Any]]:
    everything = nets.make_batch(n)
    return [{name: value[i : i + batch] for name, value in everything.items()} for i in range(0, n, batch)]


def audited(model: Any, score: Any, batch: int = 4, views: Any = VIEWS, **more: Any) -> Audit:
    return adaug.audit(model, loader(batch), score, views, **{"num_draws": 1, "num_pictures": 1} | more)


# ---- scores of one number


@dataclasses.dataclass
class Output:
    logits: Any
    hidden: Any = None


class Found:
    """What nobody can look into, as the results of some detectors."""

    def __init__(self, values: Tensor) -> None:
        self.values = values


def several(values: Tensor) -> int:
    return 1 + int(values[0] * 1e4) % 4


def means(output: Tensor) -> Tensor:
    return output.mean(1)


# name -> (values of images [n, 3] -> what a model returns, what it returned -> a number for each image, or one for all)
OUTPUTS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "a tensor": (lambda v: v, means),
    "a mapping": (lambda v: {"out": v, "aux": {"low": v * 2}}, lambda o: o["aux"]["low"].mean(1) / 2),
    "a record": (Output, lambda o: means(o.logits)),
    "two stacks": (lambda v: [v, v + 1], lambda o: means(o[1]) - 1),
    "seven stacks": (lambda v: tuple(v + i for i in range(7)), lambda o: sum(map(means, o)) / len(o) - 3),
    "arrays": (lambda v: {"out": v.numpy()}, lambda o: torch.from_numpy(o["out"].mean(1))),
    "rows with objects": (
        lambda v: [{"boxes": row.expand(several(row), 3)} for row in v],
        lambda o: torch.stack([row["boxes"].mean() for row in o]),
    ),
    "tensors of objects": (
        lambda v: [row.expand(several(row), 3) for row in v],
        lambda o: torch.stack([row.mean() for row in o]),
    ),
    "as many objects as rows": (
        lambda v: [row.expand(len(v), 3) for row in v],
        lambda o: torch.stack([row.mean() for row in o]),
    ),
    "objects nobody knows": (lambda v: list(map(Found, v)), lambda o: torch.stack([row.values.mean() for row in o])),
    "an object nobody knows": (Found, lambda o: means(o.values)),
    "rows second": (lambda v: v.T.contiguous(), lambda o: o.mean(0)),
    "as long as rows": (lambda v: v[None].repeat(len(v), 1, 1), lambda o: o[0].mean(1)),
    "a loss": (lambda v: {"loss": v.mean(), "logits": v}, lambda o: o["loss"][None]),
    "a number": (lambda v: float(v.mean()), lambda o: torch.tensor([o])),
    "values and a number": (lambda v: (v, float(v.mean())), lambda o: torch.tensor([o[1]])),
    "two losses": (lambda v: (v.mean(), v.mean() * 2), lambda o: o[1][None] / 2),
}  # fmt: skip

NUMBERS: dict[str, Callable[[Tensor], Any]] = {
    "a tensor": lambda mean: mean,
    "a tensor [1]": lambda mean: mean[None],
    "a number": float,
    "a number of NumPy": lambda mean: mean.numpy().mean(),
    "an array": lambda mean: mean.numpy(),
    "a list": lambda mean: [float(mean)],
}
EACH: dict[str, Callable[[Tensor], Any]] = {
    "an array": lambda each: each.numpy(),
    "an array that runs backwards": lambda each: each.numpy()[::-1].copy()[::-1],
    "a list of numbers": lambda each: each.tolist(),
    "a list of tensors": list,
}


def values(image: Tensor) -> Tensor:
    grid = torch.linspace(0, 1, 32)
    return (image * grid[:, None] * grid).mean((2, 3))


def plain(output: Tensor, batch: dict[str, Tensor]) -> Tensor:
    """The score that all others should agree with."""
    return means(output) + batch["keypoints"].mean((1, 2)) / 50


def said(caught: Any) -> list[str]:
    return [str(one.message) for one in caught]


@pytest.mark.parametrize("batch", [1, 3, 7])
@pytest.mark.parametrize("name", OUTPUTS)
def test_one_number_for_a_batch_is_asked_for_each_image(name: str, batch: int) -> None:
    wrap, read = OUTPUTS[name]

    def score(output: Any, batch: dict[str, Tensor]) -> float:
        return float(read(output).mean() + batch["keypoints"].mean() / 50)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        audit = audited(lambda image: wrap(values(image)), score, batch)
    np.testing.assert_allclose(audit.scores, audited(values, plain, batch).scores, atol=1e-5)
    assert len(caught) == 1
    assert "one number for each image" in said(caught)[0]
    assert caught[0].filename == __file__


@pytest.mark.parametrize("number", NUMBERS)
def test_every_kind_of_number_counts(number: str) -> None:
    def score(output: Tensor, batch: dict[str, Tensor]) -> Any:
        return NUMBERS[number](plain(output, batch).mean())

    with pytest.warns(UserWarning, match="one image at a time"):
        audit = audited(values, score)
    np.testing.assert_allclose(audit.scores, audited(values, plain).scores, atol=1e-5)


@pytest.mark.parametrize("form", EACH)
@pytest.mark.parametrize("batch", [1, 3, 7])
def test_one_number_for_each_image_comes_in_any_form(form: str, batch: int) -> None:
    audit = audited(values, lambda output, batch: EACH[form](plain(output, batch)), batch)  # without a warning
    np.testing.assert_allclose(audit.scores, audited(values, plain, batch).scores, atol=1e-5)


def test_lists_of_parts_count_too() -> None:
    def parts(output: Tensor, batch: dict[str, Tensor]) -> Any:
        return output.tolist()

    np.testing.assert_allclose(audited(values, parts).scores, audited(values, lambda o, b: o).scores, atol=1e-6)


def test_single_images_need_no_warning() -> None:
    audit = audited(values, lambda output, batch: float(plain(output, batch)), 1, [], num_draws=0)
    np.testing.assert_allclose(audit.scores, audited(values, plain, 1, [], num_draws=0).scores, atol=1e-6)


def test_lists_of_rows_are_cut_to_lists_of_rows() -> None:
    class Detector(nn.Module):
        def forward(self, images: list[Tensor]) -> Any:
            return [{"boxes": values(image[None]).expand(several(image[0, 0]), 3)} for image in images]

    def each(output: Any, batch: Any) -> Any:
        images, targets = batch
        assert len(images) == len(targets) == len(output)
        pairs = zip(output, targets, strict=True)
        return torch.stack([found["boxes"].mean() + target["boxes"].mean() / 50 for found, target in pairs])

    batches = [
        (list(nets.make_batch(n)["image"]), [{"boxes": torch.rand(1 + i % 3, 4).sort(1)[0] * 30} for i in range(n)])
        for n in (3, 2, 1)
    ]
    views = [Scale(0.8, 1.2, 2)]
    expected = adaug.audit(Detector(), batches, each, views, num_draws=1)
    with pytest.warns(UserWarning, match="one image at a time"):
        found = adaug.audit(Detector(), batches, lambda output, batch: each(output, batch).mean(), views, num_draws=1)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-5)


def test_a_model_runs_for_one_image_only_where_it_must() -> None:
    def rows(wrap: Callable[..., Any], read: Callable[..., Any]) -> list[int]:
        seen: list[int] = []

        def model(image: Tensor) -> Any:
            seen.append(len(image))
            return wrap(values(image))

        with pytest.warns(UserWarning, match="one image at a time"):
            audited(model, lambda output, batch: float(read(output).mean()), 64, num_pictures=0)
        return seen

    cut, alone = (rows(*OUTPUTS[name]) for name in ("a mapping", "a loss"))
    assert cut.count(1) == len(set(cut)) - 1, "once for each number of rows, to see that a cut is right"
    assert [n for n in alone if n > 1] == [7], "once, to see that it cannot be cut"


def test_an_image_without_a_number_does_not_count() -> None:
    def score(output: Tensor, batch: dict[str, Tensor]) -> float:
        return float("nan") if bool((batch["label"] == 0).any()) else 1.0

    with pytest.warns(UserWarning, match="one image at a time"):
        audit = audited(values, score)
    first = torch.cat([batch["label"] for batch in loader(4)]) == 0
    assert np.array_equal(np.isnan(audit.scores).all(1), first.numpy())
    assert 0 < first.sum() < 7


def test_a_score_that_changes_its_mind_is_refused() -> None:
    def score(output: Tensor, batch: dict[str, Tensor]) -> Any:
        return output.mean() if len(output) > 1 else output

    with pytest.warns(UserWarning, match="at a time"), pytest.raises(ValueError, match=r"one number for an image.*\(1, 3\)"):
        adaug.audit(values, loader(4), score, VIEWS)


# ---- scores that ask for the view


def back(points: Tensor, view: adaug.View) -> Tensor:
    if view.matrix is None:
        return points
    assert len(view.matrix) == len(points)
    inverse = torch.linalg.inv(view.matrix.double())
    whole = torch.cat([points.double(), torch.ones_like(points[..., :1]).double()], -1) @ inverse.transpose(1, 2)
    return (whole[..., :2] / whole[..., 2:]).float()


class Judge(nn.Module):
    def forward(self, output: Any, batch: dict[str, Tensor], view: adaug.View) -> Tensor:
        return (back(batch["keypoints"], view) - batch["where"]).abs().amax((1, 2))


def judge(output: Any, batch: dict[str, Tensor], view: adaug.View) -> Tensor:
    return Judge()(output, batch, view)


class Object:
    def __call__(self, output: Any, batch: dict[str, Tensor], view: adaug.View, /) -> float:
        return float(judge(output, batch, view).mean())


@pytest.mark.parametrize("score", [judge, Judge(), Object()], ids=["function", "module", "object of one number"])
@pytest.mark.parametrize("batch", [1, 4, 64])
def test_a_third_parameter_gets_the_view_of_these_rows(score: Any, batch: int) -> None:
    batches = [one | {"where": one["keypoints"].clone()} for one in loader(batch)]
    views = [Rotate(-60, 60, 3), Scale(0.5, 2.0, 3, log=True)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore" if isinstance(score, Object) else "error")
        audit = adaug.audit(values, batches, score, views, targets={"where": "other"}, higher_is_better=False)
    assert np.isfinite(audit.scores).all()
    assert audit.scores.max() < 1e-3


def test_a_third_parameter_with_a_default_is_the_users_own() -> None:
    def score(output: Tensor, batch: dict[str, Tensor], scale: float = 2.0, *more: Any, unit: Any = None) -> Tensor:
        return scale * plain(output, batch)

    np.testing.assert_allclose(audited(values, score).scores, 2 * audited(values, plain).scores, rtol=1e-6)


# ---- forward


class ByName(nn.Module):
    """Takes images by name, and something besides, as the models of some libraries do."""

    def __init__(self, gain: float = 1.0) -> None:
        super().__init__()
        self.gain = gain
        self.norm = nn.BatchNorm2d(3)

    def forward(self, *, pixel_values: Tensor, number: Tensor) -> Any:
        return Output(self.gain * values(self.norm(pixel_values)) + 0 * number[:, None])


def by_name(model: nn.Module, batch: Any) -> Any:
    return model(pixel_values=batch["image"], number=batch["label"])


def of_logits(output: Any, batch: dict[str, Tensor]) -> Tensor:
    return plain(output.logits, batch)


@pytest.mark.parametrize("batch", [1, 3, 7])
@pytest.mark.parametrize("number", [False, True], ids=["each", "one number"])
def test_a_model_is_called_by_the_users_function(batch: int, number: bool) -> None:
    model = ByName().train()
    before = nets.traces(model)

    def score(output: Any, batch: dict[str, Tensor]) -> Any:
        each = of_logits(output, batch)
        return each.mean() if number else each

    with warnings.catch_warnings():
        warnings.simplefilter("ignore" if number else "error")
        audit = audited(model, score, batch, forward=by_name)
    usual = audited(nn.Sequential(model.norm), lambda o, b: plain(values(o), b), batch)
    np.testing.assert_allclose(audit.scores, usual.scores, atol=1e-5)
    assert nets.differences(before, nets.traces(model)) == []
    assert len(audit.pictures) == 1


def test_a_forward_gets_the_users_structure_and_may_write_to_it() -> None:
    class Mine(dict[str, Any]):
        pass

    def forward(model: Any, batch: Any) -> Any:
        assert type(batch) is Mine
        image = batch["inputs"]["image"].mul_(2)
        batch["inputs"]["keypoints"].zero_()
        return model(image)

    batches = [Mine(inputs={name: one[name] for name in ("image", "keypoints")}, name="a") for one in loader(3)]
    copied = nets.cloned(batches)
    targets = {("inputs", name): name for name in ("image", "keypoints")}

    def score(output: Tensor, batch: Any) -> Tensor:
        return plain(output / 2, batch["inputs"])

    audit = adaug.audit(values, batches, score, VIEWS, forward=forward, targets=targets, num_draws=1)
    np.testing.assert_allclose(audit.scores, audited(values, plain, 3).scores, atol=1e-5)
    assert nets.same(batches, copied)


def test_the_networks_of_a_forward_are_left_alone() -> None:
    head, model = nn.BatchNorm2d(3).train(), nn.Dropout(0.5).train()
    before = nets.traces(head), nets.traces(model)

    def forward(model: nn.Module, batch: Any) -> Any:
        assert not head.training
        return values(head(model(batch["image"])))

    audited(model, plain, forward=forward)
    assert (nets.differences(before[0], nets.traces(head)), nets.differences(before[1], nets.traces(model))) == ([], [])


def scaled(by: float) -> Callable[..., Any]:
    return lambda model, batch: model(batch["image"]) * by


def shifted(by: float) -> Callable[..., Any]:
    return lambda model, batch: model(batch["image"]) + by


def through(network: nn.Module) -> Callable[..., Any]:
    return lambda model, batch: model(network(batch["image"]))


FORWARDS: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
    "none": (lambda: scaled(1.0), lambda: None),
    "code": (lambda: scaled(1.0), lambda: shifted(1.0)),
    "a captured number": (lambda: scaled(1.0), lambda: scaled(2.0)),
    "a network": (lambda: through(nn.PReLU(init=0.1)), lambda: through(nn.PReLU(init=0.2))),
}


@pytest.mark.parametrize("change", FORWARDS)
def test_a_file_knows_the_forward(change: str, tmp_path: Any) -> None:
    one, other = FORWARDS[change]
    path = tmp_path / "one.audit"
    first = audited(values, plain, forward=one(), path=path)
    with pytest.raises(ValueError, match="made with another `forward`"):
        audited(values, plain, forward=other(), path=path)
    again = audited(values, plain, forward=one(), path=path)
    np.testing.assert_array_equal(first.scores, again.scores)


@pytest.mark.parametrize("number", [False, True], ids=["each", "one number"])
def test_an_interrupted_audit_goes_on(number: bool, tmp_path: Any) -> None:
    seen: list[int] = []

    def model(image: Tensor) -> Tensor:
        return values(image)

    def forward(model: Any, batch: Any) -> Any:
        return model(batch["image"])

    def score(output: Any, batch: dict[str, Tensor]) -> Any:
        each = plain(output, batch)
        return float(each.mean()) if number else each

    def broken(stops: bool) -> Any:
        for i, batch in enumerate(loader(3)):
            if stops and i == 2:
                raise KeyError("gone")
            seen.append(i)
            yield batch

    def run(path: Any, batches: Any) -> Audit:
        return adaug.audit(model, batches, score, VIEWS, forward=forward, num_draws=1, path=path)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(KeyError):
            run(tmp_path / "one.audit", broken(True))
        assert len(Audit.load(tmp_path / "one.audit")) == 6
        whole = run(tmp_path / "one.audit", broken(False))
        np.testing.assert_array_equal(whole.scores, run(None, broken(False)).scores)


def test_a_forward_that_cannot_be_called_is_refused() -> None:
    with pytest.raises(TypeError, match="`forward` should be callable, or None"):
        audited(values, plain, forward="images")


def test_images_of_integers_need_a_forward() -> None:
    batches = [one | {"image": (one["image"] * 255).round().byte()} for one in loader(3)]

    def forward(model: Any, batch: Any) -> Any:
        assert batch["image"].dtype == torch.uint8
        return model(batch["image"].float() / 255)

    audit = adaug.audit(values, batches, plain, VIEWS, num_draws=1, forward=forward)
    np.testing.assert_allclose(audit.scores, audited(values, plain, 3).scores, atol=5e-3)
    with pytest.raises(TypeError, match="pass `forward`"):
        adaug.audit(values, batches, plain, VIEWS, num_draws=1)


@pytest.mark.parametrize("number", [False, True], ids=["each", "one number"])
def test_a_batch_may_have_a_mapping_for_each_row(number: bool) -> None:
    def forward(model: Any, batch: Any) -> Any:
        return [{"values": row} for row in model(torch.stack([one["image"] for one in batch]))]

    def score(output: Any, batch: Any) -> Any:
        pairs = zip(output, batch, strict=True)
        each = [found["values"].mean() + one["keypoints"].mean() / 50 for found, one in pairs]
        return sum(each) / len(each) if number else each

    names = "image", "keypoints"
    batches = [[{name: batch[name][i] for name in names} for i in range(len(batch["image"]))] for batch in loader(3)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore" if number else "error")
        audit = adaug.audit(values, batches, score, VIEWS, num_draws=1, forward=forward)
    np.testing.assert_allclose(audit.scores, audited(values, plain, 3).scores, atol=1e-5)


def test_a_file_knows_the_rest(tmp_path: Any) -> None:
    path = tmp_path / "one.audit"
    audited(values, plain, path=path)
    with pytest.raises(ValueError, match="made with another `rest`"):
        audited(values, plain, path=path, rest="other")

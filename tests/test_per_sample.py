"""per_sample: one loss a sample of a loss that gives the mean of a batch."""

import dataclasses
import pickle
import warnings
from collections import OrderedDict
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import adaug
from tests import networks as nets

N = 5


def rand(*shape):
    return torch.rand(*shape) * 0.8 + 0.1


def classes(*shape):
    return torch.randint(0, 4, shape)


def holes(*shape):
    """Labels of which each row lacks as many."""
    labels = classes(*shape)
    labels[:, :2] = 255
    return labels


CRITERIA = {
    "mse": (nn.MSELoss(), rand(N, 3, 4, 4), rand(N, 3, 4, 4)),
    "smooth l1": (nn.SmoothL1Loss(), rand(N, 7, 2), rand(N, 7, 2)),
    "bce": (nn.BCEWithLogitsLoss(pos_weight=torch.tensor([2.0, 1, 3])), rand(N, 3), torch.rand(N, 3).round()),
    "classes": (nn.CrossEntropyLoss(), rand(N, 4), classes(N)),
    "classes, weights": (nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2, 3, 9])), rand(N, 4), classes(N)),
    "classes, one ignored": (nn.CrossEntropyLoss(ignore_index=1), rand(N, 4), torch.tensor([0, 1, 2, 1, 3])),
    "classes, smoothed": (nn.CrossEntropyLoss(label_smoothing=0.2), rand(N, 4), classes(N)),
    "classes, soft": (nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2, 3, 9])), rand(N, 4), rand(N, 4).softmax(1)),
    "pixels": (nn.CrossEntropyLoss(), rand(N, 4, 6, 6), classes(N, 6, 6)),
    "pixels, holes": (nn.CrossEntropyLoss(ignore_index=255), rand(N, 4, 6, 6), holes(N, 6, 6)),
    "pixels, holes, weights": (
        nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2, 3, 9]), ignore_index=255),
        rand(N, 4, 6, 6),
        holes(N, 6, 6),
    ),
    "nll": (nn.NLLLoss(ignore_index=255), rand(N, 4, 6, 6).log_softmax(1), holes(N, 6, 6)),
    "batchmean": (nn.KLDivLoss(reduction="batchmean"), rand(N, 4).log_softmax(1), rand(N, 4).softmax(1)),
    "margins": (nn.MultiMarginLoss(), rand(N, 4), classes(N)),
}


@pytest.mark.parametrize("name", CRITERIA)
def test_the_mean_is_what_the_criterion_says(name):
    criterion, output, target = CRITERIA[name]
    before = dict(vars(criterion))
    losses = adaug.per_sample(criterion, target="target")(output, {"target": target})
    assert losses.shape == (N,)
    torch.testing.assert_close(losses.mean(), criterion(output, target))
    torch.testing.assert_close(adaug.per_sample(criterion)(output, (output, target)), losses)
    assert vars(criterion) == before


@pytest.mark.parametrize("name", [name for name in CRITERIA if "weights" not in name and "ignored" not in name])
def test_a_sample_has_the_loss_that_it_has_alone(name):
    criterion, output, target = CRITERIA[name]
    losses = adaug.per_sample(criterion)(output, (output, target))
    alone = torch.stack([criterion(output[i : i + 1], target[i : i + 1]) for i in range(N)])
    torch.testing.assert_close(losses, alone)


def test_labels_that_differ_in_number_and_samples_without_any():
    criterion, output, target = nn.CrossEntropyLoss(ignore_index=255), rand(3, 4, 6, 6), classes(3, 6, 6)
    target[0, :4] = 255
    target[2] = 255
    losses = adaug.per_sample(criterion)(output, (None, target))
    alone = [criterion(output[i : i + 1], target[i : i + 1]) for i in range(2)]
    torch.testing.assert_close(losses, torch.stack([*alone, torch.tensor(0.0)]) * 3 / 2)  # their mean is that of two samples
    assert torch.isfinite(adaug.per_sample(criterion)(output, (None, torch.full_like(target, 255)))).all()


def test_what_is_summed_or_left_alone():
    output, target = rand(N, 3, 4), rand(N, 3, 4)
    squares = (output - target).square()
    for reduction, expected in {"sum": squares.sum((1, 2)), "none": squares.mean((1, 2))}.items():
        torch.testing.assert_close(adaug.per_sample(nn.MSELoss(reduction=reduction))(output, (None, target)), expected)


# ---- functions, and criteria without a reduction


class JointsLoss(nn.Module):
    """A loss of the form of SimpleBaselines': a mean over the batch, joint by joint, with weights."""

    def __init__(self) -> None:
        super().__init__()
        self.criterion = nn.MSELoss()

    def forward(self, output: Any, target: Any, weight: Any) -> Any:
        joints = output.size(1)
        maps, truths = (maps.reshape(len(output), joints, -1).split(1, 1) for maps in (output, target))
        total = 0.0
        for i in range(joints):
            total = total + 0.5 * self.criterion(maps[i].squeeze(1).mul(weight[:, i]), truths[i].squeeze(1).mul(weight[:, i]))
        return total / joints


def of_batch(output, batch):
    return (output - batch["heatmaps"]).abs().mean() + 0.1 * batch["label"].float().mean()


def with_a_choice(output, batch):
    return of_batch(output, batch) * (2 if float(output.detach().mean()) > 0.5 else 1)  # vmap cannot follow


def of_lists(output, batch):
    assert all(name.endswith(".jpg") for name in batch["name"])
    return torch.stack([(output[i] - points).square().mean() for i, points in enumerate(batch["points"])]).mean()


def make_batch(n=N):
    return {
        "heatmaps": rand(n, 3, 4, 4),
        "weight": torch.rand(n, 3, 1).round(),
        "label": classes(n),
        "points": [rand(i + 1, 3, 4, 4) for i in range(n)],
        "name": [f"{i}.jpg" for i in range(n)],
    }


@pytest.mark.filterwarnings("ignore:The mean of the losses of samples:UserWarning")  # with_a_choice chooses by the batch
@pytest.mark.parametrize("function", [of_batch, with_a_choice, of_lists])
def test_functions_are_asked_about_one_sample_at_a_time(function):
    batch, output = make_batch(), torch.linspace(0, 1, N)[:, None, None, None] * torch.ones(N, 3, 4, 4)
    output.requires_grad_()
    loss_fn = adaug.per_sample(function)
    for _ in range(2):
        losses = loss_fn(output, batch)
        assert losses.shape == (N,)
        for i in range(N):
            alone = {name: entry[i : i + 1] for name, entry in batch.items()}
            torch.testing.assert_close(losses[i], function(output[i : i + 1], alone))
    losses.mean().backward()
    if function is of_batch:
        torch.testing.assert_close(losses.mean(), function(output, batch))
        torch.testing.assert_close(output.grad, torch.autograd.grad(function(output, batch), output)[0])


@pytest.mark.filterwarnings("ignore:The mean of the losses of samples:UserWarning")
def test_vmap_calls_once_and_rows_call_for_each():
    calls = []

    def counted(output, batch):
        calls.append(1)
        return of_batch(output, batch)

    batch, output = make_batch(), rand(N, 3, 4, 4)
    batch.pop("points"), batch.pop("name")
    loss_fn = adaug.per_sample(counted)
    loss_fn(output, batch)  # the first call looks at the whole batch too
    calls.clear()
    loss_fn(output, batch)
    assert len(calls) == 1

    def choosing(output, batch):
        calls.append(1)
        return with_a_choice(output, batch)

    loss_fn = adaug.per_sample(choosing)
    loss_fn(output, batch)
    calls.clear()
    loss_fn(output, batch)
    assert len(calls) == N


def test_criteria_of_several_entries_and_criteria_that_are_functions():
    batch, output = make_batch(), rand(N, 3, 4, 4)
    losses = adaug.per_sample(JointsLoss(), target=["heatmaps", "weight"])(output, batch)
    torch.testing.assert_close(losses.mean(), JointsLoss()(output, batch["heatmaps"], batch["weight"]))
    losses = adaug.per_sample(F.cross_entropy, target="label")(output.mean((2, 3)), {"label": batch["label"] % 3})
    torch.testing.assert_close(losses, F.cross_entropy(output.mean((2, 3)), batch["label"] % 3, reduction="none"))


@dataclasses.dataclass
class Output:
    logits: Any
    hidden: Any = None


def test_outputs_that_hold_the_prediction():
    logits, target = rand(N, 4), classes(N)
    expected = F.cross_entropy(logits, target, reduction="none")

    def mine(output, batch):
        return F.cross_entropy(output.logits, batch["label"])

    for output in (Output(logits), OrderedDict(logits=logits)):
        loss_fn = adaug.per_sample(nn.CrossEntropyLoss(), target="label", output="logits")
        torch.testing.assert_close(loss_fn(output, {"label": target}), expected)
    torch.testing.assert_close(adaug.per_sample(mine)(Output(logits), {"label": target}), expected)
    stacks = [rand(N, 3), rand(N, 3)]

    def of_stacks(output, batch):
        return sum(F.mse_loss(stack, batch["keypoints"]) for stack in output)

    truth = rand(N, 3)
    losses = adaug.per_sample(of_stacks)(stacks, {"keypoints": truth})
    torch.testing.assert_close(losses, sum((stack - truth).square().mean(1) for stack in stacks))


def test_a_step_trains_with_it():
    model, batch = nets.make_network(), nets.make_batch(6)

    def mean_loss(output, batch):
        return nets.loss_fn(output, batch).mean()

    mine, own = (nets.make_augmenter(seed=1) for _ in range(2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        torch.manual_seed(0)
        result = mine.step(model, batch, adaug.per_sample(mean_loss))
    torch.manual_seed(0)
    expected = own.step(_same(model), batch, nets.loss_fn)
    torch.testing.assert_close(result.losses, expected.losses, rtol=1e-4, atol=1e-5)


def _same(model):
    again = nets.make_network()
    again.load_state_dict(model.state_dict())
    return again


def test_it_can_be_pickled():
    loss_fn = adaug.per_sample(nn.MSELoss(), target="heatmaps")
    batch, output = make_batch(), rand(N, 3, 4, 4)
    assert torch.equal(pickle.loads(pickle.dumps(loss_fn))(output, batch), loss_fn(output, batch))
    assert repr(loss_fn) == "per_sample(MSELoss(), target='heatmaps', output=None)"


# ---- what is refused


def test_what_is_refused_says_what_to_do():
    output, batch = rand(N, 3, 4, 4), make_batch()
    with pytest.raises(TypeError, match="should be a criterion or a function"):
        adaug.per_sample("mse")
    with pytest.raises(ValueError, match=r"which entry of the batch.*use per_sample\(criterion, target=...\)"):
        adaug.per_sample(nn.MSELoss())(output, batch)
    with pytest.raises(ValueError, match=r"Found 'maps'; the batch has \['heatmaps'"):
        adaug.per_sample(nn.MSELoss(), target="maps")(output, batch)
    with pytest.raises(ValueError, match=r"should be one number.*Found shape \(1, 3\)"):
        adaug.per_sample(lambda output, batch: output.mean((2, 3)))(output, batch)
    with pytest.raises(ValueError, match="tensors with one row for each sample"):
        adaug.per_sample(of_batch)(3, batch)

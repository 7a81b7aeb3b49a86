"""save_with: the augmenter's state travels inside the optimizer's, and a resumed loop goes on to the same bits."""

import io
import logging

import networks as nets
import pytest
import torch
from torch import nn

import adaug
from adaug import policies

PAIRS = [(0, 1)]


def fresh(policy=None, optimizer=torch.optim.Adam, **arguments):
    """A model, its augmenter and its optimizer, which saves the augmenter."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 2, 3, 2, 1))
    augmenter = adaug.AdversarialAugmenter(policies.robust(PAIRS) if policy is None else policy, **arguments)
    optimizer = optimizer(model.parameters())
    augmenter.save_with(optimizer)
    return model, augmenter, optimizer


def loss_fn(output, batch):
    return output.square().mean((1, 2, 3))


def by_two_lines(augmenter, model, batch):
    batch = augmenter.draw(batch)
    output = model(batch["image"])
    augmenter.observe(output)
    return loss_fn(output, batch).mean()


def by_step(augmenter, model, batch):
    return augmenter.step(model, batch, loss_fn).loss


def train(way, run, steps):
    model, augmenter, optimizer = run
    losses = []
    for i in steps:
        loss = way(augmenter, model, nets.make_batch(9, seed=i))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return losses


def through_a_file(value):
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


WAYS = {
    "two lines": (by_two_lines, lambda: policies.robust(PAIRS)),
    "step": (by_step, lambda: policies.robust(PAIRS)),
    "generators": (by_step, lambda: policies.paper(PAIRS)),
    "nothing": (by_two_lines, lambda: adaug.Policy(())),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("stop", [0, 3])
@pytest.mark.parametrize("started", [False, True], ids=["a new process", "after steps of its own"])
def test_a_resumed_loop_goes_on_to_the_same_bits(way, stop, started):
    way, policy = WAYS[way]
    whole = fresh(policy(), seed=5)
    expected = train(way, whole, range(6))[stop:]
    first = fresh(policy(), seed=5)
    train(way, first, range(stop))
    saved = through_a_file({"model": first[0].state_dict(), "optimizer": first[2].state_dict()})

    again = fresh(policy(), seed=99)
    if started:
        train(way, again, range(3, 5))
    again[0].load_state_dict(saved["model"])
    again[2].load_state_dict(saved["optimizer"])
    assert again[1].steps == stop
    assert nets.same(train(way, again, range(stop, 6)), expected)
    for mine, its in zip(again, whole, strict=True):
        assert nets.same(mine.state_dict(), its.state_dict())


class Sam(torch.optim.Optimizer):
    """An optimizer around another one, which loads by torch's method, as those of many projects do."""

    def __init__(self, parameters):
        super().__init__(parameters, {})
        self.base = torch.optim.Adam(self.param_groups)

    def step(self, closure=None):
        self.base.step(closure)

    def load_state_dict(self, state_dict):
        super().load_state_dict(state_dict)
        self.base.param_groups = self.param_groups


def zero(parameters):
    from torch.distributed.optim import ZeroRedundancyOptimizer

    return ZeroRedundancyOptimizer(parameters, torch.optim.Adam)


@pytest.fixture
def one_rank(tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/ranks", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize(
    "optimizer", [torch.optim.SGD, torch.optim.AdamW, torch.optim.LBFGS, Sam, zero], ids=lambda one: one.__name__
)
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_optimizers_of_all_kinds_carry_it(optimizer, one_rank):
    _, mine, holder = fresh(optimizer=optimizer, seed=5)
    mine.draw(nets.make_batch(4))
    mine.observe(difficulty=torch.rand(4))
    if optimizer is zero:
        holder.consolidate_state_dict()
    saved = through_a_file(holder.state_dict())
    _, other, loads = fresh(optimizer=optimizer, seed=6)
    loads.load_state_dict(saved)
    assert nets.same(other.state_dict(), mine.state_dict())
    plain = optimizer(nn.Linear(1, 1).parameters())
    with pytest.raises(ValueError, match="parameter group"):  # it is another model's; the key alone is no reason to fail
        plain.load_state_dict(saved)


def test_schedulers_scalers_and_copies_of_the_state_change_nothing():
    model, mine, optimizer = fresh(seed=5)
    torch.optim.lr_scheduler.StepLR(optimizer, 2)
    scaler = torch.amp.GradScaler("cpu", enabled=True)
    scaler.scale(by_two_lines(mine, model, nets.make_batch(6))).backward()
    scaler.step(optimizer)
    saved = optimizer.state_dict()
    optimizer.load_state_dict(saved)
    assert "adaug" in saved  # what the user holds stays whole
    assert mine.steps == 1
    bare = torch.optim.Adam(model.parameters())
    bare.load_state_dict(saved)
    assert "adaug" not in bare.state_dict()


def test_a_checkpoint_without_it_is_told_once_and_loaded(caplog):
    model, mine, optimizer = fresh()
    saved = torch.optim.Adam(model.parameters()).state_dict()
    with caplog.at_level(logging.WARNING, "adaug"):
        optimizer.load_state_dict(saved)
    (record,) = caplog.records
    assert "the optimizer's state has no 'adaug'" in record.message
    assert "start from uniform, and its first views repeat" in record.message
    assert mine.steps == 0


def test_a_state_of_another_policy_is_refused_before_the_optimizer_changes():
    _, mine, optimizer = fresh(policies.wide())
    mine.random(nets.make_batch(3))
    optimizer.param_groups[0]["lr"] = 7.0
    _, _, other = fresh(optimizer=torch.optim.Adam)
    with pytest.raises(ValueError, match="Found another policy"):
        other.load_state_dict(optimizer.state_dict())
    assert other.param_groups[0]["lr"] != 7.0


def test_two_augmenters_have_two_names_and_the_same_one_counts_once(caplog):
    _, mine, optimizer = fresh(seed=1)
    mine.save_with(optimizer)
    other = adaug.AdversarialAugmenter(policies.wide(), seed=2)
    with pytest.raises(ValueError, match=r"Found 'adaug', which is that of another augmenter; pass another name"):
        other.save_with(optimizer)
    with pytest.raises(ValueError, match=r"Found 'state', which is that of the optimizer"):
        other.save_with(optimizer, name="state")
    other.save_with(optimizer, name="face")
    saved = optimizer.state_dict()
    assert (saved["adaug"]["seed"], saved["face"]["seed"]) == (1, 2)
    optimizer.load_state_dict({name: part for name, part in saved.items() if name != "adaug"})
    assert len(caplog.records) == 1


class Own(torch.optim.SGD):
    """Loads by a method of its own, as optimizers in eight bits do."""

    def load_state_dict(self, state_dict):
        self.__setstate__({"param_groups": self.param_groups})


@pytest.mark.parametrize(("optimizer", "found"), [
    (Own, "Found Own with one of its own, which calls no hooks"), (lambda parameters: None, "Found NoneType"),
], ids=["own", "none"])  # fmt: skip
def test_what_cannot_carry_it_is_refused(optimizer, found):
    with pytest.raises(TypeError, match=f"{found}; save `augmenter.state_dict\\(\\)` beside"):
        adaug.AdversarialAugmenter(policies.robust()).save_with(optimizer(nn.Linear(1, 1).parameters()))

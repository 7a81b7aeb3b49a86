"""Lightning: the callback draws and observes around a training_step that stays as it is, and is resumed with the trainer."""

import logging

import networks as nets
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import adaug

L = pytest.importorskip("lightning")
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)

from adaug.integrations.lightning import AugmenterCallback  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning warns about loggers, workers and versions


def network():
    layers = [nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 4, 3, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers)


def rows(n=24):
    generator = torch.Generator().manual_seed(1)
    return [(torch.rand(3, 16, 16, generator=generator), i % 4) for i in range(n)]


class Classifier(L.LightningModule):
    """A module as people write it; it keeps what it saw."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.network, self.criterion = network(), nn.CrossEntropyLoss()
        self.losses, self.batches, self.validated = [], [], []

    def predicted(self, image):
        return self.network(image)

    def training_step(self, batch, index):
        image, label = batch
        loss = self.criterion(self.predicted(image), label)
        self.batches.append(image.clone())
        self.losses.append(loss.detach().clone())
        return loss

    def validation_step(self, batch, index):
        self.validated.append(batch[0].clone())
        self.predicted(batch[0])

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=1e-2)


class ByItself(Classifier):
    def forward(self, image):
        return self.network(image)

    def predicted(self, image):
        return self(image)


class InADictionary(Classifier):
    def __init__(self):
        super().__init__()
        self.parts = nn.ModuleDict({"network": self.network})
        del self.network

    def predicted(self, image):
        return self.parts["network"](image)


class BodyAndHead(Classifier):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(4, 4)

    def predicted(self, image):
        return self.head(self.network(image))


class ByHand(Classifier):
    def __init__(self):
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch, index):
        loss, optimizer = super().training_step(batch, index), self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()
        return {"loss": loss}


def made(policy=None):
    return adaug.AdversarialAugmenter(adaug.policies.robust() if policy is None else policy, seed=3)


def fit(module, *callbacks, steps=6, resume=None, loader=None, **arguments):
    off = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary"), False)
    arguments = {"enable_checkpointing": False, **off, **arguments}
    trainer = L.Trainer(accelerator="cpu", max_steps=steps, callbacks=list(callbacks), **arguments)
    loader = torch.utils.data.DataLoader(rows(), batch_size=6) if loader is None else loader  # four batches an epoch
    trainer.fit(module, loader, torch.utils.data.DataLoader(rows(6), batch_size=6), ckpt_path=resume)
    return trainer


@pytest.mark.parametrize("kind", [Classifier, ByItself, InADictionary, ByHand])
def test_a_module_stays_as_it_is_and_trains_on_views(kind):
    plain, module, augmenter = kind(), kind(), made()
    fit(plain)
    fit(module, AugmenterCallback(augmenter, draw=True))
    assert augmenter.steps == len(module.losses) == 6
    assert augmenter.state_dict()["learners"]["asr+aho"]["steps"] == 6
    assert "unobserved" not in augmenter.metrics
    assert not any(torch.equal(mine, its) for mine, its in zip(module.batches, plain.batches, strict=True))
    assert nets.same(module.validated, plain.validated)
    assert "training_step" not in vars(module)
    assert not any(part._forward_hooks for part in module.modules())


@pytest.mark.parametrize(("kind", "every"), [(Classifier, 1), (Classifier, 2), (ByItself, 1), (ByItself, 2), (ByHand, 1)])
def test_a_policy_that_draws_nothing_changes_no_bit(kind, every):
    plain, module = kind(), kind()
    fit(plain, steps=4, accumulate_grad_batches=every)
    fit(module, AugmenterCallback(made(adaug.Policy(())), draw=True), steps=4, accumulate_grad_batches=every)
    assert len(module.losses) == 4 * every
    assert nets.same(module.losses, plain.losses)
    assert nets.same(module.state_dict(), plain.state_dict())


def in_two_lines(augmenter):
    class TwoLines(Classifier):
        def training_step(self, batch, index):
            image, label = augmenter.draw(batch)
            output = self.network(image)
            augmenter.observe(output)
            loss = self.criterion(output, label)
            self.losses.append(loss.detach().clone())
            return loss

    return TwoLines()


@pytest.mark.parametrize("draw", [True, False], ids=["the callback draws", "two lines"])
@pytest.mark.parametrize("stop", [3, 4, 6], ids=["mid-epoch", "between epochs", "mid-epoch of the second"])
def test_a_training_is_resumed_to_the_same_bits(draw, stop, tmp_path):
    loader = torch.utils.data.DataLoader(rows(6) * 4, batch_size=6)  # all alike: Lightning does not restore a loader's place

    def run(steps, resume=None):
        augmenter = made()
        module = Classifier() if draw else in_two_lines(augmenter)
        return (
            fit(module, AugmenterCallback(augmenter, draw=draw), steps=steps, resume=resume, loader=loader),
            module,
            augmenter,
        )

    _, whole, expected = run(8)
    half, _, _ = run(stop)
    half.save_checkpoint(tmp_path / "half.ckpt")
    _, again, augmenter = run(8, tmp_path / "half.ckpt")
    assert nets.same(again.losses, whole.losses[stop:])
    assert nets.same(augmenter.state_dict(), expected.state_dict())
    assert nets.same(again.state_dict(), whole.state_dict())


def test_a_checkpoint_without_the_augmenter_is_told_and_loaded(tmp_path, caplog):
    fit(Classifier(), steps=2).save_checkpoint(tmp_path / "plain.ckpt")
    augmenter = made()
    with caplog.at_level(logging.WARNING, "adaug"):
        fit(Classifier(), AugmenterCallback(augmenter, draw=True), steps=4, resume=tmp_path / "plain.ckpt")
    assert [record.name for record in caplog.records if "first views repeat" in record.message] == ["adaug"]
    assert augmenter.steps == 2


def test_what_is_observed_can_be_named_and_must_be_clear():
    with pytest.raises(RuntimeError, match=r"Found network and head; pass AugmenterCallback\(..., output=NAME\)"):
        fit(BodyAndHead(), AugmenterCallback(made(), draw=True))
    module, augmenter = BodyAndHead(), made()
    fit(module, AugmenterCallback(augmenter, draw=True, output="head"))
    assert augmenter.state_dict()["learners"]["asr+aho"]["steps"] == 6
    module = BodyAndHead()
    with pytest.raises(ValueError, match="Found 'tail'; it has network, criterion, head"):
        fit(module, AugmenterCallback(made(), draw=True, output="tail"))
    assert "training_step" not in vars(module)
    with pytest.raises(ValueError, match="should come with draw=True"):
        AugmenterCallback(made(), output="head")


def test_a_step_that_fails_leaves_the_module_as_it_was():
    module = Classifier()
    module.predicted = lambda image: F.one_hot(torch.zeros(6, dtype=torch.long), 4).float().requires_grad_()
    with pytest.raises(RuntimeError, match="Found none; pass"):
        fit(module, AugmenterCallback(made(), draw=True))
    assert "training_step" not in vars(module)


def test_half_precision_trains():
    module, augmenter = Classifier(), made()
    fit(module, AugmenterCallback(augmenter, draw=True), precision="bf16-mixed")
    assert all(loss.isfinite() for loss in module.losses)
    assert augmenter.steps == 6


@pytest.mark.slow
@pytest.mark.parametrize("what", ["the module", "the network"])
def test_what_is_compiled_trains(what):
    class Plain(Classifier):
        def training_step(self, batch, index):
            return self.criterion(self.network(batch[0]), batch[1])

    module, augmenter = Plain(), made()
    if what == "the network":
        module.network = torch.compile(module.network, backend="eager")
    else:
        module = torch.compile(module, backend="eager")
    fit(module, AugmenterCallback(augmenter, draw=True))
    assert augmenter.state_dict()["learners"]["asr+aho"]["steps"] == 6


@pytest.mark.slow
@pytest.mark.parametrize("kind", [Classifier, ByItself])
def test_two_processes_train(kind):
    module, augmenter = kind(), made()
    before = {name: value.clone() for name, value in module.state_dict().items()}

    class InEach(L.Callback):
        def on_train_end(self, trainer, pl_module):
            assert augmenter.state_dict()["learners"]["asr+aho"]["steps"] == trainer.global_step == 2
            assert "unobserved" not in augmenter.metrics

    fit(module, AugmenterCallback(augmenter, draw=True), InEach(), steps=2, devices=2, strategy="ddp_fork")
    assert not nets.same(module.state_dict(), before)

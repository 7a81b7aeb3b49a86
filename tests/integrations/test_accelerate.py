"""Accelerate: draw and observe in its loop; `register_for_checkpointing` or the optimizer carries the state."""

import networks as nets
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import adaug

accelerate = pytest.importorskip("accelerate")

pytestmark = pytest.mark.filterwarnings("ignore")


def rows(n=24):
    generator = torch.Generator().manual_seed(1)
    return [(torch.rand(3, 16, 16, generator=generator), i % 4) for i in range(n)]


class Run:
    """A loop of Accelerate, with an augmenter or without."""

    def __init__(self, policy, saved_by="the accelerator", every=1):
        torch.manual_seed(0)
        self.accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=every)
        layers = [nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 4, 3, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        model = nn.Sequential(*layers)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        self.augmenter = None if policy is None else adaug.AdversarialAugmenter(policy, seed=3)
        if saved_by == "the optimizer":
            self.augmenter.save_with(optimizer)
        loader = torch.utils.data.DataLoader(rows(), batch_size=6)
        self.model, self.optimizer, self.loader = self.accelerator.prepare(model, optimizer, loader)
        if saved_by == "the prepared optimizer":
            self.augmenter.save_with(self.optimizer)
        if saved_by == "the accelerator" and policy is not None:
            self.accelerator.register_for_checkpointing(self.augmenter)

    def epoch(self):
        losses = []
        for image, label in self.loader:
            with self.accelerator.accumulate(self.model):
                if self.augmenter is not None:
                    image, label = self.augmenter.draw((image, label))
                output = self.model(image)
                if self.augmenter is not None:
                    self.augmenter.observe(output)
                loss = F.cross_entropy(output, label)
                self.accelerator.backward(loss)
                self.optimizer.step()
                self.optimizer.zero_grad()
                losses.append(loss.detach())
        return losses


@pytest.mark.parametrize("every", [1, 2], ids=["each batch", "accumulated"])
@pytest.mark.parametrize("saved_by", ["the accelerator", "the optimizer", "the prepared optimizer"])
def test_a_training_is_resumed_to_the_same_bits(saved_by, every, tmp_path):
    whole = Run(adaug.policies.robust(), saved_by, every)
    whole.epoch()
    whole.accelerator.save_state(str(tmp_path))
    expected = whole.epoch()
    again = Run(adaug.policies.robust(), saved_by, every)
    again.accelerator.load_state(str(tmp_path))
    assert again.augmenter.steps == 4
    assert nets.same(again.epoch(), expected)
    assert nets.same(again.augmenter.state_dict(), whole.augmenter.state_dict())


@pytest.mark.parametrize("every", [1, 2], ids=["each batch", "accumulated"])
def test_a_policy_that_draws_nothing_changes_no_bit(every):
    plain, mine = Run(None, every=every), Run(adaug.Policy(()), every=every)
    assert nets.same(mine.epoch(), plain.epoch())
    assert nets.same(mine.model.state_dict(), plain.model.state_dict())

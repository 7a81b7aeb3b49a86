"""Hugging Face: one call lets a Trainer draw and observe; its loss stays its own, and its checkpoints resume the augmenter."""

import copy
import logging
import shutil

import networks as nets
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import adaug

transformers = pytest.importorskip("transformers", minversion="5")
pytest.importorskip("accelerate")
transformers.logging.set_verbosity_error()

from adaug.integrations.transformers import AugmenterCallback, augmented  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")  # the Trainer warns about loggers, workers and versions


class Classifier(nn.Module):
    """Returns its own loss where it is given labels, as models of transformers do."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 4, 3, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        )
        self.config = transformers.PretrainedConfig()
        self.seen = {True: [], False: []}

    def forward(self, pixel_values, labels=None):
        self.seen[self.training].append(pixel_values.clone())
        logits = self.layers(pixel_values)
        return {"logits": logits} if labels is None else {"loss": F.cross_entropy(logits, labels), "logits": logits}


def rows(n=36):
    generator = torch.Generator().manual_seed(1)
    return [{"pixel_values": torch.rand(3, 16, 16, generator=generator), "labels": i % 4} for i in range(n)]


def made(policy=None, **arguments):
    return adaug.AdversarialAugmenter(adaug.policies.robust() if policy is None else policy, seed=3, **arguments)


def trainer_in(folder, kind=transformers.Trainer, steps=6, **arguments):
    options = {"per_device_train_batch_size": 6, "max_steps": steps, "logging_steps": 1, "save_steps": 3, **arguments}
    args = transformers.TrainingArguments(
        str(folder), use_cpu=True, report_to="none", disable_tqdm=True, lr_scheduler_type="constant", **options
    )
    return kind(model=Classifier(), args=args, train_dataset=rows(), eval_dataset=rows(6))


def losses(trainer):
    return [log["loss"] for log in trainer.state.log_history if "loss" in log]


def test_one_call_trains_on_views_and_leaves_evaluation_as_it_is(tmp_path):
    plain, mine, augmenter = trainer_in(tmp_path / "plain"), trainer_in(tmp_path / "mine"), made()
    augmented(mine, augmenter)
    for trainer in (plain, mine):
        trainer.train()
        trainer.evaluate()
    assert augmenter.steps == augmenter.state_dict()["learners"]["asr+aho"]["steps"] == 6
    assert "unobserved" not in augmenter.metrics
    seen, its = mine.model.seen, plain.model.seen
    assert not any(torch.equal(a, b) for a, b in zip(seen[True], its[True], strict=True))
    assert nets.same(seen[False], its[False])
    assert augmenter.progress == pytest.approx(5 / 6)


@pytest.mark.parametrize("every", [1, 2], ids=["each batch", "accumulated"])
def test_a_policy_that_draws_nothing_changes_no_bit(every, tmp_path):
    plain, mine = (trainer_in(tmp_path / name, gradient_accumulation_steps=every, steps=3) for name in ("plain", "mine"))
    augmenter = made(adaug.Policy(()))
    augmented(mine, augmenter)
    for trainer in (plain, mine):
        trainer.train()
    assert augmenter.steps == 3 * every
    assert losses(plain) == losses(mine)
    assert nets.same(plain.model.state_dict(), mine.model.state_dict())


@pytest.mark.parametrize("told", ["the folder", "the latest", "moved elsewhere"])
def test_a_training_is_resumed_to_the_same_bits(told, tmp_path):
    whole, expected = trainer_in(tmp_path / "whole"), made()
    augmented(whole, expected)
    whole.train()
    folder = tmp_path / "whole" / "checkpoint-3"
    shutil.rmtree(tmp_path / "whole" / "checkpoint-6")
    if told == "moved elsewhere":
        folder = shutil.move(folder, tmp_path / "moved")
    again, augmenter = trainer_in(tmp_path / "whole"), made()
    augmented(again, augmenter)
    again.train(resume_from_checkpoint=True if told == "the latest" else str(folder))
    assert losses(again) == losses(whole)
    assert nets.same(augmenter.state_dict(), expected.state_dict())
    assert nets.same(again.model.state_dict(), whole.model.state_dict())
    assert len(again.model.seen[True]) == 3


def test_a_checkpoint_without_the_augmenter_is_told_and_loaded(tmp_path, caplog):
    trainer_in(tmp_path, steps=3).train()
    trainer, augmenter = trainer_in(tmp_path), made()
    augmented(trainer, augmenter)
    with caplog.at_level(logging.WARNING, "adaug"):
        trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    (record,) = [record for record in caplog.records if record.name == "adaug"]
    assert "there is no adaug.pt in" in record.message
    assert augmenter.steps == 3


class OwnLoss(transformers.Trainer):
    def compute_loss(self, model, inputs, return_outputs=False, **kwargs):
        labels = inputs.pop("labels")
        outputs = model(**inputs)
        loss = F.cross_entropy(outputs["logits"], labels, label_smoothing=0.1)
        return (loss, outputs) if return_outputs else loss


@pytest.mark.parametrize("kind", [OwnLoss, transformers.Trainer])
def test_losses_of_ones_own_and_smoothed_labels_are_kept(kind, tmp_path):
    trainer, augmenter = trainer_in(tmp_path, kind=kind, label_smoothing_factor=0.0 if kind is OwnLoss else 0.1), made()
    augmented(trainer, augmenter)
    trainer.train()
    assert augmenter.state_dict()["learners"]["asr+aho"]["steps"] == 6
    logs = [log for log in trainer.state.log_history if "loss" in log]
    assert all(any(name.startswith("adaug/") for name in log) for log in logs)


def test_a_measure_of_ones_own_gets_the_whole_output(tmp_path):
    got = []

    def difficulty(output, batch):
        got.append(set(output))
        return F.cross_entropy(output["logits"], batch["labels"], reduction="none")

    trainer, augmenter = trainer_in(tmp_path, steps=2), made(difficulty=difficulty)
    augmented(trainer, augmenter)
    trainer.train()
    assert got == [{"loss", "logits"}] * 2


def test_reports_see_the_scalars_and_a_second_augmenter_is_refused(tmp_path):
    seen = []

    class Report(transformers.TrainerCallback):
        def on_log(self, args, state, control, logs=None, **kwargs):
            seen.append(copy.deepcopy(logs))

    trainer = trainer_in(tmp_path, steps=2)
    trainer.add_callback(Report())
    augmented(trainer, made(), name="face")
    trainer.train()
    assert any(name.startswith("face/") for name in seen[0])
    with pytest.raises(ValueError, match="Found an AugmenterCallback in it"):
        augmented(trainer, made())
    assert sum(isinstance(one, AugmenterCallback) for one in trainer.callback_handler.callbacks) == 1

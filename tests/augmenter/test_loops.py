"""The library inside other people's loops: Lightning, Accelerate, Hugging Face, and those that many start from."""

import copy
import logging
import os
import re
from pathlib import Path
from unittest import mock

import networks as nets
import pytest
import torch
from torch import nn

import adaug
from adaug._model.wrappers import unwrap

pytestmark = pytest.mark.filterwarnings("ignore")  # trainers warn about loggers, workers and versions


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 4, 1),
    )  # fmt: skip


def rows(n=36):
    generator = torch.Generator().manual_seed(1)
    return [
        {"image": torch.rand(3, 16, 16, generator=generator), "keypoints": torch.rand(4, 2, generator=generator) * 16}
        for _ in range(n)
    ]


def loss_fn(output, batch):
    target = adaug.keypoints.render_heatmaps(batch["keypoints"], 4, stride=4)
    return (output.float() - target).square().mean((1, 2, 3))


def augmenter():
    return adaug.AdversarialAugmenter(adaug.policies.paper(()), seed=3)


# ---- Lightning


def lightning_module():
    L = pytest.importorskip("lightning")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)

    class Pose(L.LightningModule):
        def __init__(self):
            super().__init__()
            self.network, self.augmenter = network(), augmenter()

        def training_step(self, batch, index):
            return self.augmenter.step(self.network, batch, loss_fn).loss

        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters(), lr=1e-3)

        def train_dataloader(self):
            return torch.utils.data.DataLoader(rows(), batch_size=6)

    return L, Pose()


def fit(folder, epochs, resume=None, **arguments):
    L, module = lightning_module()
    from adaug.integrations.lightning import AugmenterCallback

    trainer = L.Trainer(
        accelerator="cpu", max_epochs=epochs, callbacks=[AugmenterCallback(module.augmenter)], logger=False,
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False, default_root_dir=folder, **arguments,
    )  # fmt: skip
    trainer.fit(module, ckpt_path=resume)
    return trainer, module


def test_lightning_resumes_bit_for_bit(tmp_path):
    whole, expected = fit(tmp_path, 2)
    half, _ = fit(tmp_path, 1)
    half.save_checkpoint(tmp_path / "half.ckpt")
    _, resumed = fit(tmp_path, 2, resume=tmp_path / "half.ckpt")
    assert expected.augmenter.steps == resumed.augmenter.steps == 12
    for a, b in zip(expected.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)
    mine, theirs = (nets.saved_generators(module.augmenter.state_dict())["asr"]["generator"] for module in (expected, resumed))
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    assert "adaug/reward_rate/asr" in whole.callback_metrics
    assert 0 < expected.augmenter.progress < 1


def test_lightning_trains_in_bf16(tmp_path):
    _, module = fit(tmp_path, 1, precision="bf16-mixed")
    assert module.augmenter.steps == 6
    assert all(parameter.isfinite().all() for parameter in module.parameters())


def test_callbacks_of_two_augmenters_have_names():
    pytest.importorskip("lightning")
    from adaug.integrations.lightning import AugmenterCallback

    first, second = (AugmenterCallback(augmenter(), name=name) for name in ("pose", "face"))
    assert first.state_key != second.state_key
    assert first.state_key == AugmenterCallback(augmenter(), name="pose").state_key


@pytest.fixture
def one_rank(tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/ranks", rank=0, world_size=1)
    with mock.patch.dict(os.environ):  # Fabric leaves its addresses there
        yield
    torch.distributed.destroy_process_group()


def test_a_part_wrapped_for_ranks_is_refused(one_rank):
    model = torch.nn.Sequential(torch.nn.parallel.DistributedDataParallel(network()))
    batch = torch.utils.data.default_collate(rows(6))
    with pytest.raises(TypeError, match=r"around the whole model.*Found it around 0;"):
        augmenter().step(model, batch, loss_fn)


def test_fabric_wraps_for_ranks_and_is_looked_through(one_rank):
    L = pytest.importorskip("lightning")
    fabric = L.Fabric(accelerator="cpu", devices=1, strategy="ddp")
    fabric.launch()
    model = network()
    wrapped, mine = fabric.setup(model), augmenter()
    assert unwrap(wrapped) is model
    batch = torch.utils.data.default_collate(rows(6))
    fabric.backward(mine.step(wrapped, batch, loss_fn).loss)
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.slow
def test_lightning_trains_on_two_processes(tmp_path):
    _, module = fit(tmp_path, 1, devices=2, strategy="ddp_fork")
    assert all(parameter.isfinite().all() for parameter in module.parameters())


# ---- Accelerate


def test_accelerate_trains_accumulates_and_resumes(tmp_path):
    accelerate = pytest.importorskip("accelerate")
    accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=2)
    model, mine = network(), augmenter()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    loader = torch.utils.data.DataLoader(rows(), batch_size=6)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    accelerator.register_for_checkpointing(mine)

    def epoch():
        losses = []
        for batch in loader:
            with accelerator.accumulate(model):
                loss = mine.step(model, batch, loss_fn).loss
                accelerator.backward(loss)
                optimizer.step()
                optimizer.zero_grad()
                losses.append(loss.detach().clone())
        return losses

    epoch()
    accelerator.save_state(str(tmp_path / "state"))
    saved = copy.deepcopy(nets.saved_generators(mine.state_dict())["aho"]["generator"])
    expected = epoch()
    assert any(
        not torch.equal(saved[name], value)
        for name, value in nets.saved_generators(mine.state_dict())["aho"]["generator"].items()
    )
    accelerator.load_state(str(tmp_path / "state"))
    assert mine.steps == 6
    assert all(torch.equal(a, b) for a, b in zip(epoch(), expected, strict=True))


# ---- what is not supported says so


@pytest.fixture
def alone():
    """A group of one rank."""
    import torch.distributed as dist

    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield dist.init_device_mesh("cpu", (1,))
    dist.destroy_process_group()


@pytest.mark.parametrize("what", ["all", "a part"])
def test_sharded_models_step_as_whole_ones(alone, what):
    from torch.distributed.fsdp import fully_shard

    losses = []
    for sharded in (False, True):
        torch.manual_seed(0)
        model, mine, batch = network(), augmenter(), torch.utils.data.default_collate(rows(4))
        if sharded:
            fully_shard(model[0] if what == "a part" else model, mesh=alone)
        for _ in range(2):
            result = mine.step(model, batch, loss_fn)
            result.loss.backward()
        losses.append(result.losses)
    torch.testing.assert_close(*losses)


def test_a_model_that_is_sharded_later_is_told_so(alone):
    from torch.distributed.fsdp import fully_shard

    model, mine, batch = network(), augmenter(), torch.utils.data.default_collate(rows(4))
    mine.bind(model, batch)
    fully_shard(model, mesh=alone)
    with pytest.raises(RuntimeError, match=r"sharded before.*detach"):
        mine.step(model, batch, loss_fn)
    mine.detach()
    mine.step(model, batch, loss_fn)


def test_the_older_fsdp_is_refused(alone):
    from torch.distributed.fsdp import FullyShardedDataParallel

    model = FullyShardedDataParallel(network(), device_id=torch.device("cpu"))
    with pytest.raises(TypeError, match="fully_shard"):
        augmenter().step(model, torch.utils.data.default_collate(rows(4)), loss_fn)


# ---- other people's loops: the diffs of docs/your-loop.md, before and after


PAGE = Path(__file__).resolve().parents[2] / "docs" / "your-loop.md"
DIFFS = dict(re.findall(r"^### ([^\n]+)\n(?:(?!###).)*?```diff\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.M | re.S))


def conv(outputs, *, channels=3, pooled=False, log=False):
    torch.manual_seed(0)
    layers = [nn.Conv2d(channels, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, outputs, 1)]
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten()] if pooled else []
    return nn.Sequential(*layers, *([nn.LogSoftmax(1)] if log else []))


def batches(n=3, **entries):
    generator = torch.Generator().manual_seed(1)
    return [{name: make(generator) for name, make in entries.items()} for _ in range(n)]


def images(*shape):
    return lambda generator: torch.rand(6, *shape, generator=generator)


def integers(high, *shape):
    return lambda generator: torch.randint(0, high, (6, *shape), generator=generator)


def tuples(loader):
    return [tuple(batch.values()) for batch in loader]


def of_classes(model):
    loader = tuples(batches(image=images(3, 32, 32), label=integers(4)))
    return {"model": model, "train_loader": loader, "optimizer": torch.optim.SGD(model.parameters(), lr=0.1)}


def mnist():
    return of_classes(conv(4, pooled=True, log=True)) | {"device": torch.device("cpu")}


def u_net():
    class Upsampled(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = conv(3)

        def forward(self, x):
            return nn.functional.interpolate(self.inner(x), scale_factor=4)

    def dice_loss(prediction, truth):
        both = 2 * (prediction * truth).sum((-1, -2))
        return 1 - ((both + 1e-6) / (prediction.sum((-1, -2)) + truth.sum((-1, -2)) + 1e-6)).mean()

    model = Upsampled()
    return {
        "model": model, "dice_loss": dice_loss, "criterion": nn.CrossEntropyLoss(), "amp": False,
        "device": torch.device("cpu"), "optimizer": torch.optim.SGD(model.parameters(), lr=0.1),
        "grad_scaler": torch.amp.GradScaler("cpu", enabled=False),
        "train_loader": batches(image=images(3, 32, 32), mask=integers(3, 32, 32)),
    }  # fmt: skip


class JointsLoss(nn.Module):
    """Joint by joint, a mean over the batch, with a weight for each joint."""

    def __init__(self):
        super().__init__()
        self.criterion = nn.MSELoss()

    def forward(self, output, target, weight):
        maps, truths = ([part.squeeze(1) for part in each.flatten(2).split(1, 1)] for each in (output, target))
        each = [
            0.5 * self.criterion(a * weight[:, i], b * weight[:, i]) for i, (a, b) in enumerate(zip(maps, truths, strict=True))
        ]
        return sum(each) / len(each)


def simple_baselines():
    model = nn.DataParallel(conv(4)) if not torch.cuda.is_available() else conv(4)
    loader = tuples(batches(image=images(3, 32, 32), maps=images(4, 8, 8), weight=lambda _: torch.ones(6, 4, 1)))
    accuracy = lambda output, target: (output.flatten(2).argmax(2) == target.flatten(2).argmax(2)).float().mean()  # noqa: E731
    return {
        "model": model, "criterion": JointsLoss(), "flip_pairs": [(0, 1)], "device": "cpu", "losses": [], "accuracy": accuracy,
        "train_loader": [(*batch, {"center": torch.rand(6, 2)}) for batch in loader],
        "optimizer": torch.optim.SGD(model.parameters(), lr=0.1),
    }  # fmt: skip


class Hourglass(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = conv(4), conv(4)

    def stacks(self, x):
        return torch.stack([self.first(x), self.second(x)], 1)

    def calc_loss(self, preds, heatmaps):
        return (preds - heatmaps[:, None]).square().mean((2, 3, 4))  # [B, stacks]


class Wrapped(nn.Module):
    """A network that returns its predictions, and with labels also its losses."""

    def __init__(self, model):
        super().__init__()
        self.model, self.calc_loss = model, model.calc_loss

    def forward(self, imgs, **labels):
        preds = self.model(imgs)
        return [preds, self.calc_loss(preds, **labels)] if labels else preds


def stacked_hourglass():
    namespace = {}

    def make_optimizer(net):
        namespace["model"] = net
        return torch.optim.SGD(net.parameters(), lr=0.1)

    loader = batches(imgs=images(32, 32, 3), heatmaps=images(4, 8, 8))
    return namespace | {
        "Hourglass": Hourglass, "Wrapped": Wrapped, "flip_pairs": [(0, 1)], "train_loader": loader,
        "make_optimizer": make_optimizer,
    }  # fmt: skip


def facial_keypoints():
    net = conv(2 * 5, channels=1, pooled=True)
    loader = batches(
        image=images(1, 32, 32), keypoints=lambda generator: (torch.rand(6, 5, 2, generator=generator) * 32 - 100) / 50
    )
    return {
        "model": net, "net": net, "criterion": nn.SmoothL1Loss(), "train_loader": loader,
        "optimizer": torch.optim.SGD(net.parameters(), lr=0.1),
    }  # fmt: skip


def hugging_face():
    transformers = pytest.importorskip("transformers", minversion="5")
    pytest.importorskip("accelerate")
    transformers.logging.set_verbosity_error()

    class Segmentation(nn.Module):
        """Returns its own loss where it is given labels."""

        def __init__(self):
            super().__init__()
            self.inner = conv(4)

        def forward(self, pixel_values, labels=None):
            logits = nn.functional.interpolate(self.inner(pixel_values), scale_factor=4)
            result = {"logits": logits}
            if labels is not None:
                result = {"loss": nn.functional.cross_entropy(logits, labels, ignore_index=255), **result}
            return result

    model = Segmentation()
    arguments = transformers.TrainingArguments(
        "out", use_cpu=True, per_device_train_batch_size=6, max_steps=3, logging_steps=1, save_steps=2, report_to="none",
        disable_tqdm=True, optim="sgd", learning_rate=0.1,
    )  # fmt: skip
    rows = [
        {"pixel_values": image, "labels": mask}
        for batch in batches(pixel_values=images(3, 32, 32), labels=integers(4, 32, 32))
        for image, mask in zip(*batch.values(), strict=True)
    ]
    return {"model": model, "args": arguments, "train_dataset": rows}


def in_a_loader(namespace):
    """The batches as a DataLoader."""
    rows = [row for batch in namespace["train_loader"] for row in zip(*batch, strict=True)]
    return namespace | {"train_loader": torch.utils.data.DataLoader(rows, batch_size=6)}


def lightning():
    pytest.importorskip("lightning")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    network = conv(4, pooled=True)
    off = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    return in_a_loader(of_classes(network)) | {"network": network, "quiet": {"accelerator": "cpu", **off}}


def accelerated():
    pytest.importorskip("accelerate")
    return in_a_loader(of_classes(conv(4, pooled=True)))


STANDINS = {
    "MNIST": mnist, "U-Net": u_net, "SimpleBaselines": simple_baselines, "Stacked hourglass": stacked_hourglass,
    "Facial keypoints": facial_keypoints, "Hugging Face's Trainer": hugging_face, "Lightning's module": lightning,
    "Accelerate's loop": accelerated,
}  # fmt: skip


def trained(name, left_out, *, nothing=False):
    """The weights after a loop, without the lines of a diff that begin with a sign."""
    text = "\n".join(line[1:] for line in DIFFS[name].splitlines() if not line.startswith(left_out))
    if nothing:
        text, found = re.subn(r"adaug\.policies\.robust\((?:[^()]|\(\))*\)", "adaug.Policy(())", text)
        assert found == 1
    namespace = STANDINS[name]() | {"torch": torch, "nn": nn, "F": nn.functional}
    torch.manual_seed(0)
    exec(compile(text, name, "exec"), namespace)
    model = namespace.get("model") or namespace["net"]
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()]), namespace


def augmenter_in(namespace):
    if "augmenter" in namespace:
        return namespace["augmenter"]
    trainer = namespace["trainer"]
    callbacks = trainer.callbacks if hasattr(trainer, "callbacks") else trainer.callback_handler.callbacks
    return next(callback.augmenter for callback in callbacks if hasattr(callback, "augmenter"))


@pytest.mark.parametrize("name", STANDINS)
def test_a_loop_after_the_change_is_the_loop_before_it(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before, _ = trained(name, "+")
    nothing, _ = trained(name, "-", nothing=True)
    after, namespace = trained(name, "-")
    torch.testing.assert_close(nothing, before, rtol=1e-4, atol=1e-6)
    assert after.isfinite().all()
    assert not torch.allclose(after, before, rtol=1e-4, atol=1e-6)
    assert augmenter_in(namespace).steps == 3


def test_the_lines_that_change_are_those_that_the_page_counts():
    assert DIFFS.keys() == STANDINS.keys()
    rows = re.findall(r"^\| ([^|]+) \| (\d+) \| (\d+) \| (\d+)", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert {name for name, *_ in rows} == DIFFS.keys()
    for name, imports, lines, loss in rows:
        new = [line for line in DIFFS[name].splitlines() if line.startswith("+") and line.strip() != "+"]
        assert sum(line.startswith(("+import", "+from")) for line in new) == int(imports), name
        assert len(new) == int(imports) + int(lines) + int(loss), name
        assert int(lines) <= 4
        assert len(new) <= 3 or name not in ("Hugging Face's Trainer", "Lightning's module")


def fit_transformers(folder, steps, resume=None, **arguments):
    transformers = pytest.importorskip("transformers", minversion="5")
    from adaug.integrations.transformers import AugmenterCallback

    namespace = hugging_face()
    augmenter = adaug.AdversarialAugmenter(
        adaug.policies.paper((), adaug.learners.Paper(features=["inner.0", "inner.2"])),
        targets={"labels": adaug.Target("mask", fill=255)},
        seed=0,
    )
    loss_fn = adaug.per_sample(nn.CrossEntropyLoss(ignore_index=255), target="labels", output="logits")

    class Segmenter(transformers.Trainer):
        def compute_loss(self, model, inputs, return_outputs=False, **kwargs):
            if return_outputs:
                return super().compute_loss(model, inputs, True, **kwargs)
            return augmenter.step(model, inputs, loss_fn).loss

    args = namespace["args"]
    args.output_dir, args.max_steps = str(folder), steps
    seen = []

    class Reporter(transformers.TrainerCallback):
        def on_log(self, args, state, control, logs=None, **kwargs):
            seen.append(dict(logs))

    rows = namespace["train_dataset"]
    trainer = Segmenter(
        model=namespace["model"], args=args, train_dataset=rows, eval_dataset=rows[:6],
        callbacks=[AugmenterCallback(augmenter, **arguments), Reporter()],
    )  # fmt: skip
    trainer.train(resume_from_checkpoint=resume)
    return trainer, augmenter, seen


def test_hugging_faces_trainer_saves_resumes_logs_and_evaluates(tmp_path):
    whole, expected, seen = fit_transformers(tmp_path / "whole", 3)
    _, resumed, _ = fit_transformers(tmp_path / "whole", 3, resume=str(tmp_path / "whole" / "checkpoint-2"))
    assert expected.steps == resumed.steps == 3
    for name in ("asr", "aho"):
        mine, theirs = (nets.saved_generators(each.state_dict())[name]["generator"] for each in (expected, resumed))
        assert all(torch.equal(mine[key], theirs[key]) for key in mine)
    assert expected.progress == pytest.approx(2 / 3)
    logs = [log for log in whole.state.log_history if "loss" in log]
    assert all("adaug/reward_rate/asr" in log for log in logs)
    assert "adaug/reward_rate/asr" in seen[0]  # what reports logs sees them
    assert set(whole.evaluate()) >= {"eval_loss"}
    assert expected.steps == 3
    (tmp_path / "whole" / "checkpoint-2" / "adaug.pt").rename(tmp_path / "adaug.pt")
    with pytest.raises(FileNotFoundError, match=r"Found none in .*checkpoint-2; pass the folder"):
        fit_transformers(tmp_path / "whole", 3, resume=str(tmp_path / "whole" / "checkpoint-2"))
    _, moved, _ = fit_transformers(tmp_path / "whole", 3, resume=str(tmp_path / "whole" / "checkpoint-2"), checkpoint=tmp_path)
    assert moved.steps == 3


# ---- a model that returns its own loss, and what a step gives back of the output


def test_a_model_that_returns_its_own_loss_is_trained_on_its_logits():
    class Classifier(nn.Module):
        """As Hugging Face's: with labels it returns a loss, without them logits alone."""

        def __init__(self):
            super().__init__()
            self.inner = conv(4, pooled=True)

        def forward(self, pixel_values, labels=None):
            logits = self.inner(pixel_values)
            return {"loss": None if labels is None else nn.functional.cross_entropy(logits, labels), "logits": logits}

    model, batch = Classifier(), {"pixel_values": torch.rand(6, 3, 32, 32), "labels": torch.arange(6) % 4}
    loss_fn = adaug.per_sample(nn.CrossEntropyLoss(), target="labels", output="logits")
    result = adaug.AdversarialAugmenter(adaug.policies.robust(), seed=0).step(model, batch, loss_fn)
    own = model(**result.batch)
    torch.testing.assert_close(result.loss, own["loss"])
    torch.testing.assert_close(result.output["logits"], own["logits"])
    assert result.output["logits"].requires_grad

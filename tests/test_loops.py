"""The library inside other people's loops: Lightning and Accelerate."""

import copy
import logging
import os
from unittest import mock

import pytest
import torch
from torch import nn

import adaug
from adaug._wrappers import unwrap

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
    mine, theirs = (module.augmenter.state_dict()["adversaries"]["asr"]["generator"] for module in (expected, resumed))
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
    saved = copy.deepcopy(mine.state_dict()["adversaries"]["aho"]["generator"])
    expected = epoch()
    assert any(
        not torch.equal(saved[name], value) for name, value in mine.state_dict()["adversaries"]["aho"]["generator"].items()
    )
    accelerator.load_state(str(tmp_path / "state"))
    assert mine.steps == 6
    assert all(torch.equal(a, b) for a, b in zip(epoch(), expected, strict=True))


# ---- what is not supported says so


@pytest.mark.parametrize("what", ["all", "a part", "later"])
def test_sharded_models_are_refused(what):
    import torch.distributed as dist
    from torch.distributed.fsdp import fully_shard

    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        model, mine, batch = network(), augmenter(), torch.utils.data.default_collate(rows(4))
        if what == "later":
            mine.bind(model, batch)
        fully_shard(model[0] if what == "a part" else model, mesh=dist.init_device_mesh("cpu", (1,)))
        with pytest.raises(TypeError, match="FSDP"):
            mine.step(model, batch, loss_fn)
    finally:
        dist.destroy_process_group()

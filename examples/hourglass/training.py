"""One run in the three stages of section 5.1: the hourglass alone, the generators on the frozen hourglass, all jointly.

The arms of a comparison differ in the views alone: they start from the same weights, see the same images in the same
order, and take the same number of optimizer steps. The random arm goes on with random views in stage 3.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import adaug
from adaug import plots
from examples.hourglass.checkpoints import check_folder, load_checkpoint, save_checkpoint
from examples.hourglass.config import CPU, PAPER, TRIVIAL, Config, Machine
from examples.hourglass.evaluation import TARGETS, Scores, evaluate
from examples.hourglass.model import StackedHourglass
from examples.datasets.people import People
from examples.hourglass.ranks import distributed, rank, ranks
from examples.hourglass.augmentation import (
    Rows,
    augmenter_of,
    difficulty_of,
    learning_rate,
    loss_of,
    model_of,
    optimizer_of,
    plan_of,
    policy_of,
    teacher_of,
    turns_of,
)
from examples.hourglass.progress import Epoch, Means, Reporter

__all__ = ["PAPER", "Config", "Epoch", "Machine", "Run", "distributed", "train"]


@dataclass(frozen=True)
class Run:
    """A finished run. The augmenter is bound to the model, for pictures of what it would do next."""

    config: Config
    model: StackedHourglass
    augmenter: adaug.AdversarialAugmenter
    history: list[Epoch]
    folder: Path


def train(
    people: People,
    test: People,
    config: Config,
    folder: str | Path,
    *,
    machine: Machine = CPU,
    resume: bool = True,
    progress: bool = True,
) -> Run:
    """Trains a network, from the folder's checkpoint if there is one. Writes a checkpoint after each epoch.

    A run that was killed and resumed ends with the very weights of one that was not, on the same machine. Raises
    ValueError when the folder holds a run of another config or other people, OSError when it cannot be written.
    """
    folder = Path(folder)
    if rank() == 0:
        check_folder(folder)
    session = _Session(people, test, config, machine)
    identity = {"config": _plain(config), "people": fingerprint(people)}
    history: list[Epoch] = []
    saved = load_checkpoint(folder, identity) if resume else None
    if saved is not None:
        session.load_state_dict(saved["session"])
        history = [Epoch(**epoch) for epoch in saved["history"]]
    session.wrap()
    plan = plan_of(config)
    if len(history) < len(plan):
        steps, policy = [session.steps_of(stage) for stage in plan], policy_of(config, people.joints)
        with Reporter(folder, config, plan, history, steps=steps, policy=policy, enabled=progress) as reporter:
            for stage in plan[len(history) :]:
                history.append(session.epoch(stage, plan, history, reporter))
                if rank() == 0:
                    state = {"session": session.state_dict(), "history": [_plain(epoch) for epoch in history]}
                    save_checkpoint(folder, {**identity, **state})
                reporter.epoch(history)
    return Run(config, session.model, session.augmenter, history, folder)


class _Session:
    """The network, its optimizer and the augmenter of a run, and how they go through an epoch."""

    def __init__(self, people: People, test: People, config: Config, machine: Machine) -> None:
        share = ranks() * config.accumulate
        if config.batch_size % share:
            raise ValueError(f"`batch_size` should be a multiple of ranks x accumulate = {share}. Found {config.batch_size}.")
        if len(people) < config.batch_size:
            raise ValueError(
                f"There should be at least a batch of people to train on, {config.batch_size}. Found {len(people)}."
            )
        self.people, self.test, self.config, self.machine = people, test, config, machine
        self.device = torch.device(machine.device)
        layout = torch.channels_last if machine.channels_last else torch.preserve_format
        self.model = model_of(config, people.joints).to(self.device, memory_format=layout)  # type: ignore[call-overload]
        self.network: nn.Module = self.model  # as it is called in training: perhaps compiled, perhaps with DDP around it
        self.optimizer = optimizer_of(config, self.model.parameters(), config.lr)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=config.precision == "fp16")  # type: ignore[attr-defined, unused-ignore]
        self.steps = len(people) // config.batch_size  # of the optimizer, an epoch
        self.teacher = teacher_of(config, self.model)
        joint = self.steps * config.accumulate * config.epochs[2]
        self.augmenter = augmenter_of(config, people.joints, joint, self.teacher)

    def wrap(self) -> None:
        """DDP and compilation. The augmenter's hooks come first: compiled code would never call later ones."""
        self.augmenter.bind(self.model, next(self._parts(next(self._batches(0)))))
        if ranks() > 1:
            self.network = DistributedDataParallel(self.model, [self.device.index] if self.device.index is not None else None)
        if self.machine.compile:
            self.network = torch.compile(self.network)  # type: ignore[assignment]

    def state_dict(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "augmenter": self.augmenter.state_dict(),
            "teacher": None if self.teacher is None else self.teacher.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.augmenter.load_state_dict(state["augmenter"])
        if self.teacher is not None:
            self.teacher.load_state_dict(state["teacher"])

    # -- an epoch

    def steps_of(self, stage: int) -> int:
        """The batches of an epoch; stage 2 takes few people."""
        return min(self.config.pretrain_people, len(self.people)) // self.config.batch_size or 1 if stage == 2 else self.steps

    def epoch(self, stage: int, plan: Sequence[int], history: Sequence[Epoch], reporter: Reporter) -> Epoch:
        """Goes through one epoch of a stage and says what it saw."""
        started, worked = time.perf_counter(), time.process_time()
        trained = sum(epoch.stage != 2 for epoch in history)
        networks = sum(stage != 2 for stage in plan)
        means = Means(self.device)
        lr = 0.0
        if stage == 2:
            self._pretrain(sum(epoch.stage == 2 for epoch in history), means, reporter)
        else:
            scores = [epoch.pck["Mean"] for epoch in history if epoch.pck]
            lr = learning_rate(self.config, trained / networks, scores)
            self._train(stage, trained, lr, means, reporter)
            trained += 1
        self._share_buffers()
        found = means.by_kind()
        last = len(history) + 1 == len(plan)
        evaluates = stage != 2 and (trained % self.config.evaluate_every == 0 or last)
        looks = self.config.bins_every > 0 and stage != 2 and (trained % self.config.bins_every == 0 or last)
        return Epoch(
            stage=stage,
            number=len(history) + 1,
            images=trained * self.steps * self.config.batch_size,
            lr=lr,
            loss=_floats(found.get("loss", {})),
            reward_rate=_floats(found.get("reward_rate", {})),
            entropy=_floats(found.get("entropy", {})),
            distribution={head: _rounded(value) for head, value in found.get("distribution", {}).items()},
            pck=self._evaluate() if evaluates else {},
            by_bin=self._by_bin() if looks and rank() == 0 else {},
            seconds=round(time.perf_counter() - started, 3),
            cpu_seconds=round(time.process_time() - worked, 3),
        )

    def _train(self, stage: int, epoch: int, lr: float, means: Means, reporter: Reporter) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.network.train()
        random = self.config.arm in ("none", "random") or (stage == 1 and self.config.arm not in TRIVIAL)
        for batch in self._batches(epoch):
            for last, part in _flag_last(self._parts(batch)):
                with self._autocast(), nullcontext() if last else self._no_sync():
                    loss = self._random(part, means) if random else self._step(part, means)
                    self.scaler.scale(loss / self.config.accumulate).backward()
            self.scaler.step(self.optimizer)
            self.scaler.update()
            self.optimizer.zero_grad(set_to_none=True)
            if self.teacher is not None:
                self.teacher.update_parameters(self.model)
            reporter.step(means)
        if not torch.isfinite(means.total("loss")):
            raise FloatingPointError(
                f"The loss should be finite. Found {float(means.total('loss'))} in epoch {epoch + 1} of the network; lower "
                "the learning rate or use another precision. The last checkpoint is from before it."
            )

    def _random(self, part: Rows, means: Means) -> Tensor:
        seen = self.augmenter.random(part)
        loss = loss_of(self.config, self.network(seen["image"]), seen).mean()
        means.add({"loss/random": loss.detach()})
        return loss

    def _step(self, part: Rows, means: Means) -> Tensor:
        result = self.augmenter.step(self.network, part, lambda outputs, rows: loss_of(self.config, outputs, rows))
        means.add(result.metrics)
        return result.loss

    def _pretrain(self, epoch: int, means: Means, reporter: Reporter) -> None:
        count = self.steps_of(2)

        def loader() -> Iterator[Rows]:
            for batch in itertools.islice(self._batches(epoch, seed=self.config.seed + 1), count):
                reporter.step(means)
                yield from self._parts(batch)

        with self._autocast():
            divergence = self.augmenter.pretrain(
                self.model,
                loader(),
                lambda outputs, rows: loss_of(self.config, outputs, rows),
                steps=count * self.config.accumulate,
                lr=self.config.pretrain_lr,
                most_views=self.config.pretrain_views,
            )
            shown = self.augmenter.distributions(self.model, next(self._parts(next(self._batches(0)))))
        means.add({f"loss/{head}": values.mean() for head, values in divergence.items()})
        means.add({f"entropy/{head}": torch.special.entr(value).sum(1).mean() for head, value in shown.items()})
        means.add({f"distribution/{head}": value.mean(0) for head, value in shown.items()})

    def _evaluate(self) -> Scores:
        config = self.config
        found = evaluate(
            self.model, self.test, config.loss, size=config.size, thresholds=[config.threshold], rank=rank(), ranks=ranks()
        )
        return {group: round(value, 4) for group, value in found[config.threshold].items()}

    def _by_bin(self) -> dict[str, list[float]]:
        # Training people, because the generators answer for these; others may be turned to begin with.
        few = self.people.subset(range(min(self.config.bins_people, len(self.people))))
        found = {}
        for operation in turns_of(self.config):
            found[operation.name] = plots.loss_by_bin(
                self.model,
                [self._moved(batch) for batch in few.batches(self.config.batch_size, shuffle=False)],
                operation,
                partial(difficulty_of, self.config, None),
                targets=TARGETS,
                output_size=self.config.size,
            )
        return {name: _rounded(value) for name, value in found.items()}

    # -- data, precision, ranks

    def _batches(self, epoch: int, seed: int | None = None) -> Iterator[Rows]:
        """Batches of `batch_size` in the order of an epoch, the same in every arm."""
        seed = self.config.seed if seed is None else seed
        return self.people.batches(self.config.batch_size, seed=seed, epoch=epoch, drop_last=True)

    def _parts(self, batch: Rows) -> Iterator[Rows]:
        """This rank's rows of a batch, in the parts that go through the network one after the other."""
        parts = ranks() * self.config.accumulate
        for i in range(rank(), parts, ranks()):
            yield self._moved({name: value[i::parts] for name, value in batch.items()})

    def _moved(self, batch: Rows) -> Rows:
        moved = {name: value.to(self.device, non_blocking=True) for name, value in batch.items()}
        if self.machine.channels_last:
            moved["image"] = moved["image"].contiguous(memory_format=torch.channels_last)
        return moved

    def _autocast(self) -> AbstractContextManager[Any]:
        if self.config.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16 if self.config.precision == "bf16" else torch.float16)

    def _no_sync(self) -> AbstractContextManager[Any]:
        """Gradients are averaged over the ranks with the last part of a batch only."""
        context: AbstractContextManager[Any] = self.network.no_sync() if ranks() > 1 else nullcontext()  # type: ignore[operator]
        return context

    def _share_buffers(self) -> None:
        """BatchNorm's running statistics differ between ranks; evaluation and checkpoints know those of the first."""
        if ranks() > 1:
            for buffer in self.model.buffers():
                dist.broadcast(buffer, 0)


def fingerprint(people: People) -> str:
    """Tells one training set from another."""
    digest = hashlib.sha256(people.keypoints.numpy().tobytes())
    return f"{people.joints.name}-{len(people)}-{people.images.shape[-1]}-{digest.hexdigest()[:12]}"


def _flag_last(parts: Iterator[Rows]) -> Iterator[tuple[bool, Rows]]:
    held = next(parts)
    for part in parts:
        yield False, held
        held = part
    yield True, held


def _floats(values: dict[str, Tensor]) -> dict[str, float]:
    return {name: float(value) for name, value in values.items()}


def _rounded(values: Tensor) -> list[float]:
    return [round(float(value), 5) for value in values.tolist()]


def _plain(value: Any) -> Any:
    """A dataclass in the terms of JSON, so that what was saved compares equal."""
    return json.loads(json.dumps(dataclasses.asdict(value)))

"""One run in the three stages of section 5.1: the hourglass alone, the generators on the frozen hourglass, all jointly.

The arms of a comparison differ in the views alone: they start from the same weights, see the same images in the same
order, and take the same number of optimizer steps. The random arm goes on with random views in stage 3.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import adaug
from examples.datasets.people import TARGETS, Batch, Joints, People, Scores, as_floats
from examples.hourglass import augmentation
from examples.hourglass.augmentation import MakeAugmenter, difficulty_of, loss_of, make_optimizer, scale_and_rotation
from examples.hourglass.checkpoints import NAME, load_checkpoint, one_run, plain, save_checkpoint
from examples.hourglass.config import CPU, WITHOUT_GENERATORS, Config, Machine, autocast, rank, ranks
from examples.hourglass.evaluation import evaluate
from examples.hourglass.model import StackedHourglass
from examples.hourglass.progress import Epoch, Means, Progress

PRETRAIN_LR = 2.5e-4  # of the generators in stage 2, section 5.1
BIN_PEOPLE = 96  # test people on whom the error per bin is measured, for Figure 5
PART = 50  # steps of stage 2 between two checkpoints


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
    validation: People,
    config: Config,
    folder: str | Path,
    *,
    test: People | None = None,
    stage_1: str | Path | None = None,
    only_stage_1: bool = False,
    threshold: float = 0.5,
    make_augmenter: MakeAugmenter = augmentation.make_augmenter,
    machine: Machine = CPU,
    resume: bool = True,
    progress: bool = True,
) -> Run:
    """Trains a network, from the folder's checkpoint if there is one.

    It writes a checkpoint after each epoch, and in stage 2 after every `PART` steps. A run that was killed goes on from there,
    and ends with the very weights of one that was not, on the same machine.

    Args:
        validation: The people whose PCK `patience` watches.
        test: The people on whom the error in each bin is measured, for Figure 5. It decides nothing. Default: `validation`.
        stage_1: The folder of a run with `only_stage_1`, of the random arm, to start from. The weights are the same as without.
        only_stage_1: Whether to end after stage 1.
        threshold: Of this PCK.
        make_augmenter: Makes an augmenter from config, joints and the number of stage 3's calls. Say in `config.variant` how
            it differs from the example's.

    Raises:
        ValueError: The folder holds a run of another config or other people, or a damaged checkpoint.
        OSError: The folder cannot be written, or another run is in it.
    """
    folder = Path(folder)
    with one_run(folder) if rank() == 0 else nullcontext():
        session = _Session(people, validation, validation if test is None else test, config, threshold, make_augmenter, machine)
        identity = {"config": plain(config), "people": people.fingerprint()}
        saved = load_checkpoint(folder, identity) if resume else None
        if saved is not None:
            session.load_state_dict(saved["session"])
        elif stage_1 is not None:
            saved = load_checkpoint(Path(stage_1), {**identity, "config": plain(replace(config, arm="random"))})
            if saved is None:
                raise FileNotFoundError(f"{stage_1} should hold the checkpoint of stage 1. Found none; train it first.")
            session.start_from(saved["session"])
        history = [] if saved is None else [Epoch(**epoch) for epoch in saved["history"]]
        session.wrap()

        def save() -> None:
            if rank() == 0:
                state = {"session": session.state_dict(), "history": [plain(epoch) for epoch in history]}
                save_checkpoint(folder, {**identity, **state})

        if stage_1 is not None and not (folder / NAME).is_file():
            save()
        plan = plan_of(config)
        end = config.epochs[0] if only_stage_1 else len(plan)
        if len(history) < end:
            steps = [session.steps_of(stage) for stage in plan[:end]]
            with closing(Progress(folder, config, plan[:end], steps, history, progress)) as shown:
                for stage in plan[len(history) : end]:
                    history.append(session.epoch(stage, plan, history, shown, save))
                    save()
                    shown.epoch(history[-1])
        if ranks() > 1:
            dist.barrier()  # another run may start from this checkpoint
    return Run(config, session.model, session.augmenter, history, folder)


def plan_of(config: Config) -> list[int]:
    """The stage of each epoch of a run. Nothing is pre-trained where nothing is learned."""
    first, second, third = config.epochs
    return [1] * first + [2] * (0 if config.arm in WITHOUT_GENERATORS else second) + [3] * third


def make_model(config: Config, joints: Joints) -> StackedHourglass:
    """The hourglass of a seed: the same weights in every arm. Leaves the global random state as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        names = ("stacks", "modules", "width", "depth", "block", "stride")
        return StackedHourglass(len(joints), **{name: getattr(config, name) for name in names})


def learning_rate(
    config: Config, done: float, scores: Sequence[float], *, decay: float = 0.2, decay_at: Sequence[float] = (0.7, 0.9)
) -> float:
    """The model's rate after a fraction of its epochs, with the mean PCKs that were measured so far."""
    if config.patience is None:
        return config.lr * decay ** sum(done >= at - 1e-9 for at in decay_at)
    ends = range(config.patience + 1, len(scores) + 1)
    stalled = any(max(scores[: n - config.patience]) >= max(scores[n - config.patience : n]) for n in ends)
    return config.lr * decay if stalled else config.lr


@dataclass(frozen=True)
class Partial:
    """How far an epoch of stage 2 is: its steps, their means, and the seconds (wall clock, CPU) that they took."""

    steps: int = 0
    means: dict[str, Any] = field(default_factory=lambda: {"sums": {}, "counts": {}})
    seconds: tuple[float, float] = (0.0, 0.0)


class _Session:
    """The model, its optimizer and the augmenter of a run; `epoch` takes them through one."""

    def __init__(
        self,
        people: People,
        validation: People,
        test: People,
        config: Config,
        threshold: float,
        make_augmenter: MakeAugmenter,
        machine: Machine,
    ) -> None:
        size, parts = config.batch_size, ranks() * config.accumulate
        if size % parts:
            raise ValueError(f"`batch_size` should be a multiple of ranks x accumulate = {parts}. Found {size}.")
        if len(people) < size:
            raise ValueError(f"There should be at least a batch of people to train on, {size}. Found {len(people)}.")
        self.people, self.validation, self.test, self.config, self.threshold = people, validation, test, config, threshold
        self.machine, self.partial = machine, Partial()
        self.device = torch.device(machine.device)
        layout = torch.channels_last if machine.channels_last else torch.preserve_format
        model = make_model(config, people.joints)
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model) if machine.sync_batchnorm else model
        self.model = model.to(self.device, memory_format=layout)  # type: ignore[call-overload]
        self.network: nn.Module = self.model  # as it is called in training: perhaps compiled, perhaps with DDP around it
        self.optimizer = make_optimizer(config, self.model.parameters(), config.lr)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=config.precision == "fp16")  # type: ignore[attr-defined, unused-ignore]
        self.steps = len(people) // size  # of the optimizer, an epoch
        self.augmenter = make_augmenter(config, people.joints, self.steps * config.accumulate * config.epochs[2])

    def wrap(self) -> None:
        """DDP and compilation. The augmenter's hooks come first: compiled code would never call later ones."""
        self.augmenter.bind(self.model, next(self._batches(0, 1)))
        if ranks() > 1:
            self.network = DistributedDataParallel(self.model, [self.device.index] if self.device.index is not None else None)
        if self.machine.compile:
            self.network = torch.compile(self.network)  # type: ignore[assignment]

    def state_dict(self) -> dict[str, Any]:
        parts = {name: getattr(self, name).state_dict() for name in ("model", "optimizer", "scaler", "augmenter")}
        return {**parts, "partial": {one.name: getattr(self.partial, one.name) for one in fields(Partial)}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            if name == "partial":
                self.partial = Partial(**value)
            else:
                getattr(self, name).load_state_dict(value)

    def start_from(self, state: dict[str, Any]) -> None:
        """Loads stage 1 of the random arm. Its augmenter has another policy, so this one only goes on with its counters."""
        counts = {name: state["augmenter"][name] for name in ("seed", "counts")}
        self.load_state_dict({**state, "augmenter": {**self.augmenter.state_dict(), **counts}})

    # -- an epoch

    def steps_of(self, stage: int) -> int:
        """The batches of an epoch; stage 2 may take fewer people."""
        few = self.config.pretrain_people
        return self.steps if stage != 2 or few is None else min(self.steps, few // self.config.batch_size) or 1

    def epoch(
        self, stage: int, plan: Sequence[int], history: Sequence[Epoch], progress: Progress, save: Callable[[], None]
    ) -> Epoch:
        """Goes through one epoch of a stage and says what happened. save: writes a checkpoint inside stage 2."""
        started, worked = time.perf_counter(), time.process_time()
        progress.start(self.partial.steps)
        trained = sum(epoch.stage != 2 for epoch in history)
        means = Means(self.device)
        lr = 0.0
        if stage == 2:
            before = self.partial.seconds
            self._pretrain(sum(epoch.stage == 2 for epoch in history), means, progress, save)
            started, worked = started - before[0], worked - before[1]
        else:
            scores = [epoch.pck["Mean"] for epoch in history if epoch.pck]
            lr = learning_rate(self.config, trained / sum(stage != 2 for stage in plan), scores)
            self._train(stage, trained, lr, means, progress)
            trained += 1
        self._share_buffers()
        last = len(history) + 1 == len(plan)
        evaluates = stage != 2 and (trained % self.config.evaluate_every == 0 or last)
        looks = self.config.bins_every > 0 and stage != 2 and (trained % self.config.bins_every == 0 or last)
        kinds = ("loss", "reward_rate", "entropy")
        told: dict[str, Any] = {kind: {name: float(value) for name, value in means.of_kind(kind).items()} for kind in kinds}
        pck = self._evaluate() if evaluates else {}
        by_bin = self._by_bin() if looks and rank() == 0 else {}
        return Epoch(
            stage=stage,
            number=len(history) + 1,
            images=trained * self.steps * self.config.batch_size,
            lr=lr,
            **told,
            distribution={name: _rounded(value) for name, value in means.of_kind("distribution").items()},
            pck=pck,
            by_bin=by_bin,
            seconds=round(time.perf_counter() - started, 3),
            cpu_seconds=round(time.process_time() - worked, 3),
        )

    def _train(self, stage: int, epoch: int, lr: float, means: Means, progress: Progress) -> None:
        """Trains with the batches of an epoch."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.network.train()
        arm, accumulate = self.config.arm, self.config.accumulate
        random = arm in ("none", "random") or (stage == 1 and arm != "trivial")
        for i, part in enumerate(self._batches(epoch, self.steps), start=1):
            last = i % accumulate == 0
            with self._autocast(), nullcontext() if last else self._no_sync():
                loss = self._random(part, means) if random else self._step(part, means)
                self.scaler.scale(loss / accumulate).backward()
            if not last:
                continue
            self.scaler.step(self.optimizer)
            self.scaler.update()
            self.optimizer.zero_grad(set_to_none=True)
            progress.step(means)
        if not torch.isfinite(means.total("loss")):
            raise FloatingPointError(
                f"The loss should be finite. Found {float(means.total('loss'))} in epoch {epoch + 1} of the network; lower "
                "the learning rate or use another precision. The last checkpoint is from before it."
            )

    def _random(self, part: Batch, means: Means) -> Tensor:
        """The loss of random views, stage 1 and the random arm."""
        batch = self.augmenter.random(part)
        loss = loss_of(self.config, self.network(batch["image"]), batch).mean()
        means.add({"loss/random": loss.detach()})
        return loss

    def _step(self, part: Batch, means: Means) -> Tensor:
        """The loss of the augmenter's views, stage 3."""
        result = self.augmenter.step(self.network, part, partial(loss_of, self.config))
        means.add(result.metrics)
        return result.loss

    def _pretrain(self, epoch: int, means: Means, progress: Progress, save: Callable[[], None]) -> None:
        """An epoch of stage 2: the generators on the frozen model, from where a killed run was."""
        count, accumulate = self.steps_of(2), self.config.accumulate
        means.load_state_dict(self.partial.means)
        began = time.perf_counter() - self.partial.seconds[0], time.process_time() - self.partial.seconds[1]

        def loader(first: int, last: int) -> Iterator[Batch]:
            for i, part in enumerate(self._batches(epoch, last, first, self.config.seed + 1)):
                if i % accumulate == 0:
                    progress.step(means)
                yield part

        more: dict[str, Any] = {"lr": PRETRAIN_LR, "max_views": self.config.pretrain_views}
        for first in range(self.partial.steps, count, PART):
            last = min(first + PART, count)
            with self._autocast():
                parts, steps = loader(first, last), (last - first) * accumulate
                divergence = self.augmenter.pretrain(self.model, parts, partial(loss_of, self.config), steps=steps, **more)
            for i in range(steps):
                means.add({f"loss/{name}": values[i] for name, values in divergence.items()})
            seconds = time.perf_counter() - began[0], time.process_time() - began[1]
            self.partial = Partial(last, means.state_dict(), seconds)
            if last < count:
                save()
        self.partial = Partial()
        with self._autocast():
            distributions = self.augmenter.distributions(self.model, next(self._batches(0, 1)))
        means.add({f"entropy/{name}": torch.special.entr(value).sum(1).mean() for name, value in distributions.items()})
        means.add({f"distribution/{name}": value.mean(0) for name, value in distributions.items()})

    def _evaluate(self) -> Scores:
        more: dict[str, Any] = {"rank": rank(), "ranks": ranks(), "precision": self.config.precision, "size": self.config.size}
        (scores,) = evaluate(self.model, self.validation, self.config.loss, thresholds=[self.threshold], **more).values()
        return {group: round(value, 4) for group, value in scores.items()}

    def _by_bin(self) -> dict[str, list[float]]:
        """The error per bin of scale and rotation, on testing data as in Figure 5."""
        few = min(BIN_PEOPLE, len(self.test))
        batches = [self._moved(self.test.raw_rows(index)) for index in torch.arange(few).split(self.config.batch_size)]
        difficulty, views = partial(difficulty_of, self.config), scale_and_rotation(self.config)
        more: dict[str, Any] = {
            "higher_is_better": False,
            "targets": TARGETS,
            "output_size": self.config.size,
            "progress": False,
        }
        more |= {"num_draws": 0, "pairs": False, "num_pictures": 0}  # each alone
        with self._autocast():
            looks = {view.name: adaug.audit(self.model, batches, difficulty, view, **more) for view in views}
        return {name: [round(float(mean), 5) for mean in look.curve(name, alike=True).mean] for name, look in looks.items()}

    # -- data, precision, ranks

    def _batches(self, epoch: int, last: int, first: int = 0, seed: int | None = None) -> Iterator[Batch]:
        """This rank's rows of the batches `first` to `last` of an epoch, in `accumulate` parts each. Others are not read.

        The order is the same in every arm.
        """
        size, order = self.config.batch_size, self.people.order(self.config.seed if seed is None else seed, epoch)
        indices = my_parts(order[first * size : last * size], size, self.config.accumulate, rank(), ranks())
        return map(self._moved, self.people.loaded(indices, pin=self.device.type == "cuda"))

    def _moved(self, batch: Batch) -> Batch:
        moved = as_floats({name: value.to(self.device, non_blocking=True) for name, value in batch.items()})
        if self.machine.channels_last:
            moved["image"] = moved["image"].contiguous(memory_format=torch.channels_last)
        return moved

    def _autocast(self) -> AbstractContextManager[Any]:
        return autocast(self.device, self.config.precision)

    def _no_sync(self) -> AbstractContextManager[Any]:
        """Gradients are averaged over the ranks with the last part of a batch only."""
        context: AbstractContextManager[Any] = self.network.no_sync() if ranks() > 1 else nullcontext()  # type: ignore[operator]
        return context

    def _share_buffers(self) -> None:
        """BatchNorm's running statistics differ between ranks; evaluation and checkpoints know those of the first."""
        if ranks() > 1:
            for buffer in self.model.buffers():
                dist.broadcast(buffer, 0)


def my_parts(order: Tensor, batch_size: int, accumulate: int, rank: int, ranks: int) -> Iterator[Tensor]:
    """The numbers of the people that a rank computes, part after part."""
    parts = ranks * accumulate
    return (batch[i::parts] for batch in order.split(batch_size) for i in range(rank, parts, ranks))


def _rounded(values: Tensor) -> list[float]:
    return [round(float(value), 5) for value in values.tolist()]

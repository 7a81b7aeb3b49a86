"""One run in the three stages of section 5.1: the hourglass alone, the generators on the frozen hourglass, all jointly.

The arms of a comparison differ in the views alone: they start from the same weights, see the same images in the same
order, and take the same number of optimizer steps. The random arm goes on with random views in stage 3.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm  # type: ignore[import-untyped, unused-ignore]

import adaug
from adaug import keypoints, plots
from examples.hourglass.checkpoint import check_folder, load_checkpoint, save_checkpoint
from examples.hourglass.evaluation import TARGETS, Scores, evaluate
from examples.hourglass.losses import Loss, heatmap_loss, predicted_heatmaps
from examples.hourglass.model import StackedHourglass
from examples.hourglass.people import Joints, People

Arm = Literal["random", "uniform", "asr", "aho", "asr+aho"]
ARMS: tuple[Arm, ...] = ("random", "uniform", "asr", "aho", "asr+aho")
Rows = dict[str, Tensor]


@dataclass(frozen=True)
class Config:
    """Everything that a run's result depends on, but for data and machine. The defaults suit a small, short run.

    epochs: of the three stages. batch_size: people per optimizer step, over all ranks; a pass takes one of `accumulate`
    parts of a rank's share. decay_at: fractions of the network's epochs at which its rate falls by `decay`; or with
    `patience`, the evaluations without a better PCK after which it falls, once. scale, rotation: the ranges (±degrees)
    of the random and the adversarial views alike. share: of each branch; until: the fraction of stage 3 after which
    the branches rest. measure: what "harder" compares, the "error" that does not depend on a person's size in pixels,
    or the "loss". pretrain_people: a stage-2 epoch takes that many. bins_every: epochs between two looks at the error
    per scale and rotation of `bins_people` training people; 0 for none.
    """

    arm: Arm = "asr+aho"
    seed: int = 0
    size: int = 64
    stacks: int = 1
    modules: int = 1
    width: int | None = 32
    depth: int = 3
    stride: Literal[2, 4] = 2
    block: Literal["residual", "dense"] = "residual"
    loss: Loss = "cross-entropy"
    sigma: float = 1.0
    epochs: tuple[int, int, int] = (8, 1, 24)
    batch_size: int = 24
    accumulate: int = 1
    optimizer: Literal["adam", "rmsprop"] = "adam"
    lr: float = 1e-3
    decay: float = 0.2
    decay_at: tuple[float, ...] = (0.7, 0.9)
    patience: int | None = None
    generator_lr: float = 1e-3
    pretrain_lr: float = 2.5e-4
    pretrain_people: int = 96
    pretrain_views: int = 21
    scale: tuple[float, float] = (0.75, 1.25)
    rotation: float = 30.0
    share: float = 1 / 3
    until: float = 1.0
    measure: Literal["error", "loss"] = "error"
    alpha: float = 0.3
    beta: float = 0.3
    cap: float = 2.0
    threshold: float = 0.5
    evaluate_every: int = 4
    bins_every: int = 4
    bins_people: int = 48
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"

    def __post_init__(self) -> None:
        if self.arm not in ARMS:
            raise ValueError(f"`arm` should be one of {', '.join(ARMS)}. Found {self.arm!r}.")
        if len(self.epochs) != 3 or min(self.epochs) < 0 or self.epochs[0] + self.epochs[2] < 1:
            raise ValueError(f"`epochs` should be three numbers, not negative, of the stages. Found {self.epochs}.")
        for name in ("batch_size", "accumulate", "evaluate_every", "pretrain_people", "pretrain_views"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` should be at least 1. Found {getattr(self, name)}.")


# Section 5.1: RMSProp at 2.5e-4, the generators at 5e-5 after their pre-training, MSE; 256 x 256 crops, 64 x 64 maps.
PAPER = Config(
    size=256,
    modules=3,
    width=None,
    depth=4,
    stride=4,
    loss="mse",
    epochs=(20, 2, 180),
    optimizer="rmsprop",
    lr=2.5e-4,
    patience=10,
    generator_lr=5e-5,
    pretrain_people=2000,
    pretrain_views=63,
    evaluate_every=1,
    bins_people=256,
)


@dataclass(frozen=True)
class Machine:
    """Where and how a run computes; a run may be resumed on another."""

    device: str = "cpu"
    compile: bool = False
    channels_last: bool = False


@dataclass(frozen=True)
class Epoch:
    """What one epoch left behind; plain numbers, for JSON. The means are those of the first rank's rows."""

    stage: int
    number: int  # from 1, all stages counted
    images: int  # that the network has been trained on so far
    seconds: float
    lr: float
    loss: dict[str, float]  # branch -> mean; in stage 2 head -> KL divergence
    reward_rate: dict[str, float]  # branch -> how often its view was harder than the reference
    entropy: dict[str, float]  # head -> nats
    distribution: dict[str, list[float]]  # head -> mean probability of each bin
    pck: Scores = field(default_factory=dict)  # empty when not evaluated
    by_bin: dict[str, list[float]] = field(default_factory=dict)  # operation -> mean error (or loss) of each bin


@dataclass(frozen=True)
class Run:
    """A finished run. The augmenter is bound to the model, for pictures of what it would do next."""

    config: Config
    model: StackedHourglass
    augmenter: adaug.AdversarialAugmenter
    history: list[Epoch]
    folder: Path


# -- what a run is made of -------------------------------------------------------------------------------------------


def policy_of(config: Config, joints: Joints) -> adaug.Policy:
    """The policy of an arm. Every arm knows the same ranges, so that their random views are the same."""
    scale = adaug.Scale(*config.scale, 7)
    rotate = adaug.Rotate(-config.rotation, config.rotation, 9)
    flip = adaug.Flip(joints.flip_pairs)
    share = adaug.policies.Window(config.share, 0.0, config.until)
    asr = adaug.Branch("asr", (scale, rotate), share)
    aho = adaug.Branch("aho", (adaug.OccludeFeatures(grid=(4, 4), cells=(1, 2)),), share)
    if config.arm == "aho":
        return adaug.Policy((aho,), (flip, scale, rotate))
    policy = adaug.Policy((asr,) if config.arm == "asr" else (asr, aho), (flip,))
    return adaug.policies.uniform(policy) if config.arm in ("random", "uniform") else policy


def augmenter_of(config: Config, joints: Joints, steps: int) -> adaug.AdversarialAugmenter:
    """The augmenter of an arm; `steps` is how often it will be called in stage 3."""

    def optimizer(parameters: Any) -> torch.optim.Optimizer:
        return optimizer_of(config, parameters, config.generator_lr)

    return adaug.AdversarialAugmenter(
        policy_of(config, joints),
        features=["hg.0.skip*", "hg.0.neck"],
        occlude=["hg.*.skip*", "hg.*.neck"],
        targets=TARGETS,
        output_size=config.size,
        update=adaug.RewardPenalty(config.alpha, config.beta, config.cap),
        optimizer=optimizer,
        difficulty=None if config.measure == "loss" else lambda outputs, batch: error_of(config, outputs, batch),
        total_steps=max(1, steps),
        seed=config.seed,
    )


def optimizer_of(config: Config, parameters: Any, lr: float) -> torch.optim.Optimizer:
    """RMSProp as in the paper, or Adam."""
    return torch.optim.RMSprop(parameters, lr=lr) if config.optimizer == "rmsprop" else torch.optim.Adam(parameters, lr=lr)


def model_of(config: Config, joints: Joints) -> StackedHourglass:
    """The hourglass of a seed: the same weights in every arm. Leaves the global random state as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return StackedHourglass(
            len(joints),
            stacks=config.stacks,
            modules=config.modules,
            width=config.width,
            depth=config.depth,
            block=config.block,
            stride=config.stride,
        )


def loss_of(config: Config, outputs: Sequence[Tensor], batch: Rows) -> Tensor:
    """The heat-map loss of each person, [B]."""
    h, w = outputs[-1].shape[-2:]
    target = keypoints.render_heatmaps(
        batch["keypoints"],
        (h, w),
        config.sigma,
        stride=batch["image"].shape[-1] / w,
        visibility=batch["visibility"],
    )
    return heatmap_loss(config.loss, outputs, target, batch["visibility"])


def error_of(config: Config, outputs: Sequence[Tensor], batch: Rows) -> Tensor:
    """The mean error of each person's joints over the person's size, [B]: a larger person is not a harder one."""
    return keypoints.normalized_error(predicted_heatmaps(config.loss, outputs), batch)


def learning_rate(config: Config, done: float, scores: Sequence[float]) -> float:
    """The network's rate after a fraction of its epochs, with the mean PCKs that were measured so far."""
    if config.patience is None:
        return config.lr * config.decay ** sum(done >= at - 1e-9 for at in config.decay_at)
    ends = range(config.patience + 1, len(scores) + 1)
    stalled = any(max(scores[: n - config.patience]) >= max(scores[n - config.patience : n]) for n in ends)
    return config.lr * config.decay if stalled else config.lr


def plan_of(config: Config) -> list[int]:
    """The stage of each epoch of a run. Nothing is pre-trained where nothing is learned."""
    first, second, third = config.epochs
    return [1] * first + [2] * (0 if config.arm in ("random", "uniform") else second) + [3] * third


def fingerprint(people: People) -> str:
    """Tells one training set from another."""
    digest = hashlib.sha256(people.keypoints.numpy().tobytes())
    return f"{people.joints.name}-{len(people)}-{people.images.shape[-1]}-{digest.hexdigest()[:12]}"


# -- ranks -----------------------------------------------------------------------------------------------------------


def rank() -> int:
    """This process among those that torchrun started."""
    return dist.get_rank() if dist.is_initialized() else 0


def ranks() -> int:
    """How many there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


# -- training --------------------------------------------------------------------------------------------------------


def train(
    people: People,
    test: People,
    config: Config,
    folder: str | Path,
    *,
    machine: Machine = Machine(),
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
        with _Reporter(folder, config, plan, history, session, enabled=progress) as reporter:
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
        self.augmenter = augmenter_of(config, people.joints, self.steps * config.accumulate * config.epochs[2])

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
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.augmenter.load_state_dict(state["augmenter"])

    # -- an epoch

    def epoch(self, stage: int, plan: Sequence[int], history: Sequence[Epoch], reporter: _Reporter) -> Epoch:
        """Goes through one epoch of a stage and says what it saw."""
        started = time.perf_counter()
        trained = sum(epoch.stage != 2 for epoch in history)
        networks = sum(stage != 2 for stage in plan)
        means = _Means(self.device)
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
        )

    def _train(self, stage: int, epoch: int, lr: float, means: _Means, reporter: _Reporter) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.network.train()
        random = stage == 1 or self.config.arm == "random"
        for batch in self._batches(epoch):
            for last, part in _flag_last(self._parts(batch)):
                with self._autocast(), nullcontext() if last else self._no_sync():
                    loss = self._random(part, means) if random else self._step(part, means)
                    self.scaler.scale(loss / self.config.accumulate).backward()
            self.scaler.step(self.optimizer)
            self.scaler.update()
            self.optimizer.zero_grad(set_to_none=True)
            reporter.step(means)
        if not torch.isfinite(means.total("loss")):
            raise FloatingPointError(
                f"The loss should be finite. Found {float(means.total('loss'))} in epoch {epoch + 1} of the network; lower "
                "the learning rate or use another precision. The last checkpoint is from before it."
            )

    def _random(self, part: Rows, means: _Means) -> Tensor:
        seen = self.augmenter.random(part)
        loss = loss_of(self.config, self.network(seen["image"]), seen).mean()
        means.add({"loss/random": loss.detach()})
        return loss

    def _step(self, part: Rows, means: _Means) -> Tensor:
        result = self.augmenter.step(self.network, part, lambda outputs, rows: loss_of(self.config, outputs, rows))
        means.add(result.metrics)
        return result.loss

    def _pretrain(self, epoch: int, means: _Means, reporter: _Reporter) -> None:
        count = min(self.config.pretrain_people, len(self.people)) // self.config.batch_size or 1

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
        measure = error_of if self.config.measure == "error" else loss_of
        found = {}
        for operation in (adaug.Scale(*self.config.scale, 7), adaug.Rotate(-self.config.rotation, self.config.rotation, 9)):
            found[operation.name] = plots.loss_by_bin(
                self.model,
                [self._moved(batch) for batch in few.batches(self.config.batch_size, shuffle=False)],
                operation,
                lambda outputs, rows: measure(self.config, outputs, rows),
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


class _Means:
    """Running means of metrics "kind/name", kept on the device: asking for a number would wait for it."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}

    def add(self, metrics: dict[str, Tensor]) -> None:
        for name, value in metrics.items():
            self.sums[name] = self.sums[name] + value if name in self.sums else value.clone()
            self.counts[name] = self.counts.get(name, 0) + 1

    def by_kind(self) -> dict[str, dict[str, Tensor]]:
        kinds: dict[str, dict[str, Tensor]] = {}
        for key, total in self.sums.items():
            kind, _, name = key.partition("/")
            kinds.setdefault(kind, {})[name] = total / self.counts[key]
        return kinds

    def total(self, kind: str) -> Tensor:
        """The mean over everything of a kind."""
        found = [value.float() for value in self.by_kind().get(kind, {}).values()]
        return torch.stack(found).mean() if found else torch.zeros((), device=self.device)


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


# -- what the user sees ----------------------------------------------------------------------------------------------

STAGES = {1: "1 random views", 2: "2 generators", 3: "3 joint"}


class _Reporter:
    """The bar in the terminal, and the curves in TensorBoard. Silent on all ranks but the first."""

    def __init__(
        self, folder: Path, config: Config, plan: Sequence[int], history: Sequence[Epoch], session: _Session, *, enabled: bool
    ) -> None:
        few = min(config.pretrain_people, len(session.people)) // config.batch_size or 1
        steps = [few if stage == 2 else session.steps for stage in plan]
        self.config, self.plan, self.policy, self.active = config, plan, policy_of(config, session.people.joints), rank() == 0
        self.number = len(history)
        self.bar = tqdm(
            total=sum(steps),
            initial=sum(steps[: self.number]),
            unit="step",
            mininterval=0.2 if sys.stderr.isatty() else 30,  # a log file needs no animation
            disable=not (enabled and self.active),
            bar_format="{desc} {percentage:3.0f}% |{bar:20}| {elapsed}<{remaining}{postfix}",
        )
        self.pck = next((epoch.pck["Mean"] for epoch in reversed(history) if epoch.pck), None)
        self.writer: Any = None
        if self.active:
            from torch.utils.tensorboard import SummaryWriter  # slow to import, and only the first rank writes

            self.writer = SummaryWriter(str(folder / "tensorboard"), purge_step=self.number + 1)
        self._describe()

    def __enter__(self) -> _Reporter:
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.close()
        if self.writer is not None:
            self.writer.close()

    def step(self, means: _Means) -> None:
        self.bar.update()
        if not self.bar.disable and self.bar.n % 10 == 0:
            shown = {"loss": f"{float(means.total('loss')):.3f}"} if means.sums else {}
            rates = means.by_kind().get("reward_rate", {})
            shown |= {f"{name} harder": f"{float(value):.0%}" for name, value in rates.items()}
            if self.pck is not None:
                shown["PCK"] = f"{self.pck:.1f}"
            self.bar.set_postfix(shown, refresh=False)

    def epoch(self, history: Sequence[Epoch]) -> None:
        epoch = history[-1]
        self.number = epoch.number
        if epoch.pck:
            self.pck = epoch.pck["Mean"]
        if self.active:
            self._write(epoch)
        self._describe()

    def _describe(self) -> None:
        if self.number < len(self.plan):
            stage, number, total = self.plan[self.number], self.number + 1, len(self.plan)
            name = "3 random views" if stage == 3 and self.config.arm == "random" else STAGES[stage]
            self.bar.set_description_str(f"{self.config.arm:>7} | {name:<14} | epoch {number:>2}/{total}")

    def _write(self, epoch: Epoch) -> None:
        scalars = {"lr": epoch.lr, "seconds": epoch.seconds}
        for kind in ("loss", "reward_rate", "entropy", "pck"):
            scalars |= {f"{kind}/{name}": value for name, value in getattr(epoch, kind).items()}
        for name, value in scalars.items():
            self.writer.add_scalar(name, value, epoch.number)
        if epoch.distribution and (epoch.stage == 2 or epoch.by_bin):
            figure = plots.draw_distributions([epoch.distribution], policy=self.policy)
            self.writer.add_figure("distribution", figure, epoch.number)


def distributed(machine: Machine) -> AbstractContextManager[Machine]:
    """Joins the processes that torchrun started, and leaves them at the end; alone it does nothing."""
    return _Distributed(machine)


class _Distributed(AbstractContextManager[Machine]):
    def __init__(self, machine: Machine) -> None:
        self.machine, self.started = machine, int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized()

    def __enter__(self) -> Machine:
        if not self.started:
            return self.machine
        cuda = self.machine.device.startswith("cuda")
        local = int(os.environ.get("LOCAL_RANK", "0"))
        if cuda:
            torch.cuda.set_device(local)
        dist.init_process_group("nccl" if cuda else "gloo")
        return replace(self.machine, device=f"cuda:{local}") if cuda else self.machine

    def __exit__(self, *error: object) -> None:
        if self.started:
            dist.destroy_process_group()

"""The arms of benchmarks/worst_view.py: what each does to its rows, and how it takes a step."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from fractions import Fraction
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from typing_extensions import override

import adaug
from adaug.operations import Binned, Geometric
from adaug.policies import AXES, Running, Window
from benchmarks.worst_context import CONTEXTS, Context, hardest, put_in
from benchmarks.worst_tasks import Rows, Task

KINDS = ("plain", "random", "uniform", "even", "fixed", "exact", "running")
OPERATIONS = ("wide", "trivial", "more")
WORST_OF = re.compile(r"worst-of-(\d+)")


def arm_parser() -> argparse.ArgumentParser:
    """What may stand behind the kind of an arm."""
    parser = argparse.ArgumentParser(prog="an arm", formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("kind", help=f"{', '.join(KINDS)}, worst-of-K")
    parser.add_argument("--share", type=_part, default=1 / 3, help="of the rows, scaled and turned by the branch")
    parser.add_argument("--hidden", type=_part, default=1 / 3, help="of the rows, with hidden cells; 0: no such branch")
    parser.add_argument("--hide", choices=("image", "features"), default="image", help="where cells are hidden")
    parser.add_argument("--cells", choices=("learned", "even"), default="learned", help="how running arms draw hidden cells")
    parser.add_argument("--end", type=_part, help="when the branches stop, as a part of the training")
    parser.add_argument("--difficulty", choices=("error", "loss"), default="error", help="error: a measure free of size")
    parser.add_argument("--alpha", type=float, default=0.3, help="of the generators' reward")
    parser.add_argument("--beta", type=float, default=0.3, help="of their penalty")
    parser.add_argument(
        "--cap", type=float, help="no bin of k is learned above cap / k; default: 2 for exact, that of adaug for running"
    )
    parser.add_argument(
        "--operations",
        choices=OPERATIONS,
        default="wide",
        help="of which ready policy; more: wide, and shifts and shears in its first branch",
    )
    parser.add_argument("--rest", action="store_true", help="the rows of other branches are neither scaled nor turned")
    parser.add_argument("--joint", action="store_true", help="one table of scale times rotation, 3 x 5 bins, for running")
    parser.add_argument("--images", action="store_true", help="hard images come three times as often as easy ones")
    parser.add_argument("--context", choices=CONTEXTS, help="what running difficulty tells apart; default: all rows alike")
    parser.add_argument("--learned-shares", action="store_true", help="running difficulty decides the branches' shares too")
    parser.add_argument("--views", type=int, default=1, help="views of each image in a step")
    parser.add_argument("--epochs", type=int, help="default: the task's")
    parser.add_argument("--batch-size", type=int, help="default: the task's")
    parser.add_argument("--lr", type=float, help="default: the task's")
    return parser


def _part(text: str) -> float:
    return float(Fraction(text))


@dataclass(frozen=True)
class FixedScale(adaug.Scale):
    """Scales by a distribution that generators were seen to learn, times uniform."""

    WEIGHTS: ClassVar[tuple[float, ...]] = (1.7, 0.5, 0.4, 0.4, 0.5, 1.7, 1.7)

    def choose(self, log_probs: Tensor, stream: Any) -> Tensor:
        return super().choose(log_probs + torch.tensor(self.WEIGHTS).log(), stream)


@dataclass(frozen=True)
class FixedRotate(adaug.Rotate):
    """The same of rotations."""

    WEIGHTS: ClassVar[tuple[float, ...]] = (1.7, 1.6, 0.4, 0.4, 0.5, 0.4, 0.4, 1.6, 1.7)

    def choose(self, log_probs: Tensor, stream: Any) -> Tensor:
        return super().choose(log_probs + torch.tensor(self.WEIGHTS).log(), stream)


@dataclass(frozen=True)
class ScaleRotate(Geometric):
    """Both at once, by one table: every bin is a part of the scales and a part of the rotations. Magnitudes are [n, 2]."""

    both: tuple[adaug.Scale, adaug.Rotate] = field(kw_only=True)

    @staticmethod
    def of(scale: Any, rotate: Any) -> ScaleRotate:
        """With the ranges of two operations, in 3 and 5 parts."""
        both = replace(scale, bins=3), replace(rotate, bins=5)
        return ScaleRotate(0, 1, 15, rest=None if scale.rest is None else 0.0, both=both)

    @override
    def labels(self) -> list[str]:
        return [f"{scale} {turn}" for scale in self.both[0].labels() for turn in self.both[1].labels()]

    @override
    def draw(self, chosen: Tensor, stream: Any) -> Tensor:
        turns = self.both[1].bins
        parts = chosen // turns, chosen % turns
        return torch.stack([one.draw(part, stream) for one, part in zip(self.both, parts, strict=True)], 1)

    @override
    def draw_random(self, n: int, stream: Any) -> Tensor:
        return torch.stack([one.draw_random(n, stream) for one in self.both], 1)

    @override
    def membership(self, magnitude: Tensor) -> Tensor:
        scale, turn = (one.membership(part) for one, part in zip(self.both, magnitude.T.contiguous(), strict=True))
        return (scale[:, :, None] & turn[:, None]).flatten(1)

    @override
    def matrix(self, magnitude: Tensor, size: Any) -> Tensor:
        scale, turn = (one.matrix(part, size) for one, part in zip(self.both, magnitude.unbind(1), strict=True))
        return scale @ turn


class LearnedShares:
    """Decides the shares of a policy's branches: twice an even share to the hardest, and the rest to the next ones."""

    def __init__(self, policy: adaug.Policy) -> None:
        n = 1 + len(policy.branches)  # random views come first
        self.sums, self.rows, self.shares = torch.zeros(n), torch.zeros(n), torch.full((n,), 1 / n)

    def saw(self, branch: Tensor, errors: Tensor) -> None:
        """Remembers a mean that forgets by 3 % a step, and moves by 2 % of the way."""
        errors = errors.detach().float()
        self.sums = (0.97 * self.sums).index_add(0, branch, errors)
        self.rows = (0.97 * self.rows).index_add(0, branch, torch.ones_like(errors))
        best = hardest((self.sums / self.rows.clamp(min=1e-6))[None], 2.0)[0]
        self.shares = self.shares + 0.02 * (best - self.shares)


@dataclass(frozen=True)
class PartOf:
    """The share of one branch, by its number."""

    shares: LearnedShares
    number: int

    def __call__(self, progress: float) -> float:
        return float(self.shares.shares[self.number])


FIXED: dict[type[Binned], type[Binned]] = {adaug.Scale: FixedScale, adaug.Rotate: FixedRotate}


class Images:
    """Chooses images too: the harder half of them, by their latest errors, comes three times as often as the other."""

    def __init__(self, task: Task, seed: int) -> None:
        if task.rows is None:
            raise ValueError("--images should be of a task that tells its rows apart: people or faces.")
        self.rows, self.n = task.rows, task.n
        self.errors = torch.zeros(task.n)
        self.generator = torch.Generator().manual_seed(seed)

    def batches(self, size: int) -> Iterator[Rows]:
        """As many as in an epoch."""
        weights = torch.where(self.errors > self.errors.median(), 1.5, 0.5) if self.errors.any() else torch.ones(self.n)
        drawn = torch.multinomial(weights, self.n // size * size, replacement=True, generator=self.generator)
        return map(self.rows, drawn.split(size))

    def saw(self, index: Tensor, errors: Tensor) -> None:
        """Remembers, of each image, a mean that forgets: by a third each time."""
        errors = errors.detach()
        known = self.errors[index]
        self.errors[index] = torch.where(known == 0, errors, known + (errors - known) / 3)


def policy_of(arm: argparse.Namespace, task: Task) -> adaug.Policy:
    """What an arm does to its rows."""
    if arm.images and arm.kind not in ("uniform", "running"):
        raise ValueError(f"--images should be of uniform or running, whose steps tell the errors. Found it behind {arm.kind}.")
    if arm.hide == "features" and WORST_OF.fullmatch(arm.kind):
        raise ValueError("worst-of-K should hide cells of the image, which its batches keep. Found --hide features.")
    if arm.cells == "even" and arm.kind != "running":
        raise ValueError(f"--cells should be of running. Found it behind {arm.kind}.")
    if arm.views > 1 and arm.kind not in ("uniform", "running", "exact"):
        raise ValueError(f"--views should be of uniform, running or exact. Found it behind {arm.kind}.")
    if (arm.context or arm.learned_shares) and arm.kind != "running":
        raise ValueError(f"--context and --learned-shares should be of running. Found one behind {arm.kind}.")
    if arm.operations == "trivial" and (arm.rest or arm.joint or arm.end is not None):
        raise ValueError(
            "--rest, --joint and --end should be of arms with the wide policy. Found one behind --operations trivial."
        )
    policy = adaug.policies.trivial(task.pairs) if arm.operations == "trivial" else _wide(arm, task)
    if arm.kind == "plain":
        return replace(policy, branches=())
    if arm.kind == "even":
        asr, *hides = policy.branches
        everywhere = [replace(operation, random=None) for operation in _binned(asr)]
        return adaug.policies.uniform(replace(policy, branches=hides, common=[*policy.common, *everywhere]))
    if arm.kind == "fixed":
        asr, *hides = policy.branches
        fixed = [FIXED[type(operation)](**_fields(operation)) for operation in _binned(asr)]
        return adaug.policies.uniform(replace(policy, branches=[replace(asr, operations=fixed), *hides]))
    if arm.kind == "running":
        if arm.learned_shares:
            shares = LearnedShares(policy)
            numbered = enumerate(policy.branches, start=1)
            policy = replace(policy, branches=[replace(one, share=PartOf(shares, number)) for number, one in numbered])
        policy = adaug.policies.running(policy, Running() if arm.cap is None else Running(cap=arm.cap))
        if arm.cells == "even":
            hiding = [any(operation.hides for operation in branch.operations) for branch in policy.branches]
            each = zip(policy.branches, hiding, strict=True)
            policy = replace(policy, branches=[replace(one, learned=False) if hides else one for one, hides in each])
        return policy
    return policy if arm.kind in ("exact", "random") else adaug.policies.uniform(policy)


def _wide(arm: argparse.Namespace, task: Task) -> adaug.Policy:
    """policies.wide with the shares of an arm, and what is to be tried of its operations."""
    policy = adaug.policies.wide(task.pairs, rest=arm.rest)
    asr, aho = policy.branches
    if arm.rest and arm.kind == "random":
        raise ValueError(
            "--rest should be of an arm with branches. Found it behind random, whose images would stay as they are."
        )
    if arm.end is not None and arm.kind in ("plain", "random", "even"):
        raise ValueError(f"--end should be of an arm whose branches turn and scale. Found it behind {arm.kind}.")

    def on(share: float) -> float | Window:
        return share if arm.end is None else Window(share, end=arm.end)

    operations = list(asr.operations)
    if arm.joint:
        operations = [ScaleRotate.of(*operations)]
    if arm.operations == "more":
        operations += [
            kind(-limit, limit, 5, axis=axis, rest=0.0)
            for kind, limit in ((adaug.Translate, 0.1), (adaug.Shear, 15))
            for axis in AXES
        ]
    hides = [replace(aho, share=on(arm.hidden))] if task.hides and arm.hidden > 0 else []
    return replace(policy, branches=[replace(asr, share=on(arm.share), operations=operations), *hides])


def _binned(branch: adaug.Branch) -> list[Binned]:
    return [operation for operation in branch.operations if isinstance(operation, Binned)]


def _fields(operation: Binned) -> dict[str, Any]:
    return {one.name: getattr(operation, one.name) for one in fields(operation)}


def augmenter_of(
    policy: adaug.Policy, arm: argparse.Namespace, task: Task, seed: int, steps: int
) -> adaug.AdversarialAugmenter:
    """The augmenter of an arm; what generators alone use is given to generators alone."""
    more: dict[str, Any] = {}
    if any(operation.hides for operation in policy.operations.values()):
        more["occlude"] = task.layers if arm.hide == "features" else ()
    if arm.kind == "exact":
        more |= {
            "features": task.layers,
            "update": adaug.RewardPenalty(arm.alpha, arm.beta, arm.cap or adaug.RewardPenalty.cap),
        }
    if arm.kind in ("exact", "running"):
        more["difficulty"] = task.error if arm.difficulty == "error" else task.loss_fn
    return adaug.AdversarialAugmenter(policy, targets=task.targets, output_size=task.size, total_steps=steps, seed=seed, **more)


Step = Callable[[nn.Module, Rows], Tensor]  # the loss to train on


def step_of(augmenter: adaug.AdversarialAugmenter, arm: argparse.Namespace, task: Task, images: Images | None = None) -> Step:
    """One step of an arm."""
    if arm.kind == "random":
        return lambda model, batch: _trained(model, augmenter.random(batch), task)
    measure = task.error if arm.difficulty == "error" and task.error is not None else task.loss_fn
    if match := WORST_OF.fullmatch(arm.kind):
        return WorstOf(int(match[1]), augmenter, measure, task).step
    shares = next((one.share.shares for one in augmenter.policy.branches if isinstance(one.share, PartOf)), None)
    context: list[Context] = []

    def step(model: nn.Module, batch: Rows) -> Tensor:
        if arm.views > 1:
            batch = _together([batch] * arm.views, torch.cat)
        if arm.context is not None:
            context[:] = context or [put_in(augmenter, arm.context, augmenter.seed, model, batch)]
            context[0].now(batch)
        result = augmenter.step(model, batch, task.loss_fn)
        if images is not None:
            images.saw(result.batch["index"], measure(result.output, result.batch))
        if shares is not None:
            shares.saw(result.branch, measure(result.output, result.batch))
        return result.loss

    return step


def _trained(model: nn.Module, batch: Rows, task: Task) -> Tensor:
    return task.loss_fn(model(batch[0] if isinstance(batch, tuple) else batch["image"]), batch).mean()


def _together(batches: Sequence[Rows], join: Callable[[list[Tensor]], Tensor]) -> Rows:
    """Batches of one structure as one."""
    if isinstance(batches[0], tuple):
        return tuple(map(join, map(list, zip(*batches, strict=True))))
    return {name: join([batch[name] for batch in batches]) for name in batches[0]}


class WorstOf:
    """The hardest of k views of every row, by passes in eval mode without gradients; then a training pass on it."""

    def __init__(self, k: int, views: adaug.AdversarialAugmenter, measure: Callable[[Any, Rows], Tensor], task: Task) -> None:
        self.k, self.views, self.measure, self.task = k, views, measure, task

    def step(self, model: nn.Module, batch: Rows) -> Tensor:
        """The loss of the hardest views."""
        model.eval()
        with torch.no_grad():
            draws = [self.views.step(model, batch, self.measure) for _ in range(self.k)]
        model.train()
        hardest = torch.stack([draw.losses for draw in draws]).nan_to_num(-torch.inf).argmax(0)

        def pick(values: Sequence[Tensor]) -> Tensor:
            return torch.stack(list(values))[hardest, torch.arange(len(hardest))]

        return _trained(model, _together([draw.batch for draw in draws], pick), self.task)

"""The arms of benchmarks/worst_view.py: what each does to its rows, and how it takes a step."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, nn

import adaug
from adaug.operations import Binned
from adaug.policies import AXES, Running, Window
from benchmarks.worst_tasks import Rows, Task
from benchmarks.worst_trials import (
    CONTEXTS,
    FIXED,
    RESPONSES,
    Context,
    HardImages,
    LearnedShare,
    LearnedShares,
    ScaleRotate,
    give_context,
    give_response,
)

KINDS = ("plain", "random", "uniform", "even", "fixed", "exact", "running")
LEARN = ("exact", "running")
OPERATIONS = ("wide", "trivial", "more")
WORST_OF = re.compile(r"worst-of-(\d+)")
BRANCHED = ("uniform", "fixed", "exact", "running", "worst-of-K")  # kinds whose branches turn and scale
USED_BY: dict[str, tuple[str, ...]] = {  # which kinds an option changes
    "share": BRANCHED,
    "end": BRANCHED,
    "rest": BRANCHED,
    "hidden": (*BRANCHED, "even"),
    "hide": ("uniform", "even", "fixed", "exact", "running"),  # batches do not keep hidden features, as worst-of-K needs it
    "cells": ("running",),
    "difficulty": (*LEARN, "worst-of-K"),
    "alpha": ("exact",),
    "beta": ("exact",),
    "cap": LEARN,
    "operations": ("random", "uniform", "exact", "running", "worst-of-K"),
    "joint": ("uniform", "exact", "running"),
    "images": ("uniform", "running"),
    "context": ("running",),
    "response": ("running",),
    "learned_shares": ("running",),
    "views": ("uniform", "exact", "running"),
}


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
        help="policy that they are taken from; more: wide, and shifts and shears in its first branch",
    )
    parser.add_argument("--rest", action="store_true", help="the rows of other branches are neither scaled nor turned")
    parser.add_argument("--joint", action="store_true", help="one table of scale times rotation, 3 x 5 bins, for running")
    parser.add_argument("--images", action="store_true", help="hard images come three times as often as easy ones")
    parser.add_argument("--context", choices=CONTEXTS, help="what running difficulty tells apart; default: all rows alike")
    parser.add_argument("--response", choices=RESPONSES, default="capped", help="to what is found hard")
    parser.add_argument("--learned-shares", action="store_true", help="running difficulty decides the branches' shares too")
    parser.add_argument("--views", type=int, default=1, help="views of each image in a step")
    parser.add_argument("--epochs", type=int, help="default: the task's")
    parser.add_argument("--batch-size", type=int, help="default: the task's")
    parser.add_argument("--lr", type=float, help="default: the task's")
    return parser


def _part(text: str) -> float:
    return float(Fraction(text))


def policy_of(arm: argparse.Namespace, task: Task) -> adaug.Policy:
    """What an arm does to its rows."""
    _refuse_ignored(arm, task)
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
            policy = replace(policy, branches=[replace(one, share=LearnedShare(shares, number)) for number, one in numbered])
        policy = adaug.policies.running(policy, Running() if arm.cap is None else Running(cap=arm.cap))
        if arm.cells == "even":
            hiding = [any(operation.hides for operation in branch.operations) for branch in policy.branches]
            each = zip(policy.branches, hiding, strict=True)
            policy = replace(policy, branches=[replace(one, learned=False) if hides else one for one, hides in each])
        return policy
    return policy if arm.kind in ("exact", "random") else adaug.policies.uniform(policy)


def _refuse_ignored(arm: argparse.Namespace, task: Task) -> None:
    kind = "worst-of-K" if WORST_OF.fullmatch(arm.kind) else arm.kind
    parser = arm_parser()
    given = {name for name in USED_BY if getattr(arm, name) != parser.get_default(name)}
    why = {name: f"{arm.kind}; it changes {', '.join(USED_BY[name])}" for name in given if kind not in USED_BY[name]}
    if arm.operations == "more" and kind == "random":
        why["operations"] = "random, whose views neither shift nor shear"
    if arm.operations == "trivial":
        own = {"share", "end", "rest", "hidden", "hide", "cells", "joint"}
        why |= dict.fromkeys(own & given, "--operations trivial, which has branches of its own")
    if arm.context and arm.response != "capped":
        why["response"] = "--context, whose response is its own"
    if arm.cap is not None and arm.response != "capped":
        why["cap"] = "--response, which has no cap"
    if arm.learned_shares:
        why |= dict.fromkeys({"share", "end", "hidden"} & given, "--learned-shares, which decide them")
    if not task.hides:
        why |= dict.fromkeys({"hidden", "hide", "cells"} & given, "a task where nothing is hidden")
    if why:
        said = "; ".join(f"--{name.replace('_', '-')} with {reason}" for name, reason in sorted(why.items()))
        raise ValueError(f"An arm should have only options that change it. Found {said}.")


def _wide(arm: argparse.Namespace, task: Task) -> adaug.Policy:
    """policies.wide with the shares of an arm, and what is to be tried of its operations."""
    policy = adaug.policies.wide(task.pairs, rest=arm.rest)
    asr, aho = policy.branches

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
    if arm.kind in LEARN:
        more["difficulty"] = task.error if arm.difficulty == "error" else task.loss_fn
    return adaug.AdversarialAugmenter(policy, targets=task.targets, output_size=task.size, total_steps=steps, seed=seed, **more)


Step = Callable[[nn.Module, Rows], Tensor]  # the loss to train on


def step_of(
    augmenter: adaug.AdversarialAugmenter, arm: argparse.Namespace, task: Task, images: HardImages | None = None
) -> Step:
    """One step of an arm."""
    if arm.kind == "random":
        return lambda model, batch: _trained(model, augmenter.random(batch), task)
    measure = task.error if arm.difficulty == "error" and task.error is not None else task.loss_fn
    if match := WORST_OF.fullmatch(arm.kind):
        return WorstOf(int(match[1]), augmenter, measure, task).step
    shares = next((one.share.shares for one in augmenter.policy.branches if isinstance(one.share, LearnedShare)), None)
    context: Context | None = None

    def step(model: nn.Module, batch: Rows) -> Tensor:
        nonlocal context
        if arm.views > 1:
            batch = _together([batch] * arm.views, torch.cat)
        if arm.context is not None:
            context = context or give_context(augmenter, arm.context, augmenter.seed, model, batch)
            context.comes_next(batch)
        if arm.response != "capped" and augmenter.steps == 0:
            give_response(augmenter, arm.response, model, batch)
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

"""Cheaper steps that the library weighed and left out, built to be measured against exact scoring. Not for use.

They reach into the augmenter's parts, keep nothing in its state, and know the operations of the people's policies alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

import adaug
from adaug import augmenter, trial
from adaug.adversary import Adversary, LogProbs, uniform
from adaug.batch import Batch, Rows
from adaug.generator import Head, Shape
from adaug.layers import layer_names
from adaug.operations import Binned, Occlusion, Rotate
from adaug.passes import Bound, LossFunction, Measure
from adaug.policy import Branch, Settings
from adaug.trial import Comparison, Trial, Update
from adaug.view import View

IDS = 4096  # images that can be remembered


def narrow(shapes: Sequence[Shape], heads: Mapping[str, Head]) -> adaug.Generator:
    """A generator of 16 channels on features pooled to 8 × 8; by default 32 to 64, and 16 × 16."""
    return adaug.Generator(shapes, heads, width=16, size=8)


class Narrow(adaug.AdversarialAugmenter):
    """With such generators."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "generator": narrow})


class SomeRows(adaug.AdversarialAugmenter):
    """Scores every fourth row on trial at every step; the others teach nothing."""

    EVERY = 4

    def step(self, model: nn.Module, batch: Rows, loss_fn: LossFunction) -> adaug.StepResult:
        with mock.patch.object(augmenter, "compare", self._compare_some):
            return super().step(model, batch, loss_fn)

    def _compare_some(
        self, bound: Bound, trials: Sequence[Trial], rows: Batch, augmented: Batch, view: View, measure: Measure, training: bool
    ) -> Comparison:
        learned = [one for one in trials if one.learned]
        some, places, start = [], [], 0
        for one in learned:
            n = len(one.rows)
            picked = torch.arange(self.steps % min(n, self.EVERY), n, self.EVERY, device=bound.device)
            some.append(replace(one, rows=one.rows[picked], reference=one.reference.rows(picked)))
            places.append(start + picked)
            start += n
        found = trial.compare(bound, some, rows, augmented, view, measure, training)
        if not found.scored or not learned:
            return found
        unknown = torch.full((start,), torch.nan, device=bound.device)  # what is not finite teaches nothing
        place = torch.cat(places)
        index = torch.cat([one.rows for one in learned])
        return Comparison(index, unknown.index_copy(0, place, found.usual), unknown.index_copy(0, place, found.hard))


class Remembers(adaug.AdversarialAugmenter):
    """Never looks: an image gets the distributions that came of the features when the network last trained on it.

    Those are of another view: turned, scaled and hidden as it was drawn then; only its flip is undone. A batch needs an
    "index". What is remembered is not saved.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._remembered: dict[str, LogProbs] = {}  # branch -> head -> [IDS, k], of the images as they are

    def step(self, model: nn.Module, batch: Rows, loss_fn: LossFunction) -> adaug.StepResult:
        bound, _ = self._prepare(model, batch)
        ids = batch["index"]
        for name, adversary in self._adversaries.items():
            if name not in self._remembered:
                self._remembered[name] = {
                    head: log_probs.clone() for head, log_probs in uniform(adversary.branch, IDS, bound.device).items()
                }
        tried: list[tuple[Sequence[Trial], Tensor, Tensor]] = []

        def later(adversaries: Any, trials: Sequence[Trial], hard: Tensor, usual: Tensor, update: Update) -> dict[str, Tensor]:
            tried.append((trials, hard, usual))
            return {}

        with ExitStack() as patched:
            patched.enter_context(mock.patch.object(trial, "_look", partial(_ids_of, ids)))
            patched.enter_context(mock.patch.object(Adversary, "predict", self._recall()))
            patched.enter_context(mock.patch.object(augmenter, "learn", later))
            features = patched.enter_context(recorded(bound, model))
            result = super().step(model, batch, loss_fn)
        if not features:
            return result
        maps = [features[name] for name in bound.taps.features]
        for trials, hard, usual in tried:
            now = [
                replace(one, log_probs=self._adversaries[one.name].predict([part[one.rows] for part in maps]))
                if one.learned
                else one
                for one in trials
            ]
            result.metrics.update(trial.learn(self._adversaries, now, hard, usual, self.update))
        with torch.no_grad():
            for name, adversary in self._adversaries.items():
                found = mirrored(adversary.branch, adversary.predict(maps), result.view.flipped)
                for head, log_probs in found.items():
                    self._remembered[name][head][ids] = log_probs
        return result

    def _recall(self) -> Callable[[Adversary, tuple[Tensor, Tensor | None]], LogProbs]:
        def predict(adversary: Adversary, features: tuple[Tensor, Tensor | None]) -> LogProbs:
            ids, flipped = features
            known = {head: table[ids] for head, table in self._remembered[adversary.branch.name].items()}
            return mirrored(adversary.branch, known, flipped)

        return predict


def _ids_of(
    ids: Tensor, bound: Bound, rows: Batch, output: Any, shares: Sequence[tuple[Branch | None, Tensor, Settings]]
) -> dict[str, tuple[Tensor, Tensor | None]]:
    """In the place of features: which images the rows of each learned branch are, and whether they are flipped."""
    return {
        of.name: (ids[index], settings.get("common.flip")) for of, index, settings in shares if of is not None and of.learned
    }


@contextmanager
def recorded(bound: Bound, model: nn.Module) -> Iterator[dict[str, Tensor]]:
    """The features of the passes with gradients while it lasts, by the name of their layer, without their graph."""
    features: dict[str, Tensor] = {}
    layers = layer_names(bound.model)

    def keep(module: nn.Module, args: Any, output: Any, *, name: str) -> None:
        if torch.is_grad_enabled():
            features[name] = bound.taps.features[name].as_map(output.detach())

    handles = [layers[name].register_forward_hook(partial(keep, name=name)) for name in bound.taps.features]
    try:
        yield features
    finally:
        for handle in handles:
            handle.remove()


def mirrored(branch: Branch, log_probs: LogProbs, flipped: Tensor | None) -> LogProbs:
    """Distributions [n, k] of flipped images as those of the images, or the other way: left is right, and turns turn round."""
    if flipped is None:
        return log_probs
    found = dict(log_probs)
    for operation in branch.operations:
        value = log_probs[operation.name]
        if isinstance(operation, Occlusion):
            other = value.unflatten(1, operation.grid).flip(2).flatten(1)
        elif isinstance(operation, Rotate):
            other = value.flip(1)
        elif isinstance(operation, Binned):
            other = value
        found[operation.name] = torch.where(flipped[:, None], other, value)
    return found


SHORTCUTS: dict[str, type[adaug.AdversarialAugmenter]] = {
    "narrow": Narrow,
    "quarter": SomeRows,
    "remembers": Remembers,
}


@contextmanager
def in_place(name: str | None) -> Iterator[None]:
    """Everything that makes an `adaug.AdversarialAugmenter` makes a shortcut's instead."""
    if name is None:
        yield
        return
    with mock.patch.object(adaug, "AdversarialAugmenter", SHORTCUTS[name]):
        yield

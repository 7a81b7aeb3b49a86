"""Views for a preview: of batches and samples, by whatever draws views, which stays as it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch.utils.data import default_collate

from adaug._batches.kinds import PLAIN, Key, Target
from adaug._batches.rows import is_rows
from adaug._batches.samples.forms import is_array
from adaug._batches.samples.readings import image_of, is_single
from adaug._runtime.random import seeded
from adaug._views.view import View
from adaug.augment import Augment, augments_kept
from adaug.augmenter import AdversarialAugmenter
from adaug.plots._rows import channels_of
from adaug.policies import Policy

Move = Callable[[Any], tuple[Any, "View | list[View] | None"]]  # a batch or a sample -> it under a view, and the view


def mover(augment: Any, targets: Mapping[Any, Any] | None, rest: str | None, seed: int) -> Move:
    """The function that moves batches and samples. Call it inside `kept`. Raises TypeError if `augment` draws no views."""
    if augment is None:
        return lambda item: (item, None)
    if isinstance(augment, AdversarialAugmenter):
        if not _needs_model(augment):
            return lambda item: (augment.draw(_as_batch(item, augment.targets)), augment.view)
        policy, size = augment.policy, augment.output_size
        return _by_layout(Augment(policy, targets=augment.targets, rest=augment.rest, output_size=size, seed=seed))
    if isinstance(augment, Policy):
        return _by_layout(Augment(augment, targets=targets, rest=rest, seed=seed))
    if isinstance(augment, Augment) and not augment.clips:
        return lambda item: augment(item, view=True)
    clips = " with clips=True; show the frames of clips by an Augment without it" if isinstance(augment, Augment) else ""
    raise TypeError(
        "`augment` should be a Policy, an Augment or an AdversarialAugmenter, or None to show images as they come. Found "
        f"{type(augment).__name__}{clips}."
    )


@contextmanager
def kept(data: Any, augment: Any, seed: int) -> Iterator[None]:
    """A block with a seed of its own. It leaves all random states as they were, and whatever draws views."""
    augmenter = augment if isinstance(augment, AdversarialAugmenter) else None
    before = None if augmenter is None else augmenter._state
    with seeded(seed), augments_kept(), _generators_kept(data), torch.no_grad():
        try:
            if augmenter is not None and before is not None:  # ranks need not agree about a preview
                own = seed if before.seed is None else before.seed
                augmenter._state = replace(before, agreed=True, seed=own)
            yield
        finally:
            if augmenter is not None and before is not None:
                augmenter._state = before


@contextmanager
def _generators_kept(data: Any) -> Iterator[None]:
    """A block that leaves the generators of a DataLoader as they were."""
    holders = (data, getattr(data, "sampler", None), getattr(getattr(data, "batch_sampler", None), "sampler", None))
    found = [generator for one in holders if isinstance(generator := getattr(one, "generator", None), torch.Generator)]
    states = [generator.get_state() for generator in found]
    try:
        yield
    finally:
        for generator, state in zip(found, states, strict=True):
            generator.set_state(state)


def _needs_model(augmenter: AdversarialAugmenter) -> bool:
    """Whether `draw` would refuse, because a learner or a mask needs the model."""
    masks = augmenter.policy.hides_features and augmenter.occlude != ()
    return masks or any(group.learner.passes for group in augmenter._groups.values())


def _by_layout(augment: Augment) -> Move:
    """Calls an Augment of our own, whose channels follow the image."""

    def move(item: Any) -> Any:
        key, image = _image(item, augment.targets)
        image = image[0] if isinstance(image, (list, tuple)) and len(image) else image
        augment.channels = channels_of(image, augment.targets.get(key, PLAIN["image"]))
        return augment(item, view=True)

    return move


def _as_batch(item: Any, targets: Mapping[Key, Target]) -> Any:
    """A batch as it is. A sample as the batch of one that a DataLoader makes of it."""
    key, image = _image(item, targets)
    if not is_array(image) or is_rows(item, targets):
        return item
    source = (item,) if is_array(item) else item
    channels = channels_of(image, targets.get(key, PLAIN["image"]))
    return default_collate([source]) if is_single(source, key, image, targets, channels) else source


def _image(item: Any, targets: Mapping[Key, Target]) -> tuple[Key, Any]:
    """The key and the image, or images, of a sample, a batch or a list's first row."""
    first = item[0] if is_rows(item, targets) else item
    return image_of((first,) if is_array(first) else first, targets)

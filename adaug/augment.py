"""Augment: a policy without a model, for batches and single samples."""

from __future__ import annotations

import os
import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, get_args

import torch

from adaug import policies
from adaug._batches.batch import UserBatch
from adaug._batches.fits import check_policy
from adaug._batches.kinds import REST, TARGETS, Key, Target
from adaug._batches.rows import is_rows
from adaug._batches.samples.forms import Channels, is_array
from adaug._batches.samples.lifted import Lifted
from adaug._batches.samples.listed import cut, gathered, rows_in
from adaug._batches.samples.readings import image_of, is_single
from adaug._batches.tree import with_children
from adaug._runtime.checks import checked, flag, instance, integer, number, one_of, optional
from adaug._runtime.geometry import SIZE, Size
from adaug._runtime.random import Stream
from adaug._runtime.ranks import dist_rank, dist_size
from adaug._runtime.workers import this_pass, worker_seed
from adaug._views.view import View
from adaug.policies import Policy
from adaug.policies._draw import draw_view

__all__ = ["Augment"]

NAMED, DRAWN = 4, 5  # what a random stream is for; 0 to 3 belong to the augmenter
RULES = {
    "policy": instance(Policy, "an adaug.Policy"),
    "targets": TARGETS,
    "rest": REST,
    "output_size": SIZE,
    "seed": optional(integer(), "for torch's"),
    "channels": one_of(*get_args(Channels)),
    "clips": flag(),
}
PROGRESS = {"progress": number(low=0, high=1)}
_TAKEN: Counter[int] = Counter()  # a seed of torch's -> how many Augments of this process took it
_KEPT: list[dict[int, tuple[Augment, dict[str, Any]]]] = []  # blocks that keep Augments -> each with its state before
NUMBERS = {"index": integer(at_least=0), "epoch": integer(at_least=0)}


class Augment:
    """Augments batches or single samples by a policy, without a model. Labels follow the pixels.

        augment = adaug.Augment(adaug.policies.trivial(flip_pairs=PAIRS), seed=0)
        batch = augment(batch)  # in a loop, on the CPU or a GPU
        sample = augment(sample, index=i, epoch=epoch)  # in a Dataset

    Each branch gets its share of the rows (or of the samples). Nothing is learned: all bins and cells are equally likely.
    Masks for features hide cells of the image instead.

    A sample looks like a batch without the first dimension: an image [C, H, W], keypoints [K, 2], a mask [H, W]. It may also be
    a single image. Images of uint8 (and uint16) stand for 0 to 1 and come back rounded. NumPy arrays, PIL pictures and
    subclasses of Tensor come back in the type in which they came. Images of different sizes, or with different numbers of
    boxes, keypoints or masks, come in lists, as torchvision's detectors take them, (images, [{"boxes": ...}, ...]), or as one
    mapping for each.

    With `seed` and `index`, the draws depend only on seed, index and epoch, not on the number of workers or processes. Without
    `index`, every call draws anew, and workers, epochs, ranks and other Augments draw different views. With a seed, two runs
    and two Augments draw the same ones.

    Args:
        policy: Which views are drawn.
        targets: Key or position -> kind, for entries whose name does not tell their kind. For an entry inside another one, the
            key is a tuple.
        rest: "other" leaves tensors as they are if neither `targets` nor their names tell their kind. By default they are an
            error.
        output_size: (height, width) of a view, cut from the middle; by default the size of the image.
        seed: The seed of all draws. By default torch's initial seed at the first call.
        channels: Where the channels of arrays and tensors stand: "first", or "last" as in [H, W, C]. This concerns images, heat
            maps, and masks that have channels, but not PIL pictures.
        clips: Whether images are clips, or slices of volumes: [T, C, H, W] in a sample, [B, T, C, H, W] in a batch. All frames
            of a clip get one view. Labels of frames start with these dimensions too, and all others stay as they are.

    Attributes:
        progress: Training progress in [0, 1]. Set it yourself if shares depend on it.
        epoch: The number of the epoch, for calls with an index. Set it before each epoch: workers of a loader read it too, also
            those that persist, and so do they the progress.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument is out of its range.
    """

    def __init__(
        self,
        policy: Policy,
        *,
        targets: Mapping[Any, str | Target] | None = None,
        rest: str | None = None,
        output_size: Size | int | None = None,
        seed: int | None = None,
        channels: Channels = "first",
        clips: bool = False,
    ) -> None:
        given = checked(locals(), RULES)
        self.policy = policy
        self.targets: dict[Key, Target] = given["targets"] or {}
        self.rest: str | None = given["rest"]
        self.output_size: Size | None = given["output_size"]
        self.channels = channels
        self.clips = clips
        self._now = torch.zeros(2, dtype=torch.float64, device="cpu").share_memory_()  # progress and epoch, for workers too
        self._number = 0  # among the Augments that took one seed from torch
        self._named = seed is not None
        self._seed: int | None = given["seed"]
        self._drawn = policies.uniform(policy).on_image()
        self._calls = 0
        self._passes: dict[int, tuple[Any, int]] = {}  # in a worker: an epoch -> its latest pass, and how many there were

    @property
    def progress(self) -> float:
        """Training progress in [0, 1]."""
        return float(self._now[0])

    @progress.setter
    def progress(self, value: float) -> None:
        self._now[0] = checked({"progress": value}, PROGRESS)["progress"]

    @property
    def epoch(self) -> int:
        """The number of the epoch."""
        return int(self._now[1])

    @epoch.setter
    def epoch(self, value: int) -> None:
        self._now[1] = checked({"epoch": value}, NUMBERS)["epoch"]

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._now.share_memory_()

    def __copy__(self) -> Augment:
        made = object.__new__(type(self))
        made.__setstate__({**vars(self), "_now": self._now.clone()})
        return made

    def __call__(self, batch: UserBatch, *, index: int | None = None, epoch: int | None = None, view: bool = False) -> Any:
        """Draws views for a batch or a sample and returns the result. What you pass stays as it is.

        Args:
            batch: A mapping or a tuple of tensors whose first dimension counts the rows, or a single sample.
            index: The number of this sample (or batch), from 0. The same index gets the same view. It needs a `seed`.
            epoch: The number of the epoch, so that each epoch draws another view for the same index. By default the attribute
                `epoch`, which workers that persist read too. If they get an old number, they count on by themselves.
            view: Whether to return the View as well, as (batch, view). A batch of lists gives a list of views.
                `adaug.apply_view` repeats a view.

        Returns:
            The batch or sample, with the structure, types and layout that it had.

        Raises:
            ValueError: There is an index but no seed, or an entry does not fit.
            TypeError: An entry has the wrong type.
        """
        is_image = is_array(batch)
        if not is_image and not isinstance(batch, (Mapping, list, tuple)):
            raise TypeError(f"A batch or a sample should be a mapping, a tuple or an image. Found {type(batch).__name__}.")
        source = (batch,) if is_image else batch
        keys = self._keys(index, epoch)
        if is_rows(source, self.targets):
            each = [self._one(row, (*keys, i), *image_of(row, self.targets)) for i, row in enumerate(source)]
            made = with_children(source, {i: row for i, (row, _) in enumerate(each)})
            return (made, [seen for _, seen in each]) if view else made
        key, image = image_of(source, self.targets)
        listed = isinstance(image, (list, tuple))
        rows = rows_in(source, image, self.targets) if listed or not self.clips else None
        drawn: View | list[View]
        if rows is None:
            made, drawn = self._one(source, keys, key, image)
        else:
            samples = cut(source, rows)
            each = [self._one(sample, (*keys, i), *image_of(sample, self.targets)) for i, sample in enumerate(samples)]
            made = gathered(source, [row for row, _ in each])
            drawn = [view for _, view in each]
        made = made[0] if is_image else made
        return (made, drawn) if view else made

    def __repr__(self) -> str:
        return f"Augment(\n{textwrap.indent(str(self._drawn), '  ')}\n)"

    def _one(self, source: UserBatch, keys: tuple[int, ...], key: Key, image: Any) -> tuple[UserBatch, View]:
        """Augments a batch of images of one size, or a sample, and returns it with its view."""
        frames = self._frames(key, image) if self.clips else None
        single = frames is None and is_single(source, key, image, self.targets, self.channels)
        lifted = Lifted(source, self.targets, single, self.channels, frames, self.rest)
        batch = lifted.batch
        check_policy(self._drawn, batch, wait=self._calls <= 1)
        view_size = batch.size if self.output_size is None else self.output_size
        stream = Stream(self._taken_seed(), *keys, *((self._number,) if self._number else ()), device=batch.image.device)
        painted = batch.with_image(self._drawn.paint(batch.image, stream)) if self._drawn.functions else batch
        n = len(batch) if frames is None else len(batch) // frames[-1]
        view = draw_view(self._drawn, n, batch.size, view_size, self.progress, stream)
        if frames is not None:
            view = view.select(torch.arange(n, device=batch.image.device).repeat_interleave(frames[-1]))
        return lifted.back(painted.apply(view, view_size), view_size), view

    def _frames(self, key: Key, image: Any) -> tuple[int, ...]:
        """The first dimensions of a clip, (T,), or of a batch of clips, (B, T)."""
        if not is_array(image) or getattr(image, "ndim", 0) not in (4, 5):
            found = tuple(image.shape) if hasattr(image, "shape") else type(image).__name__
            raise ValueError(f"{key!r} should be a clip [T, C, H, W] or a batch of clips, because clips=True. Found {found}.")
        if self._drawn.functions:
            raise ValueError(
                "A policy for clips should have no functions in `common`, because they change each frame by itself. Found "
                f"{len(self._drawn.functions)}; use operations such as adaug.Brightness."
            )
        return tuple(image.shape[: image.ndim - 3])

    def _taken_seed(self) -> int:
        """The seed of all draws. Several Augments that take torch's get numbers, so that they draw different views."""
        if self._seed is None:
            self._seed = torch.initial_seed()
            self._number = _TAKEN[self._seed]
            _TAKEN[self._seed] += 1
        return self._seed

    def _keys(self, index: int | None, epoch: int | None) -> tuple[int, ...]:
        """The numbers that select the noise, without the seed."""
        for kept in _KEPT:
            kept.setdefault(id(self), (self, {**vars(self), "_passes": dict(self._passes)}))
        self._calls += 1
        if index is None:
            return (DRAWN, self._calls, _rank(), worker_seed())
        if not self._named:
            raise ValueError(
                "`index` should come with a seed, or nothing repeats. Found seed=None; use Augment(policy, seed=0)."
            )
        given = checked({"index": index, "epoch": self.epoch if epoch is None else epoch}, NUMBERS)
        return (NAMED, given["epoch"] + (0 if epoch is None else self._passes_since(given["epoch"])), given["index"])

    def _passes_since(self, epoch: int) -> int:
        """How often a worker that persists went through the data since it got this epoch, because it sees no new one."""
        now = this_pass()
        if now is None:
            return 0
        before, count = self._passes.get(epoch, (now, 0))
        self._passes[epoch] = (now, count + (before != now))
        return self._passes[epoch][1]


@contextmanager
def augments_kept() -> Iterator[None]:
    """A block that leaves every Augment as it was. So a preview changes nothing that training draws."""
    taken, kept = Counter(_TAKEN), dict[int, tuple[Augment, dict[str, Any]]]()
    _KEPT.append(kept)
    try:
        yield
    finally:
        _KEPT.pop()
        for augment, before in kept.values():
            vars(augment).update(before)
        _TAKEN.clear()
        _TAKEN.update(taken)


def _rank() -> int:
    """The rank of this process. Workers of a loader know no process group; torchrun tells them by an environment variable."""
    known = os.environ.get("RANK", "0")
    return dist_rank() if dist_size() > 1 else int(known) if known.isdecimal() else 0

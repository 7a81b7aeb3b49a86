"""Runs an audit: shows the model every image under every view, leaves no trace on it, and saves as it goes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from adaug._batches.batch import Batch, UserBatch
from adaug._batches.fits import check_flip, check_operations
from adaug._batches.kinds import REST, TARGETS, Target
from adaug._batches.parse import parse
from adaug._model.audited import AuditedModel
from adaug._model.call import Forward
from adaug._runtime.checks import batches, checked, flag, function, instance, integer, mapping, optional, several
from adaug._runtime.files import check_writable
from adaug._runtime.geometry import SIZE, Size
from adaug._views.view import View
from adaug.audits._scoring.checks import check_groups, check_order, warn_of_fill
from adaug.audits._scoring.counts import joined, without_what_left
from adaug.audits._scoring.gallery import Gallery
from adaug.audits._scoring.identity import check_images, check_same, identity_of, images_of, labels_of
from adaug.audits._scoring.progress import with_bar
from adaug.audits._scoring.scorer import Scorer
from adaug.audits.audit import Audit
from adaug.audits.plan import VIEWS, Plan, plan_of
from adaug.audits.records import FamilyTable
from adaug.operations import Operation
from adaug.policies import Policy

__all__ = ["audit"]

Score = Callable[..., Any]  # (output, batch) or (output, batch, view) -> [B], or [B, K] for parts
ROWS = 64  # in a pass: it shows a small batch under several views at once, a large one under one

RULES = {
    "model": function(),
    "loader": batches(),
    "score": function(),
    "views": VIEWS,
    "higher_is_better": flag(),
    "forward": optional(function()),
    "targets": TARGETS,
    "rest": REST,
    "output_size": SIZE,
    "groups": optional(mapping(several(integer(), "", least=0), "a mapping from names to numbers of parts")),
    "num_draws": integer(at_least=0, at_most=10**6),
    "pairs": flag(),
    "num_pictures": integer(at_least=0),
    "seed": integer(),
    "path": optional(instance((str, PathLike), "a path")),
    "progress": optional(flag(), "to decide by the terminal"),
}


def audit(
    model: nn.Module | Callable[[Tensor], Any],
    loader: Iterable[UserBatch],
    score: Score,
    views: Policy | Operation | Sequence[Operation],
    *,
    higher_is_better: bool = True,
    forward: Forward | None = None,
    targets: Mapping[Any, str | Target] | None = None,
    rest: str | None = None,
    output_size: Size | int | None = None,
    groups: Mapping[str, Sequence[int]] | None = None,
    num_draws: int = 24,
    pairs: bool = True,
    num_pictures: int = 12,
    seed: int = 0,
    path: str | Path | None = None,
    progress: bool | None = None,
) -> Audit:
    """Finds where a network is weak: scores every image as it is and under every view of some operations.

    The views are each bin of each operation alone, each pair of bins of two geometric operations (at most 7 x 7), and joint
    draws of all operations. They are the same for all images and all models. The audit leaves no trace on the model. Only the
    table of scores grows with the number of images.

    Args:
        model: The network, or any function of images [B, C, H, W].
        loader: The batches. To compare audits, pass a DataLoader that does not shuffle.
        score: (output, batch) -> a number for each image [B], for each part [B, K] (joints, classes, boxes), or for each joint
            of several people [B, P, K], which become P * K parts. NaN does not count. Return 1 for right and 0 for wrong, or
            100 and 0 to get statistics in per cent. Joints, heat maps and boxes that a view moves out of the frame never count
            as parts. A score [B] has to leave them out itself. A score that gives one number for a batch is called for each
            image. With a third parameter, (output, batch, view), it also gets the View of these rows.
        views: A policy, or operations. Masks on features become masks on the image.
        higher_is_better: Whether higher scores are better. False for losses and errors.
        forward: (model, batch) -> output, how to call the model, by default `model(images)`. Pass it for a model that takes
            more than images, or takes them by name.
        targets: Key or position in the batch -> kind, for entries whose name does not tell their kind.
        rest: "other" leaves tensors as they are if neither `targets` nor their names tell their kind.
        output_size: (height, width) of a view, by default that of the images. Images may be larger than this.
        groups: Name -> the parts that belong to it, such as {"arms": [1, 2, 3]}.
        num_draws: The number of joint draws.
        pairs: Whether to try pairs of geometric operations together, with up to 49 views for each pair.
        num_pictures: How many images to keep for the HTML page, as the network saw them: those that a view hurts most.
        seed: The seed of the joint draws.
        path: A file that the audit is saved in, from time to time and at its end. If it already has scores of the same model,
            score, views, images and labels, these are not computed again. Settings, weights and code count, also of functions
            and of what they refer to. What nobody can read does not: what a function of C does, global objects, files, the
            precision of the process. If an argument holds such a thing, an existing file is refused.
        progress: Whether to show a progress bar (needs tqdm). By default only on a terminal.

    Raises:
        TypeError: An argument, or what `score` returns, has the wrong type.
        ValueError: An argument, a batch or the scores do not fit.

    The `audit` of any exception, and the file at `path`, hold what was computed before.
    """
    arguments: dict[str, Any] = {"model": model, "loader": loader, "score": score, "views": views}
    arguments |= {"higher_is_better": higher_is_better, "forward": forward, "targets": targets, "rest": rest}
    arguments |= {"output_size": output_size, "groups": groups, "num_draws": num_draws, "pairs": pairs}
    arguments |= {"num_pictures": num_pictures, "seed": seed, "path": path}
    given = checked(arguments | {"progress": progress}, RULES)
    plan = plan_of(given["views"], given["num_draws"], given["seed"], pairs=pairs)
    run = _Run(
        Scorer(AuditedModel(model, score, forward), score),
        plan,
        given["higher_is_better"],
        targets,
        given["rest"],
        given["output_size"],
        given["groups"] or {},
        given["seed"],
        given["num_pictures"],
        identity_of(model, score, plan, forward, targets, rest, given["higher_is_better"], given["seed"]),
    )
    file = None if path is None else Path(path)
    check_order(loader, file)
    if file is not None:
        check_writable(file)
        run.resume(file)
    try:
        for batch in with_bar(loader, progress):
            run.take(batch)
            run.save(file, least=1.1)
        run.finish()
        run.save(file)
    except BaseException as error:  # keep what was computed
        error.audit = run.audit() if run.images else None  # type: ignore[attr-defined]
        with suppress(OSError, ValueError):
            run.save(file)
        raise
    return run.audit()


@dataclass
class _Run:
    """An audit in progress: the model, the plan, and the scores so far."""

    scorer: Scorer
    plan: Plan
    higher_is_better: bool
    targets: Mapping[Any, str | Target] | None
    rest: str | None
    view_size: Size | None
    groups: dict[str, Sequence[int]]
    seed: int
    num_pictures: int
    identity: dict[str, str]

    def __post_init__(self) -> None:
        self.families = _families(self.plan)
        self.tables: list[Tensor] = []  # [n, V] or [n, V, K] of each batch
        self.images: list[str] = []
        self.labels: list[str] = []
        self.sizes: set[str] = set()  # of views
        self.excluded: dict[str, int] = {}
        self.gallery = Gallery(self.higher_is_better, self.num_pictures)
        self.known: Audit | None = None  # the audit that the file held before
        self.saved = 0  # images in the file
        self.parts: tuple[int, ...] | None = None  # () or (K,), the shape of the first scores

    # ---- what is known

    def audit(self) -> Audit:
        """The audit of the images so far."""
        scores = joined(self.tables) if self.tables else np.zeros((0, sum(len(f.views) for f in self.families)))
        return Audit(
            scores.astype(np.float32),
            self.families,
            self.higher_is_better,
            self.groups,
            tuple(self.images),
            self.seed,
            dict(self.excluded),
            self.gallery.pictures(),
            tuple(self.labels),
            self.identity | {"output_size": ", ".join(sorted(self.sizes))},
        )

    def save(self, path: Path | None, *, least: float = 1.0) -> None:
        """Saves if there are more images than in the file, and `least` times as many. So the file never loses any."""
        if path is None or len(self.images) <= self.saved or len(self.images) < least * self.saved:
            return
        audit = self.audit()
        if not _holds_more(path, audit):
            audit.save(path)
        self.saved = len(self.images)

    def resume(self, path: Path) -> None:
        """Continues from a file. Raises ValueError if it holds another audit."""
        if not path.is_file():
            return
        known = Audit.load(path)
        check_same(path, known.identity, self.identity)
        self.known, self.saved = known, len(known)

    def finish(self) -> None:
        """Raises ValueError if the loader gave no images, or fewer than the file held."""
        if not self.images:
            raise ValueError("`loader` should give at least one batch. Found none; pass a list or a DataLoader.")
        if self.known is not None and len(self.images) < len(self.known):
            raise ValueError(
                f"`loader` should give the {len(self.known)} images that the file holds. Found that it ended after "
                f"{len(self.images)}; delete the file or name another one."
            )

    # ---- one batch

    def take(self, batch: UserBatch) -> None:
        """Scores one batch under every view."""
        parsed = self._parsed(batch)
        size = self.view_size or parsed.size
        self.sizes.add(f"{size[0]} × {size[1]}")
        images, labels = images_of(parsed), labels_of(parsed, size)
        if self._skipped(images, labels):
            return
        columns: dict[int, Tensor] = {}  # scores [n] or [n, K] of all views that differ
        most = max(1, ROWS // len(parsed))
        for family, planned in zip(self.families, self.plan.families, strict=True):
            new = [i for i, column in enumerate(family.columns) if self.plan.first_like[column] == column]
            for numbers in (new[first : first + most] for first in range(0, len(new), most)):
                scores = self._scores(parsed, planned.view, numbers).unbind(1)
                columns |= dict(zip((family.start + i for i in numbers), scores, strict=True))
        table = torch.stack([columns[first] for first in self.plan.first_like.values()], 1)  # [n, V] or [n, V, K]
        self._count(table)
        self.tables.append(table)
        first_image = len(self.images)
        self.images += images
        self.labels += labels
        self._picture(parsed, table, first_image)

    def _parsed(self, batch: UserBatch) -> Batch:
        parsed = self.scorer.model.placed(parse(batch, self.targets, self.rest))
        first = not self.images  # it stands for all
        if first and any(family.mirrored is not None for family in self.plan.families):
            check_flip(parsed, self.plan.pairs)
        check_operations(parsed, list(self.plan.operations.values()), wait=first)
        if first:
            warn_of_fill(parsed, self.plan, self.targets)
        return parsed

    def _skipped(self, images: list[str], labels: list[str]) -> bool:
        """Takes the scores of these images from the file if it has them, and says whether it did."""
        start, end = len(self.images), len(self.images) + len(images)
        if self.known is None or start >= len(self.known):
            return False
        known = min(end, len(self.known)) - start
        check_images(images[:known], labels[:known], self.known.images, self.known.labels, start)
        if known < len(images):
            return False  # the file ends within this batch
        self.tables.append(torch.from_numpy(self.known.scores[start:end]))
        self.parts = tuple(self.known.scores.shape[2:])
        check_groups(self.groups, self.parts)
        self._count(self.tables[-1])
        self.images += images
        self.labels += labels
        self.gallery.keep([picture for picture in self.known.pictures if start <= picture.image < end], self.known)
        return True

    def _scores(self, parsed: Batch, view_of: Callable[..., Any], numbers: Sequence[int]) -> Tensor:
        """Scores [n, v] or [n, v, K] of a batch under some views of a family."""
        before, seen, view = self._under(parsed, view_of, numbers)
        scores, objects = without_what_left(self.scorer(seen, view), before, seen, view)
        self.parts = tuple(scores.shape[1:]) if self.parts is None else self.parts
        if tuple(scores.shape[1:]) != self.parts and not objects:
            raise ValueError(
                f"`score` should return the same parts for every batch, {self.parts}. Found {tuple(scores.shape[1:])}."
            )
        check_groups(self.groups, self.parts)
        if torch.isinf(scores).any():
            raise ValueError("`score` should be finite, or NaN where it does not count. Found inf.")
        return scores.unflatten(0, (len(numbers), len(parsed))).transpose(0, 1).float().cpu()

    def _under(self, parsed: Batch, view_of: Callable[..., View], numbers: Sequence[int]) -> tuple[Batch, Batch, View]:
        """The batch as often as there are views, the same under the views (one view after the other), and the views."""
        n, size = len(parsed), self.view_size or parsed.size
        view = view_of(numbers, n, parsed.size, size, self.plan.pairs, parsed.image.device)
        repeated = parsed
        if len(numbers) > 1:
            repeated = parsed.select(torch.arange(n, device=parsed.image.device).repeat(len(numbers)))
        return repeated, repeated.apply(view, size), view

    def _count(self, table: Tensor) -> None:
        """Counts what has no score, by reason."""
        counts = torch.isfinite(table).flatten(2).any(2) if table.ndim == 3 else torch.isfinite(table)  # [n, V]
        for reason, number in {
            "images without a score": (~counts.any(1)).sum(),
            "views in which nothing of an image counts": (~counts[counts.any(1)]).sum(),
        }.items():
            if number:
                self.excluded[reason] = self.excluded.get(reason, 0) + int(number)

    # ---- pictures

    def _picture(self, parsed: Batch, table: Tensor, first_image: int) -> None:
        """Keeps pictures of the weakest cases of a batch, if they are weaker than those kept so far."""
        by_image = (table if table.ndim == 2 else table.nanmean(2)).numpy()
        for row, column in self.gallery.candidates(by_image):
            family = next(f for f in self.families if column in f.columns)
            planned = self.plan.families[self.families.index(family)]
            one = parsed.select(torch.tensor([row], device=parsed.image.device))
            seen = self._under(one, planned.view, [column - family.start])[1]
            self.gallery.add(by_image[row], first_image + row, column, seen, self.scorer.output(seen))


def _holds_more(path: Path, audit: Audit) -> bool:
    """Whether another run of the same audit has saved more images meanwhile."""
    try:
        held = Audit.load(path)
    except (OSError, ValueError):
        return False
    return held.identity == audit.identity and len(held) > len(audit) and held.images[: len(audit)] == audit.images


def _families(plan: Plan) -> tuple[FamilyTable, ...]:
    starts, families = 0, []
    for family in plan.families:
        families.append(FamilyTable(family.name, family.views, starts, family.axes, family.details))
        starts += len(family.views)
    return tuple(families)

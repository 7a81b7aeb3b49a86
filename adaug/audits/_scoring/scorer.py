"""Scores a batch under views: all images at once, or image by image if the score gives one number for all that it gets."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from adaug._batches.batch import Batch
from adaug._batches.tree import Path, has_rows, is_container, is_named_tuple, is_record, leaves, map_rows
from adaug._model.audited import AuditedModel
from adaug._views.view import View
from adaug.audits._scoring.checks import check_scores


class Scorer:
    """Runs the model on a batch and scores what it returns.

    A score of one number for several images is asked about one image at a time. The output is then cut to the rows of an image.
    An output that cannot be cut for sure (it holds a loss, say) comes from the model with one image at a time.

    Args:
        model: The user's model.
        score: (output, batch) -> scores, or (output, batch, view) -> scores.
    """

    def __init__(self, model: AuditedModel, score: Callable[..., Any]) -> None:
        self.model, self.score = model, score
        self._with_view = _takes_view(score)
        self._by_image = False  # the score gives one number for all that it gets
        self._alone = False  # and the model's output cannot be cut
        self._cut: set[Any] = set()  # the layouts of outputs that are known to be cut as they should be

    def __call__(self, seen: Batch, view: View) -> Tensor:
        """The scores of a batch under a view, [n], [n, K] or [n, P, K]."""
        n = len(seen)
        if n == 1 or not self._by_image:
            with self.model.untouched():
                output = self._run(seen)
                found = self._found(output, seen, view)
            one = isinstance(found, Tensor) and found.numel() == 1 and found.ndim < 2
            if not one or n == 1:
                found = found.reshape(1) if one else found
                check_scores(found, n)
                return found.detach()
            self._by_image, self._alone = True, not self._can_cut(output, seen)
            self._tell(n)
        elif not self._alone:
            output = self.output(seen)
            self._alone = not self._can_cut(output, seen)
        return self._one_by_one(seen, view, None if self._alone else output)

    def output(self, seen: Batch) -> Any:
        """What the model returns for a batch."""
        with self.model.untouched():
            return self._run(seen)

    def _run(self, seen: Batch) -> Any:
        return self.model(seen.with_image(seen.image.clone()))  # a model may write to its images, and others need them

    def _found(self, output: Any, seen: Batch, view: View) -> Any:
        user = seen.with_own_image().to_user()
        return _as_tensor(self.score(output, user, view) if self._with_view else self.score(output, user))

    # ---- image by image

    def _one_by_one(self, seen: Batch, view: View, output: Any) -> Tensor:
        """The scores [n] of each image by itself."""
        scores, n = [], len(seen)
        for i in range(n):
            index = torch.tensor([i], device=seen.image.device)
            one = seen.select(index)
            with self.model.untouched():
                own = self._run(one) if self._alone else _row(output, i, n)
                found = self._found(own, one, view.select(index))
            if not isinstance(found, Tensor) or found.numel() != 1:
                what = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
                raise ValueError(
                    "`score` should return one number for an image, because it returned one number for a batch. Found "
                    f"{what}; return one number for each image, [B]."
                )
            scores.append(float(found))
        return torch.tensor(scores)

    def _can_cut(self, output: Any, seen: Batch) -> bool:
        """Whether an output holds rows of images and nothing else: a cut to one image has the form of the output for it."""
        n = len(seen)
        parts = list(leaves(output, opens=_opens(n)))
        layout = (n, *(path for path, _ in parts))
        if layout not in self._cut and parts and all(_has_rows(leaf, n) for _, leaf in parts):
            first = seen.select(torch.tensor([0], device=seen.image.device))
            if _form(_row(output, 0, n)) == _form(self.output(first)):
                self._cut.add(layout)
        return layout in self._cut

    def _tell(self, n: int) -> None:
        model = " The model runs for one image at a time too, because its output holds more than rows of images." * self._alone
        warnings.warn(
            f"`score` should return one number for each image, [B]. Found one number for {n} images, so adaug calls it for one "
            f"image at a time, which takes longer.{model} To make it faster, return [B].",
            stacklevel=6,
        )


def _takes_view(score: Callable[..., Any]) -> bool:
    """Whether a score has a third parameter without a default."""
    try:
        parameters = inspect.signature(score.forward if isinstance(score, nn.Module) else score).parameters.values()
    except (TypeError, ValueError):  # a function of C
        return False
    needed = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) and p.default is p.empty]
    return len(needed) > 2


def _as_tensor(found: Any) -> Any:
    """Numbers, arrays and lists of them as a tensor. Anything else stays as it is."""
    if isinstance(found, list) and found and all(isinstance(one, Tensor) for one in found):
        return torch.stack(found) if len({one.shape for one in found}) == 1 else found
    if isinstance(found, (int, float, np.number, np.bool_, np.ndarray, list)):
        try:
            return torch.as_tensor(np.array(found))  # a copy: some arrays are read-only, or run backwards
        except (TypeError, ValueError):  # objects, or lists of different lengths
            return found
    return found


# ---- the rows of an output


def _row(output: Any, i: int, n: int) -> Any:
    return map_rows(lambda rows: rows[i : i + 1], output, n, _are_rows(n))


def _are_rows(n: int) -> Callable[[Path, Any], bool]:
    """Which lists in an output have an item for each image, as those of detectors. Others have one for each stack or level."""

    def are_rows(path: Path, tree: Any) -> bool:
        if not isinstance(tree, (list, tuple)) or is_named_tuple(tree) or not has_rows(tree, n):
            return False
        return not all(_has_rows(leaf, n) for _, leaf in leaves(tree, opens=_opens_all))

    return are_rows


def _opens_all(path: Path, tree: Any) -> bool:
    return is_container(path, tree) or is_record(tree)


def _opens(n: int) -> Callable[[Path, Any], bool]:
    are_rows = _are_rows(n)
    return lambda path, tree: _opens_all(path, tree) and not are_rows(path, tree)


def _has_rows(leaf: Any, n: int) -> bool:
    return leaf is None or has_rows(leaf, n)


def _form(tree: Any) -> list[Any]:
    """The names, types and shapes of all that is in a structure."""
    each = leaves(tree, opens=_opens_all)
    return [(path, type(leaf), tuple(leaf.shape) if isinstance(leaf, (Tensor, np.ndarray)) else ()) for path, leaf in each]

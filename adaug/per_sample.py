"""`per_sample`: turns a loss that returns the mean of a batch into one that returns a loss for each sample."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adaug._batches.batch import UserBatch
from adaug._batches.tree import Path, has_rows, is_container, is_named_tuple, is_record, leaves, map_rows, walk
from adaug._model.kept import Snapshot
from adaug._runtime.random import random_state_kept

__all__ = ["PerSample", "per_sample"]

Criterion = Callable[..., Tensor]


def per_sample(loss: Criterion, *, target: Any = None, output: Any = None) -> PerSample:
    """Turns a loss that returns one number for a batch into a `loss_fn` for `step`: (output, batch) -> [B].

        loss_fn = adaug.per_sample(nn.MSELoss(), target="heatmaps")  # criterion(output, batch["heatmaps"])
        loss_fn = adaug.per_sample(nn.CrossEntropyLoss(ignore_index=255), target="mask", output="logits")
        loss_fn = adaug.per_sample(JointsMSELoss(), target=["heatmaps", "weight"])  # criterion(output, heat maps, weights)
        loss_fn = adaug.per_sample(my_loss)  # my_loss(output, batch) -> one number

    A criterion of torch.nn is called once with `reduction="none"`. The loss of a sample is then the mean of its elements (or
    their sum, if the criterion sums), and the mean over samples is what the criterion itself returns. With `ignore_index`, only
    labelled elements count, so that a loss does not fall when a view shows fewer of them. The mean over samples then equals
    the criterion's only if all samples have equally many. A sample without labelled elements gets 0. Class weights are divided
    by their mean in the batch, so pass a `difficulty` too with scoring="train", which compares views of two batches.

    Any other loss is called for one sample at a time: by torch.func.vmap, which costs about as much as one call for all. If
    vmap cannot follow it (branches on values, random numbers, writing in place), it is called B times. What a criterion keeps
    (a counter, a running mean) then moves as by one call with the whole batch, which is made besides.

    A loss that compares the samples of a batch with each other has another value for each sample alone. At the first call the
    mean over samples is compared with the loss of the whole batch, and a warning says if they differ.

    Args:
        loss: A criterion (prediction, target) -> number, or a function (output, batch) -> number.
        target: The entry of the batch that a criterion gets: a key, a position, or a tuple for an entry inside another one. A
            list gives one entry for each further argument. By default a module gets position 1 of a tuple (image, target), and
            a function gets the whole batch.
        output: The part of what the model returns that is the prediction: a key, position or attribute ("logits"). By default
            all of it.

    Raises:
        TypeError: `loss` is not callable.
        ValueError: When called: nothing says which entry is the target, or the loss is not one number.
    """
    if not callable(loss):
        raise TypeError(f"`loss` should be a criterion or a function. Found {type(loss).__name__}.")
    return PerSample(loss, target, output)


class PerSample:
    """What `per_sample` returns. It can be pickled if the loss can."""

    def __init__(self, loss: Criterion, target: Any, output: Any) -> None:
        self.loss, self.target, self.output = loss, target, output
        self._one_by_one = False  # vmap failed
        self._compared = False  # with the loss of the whole batch
        self._keeps_state = False  # a call changes the criterion

    def __call__(self, output: Any, batch: UserBatch) -> Tensor:
        """Returns the loss of each sample, [B]."""
        prediction = output if self.output is None else _part(output, self.output)
        given, spread = self._given(batch)
        if isinstance(self.loss, nn.CTCLoss):
            return self._of_sequences(prediction, given)
        n = _rows(prediction)
        if isinstance(self.loss, nn.Module) and isinstance(getattr(self.loss, "reduction", None), str):
            losses = self._unreduced(prediction, given, n)
            if losses is not None:
                return losses

        def whole(prediction: Any, given: Any) -> Any:
            return self.loss(prediction, *given) if spread else self.loss(prediction, given)

        modules = list(self.loss.modules()) if isinstance(self.loss, nn.Module) else []
        before = [Snapshot(module, attributes=True) for module in modules] if self._keeps_state or not self._compared else []

        def one(prediction: Any, given: Any) -> Tensor:
            value = whole(prediction, given)
            for snapshot in before:
                snapshot.put_back()  # each sample meets the criterion as the batch would
            if not isinstance(value, Tensor) or value.numel() != 1:
                found = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
                raise ValueError(
                    f"The loss in `per_sample` should be one number for what it is given, here one sample. Found {found}; "
                    "return its mean. If it returns a loss for each sample already, use it without `per_sample`."
                )
            return value.reshape(())

        losses = self._each(one, prediction, given, n, before)
        if not self._compared or self._keeps_state:
            with torch.no_grad(), random_state_kept(losses.device):
                together = whole(prediction, given)
                self._keeps_state |= any(snapshot.moved() for snapshot in before)
                random = not self._keeps_state and not torch.equal(torch.as_tensor(whole(prediction, given)), together)
            if not self._compared and not random:
                self._compare(losses, together)
            self._compared = True
        return losses

    def _each(self, one: Criterion, prediction: Any, given: Any, n: int, before: list[Snapshot]) -> Tensor:
        """The loss of each sample, by vmap if it can follow the loss."""
        if not self._one_by_one:
            try:
                return _vmapped(one, prediction, given, n)
            except Exception:  # if the loss itself is wrong, the calls below raise its error
                for snapshot in before:
                    snapshot.put_back()
                losses = self._rows(one, prediction, given, n)
                self._one_by_one = True
                return losses
        return self._rows(one, prediction, given, n)

    def _compare(self, losses: Tensor, together: Any) -> None:
        """Warns once if the mean over samples is not the loss of the whole batch."""
        mean, whole = float(losses.detach().mean()), float(together)
        own = getattr(self.loss, "reduction", "mean")
        whole = whole / len(losses) if own == "sum" else whole
        if math.isclose(mean, whole, rel_tol=1e-2, abs_tol=1e-5) or not math.isfinite(whole):
            return
        warnings.warn(
            f"The mean of the losses of samples should be the loss of the whole batch. Found {mean:.4g} and {whole:.4g}: "
            f"{self!r} compares the samples of a batch, or divides by something of all of them, as Dice and Jaccard losses do. "
            "A sample without foreground then gets no gradient, for instance. To keep the loss of the batch, use "
            "`batch = augmenter.draw(batch)`, your loss, and `augmenter.observe(output)`.",
            stacklevel=3,
        )

    def __repr__(self) -> str:
        return f"per_sample({getattr(self.loss, '__qualname__', self.loss)}, target={self.target!r}, output={self.output!r})"

    @staticmethod
    def _rows(one: Criterion, prediction: Any, given: Any, n: int) -> Tensor:
        losses = []
        for i in range(n):

            def row(value: Any, i: int = i) -> Any:
                return value[i : i + 1]

            losses.append(one(map_rows(row, prediction, n), map_rows(row, given, n, _are_rows(n))))
        return torch.stack(losses)

    def _given(self, batch: UserBatch) -> tuple[Any, bool]:
        """What the loss gets besides the prediction, and whether this is a list of arguments."""
        target = self.target
        if target is None and isinstance(self.loss, nn.Module):
            if isinstance(batch, Mapping) or len(batch) < 2:
                raise ValueError(
                    "`target` should say which entry of the batch the criterion gets. Found none, and a batch of "
                    f"{list(batch) if isinstance(batch, Mapping) else len(batch)}; use per_sample(criterion, target=...)."
                )
            target = 1
        if target is None:
            return batch, False
        names = target if isinstance(target, list) else [target]
        return [_entry(batch, name) for name in names], True

    def _unreduced(self, prediction: Any, given: list[Any], n: int) -> Tensor | None:
        """The losses [B] from the criterion's losses of elements. None if it does not return these."""
        own: Any = self.loss
        reduction = own.reduction
        before = [Snapshot(module, attributes=True) for module in own.modules()] if not _of_torch(own) else []
        own.reduction = "none"  # of the user's own criterion, so that what it keeps moves as by its own call
        try:
            losses = own(prediction, *given)
        finally:
            own.reduction = reduction
        if not isinstance(losses, Tensor) or losses.ndim == 0 or len(losses) != n:
            for snapshot in before:
                snapshot.put_back()
            return None
        losses = losses.flatten(1) if losses.ndim > 1 else losses[:, None]
        summed = losses.sum(1)
        if own.reduction in ("sum", "batchmean"):
            return summed
        labels = given[0]
        if not isinstance(self.loss, (nn.CrossEntropyLoss, nn.NLLLoss)) or labels.is_floating_point():
            return losses.mean(1)
        return self._labelled_mean(summed, labels.reshape(n, -1))

    def _of_sequences(self, prediction: Tensor, given: list[Any]) -> Tensor:
        """The CTC loss of each sequence, [N]. Predictions are [T, N, C], so their first dimension counts no samples."""
        criterion: Any = self.loss
        if len(given) != 3:
            raise ValueError(
                f"`target` of a CTCLoss should name three entries. Found {len(given)}; pass target=[targets, input_lengths, "
                "target_lengths]."
            )
        targets, lengths, target_lengths = given
        losses = F.ctc_loss(prediction, targets, lengths, target_lengths, criterion.blank, "none", criterion.zero_infinity)
        if criterion.reduction != "mean":
            return losses
        return losses / torch.as_tensor(target_lengths, device=losses.device).clamp(min=1)

    def _labelled_mean(self, summed: Tensor, labels: Tensor) -> Tensor:
        """Divides the sums [B] of a sample's losses by its labelled elements, and by the mean class weight in the batch."""
        criterion: Any = self.loss
        known = labels != criterion.ignore_index  # [B, places]
        count = known.sum(1)
        each = count.clamp(min=1)
        if criterion.reduction == "none":
            return summed / each
        weight = known.to(summed.dtype)
        if criterion.weight is not None:
            weight = weight * criterion.weight.to(summed.dtype)[torch.where(known, labels, 0)]
        total = (weight.sum(1) / each).sum()
        factor = torch.where(total > 0, len(summed) / torch.where(total > 0, total, 1), 0)  # 0 where all weights are
        return torch.where(count > 0, summed / each, 0) * factor


def _of_torch(criterion: nn.Module) -> bool:
    """Whether a criterion is one of torch.nn, which keep nothing."""
    return type(criterion).__module__.startswith("torch.nn.")


def _part(output: Any, name: Any) -> Any:
    """Part of what a model returned, by key, position or attribute."""
    if isinstance(name, str) and not isinstance(output, Mapping):
        return getattr(output, name)
    return output[name]


def _entry(batch: UserBatch, name: Any) -> Any:
    if isinstance(batch, Mapping) and name in batch:
        return batch[name]
    try:
        return walk(batch, name if isinstance(name, tuple) else (name,))
    except LookupError:
        has = list(batch) if isinstance(batch, Mapping) else list(range(len(batch)))
        raise ValueError(f"`target` should name an entry of the batch. Found {name!r}; the batch has {has}.") from None


def _rows(prediction: Any) -> int:
    """The number of samples in what a model returned."""
    for _, tensor in leaves(prediction, opens=_opens):
        if isinstance(tensor, Tensor) and tensor.ndim:
            return len(tensor)
    raise ValueError(
        f"What the model returns should hold tensors with one row for each sample. Found {type(prediction).__name__}; "
        "say which part is the prediction, per_sample(loss, output=...)."
    )


def _opens(path: Path, value: Any) -> bool:
    return is_container(path, value) or is_record(value)


def _vmapped(one: Criterion, prediction: Any, given: Any, n: int) -> Tensor:
    rows: list[Tensor] = []

    def collected(value: Any) -> Any:
        if not isinstance(value, Tensor):
            raise NotImplementedError("vmap takes tensors, not arrays or lists of rows.")
        rows.append(value)
        return value

    map_rows(collected, prediction, n), map_rows(collected, given, n, _are_rows(n))

    def of_rows(*each: Tensor) -> Tensor:
        left = iter(each)

        def row(value: Any) -> Any:
            return next(left)[None]

        return one(map_rows(row, prediction, n), map_rows(row, given, n, _are_rows(n)))

    losses: Tensor = torch.func.vmap(of_rows)(*rows)
    return losses


def _are_rows(n: int) -> Callable[[Path, Any], bool]:
    """Which lists in a batch hold rows. A list that a model returned holds tensors, one for each stack."""
    return lambda path, value: path != () and has_rows(value, n) and not is_named_tuple(value)

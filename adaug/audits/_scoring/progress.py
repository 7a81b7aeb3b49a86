"""The progress bar of an audit."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import Any, TypeVar

Batch = TypeVar("Batch")


def with_bar(loader: Iterable[Batch], progress: bool | None) -> Iterator[Batch]:
    """The batches, with a progress bar. None shows it only on a terminal."""
    visible = sys.stderr.isatty() if progress is None else progress
    total = len(loader) if isinstance(loader, Sized) else None
    with _bar(total, visible, progress is True) as advance:
        for batch in loader:
            yield batch
            advance(1)


@contextmanager
def _bar(total: int | None, visible: bool, asked: bool) -> Iterator[Callable[[int], Any]]:
    if not visible:
        yield lambda number: None
        return
    try:
        from tqdm import tqdm
    except ModuleNotFoundError:
        if asked:
            raise ModuleNotFoundError("`progress=True` needs tqdm. Found none; pip install adaug[audit].") from None
        yield lambda number: None
        return
    with tqdm(total=total, desc="audit", unit="batch") as bar:
        yield bar.update

"""The audit that users get: a table of scores that can be read, compared, drawn and saved."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adaug.audits._file import read, write
from adaug.audits._text import page, summary
from adaug.audits.comparison import Comparison
from adaug.audits.table import Table

__all__ = ["Audit"]

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False, repr=False)
class Audit(Table):
    """What `adaug.audit` returns: the scores of a model on every image under every view, and their statistics.

    `print(audit)` shows the most important numbers. A statistic covers all views, or those that you choose: one family such as
    `views="rotate"`, `"scale × rotate"` or `"draws"` (see `audit.families`), one view, or several by their names. It is a float
    with `.low` and `.high`, a 95 % bootstrap interval over images.

    Attributes:
        scores: [N, V], or [N, V, K] with parts, float32. NaN does not count.
        families: The views by family. `audit.views` names them in the order of the table.
        higher_is_better: Whether higher scores are better.
        groups: Name -> the parts (joints, classes) that belong to it.
        images: A fingerprint of each image, [N]. Only audits of the same images can be compared.
        seed: The seed of the joint draws and of the bootstrap.
        excluded: What did not count: reason -> how often.
        pictures: Images as the network saw them, under the views that hurt them most.
        labels: A fingerprint of each image's labels, [N]. `path=` continues only with the same ones.
        identity: What the audit was made with: argument -> its fingerprint, and "output_size" as text.
    """

    def compare(self, other: Audit) -> Comparison:
        """Compares this audit with a later one of the same images. A difference is the later number minus this one."""
        return Comparison(self, other)

    # ---- to read

    def __str__(self) -> str:
        return page(self)

    def __repr__(self) -> str:
        parts = f", {self.scores.shape[2]} parts" if self.scores.ndim == 3 else ""
        return f"<Audit: {len(self)} images, {len(self.views)} views{parts}; print it for a page>"

    def html(self, path: str | Path, *, compared: Audit | None = None, title: str = "Where is the network weak?") -> Path:
        """Writes a self-contained HTML page (`pip install adaug[audit]`).

        Args:
            path: The file to write.
            compared: A later audit of the same images. The page then shows what changed.
            title: The title of the page.
        """
        from adaug.audits import _report

        return _report.write(self, Path(path), compared, title)

    def figure(self, compared: Audit | None = None) -> Figure:
        """Draws curves and grids with matplotlib (`pip install adaug[audit]`)."""
        from adaug.audits import _report

        return _report.draw(self, compared)

    def to_dict(self) -> dict[str, Any]:
        """All views and statistics as plain values, without the table and the pictures."""
        return summary(self)

    def to_json(self) -> str:
        """The text of `to_dict` as JSON."""
        return json.dumps(self.to_dict(), indent=1, allow_nan=False)

    # ---- to keep

    def save(self, path: str | Path) -> Path:
        """Writes one file, an .npz without pickles. If it fails, an older file stays as it was."""
        return write(self, Path(path))

    @staticmethod
    def load(path: str | Path) -> Audit:
        """Reads what `save` wrote. Raises ValueError if the file is damaged or of another kind."""
        return Audit(**read(path))

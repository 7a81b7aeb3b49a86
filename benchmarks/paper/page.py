"""Makes one page of the paper's Tables 1 to 3 and Figures 5 to 7 with our runs, as Markdown and as HTML.

python -m benchmarks.paper.page runs/demo [runs/mpii ...] [--out page] [--mpii DIR] [--lsp DIR]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.paper.comparisons import Comparison, read_comparisons
from benchmarks.paper.figures import FIGURES, Picture, add_options
from benchmarks.paper.page_html import Section, page_of
from benchmarks.paper.tables import TITLES, tables_of

TITLE = "Adversarial against random augmentation: our runs beside the paper"
SOURCE = (
    "The paper: Peng, Tang, Yang, Feris, Metaxas, “Jointly Optimize Data Augmentation and Network Training: Adversarial Data "
    "Augmentation in Human Pose Estimation”, CVPR 2018. Rows marked “paper” are copied from its tables."
)


def main(arguments: Sequence[str] | None = None) -> Path:
    """Prints the page, writes it and returns its path."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.paper.page", description=(__doc__ or "").splitlines()[0])
    add_options(parser, "page")
    options = parser.parse_args(arguments)
    comparisons = read_comparisons(options.runs)
    options.out.mkdir(parents=True, exist_ok=True)
    sections = sections_of(comparisons, options)
    for section in sections:
        for part in section.parts:
            if isinstance(part, Picture):
                part.write(options.out)
    text = "\n\n".join([f"# {TITLE}", *(section.markdown() for section in sections)]) + "\n"
    (options.out / "page.md").write_text(text, encoding="utf-8")
    print(text)
    path: Path = options.out / "page.html"
    path.write_text(page_of(TITLE, sections), encoding="utf-8")
    print(f"Written: {path}", file=sys.stderr)
    return path


def sections_of(comparisons: Sequence[Comparison], options: argparse.Namespace) -> list[Section]:
    """The sections of the page: the tables, then the figures of each comparison."""
    sections = [Section(f"Table {number}: {title}", tables_of(number, comparisons)) for number, title in TITLES.items()]
    sections[0] = Section(sections[0].heading, [SOURCE, *sections[0].parts])
    for number, (title, figure) in FIGURES.items():
        parts = [figure(comparison, i, options) for i, comparison in enumerate(comparisons, 1)]
        sections.append(Section(f"Figure {number}: {title}", parts))
    return sections


if __name__ == "__main__":
    main()

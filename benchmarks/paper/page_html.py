"""Writes a page of tables and figures as Markdown, and as HTML that needs no other file and fits on a phone."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.paper.figures import Picture
from benchmarks.paper.tables import Table

STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1120px; padding: 1rem; color: #1a1a1a; background: #fff;
       font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.2; }
h2 { font-size: 1.25rem; margin: 2.5rem 0 .5rem; padding-top: 1rem; border-top: 1px solid #ddd; }
h3 { font-size: 1rem; margin: 1.5rem 0 .5rem; }
p { max-width: 75ch; margin: .5rem 0; }
.note { color: #555; font-size: .875rem; }
.wide { overflow-x: auto; -webkit-overflow-scrolling: touch; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; }
th, td { padding: .35rem .45rem; text-align: right; white-space: nowrap; border-bottom: 1px solid #e5e5e5; }
th:first-child { text-align: left; position: sticky; left: 0; background: #fff; white-space: normal; }
td small { color: #555; font-size: .75em; font-weight: 400; }
thead th { border-bottom: 2px solid #999; }
tr.ours th, tr.ours td { background: #eef5fb; }
td:last-child { font-weight: 600; }
figure { margin: 1rem 0; }
img { display: block; max-width: 100%; height: auto; }
figcaption { color: #555; font-size: .875rem; max-width: 75ch; }
@media (max-width: 640px) {
  th:first-child { min-width: 8.5rem; }
  .wide img { max-width: none; width: 720px; }
}
"""


@dataclass(frozen=True)
class Section:
    """A heading and the parts below it. A string is a paragraph."""

    heading: str
    parts: Sequence[str | Table | Picture]

    def markdown(self) -> str:
        """The section as Markdown, with links to the files of figures."""
        texts = [f"## {self.heading}"]
        for part in self.parts:
            if isinstance(part, Table):
                texts.append(part.markdown())
            else:
                texts.append(part if isinstance(part, str) else f"![{part.name}]({part.name}.png)\n\n{part.caption}")
        return "\n\n".join(texts)


def page_of(title: str, sections: Sequence[Section]) -> str:
    """The whole page as HTML, with its pictures inside."""
    body = [f"<h1>{html.escape(title)}</h1>"]
    for section in sections:
        body.append(f"<h2>{html.escape(section.heading)}</h2>")
        body += [_part(part) for part in section.parts]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(body)
        + "\n</body>\n</html>\n"
    )


def _part(part: str | Table | Picture) -> str:
    if isinstance(part, str):
        return f"<p>{html.escape(part)}</p>"
    if isinstance(part, Table):
        return _table(part)
    data, caption = base64.b64encode(part.png()).decode(), html.escape(part.caption)
    return (
        f'<figure><div class="wide" tabindex="0"><img alt="{caption.split(". ")[0]}" src="data:image/png;base64,{data}"></div>'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def _table(table: Table) -> str:
    columns = list(next(iter(table.rows.values())))
    head = "".join(f'<th scope="col">{html.escape(text)}</th>' for text in ["", *columns])
    rows = []
    for name, cells in table.rows.items():
        ours = "" if name.endswith("paper") else ' class="ours"'
        values = "".join(f"<td>{_cell(cells.get(column, '–'))}</td>" for column in columns)
        rows.append(f'<tr{ours}><th scope="row">{html.escape(name)}</th>{values}</tr>')
    notes = "".join(f'<p class="note">{html.escape(note)}</p>' for note in table.notes)
    return (
        f'<h3>{html.escape(table.title)}</h3><div class="wide" tabindex="0"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>{notes}"
    )


def _cell(text: str) -> str:
    """A cell with its spread in small letters, so that eight columns fit."""
    mean, _, spread = text.partition(" ± ")
    return html.escape(mean) + (f" <small>± {html.escape(spread)}</small>" if spread else "")

"""A matplotlib figure as SVG inside an HTML page: text as text, and the colours of the page, so that dark mode works."""

from __future__ import annotations

import io
import re
import warnings
from html import escape
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from adaug.audits._report.panels import COLOURS

NAMES = {colour: name for name, colour in COLOURS.items()}
REPLACED: list[tuple[str, Any]] = [
    (r"<metadata>.*?</metadata>", ""),  # it names sites
    (r"<style.*?</style>|<clipPath.*?</clipPath>", ""),  # a style would hold for the whole page; nothing needs to be clipped
    (r' clip-path="[^"]*"', ""),
    (r' id="[\w.]+_\d+"', ""),  # every figure has an "axes_1"
    (r"(fill|stroke): (#[0-9a-f]{6})", lambda found: f"{found[1]}: {_variable(found[2])}"),
    (r">\s+<", "><"),
]
SCALE = 1.45  # pixels of the page for a point of the figure


def inline(figure: Figure, kind: str, label: str, number: int) -> str:
    """The figure as an element of the class `kind`. The same figure gives the same text.

    Args:
        figure: The figure.
        kind: "curve" or "map".
        label: What readers hear who do not see it.
        number: A number that no other figure of the page has, for the ids that its marks need.
    """
    file = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": str(number)}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # the browser has fonts of its own
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    text = file.getvalue()
    body = text[text.index(">", text.index("<svg")) + 1 :]
    for pattern, new in REPLACED:
        body = re.sub(pattern, new, body, flags=re.DOTALL)
    width, height = (72 * side for side in figure.get_size_inches())
    size = f'viewBox="0 0 {width:g} {height:g}" width="{SCALE * width:.0f}"'
    return f'<svg class="plot {kind}" {size} role="img" aria-label="{escape(label)}">{body.strip()}'


def _variable(colour: str) -> str:
    return f"var(--{NAMES[colour]})" if colour in NAMES else colour

"""results.json, where a comparison leaves its numbers."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

FILE = "results.json"
VERSION = 3  # raise it when a reader could misread an older one. 3: audits in the place of turned and hidden views


def write_results(path: Path, results: dict[str, Any]) -> None:
    """Written under another name and renamed. Lists and rows of numbers stand on one line, so that a person can read them."""
    text = json.dumps(results, indent=1, ensure_ascii=False)
    text = re.sub(r"([\[{])\n\s+([^\[\]{}]*?)\n\s+([\]}])", lambda m: m[1] + re.sub(r"\n\s+", " ", m[2]) + m[3], text)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text + "\n", encoding="utf-8")
    os.replace(temporary, path)

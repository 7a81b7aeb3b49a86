"""Writes results.json, the numbers of a comparison."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

from examples.safe_files import write_whole

FILE = "results.json"
VERSION = 3  # raise it if a reader could misunderstand an older file. 3: audits instead of turned and hidden views


def write_results(path: Path, results: dict[str, Any]) -> None:
    """Writes the whole file or nothing. Lists and rows of numbers stand on one line, so that a person can read them."""
    text = json.dumps(results, indent=1, ensure_ascii=False)
    text = re.sub(r"([\[{])\n\s+([^\[\]{}]*?)\n\s+([\]}])", lambda m: m[1] + re.sub(r"\n\s+", " ", m[2]) + m[3], text)
    write_whole(path, (text + "\n").encode())


def plain(value: Any) -> Any:
    """A dataclass as JSON would return it, so that it equals what was saved."""
    return json.loads(json.dumps(dataclasses.asdict(value)))

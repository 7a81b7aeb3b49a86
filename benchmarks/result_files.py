"""Writes the files under results/: results with command, machine and date. Also formats spreads."""

from __future__ import annotations

import datetime
import json
import os
import platform
import shlex
import statistics
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from matplotlib.figure import Figure

RESULTS = Path(__file__).parent / "results"
RAW = Path("runs") / "results"  # the numbers behind the pages


def machine() -> str:
    """This machine: the GPU, or the processor and the number of threads in use."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return gpu or f"{_processor()}, {torch.get_num_threads()} of {os.cpu_count()} threads"


def provenance() -> dict[str, Any]:
    """Command, machine, versions and date of this run."""
    script = Path(sys.argv[0]).resolve()
    root = Path(__file__).parent.parent
    name = script.relative_to(root) if script.is_relative_to(root) else script.name
    return {
        "command": " ".join(["python", str(name), *map(_shown, sys.argv[1:])]),
        "machine": machine(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d"),
    }


def split_arguments() -> tuple[list[str], list[str]]:
    """Splits the command line at `--`."""
    words = sys.argv[1:]
    end = words.index("--") if "--" in words else len(words)
    return words[:end], words[end + 1 :]


def _shown(word: str) -> str:
    """A word of the command line as one would type it, without folders of this machine."""
    return "DIR" if word.startswith(("/", "..")) else shlex.quote(word)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def spread(values: Sequence[float]) -> dict[str, float]:
    """The median, the least and the greatest."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def with_spread(values: Sequence[float], *, sign: Literal["", "+"] = "", decimals: int = 1) -> str:
    """The mean, with ± the sample standard deviation if there are several. sign: "+" marks positive numbers too."""
    mean = f"{statistics.fmean(values):{sign}.{decimals}f}".replace("-", "−")
    return f"{mean} ± {statistics.stdev(values):.{decimals}f}" if len(values) > 1 else mean


def save(
    name: str, result: dict[str, Any], markdown: str, figure: Figure | None = None, *, machines: Iterable[str] = ()
) -> Path:
    """Writes `results/NAME.md`, its picture NAME.svg, and the numbers in `runs/results/NAME.json`. Returns the first path.

    machines: the machines that ran, if there were others than this one.
    """
    RESULTS.mkdir(exist_ok=True)
    RAW.mkdir(parents=True, exist_ok=True)
    origin = provenance()
    origin["machine"] = " and ".join(dict.fromkeys(machines)) or origin["machine"]
    (RAW / f"{name}.json").write_text(json.dumps({"provenance": origin, **result}, indent=1) + "\n")
    line = f"`{origin['command']}`, {origin['machine']}, torch {origin['torch']}, {origin['date']}."
    picture = ""
    if figure is not None:
        figure.savefig(RESULTS / f"{name}.svg", metadata={"Date": None}, facecolor="white")
        picture = f"![{name.replace('_', ' ')}]({name}.svg)\n\n"
    path = RESULTS / f"{name}.md"
    path.write_text(f"{markdown.strip()}\n\n{picture}{line}\n")
    return path

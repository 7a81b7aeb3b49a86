"""Writes the files under results/: results with command, commit, machine and date. Also formats spreads."""

from __future__ import annotations

import datetime
import functools
import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parent.parent
CODE = ("adaug", "benchmarks", "examples", ":!benchmarks/results")  # what a result depends on
RESULTS = Path(__file__).parent / "results"
RAW = Path("runs") / "results"  # the numbers behind the pages


def machine() -> str:
    """This machine: the GPU, or the processor and the number of threads in use."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return gpu or f"{_processor()}, {torch.get_num_threads()} of {os.cpu_count()} threads"


@functools.cache  # what runs is what was there when the process began
def commit() -> str:
    """The commit of the code, with "+ changes" if some of it was not committed."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()

    try:
        return git("rev-parse", "--short=10", "HEAD") + (" + changes" if git("status", "--porcelain", "--", *CODE) else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def origin() -> dict[str, str]:
    """Where numbers come from: commit, machine, torch and date."""
    today = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d")
    return {"commit": commit(), "machine": machine(), "torch": torch.__version__, "date": today}


def command() -> str:
    """This command as one would type it."""
    script = Path(sys.argv[0]).resolve()
    if script.name == "__main__.py" and script.is_relative_to(ROOT):
        program = f"-m {'.'.join(script.parent.relative_to(ROOT).parts)}"
    else:
        program = str(script.relative_to(ROOT) if script.is_relative_to(ROOT) else script.name)
    return " ".join(["python", program, *map(_shown, sys.argv[1:])])


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
    name: str,
    result: dict[str, Any],
    markdown: str,
    figure: Figure | None = None,
    *,
    origins: Iterable[Mapping[str, str]] = (),
) -> Path:
    """Writes `results/NAME.md`, its picture NAME.svg, and the numbers in `runs/results/NAME.json`. Returns the first path.

    origins: those of the runs, if this process did not make all the numbers itself.
    """
    RESULTS.mkdir(exist_ok=True)
    RAW.mkdir(parents=True, exist_ok=True)
    every = list(origins) or [origin()]
    told = {part: " and ".join(sorted({one[part] for one in every})) for part in every[0]}
    provenance = {"command": command(), "python": platform.python_version(), **told}
    (RAW / f"{name}.json").write_text(json.dumps({"provenance": provenance, **result}, indent=1) + "\n")
    line = f"`{provenance['command']}`, commit {told['commit']}, {told['machine']}, torch {told['torch']}, {told['date']}."
    picture = ""
    if figure is not None:
        figure.savefig(RESULTS / f"{name}.svg", metadata={"Date": None}, facecolor="white")
        picture = f"![{name.replace('_', ' ')}]({name}.svg)\n\n"
    path = RESULTS / f"{name}.md"
    path.write_text(f"{markdown.strip()}\n\n{picture}{line}\n")
    return path

"""An example run that is killed again and again."""

from __future__ import annotations

import signal
import tempfile
import time
from pathlib import Path
from typing import Any

import networks as nets
import torch

from attacks.tally import Process, Tally
from examples.hourglass.checkpoints import NAME


def kills(tally: Tally) -> None:
    """An example run that is killed again and again, until it is through: the same bits as one that was not."""
    from tests.examples.hourglass.test_training import draw_people, run

    people, number = draw_people(12, size=32, canvas=48), tally.random
    with tempfile.TemporaryDirectory() as name:
        started = time.monotonic()
        if Process(lambda: run(people, Path(name) / "whole")).wait(started + 300) != 0:
            tally.add("crash", "an example run that nobody disturbs")
            return
        seconds, whole = time.monotonic() - started, _session(Path(name) / "whole")
        tally.start()
        for i in range(1000):
            folder, code = Path(name) / str(i), -1
            while code != 0:
                if tally.over:
                    return
                child = Process(lambda folder=folder: run(people, folder))
                code = child.wait(time.monotonic() + number.uniform(0.02, 0.6 * seconds))
                if code not in (0, -signal.SIGKILL):
                    tally.add("crash", f"a run that was killed does not go on: exit code {code}")
                    break
                if code:
                    tally.add("held", "a kill")
            else:
                same = nets.same(_session(folder), whole) and not list(folder.glob("*.tmp"))
                tally.add("held" if same else "silent", "a run that was killed ends with other bits")


def _session(folder: Path) -> Any:
    return torch.load(folder / NAME, weights_only=True)["session"]

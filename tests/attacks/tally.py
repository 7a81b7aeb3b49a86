"""How attempts are judged and counted, and processes that can be killed."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any


class Tally:
    """What came of the attempts of a family, until its time is over or it has made the `most`."""

    def __init__(self, seconds: float, seed: int, most: int = 10**9) -> None:
        self.counts: Counter[str] = Counter()
        self.found: dict[str, str] = {}  # a kind of failure -> the first one
        self.notes: Counter[str] = Counter()  # what else a family counts
        self.random, self.seed = random.Random(seed), seed
        self.seconds, self.most = seconds, most
        self.start()

    def start(self) -> None:
        """From now on the time counts: a family calls it when it is ready."""
        self.end = time.monotonic() + self.seconds

    @property
    def over(self) -> bool:
        return time.monotonic() > self.end or sum(self.counts.values()) >= self.most

    def add(self, outcome: str, what: str, kind: str = "") -> None:
        self.counts[outcome] += 1
        if outcome != "held":
            self.found.setdefault(f"{outcome} {kind or what[:60]}", f"{outcome}: {what}")

    def judge(
        self, what: str, act: Callable[[], Any], right: Callable[[Any], str], kept: Callable[[], bool] = lambda: True
    ) -> None:
        """Tries something. `right` says what is wrong with its result, `kept` whether nothing has changed after an error."""
        try:
            result = act()
        except Exception as error:
            good = isinstance(error, (TypeError, ValueError, RuntimeError)) and "should" in str(error) and "Found" in str(error)
            outcome = "half-done" if not kept() else "held" if good else "unhelpful"
            said = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
            self.add(outcome, f"{what} -> {said:.300}", f"{type(error).__name__} {_place(error)}")
            return
        wrong = right(result)
        self.add("silent" if wrong else "held", f"{what} -> {wrong}", wrong[:40])


def _place(error: BaseException) -> str:
    trace, place = error.__traceback__, ""
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        place = f"{Path(file).name}:{trace.tb_lineno}" if "adaug" in file else place
        trace = trace.tb_next
    return place


class Process:
    """A forked process; it is killed when its time is over."""

    def __init__(self, act: Callable[[], Any]) -> None:
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            code = 1
            try:
                with open(os.devnull, "w") as nowhere:
                    os.dup2(nowhere.fileno(), 1)
                    os.dup2(nowhere.fileno(), 2)
                act()
                code = 0
            finally:
                os._exit(code)

    def wait(self, until: float) -> int:
        """Its exit code; that of a kill, if it goes on until then."""
        while time.monotonic() < until:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.005)
        os.kill(self.pid, signal.SIGKILL)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

"""Compares arms by runs that are paired by their seed: means and differences, as numbers and as Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from benchmarks.result_files import with_spread
from examples.hourglass.tables import markdown_table

Scores = dict[str, float]
Runs = dict[str, dict[int, dict[str, Any]]]  # arm -> seed -> the results of a run: scores, cpu_seconds, origin
Differences = dict[str, dict[int, Scores]]  # pair -> seed -> score -> difference
MAIN = 7  # the scores of the first table: statistics of a run's audit; single views and errors come after these


def summary(values: Sequence[float]) -> dict[str, float]:
    """A summary of differences. From three seeds on with a p-value and the 95 % interval (t)."""
    statistic = {"seeds": float(len(values)), "mean": statistics.fmean(values)}
    if len(values) > 1:
        statistic["sd"] = statistics.stdev(values)
        if statistic["sd"] > 0 and len(values) > 2:
            test = stats.ttest_1samp(values, 0.0)
            low, high = test.confidence_interval(0.95)
            statistic |= {"p": float(test.pvalue), "low": float(low), "high": float(high)}
    return statistic


def shown(statistic: dict[str, float]) -> str:
    """A difference as text."""
    text = f"{statistic['mean']:+.1f}".replace("-", "−")
    text += f" ± {statistic['sd']:.1f}" if "sd" in statistic else " (1 seed)"
    if "p" not in statistic:
        return text
    return text + (f" (p {statistic['p']:.2f})" if statistic["p"] >= 0.01 else f" (p {statistic['p']:.1g})")


def usual_machine(runs: Runs) -> str:
    """The machine of most runs. Seconds from other machines cannot be compared."""
    return statistics.mode(run["origin"]["machine"] for of_arm in runs.values() for run in of_arm.values())


def cpu_seconds(runs: dict[int, dict[str, Any]], where: str) -> str:
    """The mean of an arm's runs on a machine, as text."""
    seconds = [run["cpu_seconds"] for run in runs.values() if run["origin"]["machine"] == where]
    return f"{statistics.fmean(seconds):.0f}" if seconds else "–"


def means(runs: Runs) -> str:
    """The means of every arm with their deviation over the seeds, as Markdown."""
    scores = {arm: [run["scores"] for run in of_arm.values()] for arm, of_arm in runs.items()}
    names, usual = list(next(iter(scores.values()))[0]), usual_machine(runs)

    def of(arm: str, columns: Sequence[str]) -> dict[str, str]:
        return {name: with_spread([run[name] for run in scores[arm]]) for name in columns}

    rows = {
        arm: {"seeds": str(len(of_arm)), **of(arm, names[:MAIN]), "CPU s": cpu_seconds(of_arm, usual)}
        for arm, of_arm in runs.items()
    }
    text = [markdown_table(rows, "arm")]
    if names[MAIN:]:
        text += ["Other scores", markdown_table({arm: of(arm, names[MAIN:]) for arm in scores}, "arm")]
    if sharp := {arm: known for arm, of_arm in runs.items() if (known := peaks(of_arm))}:
        text += ["The largest probability of the mean distribution in the last epoch, times the bins (1: uniform)"]
        text += [markdown_table(sharp, "arm")]
    return "\n\n".join(text)


def peaks(runs: dict[int, dict[str, Any]]) -> dict[str, str]:
    """How sharp an arm's distributions ended, by operation. Empty if no run tells, or if all stayed uniform."""
    known = [run["peaks"] for run in runs.values() if max(run.get("peaks", {}).values(), default=1) > 1.01]
    return {name: with_spread([run[name] for run in known], decimals=2) for name in (known[0] if known else ())}


def of_pairs(runs: Runs, pairs: Iterable[tuple[str, str]]) -> Differences:
    """The differences of each (arm, base) over the seeds that both have, by the name of the arm."""
    differences: Differences = {}
    for arm, base in pairs:
        ours, theirs = runs.get(arm, {}), runs.get(base, {})
        for seed in sorted(ours.keys() & theirs.keys()):
            scores, other = ours[seed]["scores"], theirs[seed]["scores"]
            differences.setdefault(arm, {})[seed] = {name: scores[name] - other[name] for name in scores}
    return differences


# -- corrected for their number --------------------------------------------------------------------------------------


def holm(p: Sequence[float]) -> list[float]:
    """p-values corrected for their number (Holm, 1979)."""
    corrected, largest = [1.0] * len(p), 0.0
    for rank, i in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        largest = max(largest, min(1.0, p[i] * (len(p) - rank)))
        corrected[i] = largest
    return corrected


def corrected_tables(groups: Mapping[str, Differences], names: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """Tables of differences with 95 % intervals, and with p corrected for the number of all differences here."""
    numbers = {
        heading: {
            pair: {name: summary([run[name] for run in of_pair.values() if name in run]) for name in names}
            for pair, of_pair in pairs.items()
        }
        for heading, pairs in groups.items()
    }
    tested = [known for pairs in numbers.values() for of_pair in pairs.values() for known in of_pair.values() if "p" in known]
    for known, p in zip(tested, holm([known["p"] for known in tested]), strict=True):
        known["p of one"], known["p"] = known["p"], p
    text = (
        []
        if not tested
        else [
            f"Differences: mean ± deviation over the seeds, 95 % interval (t), p of a two-sided t-test, corrected for the "
            f"{len(tested)} comparisons of these tables (Holm)"
        ]
    )
    for heading, pairs in numbers.items():
        if pairs:
            rows = {
                pair: {
                    "seeds": str(len(groups[heading][pair])),
                    **{name: _with_interval(known) for name, known in of_pair.items()},
                }
                for pair, of_pair in pairs.items()
            }
            text += [heading, markdown_table(rows, "arm")]
    return "\n\n".join(text), numbers


def _with_interval(statistic: dict[str, float]) -> str:
    if "low" not in statistic:
        return shown(statistic)
    low, high = (f"{statistic[end]:+.1f}".replace("-", "−") for end in ("low", "high"))
    return shown(statistic).replace("(p", f"({low} to {high}, p")


# -- at an equal score -----------------------------------------------------------------------------------------------


def family(arm: str) -> str:
    """The name of a family of arms: "uniform" for "uniform, share 1/2"."""
    return arm.partition(", ")[0]


def at_equal(runs: Runs, base: str, x: str, names: Sequence[str]) -> Differences:
    """How far every arm lies above the line through the arms of family `base`, at the arm's own score `x`.

    The line joins means over the seeds, without arms that another one of the line beats in both scores. The number of a seed is
    its jackknife pseudo-value. So mean and deviation are those of the estimate, and include the line's own uncertainty and the
    pairing of seeds. Arms whose `x` is beyond the line are left out.
    """
    line = [arm for arm in runs if family(arm) == base]
    differences: Differences = {}
    for arm in runs:
        seeds = sorted(set.intersection(*(set(runs[one]) for one in (arm, *line))))
        if arm in line or len(line) < 2 or not seeds:
            continue

        def mean(of: str, name: str, seeds: Sequence[int]) -> float:
            return statistics.fmean(runs[of][seed]["scores"][name] for seed in seeds)

        if not min(mean(one, x, seeds) for one in line) <= mean(arm, x, seeds) <= max(mean(one, x, seeds) for one in line):
            continue

        def above(name: str, seeds: Sequence[int], arm: str = arm) -> float:
            if name == x:
                return 0.0
            points = [(mean(one, x, seeds), mean(one, name, seeds)) for one in line]
            return mean(arm, name, seeds) - interpolated(front(points), mean(arm, x, seeds))

        differences[arm] = {seed: {} for seed in seeds}
        for name in names:
            estimate, n = above(name, seeds), len(seeds)
            for seed in seeds:
                without = above(name, [one for one in seeds if one != seed]) if n > 1 else 0.0
                differences[arm][seed][name] = n * estimate - (n - 1) * without
    return differences


def front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points that no other one beats in both numbers, sorted."""
    return sorted({(x, y) for x, y in points if not any(a >= x and b >= y and (a, b) != (x, y) for a, b in points)})


def interpolated(points: Sequence[tuple[float, float]], x: float) -> float:
    """Interpolates on the lines between sorted points. Beyond them it takes the nearest."""
    return float(np.interp(x, [at for at, _ in points], [value for _, value in points]))

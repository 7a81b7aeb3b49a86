"""Compares arms by runs that are paired by their seed: means and differences, as numbers and as Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from benchmarks.result_files import with_spread
from examples.hourglass.tables import markdown_table

Scores = dict[str, float]
Runs = dict[str, dict[int, dict[str, Any]]]  # arm -> seed -> the results of a run: scores, cpu_seconds, machine
MAIN = 7  # the scores that are compared: statistics of a run's audit; errors and single views come after these


def named(arm: str) -> tuple[str, str]:
    """The name of an arm or a pair in the tables, and what it is: the example's name for it with its options."""
    name, _, options = arm.rpartition(": ")
    return name or options, options


def difference(arm: dict[int, Scores], base: dict[int, Scores], name: str) -> dict[str, float]:
    """The difference over the seeds that both have: mean, standard deviation, and p of a paired t-test (two-sided)."""
    return summary([arm[seed][name] - base[seed][name] for seed in sorted(arm.keys() & base.keys())])


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


def shown(statistic: dict[str, float], decimals: int = 1) -> str:
    """A difference as text."""
    text = f"{statistic['mean']:+.{decimals}f}".replace("-", "−")
    text += f" ± {statistic['sd']:.{decimals}f}" if "sd" in statistic else " (1 seed)"
    if "p" not in statistic:
        return text
    return text + (f" (p {statistic['p']:.2f})" if statistic["p"] >= 0.01 else f" (p {statistic['p']:.1g})")


def usual_machine(runs: Runs) -> str:
    """The machine of most runs. Seconds from other machines cannot be compared."""
    return statistics.mode(run["machine"] for of_arm in runs.values() for run in of_arm.values())


def cpu_seconds(runs: dict[int, dict[str, Any]], where: str) -> str:
    """The mean of an arm's runs on a machine, as text."""
    seconds = [run["cpu_seconds"] for run in runs.values() if run["machine"] == where]
    return f"{statistics.fmean(seconds):.0f}" if seconds else "–"


def tables(runs: Runs, against: Sequence[str], decimals: int = 1) -> tuple[str, dict[str, Any]]:
    """The means of every arm, then differences from the arms in `against`, paired by seed. As Markdown and as numbers."""
    scores = {arm: {seed: run["scores"] for seed, run in of_arm.items()} for arm, of_arm in runs.items()}
    names, usual = list(next(iter(next(iter(scores.values())).values()))), usual_machine(runs)

    def means(arm: str, columns: Sequence[str]) -> dict[str, str]:
        return {name: with_spread([run[name] for run in scores[arm].values()], decimals=decimals) for name in columns}

    rows = {
        arm: {
            "seeds": str(len(of_arm)),
            **means(arm, names[:MAIN]),
            "CPU s": cpu_seconds(of_arm, usual),
        }
        for arm, of_arm in runs.items()
    }
    text, numbers = [markdown_table(rows, "arm")], {}
    for base in against:
        if base not in scores:
            continue
        numbers[base] = {
            arm: {name: difference(of_arm, scores[base], name) for name in names}
            for arm, of_arm in scores.items()
            if arm != base and of_arm.keys() & scores[base].keys()
        }
        if numbers[base]:
            cells = {arm: {name: shown(known[name], decimals) for name in names[:MAIN]} for arm, known in numbers[base].items()}
            text += [
                "",
                f"Differences to {base}, paired by seed (p: two-sided t-test, not corrected for the number of comparisons)",
                "",
                markdown_table(cells, "arm"),
            ]
    if names[MAIN:]:
        text += ["", "Other scores", "", markdown_table({arm: means(arm, names[MAIN:]) for arm in scores}, "arm")]
    if sharp := {arm: known for arm, of_arm in runs.items() if (known := peaks(of_arm))}:
        text += ["", "The largest probability of the mean distribution in the last epoch, times the bins (1: uniform)", ""]
        text += [markdown_table(sharp, "arm")]
    return "\n".join(text), numbers


def peaks(runs: dict[int, dict[str, Any]]) -> dict[str, str]:
    """How sharp an arm's distributions ended, by operation. Empty if no run tells, or if all stayed uniform."""
    known = [run["peaks"] for run in runs.values() if max(run.get("peaks", {}).values(), default=1) > 1.01]
    return {name: with_spread([run[name] for run in known], decimals=2) for name in (known[0] if known else ())}


Differences = dict[str, dict[int, Scores]]  # pair -> seed -> score -> difference


def of_pairs(runs: Runs, pairs: Sequence[str]) -> Differences:
    """The differences of every "NAME: ARM vs BASE", seed by seed."""
    differences: Differences = {}
    for pair, sides in map(named, pairs):
        arm, base = (runs.get(side, {}) for side in sides.split(" vs "))
        for seed in sorted(arm.keys() & base.keys()):
            scores, other = arm[seed]["scores"], base[seed]["scores"]
            differences.setdefault(pair, {})[seed] = {name: scores[name] - other[name] for name in scores}
    return differences


def together(pairs: Differences, name: str) -> list[float]:
    """The mean difference of each seed over all pairs that have it, because runs with one seed are not independent."""
    seeds = sorted({seed for of_pair in pairs.values() for seed in of_pair})
    return [statistics.fmean(of_pair[seed][name] for of_pair in pairs.values() if seed in of_pair) for seed in seeds]


def pairs_table(pairs: Differences, decimals: int = 1) -> str:
    """The result of `of_pairs` as Markdown: the main scores of every pair, and every score of all pairs together."""
    if not pairs:
        return "No pair is finished."
    names = list(next(iter(next(iter(pairs.values())).values())))
    rows = {
        pair: {
            "seeds": str(len(of_pair)),
            **{name: shown(summary([run[name] for run in of_pair.values()]), decimals) for name in names[:MAIN]},
        }
        for pair, of_pair in pairs.items()
    }
    every = {name: [run[name] for of_pair in pairs.values() for run in of_pair.values()] for name in names}
    total = {
        name: {
            "difference": shown(summary(together(pairs, name)), decimals),
            "above in": f"{sum(value > 0 for value in values)} of {len(values)} runs",
        }
        for name, values in every.items()
    }
    return (
        "Differences, paired by seed (p: two-sided t-test, not corrected for the number of comparisons)\n\n"
        f"{markdown_table(rows, 'pair')}\n\n"
        "All of them: each seed's mean over the pairs, then the mean, deviation and p of the seeds; and in how many runs the "
        f"first arm is above\n\n{markdown_table(total, 'score')}"
    )


# -- corrected for their number --------------------------------------------------------------------------------------


def holm(p: Sequence[float]) -> list[float]:
    """p-values corrected for their number (Holm, 1979)."""
    corrected, largest = [1.0] * len(p), 0.0
    for rank, i in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        largest = max(largest, min(1.0, p[i] * (len(p) - rank)))
        corrected[i] = largest
    return corrected


def corrected_tables(groups: Mapping[str, Differences], names: Sequence[str], decimals: int = 1) -> tuple[str, dict[str, Any]]:
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
    text = [
        f"Differences: mean ± deviation over the seeds, 95 % interval (t), p of a two-sided t-test, corrected for the "
        f"{len(tested)} comparisons of these tables (Holm)"
    ]
    for heading, pairs in numbers.items():
        if pairs:
            rows = {
                pair: {
                    "seeds": str(len(groups[heading][pair])),
                    **{name: _with_interval(known, decimals) for name, known in of_pair.items()},
                }
                for pair, of_pair in pairs.items()
            }
            text += [heading, markdown_table(rows, "arm")]
    return "\n\n".join(text), numbers


def _with_interval(statistic: dict[str, float], decimals: int) -> str:
    if "low" not in statistic:
        return shown(statistic, decimals)
    low, high = (f"{statistic[end]:+.{decimals}f}".replace("-", "−") for end in ("low", "high"))
    return shown(statistic, decimals).replace("(p", f"({low} to {high}, p")


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

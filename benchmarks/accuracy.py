"""Does it help? The same network on the same real people or faces, in the same order, under several augmentations.

    python benchmarks/accuracy.py people --data DIR --arms none random uniform "asr+aho" "asr+aho --until 0.7" \\
        --seeds 0 1 2 --out runs/accuracy-300 --name accuracy_lsp_300 -- --people 300 --epochs 20 1 60
    python benchmarks/accuracy.py faces --data DIR --arms none random uniform adversarial --name accuracy_helen

An arm is a name that the example's --arms knows (examples/hourglass_lsp.py, examples/face_alignment.py) with options of
its own behind it, and perhaps what the tables should call it before it ("late: asr+aho --epochs 40 1 40"); what follows `--`
goes to every arm. Every run is paired by its seed: the same first weights and the same images. The grid goes seed by seed,
writes its tables after each run and, killed, goes on where it was. Several processes may fill one --out with different arms;
--finished then makes the tables. A run is known by its arguments: after a change of the code, choose another --out.

    python benchmarks/accuracy.py people ... --arms "a: asr+aho" "b: uniform" --pairs "in one setting: a vs b"
    python benchmarks/accuracy.py people ... --arms "random, short: random" "random, long: random --epochs 60 1 180" --over-time
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from scipy import stats

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import draw
from benchmarks.report import machine, save, split_arguments
from examples import face_alignment, hourglass_lsp
from examples.hourglass.evaluation import HIDDEN, TURNED, markdown_table
from examples.hourglass.results import with_spread

Scores = dict[str, float]
Runs = dict[str, dict[int, dict[str, Any]]]  # arm -> seed -> what `run_once` found
VIEWS = (*TURNED, *HIDDEN)
OVER_TIME = ("upright", "turned, scaled", "hidden", "NME", "NME, turned")
MAIN = 5  # the first scores of a run, which are compared; the views follow


def people(arguments: Sequence[str], seed: int, folder: Path) -> dict[str, Any]:
    """One run of examples/hourglass_lsp.py: PCK@0.2 in per cent, larger is better."""
    results = hourglass_lsp.main(["--size", "64", *arguments, "--seeds", str(seed), "--out", str(folder)])
    ((run,),) = results["arms"].values()
    views = {str(turn): run["turned"][str(turn)] for turn in VIEWS}
    upright = run["pck"][str(results["metric"]["threshold"])]["Mean"]
    scores = {
        "upright": upright,
        "turned, scaled": statistics.fmean(views[str(turn)] for turn in TURNED),
        "hidden": statistics.fmean(views[str(turn)] for turn in HIDDEN),
        "all views": statistics.fmean(views.values()),
        "training gap": run["pck_train"]["Mean"] - upright,
        **views,
    }
    about = (
        f"PCK@0.2 in per cent, {results['people']['test']} people of the {results['data']['test']}, "
        f"{results['people']['train']} people to train on ({results['data']['train']}); network of "
        f'{results["parameters"]:,} parameters. "All views" is the mean of the turned, scaled and hidden ones, without '
        "upright; the training gap is how much higher people score whom the network has seen"
    )
    return {"scores": scores, "cpu_seconds": run["cpu_seconds"], "images": run["images"], "about": about}


def faces(arguments: Sequence[str], seed: int, folder: Path) -> dict[str, Any]:
    """One run of examples/face_alignment.py: errors in per cent, smaller is better but for the AUC."""
    started = time.process_time()
    (scores,) = face_alignment.main([*arguments, "--seed", str(seed)]).values()
    about = "300-W's errors in per cent on the test faces of Helen (NME by the outer eye corners: smaller is better)"
    return {"scores": scores, "cpu_seconds": time.process_time() - started, "about": about}


TASKS: dict[str, Callable[[Sequence[str], int, Path], dict[str, Any]]] = {"people": people, "faces": faces}
DECIMALS = {"people": 1, "faces": 2}


def run_once(task: str, arm: str, seed: int, rest: Sequence[str], out: Path, train: bool = True) -> dict[str, Any] | None:
    """A run, or what it left when it was finished before with the same arguments; None if it was not and is not to be made."""
    arguments = [*rest, "--arms", *shlex.split(arm)]
    folder = out / re.sub(r"[^a-z0-9.+]+", "-", arm.lower()) / f"seed{seed}"
    path = folder / "finished.json"
    if path.is_file() and (known := json.loads(path.read_text()))["arguments"] == arguments:
        return dict(known)
    if not train:
        return None
    folder.mkdir(parents=True, exist_ok=True)
    found = {"arguments": arguments, "machine": machine(), **TASKS[task](arguments, seed, folder)}
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(found, indent=1) + "\n")
    temporary.replace(path)
    return found


def named(arm: str) -> tuple[str, str]:
    """What the tables call an arm or a pair, and what it is: the example's name for it with its options."""
    name, _, options = arm.rpartition(": ")
    return name or options, options


def difference(arm: dict[int, Scores], base: dict[int, Scores], name: str) -> dict[str, float]:
    """Of the seeds that both have: mean, standard deviation, and p of a paired t-test (two-sided)."""
    return summary([arm[seed][name] - base[seed][name] for seed in sorted(arm.keys() & base.keys())])


def summary(values: Sequence[float]) -> dict[str, float]:
    """What is said of differences; a p-value from three on."""
    found = {"seeds": float(len(values)), "mean": statistics.fmean(values)}
    if len(values) > 1:
        found["sd"] = statistics.stdev(values)
        if found["sd"] > 0 and len(values) > 2:
            found["p"] = float(stats.ttest_1samp(values, 0.0).pvalue)
    return found


def shown(found: dict[str, float], decimals: int = 1) -> str:
    """A difference as text."""
    text = f"{found['mean']:+.{decimals}f}".replace("-", "−")
    text += f" ± {found['sd']:.{decimals}f}" if "sd" in found else " (1 seed)"
    if "p" not in found:
        return text
    return text + (f" (p {found['p']:.2f})" if found["p"] >= 0.01 else f" (p {found['p']:.1g})")


def usual_machine(runs: Runs) -> str:
    """The machine of most runs: the seconds of others do not compare."""
    return statistics.mode(run["machine"] for of in runs.values() for run in of.values())


def cpu_seconds(of: dict[int, dict[str, Any]], where: str) -> str:
    """The mean of an arm's runs on a machine, as text."""
    seconds = [run["cpu_seconds"] for run in of.values() if run["machine"] == where]
    return f"{statistics.fmean(seconds):.0f}" if seconds else "–"


def tables(runs: Runs, against: Sequence[str], decimals: int = 1) -> tuple[str, dict[str, Any]]:
    """Means of every arm, then differences paired by seed to the arms in `against`; as Markdown and as numbers."""
    scores = {arm: {seed: run["scores"] for seed, run in of.items()} for arm, of in runs.items()}
    names, usual = list(next(iter(next(iter(scores.values())).values()))), usual_machine(runs)

    def means(arm: str, of: Sequence[str]) -> dict[str, str]:
        return {name: with_spread([found[name] for found in scores[arm].values()], decimals=decimals) for name in of}

    rows = {
        arm: {
            "seeds": str(len(of)),
            **means(arm, names[:MAIN]),
            "CPU s": cpu_seconds(of, usual),
        }
        for arm, of in runs.items()
    }
    text, numbers = [markdown_table(rows, "arm")], {}
    for base in against:
        if base not in scores:
            continue
        numbers[base] = {
            arm: {name: difference(of, scores[base], name) for name in names}
            for arm, of in scores.items()
            if arm != base and of.keys() & scores[base].keys()
        }
        if numbers[base]:
            cells = {arm: {name: shown(found[name], decimals) for name in names[:MAIN]} for arm, found in numbers[base].items()}
            text += [
                "",
                f"Differences to {base}, paired by seed (p: two-sided t-test, not corrected for the number of comparisons)",
                "",
                markdown_table(cells, "arm"),
            ]
    if names[MAIN:]:
        text += ["", "Each view", "", markdown_table({arm: means(arm, names[MAIN:]) for arm in scores}, "arm")]
    return "\n".join(text), numbers


Differences = dict[str, dict[int, Scores]]  # pair -> seed -> score -> difference


def of_pairs(runs: Runs, pairs: Sequence[str]) -> Differences:
    """The differences of every "NAME: ARM vs BASE", seed by seed."""
    found: Differences = {}
    for pair, sides in map(named, pairs):
        arm, base = (runs.get(side, {}) for side in sides.split(" vs "))
        for seed in sorted(arm.keys() & base.keys()):
            mine, other = arm[seed]["scores"], base[seed]["scores"]
            found.setdefault(pair, {})[seed] = {name: mine[name] - other[name] for name in mine}
    return found


def together(pairs: Differences, name: str) -> list[float]:
    """The mean difference of each seed over all pairs that have it: runs of one seed are not independent."""
    seeds = sorted({seed for of in pairs.values() for seed in of})
    return [statistics.fmean(of[seed][name] for of in pairs.values() if seed in of) for seed in seeds]


def pairs_table(pairs: Differences, decimals: int = 1) -> str:
    """What `of_pairs` found, as Markdown: the main scores of every pair, and every score of all of them together."""
    if not pairs:
        return "No pair is finished."
    names = list(next(iter(next(iter(pairs.values())).values())))
    rows = {
        pair: {
            "seeds": str(len(of)),
            **{name: shown(summary([found[name] for found in of.values()]), decimals) for name in names[:MAIN]},
        }
        for pair, of in pairs.items()
    }
    every = {name: [found[name] for of in pairs.values() for found in of.values()] for name in names}
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


def write(options: argparse.Namespace, runs: Runs) -> None:
    """Results files of the runs that are there, and the tables on the screen."""
    decimals = DECIMALS[options.task]
    scores = {
        arm: {name: [r["scores"][name] for r in of.values()] for name in next(iter(of.values()))["scores"]}
        for arm, of in runs.items()
    }
    names = list(next(iter(scores.values())))
    differences: dict[str, Any]
    if options.pairs:
        differences = of_pairs(runs, options.pairs)
        text = pairs_table(differences, decimals)
        dots = {pair: {name: [found[name] for found in of.values()] for name in names} for pair, of in differences.items()}
        figure = draw.accuracy(dots, names[: MAIN - 1]) if dots else None
    else:
        text, differences = tables(runs, options.against, decimals)
        figure = draw.accuracy(scores, names[: MAIN - 1])
    every = [run for of in runs.values() for run in of.values()]
    machines, usual = sorted({run["machine"] for run in every}), usual_machine(runs)
    if options.over_time:
        points = {
            arm: {s: {"CPU s": r["cpu_seconds"], **r["scores"]} for s, r in of.items() if r["machine"] == usual}
            for arm, of in runs.items()
        }
        figure = draw.over_time(points, "CPU s", [name for name in names if name in OVER_TIME])
    on = f", on {usual}" if len(machines) > 1 else ""
    seconds = "" if options.pairs else f" CPU s: a whole run, with its tests{on}."
    kept = {arm: {str(s): {**r, "arguments": r["arguments"][2:]} for s, r in of.items()} for arm, of in runs.items()}
    save(
        options.name,
        {"runs": kept, "differences": differences},
        f"{every[0]['about']}.{seconds}\n\n{text}",
        figure,
        machines=machines,
    )
    print(text, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=list(TASKS))
    parser.add_argument("--data", required=True, help="the folder with lsp (and lspet), or trainset and testset")
    parser.add_argument("--arms", nargs="+", required=True)
    parser.add_argument("--against", nargs="+", default=["random", "uniform"], help="arms that the others are compared with")
    parser.add_argument("--pairs", nargs="+", help="compare these instead, 'NAME: ARM vs BASE', and all of them together")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("runs/accuracy"))
    parser.add_argument("--name", required=True, help="of the files under results/")
    parser.add_argument("--finished", action="store_true", help="train nothing: tables of what is there")
    parser.add_argument("--over-time", action="store_true", help="draw a line for the arms named alike before a comma")
    own, rest = split_arguments()
    options = parser.parse_args(own)
    sides = {side for pair in options.pairs or () for side in named(pair)[1].split(" vs ")}
    if unknown := sides - {named(arm)[0] for arm in options.arms}:
        parser.error(f"--pairs should name arms of --arms. Found {', '.join(sorted(unknown))}.")
    runs: Runs = {}
    for seed in options.seeds:
        for arm, of_example in map(named, options.arms):
            run = run_once(options.task, of_example, seed, ["--data", options.data, *rest], options.out, not options.finished)
            if run is None:
                continue
            runs.setdefault(arm, {})[seed] = run
            if not options.finished:
                write(options, runs)
    if not runs:
        print("No run is finished.")
    elif options.finished:
        write(options, runs)


if __name__ == "__main__":
    main()

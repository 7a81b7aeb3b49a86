"""Draws the paper's Figures 5 to 7 from the records and predictions of runs.

python -m benchmarks.paper.figures 5 runs/demo --out runs/demo/figures
"""

from __future__ import annotations

import argparse
import io
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

import adaug
from adaug import plots
from benchmarks.paper.comparisons import Comparison, curve_of, load_model, read_comparisons
from benchmarks.paper.tables import people_of
from examples.datasets.people import People, Scores
from examples.hourglass.config import MEASURES
from examples.hourglass.data import Source, people_to_test
from examples.hourglass.evaluation import predict
from examples.hourglass.progress import Epoch

ADVERSARIAL, RANDOM, GENERATOR = "#D55E00", "#0072B2", "#009E73"  # Okabe and Ito
COLOURS = {"random": RANDOM, "asr+aho": ADVERSARIAL, "asr": "#E69F00", "aho": "#CC79A7", "uniform": "#56B4E9"}
SHOWN = 3  # Figure 7 shows so many people with the largest gains, and as many with the largest losses


@dataclass(frozen=True)
class Picture:
    """A figure with its caption. name: the name of its file, without the suffix."""

    name: str
    caption: str
    figure: Figure

    def write(self, folder: Path) -> Path:
        """Writes the figure to a file and returns its path."""
        path = folder / f"{self.name}.png"
        path.write_bytes(self.png())
        return path

    def png(self) -> bytes:
        """The content of the figure's file."""
        buffer = io.BytesIO()
        self.figure.savefig(buffer, format="png")
        return buffer.getvalue()


def draw_training_status(
    adversarial: Sequence[Epoch],
    random: Sequence[Epoch],
    operation: adaug.Scale | adaug.Rotate,
    *,
    branch: str = "asr",
    measure: str = "mean error",
    moments: int = 5,
) -> Figure:
    """Figure 5: a generator's distribution over an operation's bins, and the errors of the adversarial and of the random
    network in each bin, at some moments of training."""
    name = f"{branch}.{operation.name}"
    proposals: dict[int, list[float]] = {}  # images that the network has seen -> distribution; stage 2 adds none
    for epoch in adversarial:
        if name in epoch.distribution:
            proposals[epoch.images] = epoch.distribution[name]
    errors = [{e.images: e.by_bin[operation.name] for e in run if operation.name in e.by_bin} for run in (adversarial, random)]
    common = sorted(proposals.keys() & errors[0].keys() & errors[1].keys())
    if not common:
        raise ValueError(
            "Two runs should have looked at their bins at the same moments of joint training. Found none in common; train both "
            "with the same `bins_every`, above 0."
        )
    picks = [common[i] for i in sorted({round(j * (len(common) - 1) / max(1, moments - 1)) for j in range(moments)})]
    figure = Figure(figsize=(max(5.5, 1.0 + 1.9 * len(picks)), 5.6), dpi=150, layout="constrained")
    axes = figure.subplots(3, len(picks), sharex=True, sharey="row", squeeze=False)
    rows = (
        (proposals, GENERATOR, "generator:\nprobability"),
        (errors[0], ADVERSARIAL, f"adversarial:\n{measure}"),
        (errors[1], RANDOM, f"random:\n{measure}"),
    )
    edges = operation.edges()
    widths = [b - a for a, b in itertools.pairwise(edges)]
    degrees = operation.name == "rotate"
    highest = max(max(table[pick]) for table in errors for pick in picks)
    for line, (values, colour, label) in zip(axes, rows, strict=True):
        for axis, pick in zip(line, picks, strict=True):
            axis.bar(edges[:-1], values[pick], widths, align="edge", color=colour, edgecolor="white", linewidth=0.6)
            axis.spines[["top", "right"]].set_visible(False)
            axis.tick_params(labelsize=8)
            axis.margins(x=0.02)
        line[0].set_ylabel(label, fontsize=9)
        if values is proposals:
            line[0].set_ylim(0, 1.3 * max(max(values[pick]) for pick in picks))
            for axis in line:
                axis.axhline(1 / operation.bins, color="#222222", lw=0.9, ls="--", label="uniform")
            line[-1].legend(loc="upper right", fontsize=8, frameon=False, borderaxespad=0)
        else:
            line[0].set_ylim(0, 1.08 * highest)  # the two networks on one scale
    for axis, pick in zip(axes[0], picks, strict=True):
        axis.set_title(f"{pick:,} images", fontsize=9)
    ticks = [edges[0], (edges[0] + edges[-1]) / 2, edges[-1]]
    for axis in axes[-1]:
        axis.set_xticks(ticks, [f"{tick:+.0f}°" if degrees and tick else f"{tick:g}{'°' * degrees}" for tick in ticks])
    figure.supxlabel("rotation (counter-clockwise)" if degrees else "factor of the person's size", fontsize=9)
    title = "rotation" if degrees else operation.name
    figure.suptitle(f"Where the network is weak, and what the generator asks for: {title}", fontsize=10)
    return figure


def draw_pck_curves(
    curves: Mapping[str, Mapping[float, Scores]],
    *,
    metric: str = "PCKh",
    data: str = "",
    groups: Sequence[str] = ("Mean", "Wri.", "Knee", "Ank."),
) -> Figure:
    """Figure 6: PCK over thresholds for each arm, for all joints and for those that are hard to find."""
    figure = Figure(figsize=(2.6 * len(groups), 3.1), dpi=150, layout="constrained")
    axes = figure.subplots(1, len(groups), sharey=True, squeeze=False)[0]
    markers = dict(zip(curves, "osD^v", strict=False))
    for axis, group in zip(axes, groups, strict=True):
        for arm, scores in curves.items():
            thresholds = sorted(scores)
            axis.plot(
                thresholds,
                [scores[threshold][group] for threshold in thresholds],
                color=COLOURS.get(arm, "#222222"),
                marker=markers.get(arm, "o"),
                markersize=4,
                label=arm,
            )
        axis.set_title(group, fontsize=10)
        axis.set_xticks(thresholds)
        axis.tick_params(labelsize=8)
        axis.grid(color="#DDDDDD", lw=0.6)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylim(0, None)
    axes[0].set_ylabel(f"{metric} (%)", fontsize=9)
    axes[0].legend(fontsize=8, frameon=False)
    figure.supxlabel("threshold (fraction of head size)" if metric == "PCKh" else "threshold (fraction of torso)", fontsize=9)
    figure.suptitle(f"{metric} over thresholds" + (f": {data}" if data else ""), fontsize=10)
    return figure


def draw_people_under_both(
    people: People, predicted: Mapping[str, Tensor], picks: Sequence[int], correct: Mapping[str, Tensor], *, title: str
) -> Figure:
    """Figure 7: crops of some people, with a row for each network's predictions [N, J, 2] and a last row for the labels.

    correct: the number of joints that each network found, for each person, [N].
    """
    few, index = people.subset(picks), torch.as_tensor(picks)
    everywhere = torch.ones_like(few.visibility)
    rows = [(points[index], everywhere) for points in predicted.values()] + [(few.keypoints, few.visibility)]
    labelled = few.visibility.sum(1).int().tolist()
    titles = [f"{arm}: {n}/{all_}" for arm in predicted for n, all_ in zip(correct[arm][index].tolist(), labelled, strict=True)]
    return plots.draw_views(
        {
            "image": few.images.float().div(255).repeat(len(rows), 1, 1, 1),
            "keypoints": torch.cat([points for points, _ in rows]),
            "visibility": torch.cat([visibility for _, visibility in rows]),
        },
        titles=[*titles, *["labels"] * len(few)],
        columns=len(few),
        most=len(rows) * len(few),
        title=title,
        **people.joints.as_drawn(),
    )


# -- of a comparison -------------------------------------------------------------------------------------------------


def figure_5(comparison: Comparison, number: int, options: argparse.Namespace) -> Picture | str:
    """Figure 5 of a comparison: errors of both networks in each bin, and the generator's distribution. Or why there is none."""
    pair, name = _pair(comparison, ("asr+aho", "asr")), _name(comparison)
    if pair is None:
        return f"{name}: Figure 5 needs the arms random and asr+aho (or asr) with the same seed."
    adversarial, random = (comparison.history(arm, index) for arm, index in pair)
    largest = comparison.config["rotation"]
    measure = MEASURES[comparison.config["measure"]]
    try:
        drawn = draw_training_status(adversarial, random, adaug.Rotate(-largest, largest, 9), measure=measure)
    except ValueError as error:
        return f"{name}: no Figure 5. {error}"
    caption = (
        f"{name}. What the generator of {pair[0][0]} proposes for rotation (top), and the {measure} of training people at each "
        f"rotation: of the network trained on adversarial views (middle) and on random views (bottom). "
        f"{_seed(comparison, pair)}; columns: images that the network had seen."
    )
    return Picture(f"figure5_{number}", caption, drawn)


def figure_6(comparison: Comparison, number: int, _: argparse.Namespace) -> Picture:
    """Figure 6 of a comparison: PCK over thresholds, averaged over seeds."""
    curves = {arm: curve_of(runs) for arm, runs in comparison.runs.items()}
    name, seeds = comparison.metric["name"], max(len(runs) for runs in comparison.runs.values())
    caption = f"{_name(comparison)}. {name} over thresholds, " + (f"means of {seeds} seeds." if seeds > 1 else "one seed.")
    return Picture(f"figure6_{number}", caption, draw_pck_curves(curves, metric=name, data=people_of(comparison)))


def figure_7(comparison: Comparison, number: int, options: argparse.Namespace) -> Picture | str:
    """Figure 7 of a comparison: people with the largest gains, and as many with the largest losses. Or why there is none."""
    pair, name = _pair(comparison, ("asr+aho", "asr", "aho")), _name(comparison)
    if pair is None:
        return f"{name}: Figure 7 needs the arm random and an adversarial one with the same seed."
    if not options.people:
        return f"{name}: Figure 7 was not asked for (--people 0)."
    try:
        people = _test_people(comparison, options)
        predicted = {arm: _predicted(comparison, arm, index, people, options.device) for arm, index in reversed(pair)}
    except (ValueError, OSError) as error:
        return f"{name}: no Figure 7. {error}"
    correct = {arm: _correct(points, people, comparison.metric["threshold"]) for arm, points in predicted.items()}
    gain = correct[pair[0][0]] - correct["random"]
    order = gain.argsort(descending=True, stable=True).tolist()
    few = min(SHOWN, len(people) // 2)
    picks = [*order[:few], *order[len(order) - few :]]
    better, worse, same = (int(which.sum()) for which in (gain > 0, gain < 0, gain == 0))
    caption = (
        f"{name}. Above: {', then '.join(predicted)}; below: the labels. Left half: the people on whom {pair[0][0]} gains most "
        f"over random; right half: on whom it loses most; of the first {len(people)} test people it finds more joints on "
        f"{better}, fewer on {worse}, as many on {same}. Numbers: correct of labelled joints at "
        f"{comparison.metric['name']}@{comparison.metric['threshold']:g}. {_seed(comparison, pair)}."
    )
    title = f"The same people under both networks: {people_of(comparison)}"
    return Picture(f"figure7_{number}", caption, draw_people_under_both(people, predicted, picks, correct, title=title))


def _pair(comparison: Comparison, adversarial: Sequence[str]) -> list[tuple[str, int]] | None:
    """The first adversarial arm that has a seed in common with random: (its name, number of the run), and that of random."""
    seeds = {arm: [run["seed"] for run in runs] for arm, runs in comparison.runs.items()}
    for arm in adversarial:
        for index, seed in enumerate(seeds.get(arm, [])):
            if seed in seeds.get("random", []):
                return [(arm, index), ("random", seeds["random"].index(seed))]
    return None


def _test_people(comparison: Comparison, options: argparse.Namespace) -> People:
    """The first test people, cropped."""
    data, size = comparison.data, comparison.config["size"]
    number = data["test_people"] if data["source"]["number"] is None else data["source"]["number"]
    source = Source(**{**data["source"], "number": min(options.people, number)})
    roots: dict[str, Any] = {"mpii_root": options.mpii, "lsp_root": options.lsp}
    cache = {} if data["kind"] == "drawn" else {"cache_dir": options.cache}
    people, _ = people_to_test(data["kind"], source, size=size, **roots, **cache)
    return people.cropped(size)


def _predicted(comparison: Comparison, arm: str, index: int, people: People, device: str) -> Tensor:
    config, model = load_model(comparison.runs[arm][index]["path"], people.joints, device)
    return predict(model, people, config.size, config.loss)


def _correct(predicted: Tensor, people: People, threshold: float) -> Tensor:
    """How many labelled joints of each person are correct, [N]."""
    distance = (predicted - people.keypoints).norm(dim=2) / people.pck_length[:, None]
    return ((distance <= threshold) & (people.visibility > 0)).sum(1)


def _name(comparison: Comparison) -> str:
    config = comparison.config
    people = people_of(comparison)
    return f"{people[0].upper()}{people[1:]}, {config['block']} hourglass of {config['stacks']} × {config['modules']}"


def _seed(comparison: Comparison, pair: Sequence[tuple[str, int]]) -> str:
    return f"Seed {comparison.runs[pair[0][0]][pair[0][1]]['seed']}"


FIGURES: dict[int, tuple[str, Callable[[Comparison, int, argparse.Namespace], Picture | str]]] = {
    5: ("what the generator asks for", figure_5),
    6: ("over thresholds", figure_6),
    7: ("the same people under both networks", figure_7),
}


def add_options(parser: argparse.ArgumentParser, out: str) -> None:
    """Adds the options of scripts that draw figures."""
    parser.add_argument(
        "runs", nargs="+", type=Path, help="folders with results.json; those with the same settings are put together"
    )
    parser.add_argument("--out", type=Path, default=Path(out), help="folder to write to")
    parser.add_argument("--mpii", type=Path, metavar="DIR", help="folder of MPII, for Figure 7")
    parser.add_argument("--lsp", type=Path, metavar="DIR", help="folder with lsp, for Figure 7")
    parser.add_argument("--people", type=int, default=200, help="Figure 7 chooses among so many test people; 0: no Figure 7")
    parser.add_argument("--cache", type=Path, default=None, help="folder for the crops (None: in ~/.cache)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")


def main(arguments: Sequence[str] | None = None) -> None:
    """Writes one figure for each comparison and prints its caption."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.paper.figures", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("number", type=int, choices=FIGURES)
    add_options(parser, "figures")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    for i, comparison in enumerate(read_comparisons(options.runs), 1):
        drawn = FIGURES[options.number][1](comparison, i, options)
        if isinstance(drawn, Picture):
            print(f"{drawn.write(options.out)}: {drawn.caption}")
        else:
            print(drawn)


if __name__ == "__main__":
    main()

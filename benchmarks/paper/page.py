"""The paper's Tables 1 to 3 and Figures 5 to 7 from finished comparisons: Markdown in the terminal, and one HTML page.

python -m examples.hourglass.report runs/demo [runs/mpii ...] [--out report] [--mpii DIR] [--lsp DIR]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import adaug
from examples.hourglass.config import MEASURES
from examples.hourglass.data import Source, people_to_test
from examples.hourglass.evaluation import predict
from benchmarks.paper.figures import draw_pck_curves, draw_people_under_both, draw_training_status
from benchmarks.paper.page_html import Picture, Section, page
from examples.datasets.people import People
from benchmarks.paper.comparisons import Comparison, curve_of, read_comparisons
from benchmarks.paper.tables import people_of, tables_of
from examples.hourglass.trained import load_network

TITLE = "Adversarial against random augmentation: our runs beside the paper"
SOURCE = (
    "The paper: Peng, Tang, Yang, Feris, Metaxas, “Jointly Optimize Data Augmentation and Network Training: Adversarial Data "
    "Augmentation in Human Pose Estimation”, CVPR 2018. Rows marked “paper” are copied from its tables."
)
TABLES = {1: "which augmentation helps", 2: "eight stacks on MPII", 3: "Leeds Sports Pose"}
SHOWN = 3  # people of Figure 7 whom the adversarial network gains most on, and as many whom it loses most on


def main(arguments: Sequence[str] | None = None) -> Path:
    """Prints and writes the report; returns the path of the page."""
    parser = argparse.ArgumentParser(prog="python -m examples.hourglass.report", description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "runs", nargs="+", type=Path, help="folders with results.json; those of the same settings are put together"
    )
    parser.add_argument("--out", type=Path, default=Path("report"), help="folder of report.html, report.md and the figures")
    parser.add_argument("--mpii", type=Path, metavar="DIR", help="for Figure 7 of runs on MPII")
    parser.add_argument("--lsp", type=Path, metavar="DIR", help="for Figure 7 of runs on LSP")
    parser.add_argument("--people", type=int, default=200, help="first test people among whom Figure 7 looks; 0: no Figure 7")
    parser.add_argument("--cache", type=Path, default=None, help="folder of the crops (None: in ~/.cache)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args(arguments)
    comparisons = read_comparisons(options.runs)
    options.out.mkdir(parents=True, exist_ok=True)
    sections = sections_of(comparisons, options)
    for section in sections:
        for part in section.parts:
            if isinstance(part, Picture):
                (options.out / f"{part.name}.png").write_bytes(part.png())
    text = "\n\n".join([f"# {TITLE}", *(section.markdown() for section in sections)]) + "\n"
    (options.out / "report.md").write_text(text, encoding="utf-8")
    print(text)
    path: Path = options.out / "report.html"
    path.write_text(page(TITLE, sections), encoding="utf-8")
    print(f"Written: {path}", file=sys.stderr)
    return path


def sections_of(comparisons: Sequence[Comparison], options: argparse.Namespace) -> list[Section]:
    """The tables, then the figures of each comparison."""
    sections = [Section(f"Table {number}: {what}", tables_of(number, comparisons)) for number, what in TABLES.items()]
    sections[0] = Section(sections[0].heading, [SOURCE, *sections[0].parts])
    numbers = range(1, len(comparisons) + 1)
    for figure, heading in (
        (figure_5, "Figure 5: what the generator asks for"),
        (figure_6, "Figure 6: over thresholds"),
        (figure_7, "Figure 7: the same people under both networks"),
    ):
        parts = [figure(comparison, number, options) for number, comparison in zip(numbers, comparisons, strict=True)]
        sections.append(Section(heading, parts))
    return sections


def figure_5(comparison: Comparison, number: int, options: argparse.Namespace) -> Picture | str:
    """Where the networks of both runs are weak over the training, and what the generator asks for; or why there is none."""
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
    """PCK over thresholds, the mean over the seeds."""
    curves = {arm: curve_of(runs) for arm, runs in comparison.runs.items()}
    name, seeds = comparison.metric["name"], max(len(runs) for runs in comparison.runs.values())
    caption = f"{_name(comparison)}. {name} over thresholds, " + (f"means of {seeds} seeds." if seeds > 1 else "one seed.")
    return Picture(f"figure6_{number}", caption, draw_pck_curves(curves, metric=name, data=people_of(comparison)))


def figure_7(comparison: Comparison, number: int, options: argparse.Namespace) -> Picture | str:
    """The same people under both networks, or why they are not shown: the largest gains and, as many, the largest losses."""
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
    better, worse, same = (int(found.sum()) for found in (gain > 0, gain < 0, gain == 0))
    caption = (
        f"{name}. Above: {', then '.join(predicted)}; below: the labels. Left half: the people on whom {pair[0][0]} gains most "
        f"over random; right half: on whom it loses most; of the first {len(people)} test people it finds more joints on "
        f"{better}, fewer on {worse}, as many on {same}. Numbers: correct of labelled joints at "
        f"{comparison.metric['name']}@{comparison.metric['threshold']:g}. {_seed(comparison, pair)}."
    )
    title = f"The same people under both networks: {people_of(comparison)}"
    return Picture(f"figure7_{number}", caption, draw_people_under_both(people, predicted, picks, correct, title=title))


def _pair(comparison: Comparison, adversarial: Sequence[str]) -> list[tuple[str, int]] | None:
    """The first adversarial arm that shares a seed with random: (its name, index of the run), and the same of random."""
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
    config, model = load_network(comparison.runs[arm][index]["path"], people.joints, device)
    return predict(model, people, config.loss)


def _correct(predicted: Tensor, people: People, threshold: float) -> Tensor:
    """How many labelled joints of each person are correct, [N]."""
    distance = (predicted - people.keypoints).norm(dim=2) / people.reference[:, None]
    return ((distance <= threshold) & (people.visibility > 0)).sum(1)


def _name(comparison: Comparison) -> str:
    config = comparison.config
    people = people_of(comparison)
    return f"{people[0].upper()}{people[1:]}, {config['block']} hourglass of {config['stacks']} × {config['modules']}"


def _seed(comparison: Comparison, pair: Sequence[tuple[str, int]]) -> str:
    return f"Seed {comparison.runs[pair[0][0]][pair[0][1]]['seed']}"


if __name__ == "__main__":
    main()

"""Draws pictures of results for the pages. Each function takes the numbers of a results file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from adaug import Audit

BLUE, ORANGE, GREEN, GREY = "#0072B2", "#E69F00", "#009E73", "#8a8a8a"  # Okabe and Ito's palette
COLOURS = (GREY, BLUE, "#56B4E9", GREEN, "#CC79A7", ORANGE, "#D55E00", "#7B3294", "#8C510A")


def overhead(networks: Mapping[str, Any], targets: Sequence[float] = ()) -> Figure:
    """Each variant's time over a plain step: a dot for the median, a line for the rounds. A row for each network."""
    names = list(next(iter(networks.values()))["ratio_to_plain"])
    figure = Figure(figsize=(7.2, 1.0 + 0.2 * len(names) * len(networks)), layout="constrained")
    axes = figure.subplots()
    for row, network in enumerate(networks.values()):
        for i, name in enumerate(names):
            y = row + (i - (len(names) - 1) / 2) / (len(names) + 1.5)
            ratio = network["ratio_to_plain"][name]
            axes.plot([ratio["min"], ratio["max"]], [y, y], color=COLOURS[i], lw=1.2, alpha=0.6)
            axes.plot(ratio["median"], y, "o", color=COLOURS[i], ms=5, label=name if row == 0 else None)
    for target in targets:
        axes.axvline(target, color=GREY, lw=0.8, ls=":")
    axes.axvline(1, color="#222222", lw=1)
    labels = [
        f"{network['about']}\n{network['side']} × {network['side']}, batch {network['batch']}" for network in networks.values()
    ]
    axes.set_yticks(range(len(labels)), labels, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("time of a step / time of a plain step")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    figure.legend(loc="outside upper center", ncols=min(4, len(names)), fontsize=8, frameon=False)
    return figure


def scaling(factors: Mapping[str, Mapping[int | str, Mapping[str, float]]]) -> Figure:
    """Milliseconds beyond a plain step for each factor. The band is the range of the rounds."""
    figure = Figure(figsize=(7.2, 2.4), layout="constrained")
    panels = figure.subplots(1, len(factors), sharey=True)
    for axes, (factor, times) in zip(panels, factors.items(), strict=True):
        x = [int(value) for value in times]
        axes.fill_between(
            x, [time["min"] for time in times.values()], [time["max"] for time in times.values()], color=BLUE, alpha=0.15
        )
        axes.plot(x, [time["median"] for time in times.values()], "o-", color=BLUE, ms=3.5)
        axes.set_xscale("log", base=2)
        axes.set_xticks(x, [str(value) for value in x], fontsize=7)
        axes.minorticks_off()
        axes.set_xlabel("cells of a side" if factor == "cells" else factor, fontsize=9)
        axes.set_ylim(bottom=0)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("ms beyond a plain step", fontsize=9)
    return figure


def accuracy(scores: Mapping[str, Mapping[str, Sequence[float]]], names: Sequence[str]) -> Figure:
    """A panel for each score: an arm's seeds as dots, their mean as a bar. scores: arm -> name -> seeds."""
    figure = Figure(figsize=(7.2, 0.9 + 0.28 * len(scores)), layout="constrained")
    panels = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
    for axes, name in zip(panels, names, strict=True):
        for y, of_arm in enumerate(scores.values()):
            values = of_arm[name]
            axes.plot(values, [y] * len(values), "o", color=BLUE, ms=4, alpha=0.6)
            axes.plot([sum(values) / len(values)] * 2, [y - 0.3, y + 0.3], color=ORANGE, lw=2.5)
        if min(min(of_arm[name]) for of_arm in scores.values()) < 0:  # differences
            axes.axvline(0, color="#222222", lw=0.8)
        axes.set_title(name, fontsize=9)
        axes.grid(axis="x", lw=0.4)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(labelsize=8)
        axes.tick_params(axis="y", length=0)
    panels[0].set_yticks(range(len(scores)), list(scores), fontsize=8)
    panels[0].set_ylim(len(scores) - 0.4, -0.6)
    return figure


def over_time(scores: Mapping[str, Mapping[int, Mapping[str, float]]], time: str, names: Sequence[str]) -> Figure:
    """A panel for each score over the time of a run: a dot for each run, a line for each seed. scores: arm -> seed -> name.

    Arms with the same name before the comma ("random, 80 epochs", "random, 140 epochs") are one line.
    """
    lines: dict[str, dict[int, list[Mapping[str, float]]]] = {}
    for arm, of_arm in scores.items():
        for seed, run in of_arm.items():
            lines.setdefault(arm.partition(", ")[0], {}).setdefault(seed, []).append(run)
    every = [run[time] for of_arm in scores.values() for run in of_arm.values()]
    ticks = [2**i for i in range(30) if min(every) * 0.9 <= 2**i <= max(every) * 1.1]
    figure = Figure(figsize=(7.2, 2.9), layout="constrained")
    panels = figure.subplots(1, len(names), squeeze=False)[0]
    for axes, name in zip(panels, names, strict=True):
        for (line, of_seeds), colour in zip(lines.items(), (BLUE, ORANGE, GREEN, *COLOURS), strict=False):
            for i, runs in enumerate(of_seeds.values()):
                runs.sort(key=lambda run: run[time])
                points = [run[time] for run in runs], [run[name] for run in runs]
                axes.plot(*points, "o-", color=colour, ms=3.5, lw=1, alpha=0.8, label=line if i == 0 else None)
        axes.set_xscale("log", base=2)
        axes.set_xticks(ticks, map(str, ticks))
        axes.minorticks_off()
        axes.set_title(name, fontsize=9)
        axes.set_xlabel(time, fontsize=8)
        axes.grid(lw=0.4)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=4, fontsize=8, frameon=False)
    return figure


def frontier(scores: Mapping[str, Mapping[str, Sequence[float]]], x: str, y: str) -> Figure:
    """One score over another: means of arms with their standard deviation over the seeds. scores: arm -> name -> seeds.

    Arms with the same name before the comma ("uniform, share 1/3", "uniform, share 1/2") are joined by a line.
    """
    lines: dict[str, list[tuple[float, ...]]] = {}
    for arm, of_arm in scores.items():
        spreads = [float(np.std(of_arm[name], ddof=1)) if len(of_arm[name]) > 1 else 0.0 for name in (x, y)]
        point = (float(np.mean(of_arm[x])), float(np.mean(of_arm[y])), *spreads)
        lines.setdefault(arm.partition(", ")[0], []).append(point)
    figure = Figure(figsize=(7.2, 4.2), layout="constrained")
    axes = figure.subplots()
    colours = (BLUE, ORANGE, GREEN, *(colour for colour in COLOURS if colour not in (BLUE, ORANGE, GREEN)))
    for i, (line, points) in enumerate(lines.items()):
        at, value, left, up = zip(*sorted(points), strict=True)
        style: dict[str, Any] = {"color": colours[i % len(colours)], "marker": "osD^v"[i // len(colours) % 5]}
        axes.errorbar(at, value, up, left, **style, ms=4.5, lw=1.2, elinewidth=0.7, label=line)
    axes.set_xlabel(x, fontsize=9)
    axes.set_ylabel(y, fontsize=9)
    axes.grid(lw=0.4)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=5, fontsize=8, frameon=False)
    return figure


def audited(points: Audit, face: Audit, repaired: Audit, loop: Sequence[float]) -> Figure:
    """An audit in per cent: each operation alone with its interval, hidden cells, and rotation with scale."""
    curves = [name for name in points.operations if isinstance(points.curve(name).axis.layout, int)]
    figure = Figure(figsize=(9, 4.6), layout="constrained")
    panels = figure.subplots(2, 4)
    lines = ((points, BLUE, "points found"), (face, ORANGE, "taken for a face"), (repaired, GREEN, "points found, repaired"))
    for axes, name in zip(panels.flat, curves, strict=False):
        for audit, colour, label in lines:
            if name not in audit.operations:
                continue
            curve = audit.curve(name)
            x, low, high = curve.axis.centres, [100 * mean.low for mean in curve.mean], [100 * mean.high for mean in curve.mean]
            axes.fill_between(x, low, high, color=colour, alpha=0.15, lw=0)
            axes.plot(x, [100 * mean for mean in curve.mean], "o-", color=colour, ms=2.5, lw=1, label=label)
        x = points.curve(name).axis.centres
        if name == "rotate":
            axes.plot(x, [100 * hit for hit in loop], "x", color="#222222", ms=5, lw=0, label="points found, independent loop")
        if min(x) > 0:  # factors
            axes.set_xscale("log")
            axes.set_xticks([round(x[0], 2), 1, round(x[-1], 2)], [f"{x[0]:.2g}", "1", f"{x[-1]:.2g}"])
            axes.minorticks_off()
        axes.set_title(name, fontsize=9)
        axes.set_ylim(0, 102)
        axes.grid(lw=0.4)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=7)
    cells, (turns, sizes) = points.curve("occlude"), points.grid("rotate", "scale").axes
    hidden = [[float(mean) for mean in cells.mean[row * 4 : row * 4 + 4]] for row in range(4)]
    _cells(panels.flat[-2], hidden, "points found, one cell hidden")
    _cells(panels.flat[-1], points.grid("rotate", "scale").mean, "points found, turn and size")
    panels.flat[-2].set(xticks=[], yticks=[])
    panels.flat[-1].set_yticks(range(len(turns.labels)), turns.labels)
    panels.flat[-1].set_xticks(range(len(sizes.labels)), sizes.labels, rotation=90)
    figure.legend(*panels.flat[0].get_legend_handles_labels(), loc="outside upper center", ncols=4, fontsize=8, frameon=False)
    return figure


def _cells(axes: Axes, values: Sequence[Sequence[float]] | np.ndarray[Any, Any], title: str) -> None:
    axes.imshow(values, vmin=0, vmax=1, cmap="viridis", aspect="auto")
    for row, of in enumerate(values):
        for column, value in enumerate(of):
            colour = "white" if value < 0.6 else "black"
            axes.text(column, row, f"{100 * value:.0f}", ha="center", va="center", fontsize=6, color=colour)
    axes.set_title(title, fontsize=9)
    axes.tick_params(labelsize=7, length=0)


mpl.rcParams.update({"svg.hashsalt": "adaug", "font.family": "DejaVu Sans"})

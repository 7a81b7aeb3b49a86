"""Draws the figures of the documentation: python docs/figures.py. The same input gives the same files."""

from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path

import adaug
import matplotlib as mpl
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle
from matplotlib.transforms import Affine2D

import hooks

sys.path.insert(0, str(hooks.ROOT))

from examples.datasets.drawn_people import draw_people

OUT = Path(__file__).parent / "figures"
INK, FAINT, RANDOM, ASR, AHO = (
    "#222222",
    "#8a8a8a",
    "#c9c9c9",
    "#56B4E9",
    "#E69F00",
)  # Okabe and Ito's palette


def box(
    axes: Axes,
    x: float,
    y: float,
    w: float,
    h: float,
    text: str,
    colour: str = "#f3f3f3",
    size: float = 9,
) -> None:
    """A rounded box with text, its lower left corner at (x, y)."""
    axes.add_patch(
        FancyBboxPatch(
            (x, y),
            w,
            h,
            boxstyle="round,pad=0,rounding_size=.12",
            fc=colour,
            ec=INK,
            lw=0.9,
        )
    )
    axes.text(
        x + w / 2,
        y + h / 2,
        text,
        ha="center",
        va="center",
        size=size,
        color=INK,
        linespacing=1.25,
    )


def arrow(
    axes: Axes,
    a: tuple[float, float],
    b: tuple[float, float],
    bend: float = 0.0,
    colour: str = INK,
) -> None:
    """An arrow from a to b."""
    style = f"arc3,rad={bend}"
    axes.add_patch(
        FancyArrowPatch(
            a,
            b,
            connectionstyle=style,
            arrowstyle="-|>",
            mutation_scale=10,
            lw=1.1,
            color=colour,
        )
    )


def number(axes: Axes, y: float, n: int, word: str) -> None:
    """The name of a step at the left edge."""
    axes.text(0.05, y, f"{n}", size=13, weight="bold", color=INK, va="center")
    axes.text(0.42, y, word, size=9.5, weight="bold", color=INK, va="center")


def person(axes: Axes, x: float, y: float, degrees: float, colour: str) -> None:
    """A view: a frame with a stick figure, turned."""
    axes.add_patch(
        Rectangle((x - 0.5, y - 0.5), 1, 1, fc="white", ec=colour, lw=1.8)
    )
    turn = Affine2D().rotate_deg(degrees).translate(x, y) + axes.transData
    for line in (
        [(0, 0.12), (0, -0.1)],
        [(-0.2, 0.06), (0.2, 0.06)],
        [(0, -0.1), (-0.13, -0.36)],
        [(0, -0.1), (0.13, -0.36)],
    ):
        axes.plot(
            *zip(*line, strict=True),
            color=INK,
            lw=1.5,
            transform=turn,
            solid_capstyle="round",
        )
    axes.plot([0], [0.24], "o", ms=5.5, color=INK, transform=turn)


def step() -> Figure:
    """One mini-batch through `step`, for a row of the ASR branch."""
    figure = Figure(figsize=(4.6, 7.0))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, 9.2), ylim=(0, 14))
    axes.axis("off")

    number(axes, 13.3, 1, "split")
    for i, colour in enumerate(
        [ASR, RANDOM, AHO, AHO, RANDOM, ASR, RANDOM, ASR, AHO]
    ):
        axes.add_patch(
            Rectangle(
                (2.3 + 0.72 * i, 13.0), 0.6, 0.6, fc=colour, ec=INK, lw=0.7
            )
        )
    for x, colour, name in (
        (3.3, RANDOM, "random"),
        (5.3, ASR, "ASR"),
        (6.7, AHO, "AHO"),
    ):
        axes.add_patch(
            Rectangle((x, 12.42), 0.28, 0.28, fc=colour, ec=INK, lw=0.7)
        )
        axes.text(x + 0.42, 12.56, name, size=8.5, va="center", color=INK)

    number(axes, 11.2, 2, "look")
    arrow(axes, (2.6, 12.95), (2.6, 11.8))
    box(axes, 2.3, 10.6, 2.6, 1.15, "your network\nno gradient")
    box(axes, 6.2, 10.6, 2.5, 1.15, "generator", "#dcefe6")
    arrow(axes, (4.95, 11.18), (6.15, 11.18))
    axes.text(5.55, 11.45, "features", size=7.5, ha="center", color=INK)

    number(axes, 9.0, 3, "draw")
    heights = np.array([0.55, 0.4, 0.28, 0.2, 0.17, 0.2, 0.33, 0.6, 0.82])
    for i, height in enumerate(heights):
        axes.add_patch(
            Rectangle(
                (6.3 + 0.27 * i, 8.9),
                0.21,
                height,
                fc="#009E73" if i == 7 else "#b9ddcf",
                ec="none",
            )
        )
    axes.plot([6.25, 8.75], [8.9, 8.9], color=INK, lw=0.8)
    axes.text(7.5, 8.62, "rotation bins", size=7.5, ha="center", color=INK)
    arrow(axes, (7.5, 10.55), (7.5, 9.85))
    person(axes, 5.0, 9.0, 32, ASR)
    arrow(axes, (6.15, 9.15), (5.6, 9.1))
    person(axes, 3.0, 9.0, -9, FAINT)
    axes.text(5.0, 8.2, "adversarial", size=8, ha="center", color=INK)
    axes.text(3.0, 8.2, "reference", size=8, ha="center", color=INK)

    number(axes, 6.7, 4, "score")
    box(axes, 2.3, 6.1, 3.5, 1.15, "your network, twice\neval, no gradient")
    arrow(axes, (3.0, 8.0), (3.0, 7.3))
    arrow(axes, (5.0, 8.0), (5.0, 7.3))
    arrow(axes, (5.85, 6.68), (6.55, 6.68))
    axes.text(
        7.65,
        6.68,
        "which view\nis harder?",
        size=9,
        ha="center",
        va="center",
        color=INK,
    )

    number(axes, 4.5, 5, "reward")
    box(
        axes,
        5.0,
        3.95,
        3.8,
        1.15,
        "move the chosen bin\nup or down, cap 2/k",
        "#dcefe6",
    )
    arrow(axes, (7.65, 6.15), (7.3, 5.15))
    axes.plot([8.82, 9.05, 9.05], [4.5, 4.5, 11.18], color="#009E73", lw=1.1)
    arrow(axes, (9.05, 11.18), (8.8, 11.18), colour="#009E73")
    axes.text(8.92, 7.7, "KL", size=8, ha="right", color="#00734f")

    number(axes, 1.9, 6, "train")
    box(axes, 2.3, 1.3, 3.5, 1.15, "your network\nas you wrapped it")
    axes.plot([2.0, 2.0], [12.2, 1.9], color=FAINT, lw=1.0, ls=(0, (3, 2)))
    arrow(axes, (2.0, 1.88), (2.27, 1.88), colour=FAINT)
    axes.text(
        2.15,
        3.0,
        "all rows, each with\nits own view",
        size=7.5,
        va="center",
        color=INK,
    )
    arrow(axes, (5.85, 1.88), (6.6, 1.88))
    axes.text(
        6.7,
        1.88,
        "loss, losses,\nbatch, metrics",
        size=9,
        va="center",
        color=INK,
    )
    axes.text(
        4.6,
        0.45,
        "then your own backward() and optimizer.step()",
        size=8.5,
        ha="center",
        color=INK,
        style="italic",
    )
    return figure


def rewards() -> Figure:
    """What RewardPenalty makes of a prediction."""
    rotate = adaug.Rotate(-30, 30, 9)
    mild = torch.tensor([0.12, 0.09, 0.08, 0.07, 0.08, 0.10, 0.14, 0.17, 0.15])
    sharp = torch.tensor([0.04, 0.04, 0.04, 0.04, 0.05, 0.08, 0.17, 0.34, 0.20])
    update = adaug.RewardPenalty()
    figure = Figure(figsize=(4.6, 6.2), layout="constrained")
    panels = (
        ("The chosen bin was harder: reward", mild, True),
        ("It was not harder: penalty", mild, False),
        ("Harder, but above the cap of 2/k", sharp, True),
    )
    places = np.arange(9)
    for axes, (title, before, harder) in zip(
        figure.subplots(3, 1, sharex=True, sharey=True), panels, strict=True
    ):
        after = update(
            before[None], torch.tensor([[7]]), torch.tensor([harder])
        )[0]
        axes.bar(places - 0.2, before, 0.38, color=RANDOM, label="predicted")
        colours = ["#009E73" if i == 7 else "#8fcdb8" for i in places]
        axes.bar(places + 0.2, after, 0.38, color=colours, label="target")
        axes.axhline(2 / 9, color=AHO, lw=1.2, ls="--")
        axes.text(-0.55, 2 / 9 + 0.008, "2/k", size=8, color="#9a6a00")
        axes.set_title(title, size=9.5, loc="left", color=INK)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
        axes.set_ylabel("probability", size=8)
    axes.set_xticks(
        places,
        [f"{centre:+.0f}°".replace("+0", "0") for centre in rotate.centres()],
    )
    axes.set_xlabel("rotation bin; the chosen one is dark", size=8.5)
    figure.axes[0].legend(
        handles=[mpl.patches.Patch(color=RANDOM, label="predicted"), mpl.patches.Patch(color="#8fcdb8", label="target")],
        frameon=False, fontsize=8, loc="upper left", ncols=2,
    )  # fmt: skip
    return figure


def folders() -> Figure:
    """The folders and modules of the library: each imports only from rows below its own. From pyproject.toml."""
    rows = hooks.layers()
    figure = Figure(figsize=(7.6, 0.62 * len(rows) + 0.1))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, 15.2), ylim=(0, 1.24 * len(rows) + 0.2))
    axes.axis("off")
    for level, names in enumerate(reversed(rows)):
        inside = {name: "  ".join(hooks.rooms_of(name)) for name in names}
        letters = [
            max(len(name), len(text)) + 6 for name, text in inside.items()
        ]
        ends = 15.0 * np.cumsum([0, *letters]) / sum(letters)
        for (name, text), (left, right) in zip(
            inside.items(), pairwise(ends), strict=True
        ):
            y, width = 0.2 + 1.24 * level, right - left - 0.1
            colour = "#f3f3f3" if name.startswith("_") else "#dcefe6"
            label = f"{name}\n{text}" if text else name
            box(axes, 0.1 + left, y, width, 1.04, label, colour, 7)
    return figure


def samples() -> Figure:
    """A preview of drawn people."""
    people = draw_people(8, size=64, canvas=96, seed=1)
    visible = people.visibility.clone()
    visible[:, 10] = 0  # the right wrist
    batch = {
        "image": people.images,
        "keypoints": people.keypoints,
        "visibility": visible,
    }
    policy = adaug.policies.robust(flip_pairs=people.joints.flip_pairs)
    return adaug.plots.samples(
        batch, augment=policy, **people.joints.as_drawn()
    )


def main() -> None:
    """Writes docs/figures/*.svg, and *.png of images."""
    mpl.rcParams.update({"svg.hashsalt": "adaug", "font.family": "DejaVu Sans"})
    OUT.mkdir(exist_ok=True)
    for name, figure in (
        ("step", step()),
        ("rewards", rewards()),
        ("folders", folders()),
    ):
        figure.savefig(
            OUT / f"{name}.svg", metadata={"Date": None}, facecolor="white"
        )
    samples().savefig(OUT / "samples.png", metadata={"Software": None}, dpi=110)


if __name__ == "__main__":
    main()

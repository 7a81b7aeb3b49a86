"""The paper's Figures 5 to 7, from what runs recorded and predict."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import torch
from matplotlib.figure import Figure
from torch import Tensor

from adaug import Binned, plots
from examples.hourglass.evaluation import Scores
from examples.datasets.people import People
from examples.hourglass.progress import Epoch

ADVERSARIAL, RANDOM, GENERATOR = "#D55E00", "#0072B2", "#009E73"  # Okabe and Ito
COLOURS = {"random": RANDOM, "asr+aho": ADVERSARIAL, "asr": "#E69F00", "aho": "#CC79A7", "uniform": "#56B4E9"}


def draw_training_status(
    adversarial: Sequence[Epoch],
    random: Sequence[Epoch],
    operation: Binned,
    *,
    branch: str = "asr",
    measure: str = "mean error",
    moments: int = 5,
) -> Figure:
    """Figure 5: the distribution of a branch's generator over an operation's bins, and the error that the network of the
    adversarial and that of the random run make in each bin, at some moments of the training."""
    head = f"{branch}.{operation.name}"
    proposals: dict[int, list[float]] = {}  # images seen by the network -> distribution; stage 2 adds no images
    for epoch in adversarial:
        if head in epoch.distribution:
            proposals[epoch.images] = epoch.distribution[head]
    errors = [{e.images: e.by_bin[operation.name] for e in run if operation.name in e.by_bin} for run in (adversarial, random)]
    common = sorted(proposals.keys() & errors[0].keys() & errors[1].keys())
    if not common:
        raise ValueError(
            "Two runs should have looked at their bins at the same moments of joint training. Found none in common; train both "
            "with the same `bins_every`, above 0."
        )
    picks = [common[i] for i in sorted({round(j * (len(common) - 1) / max(1, moments - 1)) for j in range(moments)})]
    figure = Figure(figsize=(1.0 + 1.9 * len(picks), 5.6), dpi=150, layout="constrained")
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
    name = "rotation" if degrees else operation.name
    figure.suptitle(f"Where the network is weak, and what the generator asks for: {name}", fontsize=10)
    return figure


def draw_pck_curves(
    curves: Mapping[str, Mapping[float, Scores]],
    *,
    metric: str = "PCKh",
    data: str = "",
    groups: Sequence[str] = ("Mean", "Wri.", "Knee", "Ank."),
) -> Figure:
    """Figure 6: PCK over thresholds for each arm, of all joints and of those that are hard to find."""
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
    """Figure 7: some people, cropped, with what each network predicts [N, J, 2], one row each, and the labels in the last.

    correct: how many joints of each person each network found, [N].
    """
    few, index, joints = people.subset(picks), torch.as_tensor(picks), people.joints
    everywhere = torch.ones_like(few.visibility)
    rows = [(points[index], everywhere) for points in predicted.values()] + [(few.keypoints, few.visibility)]
    labelled = few.visibility.sum(1).int().tolist()
    titles = [f"{arm}: {n}/{of}" for arm in predicted for n, of in zip(correct[arm][index].tolist(), labelled, strict=True)]
    return plots.draw_views(
        {
            "image": few.images.float().div(255).repeat(len(rows), 1, 1, 1),
            "keypoints": torch.cat([points for points, _ in rows]),
            "visibility": torch.cat([seen for _, seen in rows]),
        },
        titles=[*titles, *["labels"] * len(few)],
        limbs=joints.limbs,
        left=[i for i, name in enumerate(joints.names) if name.startswith("left")],
        right=[i for i, name in enumerate(joints.names) if name.startswith("right")],
        columns=len(few),
        most=len(rows) * len(few),
        title=title,
    )

"""The hourglass example as a task: people of LSP. Its arms are those of the example, with changes.

Runs leave the example's own files (checkpoints, audits) in their folder, and continue from them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.paper.ablations import Ablation
from examples import hourglass_lsp
from examples.hourglass.tables import each_view, statistics

UNCHANGED = Ablation()


@dataclass(frozen=True)
class ExampleArm:
    """An arm of the example.

    Attributes:
        name: Its name in the tables.
        kind: Its name in the example.
        changes: What its augmenter does otherwise.
        options: More options of the example.
    """

    name: str
    kind: str
    changes: Ablation = UNCHANGED
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class Example:
    """The example's data, and the options that all arms have."""

    data: Path
    options: tuple[str, ...] = ()


def people(data: Path, *, train: int = 300, width: int = 64, epochs: Sequence[int] = (20, 1, 60)) -> Example:
    """People of LSP at 64 x 64 pixels, in the three stages of the paper."""
    words = f"--size 64 --people {train} --stride 4 --depth 2 --width {width} --batch-size 16 --lr 3e-3 --channels-last"
    words += " --random uniform --generator-width 64 --generator-size 16"
    stages = " ".join(map(str, epochs))
    return Example(data, tuple(f"{words} --evaluate-every {epochs[0] + epochs[2]} --bins-every 0 --epochs {stages}".split()))


def run_people(task: Example, arm: ExampleArm, seed: int, folder: Path) -> dict[str, Any]:
    """Runs examples/hourglass_lsp.py. Scores are PCK@0.2 in per cent; larger is better."""
    words = [*task.options, "--arms", arm.kind, *arm.options, "--seeds", str(seed), "--out", str(folder / f"seed{seed}")]
    more: dict[str, Any] = {}
    if arm.changes != UNCHANGED:
        more = {"variant": str(arm.changes), "make_augmenter": arm.changes.make_augmenter}
    results = hourglass_lsp.main(["--data", str(task.data), *words], **more)
    ((run,),) = results["arms"].values()
    flipped = run["pck"][str(results["metric"]["threshold"])]["Mean"]
    scores = {"PCK, flip test": flipped, "training gap": run["pck_train"]["Mean"] - flipped}
    final = run["history"][-1]["distribution"]
    return {
        "scores": {**statistics(run["audit"]), **scores, **each_view(run["audit"])},
        "peaks": {name: max(mean) * len(mean) for name, mean in final.items()},
        "cpu_seconds": run["cpu_seconds"],
        "images": run["images"],
        "about": f"PCK@0.2 in per cent, {results['people']['test']} people of the {results['data']['test']}, "
        f"{results['people']['train']} people to train on ({results['data']['train']}); network of "
        f"{results['parameters']:,} parameters. Audited without flip test; the training gap is how much higher people score, "
        "with it, whom the network has seen. CPU s: a whole run, with its tests",
    }

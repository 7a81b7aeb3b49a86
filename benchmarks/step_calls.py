"""How much of adaug does a step run through? Counts the files and functions that the tenth step calls.

    python benchmarks/step_calls.py

A step of 12 rows with keypoints on a small network of two convolutions, by `policies.robust()` and by the paper.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from torch import Tensor, nn

import adaug
from adaug.learners import Paper
from benchmarks.result_files import save

FOLDER = Path(adaug.__file__).parent
PAIRS = [(0, 1)]
POLICIES: dict[str, Callable[[], adaug.Policy]] = {
    "robust": lambda: adaug.policies.robust(PAIRS),
    "paper": lambda: adaug.policies.paper(PAIRS, Paper(features=["0"])),
}


def called(function: Callable[[], Any]) -> set[tuple[str, str]]:
    """The functions of adaug that a call runs through, as pairs (file, name)."""
    found: set[tuple[str, str]] = set()

    def watch(frame: Any, event: str, _: Any) -> None:
        code = frame.f_code
        if event == "call" and not code.co_name.startswith("<") and FOLDER in Path(code.co_filename).parents:
            found.add((code.co_filename, code.co_qualname if sys.version_info >= (3, 11) else code.co_name))

    sys.setprofile(watch)
    try:
        function()
    finally:
        sys.setprofile(None)
    return found


def tenth_step(policy: adaug.Policy) -> set[tuple[str, str]]:
    """What the tenth step of a policy calls."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 3, stride=2, padding=1))
    augmenter = adaug.AdversarialAugmenter(policy, seed=0)

    def loss_fn(output: Tensor, batch: Any) -> Tensor:
        target = adaug.keypoints.render_heatmaps(batch["keypoints"], 8, stride=4, visibility=batch["visibility"])
        return (output - target).square().mean((1, 2, 3))

    def step() -> None:
        batch = {"image": torch.rand(12, 3, 32, 32), "keypoints": 32 * torch.rand(12, 4, 2), "visibility": torch.ones(12, 4)}
        augmenter.step(model, batch, loss_fn).loss.backward()  # type: ignore[no-untyped-call, unused-ignore]

    for _ in range(9):
        step()
    return called(step)


def main() -> None:
    lines = ["| policy | files | functions |", "|---|--:|--:|"]
    counted = {}
    for name, policy in POLICIES.items():
        found = tenth_step(policy())
        files = sorted({Path(file).relative_to(FOLDER).as_posix() for file, _ in found})
        counted[name] = {"files": files, "functions": sorted(f"{Path(file).stem}.{function}" for file, function in found)}
        lines.append(f"| {name} | {len(files)} | {len(found)} |")
        print(f"{name}: {len(files)} files, {len(found)} functions")
    save("step_calls", counted, "What the tenth step of 12 rows calls of adaug.\n\n" + "\n".join(lines))


if __name__ == "__main__":
    main()

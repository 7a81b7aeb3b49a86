"""One run of a small task: trains an arm from the weights of a seed, and audits it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch

import adaug
from benchmarks.compare.arms import Arm
from benchmarks.compare.tasks import Task
from examples.hourglass.tables import VIEWS, each_view, said, statistics

TOLD = ("distribution", "difficulty")  # what is kept of the metrics, epoch by epoch


def run(task: Task, arm: Arm, seed: int, folder: Path | None = None) -> dict[str, Any]:
    """Trains and audits. Runs of one seed start from the same weights and see the same images in the same order."""
    started = time.process_time()
    epochs, size, lr = arm.epochs or task.epochs, arm.batch_size or task.batch_size, arm.lr or task.lr
    steps = epochs * sum(1 for _ in task.batches(size, seed, 0))
    torch.manual_seed(seed)
    model = task.network()
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=lr, total_steps=steps)
    trainer = arm.trainer(arm, task, seed, steps)
    learns = any(branch.learned for branch in trainer.augmenter.policy.branches)
    history: list[dict[str, list[float]]] = []  # of every epoch's last step: the mean distribution of each operation
    for epoch in range(epochs):
        for batch in trainer.batches(epoch):
            loss = trainer.step(model, batch)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call, unused-ignore]
            optimizer.step()
            schedule.step()
        metrics = trainer.augmenter.metrics if learns else {}
        history.append({name: value.tolist() for name, value in metrics.items() if name.partition("/")[0] in TOLD})
    trained = time.process_time()
    audit = adaug.audit(
        model,
        task.test,
        task.score,
        VIEWS,
        targets=task.targets,
        output_size=task.size,
        num_draws=0,
        num_pictures=0,
        progress=False,
    )
    kept = said(audit)
    last: dict[str, list[float]] = next((one for one in reversed(history) if one), {})
    peaks = {name: max(mean) * len(mean) for name, mean in last.items() if name.startswith("distribution/")}
    return {
        "scores": {**statistics(kept), **each_view(kept)},
        "cpu_seconds": trained - started,
        "cpu_seconds_with_audit": time.process_time() - started,
        "steps": steps,
        "history": history,
        "peaks": {name.partition("/")[2]: peak for name, peak in peaks.items()},
        "about": f"{task.about}. CPU s: of training, without the audit",
    }

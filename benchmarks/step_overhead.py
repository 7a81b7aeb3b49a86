"""What does `augmenter.step` cost beside a plain step? Ratios to a plain step, measured in turn in one run.

    python benchmarks/step_overhead.py            # the 1-stack, 256-channel hourglass at 256 x 256, and a small one
    python benchmarks/step_overhead.py --networks small --rounds 20

A round runs every variant once, in an order that rotates, and gives one ratio each, so that a drift of the machine's
speed falls on all alike. Memory is the peak of a fresh process above what it held before its first step.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import adaug
from adaug.adversary import Adversary, draw
from adaug.augmenter import AdversarialAugmenter
from adaug.batch import Batch, parse
from adaug.layers import layer_names
from adaug.passes import Bound
from adaug.sampling import Stream
from benchmarks.report import save, spread
from examples.hourglass.losses import heatmap_mse
from examples.hourglass.model import StackedHourglass
from examples.hourglass.people import MPII

Rows = dict[str, Tensor]
Step = Callable[[], None]
FEATURES = {"features": ["hg.0.skip*", "hg.0.neck"], "occlude": ["hg.*.skip*", "hg.*.neck"]}
VARIANTS = ("plain", "default", "every 2", "every 4", "separate passes")

NETWORKS: dict[str, tuple[dict[str, Any], int, int]] = {  # network arguments, image side, batch size
    "256": ({"stacks": 1, "modules": 1, "width": 256}, 256, 12),
    "small": ({"stacks": 1, "modules": 1, "width": 64, "depth": 3, "stride": 2}, 64, 48),
}


def build(network: str, variant: str, device: str) -> Step:
    """One training step of a variant as a function without arguments."""
    arguments, side, size = NETWORKS[network]
    torch.manual_seed(0)
    model = StackedHourglass(len(MPII), **arguments).to(device)
    optimizer = torch.optim.RMSprop(model.parameters(), lr=2.5e-4)
    stride = arguments.get("stride", 4)
    batch = {
        "image": torch.rand(size, 3, side, side, device=device),
        "keypoints": torch.rand(size, len(MPII), 2, device=device) * side,
        "visibility": torch.ones(size, len(MPII), device=device),
    }

    def loss_fn(output: list[Tensor], rows: Rows) -> Tensor:
        maps = adaug.keypoints.render_heatmaps(rows["keypoints"], side // stride, stride=stride)
        return heatmap_mse(output, maps, rows["visibility"])

    def learn(loss: Tensor) -> None:
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    policy = adaug.policies.paper(MPII.flip_pairs)
    every = int(variant.split()[-1]) if variant.startswith("every") else 1
    augmenter = AdversarialAugmenter(policy, **FEATURES, update_every=every, seed=0)  # type: ignore[arg-type]
    if variant == "plain":  # with the random augmentation of the paper, as it would be done without us

        def plain() -> None:
            rows = augmenter.random(batch)
            learn(loss_fn(model(rows["image"]), rows).mean())

        return plain
    if variant != "separate passes":
        return lambda: learn(augmenter.step(model, batch, loss_fn).loss)
    return separate_passes(augmenter, model, batch, loss_fn, learn)


def separate_passes(
    augmenter: AdversarialAugmenter, model: nn.Module, batch: Rows, loss_fn: Any, learn: Callable[[Tensor], None]
) -> Step:
    """Algorithms 1 and 2 line by line: every share by itself, whole forward passes, D trained on the scored pass."""
    augmenter.bind(model, batch)
    bound, adversaries = augmenter._bound, augmenter._adversaries
    assert bound is not None
    stream = Stream(0, 9, device=bound.device)
    bridges: Rows = {}
    for name, layer in layer_names(model).items():
        if name in bound.taps.features:
            layer.register_forward_hook(lambda module, args, output, name=name: bridges.update({name: output}))

    def step() -> None:
        rows = parse(batch, None)
        side = rows.size
        parts = rows.image.new_zeros(len(rows), dtype=torch.long).copy_(bound.policy.split(len(rows), 0.0, stream))
        losses = []
        for number in range(len(bound.policy.branches) + 1):
            share = rows.rows(torch.nonzero(parts == number).flatten())
            n, settings = len(share), bound.policy.draw_reference(len(share), stream)
            if number == 0:
                seen = share.seen(bound.policy.view(settings, n, side, side, device=bound.device), side)
                losses.append(loss_fn(model(seen.image), seen.user()))
                continue
            branch = bound.policy.branches[number - 1]
            adversary = adversaries[branch.name]
            with torch.no_grad():
                model(share.image)  # line 1, to the end
            log_probs = adversary.predict([bridges[name] for name in bound.taps.features])  # line 2
            drawn = draw(branch, log_probs, stream)  # line 3
            views = [
                bound.policy.view(settings | own, n, side, side, own=branch, device=bound.device)
                for own in (drawn.adversarial, drawn.reference)
            ]
            hard, usual = (share.seen(view, side) for view in views)
            with bound.taps.masked(views[0].feature_masks):
                losses.append(loss_fn(model(hard.image), hard.user()))  # line 4
            with torch.no_grad(), bound.taps.masked(views[1].feature_masks):
                reference = loss_fn(model(usual.image), usual.user())  # lines 5, 6
            harder = losses[-1].detach() > reference
            targets = {
                head: (augmenter.update(value.detach().exp(), drawn.chosen[head], harder), value)
                for head, value in log_probs.items()
            }
            adversary.learn(targets, torch.ones_like(harder))  # line 7
        learn(torch.cat(losses).mean())  # line 8

    return step


@contextmanager
def clocks(parts: dict[str, float]) -> Iterator[None]:
    """Adds up the seconds spent in look, score, generator and warp."""

    def timed(owner: type, method: str, part: str) -> Any:
        original = getattr(owner, method)

        def wrapper(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            try:
                return original(*args, **kwargs)
            finally:
                parts[part] += time.perf_counter() - start

        return mock.patch.object(owner, method, wrapper)

    with (
        timed(Bound, "look", "look"),
        timed(Bound, "score", "score"),
        timed(Adversary, "predict", "generator"),
        timed(Adversary, "learn", "generator"),
        timed(Batch, "seen", "warp"),
    ):
        yield


def synchronize(device: str) -> None:
    """Waits for a GPU to finish."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def measure(network: str, rounds: int, device: str) -> dict[str, Any]:
    """Ratios of every variant to the plain step, and where the default step spends its time."""
    steps = {variant: build(network, variant, device) for variant in VARIANTS}
    lengths = {variant: int(variant.split()[-1]) if variant.startswith("every") else 1 for variant in VARIANTS}
    for step in steps.values():
        step()
    seconds: dict[str, list[float]] = defaultdict(list)
    for i in range(rounds):
        for variant in VARIANTS[i % len(VARIANTS) :] + VARIANTS[: i % len(VARIANTS)]:
            synchronize(device)
            start = time.perf_counter()
            for _ in range(lengths[variant]):  # a whole cycle of update_every
                steps[variant]()
            synchronize(device)
            seconds[variant].append((time.perf_counter() - start) / lengths[variant])
        print(f"  round {i + 1}/{rounds}: " + ", ".join(f"{v} {seconds[v][-1]:.2f} s" for v in VARIANTS), flush=True)
    ratios = {v: spread([a / b for a, b in zip(seconds[v], seconds["plain"], strict=True)]) for v in VARIANTS[1:]}
    parts: dict[str, float] = defaultdict(float)
    with clocks(parts):
        synchronize(device)
        start = time.perf_counter()
        for _ in range(3):
            steps["default"]()
        total = time.perf_counter() - start
    parts["train"] = total - sum(parts.values())
    return {
        "plain_seconds": spread(seconds["plain"]),
        "ratio_to_plain": ratios,
        "share_of_default": {part: value / total for part, value in parts.items()} if device == "cpu" else "not measured",
    }


def memory(network: str, variant: str) -> float:
    """Peak MiB of two steps above what the process held before, in a fresh process."""
    command = [sys.executable, __file__, "--probe-memory", network, variant, "--batch", str(NETWORKS[network][2])]
    return float(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)["mib"])


def peak_kib() -> int:
    """The most memory that this process has held. (getrusage would start from its parent's.)"""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def probe_memory(network: str, variant: str) -> None:
    """The child of `memory`."""
    step = build(network, variant, "cpu")
    before = peak_kib()
    for _ in range(2):
        step()
    print(json.dumps({"mib": (peak_kib() - before) / 1024}))


def table(results: dict[str, Any]) -> str:
    """What was found, as Markdown."""
    names = {name: f"{found['side']} × {found['side']}, batch {found['batch']}" for name, found in results.items()}
    lines = ["| time of a step / plain step | " + " | ".join(names.values()) + " |", "|---|" + "---|" * len(names)]
    for variant in VARIANTS[1:]:
        cells = [found["ratio_to_plain"][variant] for found in results.values()]
        lines.append(f"| {variant} | " + " | ".join(f"{c['median']:.2f} ({c['min']:.2f}–{c['max']:.2f})" for c in cells) + " |")
    for name, found in results.items():
        if isinstance(found["share_of_default"], dict):
            shares = ", ".join(f"{part} {100 * share:.0f} %" for part, share in found["share_of_default"].items())
            lines += ["", f"Where the default step spends its time at {names[name]}: {shares}."]
        if "peak_mib" in found and found["peak_mib"]["plain"] > 50:  # below that the interpreter's own memory hides it
            peak = found["peak_mib"]
            ratio = peak["default"] / peak["plain"]
            lines += [
                "",
                f"Peak memory at {names[name]}: {peak['default']:.0f} MiB, {ratio:.2f} × the plain step's {peak['plain']:.0f}.",
            ]
    arguments = "; ".join(f"{names[name]}: {found['arguments']}" for name, found in results.items())
    return "\n".join([*lines, "", f"Median of the rounds (least–greatest). Networks: {arguments}."])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--batch", type=int, help="instead of each network's own")
    parser.add_argument("--name", default="step_overhead", help="of the file under results/")
    parser.add_argument("--probe-memory", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.batch:
        NETWORKS.update({name: (arguments, side, options.batch) for name, (arguments, side, _) in NETWORKS.items()})
    if options.probe_memory:
        probe_memory(*options.probe_memory)
        return
    results: dict[str, Any] = {}
    for network in options.networks:
        arguments, side, size = NETWORKS[network]
        print(f"{network}: {arguments}, {side} x {side}, batch {size}", flush=True)
        found = measure(network, options.rounds, options.device)
        if options.device == "cpu":
            found["peak_mib"] = {variant: memory(network, variant) for variant in ("plain", "default")}
        results[network] = {"arguments": arguments, "side": side, "batch": size, **found}
    report = table(results)
    print(report)
    print(f"written to {save(options.name, {'rounds': options.rounds, 'networks': results}, report)}")


if __name__ == "__main__":
    main()

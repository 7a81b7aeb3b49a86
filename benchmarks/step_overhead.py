"""What does `augmenter.step` cost? Measures its time and memory as ratios to a plain step.

    python benchmarks/step_overhead.py                                      # every network
    python benchmarks/step_overhead.py --networks hourglass-64 --rounds 20
    python benchmarks/step_overhead.py --device cuda --precision bf16 --compile --channels-last --name step_overhead_gpu

A round runs every variant once, in a rotating order, and gives one ratio for each. So a drift of the machine's speed affects
all variants alike. A plain step trains on random views of policies.robust. "robust" is this policy, which learns by running
difficulty, and "uniform" is the same without learning. The others have the paper's policy, with generators; "paper, uniform" is
the same without, so that the difference of both is what generators and their passes cost. Memory is the peak
of a fresh process minus its memory before the first step. Operations are those that PyTorch dispatches in a step, averaged over
eight steps; on a GPU each costs some time of the host.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import adaug
from adaug.keypoints import Pairs
from adaug.learners import Paper
from benchmarks import draw
from benchmarks.result_files import save, spread
from benchmarks.workloads import WORKLOADS, Workload

Step = Callable[[], None]


def compiled(shapes: Any, layouts: Any) -> adaug.Generator:
    """A generator that torch.compile compiles."""
    generator = adaug.Generator(shapes, layouts)
    generator.compile(dynamic=True)  # for any number of rows
    return generator


VARIANTS: dict[str, dict[str, Any]] = {  # the augmenter's arguments
    "plain": {},
    "default": {},
    "scoring='train'": {"scoring": "train"},
    "update_every=4": {"update_every": 4},
    "both": {"scoring": "train", "update_every": 4},
    "both, reads the image": {"scoring": "train", "update_every": 4, "features": ()},
    "both, OneForAll": {"scoring": "train", "update_every": 4, "features": (), "generator": adaug.learners.OneForAll},
    "robust": {},
    "uniform": {},
    "paper, uniform": {},
    "compiled generators": {"generator": compiled},
}
POLICIES: dict[str, Callable[[Pairs], adaug.Policy]] = {  # those without generators; the others have the paper's
    "plain": adaug.policies.robust,
    "robust": adaug.policies.robust,
    "uniform": lambda flips: adaug.policies.uniform(adaug.policies.robust(flips)),
    "paper, uniform": lambda flips: adaug.policies.uniform(adaug.policies.paper(flips)),
}
COMPILED = "compiled generators"  # without it, because compiling takes longer than all the rest
USUAL = [variant for variant in VARIANTS if variant != COMPILED]
DETAILED = ("plain", "default", "both, OneForAll", "robust")  # variants of which more than the time is measured
REMEMBERED = ("plain", "default", "robust")  # variants of which the memory is measured too
CYCLE = 8  # after so many steps every variant has done everything once


@dataclass(frozen=True)
class Machine:
    """Where and how the steps run."""

    device: str = "cpu"
    precision: str = "fp32"
    compiled: bool = False
    channels_last: bool = False


def made(workload: Workload, variant: str, flips: Pairs) -> adaug.AdversarialAugmenter:
    """The augmenter of a variant."""
    how = Paper(**{"features": workload.layers["features"], **VARIANTS[variant]})
    policy = POLICIES[variant](flips) if variant in POLICIES else adaug.policies.paper(flips, how)
    occlude = workload.layers["occlude"] if policy.hides_features else None
    return adaug.AdversarialAugmenter(policy, targets=workload.layers.get("targets"), occlude=occlude, seed=0)


def build(workload: Workload, variant: str, machine: Machine) -> Step:
    """One training step of a variant as a function without arguments."""
    torch.manual_seed(0)
    layout = torch.channels_last if machine.channels_last else torch.contiguous_format
    model = workload.network().to(machine.device, memory_format=layout)  # type: ignore[call-overload]
    batch = {name: value.to(machine.device) for name, value in workload.batch(workload.images, workload.side).items()}
    batch["image"] = batch["image"].contiguous(memory_format=layout)
    optimizer = torch.optim.RMSprop(model.parameters(), lr=2.5e-4, foreach=True)
    flips = [(0, 1)] if "keypoints" in batch else []
    augmenter = made(workload, variant, flips)
    if variant != "plain":
        augmenter.bind(model, batch)  # before anything is compiled
    network: Any = torch.compile(model) if machine.compiled else model
    half = torch.autocast(machine.device.split(":")[0], torch.bfloat16, enabled=machine.precision == "bf16")

    def learn(loss: Tensor) -> None:
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def plain() -> None:
        rows = augmenter.random(batch)
        with half:
            loss = workload.loss_fn(network(rows["image"]), rows).mean()
        learn(loss)

    def adversarial() -> None:
        with half:
            loss = augmenter.step(network, batch, workload.loss_fn).loss
        learn(loss)

    return plain if variant == "plain" else adversarial


def wait(machine: Machine) -> None:
    """Waits for a GPU to finish."""
    if machine.device.startswith("cuda"):
        torch.cuda.synchronize()


class Dispatched(TorchDispatchMode):
    """Counts the operations that PyTorch dispatches."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))


def operations(step: Step) -> int:
    """How many operations a step dispatches, on average."""
    with Dispatched() as dispatched:  # type: ignore[no-untyped-call]
        for _ in range(CYCLE):
            step()
    return round(dispatched.count / CYCLE)


def measure(workload: Workload, names: Sequence[str], rounds: int, machine: Machine) -> dict[str, Any]:
    """The ratios of variants to the plain step (the first variant), and more about some of them."""
    steps, first = {}, {}
    for variant in names:
        start = time.perf_counter()
        steps[variant] = build(workload, variant, machine)
        for _ in range(CYCLE):  # enough for what is compiled
            steps[variant]()
        first[variant] = time.perf_counter() - start
    seconds: dict[str, list[float]] = defaultdict(list)
    for i in range(rounds):
        for variant in [*names[i % len(names) :], *names[: i % len(names)]]:
            # any eight steps in a row include an answer of running difficulty and all comparisons
            count = CYCLE if variant in POLICIES or "update_every" in VARIANTS[variant] else 1
            wait(machine)
            start = time.perf_counter()
            for _ in range(count):
                steps[variant]()
            wait(machine)
            seconds[variant].append((time.perf_counter() - start) / count)
        print(f"  round {i + 1}/{rounds}: " + ", ".join(f"{v} {seconds[v][-1]:.2f} s" for v in names), flush=True)
    numbers: dict[str, Any] = {
        "plain_seconds": spread(seconds["plain"]),
        "ratio_to_plain": {v: spread([a / b for a, b in zip(seconds[v], seconds["plain"], strict=True)]) for v in names[1:]},
        "build_and_first_steps_seconds": first,
    }
    if not machine.compiled:
        numbers["operations"] = {variant: operations(steps[variant]) for variant in DETAILED if variant in steps}
    if machine.device != "cpu":
        numbers |= gpu_costs(steps, machine)
    return numbers


def gpu_costs(steps: dict[str, Step], machine: Machine) -> dict[str, Any]:
    """The host's time for a step (ms), and the memory that a step adds at its peak (MiB). Fails if a step waits for the GPU."""
    host, peak = {}, {}
    for variant in (variant for variant in DETAILED if variant in steps):
        torch.cuda.set_sync_debug_mode("error")
        try:
            for _ in range(CYCLE):  # one of them compares
                steps[variant]()
        finally:
            torch.cuda.set_sync_debug_mode("default")
        wait(machine)
        torch.cuda.reset_peak_memory_stats()
        held = torch.cuda.memory_allocated()
        start = time.perf_counter()
        for _ in range(CYCLE):
            steps[variant]()
        host[variant] = 1e3 * (time.perf_counter() - start) / CYCLE
        wait(machine)
        peak[variant] = (torch.cuda.max_memory_allocated() - held) / 2**20
    return {"host_ms": host, "peak_mib": peak}


def memory(network: str, variant: str, images: int) -> float:
    """The peak memory of two steps in a fresh process, minus its memory before, in MiB."""
    command = [sys.executable, __file__, "--probe-memory", network, variant, "--batch", str(images)]
    return float(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)["mib"])


def peak_kib() -> int:
    """The peak memory of this process in KiB. (getrusage would count the parent's too.)"""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def probe_memory(workload: Workload, variant: str) -> None:
    """The child process of `memory`."""
    step = build(workload, variant, Machine())
    before = peak_kib()
    for _ in range(2):
        step()
    print(json.dumps({"mib": (peak_kib() - before) / 1024}))


def table(results: dict[str, Any]) -> str:
    """The results as Markdown, with a column for each network."""
    rows: dict[str, list[str]] = {"plain": [f"1 ({network['plain_seconds']['median']:.2f} s)" for network in results.values()]}
    for variant in next(iter(results.values()))["ratio_to_plain"]:
        cells = [network["ratio_to_plain"][variant] for network in results.values()]
        rows[variant] = [f"{cell['median']:.2f} ({cell['min']:.2f}–{cell['max']:.2f})" for cell in cells]
    for variant in REMEMBERED[1:]:
        rows[f"memory, {variant}"] = [_memory_ratio(network.get("peak_mib", {}), variant) for network in results.values()]
    if {COMPILED, "default"} <= rows.keys():
        seconds = [network["build_and_first_steps_seconds"] for network in results.values()]
        rows["compiling"] = [f"{built[COMPILED] - built['default']:.0f} s" for built in seconds]
    lines = ["| step / plain step | " + " | ".join(results) + " |", "|---|" + "---|" * len(results)]
    lines += [f"| {name} | " + " | ".join(cells) + " |" for name, cells in rows.items()]
    lines += ["", "Median of the rounds (least–greatest). Memory: peak of the step / peak of the plain step.", ""]
    for name, network in results.items():
        about = f"- {name}: {network['about']}, {network['side']} × {network['side']}, batch {network['batch']}"
        if "host_ms" in network:
            about += "; the host needs "
            about += ", ".join(f"{variant} {value:.1f} ms" for variant, value in network["host_ms"].items())
            about += " a step, and waits for nothing"
        if counted := network.get("operations"):
            about += "; operations dispatched: " + ", ".join(f"{variant} {count}" for variant, count in counted.items())
        lines.append(about + ".")
    return "\n".join(lines)


def _memory_ratio(peak: dict[str, float], variant: str) -> str:
    # Below some MiB, the interpreter's own memory hides that of a step.
    return f"{peak[variant] / peak['plain']:.2f}" if variant in peak and peak["plain"] > 50 else "–"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=list(WORKLOADS), default=list(WORKLOADS))
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=USUAL, help="variants, the plain one first")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--batch", type=int, help="instead of each network's own")
    parser.add_argument("--name", default="step_overhead", help="name of the file under results/")
    parser.add_argument("--probe-memory", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.variants[0] != "plain" or len(options.variants) < 2:
        parser.error(f"--variants should be plain and others to compare with it. Found {', '.join(options.variants)}.")
    torch.set_num_threads(options.threads)
    workloads = {name: replace(workload, images=options.batch or workload.images) for name, workload in WORKLOADS.items()}
    if options.probe_memory:
        name, variant = options.probe_memory
        probe_memory(workloads[name], variant)
        return
    machine = Machine(options.device, options.precision, options.compile, options.channels_last)
    results: dict[str, Any] = {}
    for name in options.networks:
        workload = workloads[name]
        print(f"{name}: {workload.about}, {workload.side} x {workload.side}, batch {workload.images}", flush=True)
        network = measure(workload, options.variants, options.rounds, machine)
        if machine == Machine() and {"plain", "default"} <= set(options.variants):
            known = [variant for variant in REMEMBERED if variant in options.variants]
            network["peak_mib"] = {variant: memory(name, variant, workload.images) for variant in known}
        results[name] = {"about": workload.about, "side": workload.side, "batch": workload.images, **network}
        figure = draw.overhead(results, targets=(1.15, 1.3))
        save(options.name, {"rounds": options.rounds, "networks": results}, table(results), figure)  # keep what is done
    print(table(results))


if __name__ == "__main__":
    main()

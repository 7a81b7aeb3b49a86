"""Proposes layers to read and to mask, from the flow of features: bridges, or stages."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from adaug._model.finding.candidates import Candidates
from adaug._model.finding.probe import Probe

MOST = 5  # layers to read
RESOLUTIONS = 3  # layers on the way to the output should have so many resolutions, or those on the way down are taken


@dataclass(frozen=True)
class Proposal:
    """Layers to read, and layers to mask."""

    read: tuple[str, ...]
    hide: tuple[str, ...]


def proposals(probed: Probe) -> Iterator[Proposal]:
    """Proposals, the best first.

    1. Bridges (skip connections): layers whose features pass by a lower resolution and are merged with features that come back
       from it, and the layer of the lowest resolution. Masks also multiply the same layers of later stacks.
    2. Stages: for each resolution on the way down, the largest layer that every path goes through. With only one resolution
       (a transformer), blocks at a quarter, a half and three quarters of the depth; after the last block it would be too late,
       because no class token reads what a mask hides there.

    After each of these comes the same with masks on the very first layer as well, where nothing has left its cell yet.
    """
    layers = Candidates(probed)
    if not layers.names:
        return
    trunk, bridges = _trunk(layers), _bridges(layers)
    for read, later in [(bridges, _in_later_stacks(bridges, probed)), (_stages(layers, trunk), [])]:
        if not read:
            continue
        yield Proposal(tuple(read), (*read, *later))
        if trunk and trunk[0] not in read:
            yield Proposal(tuple(read), (trunk[0], *read, *later))


def _bridges(layers: Candidates) -> list[str]:
    """Bridges, the finest first, and the stages below them. None if there are fewer than two bridges."""
    bridges = layers.bridges()
    if len(bridges) < 2:
        return []
    lowest = min(map(layers.area, bridges))
    stages = _largest(layers, _way_down(layers))[-MOST:]
    return layers.finest_first([*bridges, *(name for name in stages if layers.area(name) < lowest)])[-MOST:]


def _stages(layers: Candidates, trunk: Sequence[str]) -> list[str]:
    """The largest layer of each resolution of a trunk, or some blocks if there is only one resolution."""
    stages = _largest(layers, trunk)[-MOST:]
    if len(stages) == 1:
        blocks = _longest_chain(layers.same(trunk))
        stages = [blocks[len(blocks) * i // 4] for i in (1, 2, 3)] if len(blocks) > 3 else stages
    return stages


def _trunk(layers: Candidates) -> list[str]:
    """The layers that every path goes through: to the output, or to the lowest resolution if these have more resolutions."""
    out, down = layers.to_the_output(), _way_down(layers)
    return down if len(_largest(layers, out)) < min(RESOLUTIONS, len(_largest(layers, down))) else out


def _way_down(layers: Candidates) -> list[str]:
    """The way to the lowest resolution that passes most resolutions."""
    return max(layers.ways_down(), key=lambda names: len(_largest(layers, names)))


def _largest(layers: Candidates, names: Sequence[str]) -> list[str]:
    """The largest layer of each resolution on the way down, the finest first. Layers inside a block are skipped."""
    levels: list[list[str]] = []
    smallest = min(map(layers.area, names), default=0)
    for name in names:
        if levels and layers.area(levels[-1][0]) == smallest != layers.area(name):
            break  # on the way up
        if not levels or 2 * layers.area(name) <= layers.area(levels[-1][0]):
            levels.append([name])
        elif layers.area(name) <= layers.area(levels[-1][0]):
            levels[-1].append(name)
    return [max(reversed(level), key=layers.weight) for level in levels]


def _in_later_stacks(names: Sequence[str], probed: Probe) -> list[str]:
    """The layers whose names differ from these only in their first number, which counts the stacks."""
    patterns = [re.sub(r"(^|\\\.)\d+(?=\\\.|$)", r"\1\\d+", re.escape(name), count=1) for name in names]
    alike = {
        other
        for name, pattern in zip(names, patterns, strict=True)
        for other, layer in probed.layers.items()
        if layer == probed.layers[name] and re.fullmatch(pattern, other)
    }
    return [name for name in probed.layers if name in alike and name not in names]


def _longest_chain(names: Sequence[str]) -> list[str]:
    """The numbered parts of the container with most of them, such as the blocks of a transformer."""
    chains: dict[str, list[str]] = {}
    for name in names:
        parent, _, part = name.rpartition(".")
        if part.isdigit():
            chains.setdefault(parent, []).append(name)
    return max(chains.values(), key=len, default=[])

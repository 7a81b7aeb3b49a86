"""Layers to read and to mask, proposed by how features flow through the network: its bridges, or its stages."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from adaug._candidates import Candidates
from adaug._probe import Probe

MOST = 5  # layers to read
RESOLUTIONS = 3  # that layers on the way to the output should have, or those on the way down are taken


@dataclass(frozen=True)
class Proposal:
    """Layers to read, and layers to mask."""

    read: tuple[str, ...]
    hide: tuple[str, ...]


def proposals(probed: Probe) -> Iterator[Proposal]:
    """What is liked best first.

    1. Bridges: what goes past a lower resolution and meets what comes back up from it, with the lowest one; masks also
       multiply the same layers of later stacks.
    2. Stages: of each resolution on the way down, the largest layer that all of what comes later goes through. With one
       resolution (a transformer) blocks at a quarter, a half and three quarters, because a mask after the last block would
       hide what no class token reads any more.

    After each, the same with masks on the first layer of all too: nothing has left its cell there.
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
    """Bridges, finest first, with the stages below them; nothing where there are fewer than two."""
    bridges = layers.bridges()
    if len(bridges) < 2:
        return []
    lowest = min(map(layers.area, bridges))
    stages = _largest(layers, _way_down(layers))[-MOST:]
    return layers.finest_first([*bridges, *(name for name in stages if layers.area(name) < lowest)])[-MOST:]


def _stages(layers: Candidates, trunk: Sequence[str]) -> list[str]:
    """The largest layer of each resolution of a trunk, or blocks of the only one."""
    stages = _largest(layers, trunk)[-MOST:]
    if len(stages) == 1:
        blocks = _longest_chain(layers.same(trunk))
        stages = [blocks[len(blocks) * i // 4] for i in (1, 2, 3)] if len(blocks) > 3 else stages
    return stages


def _trunk(layers: Candidates) -> list[str]:
    """The layers that everything goes through: to the output, or, if more resolutions are met there, to the lowest one."""
    out, down = layers.to_the_output(), _way_down(layers)
    return down if len(_largest(layers, out)) < min(RESOLUTIONS, len(_largest(layers, down))) else out


def _way_down(layers: Candidates) -> list[str]:
    """The way to the lowest resolution that meets most resolutions."""
    return max(layers.ways_down(), key=lambda names: len(_largest(layers, names)))


def _largest(layers: Candidates, names: Sequence[str]) -> list[str]:
    """The largest layer of each resolution on the way down, finest first; the insides of a block are passed over."""
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
    """The layers that are called like these but for the number of the stack, their first."""
    patterns = [re.sub(r"(^|\\\.)\d+(?=\\\.|$)", r"\1\\d+", re.escape(name), count=1) for name in names]
    alike = {
        other
        for name, pattern in zip(names, patterns, strict=True)
        for other, layer in probed.layers.items()
        if layer == probed.layers[name] and re.fullmatch(pattern, other)
    }
    return [name for name in probed.layers if name in alike and name not in names]


def _longest_chain(names: Sequence[str]) -> list[str]:
    """The numbered parts of the container that has the most of them: the blocks of a transformer."""
    chains: dict[str, list[str]] = {}
    for name in names:
        parent, _, part = name.rpartition(".")
        if part.isdigit():
            chains.setdefault(parent, []).append(name)
    return max(chains.values(), key=len, default=[])

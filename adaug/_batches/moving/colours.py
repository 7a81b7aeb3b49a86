"""Which channels of an image are colours: operations on colours change these, and keep alpha and all else."""

from __future__ import annotations

from collections.abc import Sequence

from adaug._batches.kinds import Target
from adaug.operations import Operation

KNOWN = {"L": 1, "LA": 1, "RGB": 3, "RGBA": 3, "RGBX": 3}  # PIL's name -> how many of the first channels are colours
BY_NUMBER = {1: 1, 2: 1, 3: 3, 4: 3}  # grey, grey and alpha, red green blue, and these with alpha or depth


def colour_channels(target: Target, channels: int) -> int | None:
    """How many of the first channels operations on colours change. None if there are no colours that they know."""
    if target.format == "bands":
        return channels
    return BY_NUMBER.get(channels) if target.format is None else KNOWN.get(target.format)


def check_colours(target: Target, channels: int, operations: Sequence[Operation]) -> None:
    """Raises ValueError if operations on colours get channels that are not the colours that they know."""
    names = [type(operation).__name__ for operation in operations if operation.of_colours]
    colours, form = colour_channels(target, channels), target.format
    if names and colours is None:
        found = f"{channels} channels" if form is None else f"{form} pictures"
        advice = 'pass adaug.Target("image", format="bands") to change all alike' if form is None else "convert them to RGB"
        raise ValueError(
            f"{', '.join(names)} should get images of 1 or 3 colours, with or without alpha. Found {found}; {advice}, or leave "
            "the colour operations out."
        )
    names = [type(operation).__name__ for operation in operations if operation.of_colours == "named"]
    if names and (form == "bands" or (form is None and channels not in (1, 3))):
        raise ValueError(
            f"{', '.join(names)} should get images of 3 channels (red, green, blue) or 1 (grey). Found {channels}; leave it "
            'out, or pass adaug.Target("image", format="RGBA") if the last channel is alpha.'
        )

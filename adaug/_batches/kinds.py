"""What a user may say about an entry of a batch: its kind, and how it follows the pixels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

from adaug._batches.units import FORMATS, Unit, check_unit
from adaug._runtime.checks import (
    Rule,
    Rules,
    as_number,
    check_fields,
    checked,
    function,
    integer,
    mapping,
    number,
    one_of,
    optional,
    several,
    text,
)
from adaug.keypoints import Pairs

MAPS = ("heatmaps", "mask", "vectors", "density")  # kinds with a place for each pixel, or for each square of pixels
SIZES = ("length", "area")  # kinds that grow with the object
MOVING = ("image", "keypoints", "visibility", "boxes", *SIZES, *MAPS)
CARRIED = ("label", "other")  # kinds that stay as they are, however pixels move
KINDS = (*MOVING, *CARRIED)
MODES = ("L", "LA", "RGB", "RGBA", "RGBX", "CMYK", "HSV", "YCbCr", "LAB", "La", "RGBa", "bands")  # PIL's, and any bands
LABELS = ("ids", "one-hot")
FORMATS_OF = {"boxes": FORMATS, "keypoints": ("xyv", "xyz"), "vectors": ("xy", "xyz"), "image": MODES, "label": LABELS}
OPTIONS = {  # which kinds take an option
    "unit": ("keypoints", "boxes", "vectors"),
    "fill": ("image", "heatmaps", "mask"),
    "pairs": ("keypoints", "visibility", *MAPS, "label"),
    "stride": MAPS,
    "rows": (*MOVING[1:], *CARRIED),
    "min_visibility": ("boxes",),
    "move": CARRIED,
}

Key = Any  # of an entry: its name in a mapping, its position in a tuple, or a tuple of these for one inside another


@dataclass(frozen=True)
class Target:
    """Describes an entry of the batch for `targets=`: its kind, and what else adaug has to know to move it.

        Target("mask", fill=255)
        Target("keypoints", unit="unit")
        Target("boxes", unit="unit", format="cxcywh")
        Target(move=lambda angle, view: ...)

    Attributes:
        kind: image, keypoints, visibility, boxes, length, area, heatmaps, mask, vectors, density, label or other.
        fill: The value of pixels outside the canvas, such as 255 for an ignore index. The entry's dtype must hold it.
        unit: The unit of keypoints and boxes. They come back in the same unit. "pixels": (0, 0) is the centre of the first
            pixel; for boxes, which are edges, its outer corner. "unit": 0 and 1 are the outer edges of the image. "signed": -1
            and 1 are. (offset, scale), numbers or pairs (x, y): pixel = offset + scale * value, for images and views alike. By
            default pixels; values that cannot be pixels raise an error. The unit of vectors says how long they are:
            "direction" means that they keep their length.
        format: Of boxes: "xyxy" (the default), "xywh" or "cxcywh". Of keypoints with a third column: "xyv", a visibility, or
            "xyz", where it stays as it is. Of vectors: "xy" (channels x, y, x, y, ...) or "xyz" (the z of normals stays). Of
            images: PIL's name for their colours, such as "CMYK", or "bands" for channels that are no colours. Of labels with
            pairs: "ids", numbers of classes, or "one-hot", one or several 1s among the classes in the last dimension.
        pairs: What changes places in a mirror image: keypoints, maps, class ids of a mask [B, H, W] or of labels, or classes in
            the last dimension of labels that are fractions, booleans or one-hot. () means nothing. By default keypoints, their
            visibility and heat maps follow the pairs of the flip, and all else has none.
        stride: Pixels of the image for each pixel of a map, if the map's size does not tell it.
        rows: Key of the entry that holds the image of each object, [N] integers, if the objects of all images stand in one
            tensor [N, ...].
        min_visibility: A box of which a smaller part stays in the frame gets no area.
        move: (value, view) -> value, for what adaug does not know: angles, areas, camera matrices. `value` has one row for each
            row of the view, and stays as it is. It is called when pixels move.
    """

    kind: str = "other"
    _: KW_ONLY
    fill: float = 0.0
    unit: Unit | None = None
    format: str | None = None
    pairs: Pairs | None = None
    stride: float | None = None
    rows: Key | None = None
    min_visibility: float = 0.0
    move: Callable[[Any, Any], Any] | None = None

    _rules: ClassVar[Rules] = {
        "kind": text(f"one of {', '.join(KINDS)}", KINDS.__contains__),
        "fill": Rule("a number", as_number),
        "format": optional(
            text(
                "one of " + "; ".join(f"{', '.join(known)} for {kind}" for kind, known in FORMATS_OF.items()),
                lambda given: any(given in known for known in FORMATS_OF.values()),
            )
        ),
        "pairs": optional(several(several(integer(at_least=0), "", length=2), "pairs (left, right)"), "for those of the flip"),
        "stride": optional(number(above=0), "if the sizes tell it"),
        "min_visibility": number(low=0, high=1),
        "move": optional(function("(value, view) -> value")),
    }

    def __post_init__(self) -> None:
        check_fields(self, "a Target")
        check_unit(self.unit, "a Target", vectors=self.kind == "vectors")
        for name, kinds in OPTIONS.items():
            if getattr(self, name) not in (None, 0) and self.kind not in kinds:
                raise ValueError(f"`{name}` should be given for {' or '.join(kinds)}. Found it for {self.kind}; leave it out.")
        if self.format is not None and self.format not in FORMATS_OF.get(self.kind, ()):
            known = " or ".join(kind for kind, formats in FORMATS_OF.items() if self.format in formats)
            raise ValueError(f"`format` should be given for {known}, if it is {self.format!r}. Found it for {self.kind}.")
        named = [index for pair in self.pairs or () for index in pair]
        if len(set(named)) != len(named):
            raise ValueError(f"`pairs` of a Target should name each number once. Found {self.pairs!r}.")

    @property
    def carried(self) -> bool:
        """Whether the entry stays as it is, however pixels move."""
        return self.kind in CARRIED and self.pairs is None and self.move is None


PLAIN = {kind: Target(kind) for kind in KINDS}


def _read_target(value: Any) -> Target:
    if isinstance(value, Target):
        return value
    if not isinstance(value, str):
        raise TypeError
    if value not in KINDS:
        raise ValueError
    return PLAIN[value]


REST = optional(one_of("other"), "to ask for the kind of every tensor")
TARGETS = optional(
    mapping(Rule("", _read_target), f"a mapping from keys or positions to adaug.Target, or one of {', '.join(KINDS)}")
)


def as_targets(targets: Mapping[Any, str | Target] | None) -> dict[Key, Target]:
    """Turns kinds into Targets. Raises ValueError on an unknown kind."""
    given: dict[Key, Target] | None = checked({"targets": targets}, {"targets": TARGETS})["targets"]
    return given or {}

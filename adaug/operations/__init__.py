"""Operations: they move pixels, change colours or hide parts of a view. Base classes for your own.

adaug learns which of an operation's bins or cells are hard. To add an operation, derive from `Geometric` (return a matrix),
`Photometric` (return an image) or `OccludeImage`. You need not register it.
"""

from adaug.operations.base import Binned, Operation
from adaug.operations.distributions import ClippedNormal, TruncatedNormal
from adaug.operations.geometric import Geometric, Rotate, Scale, Shear, Translate
from adaug.operations.occlusion import OccludeFeatures, OccludeImage, Occlusion
from adaug.operations.photometric import Apply, Brightness, Contrast, Gain, Photometric, Saturation

__all__ = [
    "Apply",
    "Binned",
    "Brightness",
    "ClippedNormal",
    "Contrast",
    "Gain",
    "Geometric",
    "OccludeFeatures",
    "OccludeImage",
    "Occlusion",
    "Operation",
    "Photometric",
    "Rotate",
    "Saturation",
    "Scale",
    "Shear",
    "Translate",
    "TruncatedNormal",
]

"""What can be done to a view: geometric, photometric and occluding operations, and the bases to write one's own.

A generator learns which of an operation's bins or cells is hard. To add an operation, derive from `Geometric` (return a
matrix), `Photometric` (return an image) or `OccludeImage`; nothing is registered.
"""

from adaug.operations._base import Binned, Operation
from adaug.operations._distributions import ClippedNormal
from adaug.operations._geometric import Geometric, Rotate, Scale, Shear, Translate
from adaug.operations._occlusion import OccludeFeatures, OccludeImage, Occlusion
from adaug.operations._photometric import Apply, Brightness, Contrast, Gain, Photometric, Saturation

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
]

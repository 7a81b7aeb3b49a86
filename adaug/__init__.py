"""adaug: data augmentation that trains against your network (Peng, Tang et al., CVPR 2018)."""

from adaug import keypoints, plots, policies
from adaug.augmenter import AdversarialAugmenter, StepResult
from adaug.batch import Target, apply_view
from adaug.generator import Generator, OneForAll
from adaug.operations import (
    Apply,
    Binned,
    Brightness,
    Contrast,
    Gain,
    Geometric,
    OccludeFeatures,
    OccludeImage,
    Occlusion,
    Photometric,
    Rotate,
    Saturation,
    Scale,
    Shear,
    Translate,
)
from adaug.policy import Branch, Flip, Policy
from adaug.reward import RewardPenalty
from adaug.view import View

__version__ = "0.1.0"

__all__ = [
    "AdversarialAugmenter",
    "Apply",
    "Binned",
    "Branch",
    "Brightness",
    "Contrast",
    "Flip",
    "Gain",
    "Generator",
    "Geometric",
    "OccludeFeatures",
    "OccludeImage",
    "Occlusion",
    "OneForAll",
    "Photometric",
    "Policy",
    "RewardPenalty",
    "Rotate",
    "Saturation",
    "Scale",
    "Shear",
    "StepResult",
    "Target",
    "Translate",
    "View",
    "apply_view",
    "keypoints",
    "plots",
    "policies",
]

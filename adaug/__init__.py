"""adaug: data augmentation that trains against your network (Peng, Tang et al., CVPR 2018)."""

from adaug import keypoints, operations, plots, policies
from adaug._apply import apply_view
from adaug._generator import Generator, OneForAll
from adaug._kinds import Target
from adaug._losses import per_sample
from adaug._reward import RewardPenalty
from adaug._view import View
from adaug.audits import Audit, audit
from adaug.augment import Augment
from adaug.augmenter import AdversarialAugmenter, StepResult
from adaug.operations import (
    Brightness,
    Contrast,
    OccludeFeatures,
    OccludeImage,
    Rotate,
    Saturation,
    Scale,
    Shear,
    Translate,
)
from adaug.policy import Branch, Flip, Policy

__version__ = "0.2.0"

__all__ = [
    "AdversarialAugmenter",
    "Audit",
    "Augment",
    "Branch",
    "Brightness",
    "Contrast",
    "Flip",
    "Generator",
    "OccludeFeatures",
    "OccludeImage",
    "OneForAll",
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
    "audit",
    "keypoints",
    "operations",
    "per_sample",
    "plots",
    "policies",
]

"""adaug: data augmentation that trains against your network (Peng, Tang et al., CVPR 2018)."""

from adaug import keypoints, learners, operations, plots, policies
from adaug._batches.kinds import Target
from adaug._runtime.version import __version__ as __version__
from adaug._views.view import View
from adaug.apply import apply_view, unapply_view
from adaug.audits import Audit, audit
from adaug.augment import Augment
from adaug.augmenter import AdversarialAugmenter, StepResult
from adaug.learners import Generator, RewardPenalty
from adaug.operations import Brightness, Contrast, OccludeFeatures, OccludeImage, Rotate, Saturation, Scale, Shear, Translate
from adaug.per_sample import per_sample
from adaug.policies import Branch, Flip, Policy

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
    "learners",
    "operations",
    "per_sample",
    "plots",
    "policies",
    "unapply_view",
]

"""The paper's numbers: Peng, Tang, Yang, Feris, Metaxas, "Jointly Optimize Data Augmentation and Network Training:
Adversarial Data Augmentation in Human Pose Estimation", CVPR 2018."""

from __future__ import annotations

COLUMNS = ("Head", "Sho.", "Elb.", "Wri.", "Hip", "Knee", "Ank.", "Mean")
Row = tuple[float, ...]

# What the paper calls our arms.
ARMS = {"random": "Random Aug.", "asr": "+ASR", "aho": "+AHO", "asr+aho": "+ASR+AHO"}

# Table 1: MPII validation, PCKh@0.5. The sizes are printed as "38M" and "18M"; in 32-bit floats they are megabytes.
TABLE_1: dict[str, dict[str, Row]] = {
    "residual": {
        "random": (97.2, 94.8, 87.8, 83.4, 87.8, 81.3, 76.5, 87.0),
        "asr": (97.3, 95.2, 88.2, 84.2, 88.2, 81.8, 77.3, 87.5),
        "aho": (97.3, 95.0, 88.2, 83.6, 88.0, 82.2, 77.6, 87.4),
        "asr+aho": (97.3, 95.1, 88.7, 84.7, 88.4, 82.5, 78.1, 87.8),
    },
    "dense": {
        "random": (97.1, 94.6, 87.9, 83.0, 87.5, 81.2, 76.6, 86.8),
        "asr": (97.2, 95.0, 88.3, 83.5, 87.7, 81.8, 77.4, 87.3),
        "aho": (97.1, 94.8, 88.2, 83.6, 87.6, 81.7, 77.5, 87.2),
        "asr+aho": (97.2, 95.2, 88.8, 84.1, 88.1, 82.0, 77.9, 87.6),
    },
}

# Table 2: MPII test, PCKh@0.5, eight stacks. "random" is the published baseline, Stacked HGs(8) of Newell et al.
TABLE_2: dict[str, Row] = {
    "random": (98.2, 96.3, 91.2, 87.1, 90.1, 87.4, 83.6, 90.9),
    "asr+aho": (98.1, 96.6, 92.5, 88.4, 90.7, 87.7, 83.5, 91.5),
}

# Table 3: LSP test, PCK@0.2, eight stacks; the baseline as in Table 2.
TABLE_3: dict[str, Row] = {
    "random": (98.2, 94.0, 91.2, 87.2, 93.5, 94.5, 92.6, 93.0),
    "asr+aho": (98.6, 95.3, 92.8, 90.0, 94.8, 95.3, 94.5, 94.5),
}

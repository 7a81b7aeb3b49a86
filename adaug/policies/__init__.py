"""Policies: which views are drawn, and for which part of a batch. Ready ones, and the parts of your own."""

from adaug.policies.policy import Branch, Flip, Policy
from adaug.policies.ready import AXES, Window, paper, released, robust, running, trivial, uniform, wide

__all__ = [
    "AXES",
    "Branch",
    "Flip",
    "Policy",
    "Window",
    "paper",
    "released",
    "robust",
    "running",
    "trivial",
    "uniform",
    "wide",
]

"""What moves the distributions that views are drawn from: running difficulty, and the paper's generators."""

from adaug.learners.generator import Generator, OneForAll
from adaug.learners.reward import RewardPenalty
from adaug.learners.table import DifficultyTable

__all__ = ["DifficultyTable", "Generator", "OneForAll", "RewardPenalty"]

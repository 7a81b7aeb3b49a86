"""Learners move the distributions that views are drawn from: running difficulty, the paper's generators, or your own."""

from adaug._runtime.ranks import add_up
from adaug.learners.generator import Generator, OneForAll
from adaug.learners.learner import Learner, Rows, Seen, Start
from adaug.learners.paper import Paper
from adaug.learners.reward import RewardPenalty
from adaug.learners.running import Running
from adaug.learners.table import DifficultyTable
from adaug.learners.trials import Proposal, Trial, Trials

__all__ = [
    "DifficultyTable",
    "Generator",
    "Learner",
    "OneForAll",
    "Paper",
    "Proposal",
    "RewardPenalty",
    "Rows",
    "Running",
    "Seen",
    "Start",
    "Trial",
    "Trials",
    "add_up",
]

"""One thread and repeatable examples, so that a run is quick and the same everywhere."""

import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)
settings.register_profile("adaug", deadline=None, max_examples=25, derandomize=True, database=None)
settings.load_profile("adaug")


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)

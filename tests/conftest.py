"""One thread and repeatable examples, so that a run is quick and the same everywhere.

`ADAUG_TEST_DTYPE=float64` makes float64 the default dtype: `make float64` runs the tests marked `numeric` so.
"""

import os

import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)
torch.set_default_dtype(getattr(torch, os.environ.get("ADAUG_TEST_DTYPE", "float32")))
settings.register_profile("adaug", deadline=None, max_examples=25, derandomize=True, database=None)
settings.load_profile("adaug")


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)

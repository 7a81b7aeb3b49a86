"""One thread and repeatable examples, so that a run is quick and the same everywhere.

`ADAUG_TEST_DTYPE=float64` makes float64 the default dtype: `make float64` runs the tests marked `numeric` so.
"""

import gc
import os
from importlib.metadata import version

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy asks, and for the processes that tests start

import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)
torch.set_default_dtype(getattr(torch, os.environ.get("ADAUG_TEST_DTYPE", "float32")))
settings.register_profile("adaug", deadline=None, max_examples=25, derandomize=True, database=None)
settings.load_profile("adaug")

# What needs kornia 0.9, which needs Python 3.11: an older one copies a number to the GPU for each rotation, and knows no
# contrast and saturation in bfloat16.
NEWER_KORNIA = {
    "test_a_step_reads_no_value_and_mixes_no_devices",
    "test_a_default_device_is_for_the_user_alone",
    "test_colours_keep_the_dtype",
    "test_colours_work_on_any_channels_or_say_what_they_need",
}


def pytest_collection_modifyitems(items):
    if tuple(map(int, version("kornia").split(".")[:2])) < (0, 9):
        for item in items:
            if item.originalname in NEWER_KORNIA:
                item.add_marker(pytest.mark.skip(reason="needs kornia 0.9"))


def pytest_collection_finish():
    gc.collect()
    gc.freeze()  # what the imports left would be looked through again and again


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)

"""The network of a finished run, from its checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from examples.hourglass.checkpoint import NAME
from examples.hourglass.config import Config
from examples.hourglass.model import StackedHourglass
from examples.hourglass.people import Joints
from examples.hourglass.recipe import model_of


def load_network(folder: Path, joints: Joints, device: str = "cpu") -> tuple[Config, StackedHourglass]:
    """The config and the network of a folder that `train` wrote. Raises FileNotFoundError when it has no checkpoint."""
    path = folder / NAME
    if not path.is_file():
        raise FileNotFoundError(f"{folder} should hold the checkpoint of a run. Found no {NAME}; train there first.")
    saved = torch.load(path, map_location="cpu", weights_only=True)
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in saved["config"].items()
    }
    config = Config(**values)
    model = model_of(config, joints)
    model.load_state_dict(saved["session"]["model"])
    return config, model.to(device).eval()

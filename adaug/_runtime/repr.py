"""Settings as a user would write them, and as plain values."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np


def as_code(value: Any) -> str:
    """How a user would write it: a dataclass with the fields that differ from their defaults."""
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return getattr(value, "__qualname__", None) or repr(value)
    fields = [(field, getattr(value, field.name)) for field in dataclasses.fields(value)]
    settings = [f"{field.name}={as_code(own)}" for field, own in fields if field.init and own != field.default]
    return f"{type(value).__name__}({', '.join(settings)})"


def as_plain(value: Any) -> Any:
    """The value in lists, strings and numbers, which a saved state can hold."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: as_plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return {"type": type(value).__name__, **fields}
    if isinstance(value, Mapping):
        return {str(key): as_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_plain(item) for item in value]
    if callable(value):  # a repr would hold an address, and never match after a restart
        return getattr(value, "__qualname__", type(value).__qualname__)
    if isinstance(value, np.generic):
        value = value.item()
    return value if value is None or isinstance(value, (str, bool, int, float)) else repr(value)

"""Hyperparameter sweeps for image-classification CNNs: one file in, one trained, scored and exported model out.

What a sweep file needs, and nothing else. Names are looked up when first used: importing this package costs nothing, and
nothing in it loads a tensor library.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .data import datasets
    from .errors import SweepError
    from .parameters import Choice, Fixed, Float, Int
    from .space import SearchSpace
    from .sweep import Objective, Sweep

__version__ = "0.1.0"
__all__ = ["Choice", "Fixed", "Float", "Int", "Objective", "SearchSpace", "Sweep", "SweepError", "datasets"]

_HOMES = {
    "Choice": "parameters",
    "Fixed": "parameters",
    "Float": "parameters",
    "Int": "parameters",
    "SearchSpace": "space",
    "Objective": "sweep",
    "Sweep": "sweep",
    "SweepError": "errors",
}


def __getattr__(name: str) -> Any:
    if name == "datasets":
        return importlib.import_module(".data.datasets", __name__)
    if name in _HOMES:
        return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""Hetero: one training run over chips of different vendors.

From Python: `train` and `Job`, which are imported when they are first asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hetero.job.job import Job as Job
    from hetero.training import train as train

_MODULES = {"train": "hetero.training", "Job": "hetero.job.job"}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)

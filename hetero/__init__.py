"""Hetero: one training run over chips of different vendors.

`hetero.train` does from a program what `hetero train` does from a shell. See docs/python.md.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hetero.job.job import Job
    from hetero.python import train

__all__ = ["Job", "train"]
_LIES_IN = {"Job": "hetero.job.job", "train": "hetero.python"}


def __getattr__(name: str) -> Any:
    """Imported when first used: ranks, too, import this package."""
    if name not in _LIES_IN:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LIES_IN[name]), name)

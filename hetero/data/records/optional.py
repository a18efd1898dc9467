"""Packages that only some sources need."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from types import ModuleType

from hetero.data.errors import DataError


def required(name: str, path: Path) -> ModuleType:
    """The package that reads a file. Raises DataError where it is not installed."""
    try:
        return import_module(name)
    except ImportError:
        package = name.partition(".")[0]
        remedy = f"pip install {package} where the command runs, or all of them with pip install hetero[hf]"
        raise DataError("data.source", str(path), f"is read by {package}, which is not installed", remedy) from None

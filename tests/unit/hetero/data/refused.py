"""Permissions that bite for everybody, the superuser too."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest


@contextlib.contextmanager
def not_listed(folder: Path) -> Iterator[None]:
    """A folder that may not be listed."""
    with _refusing(folder, "listdir", "scandir"):
        yield


@contextlib.contextmanager
def not_entered(folder: Path) -> Iterator[None]:
    """A folder that may be listed, but nothing in it looked at."""
    with _refusing(folder, "stat", "lstat", below=True):
        yield


@contextlib.contextmanager
def not_opened(file: Path) -> Iterator[None]:
    """A file that may not be read."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "access", lambda path, mode: Path(path) != file)
        yield


@contextlib.contextmanager
def _refusing(place: Path, *calls: str, below: bool = False) -> Iterator[None]:
    def refuses(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: Any = ".", *more: Any, **options: Any) -> Any:
            asked = None if isinstance(path, int) else Path(path)
            if asked is not None and (asked.parent if below else asked) == place:
                raise PermissionError(errno.EACCES, "Permission denied", str(path))
            return real(path, *more, **options)

        return call

    with pytest.MonkeyPatch.context() as patch:
        for name in calls:
            patch.setattr(os, name, refuses(getattr(os, name)))
        yield

"""The built-in source: the source text of this Python's standard library."""

from __future__ import annotations

import os
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from hetero.data.errors import DataError
from hetero.data.options import BUILT_IN
from hetero.data.text_file import TextFile, unreadable

BUILT_IN_BYTES = 4 << 20
_NOT_BUILT_IN = {"test", "tests", "idle_test", "site-packages", "dist-packages"}


def standard_library() -> Iterator[TextFile]:
    """Whole files, in order, up to and without the first that would go over the cap. Raises DataError if there are
    none, or a folder cannot be read."""
    root, total = Path(sysconfig.get_path("stdlib")), 0
    found = sorted(_sources(root), key=Path.as_posix)
    if not found:
        raise DataError("data.source", BUILT_IN, f"this Python has no source files in {root}", "name a file or folder")
    for path in found:
        file = TextFile(path.relative_to(root).as_posix(), path, path.stat().st_size)
        total += file.size
        if total > BUILT_IN_BYTES:
            return
        yield file


def _sources(root: Path) -> Iterator[Path]:
    """No tests, nothing installed, nothing made at build time."""
    for folder, inside, names in os.walk(root, onerror=_refuse):
        inside[:] = set(inside) - _NOT_BUILT_IN
        for name in names:
            path = Path(folder, name)
            if name.endswith(".py") and "_sysconfigdata" not in name and path.is_file():
                yield path


def _refuse(error: OSError) -> None:
    raise unreadable(Path(str(error.filename)), error) from None

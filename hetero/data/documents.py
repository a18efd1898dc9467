"""The documents of a source: byte strings in a fixed order."""

from __future__ import annotations

import os
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from hetero.data.errors import DataError
from hetero.data.options import BUILT_IN
from hetero.paths import local

BUILT_IN_BYTES = 4 << 20
_CHUNK_BYTES = 1 << 24
_NOT_BUILT_IN = {"test", "tests", "idle_test", "site-packages", "dist-packages"}

Documents = Iterator[Iterator[bytes]]


def documents(source: str) -> Documents:
    """Each document of a source as its pieces. Raises DataError if there is none, or one cannot be read."""
    if source == BUILT_IN:
        yield from _capped(_standard_library())
    else:
        for path in _files(source):
            yield _pieces(path)


def _files(source: str) -> list[Path]:
    """The file, or all files below the folder but hidden ones, sorted by path."""
    path = local(source, "data.source")
    if os.path.isdir(path):  # and os.path is content with names that no system takes
        found = [file for file in path.rglob("*") if file.is_file() and not _hidden(file.relative_to(path))]
        return sorted(found, key=lambda file: file.relative_to(path).as_posix())
    if not os.path.exists(path):
        remedy = f"check the path (the working directory is {Path.cwd()}), or use {BUILT_IN}"
        raise DataError("data.source", source, "there is no such file or folder", remedy)
    if not path.is_file():
        raise DataError("data.source", source, "must be a file or a folder", f"name one, or use {BUILT_IN}")
    return [path]


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _standard_library() -> list[Path]:
    """The source files of this Python's standard library: no tests, nothing installed, nothing made at build time."""
    root = Path(sysconfig.get_path("stdlib"))
    found: list[Path] = []
    for folder, inside, names in os.walk(root):
        inside[:] = set(inside) - _NOT_BUILT_IN
        found += [Path(folder, name) for name in names if name.endswith(".py") and "_sysconfigdata" not in name]
    if not found:
        raise DataError("data.source", BUILT_IN, f"this Python has no source files in {root}", "name a file or folder")
    return sorted(found, key=Path.as_posix)


def _capped(paths: list[Path]) -> Documents:
    """Whole files, in order, up to and without the first that would go over the cap."""
    total = 0
    for path in paths:
        total += path.stat().st_size
        if total > BUILT_IN_BYTES:
            return
        yield _pieces(path)


def _pieces(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            while piece := file.read(_CHUNK_BYTES):
                yield piece
    except OSError as error:
        remedy = "make it readable, or name another source"
        raise DataError("data.source", str(path), f"cannot be read ({error.strerror})", remedy) from None

"""The documents of a source: its files in a fixed order, and what was left out of it."""

from __future__ import annotations

import glob
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from hetero.data.built_in import standard_library
from hetero.data.errors import DataError
from hetero.data.options import BUILT_IN
from hetero.data.text_file import TextFile, unreadable
from hetero.data.walk import Walk, text_file
from hetero.data.written import is_run_folder, is_token_file
from hetero.paths import local


@dataclass(frozen=True)
class Corpus:
    """`files` by name; each is a document. `omitted` counts what was left out by reason, a folder once. `leading_out`
    names the links that lead out of a source folder and were followed."""

    files: tuple[TextFile, ...]
    omitted: Mapping[str, int] = field(default_factory=dict)
    leading_out: tuple[str, ...] = ()

    @classmethod
    def of(cls, source: str) -> Corpus:
        """Finds a source's files. Raises DataError if there is no such source, or something of it cannot be read."""
        if source == BUILT_IN:
            return cls(tuple(standard_library()))
        path = local(source, "data.source")
        if glob.has_magic(source) and not os.path.lexists(path):
            return cls._matching(source, path)
        status = _status(source, path)
        if stat.S_ISDIR(status.st_mode):
            return cls._below(source, path)
        if not stat.S_ISREG(status.st_mode):
            raise DataError("data.source", source, "must be a file or a folder", f"name one, or use {BUILT_IN}")
        if is_token_file(path):
            raise DataError("data.source", source, "is what a run made of its text", "name the text itself")
        return cls((text_file(path, path.name, status.st_size),))

    @classmethod
    def _below(cls, source: str, folder: Path) -> Corpus:
        walk = Walk(folder)
        if not walk.files and is_run_folder(os.listdir(folder)):
            raise DataError("data.source", source, "is what a run wrote", "name a folder of text")
        files = sorted(walk.files, key=lambda file: file.name)
        return cls(tuple(files), {reason: n for reason, n in walk.omitted.items() if n}, tuple(walk.leading_out))

    @classmethod
    def _matching(cls, source: str, pattern: Path) -> Corpus:
        """The files that a pattern names, each by its path below the first folder that holds them all."""
        found = [Path(name) for name in sorted(glob.glob(str(pattern), recursive=True)) if os.path.isfile(name)]
        if not found:
            remedy = f"check the pattern (the working directory is {Path.cwd()})"
            raise DataError("data.source", source, "there is no such file", remedy)
        above = Path(os.path.commonpath([path.parent for path in found]))
        return cls(tuple(text_file(path, path.relative_to(above).as_posix(), path.stat().st_size) for path in found))

    @property
    def note(self) -> str:
        """What was left out, in words; empty if nothing was."""
        counts = ", ".join(f"{count} {reason}" for reason, count in sorted(self.omitted.items()))
        return f"left out of data.source: {counts}" if counts else ""

    def no_text(self, source: str) -> DataError:
        """The error for a source of which nothing is left."""
        rule = f"has no text; {self.note}" if self.note else "has no text"
        return DataError("data.source", source, rule, "name a file or folder with text")

    def documents(self) -> Iterator[Iterator[bytes]]:
        """Each document as its pieces. Raises DataError while one is read that cannot be, or has changed."""
        return (file.pieces() for file in self.files)


def _status(source: str, path: Path) -> os.stat_result:
    try:
        return path.stat()
    except PermissionError as error:
        raise unreadable(path, error) from None
    except (OSError, ValueError):
        remedy = f"check the path (the working directory is {Path.cwd()}), or use {BUILT_IN}"
        raise DataError("data.source", source, "there is no such file or folder", remedy) from None

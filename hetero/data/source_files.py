"""The files of one source, as they were when they were found."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import xxhash

from hetero.data.corpus import Corpus
from hetero.data.errors import DataError
from hetero.data.options import DataFormat, WeightedSource
from hetero.data.records.formats import format_of, readable
from hetero.data.text_file import TextFile, unreadable

_CHUNK_BYTES = 1 << 22


class SourceFiles:
    """`files` are read in their order as records of `form`; `fields` are named in the job file, or none."""

    def __init__(self, source: WeightedSource) -> None:
        self._corpus, self._said = Corpus.of(source.source), source.source
        self.form: DataFormat = format_of(source.source, self._corpus.files, source.format or "auto")
        self.files: Sequence[TextFile] = readable(source.source, self._corpus.files, self.form)
        self.fields: Mapping[str, str] = source.fields.names if source.fields else {}
        self._state = self._now()

    @property
    def note(self) -> str:
        """What was left out, in words; empty if nothing was."""
        return self._corpus.note

    def no_text(self) -> DataError:
        """The error for a source of which nothing is left."""
        return self._corpus.no_text(self._said)

    def digest(self) -> str:
        """Of all that they hold. Raises DataError for one that cannot be read."""
        digest = xxhash.xxh3_128(self.form.encode())
        for path in self._paths():
            digest.update(f":{path.stat().st_size}:".encode())
            try:
                with path.open("rb") as file:
                    while chunk := file.read(_CHUNK_BYTES):
                        digest.update(chunk)
            except OSError as error:
                raise unreadable(path, error) from None
        return digest.hexdigest()

    def check_unchanged(self) -> None:
        """Raises DataError if one of them was written since."""
        now = self._now()
        for path, then in self._state.items():
            if now[path] != then:
                rule = "has changed while it was read"
                raise DataError("data.source", str(path), rule, "name data that nobody writes to meanwhile")

    def _paths(self) -> list[Path]:
        if self.form != "megatron":
            return [file.path for file in self.files]
        return [file.path.with_suffix(suffix) for file in self.files for suffix in (".idx", ".bin")]

    def _now(self) -> dict[Path, tuple[int, int] | None]:
        return {path: _state(path) for path in self._paths()}


def _state(path: Path) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
        return found.st_size, found.st_mtime_ns
    except OSError:
        return None

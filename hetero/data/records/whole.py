"""A file that is one document."""

from __future__ import annotations

from collections.abc import Iterator

from hetero.data.records.record import DataRecord, RecordPlace
from hetero.data.text_file import TextFile


def read(file: TextFile, skip: int) -> Iterator[DataRecord]:
    """Its bytes; nothing of an empty file."""
    if not skip and (text := b"".join(file.pieces())):
        yield DataRecord(RecordPlace(file.path, 1), text=text)

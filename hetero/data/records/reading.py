"""The records of one file, from any one on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module

from hetero.data.options import DataFormat
from hetero.data.records.record import DataRecord
from hetero.data.text_file import TextFile

_READERS: dict[DataFormat, str] = {
    "text": "hetero.data.records.whole",
    "jsonl": "hetero.data.records.jsonl",
    "parquet": "hetero.data.records.parquet",
    "arrow": "hetero.data.records.arrow",
    "megatron": "hetero.data.records.megatron",
}
Read = Callable[[TextFile, int], Iterator[DataRecord]]


def records(file: TextFile, form: DataFormat, skip: int = 0) -> Iterator[DataRecord]:
    """All but the first `skip`. Raises DataError or RecordError, with the place, for what cannot be read."""
    read: Read = import_module(_READERS[form]).read
    return read(file, skip)

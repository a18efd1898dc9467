"""The rows of an arrow file, as a stream or with a footer, such as `datasets` keeps."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hetero.data.records.optional import required
from hetero.data.records.record import DataRecord
from hetero.data.records.tables import broken, rows
from hetero.data.text_file import TextFile

_WITH_FOOTER = b"ARROW1"


def read(file: TextFile, skip: int) -> Iterator[DataRecord]:
    """The file is mapped, not read."""
    pyarrow, ipc = required("pyarrow", file.path), required("pyarrow.ipc", file.path)
    try:
        with pyarrow.memory_map(str(file.path)) as mapped:
            yield from rows(file, _batches(ipc, mapped), 0, skip, None)
    except (pyarrow.ArrowException, OSError) as error:
        raise broken(file, 0, error) from None


def _batches(ipc: Any, mapped: Any) -> Iterator[Any]:
    begin = mapped.read(len(_WITH_FOOTER))
    mapped.seek(0)
    if begin == _WITH_FOOTER:
        opened = ipc.open_file(mapped)
        return (opened.get_batch(number) for number in range(opened.num_record_batches))
    return iter(ipc.open_stream(mapped))

"""What parquet and arrow files have in common: tables that come in batches of rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from hetero.data.records.record import DataRecord, RecordPlace
from hetero.data.text_file import TextFile

BATCH_ROWS = 1024


def rows(file: TextFile, batches: Iterator[Any], first: int, skip: int, total: int | None) -> Iterator[DataRecord]:
    """The records of pyarrow's record batches, whose first row is number `first` (from 0), without `skip` of them.
    `total` counts the file's rows where that is known.

    Raises RecordError, at the row after the last good one, where a batch cannot be read."""
    number = first
    while (batch := _next(file, batches, number)) is not None:
        kept = min(skip, batch.num_rows)
        skip -= kept
        for offset, values in enumerate(_values(batch.slice(kept)), number + kept + 1):
            yield DataRecord(RecordPlace(file.path, offset), values, share=offset / total if total else 1.0)
        number += batch.num_rows


def _values(batch: Any) -> list[Mapping[str, Any]]:
    return batch.to_pylist()


def _next(file: TextFile, batches: Iterator[Any], number: int) -> Any:
    import pyarrow

    try:
        return next(batches, None)
    except (pyarrow.ArrowException, OSError) as error:
        raise broken(file, number, error) from None


def broken(file: TextFile, number: int, error: Exception) -> Exception:
    """The error for a file of which the rows from `number` (from 0) on cannot be read."""
    rule = f"cannot be read from here on ({str(error).splitlines()[0]})"
    remedy = "copy the file again, leave it out, or name what it is in data.format"
    return RecordPlace(file.path, number + 1).error(str(file.path), rule, remedy)

"""The rows of a parquet file, one group of them at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hetero.data.records.optional import required
from hetero.data.records.record import DataRecord
from hetero.data.records.tables import BATCH_ROWS, broken, rows
from hetero.data.text_file import TextFile


def read(file: TextFile, skip: int) -> Iterator[DataRecord]:
    """Groups of rows that are skipped whole are not read."""
    pyarrow, parquet = required("pyarrow", file.path), required("pyarrow.parquet", file.path)
    try:
        with parquet.ParquetFile(file.path) as opened:
            groups, first = _from(opened.metadata, skip)
            batches = opened.iter_batches(BATCH_ROWS, row_groups=groups) if groups else iter(())
            yield from rows(file, batches, first, skip - first, opened.metadata.num_rows)
    except (pyarrow.ArrowException, OSError) as error:
        raise broken(file, 0, error) from None


def _from(metadata: Any, skip: int) -> tuple[list[int], int]:
    """The groups from the one on that holds row `skip`, and the number of its first row."""
    first = 0
    for group in range(metadata.num_row_groups):
        if first + metadata.row_group(group).num_rows > skip:
            return list(range(group, metadata.num_row_groups)), first
        first += metadata.row_group(group).num_rows
    return [], first

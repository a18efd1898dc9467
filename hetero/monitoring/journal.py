"""The append-only files of a run: `metrics.jsonl` and `events.jsonl`.

A line is written whole and handed to the system at once, so whoever follows the file sees it. A line cut short by a
crash is closed when the file is opened again, and readers pass over it. They take a line for nothing more than text
that somebody wrote: `parse` answers for its size and shape.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from hetero.foreign import LineSplitter, open_plain, parse_json
from hetero.monitoring.shapes import EVENT, RECORD, Shape, fits

METRICS = "metrics.jsonl"
EVENTS = "events.jsonl"
BLOCK_BYTES = 4 << 20

Record = dict[str, Any]


class Journal:
    """Appends JSON objects to one file, one a line. Owns the file until `close`."""

    def __init__(self, path: Path) -> None:
        torn = path.exists() and _is_torn(path)
        self._file = path.open("ab", buffering=0)
        if torn:
            self._write(b"\n")

    def append(self, record: Mapping[str, Any]) -> None:
        """Write one record; numbers that JSON does not have (NaN, infinities) become null.

        Raises OSError if the disk is full; the file then ends with the record before."""
        self._write(json.dumps(_finite(record), allow_nan=False).encode() + b"\n")

    def _write(self, line: bytes) -> None:
        whole = os.fstat(self._file.fileno()).st_size
        try:
            while line:
                line = line[self._file.write(line) :]
        except OSError:
            with contextlib.suppress(OSError):
                self._file.truncate(whole)
            raise

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class EventJournal(Journal):
    """`events.jsonl`: what happened beside the steps, numbered from 0 over all starts of the run."""

    def __init__(self, path: Path) -> None:
        self._seq = max((event.get("seq", -1) for event in read(path, EVENT)), default=-1) + 1
        super().__init__(path)

    def write(
        self, kind: str, *, step: int | None = None, epoch: int | None = None, pool: str | None = None,
        rank: str | None = None, **data: Any,
    ) -> Record:  # fmt: skip
        """Append one event and return it. `data` is plain JSON data."""
        event = {"seq": self._seq, "time": time.time(), "step": step, "epoch": epoch, "kind": kind}
        event |= {"pool": pool, "rank": rank, "data": data}
        self.append(event)
        self._seq += 1
        return event


def read(path: Path, shape: Shape = RECORD) -> Iterator[Record]:
    """The whole records of a journal, oldest first; none if there is no file."""
    if not path.exists():
        return
    lines = LineSplitter()
    with open_plain(path) as file:
        while block := file.read(BLOCK_BYTES):
            yield from (record for line in lines.add(block) if (record := parse(line, shape)) is not None)


def parse(line: bytes, shape: Shape) -> Record | None:
    """The record that a line holds; None where it is not whole, or no line that a run writes."""
    try:
        record = parse_json(line)
    except ValueError:
        return None
    return record if fits(record, shape) else None


def _is_torn(path: Path) -> bool:
    with open_plain(path) as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(size - 1, 0))
        return file.read() not in (b"", b"\n")


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value

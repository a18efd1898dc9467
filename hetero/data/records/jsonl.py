"""A JSON object on each line, plain or compressed by gzip or Zstandard."""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Iterator
from typing import IO, Any

from hetero.data.errors import RecordError
from hetero.data.records.optional import required
from hetero.data.records.record import DataRecord, RecordPlace
from hetero.data.records.zstd_file import ZstdDamaged, ZstdFile
from hetero.data.text_file import TextFile, unreadable

_BUFFER_BYTES = 1 << 20


def read(file: TextFile, skip: int) -> Iterator[DataRecord]:
    """A record of each line that is not blank; `skip` counts records, and passes over them unparsed."""
    size = max(file.size, 1)
    try:
        with file.path.open("rb", _BUFFER_BYTES) as raw, _unpacked(file, raw) as lines:
            for number, line in _lines(file, lines):
                if line.isspace():
                    continue
                if skip:
                    skip -= 1
                    continue
                place = RecordPlace(file.path, number)
                yield DataRecord(place, _object(line, place), share=raw.tell() / size)
    except OSError as error:
        raise unreadable(file.path, error) from None


def _unpacked(file: TextFile, raw: IO[bytes]) -> IO[bytes]:
    match file.path.suffix:
        case ".gz":
            return io.BufferedReader(gzip.GzipFile(fileobj=raw), _BUFFER_BYTES)
        case ".zst":
            return io.BufferedReader(ZstdFile(raw, required("zstandard", file.path)), _BUFFER_BYTES)
        case _:
            return raw


def _lines(file: TextFile, lines: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """Numbered from 1. Raises RecordError at the line in which a compressed file breaks off or is damaged."""
    number = 0
    try:
        for line in lines:
            number += 1
            yield number, line
    except EOFError:
        raise _broken(file, number + 1, "breaks off before its end") from None
    except (gzip.BadGzipFile, zlib.error, ZstdDamaged) as error:
        raise _broken(file, number + 1, f"is damaged ({error})") from None


def _broken(file: TextFile, number: int, how: str) -> RecordError:
    return RecordPlace(file.path, number).error(str(file.path), f"the file {how}", "copy it again, or leave it out")


def _object(line: bytes, place: RecordPlace) -> dict[str, Any]:
    try:
        value = json.loads(line.rstrip())
    except UnicodeDecodeError as error:
        raise place.error(_shown(line), f"is not UTF-8 ({error.reason})", "write the file anew as UTF-8") from None
    except (ValueError, RecursionError) as error:
        what = f"{error.msg} at column {error.colno}" if isinstance(error, json.JSONDecodeError) else str(error)
        rule = f"every line must be one JSON object: {what}"
        raise place.error(_shown(line), rule, "correct or remove the line") from None
    if not isinstance(value, dict):
        rule = f"every line must be one JSON object, and this is a {type(value).__name__}"
        raise place.error(_shown(line), rule, "correct or remove the line")
    return value


def _shown(line: bytes) -> str:
    text = line.decode("utf-8", "replace").strip()
    return text if len(text) <= 80 else f"{text[:77]}..."

"""Reads a `.wandb` file: a header of 7 bytes, then records in the log format of LevelDB, each a protobuf message."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

BLOCK = 32768
FILE_HEADER = 7
RECORD_HEADER = struct.Struct("<IHB")
LAST_PARTS = (1, 4)
"""A record is one full part, or a first, middle ones and a last."""


def records(path: Path) -> Iterator[bytes]:
    data, place, record = path.read_bytes(), FILE_HEADER, b""
    assert data.startswith(b":W&B")
    while place + RECORD_HEADER.size <= len(data):
        if BLOCK - place % BLOCK < RECORD_HEADER.size:  # no header begins in the rest of a block
            place += BLOCK - place % BLOCK
            continue
        _, length, kind = RECORD_HEADER.unpack_from(data, place)
        place += RECORD_HEADER.size
        record += data[place : place + length]
        place += length
        if kind in LAST_PARTS:
            yield record
            record = b""

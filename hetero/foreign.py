"""Files that somebody else may have written: a run directory that was copied, a checkpoint from afar. Whatever they
hold, reading them takes bounded time and memory."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

LONGEST_LINE_BYTES = 1 << 20
MOST_VALUES = 50_000
"""In one line, or one small file."""
DEEPEST = 50
MOST_DIGITS = 300
"""Of a whole number: what is longer is beyond any float."""


class NotPlain(OSError):
    """Not a plain file, or one that is larger than any that a run writes."""


def open_plain(path: Path) -> BinaryIO:
    """Open to read. Raises OSError, NotPlain for anything but a file: a pipe keeps its reader waiting, a device never
    ends."""
    number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise NotPlain(f"{path} is not a plain file")
    return os.fdopen(number, "rb")


def read_plain(path: Path, most_bytes: int) -> bytes:
    """The whole of a small file. Raises OSError, NotPlain for one that is none or not small."""
    with open_plain(path) as file:
        data = file.read(most_bytes + 1)
    if len(data) > most_bytes:
        raise NotPlain(f"{path} has more than {most_bytes} bytes")
    return data


class NotPlainData(ValueError):
    """No JSON, or more than any that a run writes."""


class LineSplitter:
    """Cuts blocks of bytes into lines; one that is too long comes as `TOO_LONG`."""

    TOO_LONG = b"\0"

    def __init__(self) -> None:
        self._rest = b""
        self._skipping = False

    def add(self, block: bytes) -> Iterator[bytes]:
        """The lines that end in the block; what follows the last one waits for its end."""
        *lines, self._rest = (self._rest + block).split(b"\n")
        if lines and self._skipping:
            lines[0], self._skipping = self.TOO_LONG, False
        if len(self._rest) > LONGEST_LINE_BYTES:
            self._rest, self._skipping = b"", True
        return (line if len(line) <= LONGEST_LINE_BYTES else self.TOO_LONG for line in lines)


def parse_json(data: bytes) -> Any:
    """Raises NotPlainData for what is no JSON, lies too deep, holds too much, or has numbers that no float can hold."""
    try:
        value = _DECODER.decode(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise NotPlainData(str(error)) from None
    check_bounded(value)
    return value


def check_bounded(value: Any, most_values: int = MOST_VALUES) -> None:
    """Raises NotPlainData for plain data that lies too deep or holds too much, counted as it unfolds."""
    level, values = [value], 0
    for _ in range(DEEPEST):
        holders = [one for one in level if isinstance(one, (dict, list))]
        values += sum(map(len, holders))
        if values > most_values:  # before they are unfolded: few holders may stand for billions of values
            raise NotPlainData("too many values")
        level = [part for one in holders for part in _parts(one)]
        if not level:
            return
    raise NotPlainData("too deep")


def _parts(one: dict[str, Any] | list[Any]) -> Any:
    return one.values() if isinstance(one, dict) else one


def _whole_number(text: str) -> int:
    if len(text) > MOST_DIGITS:
        raise ValueError("too long a number")
    return int(text)


def _number(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError("too large a number")
    return value


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no JSON")


_DECODER = json.JSONDecoder(parse_int=_whole_number, parse_float=_number, parse_constant=_no_number)

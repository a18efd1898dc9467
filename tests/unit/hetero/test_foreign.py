"""Files that others wrote, against a reader that must end."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path

import pytest

from hetero.foreign import (
    LONGEST_LINE_BYTES,
    LineSplitter,
    NotPlain,
    NotPlainData,
    check_bounded,
    open_plain,
    parse_json,
    read_plain,
)


def test_a_pipe_keeps_nobody_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero"), tmp_path):
        with pytest.raises(NotPlain):
            open_plain(path)


def test_a_small_file_is_small(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert read_plain(tmp_path / "a", 3) == b"abc"
    with pytest.raises(NotPlain):
        read_plain(tmp_path / "a", 2)


@pytest.mark.parametrize("block", [1, 7, 1 << 20])
def test_lines_come_whole_from_any_blocks(block: int) -> None:
    text, lines = b"one\ntwo\n" + b"x" * 40 + b"\nrest", LineSplitter()
    found = [line for at in range(0, len(text), block) for line in lines.add(text[at : at + block])]
    assert found == [b"one", b"two", b"x" * 40]
    assert list(lines.add(b" of it\n")) == [b"rest of it"]


@pytest.mark.parametrize("block", [1 << 16, LONGEST_LINE_BYTES + 2, 4 << 20])
def test_a_line_without_an_end_is_not_kept(block: int) -> None:
    lines = LineSplitter()
    for _ in range(40):
        assert list(lines.add(b"x" * block)) == []
        assert len(lines._rest) <= LONGEST_LINE_BYTES
    assert list(lines.add(b"x\nnext\n")) == [LineSplitter.TOO_LONG, b"next"]


@pytest.mark.parametrize(
    "text",
    [
        b"[" * 100_000,
        b"[" * 60 + b"]" * 60,
        b"9" * 5000,
        b'{"a": ' + b"9" * 301 + b"}",
        b"1e999",
        b"-1e999",
        b"NaN",
        b"Infinity",
        b"[" + b"1," * 60_000 + b"1]",
        b"\xff",
        b"",
    ],
)
def test_json_that_no_run_writes(text: bytes) -> None:
    with pytest.raises(NotPlainData):
        parse_json(text)


def test_json_that_a_run_writes() -> None:
    assert parse_json(b'{"a": [1, -2.5e3, null, true, "x"]}') == {"a": [1, -2500.0, None, True, "x"]}


def test_what_unfolds_to_too_much() -> None:
    laughs: list = ["ha"]
    for _ in range(40):
        laughs = [laughs] * 9
    circle: list = []
    circle.append(circle)
    for value in (laughs, circle):
        with pytest.raises(NotPlainData):
            check_bounded(value)


def test_what_would_unfold_to_too_much_is_not_unfolded() -> None:
    """As YAML's aliases make it, of few bytes: a list of ten million would take 80 MB."""
    wide = [0] * 40_000
    tracemalloc.start()
    try:
        with pytest.raises(NotPlainData, match="too many"):
            check_bounded([wide] * 250)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()

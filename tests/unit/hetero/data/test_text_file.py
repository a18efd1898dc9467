"""A file is read as it was found, or refused by name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hetero.data import text_file
from hetero.data.errors import DataError
from hetero.data.text_file import TextFile


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TextFile:
    monkeypatch.setattr(text_file, "_CHUNK_BYTES", 4)
    path = tmp_path / "text"
    path.write_bytes(b"0123456789")
    return TextFile("text", path, 10)


def test_its_pieces_are_all_of_it(file: TextFile) -> None:
    assert list(file.pieces()) == [b"0123", b"4567", b"89"]


def test_a_file_that_grows_with_each_piece_ends_the_reading(file: TextFile) -> None:
    """As the tokens would that are made of it."""
    read: list[bytes] = []
    with pytest.raises(DataError, match="has grown while it was read, from 10 bytes") as raised:
        read.extend(_growing(file))
    assert len(b"".join(read)) <= file.size
    assert (raised.value.key, raised.value.value) == ("data.source", str(file.path))


def _growing(file: TextFile) -> Iterator[bytes]:
    for piece in file.pieces():
        with file.path.open("ab") as more:
            more.write(piece * 2)
        yield piece


def test_a_file_that_shrinks_is_refused(file: TextFile) -> None:
    file.path.write_bytes(b"0123")
    with pytest.raises(DataError, match="has shrunk while it was read"):
        list(file.pieces())


def test_a_file_that_is_gone_is_refused_by_name(file: TextFile) -> None:
    file.path.unlink()
    with pytest.raises(DataError, match="cannot be read") as raised:
        list(file.pieces())
    assert raised.value.value == str(file.path)

"""Records of every kind of file, from any one on, and what is said of a file that is damaged."""

from __future__ import annotations

import gzip
import json
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.ipc
import pyarrow.parquet
import pytest
import zstandard

from hetero.data.errors import DataError, RecordError
from hetero.data.options import DataFormat
from hetero.data.records.reading import records
from hetero.data.text_file import TextFile

ROWS = [{"text": f"number {number}", "n": number} for number in range(7)]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()


def _jsonl(path: Path) -> None:
    path.write_bytes(LINES)


def _gzip(path: Path) -> None:
    path.write_bytes(gzip.compress(LINES))


def _zstd(path: Path) -> None:
    """Two frames, as pzstd writes."""
    cut = LINES.index(b"\n") + 9
    path.write_bytes(zstandard.compress(LINES[:cut]) + zstandard.compress(LINES[cut:]))


def _parquet(path: Path) -> None:
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), path, row_group_size=3)


def _arrow_file(path: Path) -> None:
    table = pyarrow.Table.from_pylist(ROWS)
    with pyarrow.ipc.new_file(path, table.schema) as file:
        file.write_table(table, max_chunksize=3)


def _arrow_stream(path: Path) -> None:
    table = pyarrow.Table.from_pylist(ROWS)
    with pyarrow.ipc.new_stream(path, table.schema) as file:
        file.write_table(table, max_chunksize=3)


KINDS: list[tuple[str, DataFormat, Callable[[Path], None]]] = [
    ("a.jsonl", "jsonl", _jsonl),
    ("a.jsonl.gz", "jsonl", _gzip),
    ("a.jsonl.zst", "jsonl", _zstd),
    ("a.parquet", "parquet", _parquet),
    ("a.arrow", "arrow", _arrow_file),
    ("b.arrow", "arrow", _arrow_stream),
]


def _file(path: Path) -> TextFile:
    return TextFile(path.name, path, path.stat().st_size)


@pytest.mark.parametrize(("name", "form", "write"), KINDS, ids=lambda kind: getattr(kind, "__name__", kind))
@pytest.mark.parametrize("skip", [0, 2, 3, 5, 7])
def test_records_come_in_order_from_any_one_on(
    tmp_path: Path, name: str, form: DataFormat, write: Callable[[Path], None], skip: int
) -> None:
    write(tmp_path / name)
    found = list(records(_file(tmp_path / name), form, skip))
    assert [record.values for record in found] == ROWS[skip:]
    assert [record.place.number for record in found] == list(range(skip + 1, 8))
    assert all(0 < record.share <= 1 for record in found)


@pytest.mark.parametrize(("name", "form", "write"), KINDS[1:], ids=lambda kind: getattr(kind, "__name__", kind))
def test_a_file_that_is_cut_short_is_refused_by_its_name(
    tmp_path: Path, name: str, form: DataFormat, write: Callable[[Path], None]
) -> None:
    """Also within the last frame, of which Zstandard's own reader says nothing."""
    write(path := tmp_path / name)
    path.write_bytes(path.read_bytes()[:-12])
    with pytest.raises(RecordError) as raised:
        list(records(_file(path), form))
    assert raised.value.file == str(path)
    assert raised.value.line is not None


@pytest.mark.parametrize(("name", "form", "write"), KINDS[1:5], ids=lambda kind: getattr(kind, "__name__", kind))
def test_a_file_with_other_bytes_in_it_is_refused(
    tmp_path: Path, name: str, form: DataFormat, write: Callable[[Path], None]
) -> None:
    write(path := tmp_path / name)
    size = path.stat().st_size
    path.write_bytes(b"\x00\xff" * (size // 2))
    with pytest.raises(RecordError, match=r"damaged|cannot be read"):
        list(records(_file(path), form))


@pytest.mark.parametrize(
    ("line", "rule"),
    [
        ('{"text": "a"', "must be one JSON object: .* at column 13"),
        ("[1]", "this is a list"),
        ("nonsense", "must be one JSON object"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, rule: str) -> None:
    (tmp_path / "a.jsonl").write_text(f'{{"text": "one"}}\n\n{line}\n')
    with pytest.raises(RecordError, match=rule) as raised:
        list(records(_file(tmp_path / "a.jsonl"), "jsonl"))
    assert (raised.value.file, raised.value.line) == (str(tmp_path / "a.jsonl"), 3)


def test_a_line_that_is_not_utf_8(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "gr\xfc\xdfe"}\n')
    with pytest.raises(RecordError, match="is not UTF-8"):
        list(records(_file(tmp_path / "a.jsonl"), "jsonl"))


# Megatron


def _megatron(folder: Path) -> Path:
    """Documents [1, 2, 3], [] and [4] [5, 6], the last of two sequences."""
    np.array([1, 2, 3, 4, 5, 6], "<u2").tofile(folder / "a.bin")
    sizes, begins, documents = np.array([3, 1, 2], "<i4"), np.array([0, 6, 8], "<i8"), np.array([0, 1, 1, 3], "<i8")
    head = b"MMIDIDX\x00\x00" + struct.pack("<QBQQ", 1, 8, 3, 4)
    (folder / "a.idx").write_bytes(head + sizes.tobytes() + begins.tobytes() + documents.tobytes())
    return folder / "a.idx"


@pytest.mark.parametrize("name", ["a.idx", "a.bin"])
def test_documents_of_megatron(tmp_path: Path, name: str) -> None:
    _megatron(tmp_path)
    found = list(records(_file(tmp_path / name), "megatron"))
    assert [record.tokens.tolist() for record in found] == [[1, 2, 3], [], [4, 5, 6]]  # type: ignore[union-attr]
    (last,) = records(_file(tmp_path / name), "megatron", 2)
    assert last.tokens is not None
    assert last.tokens.tolist() == [4, 5, 6]


def test_megatron_files_that_do_not_fit_together(tmp_path: Path) -> None:
    index = _megatron(tmp_path)
    (tmp_path / "a.bin").write_bytes(b"\x01\x00")
    with pytest.raises(DataError, match="holds 1 tokens"):
        list(records(_file(index), "megatron"))
    index.write_bytes(index.read_bytes()[:-9])
    with pytest.raises(DataError, match="is no index of a Megatron data set"):
        list(records(_file(index), "megatron"))

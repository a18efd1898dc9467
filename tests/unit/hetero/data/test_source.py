"""From a source to a file of tokens."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hetero.data import built_in, text_file
from hetero.data.built_in import BUILT_IN_BYTES
from hetero.data.errors import DataError
from hetero.data.options import DataOptions
from hetero.data.source import END_OF_DOCUMENT, Prepared, prepare
from tests.unit.hetero.data.refused import not_listed


def _prepare(tmp_path: Path, source: Path | str, seq_len: int = 4) -> Prepared:
    return prepare(DataOptions(source=str(source), seq_len=seq_len), tmp_path / "made")


def _tokens(prepared: Prepared) -> list[int]:
    return np.fromfile(prepared.path, "<u2").tolist()


def test_a_file_is_its_bytes_and_an_end_whatever_its_encoding(tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_bytes(b"ab\xff\x00\n")
    prepared = _prepare(tmp_path, text)
    assert _tokens(prepared) == [97, 98, 255, 0, 10, END_OF_DOCUMENT]
    assert (prepared.n_tokens, prepared.vocab) == (6, 257)
    assert prepared.unigram_entropy == pytest.approx(math.log(6))


def test_a_folder_is_its_files_in_order_without_hidden_and_empty_ones(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    for name, text in {"b": "2", "a/z": "1", "c": "", ".git/x": "9", ".hidden": "9"}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    assert _tokens(_prepare(tmp_path, folder, seq_len=3)) == [ord("1"), 256, ord("2"), 256]


def test_a_document_in_pieces_is_one_document(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_file, "_CHUNK_BYTES", 2)
    (tmp_path / "text").write_text("abcde")
    assert _tokens(_prepare(tmp_path, tmp_path / "text")) == [*b"abcde", 256]


def test_entropy_of_one_symbol_apart_from_the_end(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("a" * 99)
    wanted = -0.99 * math.log(0.99) - 0.01 * math.log(0.01)
    assert _prepare(tmp_path, tmp_path / "text").unigram_entropy == pytest.approx(wanted)


def test_fingerprint_follows_text_and_length_alone(tmp_path: Path) -> None:
    for name, text in {"one": "some text", "same": "some text", "other": "some tex!"}.items():
        (tmp_path / name).write_text(text)
    one = _prepare(tmp_path, tmp_path / "one").fingerprint
    assert _prepare(tmp_path / "elsewhere", tmp_path / "same").fingerprint == one
    assert _prepare(tmp_path, tmp_path / "other").fingerprint != one
    assert _prepare(tmp_path, tmp_path / "one", seq_len=5).fingerprint != one


def test_built_in_source_is_python_and_the_same_each_time(tmp_path: Path) -> None:
    first = _prepare(tmp_path / "a", "python-stdlib", seq_len=256)
    assert first.fingerprint == _prepare(tmp_path / "b", "python-stdlib", seq_len=256).fingerprint
    assert BUILT_IN_BYTES / 2 < first.n_tokens < 1.01 * BUILT_IN_BYTES
    assert 2.9 < first.unigram_entropy < 3.6
    assert b"\nimport " in np.fromfile(first.path, "<u2", 1 << 16).astype(np.uint8).tobytes()


def test_the_built_in_source_is_whole_or_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A link to nowhere is no source text; a folder that cannot be listed hides some."""
    (tmp_path / "a.py").write_text("import b\n")
    (tmp_path / "z.py").symlink_to("nowhere.py")
    monkeypatch.setattr(built_in.sysconfig, "get_path", lambda _: str(tmp_path))
    assert _tokens(_prepare(tmp_path, "python-stdlib")) == [*b"import b\n", 256]
    (tmp_path / "folder").mkdir()
    with not_listed(tmp_path / "folder"), pytest.raises(DataError, match="cannot be read") as raised:
        _prepare(tmp_path, "python-stdlib")
    assert raised.value.value == str(tmp_path / "folder")


def test_missing_path_names_it_and_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file or folder") as raised:
        _prepare(tmp_path, tmp_path / "absent")
    assert raised.value.key == "data.source"
    assert "python-stdlib" in raised.value.remedy


@pytest.mark.parametrize("make", [lambda path: path.write_text(""), lambda path: path.mkdir()])
def test_source_without_text(tmp_path: Path, make: object) -> None:
    make(tmp_path / "empty")  # type: ignore[operator]
    with pytest.raises(DataError, match="has no text"):
        _prepare(tmp_path, tmp_path / "empty")


def test_sequence_longer_than_the_text_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("abc")
    with pytest.raises(DataError, match="need 5 tokens, the source has 4") as raised:
        _prepare(tmp_path, tmp_path / "text", seq_len=4)
    assert (raised.value.key, raised.value.value) == ("data.seq_len", 4)
    assert "seq_len 3" in raised.value.remedy
    assert list((tmp_path / "made").iterdir()) == []
    assert _prepare(tmp_path, tmp_path / "text", seq_len=3).n_tokens == 4


def test_what_was_left_out_is_said_with_the_tokens_and_with_their_absence(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / ".hidden").touch()
    with pytest.raises(DataError, match=r"has no text; left out of data\.source: 1 hidden"):
        _prepare(tmp_path, folder)
    (folder / "text").write_text("some text")
    assert _prepare(tmp_path, folder).note == "left out of data.source: 1 hidden"
    assert _prepare(tmp_path, folder / "text").note == ""


@pytest.mark.slow
def test_preparing_needs_no_torch() -> None:
    modules = "hetero.data.source, hetero.models.families.llama, hetero.models.options"
    code = f"import {modules}, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

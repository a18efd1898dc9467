from __future__ import annotations

import fcntl
import os
from pathlib import Path
from unittest import mock

import pytest

from hetero.checkpoint.durable import checksum, file_in_place, make_folder, remove_tree, write_durably


def test_a_file_is_replaced_and_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_durably(path, b"old")
    with path.open("rb") as reader:
        write_durably(path, b"new and longer")
        assert reader.read() == b"old"
    assert path.read_bytes() == b"new and longer"
    assert list(tmp_path.iterdir()) == [path]


def test_a_name_is_given_only_to_bytes_that_are_on_the_disk(tmp_path: Path) -> None:
    order: list[str] = []
    replace = os.replace
    synced = mock.patch.object(os, "fsync", lambda handle: order.append(os.readlink(f"/proc/self/fd/{handle}")))
    renamed = mock.patch.object(os, "replace", lambda *paths: (order.append("replace"), replace(*paths)))
    with synced, renamed:
        write_durably(tmp_path / "file", b"bytes")
    assert order == [str(tmp_path / "file.tmp"), "replace", str(tmp_path)]


def test_a_file_that_others_write_too_is_never_read(tmp_path: Path) -> None:
    for at in range(2):
        with file_in_place(tmp_path / "file", 2) as file:
            assert fcntl.fcntl(file, fcntl.F_GETFL) & os.O_ACCMODE == os.O_WRONLY
            os.pwrite(file, b"ab"[at : at + 1], at)
    assert (tmp_path / "file").read_bytes() == b"ab"


def test_a_failing_disk_is_not_hidden(tmp_path: Path) -> None:
    with mock.patch.object(os, "fsync", side_effect=OSError("no space")), pytest.raises(OSError, match="no space"):
        write_durably(tmp_path / "file", b"bytes")
    assert not (tmp_path / "file").exists()


def test_folders_are_made_and_removed_once_or_twice(tmp_path: Path) -> None:
    for _ in range(2):
        make_folder(tmp_path / "a" / "b")
    (tmp_path / "a" / "b" / "file").write_bytes(b"")
    for _ in range(2):
        remove_tree(tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def test_a_checksum_covers_files_of_several_chunks(tmp_path: Path) -> None:
    data = bytearray(3 << 20)
    (tmp_path / "one").write_bytes(data)
    data[-1] ^= 1
    (tmp_path / "other").write_bytes(data)
    assert checksum(tmp_path / "one") != checksum(tmp_path / "other")

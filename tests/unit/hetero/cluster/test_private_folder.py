"""Where temporary files of a run lie, no other user enters, nor puts the place aside."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hetero.cluster import private_folder as subject
from hetero.cluster.errors import ClusterError
from hetero.cluster.private_folder import UNMAPPED, kept_folders, passing_folder, private_folder

ANOTHER = 12345
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to another user")


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What TMPDIR names."""
    place = tmp_path / "told"
    place.mkdir(mode=0o700)
    monkeypatch.setenv("TMPDIR", str(place))
    monkeypatch.setattr("tempfile.tempdir", None)
    return place


@pytest.fixture
def made() -> Iterator[Callable[..., Path]]:
    folders: list[Path] = []

    def make(*arguments: int) -> Path:
        folders.append(private_folder(*arguments))
        return folders[-1]

    yield make
    for folder in folders:
        shutil.rmtree(folder)


def test_it_is_this_users_alone(told: Path, made: Callable[..., Path]) -> None:
    before = os.umask(0)
    try:
        folder = made()
    finally:
        os.umask(before)
    assert folder.parent == told.resolve()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_it_is_gone_afterwards(told: Path) -> None:
    with passing_folder() as folder:
        (folder / "below").mkdir()
    assert list(told.iterdir()) == []


def test_a_long_path_is_left_for_a_short_one(told: Path, made: Callable[..., Path]) -> None:
    assert made(len(str(told.resolve()))).parent == Path("/tmp").resolve()


def test_a_missing_one_for_one_that_is_there(told: Path, made: Callable[..., Path]) -> None:
    told.rmdir()
    assert made().is_dir()


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o702], ids=oct)
def test_where_others_can_rename_it_it_is_not(told: Path, made: Callable[..., Path], mode: int) -> None:
    told.chmod(mode)
    assert made().parent == Path("/tmp").resolve()


def test_nor_below_such_a_place(told: Path, made: Callable[..., Path]) -> None:
    told.parent.chmod(0o777)
    assert made().parent == Path("/tmp").resolve()


def test_where_all_may_write_and_each_renames_his_own_it_can_be(told: Path, made: Callable[..., Path]) -> None:
    told.chmod(0o1777)
    assert made().parent == told.resolve()


@as_root
def test_in_another_users_folder_it_is_not(told: Path, made: Callable[..., Path]) -> None:
    os.chown(told, ANOTHER, -1)
    assert made().parent == Path("/tmp").resolve()
    os.chown(told, UNMAPPED, -1)
    assert made().parent == told.resolve()


def test_without_a_place_one_is_asked_for(told: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told.chmod(0o777)
    monkeypatch.setattr(subject, "_places", lambda: iter([told]))
    with pytest.raises(ClusterError, match="others may rename") as caught:
        private_folder()
    assert caught.value.key == "TMPDIR"
    assert list(told.iterdir()) == []


def test_nor_where_modes_do_not_hold(told: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on file systems of Windows."""
    monkeypatch.setattr(subject, "_places", lambda: iter([told]))
    monkeypatch.setattr(subject, "is_private", lambda _: False)
    with pytest.raises(ClusterError, match="modes of folders do not hold"):
        private_folder()
    assert list(told.iterdir()) == []


def test_one_that_is_kept_is_found_again_by_whose_it_is(told: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "_places", lambda: iter([told]))
    (told / "kept-of-others").mkdir(mode=0o755)
    (told / "kept-elsewhere").symlink_to(told)
    (kept,) = kept_folders("kept-")
    assert kept_folders("kept-") == [kept]
    another = private_folder(prefix="kept-")
    assert kept_folders("kept-") == sorted([kept, another]), "two may have been the first at the same time"
    told.chmod(0o777)
    with pytest.raises(ClusterError, match="others may rename"):
        kept_folders("kept-")

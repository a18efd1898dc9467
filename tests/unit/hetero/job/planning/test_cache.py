"""What is measured is kept, and a run goes on where that is not possible."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from hetero.job.planning.cache import MeasurementCache, cache_folder

ROWS: list[dict[str, Any]] = [{"pool": "a", "forward_s": 0.5}]


class Cache:
    def __init__(self) -> None:
        self.measured, self.told = 0, list[str]()

    def rows(self, *facts: Any) -> list[dict[str, Any]]:
        """Of a run that asks for each of the `facts`, in turn."""
        cache = MeasurementCache(self.told.append)
        for fact in facts or ("a",):
            assert cache.rows(fact, self._measure) == ROWS
        return ROWS

    def _measure(self) -> list[dict[str, Any]]:
        self.measured += 1
        return ROWS


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cache:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("os.getuid", lambda: 2**31 - 5)  # nobody's
    return Cache()


def test_the_same_facts_are_measured_once(cache: Cache) -> None:
    for _ in range(2):
        cache.rows("a", "b", "a")
    assert (cache.measured, cache.told) == (2, [])


@pytest.mark.parametrize("damage", [b"", b"[]", b"{}", b"null", b'{"rows": 1, "digest": 2}', b"\xff\x00", None])
def test_a_damaged_file_is_measured_and_written_anew(cache: Cache, damage: bytes | None) -> None:
    cache.rows()
    (file,) = cache_folder().iterdir()
    file.write_bytes(file.read_bytes().replace(b"0.5", b"9.5") if damage is None else damage)
    cache.rows()
    cache.rows()
    assert (cache.measured, cache.told) == (2, [])


@pytest.mark.parametrize("broken", ["no home", "a file", "cannot be read"])
def test_without_a_place_the_run_goes_on_and_is_told_once(
    broken: str, cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if broken == "no home":
        monkeypatch.delenv("XDG_CACHE_HOME")
        monkeypatch.delenv("HOME")
    elif broken == "a file":
        (tmp_path / "cache").touch()
    else:
        monkeypatch.setenv("XDG_CACHE_HOME", "/proc/1")
    cache.rows("a", "b")
    (note,) = cache.told
    assert "not kept" in note
    assert ("set HOME" in note) == (broken == "no home")


@pytest.mark.parametrize("place", ["", "~/.cache", "relative"])
def test_a_place_that_the_rules_do_not_know_is_the_home(
    place: str, cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", place)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    cache.rows()
    assert os.listdir(tmp_path) == ["home"]
    assert cache_folder() == tmp_path / "home" / ".cache" / "hetero" / "calibration"


def test_what_could_not_be_measured_is_tried_again(cache: Cache) -> None:
    assert MeasurementCache(cache.told.append).rows("a", list) == []
    assert cache.rows() == ROWS

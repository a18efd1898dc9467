"""Where a model's directory lies: a path, or a name in the hub's local cache."""

from __future__ import annotations

from pathlib import Path

import pytest

from hetero.huggingface.errors import HfError
from hetero.huggingface.hub import cache, place

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "XDG_CACHE_HOME", "HF_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


def _cached(hub: Path, commit: str = COMMIT, main: str | None = COMMIT) -> Path:
    model = hub / "models--org--name"
    (model / "snapshots" / commit).mkdir(parents=True)
    if main is not None:
        (model / "refs").mkdir(exist_ok=True)
        (model / "refs" / "main").write_text(main)
    return model / "snapshots" / commit


def test_a_folder_wins(tmp_path: Path) -> None:
    assert place(str(tmp_path)) == tmp_path


def test_a_name_is_looked_up_where_the_variables_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache() == tmp_path / ".cache/huggingface/hub"
    default = _cached(cache())
    assert place("org/name") == default
    for name, hub in (("XDG_CACHE_HOME", "huggingface/hub"), ("HF_HOME", "hub"), ("HF_HUB_CACHE", "")):
        monkeypatch.setenv(name, str(tmp_path / name))
        there = _cached(tmp_path / name / hub)
        assert place("org/name") == there


def test_without_a_branch_the_only_snapshot_is_taken(tmp_path: Path) -> None:
    only = _cached(cache(), main=None)
    assert place("org/name") == only
    _cached(cache(), COMMIT[::-1], main=None)
    with pytest.raises(HfError):
        place("org/name")


@pytest.mark.parametrize("main", ["../../..", "", "fedcba9876543210"])
def test_a_branch_that_leads_to_no_snapshot(main: str) -> None:
    _cached(cache(), main=main)
    with pytest.raises(HfError):
        place("org/name")


def test_what_is_missing_is_named_with_where_to_copy_it(tmp_path: Path) -> None:
    with pytest.raises(HfError) as raised:
        place("org/name")
    assert str(tmp_path / ".cache/huggingface/hub/models--org--name") in raised.value.rule
    assert "models--org--name of another machine's cache" in raised.value.remedy


@pytest.mark.parametrize("text", ["./nowhere", "/nowhere", "a/b/c", "../x", "x" * 5000])
def test_a_path_is_no_name(text: str) -> None:
    with pytest.raises(HfError, match="there is no such folder;"):
        place(text)

"""What a run records is its user's alone."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from hetero import run as training
from hetero.job.file.load import load_job
from hetero.job.planning.cache import MeasurementCache
from hetero.private import private_files
from tests.unit.hetero.test_masking import JOB, SECRET


@pytest.fixture(params=[0o022, 0o000, 0o277], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def modes(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): oct(stat.S_IMODE(path.stat().st_mode)) for path in folder.rglob("*")}


def test_files_and_folders_are_private_and_a_stricter_umask_stays(umask: int, tmp_path: Path) -> None:
    with private_files():
        (tmp_path / "new").mkdir()
        (tmp_path / "file").touch()
    strict = 0o077 | umask
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o777 & ~strict
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o666 & ~strict
    assert os.umask(umask) == umask


@contextlib.contextmanager
def no_ray(address: str | None) -> Iterator[None]:
    raise RuntimeError("there is no Ray in this test")
    yield


def broken_off(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that has written what it writes before Ray starts."""
    monkeypatch.setattr(training, "ray_runtime", no_ray)
    (run_dir.parent / "job.yaml").write_text(yaml.safe_dump({**JOB, "monitor": {}}))
    before = os.umask(0o022)
    try:
        with pytest.raises(RuntimeError):
            training.train(
                load_job(run_dir.parent / "job.yaml", ["data.source=" + str(run_dir.parent / "text")]), run_dir
            )
    finally:
        os.umask(before)


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    (tmp_path / "text").write_text("some text " * 2000)
    return tmp_path / "run"


def test_a_run_directory_is_private_and_holds_no_secrets(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken_off(run_dir, monkeypatch)
    assert stat.S_IMODE(run_dir.stat().st_mode) == 0o700
    assert modes(run_dir) == {
        "job.yaml": "0o600", "events.jsonl": "0o600", "data": "0o700", "data/tokens.bin": "0o600",
    }  # fmt: skip
    assert not [path for path in run_dir.glob("*.*") if SECRET in path.read_text()]
    assert load_job(run_dir / "job.yaml").pools["a"].env.public == ["MODE"]


def test_a_folder_that_was_there_keeps_its_mode(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_dir.mkdir()
    run_dir.chmod(0o755)
    broken_off(run_dir, monkeypatch)
    assert stat.S_IMODE(run_dir.stat().st_mode) == 0o755
    assert modes(run_dir)["job.yaml"] == "0o600"


def test_measurements_are_kept_privately(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    MeasurementCache(print).rows({"a": 1}, lambda: [{"b": 2}])
    assert {mode[-2:] for mode in modes(tmp_path).values()} == {"00"}

"""What is left of a run that is asked to end before it has begun."""

from __future__ import annotations

from pathlib import Path

import pytest

from hetero.job.refusal import make_run_dir, refusable
from hetero.monitoring.journal import EVENTS


def _interrupted(made: Path) -> None:
    make_run_dir(made.parent)
    made.touch()
    raise KeyboardInterrupt


def test_before_the_first_event_nothing_is_left(tmp_path: Path) -> None:
    run_dir = tmp_path / "runs" / "a"
    with pytest.raises(KeyboardInterrupt), refusable(run_dir):
        _interrupted(run_dir / "data")
    assert list(tmp_path.iterdir()) == []


def test_what_was_there_before_stays(tmp_path: Path) -> None:
    (tmp_path / "notes").touch()
    with pytest.raises(KeyboardInterrupt), refusable(tmp_path):
        _interrupted(tmp_path / "data")
    assert [path.name for path in tmp_path.iterdir()] == ["notes"]


def test_after_it_all_is_kept(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), refusable(tmp_path):
        _interrupted(tmp_path / EVENTS)
    assert (tmp_path / EVENTS).exists()

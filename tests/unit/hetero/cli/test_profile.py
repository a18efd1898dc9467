"""`hetero profile`, whose fleet is replaced, and what `hetero plan` makes of it."""

from __future__ import annotations

import json
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from hetero.cli.app import run
from tests.unit.hetero.job.planning.slow_fleet import AUTO, SLOWNESS, SlowFleet, emulated_job


@pytest.fixture(autouse=True)
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SlowFleet:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    session, module = SlowFleet(emulated_job()), types.ModuleType("hetero.cluster.onray.standing")

    @contextmanager
    def standing(fleet: Any, address: str | None) -> Iterator[SlowFleet]:
        yield session

    module.standing = standing  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return session


def _planned(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert run(["plan", AUTO, "--set", "time_scale=1000", "--json"]) == 0
    return dict(json.loads(capsys.readouterr().out))


def test_what_is_measured_is_shown_written_and_planned_by(
    fleet: SlowFleet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = _planned(capsys)
    assert set(before["origins"].values()) == {"data sheet"}
    assert "band" not in before["prediction"]
    out = tmp_path / "rows.json"
    assert run(["profile", AUTO, "--set", "time_scale=1000", "--out", str(out)]) == 0
    heard = capsys.readouterr()
    assert "measuring: links" in heard.err
    assert "attention" in heard.out
    data = json.loads(out.read_text())
    assert {row["origin"] for row in data["units"]} == {"measured"}
    assert {(row["part"], row["origin"]) for row in data["rates"]} >= {("update", "measured"), ("memory", "data sheet")}
    assert {row["origin"] for row in data["links"]} == {"job file"}
    after = _planned(capsys)
    assert all(origin.startswith("measured ") for origin in after["origins"].values())
    assert after["prediction"]["step_s"] == pytest.approx(SLOWNESS * before["prediction"]["step_s"], rel=0.1)
    band = after["prediction"]["band"]
    assert band["low_s"] < band["mean_s"] < band["high_s"]


def test_a_profile_is_shown_again_without_measuring_and_measured_again_where_that_is_asked_for(
    fleet: SlowFleet, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["profile", AUTO, "--set", "time_scale=1000", "--json"]
    shown = [(run([*command, *more]), json.loads(capsys.readouterr().out)) for more in ([], [], ["--again"])]
    assert [code for code, _ in shown] == [0, 0, 0]
    assert shown[0] == shown[1]
    assert fleet.asked["thorough"] == 2


def test_where_rows_cannot_be_written_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["profile", AUTO, "--set", "time_scale=1000", "--out", str(tmp_path)]) == 2
    assert "--out" in capsys.readouterr().err

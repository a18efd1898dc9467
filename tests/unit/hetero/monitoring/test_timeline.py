"""The last traced step, of traces that are whole, growing or long."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hetero.monitoring import timeline
from hetero.monitoring.timeline import Span, last_timeline
from hetero.monitoring.trace import Trace
from tests.unit.hetero.monitoring.reports import traced


def _add(trace: Trace, step: int, pool: str) -> None:
    trace.add(traced(pool, step, 2 * [(("F 0.0", 10.0 + step, 0.2), ("wait sync", 10.5 + step, 0.1))]))


def test_no_trace(tmp_path: Path) -> None:
    assert last_timeline(tmp_path / "trace.json") is None
    (tmp_path / "trace.json").write_text("[]\n")
    assert last_timeline(tmp_path / "trace.json") is None


def test_the_last_step_of_a_trace_that_still_grows(tmp_path: Path) -> None:
    trace = Trace(tmp_path / "trace.json")
    for step in range(3):
        _add(trace, step, "nvidia")
        _add(trace, step, "ascend")
    found = last_timeline(tmp_path / "trace.json")
    assert found is not None
    assert found.step == 2
    assert list(found.ranks) == [f"{pool}:{index} on {pool}@0" for pool in ("nvidia", "ascend") for index in (0, 1)]
    first, wait = found.ranks["nvidia:0 on nvidia@0"]
    assert first == Span("F 0.0", 0.0, 0.2)
    assert (wait.kind, wait.start_s) == ("wait", 0.5)
    trace.close()
    assert last_timeline(tmp_path / "trace.json") == found


def test_a_step_that_not_all_hosts_have_told_of_waits(tmp_path: Path) -> None:
    trace = Trace(tmp_path / "trace.json")
    for step, pool in ((0, "nvidia"), (0, "ascend"), (1, "nvidia")):
        _add(trace, step, pool)
    found = last_timeline(tmp_path / "trace.json")
    assert found is not None
    assert found.step == 0


def test_a_cut_line_is_passed_over(tmp_path: Path) -> None:
    trace = Trace(tmp_path / "trace.json")
    _add(trace, 0, "nvidia")
    with (tmp_path / "trace.json").open("a") as file:
        file.write(',\n{"ph": "X", "name": "F 0')
    found = last_timeline(tmp_path / "trace.json")
    assert found is not None
    assert len(found.ranks) == 2


def test_of_a_long_trace_the_end_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeline, "HEAD_BYTES", 1000)
    monkeypatch.setattr(timeline, "TAIL_BYTES", 2000)
    trace = Trace(tmp_path / "trace.json")
    for step in range(100):
        _add(trace, step, "nvidia")
    found = last_timeline(tmp_path / "trace.json")
    assert found is not None
    assert found.step == 99
    assert list(found.ranks) == ["nvidia:0 on nvidia@0", "nvidia:1 on nvidia@0"]


def test_a_span_that_has_the_name_of_a_title_is_passed_over(tmp_path: Path) -> None:
    event = {"name": "thread_name", "ph": "X", "pid": 1, "tid": 1, "ts": 1, "dur": 1, "args": {"step": 1}}
    (tmp_path / "trace.json").write_text(json.dumps(event) + "\n")
    assert last_timeline(tmp_path / "trace.json") is None

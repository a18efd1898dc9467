from __future__ import annotations

import json
from pathlib import Path

from hetero.monitoring.record import merge_ranks
from hetero.monitoring.trace import Trace
from tests.unit.hetero.monitoring.reports import rank_report


def test_spans_become_chrome_events_grouped_by_pool(tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    trace = Trace(path, {"a": "a (2 x A, emulated)"})
    trace.add(merge_ranks([rank_report("a", 0), rank_report("a", 1, spans=[["F0", 1.5, 0.25], ["B0", 2.0, 0.5]])]))
    trace.add(merge_ranks([rank_report("b", 0, spans=[["F0", 1.0, 0.5]])]))
    trace.close()
    events = json.loads(path.read_text())
    spans = [event for event in events if event["ph"] == "X"]
    assert [(span["name"], span["pid"], span["tid"], span["ts"], span["dur"]) for span in spans] == [
        ("F0", 0, 1, 1.5e6, 0.25e6),
        ("B0", 0, 1, 2.0e6, 0.5e6),
        ("F0", 1, 0, 1.0e6, 0.5e6),
    ]
    names = [event["args"]["name"] for event in events if event["ph"] == "M"]
    assert names == ["a (2 x A, emulated)", "a:1 on a@0", "b", "b:0 on b@0"]


def test_a_run_without_traced_steps_leaves_whole_json(tmp_path: Path) -> None:
    trace = Trace(tmp_path / "trace.json")
    trace.add(merge_ranks([rank_report("a", 0)]))
    trace.close()
    assert json.loads((tmp_path / "trace.json").read_text()) == []

"""`trace.json` is Chrome's trace format, to the letter."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from hetero.monitoring.trace import Trace
from hetero.words.step import Spans
from tests.unit.hetero.monitoring.chrome_trace import Slice, read_trace
from tests.unit.hetero.monitoring.reports import merged, rank_report

NOW = 1_764_000_000.0
A = "a (2 x A, emulated)"


def _spans(*spans: tuple[str, float, float]) -> Spans:
    return tuple((name, NOW + start, seconds) for name, start, seconds in spans)


@pytest.fixture
def trace(tmp_path: Path) -> Trace:
    return Trace(tmp_path / "trace.json", {"a": A})


def _text(tmp_path: Path) -> str:
    return (tmp_path / "trace.json").read_text()


def test_spans_become_slices_grouped_by_pool(trace: Trace, tmp_path: Path) -> None:
    spans = _spans(("F 0.0", 0.5, 0.25), ("SYNC 0", 1.0, 0.125))
    trace.add(merged([rank_report("a", 0), rank_report("a", 1, spans=spans)]))
    trace.add(merged([rank_report("b", 0, spans=_spans(("F 0.0", 0.0, 0.5)))]))
    trace.close()
    us = int(NOW * 1e6)
    assert read_trace(_text(tmp_path)) == {
        (A, "a:1 on a@0"): [
            Slice("F 0.0", us + 500_000, 250_000, {"step": 3}), Slice("SYNC 0", us + 1_000_000, 125_000, {"step": 3}),
        ],
        ("b", "b:0 on b@0"): [Slice("F 0.0", us, 500_000, {"step": 3})],
    }  # fmt: skip


def test_pools_and_ranks_keep_their_order(trace: Trace, tmp_path: Path) -> None:
    for pool in "ba":
        trace.add(merged([rank_report(pool, index, spans=_spans(("F 0.0", 0, 1))) for index in (1, 0)]))
    trace.close()
    rows = [event for event in json.loads(_text(tmp_path)) if event["name"] == "thread_sort_index"]
    in_order = sorted(rows, key=lambda event: (event["pid"], event["args"]["sort_index"]))
    assert [(event["pid"], event["tid"]) for event in in_order] == [(1, 1000), (1, 1001), (2, 1000), (2, 1001)]


def test_a_trace_that_still_grows_can_be_read(trace: Trace, tmp_path: Path) -> None:
    trace.add(merged([rank_report("a", 0, spans=_spans(("F 0.0", 0, 1)))]))
    assert len(read_trace(_text(tmp_path), is_closed=False)) == 1


def test_a_run_without_traced_steps_leaves_whole_json(trace: Trace, tmp_path: Path) -> None:
    trace.add(merged([rank_report("a", 0)]))
    trace.close()
    assert read_trace(_text(tmp_path)) == {}


def test_what_a_chip_does_behind_its_hosts_back_is_laid_end_to_end(trace: Trace, tmp_path: Path) -> None:
    """The host orders three seconds of work in no time, waits until 2.5 s, and hands over a chip's sums until 3.5 s."""
    spans = _spans(("F 0.0", 0.0, 1.0), ("B 0.0", 0.001, 2.0), ("wait sync", 0.002, 2.498), ("SYNC 0", 2.5, 1.0))
    trace.add(merged([rank_report("a", 0, spans=spans)]))
    trace.close()
    (found,) = read_trace(_text(tmp_path)).values()
    start = int(NOW * 1e6)
    assert [(one.name, one.ts - start, one.dur) for one in found] == [
        ("F 0.0", 0, 1_000_000), ("B 0.0", 1_000_000, 2_000_000), ("wait sync", 3_000_000, 0),
        ("SYNC 0", 3_000_000, 500_000),
    ]  # fmt: skip


def test_spans_of_any_clock_and_length_make_a_valid_row(trace: Trace, tmp_path: Path) -> None:
    draw, now, spans = random.Random(0), 0.0, []
    for number in range(500):
        seconds = draw.choice((0.0, 1e-7, draw.random()))
        spans.append((draw.choice(("F 0.0", "wait sync", "STEP")), now, seconds))
        now += seconds * draw.choice((1.0, 1.0, 0.5)) + draw.choice((0.0, 1e-6 * number))
    trace.add(merged([rank_report("a", 0, spans=_spans(*spans))]))
    trace.close()
    (found,) = read_trace(_text(tmp_path)).values()
    assert len(found) == 500


GOOD = [
    {"ph": "M", "name": "process_name", "pid": 1, "tid": 1000, "args": {"name": "a"}},
    {"ph": "M", "name": "thread_name", "pid": 1, "tid": 1000, "args": {"name": "a:0"}},
    {"ph": "X", "name": "F", "pid": 1, "tid": 1000, "ts": 10, "dur": 10, "args": {}},
]
SPOILED: dict[str, tuple[int, dict[str, Any]]] = {
    "no group": (0, {"name": "process_sort_index", "args": {"sort_index": 1}}),
    "no row": (1, {"name": "thread_sort_index", "args": {"sort_index": 1}}),
    "a name that is none": (1, {"args": {"name": 5}}),
    "an idle row": (2, {"pid": 0}),
    "a main thread": (2, {"tid": 1}),
    "fractions": (2, {"ts": 10.5}),
    "a negative length": (2, {"dur": -1}),
    "a key that is not used": (2, {"cat": "x"}),
    "another row": (2, {"tid": 1001}),
}


@pytest.mark.parametrize("spoiled", SPOILED)
def test_the_reader_is_strict(spoiled: str) -> None:
    place, change = SPOILED[spoiled]
    assert len(read_trace(json.dumps(GOOD))) == 1
    with pytest.raises((AssertionError, KeyError)):
        read_trace(json.dumps([event | (change if index == place else {}) for index, event in enumerate(GOOD)]))


@pytest.mark.parametrize(("ts", "dur", "fits"), [(20, 5, True), (12, 3, True), (15, 10, False), (5, 10, False)])
def test_the_reader_knows_overlap_from_nesting(ts: int, dur: int, fits: bool) -> None:
    text = json.dumps([*GOOD, GOOD[2] | {"ts": ts, "dur": dur}])
    if fits:
        read_trace(text)
    else:
        with pytest.raises(AssertionError, match="reaches out"):
            read_trace(text)

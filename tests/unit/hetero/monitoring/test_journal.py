from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from hetero.foreign import NotPlain
from hetero.monitoring.journal import EventJournal, Journal, read


def test_what_is_appended_is_read_back_in_order(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with Journal(path) as journal:
        journal.append({"step": 0})
        assert list(read(path)) == [{"step": 0}], "a follower sees a line as soon as it is written"
        journal.append({"step": 1})
    assert [record["step"] for record in read(path)] == [0, 1]


def test_a_line_cut_short_by_a_crash_spoils_no_other(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 0}\n{"step": 1, "lo')
    with Journal(path) as journal:
        journal.append({"step": 2})
    assert [record["step"] for record in read(path)] == [0, 2]


def test_numbers_that_json_lacks_become_null(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with Journal(path) as journal:
        journal.append({"loss": float("nan"), "pools": {"a": [float("inf"), 1.0]}})
    assert json.loads(path.read_text()) == {"loss": None, "pools": {"a": [None, 1.0]}}


def test_events_are_numbered_over_restarts(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    with EventJournal(path) as journal:
        first = journal.write("started", hosts=3)
    with EventJournal(path) as journal:
        journal.write("rank_lost", step=4, epoch=1, pool="a", rank="a:0")
    assert list(first) == ["seq", "time", "step", "epoch", "kind", "pool", "rank", "data"]
    events = list(read(path))
    assert [event["seq"] for event in events] == [0, 1]
    assert events[0]["data"] == {"hosts": 3}
    assert (events[1]["kind"], events[1]["step"], events[1]["rank"]) == ("rank_lost", 4, "a:0")


def test_no_file_holds_no_records(tmp_path: Path) -> None:
    assert list(read(tmp_path / "none.jsonl")) == []


def test_a_journal_of_strangers_is_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    odd = [
        "[" * 100_000,
        "9" * 5000,
        "x" * (3 << 20),
        "[]",
        '{"seq": "many", "kind": "a"}',
        '{"seq": 1e300, "kind": "a"}',
    ]
    path.write_text("\n".join(['{"seq": 3, "kind": "a"}', *odd]))
    with EventJournal(path) as journal:
        assert journal.write("b")["seq"] == 4
    assert len(list(read(path))) == 4


def test_a_pipe_is_no_journal(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "metrics.jsonl")
    with pytest.raises(NotPlain):
        list(read(tmp_path / "metrics.jsonl"))

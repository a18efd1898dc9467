"""Whatever a tracker does, the run does not wait for it, and knows in the end what was lost."""

from __future__ import annotations

import signal
import threading
from collections.abc import Mapping
from typing import Any

import pytest

from hetero.interrupts import ENDING
from hetero.monitoring.feed import Feed, Line
from hetero.monitoring.notice import Notice
from hetero.monitoring.tracker import Tracker


class Recording(Tracker):
    def __init__(self, run: Any = None, options: Any = None) -> None:
        self.steps: list[int] = []
        self.closed = False

    def log(self, step: int, time: float, curves: Mapping[str, float]) -> None:
        self.steps.append(step)

    def close(self) -> None:
        self.closed = True


class Raising(Recording):
    def log(self, step: int, time: float, curves: Mapping[str, float]) -> None:
        if step % 2:
            raise SystemExit("no network")
        super().log(step, time, curves)


class Hanging(Recording):
    def __init__(self) -> None:
        super().__init__()
        self.released = threading.Event()

    def log(self, step: int, time: float, curves: Mapping[str, float]) -> None:
        self.released.wait()


def _lines(count: int) -> list[Line]:
    return [Line(step, float(step), {"loss": 1.0}) for step in range(count)]


def test_lines_arrive_in_order_and_the_tracker_is_closed() -> None:
    tracker = Recording()
    feed = Feed("t", lambda: tracker)
    for line in _lines(50):
        feed.put(line)
    assert feed.close() == []
    assert tracker.steps == list(range(50))
    assert tracker.closed


def test_what_raises_is_said_once_and_its_lines_are_counted() -> None:
    tracker = Raising()
    feed = Feed("t", lambda: tracker)
    for line in _lines(6):
        feed.put(line)
    assert feed.close() == [
        Notice("tracker_failed", {"tracker": "t", "cause": "SystemExit: no network"}),
        Notice("tracker_incomplete", {"tracker": "t", "lost_lines": 3}),
    ]
    assert tracker.steps == [0, 2, 4], "one bad line does not end the others"
    assert tracker.closed


def test_a_tracker_that_cannot_open_loses_every_line() -> None:
    def make() -> Tracker:
        raise OSError("disk full")

    feed = Feed("t", make)
    for line in _lines(3):
        feed.put(line)
    assert [(notice.kind, notice.facts.get("lost_lines")) for notice in feed.close()] == [
        ("tracker_failed", None),
        ("tracker_incomplete", 3),
    ]


def test_a_tracker_that_hangs_is_left_behind_and_holds_little() -> None:
    tracker = Hanging()
    feed = Feed("t", lambda: tracker, limit=4)
    for line in _lines(10):
        feed.put(line)  # a full queue does not block
    assert [notice.kind for notice in feed.notices()] == ["tracker_behind"]
    assert [(notice.kind, notice.facts.get("lost_lines")) for notice in feed.close(0.1)] == [
        ("tracker_abandoned", None),
        ("tracker_incomplete", 10),
    ]
    tracker.released.set()


def test_a_trackers_processes_are_ended_by_it_and_not_by_the_terminal() -> None:
    blocked: list[set[int]] = []

    class Starting(Recording):
        def __init__(self) -> None:
            super().__init__()
            blocked.append(set(signal.pthread_sigmask(signal.SIG_BLOCK, ())))

    assert Feed("t", Starting).close() == []
    assert blocked[0] >= set(ENDING)


@pytest.mark.parametrize("limit", [1, 3])
def test_no_line_is_counted_twice(limit: int) -> None:
    tracker = Recording()
    feed = Feed("t", lambda: tracker, limit)
    for line in _lines(200):
        feed.put(line)
    lost = sum(notice.facts.get("lost_lines", 0) for notice in feed.close())
    assert len(tracker.steps) + lost == 200

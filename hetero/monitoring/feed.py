"""The thread between a run and one tracker: the run never waits for it, and never hears what it raises."""

from __future__ import annotations

import signal
import threading
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from hetero.interrupts import ENDING
from hetero.monitoring.notice import Notice
from hetero.monitoring.tracker import Tracker

QUEUED_LINES = 1000
SECONDS_TO_CLOSE = 10.0


class Line(NamedTuple):
    step: int
    time: float
    curves: Mapping[str, float]


class Feed:
    """Hands lines to a tracker in order, in a thread of its own, over a queue of at most `limit` lines.

    A line that finds the queue full, or at which the tracker raises, is lost and counted. A notice says so once when it
    begins, and at the end how many lines were lost.
    """

    def __init__(self, name: str, make: Callable[[], Tracker], limit: int = QUEUED_LINES) -> None:
        self._name, self._make, self._limit = name, make, limit
        self._lines: deque[Line] = deque()
        self._notices: deque[Notice] = deque()
        self._changed = threading.Condition()
        self._ended = False
        self._lost = 0
        self._failed = False
        self._thread = threading.Thread(target=self._work, name=f"tracker {name}", daemon=True)
        self._thread.start()

    def put(self, line: Line) -> None:
        """Never blocks."""
        with self._changed:
            if len(self._lines) < self._limit:
                self._lines.append(line)
                self._changed.notify()
                return
            self._lost += 1
            if self._lost == 1:
                self._notice("tracker_behind", queued=self._limit)

    def notices(self) -> list[Notice]:
        """What there is to say since the last call."""
        with self._changed:
            said = list(self._notices)
            self._notices.clear()
        return said

    def end(self) -> None:
        """No line comes any more; the tracker may close after those that are queued."""
        with self._changed:
            self._ended = True
            self._changed.notify()

    def close(self, seconds: float = SECONDS_TO_CLOSE) -> list[Notice]:
        """Waits at most so long for the tracker to finish; one that hangs is left behind. The last notices."""
        self.end()
        self._thread.join(seconds)
        with self._changed:
            lost = self._lost + len(self._lines)
            if self._thread.is_alive():
                self._notice("tracker_abandoned", waited_s=seconds)
            if lost:
                self._notice("tracker_incomplete", lost_lines=lost)
        return self.notices()

    def _work(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)  # a tracker's processes inherit it, and end when it closes
        opened = self._succeeds(self._open)
        while (line := self._next()) is not None:
            logged = opened and self._succeeds(lambda line=line: self._tracker.log(*line))  # type: ignore[misc]
            with self._changed:
                self._lines.popleft()
                self._lost += not logged
        if opened:
            self._succeeds(lambda: self._tracker.close())

    def _open(self) -> None:
        self._tracker = self._make()

    def _next(self) -> Line | None:
        """The oldest line, which stays in the queue while the tracker works on it; None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._lines or self._ended)
            return self._lines[0] if self._lines else None

    def _succeeds(self, act: Callable[[], None]) -> bool:
        try:
            act()
            return True
        except BaseException as error:  # a tracker's own SystemExit must not end its thread in silence
            with self._changed:
                if not self._failed:
                    self._notice("tracker_failed", cause=f"{type(error).__name__}: {error}")
                self._failed = True
            return False

    def _notice(self, kind: str, **facts: Any) -> None:
        self._notices.append(Notice(kind, {"tracker": self._name, **facts}))

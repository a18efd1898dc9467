"""Who waits long is seen while he still waits."""

from __future__ import annotations

import queue
import threading
from typing import Any

from backends.watch import Watch
from tests.patience import WAIT_S


def test_a_long_wait_is_told_of_once() -> None:
    told: queue.Queue[dict[str, Any]] = queue.Queue()
    watch = Watch(told.put, long_s=0.01)
    over = threading.Event()
    with watch.waiting("stages", 3, [2]):
        found = told.get(timeout=WAIT_S)
        assert not over.wait(0.1)
    assert found["seconds"] >= 0.01
    assert {**found, "seconds": 0} == {"group": "stages", "chip": 3, "waits_for": [2], "seconds": 0}
    assert told.empty()


def test_nobody_is_told_of_what_is_over() -> None:
    told: queue.Queue[dict[str, Any]] = queue.Queue()
    watch = Watch(told.put, long_s=WAIT_S)
    with watch.waiting("stages", 3, [2]):
        pass
    assert told.empty()

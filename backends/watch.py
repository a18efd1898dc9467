"""Sees who waits long for another chip, while it still waits."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

LONG_S = 30.0
"""A wait that is told of: much longer than any step of a small job, much shorter than what ends a run."""

Tell = Callable[[dict[str, Any]], None]


class Watch:
    """Of one thread's waits: `with watch.waiting(...)`. `tell` hears of each long one once, from another thread."""

    def __init__(self, tell: Tell | None = None, long_s: float = LONG_S) -> None:
        self._tell, self._long_s = tell, long_s
        self._waits: list[tuple[float, str, int, Sequence[int]]] = []
        self._thread: threading.Thread | None = None

    def waiting(self, group: str, chip: int, peers: Sequence[int]) -> Watch:
        """Inside, the chip waits for these of the group."""
        self._waits.append((time.monotonic(), group, chip, peers))
        return self

    def __enter__(self) -> None:
        if self._thread is None and self._tell is not None:
            self._thread = threading.Thread(target=self._look, args=(self._tell,), daemon=True, name="watch")
            self._thread.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._waits.pop()

    def _look(self, tell: Tell) -> None:
        told = None
        while True:
            time.sleep(self._long_s / 4)
            wait = next(iter(self._waits[-1:]), None)
            if wait is None or wait is told or time.monotonic() - wait[0] < self._long_s:
                continue
            told = wait
            since, group, chip, peers = wait
            tell({"group": group, "chip": chip, "waits_for": list(peers), "seconds": time.monotonic() - since})

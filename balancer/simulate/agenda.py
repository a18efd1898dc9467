"""What happens when."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count

Turn = tuple[int, ...]
"""Who comes first of those that come at one time: the lower one."""


class Agenda:
    """Events in order of time, of equal times by turn, else as they were put in."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, Turn, int, Callable[[float], None]]] = []
        self._numbers = count()

    def at(self, when: float, turn: Turn, what: Callable[[float], None]) -> None:
        """`what` is called with the time, which is not before that of the event that asks."""
        heapq.heappush(self._heap, (when, turn, next(self._numbers), what))

    def run(self) -> None:
        """Until nothing is left to happen."""
        heap = self._heap
        while heap:
            now, _, _, what = heapq.heappop(heap)
            what(now)

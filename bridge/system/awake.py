"""Time as far as this process was there to see it pass."""

from __future__ import annotations

import time
from collections.abc import Callable

LONGEST_S = 1.0


class AwakeClock:
    """Seconds that somebody was awake for, from 0.0 on.

    Who judges others by their silence must not count the time in which he was stopped himself, or his container frozen:
    what they said meanwhile is yet to be heard. So a reading that comes later than `longest_s` after the last counts as
    if it came then, and the clock is to be read more often than that. While a machine sleeps, its monotonic clock
    stands still by itself. One thread reads a clock.
    """

    def __init__(self, longest_s: float = LONGEST_S, source: Callable[[], float] = time.monotonic) -> None:
        self._longest_s, self._source = longest_s, source
        self._read, self._awake_s = source(), 0.0

    def now(self) -> float:
        read = self._source()
        self._awake_s += min(read - self._read, self._longest_s)
        self._read = read
        return self._awake_s

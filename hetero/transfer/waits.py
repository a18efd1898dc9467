"""How long a chip stood still for messages and for its host, and what crossed the bridge meanwhile."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from backends.backend import Backend, Stopwatch

WAIT_S = 600.0
"""A rank that waits longer than this for one message gives up with an error that names the channel."""


@dataclass
class Crossed:
    """One direction of a link, as one rank sees it: what crossed it, and how long the rank stood still for that."""

    nbytes: int = 0
    waited_s: float = 0.0


class Waits:
    """Seconds a rank's chip stood still since the last reading: for a link, for somebody's work, and for its host's
    update. `sent` and `received` say what crossed the bridge, by the pool at the other end.

    The chip may still compute while its rank waits, so waits are timed by its own stopwatches, which are read at last.
    """

    def __init__(self, backend: Backend) -> None:
        self.start = backend.start
        self._books = True
        self._booked: list[tuple[Sequence[Stopwatch], float, Crossed | None]] = []
        self._updates: list[Stopwatch] = []
        self.clear()

    def clear(self) -> None:
        self.link_s = self.work_s = self.update_s = 0.0
        self.sent: defaultdict[str, Crossed] = defaultdict(Crossed)
        self.received: defaultdict[str, Crossed] = defaultdict(Crossed)
        self._booked.clear()
        self._updates.clear()

    def book(self, watches: Sequence[Stopwatch], transfer_s: float = 0.0, crossed: Crossed | None = None) -> None:
        """Waits for one message, timed and over. The part of them during which it was on its way is the link's fault;
        the rest is its sender's."""
        if self._books:
            self._booked.append((watches, transfer_s, crossed))

    @contextmanager
    def bytes_alone(self) -> Iterator[None]:
        """Inside, it is counted what crosses, and no wait for it is booked."""
        self._books = False
        try:
            yield
        finally:
            self._books = True

    @contextmanager
    def updating(self) -> Iterator[None]:
        """Inside, the chip waits for what its host updates."""
        watch = self.start()
        yield
        watch.stop()
        self._updates.append(watch)

    def settle(self) -> None:
        """Adds up what was booked."""
        for watches, transfer_s, crossed in self._booked:
            seconds = sum(watch.seconds() for watch in watches)
            link_s = min(seconds, transfer_s)
            self.link_s += link_s
            self.work_s += seconds - link_s
            if crossed is not None:
                crossed.waited_s += link_s
        self.update_s += sum(watch.seconds() for watch in self._updates)
        self._booked.clear()
        self._updates.clear()

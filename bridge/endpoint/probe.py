"""How fast a link is: bulk that nobody keeps, and the time until the peer has seen it all."""

from __future__ import annotations

import time
from collections.abc import Callable

from bridge.link.link import Link
from bridge.port.slots import SlotRing
from bridge.system.loop import Loop
from bridge.words.endpoint import LinkProbed
from bridge.words.frame import CHUNK_BYTES, Frame, FrameKind, Header

_LOOK_S = 0.002


class Probe:
    """A source of `nbytes` in chunks, once the link is connected. Tells `done` what it has found."""

    def __init__(self, link: Link, loop: Loop, nbytes: int, done: Callable[[LinkProbed], None]) -> None:
        self._link, self._loop, self._nbytes, self._done = link, loop, nbytes, done
        self._left = nbytes
        self._ring = SlotRing(CHUNK_BYTES, 1)
        link.lend(self._ring)
        self._await()

    def next_frame(self) -> Frame | None:
        """See FrameSource."""
        length = min(self._left, CHUNK_BYTES)
        self._left -= length
        header = Header(FrameKind.PROBE, total=self._nbytes, length=length)
        return Frame(header, self._ring.view(0)[:length]) if length else None

    def _await(self) -> None:
        if self._link.is_lost or self._link.is_connected:
            self._began, self._cpu_s = time.monotonic(), time.process_time()
            self._link.offer(self)
            self._look()
        else:
            self._loop.call_at(time.monotonic() + _LOOK_S, self._await)

    def _look(self) -> None:
        if self._left == 0:
            for stream in self._link.streams:
                self._link.ping(stream)  # the answer says what has been seen
        if self._link.is_lost:
            self._close()  # what lost the link is told elsewhere
        elif self._left or any(stream.in_flight_bytes for stream in self._link.streams):
            self._loop.call_at(time.monotonic() + _LOOK_S, self._look)
        else:
            self._finish()

    def _close(self) -> None:
        self._link.withdraw(self)
        self._link.reclaim(self._ring)
        self._ring.close()

    def _finish(self) -> None:
        self._close()
        seconds, cpu_s = time.monotonic() - self._began, time.process_time() - self._cpu_s
        rtt_s = self._link.clock.round_trip_s
        carrying_s = max(
            seconds - (rtt_s or 0.0), seconds / 2
        )  # the last byte's way, and the word that it came, is none
        found = self._nbytes / carrying_s, rtt_s, cpu_s / self._nbytes * 1e9
        self._done(LinkProbed(self._link.peer, *found))

"""The link from this endpoint to one other: what waits to cross, in which order it goes, and what has crossed."""

from __future__ import annotations

import time
from collections import deque
from typing import Protocol

from bridge.link.clock import PeerClock
from bridge.link.pace import Pace
from bridge.link.stream import WINDOW_BYTES, Lane
from bridge.port.slots import SlotRing
from bridge.system.awake import AwakeClock
from bridge.system.loop import Loop
from bridge.transports.transport import Connection
from bridge.trust.seal import Guard
from bridge.words.frame import CHUNK_BYTES, Frame, Header, Kind

_AHEAD_S = 0.002  # so long before an emulated line is free its next frame is chosen


class Source(Protocol):
    """Bulk that waits for its turn."""

    def next_frame(self) -> Frame | None:
        """The next frame, or None if there is none now: then it is asked again only after another `offer`."""


class Link:
    """Lives as long as the endpoint. What is urgent goes first; sources of bulk take turns, frame by frame, as far as
    the lanes' windows allow. So no message waits for more than a window of another channel's.

    What is sent before there is a connection waits: urgent frames, which are few, in the first lane, and sources for
    their first turn.

    width    how many lanes bulk is spread over; others that were connected once stay so, and empty themselves
    is_lost  the peer is gone, or there never was one: nothing is taken
    instance the peer's process, by the name it has given itself
    rings    memory that payloads come from and the peer is shown, or may be: the first connection decides
    """

    def __init__(self, peer: str, loop: Loop, clock: AwakeClock | None = None, *, is_lost: bool = False) -> None:
        self.peer = peer
        self.is_lost = is_lost
        self.instance = ""
        self.pace: Pace | None = None
        self.clock = PeerClock()
        self._awake = clock or AwakeClock()
        self.width, self.lanes = 1, [Lane(self._awake)]
        self.bytes_sent = self.bytes_received = self.frames_dropped = 0
        self.rings: list[SlotRing] = []
        self._shares_memory: bool | None = None
        self._loop = loop
        self._urgent: deque[Frame] = deque()
        self._sources: deque[Source] = deque()
        self._waking = False

    def send(self, frame: Frame) -> None:
        """Queues an urgent frame. Nothing happens on a link that is lost: its channels are broken."""
        if not self.is_lost:
            self._urgent.append(frame)
            self.pump()

    def offer(self, source: Source) -> None:
        """Has a source asked for its frames, once it is its turn."""
        if not self.is_lost and source not in self._sources:
            self._sources.append(source)
            self.pump()

    def withdraw(self, source: Source) -> None:
        """Asks no more."""
        if source in self._sources:
            self._sources.remove(source)

    def pump(self) -> None:
        """Hands lanes what they have room for."""
        while self._urgent:
            self._pass_on(self.lanes[0], self._urgent.popleft())
        while self._sources and self._line_is_free():
            lane = min((lane for lane in self.lanes[: self.width] if lane.connection), key=_in_flight, default=None)
            if lane is None or lane.in_flight_bytes >= WINDOW_BYTES:
                return
            source = self._sources.popleft()
            if (frame := source.next_frame()) is not None:
                self._sources.append(source)
                self._pass_on(lane, frame)

    @property
    def is_connected(self) -> bool:
        """Over all lanes that are to be used."""
        lanes = self.lanes[: self.width]
        return len(lanes) == self.width and all(lane.connection for lane in lanes)

    def lane(self, index: int) -> Lane:
        """One of the lanes, which is made, with those before it, if there was none."""
        self.lanes += [Lane(self._awake, number) for number in range(len(self.lanes), index + 1)]
        return self.lanes[index]

    def attach(self, lane: Lane, connection: Connection, guard: Guard, expects: int) -> None:
        """Goes on over a new connection of one of the lanes, see `Lane.attach`."""
        self._shares_memory = connection.shares_memory
        if not self._shares_memory:
            self._hide_rings()
        for ring in self.rings:
            connection.lend(ring)
        lane.attach(connection, guard, expects)

    def lose(self) -> None:
        """The peer is lost, and with it all that was under way."""
        self.is_lost, self.instance = True, ""
        self._urgent.clear()
        self._sources.clear()
        self._hide_rings()
        self.lanes = [Lane(self._awake)]

    def on_ping(self, lane: Lane, header: Header) -> None:
        """Answers."""
        now = time.time_ns()
        lane.say(Header(Kind.PONG, sequence=header.sent_ns, offset=now, sent_ns=now))

    def on_pong(self, header: Header) -> None:
        """Learns the peer's clock."""
        self.clock.sample(header.sequence, header.offset, header.sent_ns, time.time_ns())

    @property
    def chunk_bytes(self) -> int:
        """How long a frame's payload may be, so that it is cheap and holds nobody up."""
        connections = [lane.connection for lane in self.lanes if lane.connection]
        return connections[0].chunk_bytes if connections else CHUNK_BYTES

    def lend(self, ring: SlotRing) -> None:
        """Payloads will come from this memory. Its descriptor is let go of as soon as it is known that the peer is not
        shown it."""
        if self.is_lost or self._shares_memory is False:
            ring.release_fd()
            return
        self.rings.append(ring)
        for lane in self.lanes:
            if lane.connection:
                lane.connection.lend(ring)

    def reclaim(self, ring: SlotRing) -> None:
        """No payload will come from it any more."""
        if ring in self.rings:
            self.rings.remove(ring)
            for lane in self.lanes:
                if lane.connection:
                    lane.connection.reclaim(ring)

    def stats(self) -> dict[str, int]:
        """Bytes with headers, repeated ones not counted again; frames dropped because their epoch was closed, frames
        sent again or received again; connections that there are, and that were made in place of broken ones."""
        return {
            "bytes_sent": self.bytes_sent,
            "bytes_received": self.bytes_received,
            "frames_dropped_epoch": self.frames_dropped,
            "frames_repeated": sum(lane.repeated for lane in self.lanes),
            "frames_duplicate": sum(lane.duplicates for lane in self.lanes),
            "connections": sum(lane.connection is not None for lane in self.lanes),
            "reconnects": sum(max(0, lane.connections - 1) for lane in self.lanes),
        }

    def _hide_rings(self) -> None:
        """The peer is not to see them."""
        for ring in self.rings:
            ring.release_fd()
        self.rings.clear()

    def _pass_on(self, lane: Lane, frame: Frame) -> None:
        self.bytes_sent += frame.nbytes
        lane.put(frame)
        if self.pace is None:
            lane.release()
        else:
            self._loop.call_at(self.pace.arrival(frame.nbytes, time.monotonic()), lane.release)

    def _line_is_free(self) -> bool:
        if self.pace is None or self.pace.free_at - time.monotonic() < _AHEAD_S:
            return True
        if not self._waking:
            self._waking = True
            self._loop.call_at(self.pace.free_at - _AHEAD_S, self._wake)
        return False

    def _wake(self) -> None:
        self._waking = False
        self.pump()


def _in_flight(lane: Lane) -> int:
    return lane.in_flight_bytes

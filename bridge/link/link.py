"""The link from this endpoint to one other: what waits to cross, in which order it goes, and what has crossed."""

from __future__ import annotations

import time
from collections import deque
from functools import partial
from typing import Protocol

from bridge.link.clock import PeerClock
from bridge.link.pace import LinkPace
from bridge.link.stream import Stream
from bridge.port.slots import SlotRing
from bridge.system.awake import AwakeClock
from bridge.system.loop import Loop
from bridge.transports.transport import WINDOW_BYTES, Connection
from bridge.trust.seal import Seal
from bridge.words.frame import CHUNK_BYTES, Frame, FrameKind, Header

_AHEAD_S = 0.002  # so long before an emulated line is free its next frame is chosen


class FrameSource(Protocol):
    """Bulk that waits for its turn: a `SendingEnd`, or a probe."""

    def next_frame(self) -> Frame | None:
        """The next frame, or None if there is none now: then it is asked again only after another `offer`."""


class Link:
    """One stream or several side by side; lives as long as the endpoint. What is urgent goes first; sources of bulk
    take turns, frame by frame, as far as the streams' windows allow. So no message waits for more than a window of
    another channel's.

    What is sent before there is a connection waits: urgent frames, which are few, in the first stream, and sources for
    their first turn.

    width    how many streams bulk is spread over; others that were connected once stay so, and empty themselves
    is_lost  the peer is gone, or there never was one: nothing is taken
    instance the peer's process, by the name it has given itself
    rings    memory that payloads come from and the peer is shown, or may be: the first connection decides
    """

    def __init__(self, peer: str, loop: Loop, clock: AwakeClock | None = None, *, is_lost: bool = False) -> None:
        self.peer = peer
        self.is_lost = is_lost
        self.instance = ""
        self.pace: LinkPace | None = None
        self.clock = PeerClock()
        self._awake = clock or AwakeClock()
        self.width, self.streams = 1, [Stream(self._awake)]
        self.bytes_sent = self.bytes_received = self.frames_dropped = 0
        self.rings: list[SlotRing] = []
        self._shares_memory: bool | None = None
        self._loop = loop
        self._urgent: deque[Frame] = deque()
        self._sources: deque[FrameSource] = deque()
        self._waking = False

    def send_frame(self, frame: Frame) -> None:
        """Queues an urgent frame. Nothing happens on a link that is lost: its channels are broken."""
        if not self.is_lost:
            self._urgent.append(frame)
            self.pump()

    def offer(self, source: FrameSource) -> None:
        """Has a source asked for its frames, once it is its turn."""
        if not self.is_lost and source not in self._sources:
            self._sources.append(source)
            self.pump()

    def withdraw(self, source: FrameSource) -> None:
        """Asks no more."""
        if source in self._sources:
            self._sources.remove(source)

    def pump(self) -> None:
        """Hands streams what they have room for."""
        while self._urgent:
            self._pass_on(self.streams[0], self._urgent.popleft())
        while self._sources and self._line_is_free():
            connected = (stream for stream in self.streams[: self.width] if stream.connection)
            stream = min(connected, key=_in_flight, default=None)
            if stream is None or stream.in_flight_bytes >= WINDOW_BYTES:
                return
            source = self._sources.popleft()
            if (frame := source.next_frame()) is not None:
                self._sources.append(source)
                self._pass_on(stream, frame)

    @property
    def is_connected(self) -> bool:
        """Over all streams that are to be used."""
        streams = self.streams[: self.width]
        return len(streams) == self.width and all(stream.connection for stream in streams)

    def stream(self, index: int) -> Stream:
        """One of the streams, which is made, with those before it, if there was none."""
        self.streams += [Stream(self._awake, number) for number in range(len(self.streams), index + 1)]
        return self.streams[index]

    def attach(self, stream: Stream, connection: Connection, seal: Seal, expects: int) -> None:
        """Goes on over a new connection of one of the streams, see `Stream.attach`."""
        self._shares_memory = connection.shares_memory
        if not self._shares_memory:
            self._hide_rings()
        for ring in self.rings:
            connection.lend(ring)
        stream.attach(connection, seal, expects)

    def lose(self) -> None:
        """The peer is lost, and with it all that was under way."""
        self.is_lost, self.instance = True, ""
        self._urgent.clear()
        self._sources.clear()
        self._hide_rings()
        self.streams = [Stream(self._awake)]

    def run_at(self, pace: LinkPace | None) -> None:
        """What an emulated line is like from now on; None of a real one. Pings over another tell nothing of it."""
        self.pace, self.clock = pace, PeerClock()

    def ping(self, stream: Stream) -> None:
        """Over an emulated link a ping, and its answer, are as long on their way as all else."""
        self._delayed(stream, stream.question())

    def on_ping(self, stream: Stream, header: Header) -> None:
        """Answers."""
        now, seen = time.time_ns(), stream.expected
        answer = Header(FrameKind.PONG, sequence=header.sent_ns, offset=now, seen=seen, sent_ns=now)
        self._delayed(stream, answer)

    def on_pong(self, header: Header) -> None:
        """Learns the peer's clock."""
        self.clock.sample(header.sequence, header.offset, header.sent_ns, time.time_ns())

    def silence_s(self, stream: Stream) -> float:
        """How long the peer has given no sign of life over one of the streams that it could have: once connected, an
        emulated line delays the first by what it delays all."""
        delay_s = self.pace.delay_s if self.pace and stream.connections else 0.0
        return max(0.0, stream.silence_s - delay_s)

    @property
    def chunk_bytes(self) -> int:
        """How long a frame's payload may be, so that it is cheap and holds nobody up."""
        connections = [stream.connection for stream in self.streams if stream.connection]
        return connections[0].chunk_bytes if connections else CHUNK_BYTES

    def lend(self, ring: SlotRing) -> None:
        """Payloads will come from this memory. Its descriptor is let go of as soon as it is known that the peer is not
        shown it."""
        if self.is_lost or self._shares_memory is False:
            ring.release_fd()
            return
        self.rings.append(ring)
        for stream in self.streams:
            if stream.connection:
                stream.connection.lend(ring)

    def reclaim(self, ring: SlotRing) -> None:
        """No payload will come from it any more."""
        if ring in self.rings:
            self.rings.remove(ring)
            for stream in self.streams:
                if stream.connection:
                    stream.connection.reclaim(ring)

    def stats(self) -> dict[str, int]:
        """Bytes with headers, repeated ones not counted again; frames dropped because their epoch was closed, frames
        sent again or received again; connections that there are, and that were made in place of broken ones."""
        return {
            "bytes_sent": self.bytes_sent,
            "bytes_received": self.bytes_received,
            "frames_dropped_epoch": self.frames_dropped,
            "frames_repeated": sum(stream.repeated for stream in self.streams),
            "frames_duplicate": sum(stream.duplicates for stream in self.streams),
            "connections": sum(stream.connection is not None for stream in self.streams),
            "reconnects": sum(max(0, stream.connections - 1) for stream in self.streams),
        }

    def _hide_rings(self) -> None:
        """The peer is not to see them."""
        for ring in self.rings:
            ring.release_fd()
        self.rings.clear()

    def _delayed(self, stream: Stream, header: Header) -> None:
        if self.pace is None:
            stream.send_control(header)
        else:
            self._loop.call_at(time.monotonic() + self.pace.delay_s, partial(self._control, stream, header))

    def _control(self, stream: Stream, header: Header) -> None:
        if stream in self.streams:  # the peer has not been lost meanwhile
            stream.send_control(header)

    def _pass_on(self, stream: Stream, frame: Frame) -> None:
        self.bytes_sent += frame.nbytes
        stream.put(frame)
        if self.pace is None:
            stream.release()
        else:
            self._loop.call_at(self.pace.arrival(frame.nbytes, time.monotonic()), stream.release)

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


def _in_flight(stream: Stream) -> int:
    return stream.in_flight_bytes

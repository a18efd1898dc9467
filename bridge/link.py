"""The link from this endpoint to one other: its connection, its pace, its pulse and what has crossed it."""

from __future__ import annotations

import time

from bridge.clock import PeerClock
from bridge.loop import Loop
from bridge.pace import Pace
from bridge.transport import Connection
from bridge.wire import HEADER_BYTES, Header, Kind


class Link:
    """Lives as long as the endpoint; the connection comes with the peer's HELLO and goes when the peer does."""

    def __init__(self, peer: str, loop: Loop) -> None:
        self.peer = peer
        self.pace: Pace | None = None
        self.clock = PeerClock()
        self.connection: Connection | None = None
        self.heard = 0.0
        self.bytes_sent = self.bytes_received = self.frames_dropped = 0
        self._loop = loop

    def send(self, header: Header, payload: memoryview | None = None) -> None:
        """Queues a frame, after those before it. Nothing happens on a link that is down: its channels are broken."""
        if (connection := self.connection) is None:
            return
        nbytes = HEADER_BYTES + header.length
        self.bytes_sent += nbytes
        if self.pace is None:
            connection.send(header, payload)
        else:
            arrival = self.pace.arrival(nbytes, time.monotonic())
            self._loop.call_at(arrival, lambda: connection.send(header, payload))

    def received(self, header: Header) -> None:
        """Notes a sign of life."""
        self.heard = time.monotonic()
        self.bytes_received += HEADER_BYTES + header.length

    def ping(self) -> None:
        """Asks for a sign of life, past the pace: this is about the process at the other end, not about the link."""
        if self.connection:
            self.connection.send(Header(Kind.PING, sent_ns=time.time_ns()))

    def on_ping(self, header: Header) -> None:
        """Answers."""
        if self.connection:
            now = time.time_ns()
            self.connection.send(Header(Kind.PONG, sequence=header.sent_ns, offset=now, sent_ns=now))

    def on_pong(self, header: Header) -> None:
        """Learns the peer's clock."""
        self.clock.sample(header.sequence, header.offset, header.sent_ns, time.time_ns())

    def stats(self) -> dict[str, int]:
        """Bytes with headers; frames that were dropped because their epoch was closed."""
        return {
            "bytes_sent": self.bytes_sent,
            "bytes_received": self.bytes_received,
            "frames_dropped_epoch": self.frames_dropped,
        }

"""A stream: numbered frames to a peer and from it. It outlives the connections that carry it, one after another."""

from __future__ import annotations

import time
from collections import deque

from bridge.system.awake import AwakeClock
from bridge.transports.transport import Connection
from bridge.trust.seal import Seal
from bridge.words.frame import EMPTY, Frame, FrameKind, Header, wire_error

_SEEN_BYTES = 4 << 20  # after so much the peer is told what has been seen
_SEEN_FRAMES = 64
_MOST_DAMAGE = 8  # connections that end by damage, one after the other, without a frame between


class Stream:
    """Keeps frames until the peer has seen them, and sends those that it has not seen over the next connection.

    Frames are `put` in order and leave when they are `release`d, in the same order: between the two lies the emulated
    part of a link's delay.
    """

    def __init__(self, clock: AwakeClock, index: int = 0) -> None:
        self.index = index
        self._clock = clock
        self.connection: Connection | None = None
        self.seal: Seal | None = None
        self._heard = clock.now()
        self.expected = 0  # number of the peer's next frame
        self.in_flight_bytes = self.repeated = self.duplicates = self.connections = 0
        self.cause = "there is no connection"
        self._kept: deque[Frame] = deque()
        self._bodies: deque[memoryview] = deque()  # of the kept frames that have been sent over this connection
        self._first = self._sent = self._released = 0
        self._unseen_bytes = self._unseen_frames = self._damaged = 0

    # out

    def put(self, frame: Frame) -> None:
        """Takes a frame, to be released later."""
        self._kept.append(frame)
        self.in_flight_bytes += frame.nbytes

    def release(self) -> None:
        """Lets the next frame that was put leave."""
        self._released += 1
        self._flush()

    def send_control(self, header: Header, payload: memoryview = EMPTY) -> None:
        """Sends a frame of the connection itself, past all others; it is lost with the connection. What has been seen
        it tells if the header does."""
        if self.connection:
            self._transmit(header, payload)

    def question(self) -> Header:
        """Asks for a sign of life, and tells how far we are, lest the last frame be lost unnoticed."""
        return Header(FrameKind.PING, number=self._sent, seen=self.expected, sent_ns=time.time_ns())

    def _flush(self) -> None:
        while self.connection and self._sent < self._released:
            header, payload = self._kept[self._sent - self._first]
            number, self._sent = self._sent, self._sent + 1
            self._bodies.append(self._transmit(header._replace(number=number, seen=self.expected), payload))

    def _transmit(self, header: Header, payload: memoryview) -> memoryview:
        assert self.connection
        assert self.seal
        if header.seen == self.expected:
            self._unseen_bytes = self._unseen_frames = 0
        head, body = self.seal.apply(header, payload)
        self.connection.send_frame(head, body)
        return body

    # in

    def heard(self) -> None:
        """The peer has given a sign of life, or is only asked for one from now on."""
        self._heard = self._clock.now()

    @property
    def silence_s(self) -> float:
        """How long the peer has given none, as far as this side was there to hear it."""
        return self._clock.now() - self._heard

    def is_next(self, header: Header) -> bool:
        """Whether a frame is to be taken; False of one that was here before. Raises WireError if one is missing."""
        if header.number > self.expected and (header.kind.numbered or header.kind is FrameKind.PING):
            raise wire_error("number", header.number, f"frame {self.expected} was next")
        if header.kind.numbered and header.number < self.expected:
            self.duplicates += 1
            return False
        return True

    def took(self, header: Header) -> None:
        """A frame that was next is in its place."""
        if header.kind.numbered:
            self._damaged = 0
            self.expected += 1
            self._unseen_bytes += header.length
            self._unseen_frames += 1

    def acknowledge(self) -> None:
        """Tells the peer what has been seen, if that is much and no frame has gone that told it."""
        if self._unseen_bytes >= _SEEN_BYTES or self._unseen_frames >= _SEEN_FRAMES:
            self.send_control(Header(FrameKind.SEEN, seen=self.expected))

    def on_seen(self, number: int) -> None:
        """The peer has seen all frames before `number`. Raises WireError if so many were never sent."""
        if number > self._sent:
            raise wire_error("seen", number, f"{self._sent} frames were sent")
        while self._first < number:
            self.in_flight_bytes -= self._kept.popleft().nbytes
            self._first += 1
            if self._bodies and self.seal:
                self.seal.reuse(self._bodies.popleft())

    # connections

    def attach(self, connection: Connection, seal: Seal, expects: int) -> None:
        """Goes on over a new connection, whose peer expects that frame next. Raises WireError if it is gone."""
        if expects < self._first:
            raise wire_error("expects", expects, f"frames before {self._first} were seen and are gone")
        self._bodies.clear()
        self.on_seen(expects)
        self.connection, self.seal = connection, seal
        self.heard()
        self.connections += 1
        self.repeated += max(0, self._sent - expects)
        self._sent = expects
        self._flush()

    def detach(self, cause: str, *, damaged: bool = False) -> bool:
        """The connection is gone. False if there is no point in another: each one shows the same damage."""
        self.connection, self.seal, self.cause = None, None, cause
        self._damaged += damaged
        return self._damaged <= _MOST_DAMAGE

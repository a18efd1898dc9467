"""The receiving end of a channel: gives credit for posted slots and puts messages together in them."""

from __future__ import annotations

import time
from collections import deque
from typing import Any

from bridge.end import End
from bridge.errors import WireError
from bridge.wire import Header, Kind, checksum


class Incoming(End):
    """Messages go into the posted slots, in the order of posting."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._posted: deque[int] = deque()
        self._credit = self._arrived = self._filled = 0

    def post(self, slot: int) -> None:
        """The rank expects a message in a slot."""
        self._posted.append(slot)
        self._credit += 1
        self.transmit(Kind.CREDIT, self._credit)

    def buffer_for(self, header: Header) -> memoryview:
        """Where a frame's payload goes. Raises WireError unless it is the very next frame."""
        if not self._posted or (header.sequence, header.offset) != (self._arrived, self._filled):
            raise self._wrong(header, f"message {self._arrived} byte {self._filled} was next")
        end = header.offset + header.length
        if end > header.total or header.total > self.spec.slot_bytes:
            raise self._wrong(header, f"it ends at {end} of {header.total} bytes in a slot of {self.spec.slot_bytes}")
        return self.ring.view(self._posted[0])[header.offset : end]

    def on_data(self, header: Header, payload: memoryview) -> None:
        """A frame is in its place. Raises WireError if it was damaged."""
        if checksum(payload) != header.checksum:
            raise self._wrong(header, "its checksum does not match")
        self._filled += header.length
        if self._filled == header.total:
            self._finish(header)

    def _finish(self, header: Header) -> None:
        self._posted.popleft()
        self._filled = 0
        self._arrived += 1
        transfer_s = self.link.clock.elapsed_s(header.sent_ns, time.time_ns())
        self.report("received", bytes=header.total, transfer_s=transfer_s)
        self.transmit(Kind.ACK, header.sequence)

    def _wrong(self, header: Header, rule: str) -> WireError:
        frame = f"message {header.sequence} byte {header.offset} on {self.spec}"
        return WireError("frame", frame, rule, "check the network and the memory of both hosts")

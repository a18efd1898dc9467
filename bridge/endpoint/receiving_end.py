"""The receiving end of a channel: gives credit for posted slots and puts messages together in them."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from bridge.endpoint.channel_end import ChannelEnd
from bridge.errors import WireError
from bridge.link.link import Link
from bridge.port.slots import SlotRing
from bridge.words.channel import PART_BYTES, ChannelSpec
from bridge.words.frame import FrameKind, Header
from bridge.words.port import ChannelReport, Filled, Post, Received


class Filling:
    """How much of a message is in its slot: in all, and without a gap from its first byte on."""

    def __init__(self) -> None:
        self.nbytes = self.prefix = self.told = 0
        self._ends: dict[int, int] = {}  # of stretches that begin behind a gap, by where they begin

    def add(self, offset: int, length: int) -> None:
        self.nbytes += length
        self._ends[offset] = offset + length
        while (end := self._ends.pop(self.prefix, None)) is not None:
            self.prefix = end


class ReceivingEnd(ChannelEnd):
    """Messages go into the posted slots, in the order of posting. Over several streams their frames may come in any
    order; the rank learns of messages in order all the same, and of how far the oldest has come."""

    def __init__(self, spec: ChannelSpec, ring: SlotRing, link: Link, report: Callable[[ChannelReport], None]) -> None:
        super().__init__(spec, ring, link, report)
        self._posted: deque[int] = deque()
        self._credit = self._arrived = 0
        self._filling: dict[int, Filling] = {}  # of messages that have begun
        self._whole: dict[int, tuple[int, float]] = {}  # size and time, of messages that wait for an earlier one

    def post(self, word: Post) -> None:
        """The rank expects a message in a slot. Raises WordError if that is none, or expects one already."""
        self.expect_free(word, self._posted)
        self._posted.append(word.slot)
        self._credit += 1
        self.send_notice(FrameKind.CREDIT, self._credit)

    def place_for(self, header: Header) -> memoryview:
        """Where a frame's payload goes. Raises WireError if no slot waits for it."""
        if not self._arrived <= header.sequence < self._credit:
            raise self._wrong(header, f"slots are posted for messages {self._arrived} to {self._credit - 1}")
        end = header.offset + header.length
        if end > header.total or header.total > self.spec.slot_bytes:
            raise self._wrong(header, f"it ends at {end} of {header.total} bytes in a slot of {self.spec.slot_bytes}")
        return self.ring.view(self._posted[header.sequence - self._arrived])[header.offset : end]

    def on_data(self, header: Header) -> None:
        """A frame is in its place. Raises WireError if its message is longer than it says."""
        filling = self._filling.setdefault(header.sequence, Filling())
        filling.add(header.offset, header.length)
        if filling.nbytes > header.total:
            raise self._wrong(header, f"{filling.nbytes} bytes have come of {header.total}")
        if filling.nbytes == header.total:
            self._finish(header)
        elif header.sequence == self._arrived and filling.prefix >= filling.told + PART_BYTES:
            filling.told = filling.prefix
            self.report(Filled(self.spec.id, filling.prefix))

    def _finish(self, header: Header) -> None:
        transfer_s = self.link.clock.elapsed_s(header.sent_ns, time.time_ns())
        self._whole[header.sequence] = header.total, transfer_s
        while (message := self._whole.pop(self._arrived, None)) is not None:
            self._posted.popleft()
            del self._filling[self._arrived]
            self.report(Received(self.spec.id, *message))
            self.send_notice(FrameKind.ACK, self._arrived)
            self._arrived += 1

    def _wrong(self, header: Header, rule: str) -> WireError:
        frame = f"message {header.sequence} byte {header.offset} on {self.spec}"
        return WireError("frame", frame, rule, "check the network and the memory of both hosts")

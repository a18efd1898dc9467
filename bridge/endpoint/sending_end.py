"""The sending end of a channel: waits for credit, cuts messages into frames, gives slots back on arrival."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

from bridge.endpoint.channel_end import ChannelEnd
from bridge.errors import WireError
from bridge.link.link import Link
from bridge.port.slots import SlotRing
from bridge.words.channel import ChannelSpec
from bridge.words.frame import Frame, FrameKind, Header
from bridge.words.port import ChannelReport, Fill, Send, Sent
from bridge.words.word import refused

_URGENT_BYTES = 1 << 16  # messages that are never longer overtake the bulk of other channels
_IN_TURN = "sync"  # of this, however long, what was given first is needed first


@dataclass
class _QueuedMessage:
    """One that has not left whole: how much of it is in its slot, and how much has left.

    `sent_ns` is when its first bytes could leave, 0 before: they were there, and a slot was posted for them.
    """

    slot: int
    payload: memoryview
    filled: int
    begun: int = 0
    sent_ns: int = 0

    @property
    def ready(self) -> bool:
        """Whether a frame can be cut from it."""
        return self.filled > self.begun or not self.payload

    def cut(self, most: int) -> memoryview:
        """The payload of its next frame."""
        part = self.payload[self.begun : min(self.filled, self.begun + most)]
        self.begun += len(part)
        return part


class SendingEnd(ChannelEnd):
    """Numbers messages from 0. A message leaves when the receiver has posted a slot for it, so that no memory is taken
    by messages that nobody expects, and as far as its rank has filled its own slot."""

    def __init__(self, spec: ChannelSpec, ring: SlotRing, link: Link, report: Callable[[ChannelReport], None]) -> None:
        super().__init__(spec, ring, link, report)
        self._waiting: deque[_QueuedMessage] = deque()
        self._slots: deque[int] = deque()  # of messages that have not arrived
        self._credit = self._sent = self._arrived = 0
        self.link.lend(self.ring)

    def send_message(self, word: Send) -> None:
        """The rank has announced a message and filled its slot so far. Raises WordError if that cannot be."""
        self.expect_free(word, self._slots)
        if not 0 <= word.filled <= word.nbytes <= self.spec.slot_bytes:
            raise refused(word, "nbytes", f"{word.filled} are there, of a slot of {self.spec.slot_bytes}")
        self._slots.append(word.slot)
        self._waiting.append(_QueuedMessage(word.slot, self.ring.view(word.slot)[: word.nbytes], word.filled))
        self._leave()

    def fill(self, word: Fill) -> None:
        """The rank has filled a slot further. Raises WordError if that cannot be."""
        message = next((message for message in self._waiting if message.slot == word.slot), None)
        if message is None or not message.filled <= word.filled <= len(message.payload):
            raise refused(word, "filled", f"slot {word.slot} has no message that is still to be filled so far")
        message.filled = word.filled
        self._leave()

    def on_credit(self, posted: int) -> None:
        """The receiver has posted so many slots, all told."""
        self._credit = max(self._credit, posted)
        self._leave()

    def on_ack(self, sequence: int) -> None:
        """A message has arrived. Raises WireError if it is not the one that must be next."""
        if sequence != self._arrived or sequence >= self._sent:
            raise WireError(
                "ack", sequence, f"of {self._sent} messages sent, {self._arrived} had arrived on {self.spec}"
            )
        self._arrived += 1
        self._slots.popleft()
        self.report(Sent(self.spec.id))

    def next_frame(self) -> Frame | None:
        """See FrameSource."""
        if self.broken or (message := self._next()) is None:
            return None
        place = (self.spec.epoch, self.spec.id, self._sent, message.begun, len(message.payload))
        part = message.cut(self.link.chunk_bytes)
        if message.begun == len(message.payload):
            self._waiting.popleft()
            self._sent += 1
        return Frame(Header(FrameKind.DATA, *place, sent_ns=message.sent_ns, length=len(part)), part)

    def close(self) -> None:
        self.link.withdraw(self)
        self.link.reclaim(self.ring)
        super().close()

    def _next(self) -> _QueuedMessage | None:
        """The message whose turn it is, if something of it can leave."""
        if not self._waiting or self._credit <= self._sent or not self._waiting[0].ready:
            return None
        return self._waiting[0]

    def _leave(self) -> None:
        now = time.time_ns()
        for message in islice(self._waiting, max(0, self._credit - self._sent)):
            if message.ready and not message.sent_ns:
                message.sent_ns = now
        if self.broken or self._next() is None:
            return
        if self.spec.slot_bytes > _URGENT_BYTES or self.spec.purpose == _IN_TURN:
            self.link.offer(self)
        else:
            while (frame := self.next_frame()) is not None:
                self.link.send_frame(frame)

"""The sending end of a channel: waits for credit, cuts messages into frames, gives slots back on arrival."""

from __future__ import annotations

import time
from collections import deque
from typing import Any

from bridge.end import End
from bridge.errors import WireError
from bridge.wire import EMPTY, Frame, Header, Kind

_URGENT_BYTES = 1 << 16  # messages that are never longer overtake the bulk of other channels


class Outgoing(End):
    """Numbers messages from 0. A message leaves when the receiver has posted a slot for it, so that no memory is taken
    by messages that nobody expects."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._waiting: deque[tuple[int, int]] = deque()
        self._could_leave_ns: deque[int] = deque()  # of those of them for which there is credit
        self._credit = self._begun = self._sent = self._arrived = 0
        self._message, self._offset, self._sent_ns = EMPTY, 0, 0
        self.link.lend(self.ring)

    def send(self, slot: int, nbytes: int) -> None:
        """The rank has filled a slot."""
        self._waiting.append((slot, nbytes))
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
        self.report("sent")

    def next_frame(self) -> Frame | None:
        """See Source."""
        if self.broken or (self._begun == self._sent and not self._begin()):
            return None
        offset, total = self._offset, len(self._message)
        chunk = self._message[offset : offset + self.link.chunk_bytes]
        place = (self.spec.epoch, self.spec.id, self._sent, offset, total)
        self._offset += len(chunk)
        self._sent += self._offset == total
        return Frame(Header(Kind.DATA, *place, sent_ns=self._sent_ns, length=len(chunk)), chunk)

    def close(self) -> None:
        self.link.withdraw(self)
        self.link.reclaim(self.ring)
        super().close()

    def _leave(self) -> None:
        could_leave = min(len(self._waiting), self._credit - self._begun)
        if self.broken or could_leave <= 0:
            return
        while len(self._could_leave_ns) < could_leave:
            self._could_leave_ns.append(time.time_ns())
        if self.spec.slot_bytes > _URGENT_BYTES:
            self.link.offer(self)
        else:
            while (frame := self.next_frame()) is not None:
                self.link.send(frame)

    def _begin(self) -> bool:
        if not self._could_leave_ns:
            return False
        slot, nbytes = self._waiting.popleft()
        self._message, self._offset, self._sent_ns = self.ring.view(slot)[:nbytes], 0, self._could_leave_ns.popleft()
        self._begun += 1
        return True

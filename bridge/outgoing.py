"""The sending end of a channel: waits for credit, cuts messages into frames, gives slots back on arrival."""

from __future__ import annotations

import time
from collections import deque
from typing import Any

from bridge.end import End
from bridge.errors import WireError
from bridge.wire import CHUNK_BYTES, Header, Kind, checksum


class Outgoing(End):
    """Numbers messages from 0. A message leaves when the receiver has posted a slot for it, so that no memory is taken
    by messages that nobody expects."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._waiting: deque[tuple[int, int]] = deque()
        self._credit = self._sent = self._arrived = 0

    def send(self, slot: int, nbytes: int) -> None:
        """The rank has filled a slot."""
        self._waiting.append((slot, nbytes))
        self._pump()

    def on_credit(self, posted: int) -> None:
        """The receiver has posted so many slots, all told."""
        self._credit = max(self._credit, posted)
        self._pump()

    def on_ack(self, sequence: int) -> None:
        """A message has arrived. Raises WireError if it is not the one that must be next."""
        if sequence != self._arrived or sequence >= self._sent:
            raise WireError(
                "ack", sequence, f"of {self._sent} messages sent, {self._arrived} had arrived on {self.spec}"
            )
        self._arrived += 1
        self.report("sent")

    def _pump(self) -> None:
        while self._waiting and self._sent < self._credit and not self.broken:
            self._emit(*self._waiting.popleft())
            self._sent += 1

    def _emit(self, slot: int, nbytes: int) -> None:
        message, now = self.ring.view(slot)[:nbytes], time.time_ns()
        for offset in range(0, max(1, nbytes), CHUNK_BYTES):
            chunk = message[offset : offset + CHUNK_BYTES]
            place = (self.spec.epoch, self.spec.id, self._sent, offset, nbytes)
            header = Header(Kind.DATA, *place, checksum(chunk), now, len(chunk))
            self.link.send(header, chunk if chunk else None)

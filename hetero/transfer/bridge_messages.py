"""Messages that cross between pools: out of a chip into a slot part by part, each of which leaves as soon as it is
there, and out of the slot at the other end.

The rank's thread only gives the copies to the chip. A `CopyQueue` waits for them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from functools import partial
from itertools import chain
from math import inf

import torch

from backends.backend import Backend, Copy
from bridge.port.port import Channel, Ticket
from hetero.transfer.copy_queue import CopyQueue
from hetero.transfer.messages import Destination
from hetero.transfer.slot_io import NOTHING, Arrival, SlotReader, SlotWriter
from hetero.transfer.waits import WAIT_S, Waits


class BridgeSender:
    """Never waits while a slot is free, neither for the chip nor for the bridge."""

    def __init__(self, channel: Channel, writer: SlotWriter, queue: CopyQueue, waits: Waits) -> None:
        self._channel, self._writer, self._queue, self._waits = channel, writer, queue, waits
        self._to = channel.spec.target.pool
        self._tickets: list[Ticket | None] = [None] * channel.spec.slots
        self._next = 0

    @property
    def has_room(self) -> bool:
        """Whether `send_pieces` would not wait, by what is known already."""
        ticket = self._tickets[self._next]
        return ticket is None or ticket.settled

    def send_pieces(self, pieces: Sequence[torch.Tensor]) -> None:
        slot, self._next = self._next, (self._next + 1) % len(self._tickets)
        self._finish(slot)
        nbytes, parts = self._writer.write(slot, pieces)
        first = next(parts, NOTHING)
        ticket = self._channel.send_message(slot, nbytes, filled=first.end if first.copy.done() else 0)
        for end, copy in chain([first], parts):
            self._queue.follow(copy, partial(ticket.fill, end))
        self._tickets[slot] = ticket
        self._waits.sent[self._to].nbytes += nbytes

    def drain(self) -> None:
        for slot in range(len(self._tickets)):
            self._finish((self._next + slot) % len(self._tickets))

    def _finish(self, slot: int) -> None:
        if (ticket := self._tickets[slot]) is None:
            return
        watch = self._waits.start()
        ticket.wait(WAIT_S)
        watch.stop()
        self._waits.book([watch], inf, self._waits.sent[self._to])
        self._tickets[slot] = None


class BridgeReceiver:
    """Takes a message to the chip while its rank waits for it, and lets its slot go when the last copy is over.

    The rank is ahead of its chip, so this is beside the work that it gave before. It is so by one message at most,
    which bounds the memory on the chip.
    """

    def __init__(self, channel: Channel, reader: SlotReader, backend: Backend, queue: CopyQueue, waits: Waits) -> None:
        self._channel, self._reader, self._queue, self._waits = channel, reader, queue, waits
        self._from = channel.spec.source.pool
        self._posted: deque[tuple[int, Ticket]] = deque()
        self._leaving: list[Copy] = [Copy()] * channel.spec.slots
        self._next = 0
        self._backend, self._before = backend, Copy()

    def post(self) -> None:
        slot, self._next = self._next, (self._next + 1) % self._channel.spec.slots
        ticket = self._channel.post_recv(slot, free=False)
        self._queue.follow(self._leaving[slot], ticket.free)
        self._posted.append((slot, ticket))

    @property
    def has_come(self) -> bool:
        """Whether `receive_pieces` would not wait, by what is known already."""
        return self._posted[0][1].settled

    def expect(self) -> None:
        """It was posted for long ago."""

    def receive_pieces(self, destinations: Sequence[Destination]) -> list[torch.Tensor]:
        self._before.wait()
        slot, ticket = self._posted.popleft()
        message = Arrival(slot, ticket, self._waits)
        found, self._leaving[slot] = self._reader.read(message, destinations)
        message.book(self._waits.received[self._from])
        self._before = self._backend.mark()
        return found

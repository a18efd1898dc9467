"""Messages that cross between pools: out of a chip into a slot part by part, each of which leaves as soon as it is
there, and out of the slot at the other end.

The rank's thread only gives the copies to the chip. A `Mover` waits for them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import chain
from math import inf
from typing import NamedTuple, Protocol

import torch

from backends.backend import Backend, Copy, Stopwatch
from bridge.errors import WireError
from bridge.port.port import Channel, Ticket
from bridge.words.channel import PART_BYTES
from hetero.transfer.carrier import Crossed, Place, Waits
from hetero.transfer.mover import Mover

WAIT_S = 600.0
"""A rank that waits longer than this for one message gives up with an error that names the channel."""


class Part(NamedTuple):
    """Of a message on its way into a slot: once `copy` is over, its first `end` bytes are there."""

    end: int
    copy: Copy


NOTHING = Part(0, Copy())


class Copies(Copy):
    """Several, in the order in which they are over."""

    def __init__(self, copies: Sequence[Copy]) -> None:
        self._copies = copies

    def done(self) -> bool:
        return all(copy.done() for copy in self._copies)

    def wait(self) -> None:
        for copy in self._copies:
            copy.wait()


class Writer(Protocol):
    """How a message gets into a slot."""

    def write(self, slot: int, pieces: Sequence[torch.Tensor]) -> tuple[int, Iterator[Part]]:
        """The length of the message, and its parts from first to last; each is begun when it is asked for."""


class Arrival:
    """A message that comes into a slot, and the time that its rank waits for it."""

    def __init__(self, slot: int, ticket: Ticket, waits: Waits) -> None:
        self.slot = slot
        self._ticket, self._waits = ticket, waits
        self._watches: list[Stopwatch] = []

    def wait(self, nbytes: int | None = None) -> int:
        """Until its first `nbytes` are in the slot, or all of it is; how much that is."""
        if self._ticket.done(nbytes):
            self._ticket.wait(0.0, nbytes)
        else:
            watch = self._waits.start()
            self._ticket.wait(WAIT_S, nbytes)
            watch.stop()
            self._watches.append(watch)
        return self._ticket.filled

    def book(self, crossed: Crossed) -> None:
        """Once it is whole."""
        crossed.nbytes += self._ticket.nbytes
        self._waits.book(self._watches, self._ticket.transfer_s, crossed)


class Reader(Protocol):
    """How a message gets out of a slot."""

    def read(self, message: Arrival, places: Sequence[Place]) -> tuple[list[torch.Tensor], Copy]:
        """See `Receiver.receive`; and what must be over before the slot is filled again."""


class PlainWriter:
    """Bytes as they are."""

    def __init__(self, channel: Channel, backend: Backend, dtype: torch.dtype, part_bytes: int = PART_BYTES) -> None:
        self._slots, self._backend, self._part_bytes = slot_tensors(channel, dtype), backend, part_bytes

    def write(self, slot: int, pieces: Sequence[torch.Tensor]) -> tuple[int, Iterator[Part]]:
        flat = self._slots[slot]
        return sum(piece.numel() for piece in pieces) * flat.itemsize, self._parts(flat, pieces)

    def _parts(self, flat: torch.Tensor, pieces: Sequence[torch.Tensor]) -> Iterator[Part]:
        begun = end = 0
        copies: list[Copy] = []
        for part in (part for piece in pieces for part in cut(piece, self._part_bytes)):
            host = flat[end : end + part.numel()].view(part.shape)
            end += part.numel()
            copies.append(self._copy(part, host))
            if (end - begun) * flat.itemsize >= self._part_bytes:
                yield Part(end * flat.itemsize, Copies(copies))
                begun, copies = end, []
        if copies:
            yield Part(end * flat.itemsize, Copies(copies))

    def _copy(self, part: torch.Tensor, host: torch.Tensor) -> Copy:
        if part.device.type == self._backend.device.type:
            return self._backend.copy_out(part, host)
        host.copy_(part)  # numbers that a rank has on its host
        return Copy()


class PlainReader:
    """Copies what is in the slot to the chip while the rest is still under way."""

    def __init__(self, channel: Channel, backend: Backend, dtype: torch.dtype, part_bytes: int = PART_BYTES) -> None:
        self._spec, self._slots, self._backend, self._dtype = channel.spec, slot_tensors(channel, dtype), backend, dtype
        self._part_bytes = part_bytes

    def read(self, message: Arrival, places: Sequence[Place]) -> tuple[list[torch.Tensor], Copy]:
        flat, begin = self._slots[message.slot], 0
        found: list[torch.Tensor] = []
        copies: list[Copy] = []
        for place in places:
            tensor = self._backend.landing(place.shape, self._dtype) if place.tensor is None else place.tensor
            found.append(tensor)
            for part in cut(tensor, self._part_bytes):
                end = begin + part.numel()
                self._expect(message, end * flat.itemsize)
                copies.append(self._copy(flat[begin:end].view(part.shape), part, place.fresh or place.tensor is None))
                begin = end
        if (whole := message.wait()) != begin * flat.itemsize:
            raise self._wrong(whole, begin * flat.itemsize)
        return found, Copies(copies)

    def _expect(self, message: Arrival, nbytes: int) -> None:
        if (came := message.wait(nbytes)) < nbytes:
            raise self._wrong(came, nbytes)

    def _wrong(self, came: int, wanted: int) -> WireError:
        rule = f"a message on {self._spec} has another length: {wanted} bytes"
        return WireError("message", f"{came} bytes", rule, "run the same release of hetero on all hosts")

    def _copy(self, host: torch.Tensor, part: torch.Tensor, fresh: bool) -> Copy:
        if part.device.type == self._backend.device.type:
            return self._backend.copy_in(host, part, fresh)
        part.copy_(host)
        return Copy()


class BridgeSender:
    """Never waits while a slot is free, neither for the chip nor for the bridge."""

    def __init__(self, channel: Channel, writer: Writer, mover: Mover, waits: Waits) -> None:
        self._channel, self._writer, self._mover, self._waits = channel, writer, mover, waits
        self._to = channel.spec.target.pool
        self._tickets: list[Ticket | None] = [None] * channel.spec.slots
        self._next = 0

    @property
    def has_room(self) -> bool:
        """Whether `send` would not wait, by what is known already."""
        ticket = self._tickets[self._next]
        return ticket is None or ticket.settled

    def send(self, pieces: Sequence[torch.Tensor]) -> None:
        slot, self._next = self._next, (self._next + 1) % len(self._tickets)
        self._finish(slot)
        nbytes, parts = self._writer.write(slot, pieces)
        first = next(parts, NOTHING)
        ticket = self._channel.send_message(slot, nbytes, filled=first.end if first.copy.done() else 0)
        for end, copy in chain([first], parts):
            self._mover.follow(copy, partial(ticket.fill, end))
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

    def __init__(self, channel: Channel, reader: Reader, backend: Backend, mover: Mover, waits: Waits) -> None:
        self._channel, self._reader, self._mover, self._waits = channel, reader, mover, waits
        self._from = channel.spec.source.pool
        self._posted: deque[tuple[int, Ticket]] = deque()
        self._leaving: list[Copy] = [Copy()] * channel.spec.slots
        self._next = 0
        self._backend, self._before = backend, Copy()

    def post(self) -> None:
        slot, self._next = self._next, (self._next + 1) % self._channel.spec.slots
        ticket = self._channel.post_recv(slot, free=False)
        self._mover.follow(self._leaving[slot], ticket.free)
        self._posted.append((slot, ticket))

    @property
    def has_come(self) -> bool:
        """Whether `receive` would not wait, by what is known already."""
        return self._posted[0][1].settled

    def expect(self) -> None:
        """It was posted for long ago."""

    def receive(self, places: Sequence[Place]) -> list[torch.Tensor]:
        self._before.wait()
        slot, ticket = self._posted.popleft()
        message = Arrival(slot, ticket, self._waits)
        found, self._leaving[slot] = self._reader.read(message, places)
        message.book(self._waits.received[self._from])
        self._before = self._backend.mark()
        return found


def slot_tensors(channel: Channel, dtype: torch.dtype) -> list[torch.Tensor]:
    """A flat host tensor over each slot of a channel."""
    return [torch.frombuffer(channel.slots.view(slot), dtype=dtype) for slot in range(channel.spec.slots)]


def cut(tensor: torch.Tensor, most_bytes: int) -> Iterator[torch.Tensor]:
    """A tensor in parts that follow each other in row-major order: whole rows, as many as fit into `most_bytes`."""
    if tensor.nbytes <= most_bytes:
        yield tensor
        return
    rows = most_bytes * len(tensor) // tensor.nbytes
    for part in tensor.split(max(1, rows)):
        if rows:
            yield part
        else:
            yield from cut(part[0], most_bytes)

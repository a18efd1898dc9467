"""Messages that cross between pools: out of a chip into a slot part by part, each of which leaves as soon as it is
there, and out of the slot at the other end.

The rank's thread only gives the copies to the chip. A `Mover` waits for them.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import chain
from typing import NamedTuple, Protocol

import torch

from backends.backend import Backend, Copy
from bridge.channel import PART_BYTES
from bridge.port import Channel, Ticket
from hetero.engine.carrier import Waits
from hetero.engine.mover import Mover

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


class Reader(Protocol):
    """How a message gets out of a slot: as a flat tensor, in the slot itself where it `lends`."""

    lends: bool

    def read(self, slot: int, nbytes: int) -> torch.Tensor: ...


class PlainWriter:
    """Bytes as they are."""

    def __init__(self, channel: Channel, backend: Backend, dtype: torch.dtype) -> None:
        self._slots, self._backend = slot_tensors(channel, dtype), backend

    def write(self, slot: int, pieces: Sequence[torch.Tensor]) -> tuple[int, Iterator[Part]]:
        flat = self._slots[slot]
        return sum(piece.numel() for piece in pieces) * flat.itemsize, self._parts(flat, pieces)

    def _parts(self, flat: torch.Tensor, pieces: Sequence[torch.Tensor]) -> Iterator[Part]:
        begun = end = 0
        copies: list[Copy] = []
        for part in chain.from_iterable(map(cut, pieces)):
            host = flat[end : end + part.numel()].view(part.shape)
            end += part.numel()
            copies.append(self._copy(part, host))
            if (end - begun) * flat.itemsize >= PART_BYTES:
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
    lends = True

    def __init__(self, channel: Channel, dtype: torch.dtype) -> None:
        self._slots = slot_tensors(channel, dtype)

    def read(self, slot: int, nbytes: int) -> torch.Tensor:
        flat = self._slots[slot]
        return flat[: nbytes // flat.element_size()]


class BridgeSender:
    """Never waits while a slot is free, neither for the chip nor for the bridge."""

    def __init__(self, channel: Channel, writer: Writer, mover: Mover, waits: Waits) -> None:
        self._channel, self._writer, self._mover, self._waits = channel, writer, mover, waits
        self._to = channel.spec.target.pool
        self._tickets: list[Ticket | None] = [None] * channel.spec.slots
        self._next = 0

    def send(self, pieces: Sequence[torch.Tensor]) -> None:
        slot, self._next = self._next, (self._next + 1) % len(self._tickets)
        self._finish(slot)
        nbytes, parts = self._writer.write(slot, pieces)
        first = next(parts, NOTHING)
        ticket = self._channel.send(slot, nbytes, filled=first.end if first.copy.done() else 0)
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
        began = time.perf_counter()
        ticket.wait(WAIT_S)
        waited = time.perf_counter() - began
        self._waits.sent[self._to].waited_s += self._waits.took(waited, waited)
        self._tickets[slot] = None


class BridgeReceiver:
    def __init__(self, channel: Channel, reader: Reader, waits: Waits) -> None:
        self._channel, self._reader, self._waits = channel, reader, waits
        self.lends = reader.lends
        self._from = channel.spec.source.pool
        self._posted: deque[tuple[int, Ticket]] = deque()
        self._next = 0

    def post(self) -> None:
        slot, self._next = self._next, (self._next + 1) % self._channel.spec.slots
        self._posted.append((slot, self._channel.post_recv(slot)))

    def wait(self) -> torch.Tensor:
        slot, ticket = self._posted.popleft()
        began = time.perf_counter()
        ticket.wait(WAIT_S)
        crossed = self._waits.received[self._from]
        crossed.waited_s += self._waits.took(time.perf_counter() - began, ticket.transfer_s)
        crossed.nbytes += ticket.nbytes
        return self._reader.read(slot, ticket.nbytes)

    def release(self) -> None:
        """A slot returns to the ring by being posted again, after its bytes have left it."""


def slot_tensors(channel: Channel, dtype: torch.dtype) -> list[torch.Tensor]:
    """A flat host tensor over each slot of a channel."""
    return [torch.frombuffer(channel.slots.view(slot), dtype=dtype) for slot in range(channel.spec.slots)]


def cut(tensor: torch.Tensor, most_bytes: int = PART_BYTES) -> Iterator[torch.Tensor]:
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

"""Two ways for a message of known size to get from rank to rank: the pool's own world, or the bridge.

A message is a row of tensor pieces, packed end to end. Senders never block compute while a slot is free; receivers post
ahead of need and hand out pieces in place.
"""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
import torch.distributed as dist

from backends.backend import Backend
from bridge.port import Channel, Ticket

WAIT_S = 600.0
"""A rank that waits longer than this for one message gives up with an error that names the channel."""


@dataclass
class Crossed:
    """One direction of a link, as one rank sees it: what crossed it, and how long the rank stood still for that."""

    nbytes: int = 0
    waited_s: float = 0.0


@dataclass
class Waits:
    """Seconds a rank stood still since the last reading: for a link, and for somebody's work. `sent` and `received` say
    what crossed the bridge, by the pool at the other end."""

    link_s: float = 0.0
    work_s: float = 0.0
    sent: defaultdict[str, Crossed] = field(default_factory=lambda: defaultdict(Crossed))
    received: defaultdict[str, Crossed] = field(default_factory=lambda: defaultdict(Crossed))

    def clear(self) -> None:
        self.link_s = self.work_s = 0.0
        self.sent.clear()
        self.received.clear()

    def took(self, seconds: float, transfer_s: float = 0.0) -> float:
        """The part of a wait during which the message was on its way is the link's fault, and returned; the rest is its
        sender's."""
        link_s = min(seconds, transfer_s)
        self.link_s += link_s
        self.work_s += seconds - link_s
        return link_s


class Sender(Protocol):
    """One end of a one-way row of messages."""

    def send(self, pieces: Sequence[torch.Tensor]) -> None:
        """Returns once the pieces may not be needed again, or are kept alive here; they must not be written to."""

    def drain(self) -> None:
        """Waits until everything sent has arrived."""


class Receiver(Protocol):
    """The other end. `wait` gives the oldest posted message: the caller's to keep, unless the receiver lends it."""

    lends: bool
    """Whether the memory of a message is valid only until `release`."""

    def post(self) -> None: ...

    def wait(self) -> torch.Tensor:
        """The message as a flat tensor, perhaps in host memory."""

    def release(self) -> None: ...


class NativeSender:
    def __init__(self, group: dist.ProcessGroup, target: int, tag: int) -> None:
        self._group, self._target, self._tag = group, target, tag
        self._pending: deque[tuple[Any, torch.Tensor]] = deque()

    def send(self, pieces: Sequence[torch.Tensor]) -> None:
        while self._pending and self._pending[0][0].is_completed():
            self._pending.popleft()
        flat = pieces[0].reshape(-1) if len(pieces) == 1 else torch.cat([piece.reshape(-1) for piece in pieces])
        self._pending.append((dist.isend(flat, self._target, group=self._group, tag=self._tag), flat))

    def drain(self) -> None:
        while self._pending:
            self._pending.popleft()[0].wait()


class NativeReceiver:
    lends = False

    def __init__(
        self, group: dist.ProcessGroup, source: int, tag: int, empty: Callable[[], torch.Tensor], waits: Waits
    ) -> None:
        self._group, self._source, self._tag, self._empty, self._waits = group, source, tag, empty, waits
        self._posted: deque[tuple[Any, torch.Tensor]] = deque()

    def post(self) -> None:
        flat = self._empty()
        self._posted.append((dist.irecv(flat, self._source, group=self._group, tag=self._tag), flat))

    def wait(self) -> torch.Tensor:
        work, flat = self._posted.popleft()
        began = time.perf_counter()
        work.wait()
        self._waits.took(time.perf_counter() - began)
        return flat

    def release(self) -> None:
        """The tensor belongs to whoever waited for it."""


class Writer(Protocol):
    """How a message gets into a slot."""

    def write(self, slot: int, pieces: Sequence[torch.Tensor]) -> int:
        """Returns the length of the message, which is whole in the slot."""


class Reader(Protocol):
    """How a message gets out of a slot: as a flat tensor, in the slot itself where it `lends`."""

    lends: bool

    def read(self, slot: int, nbytes: int) -> torch.Tensor: ...


class PlainWriter:
    """Bytes as they are."""

    def __init__(self, channel: Channel, backend: Backend, dtype: torch.dtype) -> None:
        self._slots, self._backend = slot_tensors(channel, dtype), backend

    def write(self, slot: int, pieces: Sequence[torch.Tensor]) -> int:
        flat, start = self._slots[slot], 0
        for piece in pieces:
            self._backend.copy_out(piece, flat[start : start + piece.numel()].view(piece.shape))
            start += piece.numel()
        self._backend.synchronize()
        return start * flat.element_size()


class PlainReader:
    lends = True

    def __init__(self, channel: Channel, dtype: torch.dtype) -> None:
        self._slots = slot_tensors(channel, dtype)

    def read(self, slot: int, nbytes: int) -> torch.Tensor:
        flat = self._slots[slot]
        return flat[: nbytes // flat.element_size()]


class BridgeSender:
    def __init__(self, channel: Channel, writer: Writer, waits: Waits) -> None:
        self._channel, self._writer, self._waits = channel, writer, waits
        self._to = channel.spec.target.pool
        self._tickets: list[Ticket | None] = [None] * channel.spec.slots
        self._next = 0

    def send(self, pieces: Sequence[torch.Tensor]) -> None:
        slot, self._next = self._next, (self._next + 1) % len(self._tickets)
        self._finish(slot)
        nbytes = self._writer.write(slot, pieces)
        self._tickets[slot] = self._channel.send(slot, nbytes)
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

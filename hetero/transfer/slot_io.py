"""How a message gets from a chip into a slot, and out of one: part by part, while its other parts are on their way."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

import torch

from backends.backend import Backend, Copy, Stopwatch
from bridge.errors import WireError
from bridge.port.port import Channel, Ticket
from bridge.words.channel import PART_BYTES
from hetero.transfer.messages import Destination
from hetero.transfer.waits import WAIT_S, Crossed, Waits


class FilledPart(NamedTuple):
    """Of a message on its way into a slot: once `copy` is over, its first `end` bytes are there."""

    end: int
    copy: Copy


NOTHING = FilledPart(0, Copy())


class CopySequence(Copy):
    """Several, in the order in which they are over."""

    def __init__(self, copies: Sequence[Copy]) -> None:
        self._copies = copies

    def done(self) -> bool:
        return all(copy.done() for copy in self._copies)

    def wait(self) -> None:
        for copy in self._copies:
            copy.wait()


class SlotWriter(Protocol):
    """How a message gets into a slot."""

    def write(self, slot: int, pieces: Sequence[torch.Tensor]) -> tuple[int, Iterator[FilledPart]]:
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


class SlotReader(Protocol):
    """How a message gets out of a slot."""

    def read(self, message: Arrival, destinations: Sequence[Destination]) -> tuple[list[torch.Tensor], Copy]:
        """See `Receiver.receive_pieces`; and what must be over before the slot is filled again."""


class PlainWriter:
    """Bytes as they are."""

    def __init__(self, channel: Channel, backend: Backend, dtype: torch.dtype, part_bytes: int = PART_BYTES) -> None:
        self._slots, self._backend, self._part_bytes = slot_tensors(channel, dtype), backend, part_bytes

    def write(self, slot: int, pieces: Sequence[torch.Tensor]) -> tuple[int, Iterator[FilledPart]]:
        flat = self._slots[slot]
        return sum(piece.numel() for piece in pieces) * flat.itemsize, self._parts(flat, pieces)

    def _parts(self, flat: torch.Tensor, pieces: Sequence[torch.Tensor]) -> Iterator[FilledPart]:
        begun = end = 0
        copies: list[Copy] = []
        for part in (part for piece in pieces for part in cut(piece, self._part_bytes)):
            host = flat[end : end + part.numel()].view(part.shape)
            end += part.numel()
            copies.append(self._copy(part, host))
            if (end - begun) * flat.itemsize >= self._part_bytes:
                yield FilledPart(end * flat.itemsize, CopySequence(copies))
                begun, copies = end, []
        if copies:
            yield FilledPart(end * flat.itemsize, CopySequence(copies))

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

    def read(self, message: Arrival, destinations: Sequence[Destination]) -> tuple[list[torch.Tensor], Copy]:
        flat, begin = self._slots[message.slot], 0
        found: list[torch.Tensor] = []
        copies: list[Copy] = []
        for destination in destinations:
            tensor = (
                self._backend.landing(destination.shape, self._dtype)
                if destination.tensor is None
                else destination.tensor
            )
            found.append(tensor)
            for part in cut(tensor, self._part_bytes):
                end = begin + part.numel()
                self._expect(message, end * flat.itemsize)
                copies.append(
                    self._copy(flat[begin:end].view(part.shape), part, destination.fresh or destination.tensor is None)
                )
                begin = end
        if (whole := message.wait()) != begin * flat.itemsize:
            raise self._wrong(whole, begin * flat.itemsize)
        return found, CopySequence(copies)

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
